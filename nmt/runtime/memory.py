"""Memory use, available memory, and out-of-memory errors."""

import contextlib
import ctypes
import itertools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

_num_halved = itertools.count(1)

log = logging.getLogger(__name__)

MEMORY_GROWTH_LIMIT = 1.5
"""Ratio to the usual resident memory above which freed memory is returned to the system."""

OOM_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
"""Parts of the error messages of torch's allocators and of the libraries it calls."""


def reset_peak_memory(device: torch.device) -> None:
    """Return freed memory to the system and reset `peak_memory` of the device, where the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    malloc_trim()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_memory() -> int:
    """Return the resident memory of the process in bytes; 0 where the system does not report it."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def trim_memory(usual: int) -> int:
    """Return freed memory to the system when the process has grown far beyond `usual` bytes (`MEMORY_GROWTH_LIMIT`).

    The memory that `setup_process` keeps becomes fragmented when every batch has another shape: 9.8 GB instead of 5.8
    after 1,000 updates with sampled segmentations.

    Returns:
        `usual`, or the resident memory now if `usual` is 0.
    """
    resident = resident_memory()
    if usual and resident > MEMORY_GROWTH_LIMIT * usual:
        malloc_trim()
    return usual or resident


def malloc_trim() -> None:
    """Return freed memory to the operating system (glibc only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory(device: torch.device) -> int:
    """Return the peak since the last reset in bytes: of tensors on a GPU, else the resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, IndexError):  # Linux; unlike getrusage, this can be reset
        return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available_memory() -> int:
    """Return the bytes that this process can still allocate, limited by the machine or its control group."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # another system: half of the machine's memory
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    for folder, limit, usage in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            allowed, used, statistics = (Path(folder, name).read_text() for name in (limit, usage, "memory.stat"))
            cached = [line.split()[1] for line in statistics.splitlines() if "inactive_file" in line]
            if allowed.strip() != "max":
                free = min(free, int(allowed) - int(used) + int(cached[-1] if cached else 0))
        except (OSError, ValueError):
            continue
    return free


class OutOfMemoryError(ValueError):
    """Even the smallest piece of the work does not fit into memory."""


def is_oom_error(error: BaseException) -> bool:
    """Return whether an error means that the device or the machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in OOM_MESSAGES)


def halve_on_oom(function: Callable[[Any], Result], items: Sequence[Any], *, what: str, remedy: str) -> list[Result]:
    """Return the result for a batch of items, or, where memory runs out, those for its halves, in order.

    Args:
        function: of a part of `items`; its result must not depend on what else is in the part.
        what: the items, in the warning.
        remedy: what helps if even one item does not fit.

    Raises:
        OutOfMemoryError: even one item does not fit.
    """
    try:
        return [function(items)]
    except (RuntimeError, MemoryError) as error:
        if not is_oom_error(error):
            raise
        reason = str(error).partition("\n")[0]
        if len(items) == 1:
            raise OutOfMemoryError(f"out of memory on one of the {what} alone ({reason}): {remedy}") from None
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    times = next(_num_halved)
    log.warning("out of memory on %d %s: computed in two halves, split %d (%s)", len(items), what, times, reason)
    middle = (len(items) + 1) // 2
    halves = (halve_on_oom(function, part, what=what, remedy=remedy) for part in (items[:middle], items[middle:]))
    return [result for half in halves for result in half]
