"""Inline markup: tags off a text, carried over to its translation along attention or links, and on again."""

import html
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Range = tuple[int, int]
"""The characters of a text from a start to before an end."""
Matrix = npt.NDArray[np.float64]

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3021-\u3029\u3040-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U00016f00-\U00018fff\U0001b000-\U0003ffff]"
)
"""Characters of scripts that are written without spaces: Thai, Lao, Burmese, Khmer, and those of East Asia."""
_NAME = r"[^\W\d][\w:.-]*"
_ATTRIBUTE = r"""\s+[^\s"'<>/=]+(?:\s*=\s*(?:"[^"<]*"|'[^'<]*'|[^\s"'<>=`/]+))?"""
_PART = re.compile(rf"([^<]+)|<(?:!--.*?--|\?.*?\?|/({_NAME})\s*|({_NAME})(?:{_ATTRIBUTE})*\s*(/?))>|(<)")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]\w{0,31});")
_VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "source", "track", "wbr")  # no end tag
THRESHOLD = 0.35
"""Attention on the text of an element that a unit of its range has, and one at its ends has more of."""
DECAY = 0.7
"""What the attention on a unit counts for a boundary, compared with that on the unit before it, nearer the boundary."""
_TAKEN, _TINY = -1e6, 1e-9
MAX_UNITS = 4000
"""Most units of a text with markup, so that a matrix of two texts stays small."""


class Tag(NamedTuple):
    """An element of markup.

    opening: its first tag as it is written, attributes included.
    name: of the element; "" for one without an end tag, as <br>, <x/> and a comment.
    start, end: the range of its text; equal where there is none.
    parent: the index of the element around it; -1 for none.
    """

    opening: str
    name: str
    start: int
    end: int
    parent: int = -1


class MarkedText(NamedTuple):
    """A text without its markup, and its elements in the order in which they begin."""

    text: str
    tags: list[Tag]

    def units(self) -> list[Range]:
        """Return the `units` of the text, cut where an element begins or ends."""
        return units(self.text, {place for tag in self.tags for place in (tag.start, tag.end)})


class ProjectedSpan(NamedTuple):
    """An element of a source, and its range in the translation.

    confidence: between 0 and 1: the share that the text of the element and the range have in each other among all that
        they have in common with anything (Dice's coefficient); 0 for an element without text.
    """

    tag: Tag
    start: int
    end: int
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {"tag": self.tag.opening, "source": [self.tag.start, self.tag.end], "start": self.start}
        return {**values, "end": self.end, "confidence": round(self.confidence, 4)}


def units(text: str, cuts: Collection[int] = ()) -> list[Range]:
    """Return what spans are made of: runs of word characters, and every other character by itself.

    Of scripts without spaces, a unit is a character. Combining marks, joiners and emoji modifiers stay with what is
    before them, and flags are whole. A unit does not go on at a character of `cuts`.
    """
    ranges: list[Range] = []
    kind = before = ""
    for i, character in enumerate(text):
        if character.isspace() or character == "\u200b":
            before = ""
            continue
        new = _kind(character)
        if before and i not in cuts and (not new or not kind or kind == new != "single" or before == "\u200d"):
            ranges[-1] = (ranges[-1][0], i + 1)
            kind = "single" if kind == new == "flag" else kind or new
        else:
            ranges.append((i, i + 1))
            kind = new
        before = character
    return ranges


def _kind(character: str) -> str:
    """Return whether a character is of a word, of a flag, a unit by itself (single), or part of what is before ("")."""
    if unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf") or "\U0001f3fb" <= character <= "\U0001f3ff":
        return ""
    if "\U0001f1e6" <= character <= "\U0001f1ff":
        return "flag"
    return "word" if (character.isalnum() or character == "_") and not _UNSPACED.match(character) else "single"


def parse_markup(line: str) -> MarkedText:
    """Take the tags of XML or HTML off a line, and write its entities as the characters that they stand for.

    An ampersand that begins no entity is text, and so is ">" alone. A <br> without a space around it becomes one.

    Raises:
        ValueError: the markup is not well-formed, or the text has more than `MAX_UNITS` units.
    """
    tags: list[Tag] = []
    opened: list[tuple[int, int]] = []  # index and place in the line
    text = ""
    for match in _PART.finditer(line):
        content, closing, name, slash, stray = match.groups()
        place, parent = match.start() + 1, opened[-1][0] if opened else -1
        if content:
            text += _ENTITY.sub(_character, content)
        elif stray:
            raise ValueError(f'markup: the "<" at character {place} begins no tag; write &lt; for the character')
        elif closing and not opened:
            raise ValueError(f"markup: </{closing}> at character {place} closes nothing; remove it")
        elif closing and tags[parent].name != closing:
            crossed = f"<{tags[parent].name}>, opened at character {opened[-1][1]}"
            raise ValueError(f"markup: </{closing}> at character {place} crosses {crossed}: close that first")
        elif closing:
            tags[opened.pop()[0]] = tags[parent]._replace(end=len(text))
        else:
            is_void = not name or bool(slash) or name.lower() in _VOID
            text += " " * (
                (name or "").lower() == "br" and bool(text[-1:].strip() and line[match.end() : match.end() + 1].strip())
            )
            opened += [] if is_void else [(len(tags), place)]
            tags.append(Tag(match[0], "" if is_void else name, len(text), len(text), parent))
    if opened:
        index, place = opened[-1]
        raise ValueError(f"markup: {tags[index].opening} at character {place} is not closed; add </{tags[index].name}>")
    if tags and len(text) > MAX_UNITS and len(MarkedText(text, tags).units()) > MAX_UNITS:
        raise ValueError(f"markup: the text has more than {MAX_UNITS:,} words and marks; split the line")
    return MarkedText(text, tags)


