"""Beam search over `encode`, `start` and `step`; it knows nothing else of a model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nmt.data import BOS, EOS, PAD, source_batches
from nmt.models.base import Seq2Seq, State


@dataclass
class SearchConfig:
    """How a translation is found; the same everywhere (validation, evaluation, translation).

    beam: live hypotheses; 1 is greedy search.
    batch_size: sentences decoded at a time; it does not change what is found.
    length_penalty: a finished hypothesis scores log p / length^length_penalty, end token counted; 0 = plain log p,
        1 = mean log p per token.
    max_ratio, max_extra: a hypothesis has at most max_ratio · (source length) + max_extra tokens before its end token.
    num_best: finished hypotheses wanted per sentence.
    """

    beam: int = 5
    batch_size: int = 64
    length_penalty: float = 1.0
    max_ratio: float = 2.0
    max_extra: int = 10
    num_best: int = 1

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        for option in ("beam", "batch_size", "num_best"):
            if getattr(self, option) < 1:
                raise ValueError(f"search.{option}={getattr(self, option)}: must be at least 1")
        for option in ("length_penalty", "max_ratio", "max_extra"):
            if not 0 <= getattr(self, option) < math.inf:
                raise ValueError(f"search.{option}={getattr(self, option)}: must be a number of at least 0")
        if self.num_best > self.beam:
            raise ValueError(f"search.num_best={self.num_best}: cannot be more than search.beam={self.beam}")


class Hypothesis(NamedTuple):
    """A finished translation.

    tokens: ids without begin and end token.
    score: log_prob / (len(tokens) + 1) ** length_penalty.
    log_prob: natural logarithm of its probability, end token included.
    weights: (L, H, T, S) attention weights collected along the beam when asked for, T = len(tokens) + 1.
    cut: it ended because it had reached the longest length allowed.
    """

    tokens: list[int]
    score: float
    log_prob: float
    weights: Tensor | None = None
    cut: bool = False


class _Beam:
    """Live hypotheses of the sentences that are not finished yet, rows ordered (sentence, beam)."""

    def __init__(
        self, model: Seq2Seq, source: Tensor, source_mask: Tensor, config: SearchConfig, attention: bool
    ) -> None:
        self.model, self.config, self.attention = model, config, attention
        num, beam = source.size(0), config.beam
        memory = model.encode(source, source_mask)
        self.memory = {name: tensor.repeat_interleave(beam, 0) for name, tensor in memory.items()}
        self.state = model.start(self.memory)
        self.log_probs = source.new_full((num, beam), -math.inf, dtype=torch.float32)
        self.log_probs[:, 0] = 0.0  # all beams are alike before the first token
        self.tokens = source.new_full((num, beam, 1), BOS)  # (B, K, 1 + t)
        self.weights: Tensor | None = None  # (B * K, L, H, t, S)
        lengths = source_mask.sum(1) - 1  # without the end token
        self.limits = (config.max_ratio * lengths).ceil().long() + config.max_extra  # (B,)
        self.sentences = list(range(num))
        self.finished: list[list[Hypothesis]] = [[] for _ in range(num)]

    def expand(self) -> tuple[Tensor, Tensor, Tensor]:
        """One step: the best candidates of every sentence as log-probabilities, beams and tokens, each (B, C)."""
        num, beam = self.log_probs.shape
        logits, record, self.state = self.model.step(
            self.tokens[:, :, -1].reshape(-1), self.state, self.memory, attention=self.attention
        )
        if record is not None:
            self.weights = record.cross if self.weights is None else torch.cat([self.weights, record.cross], dim=3)
        log_p = torch.log_softmax(logits.float(), dim=-1).view(num, beam, -1)  # (B, K, V)
        log_p[:, :, [PAD, BOS]] = -math.inf
        ends = log_p[:, :, EOS].clone()
        # At the longest length allowed only the end may follow.
        log_p.masked_fill_((self.tokens.size(2) - 1 >= self.limits).view(-1, 1, 1), -math.inf)
        log_p[:, :, EOS] = ends
        total = (self.log_probs.unsqueeze(-1) + log_p).view(num, -1)  # (B, K * V)
        # 2K candidates hold at least K that do not end. With one beam, the end of the best is the end of the search.
        best, index = total.topk(min(2 * beam if beam > 1 else 1, total.size(1)), dim=-1)
        size = log_p.size(-1)
        return best, index // size, index % size

    def finish(self, best: Tensor, beams: Tensor, ended: Tensor) -> None:
        """Takes ended candidates (B, C) into the finished hypotheses."""
        length = self.tokens.size(2)  # tokens + end token
        for row, column in ended.nonzero().tolist():
            beam = int(beams[row, column])
            log_prob = float(best[row, column])
            weights = self.weights[row * self.config.beam + beam] if self.weights is not None else None
            score, cut = log_prob / length**self.config.length_penalty, length > int(self.limits[row])
            hypothesis = Hypothesis(self.tokens[row, beam, 1:].tolist(), score, log_prob, weights, cut)
            pool = self.finished[self.sentences[row]]
            pool.append(hypothesis)
            pool.sort(key=lambda h: -h.score)
            del pool[self.config.num_best :]

    def advance(self, best: Tensor, beams: Tensor, tokens: Tensor, ended: Tensor) -> None:
        """Keeps the K best candidates that have not ended, and drops the sentences that cannot improve any more."""
        beam = self.config.beam
        live = best.masked_fill(ended, -math.inf)
        self.log_probs, order = live.topk(min(beam, live.size(1)), dim=-1)
        if order.size(1) < beam:  # fewer candidates than beams: only with tiny vocabularies
            missing = beam - order.size(1)
            self.log_probs = torch.nn.functional.pad(self.log_probs, (0, missing), value=-math.inf)
            order = torch.nn.functional.pad(order, (0, missing))
        chosen, last = beams.gather(1, order), tokens.gather(1, order)  # (B, K)
        going = [row for row, sentence in enumerate(self.sentences) if not self._is_done(row, sentence)]
        rows = torch.tensor(going, dtype=torch.long, device=best.device)
        self.sentences = [self.sentences[row] for row in going]
        self.log_probs, self.limits = self.log_probs[rows], self.limits[rows]
        chosen, last = chosen[rows], last[rows]
        self.tokens = torch.cat([self.tokens[rows.unsqueeze(1), chosen], last.unsqueeze(-1)], dim=-1)
        flat = (rows.unsqueeze(1) * beam + chosen).view(-1)  # (B * K,)
        self.state = _select(self.state, flat)
        if self.weights is not None:
            self.weights = self.weights[flat]
        if len(going) < best.size(0):  # memory is the same for all beams of a sentence: only leaving sentences move it
            self.memory = _select(self.memory, flat)

    def _is_done(self, row: int, sentence: int) -> bool:
        """Log-probabilities only fall, so no live hypothesis can end above log p / (longest length)^penalty."""
        live, pool = float(self.log_probs[row, 0]), self.finished[sentence]
        if live == -math.inf:
            return True
        longest = int(self.limits[row]) + 1
        bound = live / longest**self.config.length_penalty
        return len(pool) == self.config.num_best and pool[-1].score >= bound


def _select(state: State, rows: Tensor) -> State:
    return {name: tensor.index_select(0, rows) for name, tensor in state.items()}


@torch.no_grad()
def search(
    model: Seq2Seq, source: Tensor, source_mask: Tensor, config: SearchConfig, *, attention: bool = False
) -> list[list[Hypothesis]]:
    """The best translations of a batch.

    Args:
        model: in evaluation mode.
        source: (B, S) ids with end token. source_mask: (B, S).
        config: see `SearchConfig`; batch_size is not used here.
        attention: collect the weights along the beam.

    Returns:
        for each sentence its finished hypotheses, best first, at most `num_best`.
    """
    beam = _Beam(model, source, source_mask, config, attention)
    while beam.sentences:
        best, beams, tokens = beam.expand()
        ended = (tokens == EOS) & (best > -math.inf)
        beam.finish(best, beams, ended)
        beam.advance(best, beams, tokens, tokens == EOS)
    return beam.finished


def decode(
    model: Seq2Seq, sources: Sequence[Sequence[int]], config: SearchConfig, device: torch.device
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Translates any number of sentences, sorted by length and in batches.

    Args:
        model: in evaluation mode, on `device`.
        sources: ids without end token.

    Yields:
        (index in `sources`, hypotheses), longest sources first.
    """
    for batch in source_batches(sources, config.batch_size):
        found = search(model, batch.source.to(device), batch.source_mask.to(device), config)
        yield from zip(batch.indices.tolist(), found, strict=True)
