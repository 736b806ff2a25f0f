"""Batches of about equal cost, made anew for each epoch; the same seed and epoch always give the same batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.data.batch_sampler import EPOCH_CHUNK_ROWS, EpochChunk, RowIndices, check_max_length, epoch_chunks, rebalance
from nmt.data.corpus import EncodedCorpus, TokenColumn
from nmt.data.mixing import Mixture, of_rows
from nmt.data.prefetch import prefetch
from nmt.data.subword_alignments import AlignmentTargets, project_to_subwords
from nmt.data.subword_sampling import enumerate_groups, row_keys
from nmt.data.tags import with_prefixes
from nmt.data.terms import TermAnnotator
from nmt.data.tokenizer import Tokenizer
from nmt.data.vocabulary import BOS, EOS, PAD, flatten_ids
from nmt.runtime.memory import halve_on_oom

Result = TypeVar("Result")

LENGTH_MULTIPLE = 4
"""Batches with sampled segmentations are padded to a multiple of this length: oneDNN compiles for each new shape, and
every sample would bring one."""
SAMPLED_BATCH_GROUP = 64
"""Number of batches whose segmentations are sampled together and regrouped by their new lengths."""


class Batch(NamedTuple):
    """B pairs for teacher forcing; masks are True at real tokens."""

    source: Tensor  # (B, S) int64, each row ends with EOS, then PAD
    source_mask: Tensor  # (B, S) bool
    inputs: Tensor  # (B, T) int64, BOS and the target
    labels: Tensor  # (B, T) int64, the target and EOS
    label_indices: Tensor  # (N,) int64, b * T + t of the labels that are not PAD: finding them would sync the device
    num_tokens: int  # labels that are not PAD; those of the whole batch, where this is one rank's shard of it
    indices: NDArray[np.int64]  # (B,) rows of the corpus
    links: AlignmentTargets | None = None  # of a corpus with word alignments
    corpora: Tensor | None = None  # (B,) int64, of a text of several corpora: that of each row
    rows_by_corpus: NDArray[np.int64] | None = None  # (K,) pairs of each corpus, in the whole batch


def collate(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    indices: NDArray[np.int64] | None = None,
    *,
    multiple: int = 1,
) -> Batch:
    """Make a batch of id lists without BOS and EOS; `indices` are kept with it, by default 0 to B - 1.

    Both sides are padded to a multiple of `multiple`.
    """
    indices = np.arange(len(sources)) if indices is None else indices
    (source, _), (labels, num_tokens) = (_pad(*flatten_ids(side), multiple=multiple) for side in (sources, targets))
    return _make_batch(source, labels, indices, num_tokens)


def batch_to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on the device."""
    if device.type == "cpu":
        return batch
    return _map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def select_rows(batch: Batch, rows: slice | Sequence[int] | NDArray[np.int64]) -> Batch:
    """Return some rows of a batch on the CPU, such as `slice(rank, None, size)`, in the order given and padded as wide
    as before; perhaps none."""
    selected = np.arange(len(batch.indices))[rows]
    index = torch.from_numpy(selected)
    source, source_mask, inputs, labels = (tensor[index] for tensor in batch[:4])
    links = batch.links
    if links is not None:
        new_rows = torch.full((len(batch.indices),), -1)
        new_rows[index] = torch.arange(len(selected))
        row, target, column = links.indices
        kept = new_rows[row] >= 0
        links = AlignmentTargets(torch.stack([new_rows[row], target, column])[:, kept], links.weights[kept])
    label_indices = (labels != PAD).flatten().nonzero().squeeze(1)
    corpora = None if batch.corpora is None else batch.corpora[index]
    rest = len(label_indices), batch.indices[selected], links, corpora, batch.rows_by_corpus
    return Batch(source, source_mask, inputs, labels, label_indices, *rest)


def halve_batch_on_oom(
    function: Callable[[Batch], Result], batch: Batch, device: torch.device, *, what: str, remedy: str
) -> list[Result]:
    """Return the result for a batch on the device, or those for its halves where memory runs out; arguments and errors
    as of `halve_on_oom`."""

    def compute(rows: Sequence[int]) -> Result:
        part = batch if len(rows) == len(batch.indices) else select_rows(batch, rows)
        return function(batch_to_device(part, device))

    return halve_on_oom(compute, range(len(batch.indices)), what=what, remedy=remedy)


