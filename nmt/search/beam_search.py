"""Beam search: the best of what the beam can see."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nmt.data import BOS, EOS
from nmt.models.seq2seq import Seq2Seq
from nmt.search.config import SearchConfig
from nmt.search.decoder_state import DecoderRows
from nmt.search.scoring import Floats, Hypothesis, Ints, coverage_penalty, length_norm

TOPK_BLOCK_WIDTHS = (100, 96, 80, 64, 125, 128, 120, 75, 50, 32)
"""Widths of blocks in which the best tokens of a large vocabulary are looked for, those preferred first."""


class Candidates(NamedTuple):
    """C continuations of each lane, the best first: log-probabilities of the whole, places (slots in the lane) of the
    hypotheses that they continue, and their tokens, (N, C) each; `ends` where the token is the end token."""

    log_probs: Floats
    slots: Ints
    tokens: Ints

    @property
    def is_eos(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        ended: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (self.tokens == EOS) & (self.log_probs > -np.inf)
        return ended


class BeamSearch:
    """Beam search over a batch, step by step.

    In each step the 2K best continuations of a sentence are looked at: those that end are finished hypotheses, the K
    best others live on. 2K of them hold K that do not end, so the beam is always full. With K = 1 only the best is
    looked at: greedy search.

    A live hypothesis with log p cannot score above log p / norm(longest length), because log-probabilities only fall,
    norms only grow with length, and the coverage penalty is at most 0. One that cannot score above the worst of
    `n_best` finished ones is dropped; what the beam would hold in its place is less probable still. A sentence is
    done when no live hypothesis is left, and the finished ones are then the best that this beam could find. With
    `stop=beam` a lane is also done when K of its hypotheses have ended that were among the K best of their step.

    With groups the K hypotheses are G *lanes* of K / G, each with a beam of its own (Vijayakumar et al. 2018). A lane
    looks for K finished ones whatever `n_best` is: later groups keep clear of what earlier ones still hold, so the
    best translation would depend on how many are wanted. Where groups agree there are enough others.

    Args:
        model: in evaluation mode.
        source: (B, S) ids with end token. source_mask: (B, S).
        config: see `SearchConfig`.
        attention: collect the weights along the beam.
        prefixes: ids that each translation must begin with.

    Raises:
        ValueError: a coverage penalty for a model without attention, or ids that no prefix can hold.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: Tensor,
        source_mask: Tensor,
        config: SearchConfig,
        *,
        attention: bool = False,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.config, self.attention = config, attention
        self.rows = DecoderRows(model, source, source_mask, config, prefixes)
        num, self.groups = len(self.rows.sentences), config.diverse_groups
        self.size = config.beam_size // self.groups
        self.wanted = config.n_best if self.groups == 1 else config.beam_size  # finished hypotheses of a lane
        self.log_probs: Floats = np.full((num * self.groups, self.size), -np.inf)  # (N lanes, slots)
        self.log_probs[:, 0] = np.where(np.repeat(self.rows.is_real_sentence, self.groups), 0.0, -np.inf)
        self.last: Ints = np.full(num * config.beam_size, BOS)
        self.coverage: Floats | None = (
            np.zeros((num * config.beam_size, source.size(1))) if config.coverage_penalty else None
        )
        self.source_mask = source_mask.cpu().numpy()
        self.weights: Tensor | None = None  # (R, L, H, t, S)
        # finished hypotheses of every lane of the call, the best first
        self.pools: list[list[Hypothesis]] = [[] for _ in range(self.rows.num * self.groups)]
        self.score_to_beat: Floats = np.full(num * self.groups, -np.inf)  # the score to beat, of present lanes
        self.ended: Ints = np.zeros(num * self.groups, np.int64)  # how many were among the best of their step

    @property
    def done(self) -> bool:
        """Whether every sentence has been translated."""
        return not (self.log_probs > -np.inf).any()

    def step(self) -> None:
        """One more token of every live hypothesis."""
        wants_weights = self.attention or self.coverage is not None
        log_probs, weights = self.rows.step(self.last, attention=wants_weights)
        if wants_weights:
            self._record_attention(weights)
        values, tokens = self._top_tokens(log_probs)
        chosen = self._select_candidates(values, tokens)
        self._finish_hypotheses(chosen)
        self._advance_beams(chosen)
        self._compact_batch()

    def results(self) -> list[list[Hypothesis]]:
        """The finished hypotheses of every sentence of the call, best first, at most `n_best`.

        With groups the best of every group come before the second of any, and of these the better ones.
        """
        found = []
        for sentence in range(self.rows.num):
            pools = self.pools[sentence * self.groups : (sentence + 1) * self.groups]
            distinct: dict[tuple[int, ...], Hypothesis] = {}
            for rank in range(self.config.n_best):
                best = [pool[rank] for pool in pools if rank < len(pool)]
                for hypothesis in sorted(best, key=_by_score):
                    distinct.setdefault(tuple(hypothesis.tokens), hypothesis)
            found.append(sorted(list(distinct.values())[: self.config.n_best], key=_by_score))
        return found

    def best_so_far(self) -> list[list[int]]:
        """The tokens of the most promising hypothesis of every sentence of the call, live or finished, so far."""
        found = [pools[0].tokens if pools else [] for pools in self.pools[:: self.groups]]
        norm = float(length_norm(self.config, self.rows.position + 1))
        for present, sentence in enumerate(self.rows.sentences.tolist()):
            lane, pool = present * self.groups, self.pools[sentence * self.groups] if sentence < self.rows.num else []
            slot = int(self.log_probs[lane].argmax())
            live = float(self.log_probs[lane, slot]) / norm
            if sentence < self.rows.num and live > (pool[0].score if pool else -np.inf):
                row = present * self.config.beam_size + slot
                found[sentence] = self.rows.tokens[row, : self.rows.position].tolist()
        return found

    def _record_attention(self, weights: Tensor | None) -> None:
        if weights is None:
            if self.coverage is not None:
                raise ValueError(
                    f"search.coverage_penalty={self.config.coverage_penalty}: the model has no attention; set it to 0"
                )
            return
        if self.attention:
            self.weights = weights if self.weights is None else torch.cat([self.weights, weights], dim=3)
        if self.coverage is not None:
            self.coverage += weights.mean((1, 2))[:, 0].double().cpu().numpy()

    def _top_tokens(self, log_probs: Tensor) -> tuple[Floats, Ints]:
        """Log-probabilities and ids of the best tokens of each row, (R, C) each."""
        # of a row's candidates at most K - K/G can lose their place to what earlier groups chose
        wanted = 1 if self.config.beam_size == 1 else self.config.beam_size + self.size
        values, tokens = _blocked_topk(log_probs, min(wanted, log_probs.size(1)))
        both = torch.stack([values.double(), tokens.double()]).cpu().numpy()  # one transfer
        return both[0], both[1].astype(np.int64)

    def _select_candidates(self, values: Floats, tokens: Ints) -> Candidates:
        """The candidates of every lane."""
        num, width = len(self.rows.sentences), values.shape[1]
        wanted = 1 if self.config.beam_size == 1 else min(2 * self.size, self.size * width)
        shape = (num, self.groups, self.size * width)
        totals = (self.log_probs[:, :, None] + values.reshape(-1, self.size, width)).reshape(shape)
        by_lane = tokens.reshape(shape)
        order: Ints = np.empty((num, self.groups, wanted), np.int64)
        taken: Ints = np.empty((num, 0), np.int64)
        for group in range(self.groups):
            worth = totals[:, group]
            if group:
                times = (by_lane[:, group, :, None] == taken[:, None]).sum(-1)
                worth = worth - self.config.diversity_penalty * times
            best = np.argsort(-worth, axis=1, kind="stable")[:, :wanted]
            order[:, group] = best
            if group < self.groups - 1:
                mine = np.take_along_axis(by_lane[:, group], best, 1)
                gone = (mine == EOS) | (np.take_along_axis(worth, best, 1) == -np.inf)
                going = np.argsort(gone, axis=1, kind="stable")[:, : self.size]
                mine = np.where(gone, -1, mine)  # what no hypothesis goes on with costs nobody anything
                taken = np.concatenate([taken, np.take_along_axis(mine, going, 1)], axis=1)
        flat = order.reshape(num * self.groups, wanted)
        lanes = (num * self.groups, shape[2])
        return Candidates(
            np.take_along_axis(totals.reshape(lanes), flat, 1),
            flat // width,
            np.take_along_axis(by_lane.reshape(lanes), flat, 1),
        )

    def _finish_hypotheses(self, chosen: Candidates) -> None:
        """Takes candidates that end into the finished hypotheses."""
        ends = chosen.is_eos
        if not ends.any():
            return
        self.ended += ends[:, : self.size].sum(1)
        position = self.rows.position
        lanes, columns = np.nonzero(ends)
        log_probs, places = chosen.log_probs[lanes, columns], chosen.slots[lanes, columns]
        scores = log_probs / length_norm(self.config, position + 1)
        rows = lanes * self.size + places
        present = lanes // self.groups
        sentences = self.rows.sentences[present]
        if self.coverage is not None:
            real = self.source_mask[sentences]
            scores = scores + coverage_penalty(self.config, np.where(real, self.coverage[rows], 1.0))
        cut = position >= self.rows.constraints.most[present]
        for i in np.nonzero(scores > self.score_to_beat[lanes])[0].tolist():
            lane, row = int(lanes[i]), int(rows[i])
            pool = self.pools[int(sentences[i]) * self.groups + lane % self.groups]
            weights = None if self.weights is None else self.weights[row].clone()
            tokens = self.rows.tokens[row, :position].tolist()
            pool.append(Hypothesis(tokens, float(scores[i]), float(log_probs[i]), weights, bool(cut[i])))
            pool.sort(key=_by_score)
            del pool[self.wanted :]
            if len(pool) == self.wanted:
                self.score_to_beat[lane] = pool[-1].score

    def _advance_beams(self, chosen: Candidates) -> None:
        """The K best candidates that do not end take the slots; a hypothesis with one continuation keeps its own."""
        ended = chosen.tokens == EOS
        order = np.argsort(ended, axis=1, kind="stable")[:, : self.size]
        if order.shape[1] < self.size:  # fewer candidates than slots: only with tiny vocabularies
            order = np.pad(order, ((0, 0), (0, self.size - order.shape[1])), constant_values=-1)
        index = np.maximum(order, 0)
        log_probs = np.take_along_axis(chosen.log_probs, index, 1)
        gone = (order < 0) | np.take_along_axis(ended, index, 1)
        log_probs = np.where(gone, -np.inf, log_probs)
        longest = np.repeat(self.rows.constraints.most + 1, self.groups)[:, None]
        hopeless = log_probs / length_norm(self.config, longest) <= self.score_to_beat[:, None]
        log_probs = np.where(hopeless, -np.inf, log_probs)
        if self.config.beam_size == 1:  # greedy search ends with its best token
            log_probs[self.score_to_beat > -np.inf] = -np.inf
        if self.config.early_stopping == "beam":
            log_probs[self.ended >= self.size] = -np.inf
        places = np.take_along_axis(chosen.slots, index, 1)
        tokens = np.take_along_axis(chosen.tokens, index, 1)
        slots, copied = _assign_slots(places, log_probs > -np.inf)
        lanes = np.arange(len(places))[:, None]
        lane, column = np.nonzero(copied)
        to, of = lane * self.size + slots[lane, column], lane * self.size + places[lane, column]
        self.rows.reorder(to, of)
        if self.weights is not None:
            self.weights[torch.from_numpy(to)] = self.weights[torch.from_numpy(of)]
        if self.coverage is not None:
            self.coverage[to] = self.coverage[of]
        self.log_probs[lanes, slots] = log_probs
        last = np.empty_like(tokens)
        last[lanes, slots] = tokens
        self.last = last.ravel()
        self.rows.append(self.last)

    def _compact_batch(self) -> None:
        """Sentences without live hypotheses leave the batch, when that pays."""
        live = (self.log_probs > -np.inf).reshape(-1, self.config.beam_size).any(1)
        stay = self.rows.compact(np.nonzero(live)[0])
        if stay is None:
            return
        lanes = (stay[:, None] * self.groups + np.arange(self.groups)).ravel()
        rows = (stay[:, None] * self.config.beam_size + np.arange(self.config.beam_size)).ravel()
        self.log_probs, self.score_to_beat, self.ended = (
            self.log_probs[lanes],
            self.score_to_beat[lanes],
            self.ended[lanes],
        )
        self.last = self.last[rows]
        self.coverage = None if self.coverage is None else self.coverage[rows]
        self.weights = None if self.weights is None else self.weights[torch.from_numpy(rows)]


