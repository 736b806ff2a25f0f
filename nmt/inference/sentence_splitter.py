"""Split a text that is too long for a model where it does least harm."""

import itertools
import re
from collections.abc import Callable

SEGMENT_BOUNDARIES = (
    re.compile(r"""(?:[.!?…]+["'”’»)\]]*[ \t]+|[。！？।؟۔]+["'”’»」』）]*[ \t]*)"""),
    re.compile(r"(?:[,;:)\]–—]+[ \t]+|[、，；：]+[ \t]*)"),
    re.compile(r"[ \t]+"),
)
"""Where a text may be split, after the match: ends of sentences, of clauses, of words."""


def split_sentence(text: str, size: Callable[[str], int], longest: int, level: int = 0) -> list[str]:
    """Return parts of a text that are not longer than allowed; together they are the text.

    It is split at the ends of sentences; a sentence that is too long by itself at the ends of clauses, then between
    words, then anywhere. Parts are as long as they may be.

    Args:
        text: anything.
        size: how long a text is.
        longest: what `size` of a part may be, at least 1. A single character may be longer.
        level: the first of `SEGMENT_BOUNDARIES` to split at.
    """
    if len(text) <= 1 or size(text) <= longest:
        return [text]
    if level == len(SEGMENT_BOUNDARIES):
        half = len(text) // 2
        groups = [text[:half], text[half:]]
    else:
        ends = sorted({0, *(match.end() for match in SEGMENT_BOUNDARIES[level].finditer(text)), len(text)})
        groups, length = [""], 0
        for piece in (text[start:end] for start, end in itertools.pairwise(ends)):
            added = size(piece)
            if groups[-1] and length + added > longest:
                groups.append("")
                length = 0
            groups[-1] += piece
            length += added
        level += 1
    return [part for group in groups for part in split_sentence(group, size, longest, level)]