def source_batch(sources: Sequence[Sequence[int]], *, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Make source (B, S) and mask (B, S) of id lists without EOS, in the order given; S is a multiple of `multiple`."""
    source = torch.from_numpy(_pad(*flatten_ids(sources), multiple=multiple)[0])
    return source, source != PAD


@dataclass(eq=False)
class BatchLoader:
    """The batches of a corpus, epoch by epoch.

    With subword regularization (a tokenizer with `sampling` and a corpus that keeps its text) each sentence is
    segmented anew in every epoch, and pass of a mixture, depending on seed, epoch, pass and its row alone. There are as
    many batches as with the deterministic segmentation, so they can grow somewhat beyond `batch_tokens`; so with terms.

    Args:
        corpus, tokenizer, batch_tokens, seed: as for `make_batches`.
        prefetch: number of batches made in advance by a thread; 0: none. The batches are the same either way.
        device: where they will be used; for CUDA their memory is pinned, so that copying overlaps with computation.
        mixture: of a corpus that consists of several; None: each pair once in an epoch.
        terms: annotates sources, in every epoch others; None: they stay as they are.
    """

    corpus: EncodedCorpus
    tokenizer: Tokenizer
    batch_tokens: int
    seed: int
    _: KW_ONLY
    prefetch: int = 4
    device: torch.device | None = None
    mixture: Mixture | None = None
    terms: TermAnnotator | None = None

    @property
    def _resegments(self) -> bool:
        return self.tokenizer.subword_regularization > 0 and self.corpus.source_text is not None

    @property
    def corpora(self) -> list[str]:
        """The names of the corpora that the text consists of; [] where it is one."""
        return [*self.corpus.bounds]

    def num_batches(self) -> int:
        """Return how many batches the first epoch has; others differ a little where a corpus is divided into chunks."""
        return sum(len(chunk) for _, chunk in self._chunks(0))

    def _chunks(self, epoch: int, start: int = 0) -> Iterator[tuple[int, EpochChunk]]:
        if self.mixture is not None:
            return self.mixture.chunks(epoch, start)
        offsets = self.corpus.source.offsets, self.corpus.target.offsets
        return epoch_chunks(*offsets, self.batch_tokens, seed=self.seed, epoch=epoch, start=start)

    def epoch(self, epoch: int, start: int = 0, *, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on; those before it are not computed.

        Args:
            share: (rank, size): of each batch every `size`-th row from row `rank` on, perhaps none, padded as wide as
                the whole batch. All shards have as many batches, each with the whole batch's `num_tokens`.

        Raises:
            ValueError: a pair is longer than `batch_tokens`.
        """
        return prefetch(self._make_epoch(epoch, start, share), self.prefetch)

    def _make_epoch(self, epoch: int, start: int, share: tuple[int, int]) -> Iterator[Batch]:
        check_max_length(self.corpus.max_length, self.batch_tokens)
        is_sampled = self._resegments or self.terms is not None
        make, shard = self._sampled_batches if is_sampled else self._batches, slice(share[0], None, share[1])
        words = self.corpus.links
        for first, chunk in self._chunks(epoch, start):
            for batch in make(chunk, epoch, first, max(0, start - first), shard):
                if words is not None:
                    ids = batch.source.numpy(), batch.labels.numpy()
                    links = project_to_subwords(words, batch.indices, *ids, self.tokenizer)
                    batch = batch._replace(links=links)
                yield batch if self.device is None else pin_memory(batch, self.device)
            if len(self.corpus) > EPOCH_CHUNK_ROWS:
                self.corpus.drop_page_cache()

    def _batches(self, chunk: EpochChunk, epoch: int, first: int, start: int, shard: slice) -> Iterator[Batch]:
        """Yield the batches of a chunk from its batch `start` on."""
        for number in range(start, len(chunk)):
            rows = chunk.row_indices(number)
            yield self._make_batch((self.corpus.source, self.corpus.target), rows, rows, shard)

    def _make_batch(
        self, sides: Sequence[TokenColumn], members: RowIndices, rows: RowIndices, shard: slice, multiple: int = 1
    ) -> Batch:
        """Make a batch of some members of both sides, which are these rows of the corpus; see `_gather`."""
        (source, _), (labels, num_tokens) = (_gather(side, members, shard, multiple) for side in sides)
        batch = _make_batch(source, labels, rows[shard], num_tokens)
        if not self.corpus.bounds:
            return batch
        counts = np.bincount(of_rows(self.corpus, rows), minlength=len(self.corpus.bounds))
        return batch._replace(corpora=torch.from_numpy(of_rows(self.corpus, batch.indices)), rows_by_corpus=counts)

    def _sampled_batches(self, chunk: EpochChunk, epoch: int, first: int, start: int, shard: slice) -> Iterator[Batch]:
        """Yield them with sampled segmentations or terms; `first` is the number of the first batch in the epoch."""
        corpus, seed = self.corpus, [self.seed, epoch]
        for group in range(start // SAMPLED_BATCH_GROUP * SAMPLED_BATCH_GROUP, len(chunk), SAMPLED_BATCH_GROUP):
            num = min(SAMPLED_BATCH_GROUP, len(chunk) - group)
            bounds = zip(chunk.starts[group : group + num], chunk.ends[group : group + num], strict=True)
            places = np.concatenate([np.arange(*pair) for pair in bounds])
            rows = chunk.order[places].astype(np.int64)
            numbers = rows if chunk.passes is None else rows + len(corpus) * chunk.passes[places]
            encoders = self.tokenizer.encode_source_sampled, self.tokenizer.encode_target_sampled
            texts = (corpus.source_text, corpus.target_text) if self._resegments else ()
            sides = [] if texts else [_take(corpus.source, rows), _take(corpus.target, rows)]
            for key, (encode, text, prefixes) in enumerate(zip(encoders, texts, corpus.prefixes, strict=False), 1):
                assert text is not None
                flat = encode(text.rows(rows), row_keys([*seed, key], numbers))
                sides.append(_to_column(*with_prefixes(flat, prefixes, of_rows(corpus, rows))))
            if self.terms is not None:
                sides[0] = self.terms.annotate(sides[0], sides[1], rows, row_keys([*seed, 4], numbers))
            rng = np.random.default_rng([*seed, 3, first + group])
            batches = rebalance(np.diff(sides[0].offsets), np.diff(sides[1].offsets), num, rng)
            for number, members in enumerate(batches, start=group):
                if number >= start:
                    yield self._make_batch(sides, members, rows[members], shard, LENGTH_MULTIPLE)


def _take(side: TokenColumn, rows: RowIndices) -> TokenColumn:
    """Return some rows of one side."""
    lengths = side.offsets[rows + 1] - side.offsets[rows]
    row, index = enumerate_groups(lengths)
    return _to_column(side.ids[side.offsets[rows][row] + index], lengths)


def _gather(
    side: TokenColumn, rows: NDArray[np.int64], shard: slice = slice(None), multiple: int = 1
) -> tuple[NDArray[np.int64], int]:
    """Return the padded ids (B, L) of some rows of one side and the number of tokens, EOS counted.

    EOS follows each row, then PAD. With a `shard` its rows alone, as wide as all and with the number of tokens of all.
    L is a multiple of `multiple`.
    """
    starts = side.offsets[rows]
    lengths = side.offsets[rows + 1] - starts
    width = -(-(int(lengths.max(initial=0)) + 1) // multiple) * multiple
    num_tokens = int(lengths.sum()) + len(rows)
    starts, lengths = starts[shard], lengths[shard]
    before = np.cumsum(lengths) - lengths
    token = np.arange(int(lengths.sum()))
    first = np.arange(len(lengths)) * width
    result = np.full((len(lengths), width), PAD, np.int64)
    flat = result.reshape(-1)
    flat[token + np.repeat(first - before, lengths)] = side.ids[token + np.repeat(starts - before, lengths)]
    flat[first + lengths] = EOS
    return result, num_tokens


def _pad(ids: NDArray[np.int32], lengths: NDArray[np.int64], multiple: int = 1) -> tuple[NDArray[np.int64], int]:
    """Pad concatenated sequences; return what `_gather` does."""
    return _gather(_to_column(ids, lengths), np.arange(len(lengths)), multiple=multiple)


def _to_column(ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> TokenColumn:
    return TokenColumn(ids, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


def _make_batch(
    source: NDArray[np.int64], labels: NDArray[np.int64], indices: NDArray[np.int64], num_tokens: int
) -> Batch:
    # With numpy alone: in a prefetch thread, torch would start a second pool of threads.
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


def pin_memory(batch: Batch, device: torch.device) -> Batch:
    """Return the batch in pinned memory if the device is a GPU, so that copying to it overlaps with computation."""
    if device.type != "cuda":
        return batch
    with torch.cuda.device(device):  # a thread begins on the first GPU, and would take memory there
        return _map_tensors(batch, lambda tensor: tensor.pin_memory())


def _map_tensors(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    source, source_mask, inputs, labels, label_indices = map(change, batch[:5])
    links = None if batch.links is None else AlignmentTargets(*map(change, batch.links))
    corpora = None if batch.corpora is None else change(batch.corpora)
    rest = batch.num_tokens, batch.indices, links, corpora, batch.rows_by_corpus
    return Batch(source, source_mask, inputs, labels, label_indices, *rest)
