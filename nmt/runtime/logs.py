"""Logging to standard error and to the log file of a run."""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from nmt.runtime.terminal import escape_controls

log = logging.getLogger(__name__)


def is_quiet() -> bool:
    """Return whether --quiet was given, here or to the command that started this process."""
    return "NMT_QUIET" in os.environ


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning the first time."""
    log.warning("%s", message)


def log_to_stderr() -> None:
    """Log the package's messages to standard error; further calls have no effect."""
    logger = logging.getLogger("nmt")
    if not logger.handlers:
        handler = CurrentStderrHandler()
        handler.setFormatter(TerminalFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.setLevel(logging.INFO)
        handler.addFilter(lambda record: record.levelno >= logging.WARNING or not is_quiet())
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)  # a log file also keeps what a progress bar shows on the terminal
        logger.propagate = False


class TerminalFormatter(logging.Formatter):
    """Escape control characters, in the log file too, which is shown on a terminal later."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record))


class CurrentStderrHandler(logging.StreamHandler[TextIO]):
    """Write to the current `sys.stderr`, which tests and progress bars replace."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


class TolerantFileHandler(logging.FileHandler):
    """Drop lines when the disk is full: they are on the terminal, and the run continues."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Write every log line to a file, too, within the context."""
    handler = TolerantFileHandler(path, encoding="utf-8")
    handler.setFormatter(TerminalFormatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("nmt")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