def _by_score(hypothesis: Hypothesis) -> float:
    """A key that puts the best first."""
    return -hypothesis.score


def _blocked_topk(log_probs: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The `num` best of each row (R, V) and their ids.

    On a CPU torch moves indices along with all values; the best blocks of a row are found faster, and hold its best.
    """
    size = log_probs.size(1)
    block = next((width for width in TOPK_BLOCK_WIDTHS if size % width == 0), 0)
    if log_probs.device.type != "cpu" or not block or size < 2048 or size // block < num:
        values, ids = log_probs.topk(num, dim=-1)
        return values, ids
    blocks = log_probs.view(log_probs.size(0), -1, block)
    best = blocks.amax(-1).topk(num, dim=-1, sorted=False).indices  # (R, num)
    inside = blocks.gather(1, best.unsqueeze(-1).expand(-1, -1, block)).flatten(1)
    values, places = inside.topk(num, dim=-1)
    return values, best.gather(1, places // block) * block + places % block


def _assign_slots(places: Ints, live: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> tuple[Ints, Ints]:
    """Where the K continuations of a lane go, and which of them need a copy of what they continue.

    The first live continuation of a hypothesis takes its slot. Every other takes the slot of a hypothesis that has no
    live continuation.

    Args:
        places: (N, K) slots of the hypotheses that are continued. live: (N, K).

    Returns:
        slots (N, K), a permutation in each row, and booleans (N, K).
    """
    size = places.shape[1]
    same = (places[:, :, None] == places[:, None, :]) & live[:, None, :] & np.tri(size, k=-1, dtype=bool)
    first = live & ~same.any(2)
    lanes = np.arange(len(places))[:, None]
    taken = np.zeros(places.shape, bool)
    taken[np.nonzero(first)[0], places[first]] = True
    free = np.argsort(taken, axis=1, kind="stable")
    rank = np.cumsum(~first, axis=1) - 1
    slots = np.where(first, places, free[lanes, np.maximum(rank, 0)])
    return slots, live & ~first
