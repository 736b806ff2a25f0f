"""How well elements of markup lie in a translation, compared with where a human put them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nmt.alignment.markup import MarkedText, ProjectedSpan, units


class SpanScore(NamedTuple):
    """How many spans; the share that is exact; F1 over their units; the mean error of their boundaries, in units."""

    num_spans: int
    exact: float
    f1: float
    boundary_error: float


def span_score(pairs: Iterable[tuple[Sequence[ProjectedSpan], MarkedText]]) -> SpanScore:
    """Compare projected spans with the elements of the same name in a human translation of the same text, as units.

    One without a unit in the human translation, or without its name there, does not count.
    """
    num_spans = num_exact = num_hits = num_units = distance = 0
    for spans, reference in pairs:
        ranges = units(reference.text)
        named = {tag.name: tag for tag in reversed(reference.tags)}  # the first of a name
        for span in (span for span in spans if span.tag.name in named):
            gold = named[span.tag.name]
            both = ((gold.start, gold.end), (span.start, span.end))
            human, found = ([i for i, (s, e) in enumerate(ranges) if s < end and start < e] for start, end in both)
            if human:
                num_spans += 1
                num_exact += found == human
                num_hits += len(set(found) & set(human))
                num_units += len(found) + len(human)
                distance += abs(min(found, default=0) - human[0]) + abs(max(found, default=0) - human[-1])
    count = max(num_spans, 1)
    return SpanScore(num_spans, num_exact / count, 2 * num_hits / max(num_units, 1), distance / 2 / count)
