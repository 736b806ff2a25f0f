"""How well elements of markup lie in a translation, compared with where a human put them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nmt.alignment.markup import MarkedText, ProjectedSpan, units


class SpanScore(NamedTuple):
    """Scores over spans: how many; the share that is exact; F1 over their units; the mean distance of their boundaries
    from the human ones, in units."""

    num_spans: int
    exact: float
    f1: float
    boundary_error: float


def span_score(pairs: Iterable[tuple[Sequence[ProjectedSpan], MarkedText]]) -> SpanScore:
    """Compare projected spans with the elements of the same name in a human translation of the same text.

    Spans are compared as units. One without a unit in the human translation, or without its name there, does not count.
    """
    num_spans = num_exact = num_hits = num_units = distance = 0
    for spans, reference in pairs:
        ranges = units(reference.text)
        named = {tag.name: tag for tag in reversed(reference.tags)}  # the first of a name
        for span in spans:
            gold = named.get(span.tag.name)
            if gold is None or not (human := _covered(ranges, gold.start, gold.end)):
                continue
            found = _covered(ranges, span.start, span.end) or range(0)
            num_spans += 1
            num_exact += found == human
            num_hits += len(set(found) & set(human))
            num_units += len(found) + len(human)
            distance += abs(found.start - human.start) + abs(found.stop - human.stop)
    count = max(num_spans, 1)
    return SpanScore(num_spans, num_exact / count, 2 * num_hits / max(num_units, 1), distance / 2 / count)


def _covered(ranges: Sequence[tuple[int, int]], start: int, end: int) -> range:
    """Return the numbers of the units that a range of characters has in it, wholly or in part."""
    numbers = [i for i, (first, last) in enumerate(ranges) if first < end and start < last]
    return range(numbers[0], numbers[-1] + 1) if numbers else range(0)
