"""Which rows of a corpus make a batch: planned anew for each epoch, in pieces, so that memory does not grow with the
corpus."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPOCH_CHUNK_ROWS = 1 << 20
"""A larger corpus is planned in pieces of about this many rows: a fifth of a second and 50 MB each."""
SEGMENT_ROWS = 1 << 10
"""A piece is made of runs of so many consecutive rows, drawn at random from the whole corpus: a thousand of them show
all parts of it, and each is a few pages of the files."""

RowIndices = NDArray[np.int64]


@dataclass(frozen=True)
class EpochChunk:
    """Part of an epoch's batches: batch i is the rows `order[starts[i]:ends[i]]`."""

    order: NDArray[Any]  # int32 or int64, rows of the corpus
    starts: RowIndices
    ends: RowIndices

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, batch: int) -> RowIndices:
        """(B,) the rows of one batch."""
        return self.order[self.starts[batch] : self.ends[batch]].astype(np.int64)


def make_batches(
    source_lengths: NDArray[Any], target_lengths: NDArray[Any], batch_tokens: int, *, seed: int, epoch: int
) -> list[RowIndices]:
    """Rows of the corpus in batches, every row once: pairs of like lengths together, the batches in random order.

    For each batch B * max(longest source, longest target) <= batch_tokens, end tokens counted; the lengths given do not
    count them. A function of its arguments alone; which pairs of equal lengths meet differs from epoch to epoch, the
    number of batches does not. Raises ValueError when a pair is longer than `batch_tokens`.
    """
    piece = _piece(source_lengths, target_lengths, batch_tokens, np.random.default_rng([seed, epoch]))
    return [piece.rows(batch) for batch in range(len(piece))]


def epoch_chunks(
    source_offsets: NDArray[Any],
    target_offsets: NDArray[Any],
    batch_tokens: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
) -> Iterator[tuple[int, EpochChunk]]:
    """As `plan`, of a corpus by its offsets (N + 1,), one piece after another, each with the number of its first batch;
    those that end before batch `start` are left out.

    One piece up to `EPOCH_CHUNK_ROWS` rows, and then the batches are those of `plan`. A larger corpus is split into
    pieces at random, anew in each epoch; how many batches they make together can then differ a little from epoch to
    epoch.
    """
    num_rows = len(source_offsets) - 1
    if num_rows <= EPOCH_CHUNK_ROWS:
        lengths = np.diff(source_offsets), np.diff(target_offsets)
        yield 0, _piece(*lengths, batch_tokens, np.random.default_rng([seed, epoch]))
        return
    num_segments = -(-num_rows // SEGMENT_ROWS)
    num_pieces = -(-num_segments // max(1, EPOCH_CHUNK_ROWS // SEGMENT_ROWS))
    drawn = np.random.default_rng([seed, epoch]).permutation(num_segments)
    first_batch = 0
    for number, part in enumerate(np.array_split(drawn, num_pieces), start=1):
        segments = np.sort(part)  # files are read forwards; the short segment, the corpus's last, is the piece's last
        lengths = _lengths(source_offsets, segments), _lengths(target_offsets, segments)
        piece = _piece(*lengths, batch_tokens, np.random.default_rng([seed, epoch, number]))
        if first_batch + len(piece) > start:
            first = (segments * SEGMENT_ROWS).astype(np.int32 if num_rows < 1 << 31 else np.int64)
            order = first[piece.order // SEGMENT_ROWS] + piece.order % SEGMENT_ROWS
            yield first_batch, EpochChunk(order, piece.starts, piece.ends)
        first_batch += len(piece)


def rebalance(
    source_lengths: RowIndices, target_lengths: RowIndices, num: int, rng: np.random.Generator
) -> Iterator[RowIndices]:
    """Every index of the lengths once, in `num` batches of much the same size with padding, in random order; pairs of
    like lengths together.

    Args:
        source_lengths, target_lengths: (N,) each, N >= num; end tokens are not among them.
    """
    order, longer = _ordered(source_lengths, target_lengths, rng)
    least, most = int(longer.max()), int(longer.max()) * len(longer)
    while least < most:  # the smallest batches of which `num` are enough
        tokens = (least + most) // 2
        least, most = (least, tokens) if len(_cut(longer, tokens)) <= num else (tokens + 1, most)
    ends = _cut(longer, least).tolist()
    while len(ends) < num:
        sizes = np.diff([0, *ends])
        largest = int(sizes.argmax())
        ends.insert(largest, ends[largest] - int(sizes[largest]) // 2)
    parts = np.split(order, ends[:-1])
    yield from (parts[i] for i in rng.permutation(num))


def max_length(offsets: NDArray[Any]) -> int:
    """The length of the longest row, read block by block; 0 when there are none."""
    block = EPOCH_CHUNK_ROWS
    return max(
        (int(np.diff(offsets[start : start + block + 1]).max()) for start in range(0, len(offsets) - 1, block)),
        default=0,
    )


def check_max_length(length: int, batch_tokens: int) -> None:
    """Raises ValueError when a sentence of `length` tokens and its end do not fit into a batch."""
    if length + 1 > batch_tokens:
        raise ValueError(
            f"train.batch_tokens={batch_tokens}: the longest sentence has {length + 1} tokens; raise it, or lower "
            "data.max_length"
        )


def _lengths(offsets: NDArray[Any], segments: RowIndices) -> NDArray[Any]:
    starts = (segments * SEGMENT_ROWS).tolist()
    return np.concatenate([np.diff(offsets[start : start + SEGMENT_ROWS + 1]) for start in starts])


def _piece(source: NDArray[Any], target: NDArray[Any], batch_tokens: int, rng: np.random.Generator) -> EpochChunk:
    """The batches of rows of the given lengths, numbered from 0."""
    if len(source) == 0:
        return EpochChunk(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))
    check_max_length(max(int(source.max()), int(target.max())), batch_tokens)
    order, longer = _ordered(source, target, rng)
    ends = _cut(longer, batch_tokens)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    turn = rng.permutation(len(ends))
    return EpochChunk(order, starts[turn], ends[turn])


def _ordered(source: NDArray[Any], target: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows so that neighbours have like lengths, equal ones at random, and the longer side of each, end counted.

    The source length rises under one target length and falls under the next, so that neighbours stay alike. Ordered by
    it first and then, keeping that order, by target length.
    """
    most = max(int(source.max()), int(target.max()))
    small = np.int16 if most < (1 << 15) - 1 else np.int64  # 16 bits are sorted by radix, in a quarter of the time
    source, target = (np.add(lengths, 1, dtype=small, casting="unsafe") for lengths in (source, target))
    shuffled = rng.permutation(np.arange(len(source), dtype=np.int32 if len(source) < 1 << 31 else np.int64))
    zigzag = np.where(target % 2 == 0, source, -source)
    order = shuffled[np.argsort(zigzag[shuffled], kind="stable")]
    del zigzag, shuffled
    order = order[np.argsort(target[order], kind="stable")]
    return order, np.maximum(source, target)[order]


def _cut(longer: NDArray[Any], batch_tokens: int) -> RowIndices:
    """Where batches end, each as large as `batch_tokens` allows."""
    ends = []
    start = 0
    while start < len(longer):
        # No batch from here has more rows than this, since its longest sentence is at least the first pair's.
        window = longer[start : start + batch_tokens // int(longer[start])].astype(np.int64)
        cost = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        start += int(np.searchsorted(cost, batch_tokens, side="right"))
        ends.append(start)
    return np.array(ends, np.int64)
