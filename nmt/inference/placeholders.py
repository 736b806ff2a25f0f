"""Placeholders, addresses and code of a source that its translation lacks."""

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from nmt.alignment.markup import MarkedText, ProjectedSpan, Tag

PLACEHOLDER = re.compile(
    r"(`[^`]+`)"  # code
    r"|(\b(?:https?|ftp)://[^\s<>\"]*[\w/]|\bwww\.[^\s<>\"]*[\w/]|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"
    r"|(\$?\{\{?[^{}\s]*\}?\})"  # {name}, {0}, ${name}, {{name}}
    r"|(%(?:\([^()\s]+\)|\d+\$)?[-+0#]*\d*(?:\.\d+)?(?:l{0,2}[diuxXofFeEgGcs]|@)(?!\w))"
)
"""Placeholders, each kind in a group of its own."""


def without_placeholders(text: str) -> str:
    """Return a text with line breaks, which no term has, in place of its placeholders."""
    return PLACEHOLDER.sub(lambda match: "\n" * len(match[0]), text)


def lost_placeholders(marked: MarkedText, translation: str, prefix: str = "") -> tuple[list[Tag], dict[str, str]]:
    """Return what of the source's placeholders is not in the translation.

    It is returned as escaped elements without an end tag; or as a mapping from a placeholder that is in the translation
    only, neither in the source nor in the prefix that was asked for, and of the same kind, which it is taken for.
    """
    seen, lost, garbled = Counter[str](), list[Tag](), dict[str, str]()
    there = Counter(match[0] for match in PLACEHOLDER.finditer(translation))
    known = {match[0] for text in (marked.text, prefix) for match in PLACEHOLDER.finditer(text)}
    foreign = [match for match in PLACEHOLDER.finditer(translation) if match[0] not in known]
    for match in PLACEHOLDER.finditer(marked.text):
        seen[match[0]] += 1
        if seen[match[0]] <= there[match[0]]:
            continue
        alike = (other[0] for other in foreign if other.lastindex == match.lastindex and other[0] not in garbled)
        if mate := next(alike, None):
            garbled[mate] = match[0]
        else:
            around = [i for i, tag in enumerate(marked.tags) if tag.start <= match.start() and match.end() <= tag.end]
            start, parent = match.start(), max(around, default=-1)
            lost.append(Tag(html.escape(match[0], quote=False), "", start, start, parent))
    return lost, garbled


def with_spaces(source: str, translation: str, span: ProjectedSpan) -> ProjectedSpan:
    """Return a lost placeholder with the spaces that the source has around it and the translation has not; and with
    one beside a word, unless the source has a word there."""
    opening, place, end = span.tag.opening, span.start, span.tag.start + len(html.unescape(span.tag.opening))
    beside = (source[: span.tag.start][-1:], translation[:place][-1:]), (source[end:][:1], translation[place:][:1])
    before, after = (
        " " * (here.strip() != "" and (there == " " or (here.isalnum() and not there.isalnum())))
        for there, here in beside
    )
    return span._replace(tag=span.tag._replace(opening=before + opening + after))


def in_place_of(
    garbled: Mapping[str, str], translation: str, spans: Sequence[ProjectedSpan]
) -> Iterator[ProjectedSpan]:
    """Yield garbled placeholders of a translation, as elements inside of those of `spans` where they are."""
    left = dict(garbled)
    for match in PLACEHOLDER.finditer(translation):
        if right := left.pop(match[0], ""):
            start, end = match.span()
            parent = max((i for i, s in enumerate(spans) if s.start <= start and end <= s.end), default=-1)
            yield ProjectedSpan(Tag(html.escape(right, quote=False), "", start, end, parent), start, end, 0.0)
