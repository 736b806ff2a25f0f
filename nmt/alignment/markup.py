"""Inline markup: tags off a text, carried over to its translation along attention or links, and on again."""

import html
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nmt.runtime.text import UNSPACED

Ranges = Sequence[tuple[int, int]]
"""Characters of a text, each from a start to before an end."""
Matrix = npt.NDArray[np.float64]

THRESHOLD = 0.35
"""The weight on the text of an element that a unit at the end of its range has at least."""
DECAY = 0.7
"""Factor by which a source unit says less about a boundary than the one before it, which is nearer."""
MAX_UNITS = 4000
"""Most units and elements of a text with markup, so that a matrix of two texts stays small."""
REACH = 64
"""Units on each side of a boundary that say something about it: DECAY to this power is 1e-10."""
_TAKEN, _TINY = -1e6, 1e-9
_UNSPACED = re.compile(f"[{UNSPACED}]")
_NAME = r"[^\W\d][\w:.-]*"
_ATTRIBUTE = r"""\s+[^\s"'<>/=]+(?:\s*=\s*(?:"[^"<]*"|'[^'<]*'|[^\s"'<>=`]+?(?=/?>|\s)))?"""
_PART = re.compile(
    rf"([^<]+)|<(?:!--(?:(?!--).)*--|\?{_NAME}(?:\s.*?)?\?|/({_NAME})\s*|({_NAME})(?:{_ATTRIBUTE})*\s*(/?))>|(<)"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]\w{0,31});")
_VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "source", "track", "wbr")  # no end tag


class Tag(NamedTuple):
    """An element: its first tag as written, its name ("" without an end tag, as <x/>, <br> and a comment), the range of
    its text, which may be empty, and the index of the element around it, or -1."""

    opening: str
    name: str
    start: int
    end: int
    parent: int = -1


class MarkedText(NamedTuple):
    """A text without its markup, its elements in the order in which they begin, and what in it and in its translation
    is a unit as a whole, such as a placeholder."""

    text: str
    tags: list[Tag]
    whole: re.Pattern[str] | None = None

    def units(self) -> list[tuple[int, int]]:
        """Return the `units` of the text, cut where an element begins or ends."""
        return units(self.text, {place for tag in self.tags for place in (tag.start, tag.end)}, self.whole)


class ProjectedSpan(NamedTuple):
    """An element of a source and its range in the translation, with a confidence between 0 and 1: the share of the
    weights that its text and the range have in each other among all that they have (Dice); 0 without text."""

    tag: Tag
    start: int
    end: int
    confidence: float

    def to_json(self, text: str) -> dict[str, Any]:
        """Return plain values; `text` is the translation."""
        values = {"tag": self.tag.opening, "text": text[self.start : self.end], "start": self.start, "end": self.end}
        source = {"source_start": self.tag.start, "source_end": self.tag.end}
        return values | source | {"confidence": round(self.confidence, 4)}


def units(text: str, cuts: Collection[int] = (), whole: re.Pattern[str] | None = None) -> list[tuple[int, int]]:
    """Return what spans are made of: runs of word characters, and every other character by itself.

    Of scripts without spaces, a unit is a character. Combining marks, joiners and emoji modifiers stay with what is
    before them, flags are whole, and so is what matches `whole`. A unit ends before a character of `cuts`.
    """
    matches = [match.span() for match in (whole.finditer(text) if whole else ())]
    cuts, inner = {*cuts, *(start for start, _ in matches)}, {i for span in matches for i in range(*span)}
    ranges: list[tuple[int, int]] = []
    kind = before = ""
    for i, character in enumerate(text):
        if i in inner and i not in cuts:
            ranges[-1], kind, before = (ranges[-1][0], i + 1), "single", character
            continue
        if character.isspace() or character == "\u200b":
            before = ""
            continue
        new = "word" if (character.isalnum() or character == "_") and not _UNSPACED.match(character) else "single"
        if unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf") or "\U0001f3fb" <= character <= "\U0001f3ff":
            new = ""
        elif "\U0001f1e6" <= character <= "\U0001f1ff":
            new = "flag"
        if before and i not in cuts and (not new or not kind or kind == new != "single" or before == "\u200d"):
            ranges[-1] = (ranges[-1][0], i + 1)
            kind = "single" if kind == new == "flag" else kind or new
        else:
            ranges.append((i, i + 1))
            kind = new
        before = character
    return ranges


