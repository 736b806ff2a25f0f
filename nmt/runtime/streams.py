"""The standard streams of a command, which may be closed, on a full disk, or of a terminal that is gone."""

import errno
import io
import os
import sys
from typing import Any, TextIO

STANDARD_OUTPUT = "standard output"


class _StandardStream(io.FileIO):
    """Standard output, where output that is lost is an error; or standard error, where it is dropped.

    Messages are no result: the work goes on without them, and a run has them in its train.log.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.drops = descriptor == 2

    def write(self, data: Any, /) -> int:
        """Write everything; raise OSError with `STANDARD_OUTPUT` as its file name."""
        view, written = memoryview(data).cast("B"), 0
        try:
            while written < len(view):
                written += super().write(view[written:]) or 0  # nothing, where a pipe that is full does not block
        except OSError as error:
            if not self.drops:
                reason = "it is closed" if error.errno == errno.EBADF else error.strerror
                raise OSError(error.errno, reason, STANDARD_OUTPUT) from None
        return len(view)


def guard_standard_streams() -> None:
    """Make standard output and error streams whose errors are reported or dropped; further calls have no effect.

    Where a stream is closed, its descriptor is taken, or the next file that is opened would be read or written as that
    stream. It is opened the wrong way round, so that using it fails.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY), True)
    if sys.stdout is sys.__stdout__:  # otherwise replaced already
        sys.stdout = _guarded(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(sys.stderr, 2)


def drop_output() -> None:
    """Drop what an error has left in the buffer of standard output, which the interpreter would write at its end."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _StandardStream):
        raw.drops = True


def _guarded(stream: TextIO | None, descriptor: int) -> TextIO:
    file, encoding = _StandardStream(descriptor), stream.encoding if stream is not None else "utf-8"
    # a locale's encoding may lack the characters of our messages
    if descriptor == 2:  # without a buffer, into which a signal's message could not be written during another one
        return io.TextIOWrapper(file, encoding, "backslashreplace", write_through=True)
    by_line = file.isatty() or getattr(stream, "write_through", False)  # PYTHONUNBUFFERED
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, "backslashreplace", line_buffering=by_line)
