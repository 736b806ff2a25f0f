"""Text for terminals, which obey control characters."""

import contextlib
import os
import re
import sys

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""All but tab and line feed, and what changes the direction of text."""


def shows_bars() -> bool:
    """Return whether standard error is a terminal, and not one of no width, in which bars are invisible."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file has no size
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    return sys.stderr.isatty()


def escape_controls(text: str) -> str:
    r"""Return a text with control characters as escapes such as \x1b; names of files and stored text may hold some."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
