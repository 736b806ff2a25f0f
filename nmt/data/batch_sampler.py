"""Assignment of a corpus's rows to batches, made anew for each epoch, in chunks, so that memory does not grow with the
corpus."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPOCH_CHUNK_ROWS = 1 << 20
"""A larger corpus is divided into chunks of about this many rows: a fifth of a second and 50 MB each."""
SEGMENT_ROWS = 1 << 10
"""A chunk is made of segments of this many consecutive rows, sampled from the whole corpus: a thousand of them cover
all parts of it, and each is a few pages of the files."""

RowIndices = NDArray[np.int64]


@dataclass(frozen=True)
class EpochChunk:
    """Part of an epoch's batches: batch i is the rows `order[starts[i]:ends[i]]`."""

    order: NDArray[Any]  # int32 or int64, rows of the corpus
    starts: RowIndices
    ends: RowIndices
    passes: RowIndices | None = None  # through its corpus of each row of `order`, where there may be several

    def __len__(self) -> int:
        return len(self.starts)

    def row_indices(self, batch: int) -> RowIndices:
        """Return the rows (B,) of one batch."""
        return self.order[self.starts[batch] : self.ends[batch]].astype(np.int64)


def make_batches(
    source_lengths: NDArray[Any], target_lengths: NDArray[Any], batch_tokens: int, *, seed: int, epoch: int
) -> list[RowIndices]:
    """Group the rows of a corpus into batches, every row once: pairs of similar length together, the batches in random
    order.

    For each batch B * max(longest source, longest target) <= batch_tokens, end tokens counted; the given lengths do not
    count them. A function of its arguments alone; which pairs of equal length meet differs from epoch to epoch, the
    number of batches does not. Raises ValueError when a pair is longer than `batch_tokens`.
    """
    chunk = make_chunk(source_lengths, target_lengths, batch_tokens, np.random.default_rng([seed, epoch]))
    return [chunk.row_indices(batch) for batch in range(len(chunk))]


