"""Log lines on standard error and in a run's own file."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


def log_to_stderr() -> None:
    """Log the package's messages to standard error, once however often it is called."""
    logger = logging.getLogger("nmt")
    if not logger.handlers:
        handler = CurrentStderrHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.setLevel(logging.INFO)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)  # a log file also keeps what a progress bar shows on the terminal
        logger.propagate = False


class CurrentStderrHandler(logging.StreamHandler[TextIO]):
    """Write to `sys.stderr` as it is when a message comes; tests and progress bars replace it."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


class TolerantFileHandler(logging.FileHandler):
    """Drop lines that a full disk cannot hold: the terminal has them, and the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Copy every log line to a file while the context lasts."""
    handler = TolerantFileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("nmt")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
