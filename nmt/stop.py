"""A polite end: the first Ctrl-C or SIGTERM asks a run to save and stop, the second one does not wait."""

import logging
import signal
from types import FrameType

log = logging.getLogger(__name__)


class StopSignal:
    """`requested` is True after SIGINT or SIGTERM while the context lasts; a second signal raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        return self.received != 0

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
        log.info("%s: saving and stopping (once more: stop at once)", signal.Signals(number).name)
