"""Graceful shutdown: a run saves and stops at the first signal of `STOP_SIGNALS`, and stops at once at a second one."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Self

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the request to end, and the end of the terminal or connection."""

DUPLICATE_SIGNAL_WINDOW = 3.0
"""Seconds in which a repeated signal counts once: a launcher forwards what the terminal has already sent, and when a
terminal ends, kernel, shell and session manager may send SIGHUP or SIGTERM each."""


class _Handler:
    """A handler of `STOP_SIGNALS` while the context lasts; `received` is the number of a signal, or 0."""

    def __init__(self) -> None:
        self.received = 0
        self._former: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # signals go to no other
            for number in STOP_SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # of nohup
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
        is_distributed: the process is one of several ranks, which stop after the same update, through `synchronize`.
    """

    def __init__(self, is_distributed: bool = False) -> None:
        super().__init__()
        self.agreed, self.is_distributed, self._time, self._reason = 0, is_distributed, 0.0, ""

    @property
    def requested(self) -> bool:
        """Return whether the run is to save and stop."""
        return (self.agreed if self.is_distributed else self.received) != 0

    def synchronize(self, received: int) -> None:
        """Adopt the signal that any rank received, after an update that all of them have made."""
        if received and not self.agreed:
            self.received, self.agreed, self._time = received, received, time.monotonic()

    def stop_at_once(self, reason: str) -> None:
        """From now on, end the process at a signal, and log the reason: nothing is left to be saved."""
        self._reason = reason

    def _receive(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._reason:
            log.info("%s: %s", name, self._reason)
            raise SystemExit(128 + number)
        if self.received:
            is_repeated = self.is_distributed or signal.SIGHUP in (number, self.received)
            if is_repeated and time.monotonic() - self._time < DUPLICATE_SIGNAL_WINDOW:
                return
            raise KeyboardInterrupt
        self.received, self._time = number, time.monotonic()
        log.info("%s: saving and stopping (once more: stop at once)", name)


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
