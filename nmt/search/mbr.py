"""Minimum Bayes risk decoding: the translation that is most similar to all that the model may give."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from nmt.search.scoring import Floats


def expected_utilities(samples: Sequence[str], utility: str, *, on_sample: Callable[[], None] | None = None) -> Floats:
    """Return the mean utility of each sample with all samples as references: Eikema & Aziz 2020, equation 5.

    Args:
        utility: "chrf" (Popović 2015) or "bleu" (of a sentence, with exponential smoothing), from 0 to 100.
        on_sample: called before each text is compared with all; it may raise to stop.
    """
    counts = Counter(samples)
    compare = UTILITIES[utility]()
    expected: dict[str, float] = {}
    for text in counts:
        if on_sample is not None:
            on_sample()
        expected[text] = sum(num * compare(text, reference) for reference, num in counts.items()) / len(samples)
    return np.array([expected[text] for text in samples])


def _sentence_metric(name: str, **options: Any) -> Callable[[str, str], float]:
    from sacrebleu import metrics

    metric = getattr(metrics, name)(**options)
    return lambda hypothesis, reference: float(metric.sentence_score(hypothesis, [reference]).score)


UTILITIES: dict[str, Callable[[], Callable[[str, str], float]]] = {
    "chrf": partial(_sentence_metric, "CHRF"),
    "bleu": partial(_sentence_metric, "BLEU", effective_order=True),
}
