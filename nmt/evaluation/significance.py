"""Confidence intervals of scores, and significance tests between systems, by sacreBLEU's own resampling."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt.evaluation.metrics import SIGNIFICANCE_TESTS, Lines, MetricsConfig, build_metrics, check_lengths


class ConfidenceInterval(NamedTuple):
    """A 95 % confidence interval: mean ± half_width of the scores of resampled test sets, and sacreBLEU's signature."""

    mean: float
    half_width: float
    signature: str


class PairedTestRow(NamedTuple):
    """One system compared with the baseline.

    score: of the system. mean, half_width: its confidence interval, None where the test has none. p_value: the
    probability of a difference as large under the null hypothesis, None for the baseline itself. All are None for one
    sentence, of which there is no other sample.
    """

    score: float
    mean: float | None
    half_width: float | None
    p_value: float | None


class PairedTestResult(NamedTuple):
    """Test of one metric: its signature, which names the test, and every system by name, the baseline first."""

    signature: str
    systems: dict[str, PairedTestRow]


def bootstrap_intervals(
    hypotheses: Lines, references: Lines, config: MetricsConfig, further: Sequence[Lines] = (), sources: Lines = ()
) -> dict[str, ConfidenceInterval]:
    """Compute bootstrap intervals of each metric (Koehn 2004); {} for fewer than 2 resamples or sentences.

    Raises:
        ValueError: there are not as many hypotheses as references, or none.
    """
    check_lengths(hypotheses, references)
    if min(config.num_resamples, len(references)) < 2:
        return {}
    intervals = {}
    for name, metric in build_metrics(config, sources).items():
        if name != "bleu":
            metric._compute_score_from_stats = _with_numpy_scores(metric._compute_score_from_stats)
        result = metric.corpus_score(hypotheses, [references, *further], n_bootstrap=config.num_resamples)
        intervals[name] = ConfidenceInterval(float(result._mean), float(result._ci), str(metric.get_signature()))
    return intervals


def _with_numpy_scores(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap a metric's function so that its scores of resampled texts have one type.

    chrF and TER are single-precision NumPy numbers, but Python's without any match or reference; Python's
    `statistics.mean`, which sacreBLEU uses, does not accept both together.
    """

    def computed(statistics: Any) -> Any:
        result = compute(statistics)
        if type(result.score) is float and not isinstance(statistics, list):
            result.score = statistics.dtype.type(result.score)
        return result

    return computed


def paired_test(
    systems: Mapping[str, Lines],
    references: Lines,
    config: MetricsConfig,
    further: Sequence[Lines] = (),
    sources: Lines = (),
    stored: Mapping[str, Any] | None = None,
) -> dict[str, PairedTestResult]:
    """Compare systems with the first one, the baseline, on the same test set.

    Args:
        systems: hypotheses by name, two or more.
        references: in the same order.
        config: the metrics, the test, and the number of resamples (0: sacreBLEU's default).
        further, sources: as of `corpus_score`. stored: further metrics by name.

    Returns:
        the result of each metric by name.

    Raises:
        ValueError: fewer than two systems, or one without as many hypotheses as references.
    """
    if len(systems) < 2:
        raise ValueError(f"{len(systems)} systems: a comparison needs two or more")
    for name, hypotheses in systems.items():
        check_lengths(hypotheses, references, f"{name}: ")
    from sacrebleu.significance import PairedTest

    logging.getLogger("sacrebleu").setLevel(logging.WARNING)  # it logs each of its steps
    metrics = build_metrics(config, sources) | dict(stored or {})
    signatures, columns = PairedTest(
        [(system, list(hypotheses)) for system, hypotheses in systems.items()],
        metrics,
        [list(texts) for texts in (references, *further)],
        test_type=SIGNIFICANCE_TESTS[config.significance_test],
        n_samples=config.num_resamples,
    )()
    comparisons = {}
    for name, (title, signature) in zip(metrics, signatures.items(), strict=True):
        rows = [
            PairedTestRow(float(row.score), *(None if x is None else float(x) for x in (row.mean, row.ci, row.p_value)))
            for row in columns[title]
        ]
        if len(references) == 1:
            rows = [PairedTestRow(row.score, None, None, None) for row in rows]
        else:  # sacreBLEU returns its smallest p-value for equal scores of all samples
            rows[1:] = [row._replace(p_value=1.0) if row.score == rows[0].score else row for row in rows[1:]]
        comparisons[name] = PairedTestResult(str(signature), dict(zip(systems, rows, strict=True)))
    return comparisons


def mean_test(parts: Sequence[tuple[Any, Sequence[Lines], Sequence[Lines]]], config: MetricsConfig) -> PairedTestRow:
    """Test the difference of two systems in the mean of a score over several test sets, as `paired_test` on one.
    Sentences are resampled, or swapped, within each set; in sets of equal size, mostly one text in several languages,
    the same ones. `parts`: of each set sacreBLEU's metric, the hypotheses of both systems, and the references."""
    num = config.num_resamples or {"bootstrap": 1000, "randomization": 10_000}[config.significance_test]
    scores = np.zeros((2, 1 + num))  # of the systems, and of both in each sample
    for metric, systems, references in parts:
        first, second = (np.array(metric._extract_corpus_statistics(list(h), references), float) for h in systems)
        rng, size = np.random.default_rng(12345), len(first)  # sacreBLEU's seed
        if config.significance_test == "bootstrap":
            counts = np.stack([np.bincount(rows, minlength=size) for rows in rng.choice(size, (num, size))])
            sums = [counts @ first, counts @ second]
        else:
            swap = rng.integers(2, size=(num, size), dtype=bool)
            sums = [swap @ first + ~swap @ second, ~swap @ first + swap @ second]
        for row, side, samples in zip(scores, (first, second), sums, strict=True):
            row += [float(metric._compute_score_from_stats(each).score) for each in [side.sum(0), *samples]]
    differences = np.abs(scores[1] - scores[0])
    center = differences[1:].mean() if config.significance_test == "bootstrap" else 0.0
    p_value = float(np.sum(differences[1:] - center > differences[0]) + 1) / (num + 1)
    return PairedTestRow(float(scores[1, 0] / len(parts)), None, None, 1.0 if differences[0] == 0 else p_value)
