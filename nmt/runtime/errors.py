"""Report a mistake of the user in one line and end with an exit code."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from nmt.runtime.streams import STANDARD_OUTPUT, drop_output, guard_standard_streams
from nmt.runtime.terminal import escape_controls


def error_message(error: BaseException) -> str:
    """Return an exception as one sentence for the user."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else escape_controls(f"{error.filename}: {error.strerror}")
    return escape_controls(" ".join(str(error).split())) or type(error).__name__


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise ValueError for an argument whose bytes are no text in the locale's encoding, which no file could hold."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{ascii(argument)[1:-1]}: not text in the encoding of this locale, {sys.getfilesystemencoding()}; "
                "rename the file, or, where its name is UTF-8, set PYTHONUTF8=1 in the environment"
            ) from None


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """End a command with one line for a mistake of the user, or for output that could not be written.

    Raises:
        SystemExit: 1 after a ValueError or OSError, 130 when interrupted; 0 when the reader of standard output, such as
            `head`, has closed the pipe, which is no error. Other exceptions are defects and propagate.
    """
    guard_standard_streams()
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        is_unread = isinstance(error, BrokenPipeError) and error.filename == STANDARD_OUTPUT
        if not is_unread:
            print_error(error)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        drop_output()
        raise SystemExit(0 if is_unread else 1) from None


def print_error(error: BaseException) -> None:
    """Print one line on standard error, after the traceback when the environment variable NMT_TRACEBACK is set."""
    if os.environ.get("NMT_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    print(f"error: {error_message(error)}", file=sys.stderr, flush=True)
