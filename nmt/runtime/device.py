"""Device, precision and compilation."""

import contextlib
import functools
import logging
import os
import re
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nmt.runtime.logs import warn_once

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
"""Precisions of the products; on CUDA, what bf16 and fp16 leave in fp32 is computed in TF32."""
AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
CUBLAS_WORKSPACE = ":4096:8"
"""The value of CUBLAS_WORKSPACE_CONFIG with which cuBLAS always adds in the same order: eight buffers of 4 MiB."""

log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """Return the device for a value of the option `device`; "auto" is the GPU if there is one.

    Raises:
        ValueError: the name is unknown or the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda)(:\d{1,2})?", name):
        raise ValueError(f"device={name}: must be auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices; use device=cpu or auto"
        )
    return device


@functools.cache
def cpu_has_bf16() -> bool:
    """Return whether oneDNN has bf16 on this CPU: older ones, with AVX2 alone, lack the instructions."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def resolve_precision(name: str, device: torch.device, option: str = "search.precision") -> str:
    """Return the precision; "auto" is bf16 where it is faster (GPUs that have it, CPUs by a measurement), else fp32.

    bf16 is fp32, with a warning, on a CPU without it.

    Raises:
        ValueError: the precision is not for this device; `option` is its name in the message.
    """
    if name == "tf32" and device.type == "cpu":
        raise ValueError(f"{option}=tf32: a CPU has no TF32; use fp32, bf16 or auto, or a GPU (device=cuda)")
    if name == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        warn_once(f"{option}=bf16: this CPU has no instructions for it, and computes in fp32")
        return "fp32"
    if name != "auto":
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):  # a GPU without bf16, as T4 or V100, emulates it slowly
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    is_faster = cpu_has_bf16() and _matmul_seconds(torch.bfloat16) < 0.8 * _matmul_seconds(torch.float32)
    return "bf16" if is_faster else "fp32"


@functools.cache
def _matmul_seconds(dtype: torch.dtype) -> float:
    """Return the time of the fastest of a few matrix products, measured once, so that a process decides once."""
    a = torch.ones(512, 512, dtype=dtype)
    return min(timeit.repeat(lambda: a @ a, number=1, repeat=8))


def compile_modules(model: nn.Module) -> None:
    """Compile the methods that modules name in `compiles`: Transformer layers, the loop body of a recurrent decoder.

    They are compiled at their first call, once for all sizes of batch and lengths of sentences. Names and values of the
    parameters do not change.
    """
    for module in model.modules():
        if name := getattr(module, "compiles", None):
            setattr(module, name, TrainOnlyCompiled(module, getattr(module, name)))


class TrainOnlyCompiled:
    """A method of a module, compiled in training mode only: each step of a search would be compiled for its shape."""

    def __init__(self, module: nn.Module, method: Callable[..., Any]) -> None:
        # The body of a loop is compiled in pieces (its weights are `LoopWeight`), in which marks would be lost.
        self.module, self.method, self.is_loop = module, method, method.__name__ != "forward"
        self.compiled = torch.compile(method, dynamic=True if self.is_loop else None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.module.training:
            return self.method(*args, **kwargs)
        if not self.is_loop:
            _mark_batch_and_lengths((args, kwargs))
        return self.compiled(*args, **kwargs)


def _mark_batch_and_lengths(value: Any) -> None:
    """Mark what differs from batch to batch in (B, …, length, width), (B, width), or masks (B, length).

    Widths and numbers of heads stay constants for the compiler, which can then choose tiles for them.
    """
    if isinstance(value, Tensor):
        varying = {0, value.dim() - 2, *([value.dim() - 1] if value.dtype == torch.bool else [])}
        torch._dynamo.maybe_mark_dynamic(value, sorted(varying & set(range(value.dim()))))
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            _mark_batch_and_lengths(part)


@contextlib.contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Let torch use deterministic algorithms only in the block, if `enabled`.

    Raises:
        ValueError: an operation of the model has none on this device.
    """
    if not enabled:
        yield
        return
    variable, cudnn, usual = "CUBLAS_WORKSPACE_CONFIG", torch.backends.cudnn, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    if torch.cuda.is_initialized() and usual is None:
        log.warning("CUDA was in use before this run: for train.deterministic set %s=%s", variable, CUBLAS_WORKSPACE)
    os.environ.setdefault(variable, CUBLAS_WORKSPACE)  # read when CUDA begins
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(". ")[0]
        raise ValueError(
            f"train.deterministic=true: {reason}; change the options that need it, or leave this one out"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]
        if usual is None:
            del os.environ[variable]


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the autocast context of a precision; parameters and optimizer stay fp32.

    On CUDA the call also sets how fp32 products are computed, in fp32 for precision fp32, else in TF32. That holds for
    the process until the next call: the backward pass comes after the context.
    """
    if device.type == "cuda":
        backends: Any = torch.backends
        for backend in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            backend.fp32_precision = "ieee" if precision == "fp32" else "tf32"
    dtype = AUTOCAST_DTYPES.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