def epoch_chunks(
    source_offsets: NDArray[Any],
    target_offsets: NDArray[Any],
    batch_tokens: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
) -> Iterator[tuple[int, EpochChunk]]:
    """Yield the batches of an epoch, chunk by chunk, each with the number of its first batch; chunks that end before
    batch `start` are left out.

    A corpus (by its offsets, (N + 1,)) of up to `EPOCH_CHUNK_ROWS` rows is one chunk with the batches of
    `make_batches`. A larger one is split into chunks at random, anew in each epoch, so that the number of batches can
    differ a little from epoch to epoch.
    """
    num_rows = len(source_offsets) - 1
    if num_rows <= EPOCH_CHUNK_ROWS:
        lengths = np.diff(source_offsets), np.diff(target_offsets)
        yield 0, make_chunk(*lengths, batch_tokens, np.random.default_rng([seed, epoch]))
        return
    num_segments = -(-num_rows // SEGMENT_ROWS)
    num_chunks = -(-num_segments // max(1, EPOCH_CHUNK_ROWS // SEGMENT_ROWS))
    shuffled = np.random.default_rng([seed, epoch]).permutation(num_segments)
    first_batch = 0
    for number, segments in enumerate(np.array_split(shuffled, num_chunks), start=1):
        segments = np.sort(segments)  # files are read forwards; the short segment, the corpus's last, comes last
        lengths = _segment_lengths(source_offsets, segments), _segment_lengths(target_offsets, segments)
        chunk = make_chunk(*lengths, batch_tokens, np.random.default_rng([seed, epoch, number]))
        if first_batch + len(chunk) > start:
            first_rows = (segments * SEGMENT_ROWS).astype(np.int32 if num_rows < 1 << 31 else np.int64)
            order = first_rows[chunk.order // SEGMENT_ROWS] + chunk.order % SEGMENT_ROWS
            yield first_batch, EpochChunk(order, chunk.starts, chunk.ends)
        first_batch += len(chunk)


def rebalance(
    source_lengths: RowIndices, target_lengths: RowIndices, num: int, rng: np.random.Generator
) -> Iterator[RowIndices]:
    """Yield every index of the lengths once, in `num` batches of about the same padded size, in random order; pairs of
    similar length together.

    Args:
        source_lengths, target_lengths: (N,) each, N >= num; end tokens are not counted.
    """
    order, lengths = _sort_by_length(source_lengths, target_lengths, rng)
    low, high = int(lengths.max()), int(lengths.max()) * len(lengths)
    while low < high:  # search for the smallest batch size with which `num` batches are enough
        tokens = (low + high) // 2
        low, high = (low, tokens) if len(_batch_ends(lengths, tokens)) <= num else (tokens + 1, high)
    ends = _batch_ends(lengths, low).tolist()
    while len(ends) < num:
        sizes = np.diff([0, *ends])
        largest = int(sizes.argmax())
        ends.insert(largest, ends[largest] - int(sizes[largest]) // 2)
    batches = np.split(order, ends[:-1])
    yield from (batches[i] for i in rng.permutation(num))


def max_length(offsets: NDArray[Any]) -> int:
    """Return the length of the longest row, reading block by block; 0 when there are none."""
    block = EPOCH_CHUNK_ROWS
    starts = range(0, len(offsets) - 1, block)
    return max((int(np.diff(offsets[start : start + block + 1]).max()) for start in starts), default=0)


def check_max_length(length: int, batch_tokens: int) -> None:
    """Raise ValueError when a sentence of `length` tokens and its end token do not fit into a batch."""
    if length + 1 > batch_tokens:
        raise ValueError(
            f"train.batch_tokens={batch_tokens}: the longest sentence has {length + 1} tokens; raise it, or lower "
            "data.max_length"
        )


def _segment_lengths(offsets: NDArray[Any], segments: RowIndices) -> NDArray[Any]:
    starts = (segments * SEGMENT_ROWS).tolist()
    return np.concatenate([np.diff(offsets[start : start + SEGMENT_ROWS + 1]) for start in starts])


def make_chunk(source: NDArray[Any], target: NDArray[Any], batch_tokens: int, rng: np.random.Generator) -> EpochChunk:
    """Make the batches of rows with these lengths, numbered from 0; errors as of `make_batches`."""
    if len(source) == 0:
        return EpochChunk(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))
    check_max_length(max(int(source.max()), int(target.max())), batch_tokens)
    order, lengths = _sort_by_length(source, target, rng)
    ends = _batch_ends(lengths, batch_tokens)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    shuffled = rng.permutation(len(ends))
    return EpochChunk(order, starts[shuffled], ends[shuffled])


def _sort_by_length(
    source: NDArray[Any], target: NDArray[Any], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rows sorted by length, equal ones in random order, and the longer side's length of each, end counted.

    Sorted by target length; the source length rises under one target length and falls under the next, so that
    neighbors stay similar.
    """
    longest = max(int(source.max()), int(target.max()))
    dtype = np.int16 if longest < (1 << 15) - 1 else np.int64  # 16 bits are sorted by radix, in a quarter of the time
    source, target = (np.add(lengths, 1, dtype=dtype, casting="unsafe") for lengths in (source, target))
    shuffled = rng.permutation(np.arange(len(source), dtype=np.int32 if len(source) < 1 << 31 else np.int64))
    zigzag = np.where(target % 2 == 0, source, -source)
    order = shuffled[np.argsort(zigzag[shuffled], kind="stable")]
    del zigzag, shuffled
    order = order[np.argsort(target[order], kind="stable")]
    return order, np.maximum(source, target)[order]


def _batch_ends(lengths: NDArray[Any], batch_tokens: int) -> RowIndices:
    """Return where batches end that are each as large as `batch_tokens` allows."""
    ends = []
    start = 0
    while start < len(lengths):
        # No batch from `start` has more rows than this, since its longest sentence is at least the first pair's.
        window = lengths[start : start + batch_tokens // int(lengths[start])].astype(np.int64)
        cost = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        start += int(np.searchsorted(cost, batch_tokens, side="right"))
        ends.append(start)
    return np.array(ends, np.int64)
