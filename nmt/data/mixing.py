"""Mixtures of corpora: shares of the target tokens, stages, and the rows that each epoch has of each corpus.

The plan is a function of the seed and the number of the epoch. It takes no memory that grows with the corpora: each is
read pass after pass in an order of its own, from a position that can be computed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.data.batch_sampler import SEGMENT_ROWS, EpochChunk, RowIndices, make_chunk
from nmt.data.config import DataConfig
from nmt.data.corpora import Corpus, parse_stages, training_corpora
from nmt.data.corpus import EncodedCorpus

CHUNK_BATCHES = 64
"""A chunk, in which shares hold and pairs of similar length meet, has about as many batches."""
WINDOW_SEGMENTS = 256
"""A corpus of more segments is shuffled by segments, and by rows in windows of this many: 2 MB each."""
LOOKAHEAD = 8
"""Batches that may come next, of which the one is taken that brings the shares closest."""


class Stage(NamedTuple):
    """One stage: the share of each corpus (K,), and the length: of the corpora's rows as many per epoch as `passes`
    says (K,), for `epochs` epochs, 0 being endless; of an epoch at most `max_batches` batches, 0 being all."""

    shares: NDArray[np.float64]
    passes: NDArray[np.float64]
    epochs: int
    max_batches: int = 0


@dataclass(eq=False)
class Mixture:
    """The stages of a training text that consists of several corpora.

    Args:
        corpus: the text, N rows, with `bounds`.
        stages: one or more, the last of them endless.
        batch_tokens, seed: as of `BatchLoader`.
    """

    corpus: EncodedCorpus
    stages: Sequence[Stage]
    batch_tokens: int
    seed: int

    def __post_init__(self) -> None:
        self.firsts = np.array([*self.corpus.bounds.values(), len(self.corpus)])
        self.sizes = np.diff(self.firsts)

    def stage(self, epoch: int) -> tuple[int, int]:
        """Return the stage of an epoch, and the epoch's number in it."""
        for number, stage in enumerate(self.stages):
            if not stage.epochs or epoch < stage.epochs:
                return number, epoch
            epoch -= stage.epochs
        raise AssertionError("the last stage is endless")

    def positions(self, epoch: int) -> NDArray[np.float64]:
        """Return how many rows of each corpus (K,) come before an epoch, those of every pass counted."""
        last, within = self.stage(epoch)
        passes = sum((stage.epochs * stage.passes for stage in self.stages[:last]), np.zeros(len(self.sizes)))
        return (passes + within * self.stages[last].passes) * self.sizes

    def chunks(self, epoch: int, start: int = 0) -> Iterator[tuple[int, EpochChunk]]:
        """Yield the batches of an epoch as `epoch_chunks` does."""
        number, _ = self.stage(epoch)
        stage, offsets = self.stages[number], (self.corpus.source.offsets, self.corpus.target.offsets)
        begin, end = self.positions(epoch), self.positions(epoch + 1)
        tokens = target_tokens(self.corpus) / self.sizes * (end - begin)
        num_chunks = max(1, round(float(tokens.sum()) / (CHUNK_BATCHES * self.batch_tokens)))
        first_batch = 0
        for i in range(num_chunks):
            bounds = [np.floor(begin + (end - begin) * (i + j) / num_chunks).astype(np.int64) for j in (0, 1)]
            parts = [(k, first, last) for k, (first, last) in enumerate(zip(*bounds, strict=True))]
            rows = np.concatenate([self._rows(*part) for part in parts])
            passes = np.concatenate([np.arange(first, last) // self.sizes[k] for k, first, last in parts])
            source, target = (side[rows + 1] - side[rows] for side in offsets)
            rng = np.random.default_rng([self.seed, epoch, i])
            chunk = make_chunk(source, target, self.batch_tokens, rng)
            counts = self._tokens_by_corpus(chunk, rows, target)
            order = _balanced_order(counts, stage.shares)
            if stage.max_batches:
                order = order[: max(stage.max_batches - first_batch, 0)]
            if first_batch + len(order) > start:
                yield (
                    first_batch,
                    EpochChunk(rows[chunk.order], chunk.starts[order], chunk.ends[order], passes[chunk.order]),
                )
            first_batch += len(order)

    def _tokens_by_corpus(self, chunk: EpochChunk, rows: RowIndices, lengths: NDArray[Any]) -> NDArray[np.float64]:
        """Return the target tokens (N, K) that the batches of a chunk have of each corpus."""
        ascending = np.argsort(chunk.starts)
        batch = np.repeat(ascending, (chunk.ends - chunk.starts)[ascending])
        key = batch * len(self.sizes) + of_rows(self.corpus, rows[chunk.order])
        counts = np.bincount(key, lengths[chunk.order] + 1.0, len(chunk) * len(self.sizes))
        return counts.reshape(len(chunk), -1).astype(np.float64)

    def _rows(self, corpus: int, begin: int, end: int) -> RowIndices:
        """Return the rows that are at the positions from `begin` to `end` of all passes through a corpus."""
        size, rows = int(self.sizes[corpus]), [np.empty(0, np.int64)]
        while begin < end:
            number, position = divmod(begin, size)
            window, first = self._window(corpus, number, position)
            rows.append(window[position - first : position - first + end - begin])
            begin += len(rows[-1])
        return np.concatenate(rows) + int(self.firsts[corpus])

    def _window(self, corpus: int, number: int, position: int) -> tuple[RowIndices, int]:
        """Return the rows, in their order in a pass, around a position in it, and the position of the first."""
        size = int(self.sizes[corpus])
        segments = np.random.default_rng([self.seed, corpus, number]).permutation(size // SEGMENT_ROWS)
        # a pass ends with the rows after the last whole segment, and a small corpus has nothing else than one window
        if len(segments) <= WINDOW_SEGMENTS:
            first, rows = 0, np.arange(size)
        else:
            window = min(position // (WINDOW_SEGMENTS * SEGMENT_ROWS), len(segments) // WINDOW_SEGMENTS - 1)
            first = window * WINDOW_SEGMENTS * SEGMENT_ROWS
            is_last = window == len(segments) // WINDOW_SEGMENTS - 1
            chosen = segments[window * WINDOW_SEGMENTS : None if is_last else (window + 1) * WINDOW_SEGMENTS]
            rows = (chosen[:, None] * SEGMENT_ROWS + np.arange(SEGMENT_ROWS)).ravel()
            if is_last:
                rows = np.concatenate([rows, np.arange(len(segments) * SEGMENT_ROWS, size)])
        return np.random.default_rng([self.seed, corpus, number, first]).permutation(rows), first


def _balanced_order(counts: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return an order of batches (N,) with tokens (N, K) by corpus in which every beginning has about these shares."""
    waiting, order, total = list(range(len(counts))), [], np.zeros(len(shares))
    while waiting:
        after = total + counts[waiting[:LOOKAHEAD]]
        errors = np.abs(after - after.sum(1, keepdims=True) * shares).sum(1)
        order.append(waiting.pop(int(errors.argmin())))
        total += counts[order[-1]]
    return np.array(order, np.int64)


def of_rows(corpus: EncodedCorpus, rows: RowIndices) -> NDArray[np.int64]:
    """Return the corpus (B,) of each row, counted from 0 as in `bounds`; 0 where there is one only."""
    return np.searchsorted([*corpus.bounds.values()] or [0], rows, side="right") - 1


def target_tokens(corpus: EncodedCorpus) -> NDArray[np.float64]:
    """Return the number of target tokens of each corpus (K,), end tokens counted."""
    firsts = np.array([*corpus.bounds.values(), len(corpus)])
    num_tokens: NDArray[np.float64] = np.diff(corpus.target.offsets[firsts] + firsts).astype(np.float64)
    return num_tokens


def make_mixture(
    config: DataConfig, corpus: EncodedCorpus, batch_tokens: int, seed: int, batches_per_update: int
) -> Mixture | None:
    """Return the mixture that the options ask for; None where each pair is read once in an epoch."""
    corpora = training_corpora(config)
    is_weighted = config.temperature != 1 or any(part.weight is not None for part in corpora)
    if not (config.stages or (is_weighted and len(corpora) > 1)):
        return None
    tokens, stages = target_tokens(corpus), list[Stage]()
    for stage in parse_stages(config):
        shares = _shares(corpora, tokens, stage.mix)
        epochs, num_tokens, max_batches = 0, float(tokens[shares > 0].sum()), 0
        if stage.updates:  # batches are at most as large as this, so there are tokens enough for all of them
            epochs, max_batches = 1, stage.updates * batches_per_update
            num_tokens = float(max_batches * batch_tokens)
        elif stage.passes:
            of = np.array([stage.of in (part.name, part.entry) for part in corpora])
            epochs = math.ceil(stage.passes)
            num_tokens = stage.passes / epochs * float(tokens[of].sum() / shares[of].sum())
        stages.append(Stage(shares, num_tokens * shares / tokens, epochs, max_batches))
    if not stages:
        shares = tokens ** (1 / config.temperature)
        if config.temperature == 1:
            weights = {part.entry: 1.0 if part.weight is None else part.weight for part in corpora}
            shares = _shares(corpora, tokens, weights)
        shares = shares / shares.sum()
        stages = [Stage(shares, float(tokens[shares > 0].sum()) * shares / tokens, 0)]
    return Mixture(corpus, stages, batch_tokens, seed)


def _shares(
    corpora: Sequence[Corpus], tokens: NDArray[np.float64], weights: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the shares (K,) of weights by name; those of an entry in several directions are as the tokens there."""
    shares: NDArray[np.float64] = np.zeros(len(corpora))
    for name, weight in weights.items():
        named = np.array([name in (part.name, part.entry) for part in corpora])
        shares += weight * named * tokens / tokens[named].sum()
    shares /= shares.sum()
    return shares
