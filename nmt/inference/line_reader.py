"""Read lines from a file, a pipe or a terminal: many at a time if they are available, at once if they come slowly."""

import codecs
import functools
import os
import select
from collections import deque
from typing import BinaryIO

PAUSE = 0.02
"""Seconds without input after which the lines read so far are returned."""

MAX_LINE_BYTES = 1 << 20
"""Longest line, so that a stream without line ends does not fill the memory."""

READ_BYTES = 1 << 16
CHUNK_BYTES = 1 << 22
"""Bytes after which reading stops, once there is a line to return."""


class LineReader:
    r"""The lines of a file descriptor or stream; they end at "\n" only, which may be missing from the last.

    A byte-order mark at the start is removed, and recorded in `had_byte_order_mark`.

    Args:
        source: a descriptor open for reading, or a stream of bytes, which never waits for its input.
        max_line_bytes: a longer line is returned as None.
    """

    had_byte_order_mark: bool | None = None  # None: nothing was read yet

    def __init__(self, source: int | BinaryIO, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.source, self.max_line_bytes = source, max_line_bytes
        self._read_bytes = functools.partial(os.read, source) if isinstance(source, int) else source.read
        self._lines: deque[bytes | None] = deque()
        self._partial: bytes | None = b""  # beginning of the next line; None: too long
        self._at_end = False

    def read_batch(self, max_lines: int) -> list[bytes | None]:
        """Return the next lines without their ends: at least one, at most `max_lines`; none at the end of the input.

        Wait for the first; for further ones only as long as input keeps coming.
        """
        size = 0
        # without a line, read on however much that is: an empty list means the end of the input
        while not self._at_end and len(self._lines) < max_lines and (size < CHUNK_BYTES or not self._lines):
            if self._lines and not self._has_input():
                break
            size += self._read()
        return [self._lines.popleft() for _ in range(min(max_lines, len(self._lines)))]

    def _has_input(self) -> bool:
        if not isinstance(self.source, int):
            return True
        try:
            return bool(select.select([self.source], [], [], PAUSE)[0])
        except (OSError, ValueError):  # select does not support the descriptor, as for a pipe on some systems
            return False

    def _read(self) -> int:
        data = self._read_bytes(READ_BYTES)
        self._at_end = not data
        if self.had_byte_order_mark is None:
            mark = codecs.BOM_UTF8
            while data and data != mark and mark.startswith(data) and (more := self._read_bytes(READ_BYTES)):
                data += more
            self.had_byte_order_mark = data.startswith(mark)
            data = data.removeprefix(mark)
        *ends, beginning = data.split(b"\n")
        for end in ends:
            self._extend(end)
            self._lines.append(self._partial)
            self._partial = b""
        self._extend(beginning)
        if self._at_end and self._partial != b"":
            self._lines.append(self._partial)
        return len(data)

    def _extend(self, data: bytes) -> None:
        if self._partial is not None:
            self._partial = self._partial + data if len(self._partial) + len(data) <= self.max_line_bytes else None
