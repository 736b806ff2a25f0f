"""Training on several devices: the ranks, their collectives, and the synchronization of gradients.

Rank r of N computes rows r, r + N, … of every batch, and the gradients are summed. The number of devices therefore
changes the speed of a run and nothing else: the same updates from the same data in the same order.
"""

import atexit
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nmt.data import BOS, EOS, PAD, Batch
from nmt.runtime.process import end_with_parent

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""Longest wait of a rank in a collective: the main process may decode a large test set meanwhile. A lost rank is
noticed by its closed connection, and by the launcher, not by this limit."""

JOIN_TIMEOUT = timedelta(minutes=10)
"""Longest wait of a rank for the others to join, and for their gradients."""


def cpu_count() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class DistributedContext:
    """The processes of a run, one for each device; by default a single one, for which the collectives cost nothing.

    rank, size: the number of this process, from 0, and how many there are.
    local_rank, local_size: the same on this machine.
    control_group: for collectives on the CPU, which do not wait for a device.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    control_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Return whether this process is the one that writes, validates and evaluates."""
        return self.rank == 0

    def threads(self, wanted: int) -> int:
        """Return the number of threads: `wanted`; if that is 0, a share of the cores, or 0 for a single process."""
        return wanted if wanted or self.local_size == 1 else max(1, cpu_count() // self.local_size)

    def device(self, chosen: torch.device) -> torch.device:
        """Return the device of this rank. Raise ValueError when `chosen` names one device for all ranks."""
        if self.size == 1 or chosen.type != "cuda":
            return chosen
        if chosen.index is not None:
            raise ValueError(f"device={chosen}: each of {self.size} processes has a device of its own; use device=cuda")
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let the main process run first, then the first rank of each machine, then the others."""
        turn = 0 if self.rank == 0 else 1 if self.local_rank == 0 else 2
        for current in range(3):
            if current == turn:
                yield
            self.all_gather(())

    @contextmanager
    def leave_together(self) -> Iterator[None]:
        """Let each rank wait at the end of the block for the others, however they come there.

        It waits in a collective, which fails when another rank is lost.
        """
        try:
            yield
        finally:
            self.all_gather(())

    def all_gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return the numbers of every rank, in the order of the ranks."""
        if self.size == 1:
            return [list(numbers)]
        values = torch.tensor([0.0, *numbers], dtype=torch.float64)
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values, group=self.control_group)
        return [tensor.tolist()[1:] for tensor in gathered]

    def broadcast(self, value: T | None) -> T:
        """Return the value of the main process, on every rank."""
        if self.size > 1:
            values = [value]
            dist.broadcast_object_list(values, src=0, group=self.control_group)
            (value,) = values
        return cast(T, value)

    def all_reduce(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks, computed in place on the device of the values."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wrap(self, model: nn.Module) -> "GradientSync":
        """Return the model with the synchronization of its gradients."""
        return GradientSync(model, self) if self.size == 1 else DDPGradientSync(model, self)


class GradientSync:
    """A model whose gradients are summed over all ranks; here, with one rank, the model as it is.

    Args:
        model: on this rank's device; all ranks start from the weights of the main process.
    """

    def __init__(self, model: nn.Module, distributed: DistributedContext) -> None:
        self.call: Any = model
        self.distributed = distributed
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the loss to that of the earlier micro-batches."""
        torch.autograd.backward(loss)

    def no_sync_context(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Return the context of a micro-batch's forward and backward pass; the last one sums over the ranks."""
        return nullcontext()

    def abort(self) -> bool:
        """Return, after a failed micro-batch, whether other ranks are already summing it and must start again."""
        return False


class DDPGradientSync(GradientSync):
    """Synchronization by torch's DDP, which sends gradients while the rest of them is still being computed."""

    def __init__(self, model: nn.Module, distributed: DistributedContext) -> None:
        super().__init__(model, distributed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions have another name for broadcast_buffers
            # Buffers are constants. Sending them would be a collective in the forward pass, which one rank alone may
            # have to repeat.
            self.ddp = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        self._warm_up_buckets()
        self.call = self.ddp
        self._summing = False
        self._summed: set[Tensor] = set()
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self._summed.add)

    def _warm_up_buckets(self) -> None:
        """Make one empty pass, since DDP reorders its buckets after the first one.

        The rounding of sums over three ranks or more depends on that order, and a continued run must sum as an
        uninterrupted one does.
        """
        module, self.ddp.module = self.ddp.module, nn.Identity()
        loss = self.ddp(self.parameters[0].new_zeros((), requires_grad=True))
        torch.autograd.backward(_touch_parameters(loss, self.parameters[::-1]))
        self.ddp.module = module
        for parameter in self.parameters:
            parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        # DDP averages, and waits for every parameter: also for those that this micro-batch does not use.
        torch.autograd.backward(_touch_parameters(loss * self.distributed.size, self.parameters))

    @contextmanager
    def no_sync_context(self, *, is_last: bool) -> Iterator[None]:
        self._summed.clear()
        self._summing = is_last
        with nullcontext() if is_last else self.ddp.no_sync():
            yield

    def abort(self) -> bool:
        if not self._summing or not self._summed:
            return False
        # The other ranks wait for sums that this rank's backward pass will not reach any more: it adds nothing to them.
        missing = [parameter for parameter in self.parameters if parameter not in self._summed]
        if missing:
            zero = torch.zeros((), device=missing[0].device, requires_grad=True)
            torch.autograd.backward(_touch_parameters(zero, missing))
        return True


class _TouchParameters(torch.autograd.Function):
    """The identity of the loss, whose backward pass also reaches parameters it does not depend on, without gradient."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.num = len(parameters)
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        return (grads[0], *[None] * ctx.num)


def _touch_parameters(loss: Tensor, parameters: Sequence[Tensor]) -> Any:
    return _TouchParameters.apply(loss, *parameters)  # type: ignore[no-untyped-call]


def is_launched() -> bool:
    """Return whether a launcher (`nmt.training.launcher`, torchrun) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def init_distributed(devices: int, kind: str) -> DistributedContext:
    """Join the process group that the launcher's environment variables describe; it stays for later runs, until
    the process ends.

    Args:
        devices: the option `train.devices`.
        kind: of device, cpu or cuda.

    Raises:
        ValueError: the launcher started another number of processes, or there are not as many devices.
        TimeoutError: not all processes have joined within `JOIN_TIMEOUT`.
    """
    if not is_launched():
        return DistributedContext()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if devices not in (1, size):
        raise ValueError(f"train.devices={devices}: the launcher started {size} processes; leave train.devices out")
    check_devices(local_size, kind)
    atexit.unregister(dist.destroy_process_group)  # see `leave_at_exit`
    try:
        if not dist.is_initialized():  # the runs of a sweep follow each other in the same processes
            if kind == "cuda":
                torch.cuda.set_device(local_rank)
            end_with_parent(os.getppid())
            device_id = torch.device("cuda", local_rank) if kind == "cuda" else None  # NCCL connects at once
            dist.init_process_group("nccl" if device_id else "gloo", timeout=JOIN_TIMEOUT, device_id=device_id)
        control_group = dist.new_group(backend="gloo", timeout=JOIN_TIMEOUT)
    except RuntimeError as error:
        limit, reason = f"{JOIN_TIMEOUT.total_seconds() / 60:g} minutes", str(error).partition("\n")[0]
        raise TimeoutError(
            f"rank {rank} of {size} could not join the others ({reason}); they wait {limit} for each other: start all "
            "of them together, with the same address"
        ) from error
    dist.distributed_c10d._set_pg_timeout(COLLECTIVE_TIMEOUT, control_group)
    return DistributedContext(rank, size, local_rank, local_size, control_group)


def leave_at_exit() -> None:
    """Let the end of this process leave the group in order, unless another run begins; after a run without error alone.

    After an error other ranks may be in the middle of a collective, and NCCL would wait for them.
    """
    atexit.register(dist.destroy_process_group)


def check_devices(wanted: int, kind: str) -> None:
    """Raise ValueError when this machine has fewer CUDA devices than processes to run on them."""
    if kind == "cuda" and wanted > torch.cuda.device_count():
        available = f"{torch.cuda.device_count()} CUDA devices, and each process needs its own"
        raise ValueError(f"train.devices={wanted}: this machine has {available}")


def fill_shard(shard: Batch) -> Batch:
    """Return a rank's share of a batch; if it is empty, a row without labels, which adds nothing to the gradient but
    passes through the model."""
    if len(shard.indices):
        return shard
    source, inputs = (torch.full((1, ids.size(1)), PAD) for ids in (shard.source, shard.inputs))
    source[:, 0], inputs[:, 0], labels = EOS, BOS, torch.full_like(inputs, PAD)
    return shard._replace(
        source=source, source_mask=source != PAD, inputs=inputs, labels=labels, indices=np.zeros(1, np.int64)
    )
