"""Graceful shutdown: a run saves and stops at the first SIGINT or SIGTERM, and stops at once at a second one."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Self

log = logging.getLogger(__name__)

DUPLICATE_SIGNAL_WINDOW = 3.0
"""Seconds in which a repeated signal counts once: a launcher forwards what the terminal has already sent."""


class _Handler:
    """A handler of SIGINT and SIGTERM while the context lasts; `received` is the number of a signal, or 0."""

    def __init__(self) -> None:
        self.received = 0
        self._former: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # signals go to no other
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number


class GracefulShutdown(_Handler):
    """A handler that stores the first signal in `received`, and raises KeyboardInterrupt at the second.

    Args:
        several: the process is one of several ranks, which stop after the same update, through `synchronize`.
    """

    def __init__(self, is_distributed: bool = False) -> None:
        super().__init__()
        self.agreed, self.is_distributed, self._time = 0, is_distributed, 0.0

    @property
    def requested(self) -> bool:
        """Return whether the run is to save and stop."""
        return (self.agreed if self.is_distributed else self.received) != 0

    def synchronize(self, received: int) -> None:
        """Adopt the signal that any rank received, after an update that all of them have made."""
        if received and not self.agreed:
            self.received, self.agreed, self._time = received, received, time.monotonic()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if self.is_distributed and time.monotonic() - self._time < DUPLICATE_SIGNAL_WINDOW:
                return
            raise KeyboardInterrupt
        self.received, self._time = number, time.monotonic()
        log.info("%s: saving and stopping (once more: stop at once)", signal.Signals(number).name)


class SignalForwarder(_Handler):
    """A handler that forwards signals to child processes, and stores the last one in `received`.

    It does nothing outside the main thread, which alone receives signals.

    Args:
        send: sends a signal to the children.
    """

    def __init__(self, send: Callable[[int], None]) -> None:
        super().__init__()
        self.send = send

    def _receive(self, number: int, frame: FrameType | None) -> None:
        super()._receive(number, frame)
        self.send(number)
