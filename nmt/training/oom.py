"""Batches that a device cannot hold: they are computed in halves."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from nmt.data import Batch, batch_to_device, select_rows
from nmt.runtime.memory import is_oom_error
from nmt.training.distributed import GradientSync

log = logging.getLogger(__name__)


def split_batch(batch: Batch) -> list[Batch]:
    """The batch, of two rows or more, in two by rows."""
    middle = (len(batch.indices) + 1) // 2
    return [select_rows(batch, slice(middle)), select_rows(batch, slice(middle, None))]


def shard_batch(batch: Batch, rank: int, size: int) -> Batch:
    """Every size-th row, which are alike in all shares, since rows are sorted by length.

    An empty share is a row without labels: it adds nothing to the gradient, but passes through the model.
    """
    if size == 1:
        return batch
    if rank < len(batch.indices):
        return select_rows(batch, slice(rank, None, size))
    one = select_rows(batch, slice(1))
    links = (
        None
        if one.links is None
        else one.links._replace(indices=one.links.indices[:, :0], weights=one.links.weights[:0])
    )
    return one._replace(
        labels=torch.zeros_like(one.labels), label_indices=one.label_indices[:0], num_tokens=0, links=links
    )


class MicroBatches:
    """The batches of one update as this rank computes them: its rows, in halves where memory ran out.

    Iterating begins again from the first piece when one did not fit, here or on another rank, because a backward pass
    that broke off has left a part of its gradient behind. The random numbers begin again too.

    Args:
        batches: whole ones.
        network: its gradients are set to none at each beginning.
        begin: called at each beginning.
        device: of the pieces.

    losses: what `add` was given, since the last beginning.
    num_split: of the batches, over all ranks, how often one was split; complete when the iteration is.
    """

    def __init__(
        self, batches: Sequence[Batch], network: GradientSync, begin: Callable[[], None], device: torch.device
    ) -> None:
        ranks = network.ranks
        self._pieces = [shard_batch(batch, ranks.rank, ranks.size) for batch in batches]
        self._num_tokens = sum(batch.num_tokens for batch in batches)
        self._network, self._begin, self._device = network, begin, device
        self._error: str | None = None
        self._is_last = False
        self._num_split_here = 0
        self.num_split = 0
        self.losses: list[Tensor] = []

    def __iter__(self) -> Iterator[Batch]:
        again = True
        while again:
            self._begin()
            for parameter in self._network.parameters:
                parameter.grad = None
            self.losses = []
            others_wait = False
            for number, piece in enumerate(self._pieces):
                self._is_last = number == len(self._pieces) - 1
                self._error = None
                yield batch_to_device(piece, self._device)
                if self._error is not None:
                    others_wait = self._network.abort()
                    self._split(number)
                    break
            if self._error is not None and not others_wait:
                continue  # nothing of this was seen by the other ranks
            heard = self._network.ranks.all_gather((others_wait, self._num_split_here))
            again = any(restart for restart, _ in heard)
            self.num_split = int(sum(num for _, num in heard))

    @contextmanager
    def catch_oom(self) -> Iterator[None]:
        """Around forward and backward of a piece; running out of memory inside ends the block without an error."""
        try:
            with self._network.no_sync_context(is_last=self._is_last):
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_oom_error(error):
                raise
            self._error = str(error).split("\n")[0]  # and not the error itself, which holds on to what it ran through

    def backward(self, loss: Tensor, losses: Tensor) -> None:
        """Differentiates a piece's share of the mean loss over all tokens, and keeps what is logged of it."""
        self._network.backward(loss / self._num_tokens)
        self.losses.append(losses)

    def _split(self, number: int) -> None:
        piece = self._pieces[number]
        rows = len(piece.indices)
        size = f"{rows} pairs of {piece.source.size(1)} and {piece.labels.size(1)} tokens"
        if rows == 1:
            raise ValueError(
                f"out of memory on a single pair of {piece.source.size(1)} and {piece.labels.size(1)} tokens "
                f"({self._error}): lower data.max_length, or make the model smaller"
            )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory on %s: computed in two halves (%s)", size, self._error)
        self._pieces[number : number + 1] = split_batch(piece)
        self._num_split_here += 1