def _character(match: re.Match[str]) -> str:
    text = html.unescape(match[0])
    return text if text >= " " else " "  # no line break, which would make two lines of one


def unit_weights(
    matrix: npt.ArrayLike,
    source_offsets: Sequence[Range],
    target_offsets: Sequence[Range],
    source_units: Sequence[Range],
    target_units: Sequence[Range],
) -> Matrix:
    """Return attention between units from attention between other ranges of the same texts, such as subwords or words.

    A source unit receives the sum over its subwords, a target unit the mean over its subwords. A subword of several
    units is shared by characters.

    Args:
        matrix: (T, S), rows for `target_offsets` and columns for `source_offsets`; further ones do not count.
    """
    weights = np.asarray(matrix, np.float64)[: len(target_offsets), : len(source_offsets)]
    source, target = _overlaps(source_units, source_offsets), _overlaps(target_units, target_offsets)
    shares = source / np.maximum(source.sum(0), 1)
    means = target / np.maximum(target.sum(1, keepdims=True), 1)
    return np.asarray(means @ weights @ shares.T)


def _overlaps(ranges: Sequence[Range], others: Sequence[Range]) -> Matrix:
    """Return (R, O), how many characters each two ranges have in common."""
    (starts, ends), (other_starts, other_ends) = (np.array(r, np.float64).reshape(-1, 2).T for r in (ranges, others))
    common = np.minimum(ends[:, None], other_ends) - np.maximum(starts[:, None], other_starts)
    return np.asarray(np.maximum(common, 0))


def project(marked: MarkedText, translation: str, weights: npt.ArrayLike) -> list[ProjectedSpan]:
    """Find the range in the translation of each element of a text, never inside a unit.

    It is the free range with the largest sum over its units of the attention on the element's text minus `THRESHOLD`.
    Elements lie in the range of the element around them and do not overlap each other; the most certain come first.
    One without text, or without a unit that is left for it, is put between two units, where attention turns from what
    is before it to what is after it.

    Args:
        weights: (Tu, Su), between the `units` of the translation and `marked.units()`: attention, or 0 and 1 for links.

    Returns:
        one span for each element, in the same order.
    """
    source_units, target_units = marked.units(), units(translation)
    matrix = np.asarray(weights, np.float64).reshape(len(target_units), len(source_units))
    matrix = _mutual(matrix, [marked.text[s:e] for s, e in source_units], [translation[s:e] for s, e in target_units])
    starts, ends = np.array(source_units, np.int64).reshape(-1, 2).T
    # by element, and -1 for the text: its units in the source, and how many its range should have at least
    inside = {i: (int(np.sum(ends <= tag.start)), int(np.sum(starts < tag.end))) for i, tag in enumerate(marked.tags)}
    inside[-1] = (0, len(source_units))
    needed = dict.fromkeys(inside, 0)
    for i in reversed(range(len(marked.tags))):
        needed[i] = max(needed[i], 1) if inside[i][0] < inside[i][1] else 0
        needed[marked.tags[i].parent] += needed[i]
    ranges, spans, confidences = {-1: (0, len(target_units))}, {-1: (0, len(translation))}, dict[int, float]()
    for parent, siblings in _children(marked.tags).items():  # parents come before their children
        low, high = ranges[parent]
        masses = {i: matrix[:, slice(*inside[i])].sum(1) for i in siblings if needed[i] and low < high}
        chosen = _disjoint_ranges(masses, needed, (low, high))
        boundaries = np.zeros(len(target_units) + 1, np.bool_)
        boundaries[low : high + 1] = True
        for i, (start, end) in chosen.items():
            boundaries[start + 1 : end] = False
            total = masses[i].sum() + matrix[start:end].sum()
            confidences[i] = float(2 * masses[i][start:end].sum() / max(total, _TINY))
            ranges[i], spans[i] = (start, end), (target_units[start][0], target_units[end - 1][1])
        for i in (i for i in siblings if i not in chosen):
            start, character = marked.tags[i].start, spans[parent][0]
            place = _boundary(matrix, boundaries, inside[parent], int(np.sum(starts < start)))
            if place > low and (place == high or marked.text[start - 1 : start].strip()):
                character = target_units[place - 1][1]
            elif place < high:
                character = target_units[place][0]
            ranges[i], spans[i] = (place, place), (character, character)
    return [ProjectedSpan(tag, *spans[i], confidences.get(i, 0.0)) for i, tag in enumerate(marked.tags)]


