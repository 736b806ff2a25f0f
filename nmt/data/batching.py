"""Batches of about equal cost, planned anew for each epoch; the same seed and epoch always give the same batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.data.batch_sampler import EpochChunk, check_max_length, epoch_chunks, rebalance
from nmt.data.corpus import EncodedCorpus, TokenColumn
from nmt.data.prefetch import prefetch
from nmt.data.subword_alignments import AlignmentTargets, project_to_subwords
from nmt.data.tokenizer import Tokenizer
from nmt.data.vocabulary import BOS, EOS, PAD, flatten

LENGTH_MULTIPLE = 4
"""Lengths of batches with drawn segmentations are padded to this: oneDNN compiles for each new shape, and every draw
would bring one."""
SAMPLED_BATCH_GROUP = 64
"""So many planned batches are drawn at a time and put together anew: sentences that had one length no longer do."""


class Batch(NamedTuple):
    """B pairs for teacher forcing; masks are True at real tokens."""

    source: Tensor  # (B, S) int64, each row ends with EOS, then PAD
    source_mask: Tensor  # (B, S) bool
    inputs: Tensor  # (B, T) int64, BOS and the target
    labels: Tensor  # (B, T) int64, the target and EOS
    label_indices: (
        Tensor  # (N,) int64, b * T + t of the labels that are not PAD: looking for them would wait for the device
    )
    num_tokens: int  # labels that are not PAD; those of all shares, where this is one rank's share of a batch
    indices: NDArray[np.int64]  # (B,) rows of the corpus
    links: AlignmentTargets | None = None  # of a corpus that keeps word alignments


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
    (source, _), (labels, num_tokens) = (_with_ends(*flatten(side), multiple=multiple) for side in (sources, targets))
    return _batch(source, labels, indices, num_tokens)


def batch_to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device."""
    if device.type == "cpu":
        return batch
    return _changed(batch, lambda tensor: tensor.to(device, non_blocking=True))


def select_rows(batch: Batch, rows: slice | Sequence[int] | NDArray[np.int64]) -> Batch:
    """Some rows of a batch on the CPU, in the order given and as wide as before; perhaps none. Such as
    `slice(rank, None, size)`."""
    chosen = np.arange(len(batch.indices))[rows]
    index = torch.from_numpy(chosen)
    source, source_mask, inputs, labels = (tensor[index] for tensor in batch[:4])
    links = batch.links
    if links is not None:
        places = torch.full((len(batch.indices),), -1)
        places[index] = torch.arange(len(chosen))
        row, target, column = links.indices
        kept = places[row] >= 0
        links = AlignmentTargets(torch.stack([places[row], target, column])[:, kept], links.weights[kept])
    places = (labels != PAD).flatten().nonzero().squeeze(1)
    return Batch(source, source_mask, inputs, labels, places, len(places), batch.indices[chosen], links)


