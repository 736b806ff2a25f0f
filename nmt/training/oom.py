"""Micro-batches: the rows of a batch that one rank computes, split in two where its device runs out of memory."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from nmt.data import Batch, batch_to_device, pin_memory, select_rows
from nmt.runtime.memory import is_oom_error
from nmt.training.distributed import GradientSync, fill_shard

log = logging.getLogger(__name__)


class MicroBatches:
    """The batches of one update as this rank computes them: its rows, split in two where memory ran out.

    The iteration starts again from the first micro-batch when one did not fit, here or on another rank, because an
    aborted backward pass leaves a part of its gradient behind. The random numbers start again too.

    Args:
        batches: this rank's shares of them (see `BatchLoader.epoch`).
        grad_sync: its gradients are set to none at each start.
        on_start: called at each start.
        device: of the micro-batches.
        scaler: multiplies the differentiated loss; disabled, it does not.

    losses: those given to `backward` since the last start.
    num_split: number of splits over all ranks; final when the iteration has ended.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        grad_sync: GradientSync,
        on_start: Callable[[], None],
        device: torch.device,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self._micro_batches, self._scaler = [fill_shard(batch) for batch in batches], scaler
        self._num_tokens = sum(batch.num_tokens for batch in batches)
        self._grad_sync, self._on_start, self._device = grad_sync, on_start, device
        self._error: str | None = None
        self._is_last = False
        self._num_split_here = self.num_split = 0
        self.losses: list[Tensor] = []

    def __iter__(self) -> Iterator[Batch]:
        restart = True
        while restart:
            self._on_start()
            for parameter in self._grad_sync.parameters:
                parameter.grad = None
            self.losses = []
            ranks_wait = False
            for number, micro_batch in enumerate(self._micro_batches):
                self._is_last = number == len(self._micro_batches) - 1
                self._error = None
                yield batch_to_device(micro_batch, self._device)
                if self._error is not None:
                    ranks_wait = self._grad_sync.abort()
                    self._split(number)
                    break
            if self._error is not None and not ranks_wait:
                continue  # nothing of this was seen by the other ranks
            gathered = self._grad_sync.distributed.all_gather((ranks_wait, self._num_split_here))
            restart = any(rank_restarts for rank_restarts, _ in gathered)
            self.num_split = int(sum(num for _, num in gathered))

    @contextmanager
    def catch_oom(self) -> Iterator[None]:
        """Wrap the forward and backward pass of a micro-batch; running out of memory is noted, not raised."""
        try:
            with self._grad_sync.no_sync_context(is_last=self._is_last):
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_oom_error(error):
                raise
            self._error = str(error).split("\n")[0]  # not the error itself, whose traceback keeps tensors alive

    def backward(self, loss: Tensor, losses: Tensor) -> None:
        """Differentiate the micro-batch's share of the mean loss over all tokens, and keep `losses` for the log."""
        self._grad_sync.backward(self._scaler.scale(loss / self._num_tokens))
        self.losses.append(losses)

    def _split(self, number: int) -> None:
        micro_batch = self._micro_batches[number]
        rows = len(micro_batch.indices)
        size = f"{micro_batch.source.size(1)} and {micro_batch.labels.size(1)} tokens"
        if rows == 1:
            raise ValueError(
                f"out of memory on a single pair of {size} ({self._error}): lower data.max_length, or make the model "
                "smaller"
            )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory on %d pairs of %s: computed in two halves (%s)", rows, size, self._error)
        halves = (slice((rows + 1) // 2), slice((rows + 1) // 2, None))
        parts = [select_rows(micro_batch, half) for half in halves]
        self._micro_batches[number : number + 1] = [pin_memory(part, self._device) for part in parts]
        self._num_split_here += 1
