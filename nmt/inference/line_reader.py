"""Lines from a file, a pipe or a terminal: many at a time where they are there, at once where they come slowly."""

import os
import select
from collections import deque

PAUSE = 0.02
"""Seconds without input after which what has come is answered."""

MOST_BYTES = 1 << 20
"""Longest line, so that a stream without line ends does not fill the memory."""

READ_BYTES = 1 << 16
CHUNK_BYTES = 1 << 22
"""What is read at a time, once there is a line to answer."""


class Lines:
    r"""The lines of a file descriptor; they end at "\n" only, and the last may lack it.

    Args:
        descriptor: of what is read.
        most_bytes: a longer line is given as None.
    """

    def __init__(self, descriptor: int, most_bytes: int = MOST_BYTES) -> None:
        self.descriptor, self.most_bytes = descriptor, most_bytes
        self._ready: deque[bytes | None] = deque()
        self._begun, self._too_long, self._ended = bytearray(), False, False

    def take(self, most: int) -> list[bytes | None]:
        """The next lines without their ends: at least one, at most `most`; none at the end of the input.

        It waits for the first; for further ones only as long as input keeps coming.
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
        if not data:
            self._ended = True
            if self._begun or self._too_long:
                self._end_line()
            return 0
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._extend(piece)
            self._end_line()
        self._extend(rest)
        return len(data)

    def _extend(self, piece: bytes) -> None:
        if not self._too_long:
            self._begun += piece
            if len(self._begun) > self.most_bytes:
                self._begun.clear()
                self._too_long = True

    def _end_line(self) -> None:
        self._ready.append(None if self._too_long else bytes(self._begun))
        self._begun.clear()
        self._too_long = False