def source_batch(sources: Sequence[Sequence[int]], *, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Source (B, S) and mask (B, S) of id lists (without EOS), in the order given; S is a multiple of `multiple`."""
    source = torch.from_numpy(_with_ends(*flatten(sources), multiple=multiple)[0])
    return source, source != PAD


class BatchLoader:
    """The batches of a corpus, epoch by epoch.

    With subword regularisation (a tokenizer with `sampling` and a corpus that keeps its text) each sentence is cut
    anew in every epoch. The draw depends on seed, epoch and batch number alone. There are as many batches as with the
    usual lengths, so they can then grow somewhat beyond `batch_tokens`.

    Args:
        corpus, tokenizer, batch_tokens, seed: what `plan` needs.
        prefetch: how many batches a thread makes before they are asked for; 0: none. They are the same either way.
        device: where they will be used; for CUDA their memory is pinned, so that it is copied while the device works.
    """

    def __init__(
        self,
        corpus: EncodedCorpus,
        tokenizer: Tokenizer,
        batch_tokens: int,
        seed: int,
        *,
        prefetch: int = 4,
        device: torch.device | None = None,
    ) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._prefetch = prefetch
        self._device = device if device is not None and device.type == "cuda" else None

    def epoch(self, epoch: int, start: int = 0, *, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; those before it are not computed.

        Args:
            share: (rank, size): of each batch every `size`-th row from row `rank` on, perhaps none, padded as wide as
                the whole batch. The shares have as many batches, and each says the whole batch's `num_tokens`.

        Raises:
            ValueError: a pair is longer than `batch_tokens`.
        """
        return prefetch(self._epoch(epoch, start, share), self._prefetch)

    def _epoch(self, epoch: int, start: int, share: tuple[int, int]) -> Iterator[Batch]:
        offsets = self._corpus.source.offsets, self._corpus.target.offsets
        check_max_length(self._corpus.longest, self._batch_tokens)
        for first, piece in epoch_chunks(*offsets, self._batch_tokens, seed=self._seed, epoch=epoch, start=start):
            made = self._drawn if self._samples else self._plain
            for batch in made(piece, epoch, first, max(0, start - first), share):
                batch = self._linked(batch)
                yield batch if self._device is None else _pinned(batch, self._device)
            if len(piece.order) < len(self._corpus):
                self._corpus.drop_page_cache()

    @property
    def _samples(self) -> bool:
        return self._tokenizer.sampling > 0 and self._corpus.source_text is not None

    def _plain(self, piece: EpochChunk, epoch: int, first: int, start: int, share: tuple[int, int]) -> Iterator[Batch]:
        """The batches of a piece from its batch `start` on."""
        part = slice(share[0], None, share[1])
        for number in range(start, len(piece)):
            rows = piece.rows(number)
            source, _ = _gather(self._corpus.source, rows, part)
            labels, num_tokens = _gather(self._corpus.target, rows, part)
            yield _batch(source, labels, rows[part], num_tokens)

    def _drawn(self, piece: EpochChunk, epoch: int, first: int, start: int, share: tuple[int, int]) -> Iterator[Batch]:
        """As `_plain`, of drawn segmentations; `first` is the number of the piece's first batch in the epoch."""
        corpus, part = self._corpus, slice(share[0], None, share[1])
        assert corpus.source_text is not None
        assert corpus.target_text is not None
        for begin in range(start // SAMPLED_BATCH_GROUP * SAMPLED_BATCH_GROUP, len(piece), SAMPLED_BATCH_GROUP):
            num = min(SAMPLED_BATCH_GROUP, len(piece) - begin)
            rows = np.concatenate([piece.rows(begin + i) for i in range(num)])
            seeds = np.random.SeedSequence([self._seed, epoch, first + begin]).generate_state(3).tolist()
            sources = self._tokenizer.encode_source_sampled(corpus.source_text.rows(rows), seeds[0])
            targets = self._tokenizer.encode_target_sampled(corpus.target_text.rows(rows), seeds[1])
            lengths, target_lengths = (np.fromiter(map(len, side), np.int64, len(rows)) for side in (sources, targets))
            parts = rebalance(lengths, target_lengths, num, np.random.default_rng(seeds[2]))
            for number, own in enumerate(parts, start=begin):
                if number >= start:
                    chosen = [sources[i] for i in own], [targets[i] for i in own]
                    whole = collate(*chosen, rows[own], multiple=LENGTH_MULTIPLE)
                    yield whole if share[1] == 1 else select_rows(whole, part)._replace(num_tokens=whole.num_tokens)

    def _linked(self, batch: Batch) -> Batch:
        """With the links of its subwords, where the corpus has a word alignment."""
        words = self._corpus.links
        if words is None:
            return batch
        links = project_to_subwords(words, batch.indices, batch.source.numpy(), batch.labels.numpy(), self._tokenizer)
        return batch._replace(links=links)


def _gather(
    side: TokenColumn, rows: NDArray[np.int64], part: slice = slice(None), multiple: int = 1
) -> tuple[NDArray[np.int64], int]:
    """(B, L + 1, rounded up to a multiple) the given rows of one side, EOS after each, then PAD; of a part of them, as
    wide as for all. And the number of tokens of all, EOS counted."""
    starts = side.offsets[rows]
    lengths = side.offsets[rows + 1] - starts
    width = -(-(int(lengths.max(initial=0)) + 1) // multiple) * multiple
    num_tokens = int(lengths.sum()) + len(rows)
    starts, lengths = starts[part], lengths[part]
    before = np.cumsum(lengths) - lengths
    token = np.arange(int(lengths.sum()))
    first = np.arange(len(lengths)) * width
    result = np.full((len(lengths), width), PAD, np.int64)
    flat = result.reshape(-1)
    flat[token + np.repeat(first - before, lengths)] = side.ids[token + np.repeat(starts - before, lengths)]
    flat[first + lengths] = EOS
    return result, num_tokens


def _with_ends(ids: NDArray[np.int32], lengths: NDArray[np.int64], multiple: int = 1) -> tuple[NDArray[np.int64], int]:
    """As `_gather`, for sequences written one after another."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return _gather(TokenColumn(ids, offsets), np.arange(len(lengths)), multiple=multiple)


def _batch(source: NDArray[np.int64], labels: NDArray[np.int64], indices: NDArray[np.int64], num_tokens: int) -> Batch:
    # All of it by numpy: in a thread of its own torch would start a second set of threads for what it computes there.
    inputs = np.empty_like(labels)
    inputs[:, 0] = BOS
    inputs[:, 1:] = np.where(labels[:, :-1] == EOS, PAD, labels[:, :-1])
    return Batch(
        source=torch.from_numpy(source),
        source_mask=torch.from_numpy(source != PAD),
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(labels),
        label_indices=torch.from_numpy(np.flatnonzero(labels != PAD)),
        num_tokens=num_tokens,
        indices=indices,
    )


def _pinned(batch: Batch, device: torch.device) -> Batch:
    with torch.cuda.device(device):  # a thread begins on the first GPU, and would take memory there
        return _changed(batch, lambda tensor: tensor.pin_memory())


def _changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    source, source_mask, inputs, labels, places = map(change, batch[:5])
    links = None if batch.links is None else AlignmentTargets(*map(change, batch.links))
    return Batch(source, source_mask, inputs, labels, places, batch.num_tokens, batch.indices, links)
