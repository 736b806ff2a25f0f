"""How far a download is: one moving line on a terminal, now and then a plain line elsewhere."""

import sys
import time
from typing import Self

INTERVAL = 15.0
"""Seconds between the plain lines."""


def say(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr, flush=True)


def readable(num_bytes: float) -> str:
    """Bytes in the largest unit that leaves at least 1 of it."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.2f} GiB"


def duration(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class Progress:
    """Counts bytes of one file.

    Args:
        name: of the file.
        done: bytes that are there already.
        total: bytes of the whole file; 0 = unknown.
    """

    def __init__(self, name: str, done: int, total: int) -> None:
        self.name, self.done, self.total = name, done, total
        self.begin = self.told = time.monotonic()
        self.at_begin = done
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                desc=name, initial=done, total=total or None, unit="B", unit_scale=True, unit_divisor=1024, leave=False
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def add(self, num_bytes: int) -> None:
        """More bytes have come."""
        self.done += num_bytes
        if self.bar is not None:
            self.bar.update(num_bytes)
        elif (now := time.monotonic()) - self.told >= INTERVAL:
            self.told = now
            say(self.line(now - self.begin))

    def line(self, seconds: float) -> str:
        """Share, rate and time left after so many seconds."""
        rate = (self.done - self.at_begin) / max(seconds, 1e-9)
        if not self.total:
            return f"{self.name}: {readable(self.done)}, {readable(rate)}/s"
        share = f"{readable(self.done)} of {readable(self.total)} ({self.done / self.total:.0%})"
        left = duration((self.total - self.done) / rate) if rate else "?"
        return f"{self.name}: {share}, {readable(rate)}/s, {left} left"