def _mutual(matrix: Matrix, source_words: Sequence[str], target_words: Sequence[str]) -> Matrix:
    """Return how much units (Tu, Su) belong together by attention, in both directions.

    Half of the attention of a unit that the source has too goes to its likes there. Then columns and rows of the
    squares are made to sum to one in turn, so that a source unit which many attend to counts less for each of them;
    the result is the mean of the last of both. How each of these was chosen is in docs/markup.md.
    """
    places: dict[str, list[int]] = {}
    for place, word in enumerate(source_words):
        places.setdefault(word.casefold(), []).append(place)
    matrix = _normalized(matrix, 1)  # a copy
    for row, word in zip(matrix, target_words, strict=True):
        if likes := places.get(word.casefold()):
            shares = row[likes] + _TINY
            row *= 0.5
            row[likes] += 0.5 * shares / shares.sum()
    matrix **= 2
    for _ in range(2):
        matrix = _normalized(_normalized(matrix, 0), 1)
    return (matrix + _normalized(matrix, 0)) / 2


def _normalized(matrix: Matrix, axis: int) -> Matrix:
    return np.asarray(matrix / np.maximum(matrix.sum(axis, keepdims=True), _TINY))


def _disjoint_ranges(masses: dict[int, Matrix], needed: dict[int, int], outer: Range) -> dict[int, Range]:
    """Choose a range of target units within the outer one for each element, none where no unit is left.

    Args:
        masses: by element, the attention of each target unit.
        needed: by element, how many units its range must have, if there are as many; so many are left for the others.
    """
    taken = np.ones(len(next(iter(masses.values()), ())), np.bool_)
    taken[slice(*outer)] = False
    chosen: dict[int, Range] = {}
    best = {i: _best_range(mass, taken, needed[i]) for i, mass in masses.items()}
    num_free, num_needed = outer[1] - outer[0], sum(needed[i] for i in masses)
    while best:
        i = max(best, key=lambda i: best[i][0])
        score, start, end = best.pop(i)
        num_needed -= needed[i]
        room = max(num_free - num_needed, 1)
        if end - start > room:
            sums = np.cumsum(np.append(0, masses[i][start:end]))
            start += int((sums[room:] - sums[:-room]).argmax())
            end = start + room
        if score > _TAKEN / 2:
            chosen[i] = (start, end)
            taken[start:end] = True
            num_free -= end - start
            overlapping = [j for j, (_, other, last) in best.items() if other < end and start < last]
            best |= {j: _best_range(masses[j], taken, needed[j]) for j in overlapping}
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


def _boundary(matrix: Matrix, allowed: npt.NDArray[np.bool_], outer: Range, place: int) -> int:
    """Return the boundary between target units that fits best to a boundary between source units.

    Args:
        allowed: (Tu + 1,) which there are.
        outer: the source units of the element around it, at the start and end of which it stays there.
        place: the number of source units before it.
    """
    places = np.flatnonzero(allowed)
    if place <= outer[0] or place >= outer[1]:
        return int(places[0 if place <= outer[0] else -1])
    numbers = np.arange(*outer)
    # the nearer a source unit is, the more it says
    signs = np.where(numbers < place, DECAY ** (place - 1 - numbers), -(DECAY ** (numbers - place)))
    evidence = np.cumsum(np.append(0, matrix[:, slice(*outer)] @ signs))
    return int(places[evidence[places].argmax()])


def _children(tags: Sequence[Tag]) -> dict[int, list[int]]:
    """Return the indices of the elements directly inside each that has some, and under -1 those outside of all."""
    children: dict[int, list[int]] = {}
    for i, tag in enumerate(tags):
        children.setdefault(tag.parent, []).append(i)
    return children


def render(translation: str, spans: Sequence[ProjectedSpan]) -> str:
    """Return the translation as XML or HTML with the elements' tags: text is escaped, tags are as they were."""
    children = _children([span.tag for span in spans])
    pieces, position = [""], 0
    stack: list[tuple[int, bool]] = [(-1, False)]  # elements and whether they are to be closed
    while stack:
        i, closes = stack.pop()
        if i >= 0:
            place = spans[i].end if closes else spans[i].start
            pieces.append(html.escape(translation[position:place], quote=False))
            position = place
            pieces.append(f"</{spans[i].tag.name}>" if closes else spans[i].tag.opening)
        if not closes:
            if i >= 0 and spans[i].tag.name:
                stack.append((i, True))
            inner = sorted(children.get(i, ()), key=lambda j: (spans[j].start, spans[j].end, j))
            stack += [(j, False) for j in reversed(inner)]
    return "".join(pieces) + html.escape(translation[position:], quote=False)
