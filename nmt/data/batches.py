"""Batches of about equal cost, planned anew for each epoch; the same seed and epoch always give the same batches."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.data.corpus import Corpus, Side
from nmt.data.tokenizer import Tokenizer
from nmt.data.vocabulary import BOS, EOS, PAD, flatten

SAMPLED_MULTIPLE = 4
"""Lengths of batches with drawn segmentations are padded to this: oneDNN compiles for each new shape, and every draw
would bring one."""


class Batch(NamedTuple):
    """B pairs for teacher forcing; masks are True at real tokens."""

    source: Tensor  # (B, S) int64, each row ends with EOS, then PAD
    source_mask: Tensor  # (B, S) bool
    inputs: Tensor  # (B, T) int64, BOS and the target
    labels: Tensor  # (B, T) int64, the target and EOS
    num_tokens: int  # labels that are not PAD
    indices: NDArray[np.int64]  # (B,) rows of the corpus


class SourceBatch(NamedTuple):
    """B sources to translate."""

    source: Tensor  # (B, S) int64, each row ends with EOS, then PAD
    source_mask: Tensor  # (B, S) bool, True at real tokens
    indices: NDArray[np.int64]  # (B,) their places in the list given


def plan(
    source_lengths: NDArray[Any], target_lengths: NDArray[Any], batch_tokens: int, *, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Rows of the corpus in batches, every row once: pairs of like lengths together, the batches in random order.

    For each batch B * max(longest source, longest target) <= batch_tokens, end tokens counted; the lengths given do not
    count them. A function of its arguments alone; which pairs of equal lengths meet differs from epoch to epoch, the
    number of batches does not. Raises ValueError when a pair is longer than `batch_tokens`.
    """
    if len(source_lengths) == 0:
        return []
    source, target = np.asarray(source_lengths) + 1, np.asarray(target_lengths) + 1
    longest = int(max(source.max(), target.max()))
    if longest > batch_tokens:
        raise ValueError(
            f"train.batch_tokens={batch_tokens}: the longest sentence has {longest} tokens; raise it, or lower "
            "data.max_length"
        )
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(source))
    # The source length rises under one target length and falls under the next, so that neighbours stay alike.
    zigzag = np.where(target % 2 == 0, source, -source)
    order = shuffled[np.lexsort((zigzag[shuffled], target[shuffled]))]
    longer = np.maximum(source, target)[order]
    batches = []
    start = 0
    while start < len(order):
        # No batch from here has more rows than this, since its longest sentence is at least the first pair's.
        window = longer[start : start + batch_tokens // int(longer[start])]
        cost = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        end = start + int(np.searchsorted(cost, batch_tokens, side="right"))
        batches.append(order[start:end])
        start = end
    return [batches[index] for index in rng.permutation(len(batches))]


def collate(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    indices: NDArray[np.int64] | None = None,
    *,
    multiple: int = 1,
) -> Batch:
    """A batch of id lists (without BOS and EOS); `indices` are kept with it, by default 0 to B - 1.

    Both sides are padded to a multiple of `multiple`.
    """
    indices = np.arange(len(sources)) if indices is None else indices
    source, labels = (_with_ends(*flatten(side), multiple=multiple) for side in (sources, targets))
    return _batch(source, labels, indices)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device."""
    if device.type == "cpu":
        return batch
    source, source_mask, inputs, labels = (tensor.to(device, non_blocking=True) for tensor in batch[:4])
    return batch._replace(source=source, source_mask=source_mask, inputs=inputs, labels=labels)


def source_batch(sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Source (B, S) and mask (B, S) of id lists (without EOS), in the order given."""
    source = torch.from_numpy(_with_ends(*flatten(sources)))
    return source, source != PAD


def source_batches(sources: Sequence[Sequence[int]], batch_size: int) -> Iterator[SourceBatch]:
    """All sources in batches of `batch_size` sentences, the longest first, for decoding.

    The longest come first so that running out of memory shows at once.
    """
    lengths = np.fromiter(map(len, sources), np.int64, len(sources))
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield SourceBatch(*source_batch([sources[index] for index in indices.tolist()]), indices)


class Batches:
    """The batches of a corpus, epoch by epoch.

    With subword regularisation (a tokenizer with `sampling` and a corpus that keeps its text) each sentence is cut
    anew in every epoch. The draw depends on seed, epoch and batch number alone. Batches are planned with the usual
    lengths, so a batch can then grow somewhat beyond `batch_tokens`.
    """

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, batch_tokens: int, seed: int) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._num_batches: int | None = None

    def __len__(self) -> int:
        """Batches of an epoch (of each: it does not change)."""
        if self._num_batches is None:
            self._num_batches = len(self._plan(0))
        return self._num_batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; those before it are not computed."""
        batches = self._plan(epoch)
        for number in range(start, len(batches)):
            yield self._make(batches[number], epoch, number)

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        corpus = self._corpus
        return plan(corpus.source_lengths, corpus.target_lengths, self._batch_tokens, seed=self._seed, epoch=epoch)

    def _make(self, rows: NDArray[np.int64], epoch: int, number: int) -> Batch:
        corpus = self._corpus
        if self._tokenizer.sampling > 0 and corpus.source_text is not None and corpus.target_text is not None:
            seeds = np.random.SeedSequence([self._seed, epoch, number]).generate_state(2).tolist()
            sources = self._tokenizer.sample_source(corpus.source_text.rows(rows), seeds[0])
            targets = self._tokenizer.sample_target(corpus.target_text.rows(rows), seeds[1])
            return collate(sources, targets, rows, multiple=SAMPLED_MULTIPLE)
        return _batch(_gather(corpus.source, rows), _gather(corpus.target, rows), rows)


def _gather(side: Side, rows: NDArray[np.int64], multiple: int = 1) -> NDArray[np.int64]:
    """(B, L + 1, rounded up to a multiple) the given rows of one side, EOS after each, then PAD."""
    starts = side.offsets[rows]
    lengths = side.offsets[rows + 1] - starts
    columns = np.arange(-(-(int(lengths.max(initial=0)) + 1) // multiple) * multiple)
    inside = columns < lengths[:, None]
    result = np.full(inside.shape, PAD, np.int64)
    result[inside] = side.ids[(starts[:, None] + columns)[inside]]
    result[columns == lengths[:, None]] = EOS
    return result


def _with_ends(ids: NDArray[np.int32], lengths: NDArray[np.int64], multiple: int = 1) -> NDArray[np.int64]:
    """As `_gather`, for sequences written one after another."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return _gather(Side(ids, offsets), np.arange(len(lengths)), multiple)


def _batch(source: NDArray[np.int64], labels: NDArray[np.int64], indices: NDArray[np.int64]) -> Batch:
    inputs = np.empty_like(labels)
    inputs[:, 0] = BOS
    inputs[:, 1:] = np.where(labels[:, :-1] == EOS, PAD, labels[:, :-1])
    source_tensor, label_tensor = torch.from_numpy(source), torch.from_numpy(labels)
    return Batch(
        source=source_tensor,
        source_mask=source_tensor != PAD,
        inputs=torch.from_numpy(inputs),
        labels=label_tensor,
        num_tokens=int((labels != PAD).sum()),
        indices=indices,
    )
