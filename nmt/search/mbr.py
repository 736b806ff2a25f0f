"""Minimum Bayes risk: the translation that is most like all that the model might have said."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from nmt.search.scoring import Floats


def expected_utilities(samples: Sequence[str], utility: str, *, on_sample: Callable[[], None] | None = None) -> Floats:
    """For each sample the mean utility with all samples as references: Eikema & Aziz 2020, equation 5.

    Args:
        samples: texts drawn from the model.
        utility: "chrf" (Popović 2015) or "bleu" (of a sentence, with exponential smoothing), from 0 to 100.
        on_sample: called before each text is compared with all; it may raise to stop.
    """
    times = Counter(samples)
    texts = list(times)
    compare = UTILITIES[utility]()
    mean: dict[str, float] = {}
    for text in texts:
        if on_sample is not None:
            on_sample()
        mean[text] = sum(times[other] * compare(text, other) for other in texts) / len(samples)
    return np.array([mean[text] for text in samples])


def _chrf() -> Callable[[str, str], float]:
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    return lambda hypothesis, reference: float(metric.sentence_score(hypothesis, [reference]).score)


def _bleu() -> Callable[[str, str], float]:
    from sacrebleu.metrics import BLEU

    metric = BLEU(effective_order=True)
    return lambda hypothesis, reference: float(metric.sentence_score(hypothesis, [reference]).score)


UTILITIES: dict[str, Callable[[], Callable[[str, str], float]]] = {"chrf": _chrf, "bleu": _bleu}