def parse_markup(line: str) -> MarkedText:
    """Take the tags of XML or HTML off a line, and write its entities as the characters that they stand for.

    An ampersand that begins no entity is text, and so is ">" alone. A <br> without a space around it becomes one.
    Raise ValueError for markup that is not well-formed, or a text of more than `MAX_UNITS` units and elements.
    """
    tags: list[Tag] = []
    opened: list[tuple[int, int]] = []  # index and place in the line
    text = ""
    for match in _PART.finditer(line):
        content, closing, name, slash, stray = match.groups()
        place, parent = match.start() + 1, opened[-1][0] if opened else -1
        if content:
            text += _ENTITY.sub(lambda entity: max(html.unescape(entity[0]), " "), content)  # no line break
        elif stray:
            raise ValueError(f"markup: {_what_is_wrong(line[match.start() :], place)}")
        elif closing and not opened:
            raise ValueError(f"markup: </{closing}> at character {place} closes nothing; remove it")
        elif closing and tags[parent].name != closing:
            crossed = f"<{tags[parent].name}>, opened at character {opened[-1][1]}"
            raise ValueError(f"markup: </{closing}> at character {place} crosses {crossed}: close that first")
        elif closing:
            tags[opened.pop()[0]] = tags[parent]._replace(end=len(text))
        else:
            is_void, is_break = not name or slash or name.lower() in _VOID, (name or "").lower() == "br"
            text += " " * bool(is_break and text[-1:].strip() and line[match.end() : match.end() + 1].strip())
            opened += [] if is_void else [(len(tags), place)]
            tags.append(Tag(match[0], "" if is_void else name, len(text), len(text), parent))
    if opened:
        index, place = opened[-1]
        raise ValueError(f"markup: {tags[index].opening} at character {place} is not closed; add </{tags[index].name}>")
    marked = MarkedText(text, tags)
    most = MAX_UNITS - len(tags)
    if tags and len(text) > most and len(marked.units()) > most:
        raise ValueError(f"markup: the text has more than {MAX_UNITS:,} words, marks and tags; split the line")
    return marked


def _what_is_wrong(rest: str, place: int) -> str:
    """Return why a "<" and what follows it are no markup."""
    if rest[:2] in ("<!", "<?"):
        text = "is no whole comment or instruction, which are all that may begin so; remove it"
    elif re.match(rf"</?{_NAME}", rest):
        text = 'begins a tag that cannot be read; write attributes as name="value", < in them as &lt;, and > at the end'
    else:
        text = "begins no tag; write &lt; for the character"
    return f'the "<" at character {place} {text}'


def unit_weights(
    matrix: npt.ArrayLike, sources: Ranges, targets: Ranges, source_units: Ranges, target_units: Ranges
) -> Matrix:
    """Return weights (Tu, Su) between units from weights between other ranges of the same texts, as of subwords.

    A source unit receives the sum over its subwords, a target unit the mean over its subwords. A subword of several
    units is shared by characters. Rows and columns of the matrix beyond `targets` and `sources` do not count.
    """
    source, target = _overlaps(source_units, sources), _overlaps(target_units, targets)
    means = target / np.maximum(target.sum(1, keepdims=True), 1)
    weights = np.asarray(matrix, np.float64)[: len(targets), : len(sources)]
    return np.asarray(means @ weights @ (source / np.maximum(source.sum(0), 1)).T)


