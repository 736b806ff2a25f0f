"""A polite end: the first Ctrl-C or SIGTERM asks a run to save and stop, the second one does not wait."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)


TWICE = 3.0
"""Seconds in which a signal that comes twice counts once: a launcher passes on what the terminal has already sent."""


class StopSignal:
    """After SIGINT or SIGTERM while the context lasts, `received` is its number; a second one raises KeyboardInterrupt.

    Args:
        several: this is one of several ranks, which stop after the same update: `requested` waits until they agree.
    """

    def __init__(self, several: bool = False) -> None:
        self.received, self.agreed, self.several = 0, 0, several
        self._time = 0.0
        self._before: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return (self.agreed if self.several else self.received) != 0

    def agree(self, received: int) -> None:
        """What any of the ranks received, after an update that all of them have made."""
        if received and not self.agreed:
            self.received, self.agreed, self._time = received, received, time.monotonic()

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if self.several and time.monotonic() - self._time < TWICE:
                return
            raise KeyboardInterrupt
        self.received, self._time = number, time.monotonic()
        log.info("%s: saving and stopping (once more: stop at once)", signal.Signals(number).name)


class PassedOn:
    """SIGINT and SIGTERM go to the processes that this one has started while the context lasts; it goes on itself, and
    `received` is the number of the last one.

    In a thread that is not the main one, to which no signal comes, it does nothing.

    Args:
        send: passes a number on.
    """

    def __init__(self, send: Callable[[int], None]) -> None:
        self.send, self.received = send, 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "PassedOn":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.send(number)
