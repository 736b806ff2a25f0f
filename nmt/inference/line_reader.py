"""Read lines from a file, a pipe or a terminal: many at a time if they are there, at once if they come slowly."""

import os
import select
from collections import deque

PAUSE = 0.02
"""Seconds without input after which the lines read so far are returned."""

MAX_LINE_BYTES = 1 << 20
"""Longest line, so that a stream without line ends does not fill the memory."""

READ_BYTES = 1 << 16
CHUNK_BYTES = 1 << 22
"""How much is read at a time, once there is a line to return."""


class LineReader:
    r"""The lines of a file descriptor; they end at "\n" only, which the last may lack.

    Args:
        descriptor: of what is read.
        most_bytes: a longer line is given as None.
    """

    def __init__(self, descriptor: int, most_bytes: int = MAX_LINE_BYTES) -> None:
        self.descriptor, self.most_bytes = descriptor, most_bytes
        self._ready: deque[bytes | None] = deque()
        self._begun: bytes | None = b""  # of the line that has not ended yet; None: too long
        self._ended = False

    def read_batch(self, most: int) -> list[bytes | None]:
        """Return the next lines without their ends: at least one, at most `most`; none at the end of the input.

        Wait for the first; for further ones only as long as input keeps coming.
        """
        size = 0
        # without a line it reads on, however much that is: "none" would say that the input has ended
        while not self._ended and len(self._ready) < most and (size < CHUNK_BYTES or not self._ready):
            if self._ready and not self._more_soon():
                break
            size += self._read()
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def _more_soon(self) -> bool:
        try:
            return bool(select.select([self.descriptor], [], [], PAUSE)[0])
        except (OSError, ValueError):  # what cannot be waited for, such as a pipe on some systems
            return False

    def _read(self) -> int:
        data = os.read(self.descriptor, READ_BYTES)
        *pieces, rest = data.split(b"\n")
        for piece in pieces:
            self._extend(piece)
            self._ready.append(self._begun)
            self._begun = b""
        self._extend(rest)
        if not data:
            self._ended = True
            if self._begun != b"":
                self._ready.append(self._begun)
        return len(data)

    def _extend(self, piece: bytes) -> None:
        if self._begun is not None:
            self._begun = self._begun + piece if len(self._begun) + len(piece) <= self.most_bytes else None