def _overlaps(ranges: Ranges, others: Ranges) -> Matrix:
    """Return (R, O), how many characters each two ranges have in common."""
    (starts, ends), (other_starts, other_ends) = (np.array(r, np.float64).reshape(-1, 2).T for r in (ranges, others))
    return np.asarray(np.maximum(np.minimum(ends[:, None], other_ends) - np.maximum(starts[:, None], other_starts), 0))


def project(marked: MarkedText, translation: str, weights: npt.ArrayLike) -> list[ProjectedSpan]:
    """Return the range in the translation of each element of a text, never inside a unit.

    It is the free range with the largest sum over its units of the weight on the element's text minus `THRESHOLD`.
    Elements lie in the range of the element around them and do not overlap each other; the most certain come first.
    One without text, or without a unit that is left for it, is put between two units, where the weight turns from what
    is before it to what is after it.

    Args:
        weights: (Tu, Su), between the `units` of the translation and `marked.units()`: attention, or 0 and 1 for links.
    """
    source_units, target_units = marked.units(), units(translation, whole=marked.whole)
    matrix = np.asarray(weights, np.float64).reshape(len(target_units), len(source_units))
    matrix = _mutual(matrix, [marked.text[s:e] for s, e in source_units], [translation[s:e] for s, e in target_units])
    starts, num = [start for start, _ in source_units], len(marked.tags)
    # by element, and for the text as the last, which is number -1: units in the source; least number in its range
    inside = np.searchsorted(starts, [(tag.start, tag.end) for tag in [*marked.tags, Tag("", "", 0, len(marked.text))]])
    needed, ranges, spans = [0] * (num + 1), [(0, len(target_units))] * (num + 1), [(0, len(translation))] * (num + 1)
    for i in reversed(range(num)):
        needed[i] = max(needed[i], int(inside[i][0] < inside[i][1]))
        needed[marked.tags[i].parent] += needed[i]
    confidences = [0.0] * num
    for parent, siblings in _children(marked.tags).items():  # parents come before their children
        low, high = ranges[parent]
        masses = {i: matrix[:, slice(*inside[i])].sum(1) for i in siblings if needed[i] and low < high}
        allowed = np.isin(np.arange(len(target_units) + 1), np.arange(low, high + 1))
        for i, (start, end) in (chosen := _disjoint_ranges(masses, needed, low, high)).items():
            allowed[start + 1 : end] = False
            total = masses[i].sum() + matrix[start:end].sum()
            confidences[i] = float(2 * masses[i][start:end].sum() / max(total, _TINY))
            ranges[i], spans[i] = (start, end), (target_units[start][0], target_units[end - 1][1])
        for i in (i for i in siblings if i not in chosen):
            first, before, last = inside[parent][0], inside[i][0], inside[parent][1]
            near = slice(max(first, before - REACH), min(last, before + REACH))
            distances = np.arange(near.start, near.stop) - before  # -1 just before the boundary, 0 just after it
            signs = np.where(distances < 0, 1, -1) * DECAY ** np.where(distances < 0, -1.0 - distances, distances)
            evidence = np.where(allowed, np.cumsum(np.append(0, matrix[:, near] @ signs)), -np.inf)
            place = low if before <= first else high if before >= last else int(evidence.argmax())
            character = target_units[place][0] if low < high and place < high else spans[parent][0]
            if place > low and (place == high or marked.text[: marked.tags[i].start][-1:].strip()):
                character = target_units[place - 1][1]
            ranges[i], spans[i] = (place, place), (character, character)
    return [ProjectedSpan(tag, *spans[i], confidences[i]) for i, tag in enumerate(marked.tags)]


def _mutual(matrix: Matrix, source_words: Sequence[str], target_words: Sequence[str]) -> Matrix:
    """Return how much units (Tu, Su) belong together in both directions; docs/markup.md says how this was chosen.

    Half of the weights of a unit that the source has too goes to its likes there. Then columns and rows of the squares
    are made to sum to one in turn, so that a source unit on which many have weight counts less for each of them; the
    result is the mean of the last of both.
    """
    places: dict[str, list[int]] = {}
    for place, word in enumerate(source_words):
        places.setdefault(word.casefold(), []).append(place)
    matrix = _normalized(matrix, 1)  # a copy
    for row, word in zip(matrix, target_words, strict=True):
        if likes := places.get(word.casefold()):
            row[:] = row / 2 + np.bincount(likes, _normalized(row[likes] + _TINY, 0) / 2, len(row))
    matrix **= 2
    for axis in (0, 1, 0, 1):
        matrix = _normalized(matrix, axis)
    return (matrix + _normalized(matrix, 0)) / 2


