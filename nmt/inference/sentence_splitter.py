"""Split a text that is too long for a model where it does least harm."""

import itertools
import re
from collections.abc import Callable

SEGMENT_BOUNDARIES = (
    re.compile(r"""(?:[.!?…]+["'”’»)\]]*[ \t]+|[。！？।؟۔]+["'”’»」』）]*[ \t]*)"""),
    re.compile(r"(?:[,;:)\]–—]+[ \t]+|[、，；：]+[ \t]*)"),
    re.compile(r"[ \t]+"),
)
"""Places after which a text may be split: ends of sentences, of clauses, of words."""


def split_sentence(text: str, size: Callable[[str], int], max_size: int, level: int = 0) -> list[str]:
    """Return segments of a text that are not longer than allowed; joined they are the text.

    A text is split at the ends of sentences; a sentence that is too long by itself at the ends of clauses, then between
    words, then anywhere. Segments are as long as possible.

    Args:
        text: any text.
        size: the length of a text.
        max_size: the largest `size` of a segment, at least 1. A single character may be longer.
        level: the first of `SEGMENT_BOUNDARIES` to split at.
    """
    if len(text) <= 1 or size(text) <= max_size:
        return [text]
    if level == len(SEGMENT_BOUNDARIES):
        half = len(text) // 2
        groups = [text[:half], text[half:]]
    else:
        ends = sorted({0, *(match.end() for match in SEGMENT_BOUNDARIES[level].finditer(text)), len(text)})
        groups, group_size = [""], 0
        for start, end in itertools.pairwise(ends):
            added = size(text[start:end])
            if groups[-1] and group_size + added > max_size:
                groups.append("")
                group_size = 0
            groups[-1] += text[start:end]
            group_size += added
        level += 1
    return [segment for group in groups for segment in split_sentence(group, size, max_size, level)]
