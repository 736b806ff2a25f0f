"""Beam search, greedy search and diverse beam search."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nmt.data import EOS
from nmt.models.seq2seq import Seq2Seq
from nmt.search.config import SearchConfig
from nmt.search.constraints import Phrases
from nmt.search.decoder_state import DecoderRows, expand_indices
from nmt.search.scoring import Bools, Floats, Hypothesis, Ints, coverage_penalty, length_norm

TOPK_BLOCK_WIDTHS = (100, 96, 80, 64, 125, 128, 120, 75, 50, 32)
"""Widths of the blocks into which a large vocabulary is split to select its best tokens, in order of preference."""


class Candidates(NamedTuple):
    """C continuations of the hypotheses of each beam group, best first, (N, C) each.

    log_probs: of the whole continued hypothesis.
    slots: beam slot of the hypothesis that is continued.
    tokens: the token appended.
    """

    log_probs: Floats
    slots: Ints
    tokens: Ints

    def take(self, indices: Ints) -> "Candidates":
        """Return the candidates at these indices (N, I) of each row."""
        return Candidates._make(np.take_along_axis(values, indices, 1) for values in self)


class BeamSearch:
    """Beam search over a batch, step by step.

    Each step considers the 2K best continuations of a sentence: those that end become finished hypotheses, the K best
    others stay live. At least K of the 2K do not end, so the beam is always full. With K = 1 only the best continuation
    is considered: greedy search.

    A live hypothesis with log p cannot score above log p / norm(maximum length), because log-probabilities only fall,
    norms only grow with length, and the coverage penalty is at most 0. One that cannot beat the score threshold, the
    worst of `n_best` finished hypotheses, is dropped; the beam would only fill its slot with a less probable one. A
    sentence is done when no live hypothesis is left, and its finished hypotheses are then the best that this beam can
    find. That bound cannot be lowered without knowing the model: every further token might be certain. With
    `early_stopping=lookahead` only so many are taken to be, and the norm is that of the length with them. With
    `early_stopping=beam` a sentence is also done when K hypotheses have ended that were among the K best of their step.

    Diverse beam search splits the K slots of a sentence into G beam groups of K / G slots (Vijayakumar et al. 2018),
    searched one after the other. A group collects K finished hypotheses whatever `n_best` is: later groups avoid the
    tokens of the live hypotheses of earlier ones, so the best translation would otherwise depend on `n_best`. It also
    leaves enough distinct ones where groups agree.

    Arguments and errors are those of `translate_batch`; `phrases` are for `ConstrainedBeamSearch`.
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
        phrases: Phrases | None = None,
        text: Callable[[list[int]], Hashable] = tuple,
    ) -> None:
        self.config, self.text = config, text
        self.rows = DecoderRows(model, source, source_mask, config, prefixes, phrases, collect_attention=attention)
        self.num_groups = config.diverse_groups
        self.group_size = config.beam_size // self.num_groups
        self.max_finished = config.n_best if self.num_groups == 1 else config.beam_size  # of a group
        # finished hypotheses of every group of every sentence of the call, best first
        self.finished: list[list[Hypothesis]] = [[] for _ in range(self.rows.num_sentences * self.num_groups)]
        # of the N groups that are still in the batch: log-probabilities of live hypotheses, -inf in free slots
        is_real_group = np.repeat(self.rows.is_real_sentence, self.num_groups)
        self.log_probs: Floats = np.full((len(is_real_group), self.group_size), -np.inf)
        self.log_probs[:, 0] = np.where(is_real_group, 0.0, -np.inf)
        self.score_threshold: Floats = np.full(len(is_real_group), -np.inf)
        self.num_ended: Ints = np.zeros(len(is_real_group), np.int64)  # among the best of their step

    @property
    def done(self) -> bool:
        """Return whether every sentence has been translated."""
        return not (self.log_probs > -np.inf).any()

    def step(self) -> None:
        """Extend every live hypothesis by one token."""
        log_probs, weights = self.rows.step()
        self.rows.record_attention(weights)
        best_log_probs, best_tokens = self._best_tokens(log_probs)
        candidates = self._select_candidates(best_log_probs, best_tokens)
        self._finish_hypotheses(candidates)
        self._advance_beams(candidates)
        self._compact_batch()

    def results(self) -> list[list[Hypothesis]]:
        """Return the finished hypotheses of every sentence of the call, best first, at most `n_best`.

        With groups, the best of every group come before the second of any, and of these the better ones first.
        """
        return merge_groups(self.finished, self.config, self.text)

    def best_so_far(self) -> list[list[int]]:
        """Return the tokens of the most promising hypothesis, live or finished, of every sentence of the call."""
        best = [finished[0].tokens if finished else [] for finished in self.finished[:: self.num_groups]]
        norm = float(length_norm(self.config, self.rows.position + 1))
        for index, sentence in enumerate(self.rows.sentences[self.rows.is_real_sentence].tolist()):
            group, finished = index * self.num_groups, self.finished[sentence * self.num_groups]
            slot = int(self.log_probs[group].argmax())
            if float(self.log_probs[group, slot]) / norm > (finished[0].score if finished else -np.inf):
                row = index * self.config.beam_size + slot
                best[sentence] = self.rows.tokens[row, : self.rows.position].tolist()
        return best

    def _best_tokens(self, log_probs: Tensor) -> tuple[Floats, Ints]:
        """Return the log-probabilities and ids of the best tokens of each row, (R, C) each."""
        # diversity penalties can push aside at most K - K/G of a row's tokens
        num = 1 if self.config.beam_size == 1 else self.config.beam_size + self.group_size
        values, tokens = _blocked_topk(log_probs, min(num, log_probs.size(1)))
        stacked = torch.stack([values.double(), tokens.double()]).cpu().numpy()  # one transfer
        return stacked[0], stacked[1].astype(np.int64)

    def _select_candidates(self, best_log_probs: Floats, best_tokens: Ints) -> Candidates:
        """Return the candidates of every group, chosen group after group with the diversity penalty."""
        size, width = self.group_size, best_log_probs.shape[1]
        num = 1 if self.config.beam_size == 1 else min(2 * size, size * width)
        shape = (len(self.rows.sentences), self.num_groups, size * width)
        log_probs = (self.log_probs[:, :, None] + best_log_probs.reshape(-1, size, width)).reshape(shape)
        tokens = best_tokens.reshape(shape)
        order: Ints = np.empty((*shape[:2], num), np.int64)
        penalized: Ints = np.empty((shape[0], 0), np.int64)  # tokens of earlier groups
        for group in range(self.num_groups):
            scores = log_probs[:, group]
            if group:
                counts = (tokens[:, group, :, None] == penalized[:, None]).sum(-1)
                scores = scores - self.config.diversity_penalty * counts
            best = np.argsort(-scores, axis=1, kind="stable")[:, :num]
            order[:, group] = best
            if group < self.num_groups - 1:
                chosen = np.take_along_axis(tokens[:, group], best, 1)
                dead = (chosen == EOS) | (np.take_along_axis(scores, best, 1) == -np.inf)
                live_first = np.argsort(dead, axis=1, kind="stable")[:, :size]
                chosen = np.where(dead, -1, chosen)  # a token with which no hypothesis lives on is not penalized
                penalized = np.concatenate([penalized, np.take_along_axis(chosen, live_first, 1)], axis=1)
        return Candidates(
            np.take_along_axis(log_probs, order, 2).reshape(-1, num),
            (order // width).reshape(-1, num),
            np.take_along_axis(tokens, order, 2).reshape(-1, num),
        )

    def _num_missing(self, slots: Ints, tokens: Ints) -> Ints:
        """Return the number of tokens that the continuations of hypotheses need before they may end."""
        return np.zeros((1, 1), np.int64)

    def _finish_hypotheses(self, candidates: Candidates) -> None:
        """Add the candidates that end to the finished hypotheses of their groups, and raise the score thresholds."""
        is_eos = (candidates.tokens == EOS) & (candidates.log_probs > -np.inf)
        if not is_eos.any():
            return
        self.num_ended += is_eos[:, : self.group_size].sum(1)
        groups, ranks = np.nonzero(is_eos)
        rows = groups * self.group_size + candidates.slots[groups, ranks]
        sentences = self.rows.sentences[groups // self.num_groups]
        log_probs = candidates.log_probs[groups, ranks]
        scores = log_probs / length_norm(self.config, self.rows.position + 1)
        if self.rows.coverage is not None:
            coverage = np.where(self.rows.source_mask[sentences], self.rows.coverage[rows], 1.0)
            scores = scores + coverage_penalty(self.config, coverage)
        for i in np.nonzero(scores > self.score_threshold[groups])[0].tolist():
            group = int(groups[i])
            finished = self.finished[int(sentences[i]) * self.num_groups + group % self.num_groups]
            finished.append(self.rows.hypothesis(int(rows[i]), float(scores[i]), float(log_probs[i])))
            finished.sort(key=_by_score)
            # groups hold more than is wanted, and their search shall not depend on texts
            if self.num_groups == 1 < self.max_finished:
                finished[:] = distinct(finished, self.text)
            del finished[self.max_finished :]
            if len(finished) == self.max_finished:
                self.score_threshold[group] = finished[-1].score

    def _advance_beams(self, candidates: Candidates) -> None:
        """Move the K best candidates that do not end into the beam slots, except those that cannot win."""
        best = np.argsort(candidates.tokens == EOS, axis=1, kind="stable")[:, : self.group_size]
        log_probs, parents, tokens = candidates.take(best)
        log_probs[tokens == EOS] = -np.inf
        final_lengths = np.repeat(self.rows.constraints.max_lengths + 1, self.num_groups)[:, None]
        if self.config.early_stopping == "lookahead":
            lookahead = self.config.lookahead + self._num_missing(parents, tokens)
            final_lengths = np.minimum(final_lengths, self.rows.position + 2 + lookahead)
        log_probs[log_probs / length_norm(self.config, final_lengths) <= self.score_threshold[:, None]] = -np.inf
        if self.config.beam_size == 1:  # greedy search ends with its best token
            log_probs[self.score_threshold > -np.inf] = -np.inf
        if self.config.early_stopping == "beam":
            log_probs[self.num_ended >= self.group_size] = -np.inf
        slots, copied = _assign_slots(parents, log_probs > -np.inf)
        group, rank = np.nonzero(copied)
        first_row = group * self.group_size
        self.rows.reorder(first_row + slots[group, rank], first_row + parents[group, rank])
        np.put_along_axis(self.log_probs, slots, log_probs, 1)
        next_tokens = np.empty_like(tokens)
        np.put_along_axis(next_tokens, slots, tokens, 1)
        self.rows.append(next_tokens.ravel())

    def _compact_batch(self) -> None:
        """Remove sentences without live hypotheses from the batch, when that pays."""
        is_live = (self.log_probs > -np.inf).reshape(-1, self.config.beam_size).any(1)
        kept = self.rows.compact(np.nonzero(is_live)[0])
        if kept is not None:
            groups = expand_indices(kept, self.num_groups)
            self.log_probs, self.num_ended = self.log_probs[groups], self.num_ended[groups]
            self.score_threshold = self.score_threshold[groups]


def merge_groups(
    finished: Sequence[Sequence[Hypothesis]], config: SearchConfig, text: Callable[[list[int]], Hashable]
) -> list[list[Hypothesis]]:
    """Return the hypotheses of each sentence from the finished ones of its groups, best first and each text once."""
    results, num = [], config.diverse_groups
    for start in range(0, len(finished), num):
        groups = finished[start : start + num]
        by_rank: list[Hypothesis] = []
        for rank in range(max(map(len, groups))):
            same_rank = [group[rank] for group in groups if rank < len(group)]
            by_rank += sorted(same_rank, key=_by_score)
        results.append(sorted(distinct(by_rank, text)[: config.n_best], key=_by_score))
    return results


def distinct(hypotheses: Sequence[Hypothesis], text: Callable[[list[int]], Hashable]) -> list[Hypothesis]:
    """Return the first hypothesis of each text."""
    first: dict[Hashable, Hypothesis] = {}
    for hypothesis in hypotheses:
        first.setdefault(text(hypothesis.tokens), hypothesis)
    return list(first.values())


def _by_score(hypothesis: Hypothesis) -> float:
    """Return a sort key that puts the best first."""
    return -hypothesis.score


def _blocked_topk(log_probs: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Return the `num` best values of each row (R, V) and their ids.

    On a CPU, `topk` moves indices along with all values; selecting the best blocks of a row first is faster, and they
    contain its best values.
    """
    size = log_probs.size(1)
    width = next((width for width in TOPK_BLOCK_WIDTHS if size % width == 0), 0)
    if log_probs.device.type != "cpu" or not width or size < 2048 or size // width < num:
        values, ids = log_probs.topk(num, dim=-1)
        return values, ids
    blocks = log_probs.view(log_probs.size(0), -1, width)
    best_blocks = blocks.amax(-1).topk(num, dim=-1, sorted=False).indices  # (R, num)
    block_values = blocks.gather(1, best_blocks.unsqueeze(-1).expand(-1, -1, width)).flatten(1)
    values, places = block_values.topk(num, dim=-1)
    return values, best_blocks.gather(1, places // width) * width + places % width


def _assign_slots(parents: Ints, live: Bools) -> tuple[Ints, Bools]:
    """Assign beam slots to continuations (N, K) of hypotheses in the slots `parents`.

    The first live continuation of a hypothesis stays in its slot. Every other one goes to the slot of a hypothesis
    without live continuation. Return the slots, a permutation in each row, and where the parent must be copied.
    """
    size = parents.shape[1]
    earlier = (parents[:, :, None] == parents[:, None, :]) & live[:, None, :] & np.tri(size, k=-1, dtype=bool)
    stays = live & ~earlier.any(2)
    taken = np.zeros(parents.shape, bool)
    taken[np.nonzero(stays)[0], parents[stays]] = True
    free_slots = np.argsort(taken, axis=1, kind="stable")
    rank = np.cumsum(~stays, axis=1) - 1
    slots = np.where(stays, parents, np.take_along_axis(free_slots, np.maximum(rank, 0), 1))
    return slots, live & ~stays