def _normalized(matrix: Matrix, axis: int) -> Matrix:
    return np.asarray(matrix / np.maximum(matrix.sum(axis, keepdims=True), _TINY))


def _disjoint_ranges(
    masses: dict[int, Matrix], needed: Sequence[int], low: int, high: int
) -> dict[int, tuple[int, int]]:
    """Choose a range of target units from `low` to `high` for each element, none where no unit is left.

    Args:
        masses: by element, the weight of each target unit on it.
        needed: by element, how many units its range should have; so many are left for the others.
    """
    taken, chosen = np.ones(len(next(iter(masses.values()), ())), np.bool_), dict[int, tuple[int, int]]()
    taken[low:high] = False
    elements, needed_by_others = list(masses), sum(needed[i] for i in masses)
    best = np.array([_best_range(mass, taken, needed[i]) for i, mass in masses.items()]).reshape(-1, 3)
    for _ in elements:
        at = int(best[:, 0].argmax())
        i, score, (start, end) = elements[at], best[at, 0], best[at, 1:].astype(int).tolist()
        needed_by_others -= needed[i]
        end = min(end, start + max(int((~taken).sum()) - needed_by_others, 1))
        best[at] = -np.inf, 0, 0
        if score > _TAKEN / 2:
            chosen[i] = (start, end)
            taken[start:end] = True
            for j in np.flatnonzero((best[:, 1] < end) & (start < best[:, 2])):
                best[j] = _best_range(masses[elements[j]], taken, needed[elements[j]])
    return chosen


def _best_range(mass: Matrix, taken: npt.NDArray[np.bool_], least: int) -> tuple[float, int, int]:
    """Return the score, the start and the end of the best range of at least so many units that are free, or of one."""
    sums = np.cumsum(np.append(0, np.where(taken, _TAKEN, mass - THRESHOLD)))
    for size in (min(least, len(mass)), 1):
        scores = sums[size:] - np.minimum.accumulate(sums[: len(sums) - size])
        last = int(scores.argmax())
        if scores[last] > _TAKEN / 2:
            return float(scores[last]), int(sums[: last + 1].argmin()), last + size
    return _TAKEN, 0, 0


def _children(tags: Sequence[Tag]) -> dict[int, list[int]]:
    """Return the indices of the elements directly inside each that has some, and under -1 those outside of all."""
    children: dict[int, list[int]] = {}
    for i, tag in enumerate(tags):
        children.setdefault(tag.parent, []).append(i)
    return children


def render(translation: str, spans: Sequence[ProjectedSpan]) -> str:
    """Return the translation as XML or HTML with the elements' tags: text is escaped, tags are as they were. What has
    no end tag is in place of its range."""
    children, parts, position = _children([span.tag for span in spans]), list[str](), 0
    stack = [(-1, False)]  # elements, and whether they are to be closed; all is inside of -1
    while stack:
        i, closes = stack.pop()
        if i >= 0:
            place, tag = spans[i].end if closes else spans[i].start, spans[i].tag
            parts += [translation[position:place], f"</{tag.name}>" if closes else tag.opening]
            position = place if tag.name else spans[i].end
        if not closes:
            stack += [(i, True)] * (i >= 0 and spans[i].tag.name != "")
            inner = sorted(children.get(i, ()), key=lambda j: (spans[j].start, spans[j].end, j))
            stack += [(j, False) for j in reversed(inner)]
    parts.append(translation[position:])
    return "".join(part if n % 2 else html.escape(part, quote=False) for n, part in enumerate(parts))
