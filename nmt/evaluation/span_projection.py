"""A measure of how attention carries elements of markup over to a translation, against where a human put them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.alignment import AlignmentSource
from nmt.alignment.markup import MarkedText, ProjectedSpan, Tag, project, units
from nmt.inference.translator import Translation, Translator

Projected = tuple[Sequence[ProjectedSpan], MarkedText]
"""The spans in a translation, and the human translation of the same text."""


class SpanScore(NamedTuple):
    """Number of spans; the share that is exact; F1 over their units; the mean error of their boundaries, in units."""

    num_spans: int
    exact: float
    f1: float
    boundary_error: float | None = None


@dataclass
class SpanEvaluation:
    """Scores of spans by the alignment source in human translations and, by their texts, in the model's own.

    heads: in human translations, by the mean of all layers and heads, of those of a layer, and by each head.
    """

    references: SpanScore
    output: SpanScore
    heads: dict[AlignmentSource, SpanScore]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        heads = [{"layer": s.layer, "head": s.head, **score._asdict()} for s, score in self.heads.items()]
        return {"references": self.references._asdict(), "output": self.output._asdict(), "heads": heads}

    def __str__(self) -> str:
        human, own = self.references, self.output
        return (
            f"{human.num_spans} spans carried over to the references: exact {100 * human.exact:.1f} %, F1 "
            f"{100 * human.f1:.1f}, boundaries off by {human.boundary_error:.2f}; to the output: with the same text "
            f"{100 * own.exact:.1f} %, F1 of their words {100 * own.f1:.1f}"
        )


def evaluate_spans(
    translator: Translator,
    source: AlignmentSource,
    marked: Sequence[tuple[MarkedText, MarkedText]],
    translations: Sequence[Translation],
) -> SpanEvaluation | None:
    """Project the elements of sources onto their references and onto translations; None without attention.

    Args:
        source: the layer and head that are read.
        marked: sources and references with the same elements.
        translations: of the sources.
    """

    def projected(
        i: int, translation: str, ids: Sequence[int], weights: NDArray[np.float32], head: AlignmentSource
    ) -> Projected:
        text, reference = marked[i]
        pair, both = ((text.text, translation), (sources[i], ids)), (text.units(), units(translation))
        return project(text, translation, translator.unit_weights(*pair, weights, both, head)), reference

    texts = [(text.text, reference.text) for text, reference in marked]
    (sources, targets), heads = translator.encode_pairs(texts), dict[AlignmentSource, list[Projected]]()
    for i, weights in translator.attention_weights(sources, targets):
        layers, numbers = range(1, weights.shape[0] + 1), range(weights.shape[1] + 1)
        candidates = [AlignmentSource(), *(AlignmentSource(layer, head) for layer in layers for head in numbers)]
        for head in dict.fromkeys([*candidates, source]):
            heads.setdefault(head, []).append(projected(i, texts[i][1], targets[i], weights, head))
    if not heads:
        return None
    own: list[tuple[str, Projected]] = []
    ids = [translation.tokens for translation in translations]
    for i, weights in translator.attention_weights(sources, ids):
        own.append((translations[i].text, projected(i, translations[i].text, ids[i], weights, source)))
    scores = {head: span_score(spans) for head, spans in heads.items()}
    of_source = scores[source] if not source.shift else scores.pop(source)
    return SpanEvaluation(of_source, _score_of_texts(own), scores)


def _named(spans: Sequence[ProjectedSpan], reference: MarkedText) -> Iterator[tuple[ProjectedSpan, Tag]]:
    """Yield each span with the element of its name in the reference, if that has text.

    Of several, it is the first that is left of those with the same attributes, or else of all.
    """
    left = list(reference.tags)
    for span in spans:
        named = [tag for tag in left if tag.name == span.tag.name]
        if named:
            gold = next((tag for tag in named if tag.opening == span.tag.opening), named[0])
            left.remove(gold)
            if units(reference.text[gold.start : gold.end]):
                yield span, gold


def span_score(pairs: Iterable[Projected]) -> SpanScore:
    """Compare projected spans with the elements of the same name in the same translation, as units.

    One without a unit in the human translation, or without its name there, does not count.
    """
    num_spans = num_exact = num_hits = num_units = distance = 0
    for spans, reference in pairs:
        ranges = units(reference.text)
        for span, gold in _named(spans, reference):
            both = ((gold.start, gold.end), (span.start, span.end))
            human, found = ([i for i, (s, e) in enumerate(ranges) if s < end and start < e] for start, end in both)
            num_spans += 1
            num_exact += found == human
            num_hits += len(set(found) & set(human))
            num_units += len(found) + len(human)
            distance += abs(min(found, default=0) - human[0]) + abs(max(found, default=0) - human[-1])
    count = max(num_spans, 1)
    return SpanScore(num_spans, num_exact / count, 2 * num_hits / max(num_units, 1), distance / 2 / count)


def _score_of_texts(translations: Iterable[tuple[str, Projected]]) -> SpanScore:
    """Compare the words of spans in another translation with those of the elements of the same name."""
    num_spans = num_exact = num_hits = num_units = 0
    for written, (spans, reference) in translations:
        for span, gold in _named(spans, reference):
            parts = written[span.start : span.end], reference.text[gold.start : gold.end]
            found, human = (Counter(part[start:end] for start, end in units(part)) for part in parts)
            num_spans += 1
            num_exact += parts[0].strip() == parts[1].strip()
            num_hits += (found & human).total()
            num_units += found.total() + human.total()
    return SpanScore(num_spans, num_exact / max(num_spans, 1), 2 * num_hits / max(num_units, 1))
