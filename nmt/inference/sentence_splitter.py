"""Cutting a text that is too long for a model into parts, where it is least harmful."""

import re
from collections.abc import Callable, Iterator

MARKS = (
    re.compile(r"""(?:[.!?…]+["'”’»)\]]*[ \t]+|[。！？।؟۔]+["'”’»」』）]*[ \t]*)"""),
    re.compile(r"(?:[,;:)\]–—]+[ \t]+|[、，；：]+[ \t]*)"),
    re.compile(r"[ \t]+"),
)
"""Where a text may be cut, behind what is found: ends of sentences, of clauses, of words."""


def split(text: str, size: Callable[[str], int], longest: int) -> list[str]:
    """Parts of a text that are not longer than allowed; together they are the text.

    It is cut at the ends of sentences; a sentence that is too long by itself at the ends of clauses, then between
    words, then anywhere. Parts are as long as they may be.

    Args:
        text: anything.
        size: how long a text is.
        longest: what `size` of a part may be, at least 1. A single character may be longer.
    """
    return list(_split(text, size, longest, 0))


def _split(text: str, size: Callable[[str], int], longest: int, level: int) -> Iterator[str]:
    if len(text) <= 1 or size(text) <= longest:
        yield text
        return
    if level == len(MARKS):
        half = len(text) // 2
        yield from _split(text[:half], size, longest, level)
        yield from _split(text[half:], size, longest, level)
        return
    part, length = "", 0
    for piece in _pieces(text, MARKS[level]):
        own = size(piece)
        if part and length + own > longest:
            yield from _split(part, size, longest, level + 1)
            part, length = "", 0
        part, length = part + piece, length + own
    yield from _split(part, size, longest, level + 1)


def _pieces(text: str, mark: re.Pattern[str]) -> Iterator[str]:
    start = 0
    for found in mark.finditer(text):
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]
