"""Placeholders, addresses and code in a source: which a translation lacks, and putting them back."""

import re
from collections.abc import Sequence

from nmt.alignment.markup import MarkedText, ProjectedSpan, Tag

PLACEHOLDER = re.compile(
    r"`[^`]+`"  # code
    r"|\b(?:https?|ftp)://[^\s<>\"]*[\w/]|\bwww\.[^\s<>\"]*[\w/]|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|\$?\{\{?[^{}\s]*\}?\}"  # {name}, {0}, ${name}, {{name}}
    r"|%(?:\([^()\s]+\)|\d+\$)?[-+0#]*\d*(?:\.\d+)?(?:l{0,2}[diuxXofFeEgGcs]|@)(?!\w)"
)


def lost_placeholders(marked: MarkedText, translation: str) -> list[Tag]:
    """Return what of the source's placeholders is not in the translation, as elements without an end tag there."""
    seen: dict[str, int] = {}
    lost = []
    for match in PLACEHOLDER.finditer(marked.text):
        text, start = match[0], match.start()
        seen[text] = seen.get(text, 0) + 1
        if seen[text] > translation.count(text):
            around = [i for i, tag in enumerate(marked.tags) if tag.start <= start and match.end() <= tag.end]
            lost.append(Tag(text, "", start, start, max(around, default=-1)))
    return lost


def put_back(
    source: str, translation: str, spans: Sequence[ProjectedSpan], num: int
) -> tuple[str, list[ProjectedSpan]]:
    """Write all spans but the first `num`, which are lost placeholders, into the translation.

    Returns:
        the translation, and the first spans as they are in it.
    """
    kept = list(spans[:num])
    for span in sorted(spans[num:], key=lambda span: span.start, reverse=True):
        text, place, parent = span.tag.opening, span.start, span.tag.parent
        after = source[span.tag.start + len(text) :][:1]
        text = " " * (source[: span.tag.start][-1:] == " " and translation[:place][-1:].strip() != "") + text
        text += " " * (after == " " and translation[place:][:1].strip() != "")
        translation = translation[:place] + text + translation[place:]
        around = set[int]()
        while parent >= 0:
            around.add(parent)
            parent = spans[parent].tag.parent
        for i, (tag, start, end, confidence) in enumerate(kept):
            moves = start >= place and i not in around
            kept[i] = ProjectedSpan(
                tag, start + len(text) * moves, end + len(text) * (moves or i in around), confidence
            )
    return translation, kept
