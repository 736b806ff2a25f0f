"""Report a mistake of the user in one line and end with an exit code."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

from nmt.runtime.terminal import escape_controls


def error_message(error: BaseException) -> str:
    """Return an exception as one sentence for the user."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else escape_controls(f"{error.filename}: {error.strerror}")
    return escape_controls(" ".join(str(error).split())) or type(error).__name__


def silence_broken_pipe() -> None:
    """Discard further output after BrokenPipeError: a reader such as `head` has closed the pipe, which is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """End a command with one line for a mistake of the user.

    Raises:
        SystemExit: 1 after a ValueError or OSError, 130 when interrupted. Other exceptions are defects and propagate.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        silence_broken_pipe()
    except (ValueError, OSError) as error:
        print_error(error)
        raise SystemExit(1) from None


def print_error(error: BaseException) -> None:
    """Print one line on standard error, after the traceback when the environment variable NMT_TRACEBACK is set."""
    if os.environ.get("NMT_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    print(f"error: {error_message(error)}", file=sys.stderr, flush=True)
