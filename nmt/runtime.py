"""The process and its device: threads, memory, precision, logging."""

import contextlib
import ctypes
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
GROWTH = 1.5


def prepare(threads: int = 0) -> None:
    """Sets the process up: number of threads (0 = torch's choice), log lines on stderr, freed memory kept.

    glibc hands large freed blocks back to the kernel and takes them anew for every tensor; keeping them saves the page
    faults, about a fifth of a training step on a CPU.
    """
    if threads:
        torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library: it has no such switch
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    logger = logging.getLogger("nmt")
    if not logger.handlers:
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.setLevel(logging.INFO)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)  # what a progress bar shows instead still goes into a log file
        logger.propagate = False


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment, which may have been exchanged since the program began."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


def reset_peak_memory() -> None:
    """Begins to measure `peak_memory` anew, after freed memory was handed back; where the system can do it."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    _hand_back()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_memory() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def bound_memory(usual: int) -> int:
    """Hands freed memory back when the process holds half as much again as `usual` bytes; returns what is usual, which
    is what it holds now when `usual` is 0.

    What `prepare` keeps falls into ever more pieces when no batch has the shape of another, and none of them is large
    enough for the next one: 9.8 GB instead of 5.8 after 1,000 updates with drawn segmentations.
    """
    held = resident_memory()
    if usual and held > GROWTH * usual:
        _hand_back()
    return usual or held


def _hand_back() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory(on: torch.device) -> int:
    """Bytes at most since the last reset: of the device's tensors on a GPU, else of the whole process."""
    if on.type == "cuda":
        return torch.cuda.max_memory_allocated(on)
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _LogFile(logging.FileHandler):
    """Goes without the lines for which the disk has no room: the terminal has them, and the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Repeats every log line in a file while the context lasts."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("nmt")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def device(name: str) -> torch.device:
    """The device that `device=` names; "auto" is the GPU when there is one.

    Raises:
        ValueError: the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name}: must be auto, cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name}: must be auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices; use device=cpu or auto"
        )
    return chosen


def precision(name: str, on: torch.device) -> str:
    """fp32 or bf16; "auto" takes bf16 where it is faster: on GPUs that have it, on CPUs by a short measurement."""
    if name != "auto":
        return name
    if on.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32) else "fp32"


def _seconds(dtype: torch.dtype) -> float:
    """The best of a few matrix products."""
    a = torch.ones(512, 512, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return best


def compile_parts(model: nn.Module) -> None:
    """Compiles, when they are first called, the methods that modules name in `compiles`: a Transformer's layers, the
    body of a recurrent decoder's loop. They are compiled for any batch size and length at once.

    The model's names and numbers stay as they are. Without training mode (validation, search) the methods run as they
    were, since single steps have shapes that would all be compiled again.
    """
    for module in model.modules():
        if name := getattr(module, "compiles", None):
            plain = getattr(module, name)
            setattr(module, name, _Compiled(module, plain))


class _Compiled:
    def __init__(self, module: nn.Module, plain: Callable[..., Any]) -> None:
        self.module, self.plain, self.fast = module, plain, torch.compile(plain, dynamic=True)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return (self.fast if self.module.training else self.plain)(*arguments, **named)


def autocast(precision: str, on: torch.device) -> torch.autocast:
    """The context in which a model computes in this precision; parameters and optimiser stay fp32."""
    return torch.autocast(on.type, torch.bfloat16, enabled=precision == "bf16")
