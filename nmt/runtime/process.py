"""Set up a process: threads, memory allocation, log lines, and its end with its parent."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import torch

from nmt.runtime.logs import log_to_stderr

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
PARENT_POLL_SECONDS = 0.5


def setup_process(threads: int = 0) -> None:
    """Set the number of threads (0 = torch's choice), log to standard error, and keep freed memory.

    glibc returns large freed blocks to the kernel and maps them again for every tensor; keeping them saves page faults,
    about a fifth of a training step on a CPU.
    """
    if threads:
        torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library has no such option
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    log_to_stderr()


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables within the context, for the processes that begin there too; "" changes nothing."""
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: value for name, value in variables.items() if value})
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def end_with_parent(parent: int) -> None:
    """Send SIGTERM to this process when its parent, which may be killed, has ended: none is left behind, waiting."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
