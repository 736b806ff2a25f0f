"""Placeholders, addresses and code of a source that its translation lacks."""

import html
import re
from collections import Counter

from nmt.alignment.markup import MarkedText, ProjectedSpan, Tag

PLACEHOLDER = re.compile(
    r"`[^`]+`"  # code
    r"|\b(?:https?|ftp)://[^\s<>\"]*[\w/]|\bwww\.[^\s<>\"]*[\w/]|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|\$?\{\{?[^{}\s]*\}?\}"  # {name}, {0}, ${name}, {{name}}
    r"|%(?:\([^()\s]+\)|\d+\$)?[-+0#]*\d*(?:\.\d+)?(?:l{0,2}[diuxXofFeEgGcs]|@)(?!\w)"
)


def lost_placeholders(marked: MarkedText, translation: str, prefix: str = "") -> tuple[list[Tag], dict[str, str]]:
    """Return what of the source's placeholders is not in the translation.

    It is returned as escaped elements without an end tag; or as a mapping from a placeholder that is in the translation
    only, neither in the source nor in the prefix that was asked for, and of the same kind, which it is taken for.
    """
    seen, lost, garbled = Counter[str](), list[Tag](), dict[str, str]()
    known = {match[0] for text in (marked.text, prefix) for match in PLACEHOLDER.finditer(text)}
    foreign = [match[0] for match in PLACEHOLDER.finditer(translation) if match[0] not in known]
    for match in PLACEHOLDER.finditer(marked.text):
        seen[match[0]] += 1
        if seen[match[0]] <= translation.count(match[0]):
            continue
        if mate := next((text for text in foreign if text[0] == match[0][0] and text not in garbled), None):
            garbled[mate] = match[0]
        else:
            around = [i for i, tag in enumerate(marked.tags) if tag.start <= match.start() and match.end() <= tag.end]
            start, parent = match.start(), max(around, default=-1)
            lost.append(Tag(html.escape(match[0], quote=False), "", start, start, parent))
    return lost, garbled


def with_spaces(source: str, translation: str, span: ProjectedSpan) -> ProjectedSpan:
    """Return a lost placeholder with the spaces that the source has around it and the translation has not."""
    opening, place, end = span.tag.opening, span.start, span.tag.start + len(html.unescape(span.tag.opening))
    beside = (source[: span.tag.start][-1:], translation[:place][-1:]), (source[end:][:1], translation[place:][:1])
    before, after = (" " * (there == " " and here.strip() != "") for there, here in beside)
    return span._replace(tag=span.tag._replace(opening=before + opening + after))
