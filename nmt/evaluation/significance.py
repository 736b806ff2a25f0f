"""How sure a score is, and whether two systems differ: sacrebleu's own resampling."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nmt.evaluation.metrics import SIGNIFICANCE_TESTS, MetricsConfig, build_metrics, check_lengths


class ConfidenceInterval(NamedTuple):
    """A 95 % confidence interval: mean ± half_width of the scores of resampled test sets, and sacrebleu's signature."""

    mean: float
    half_width: float
    signature: str


class PairedTestRow(NamedTuple):
    """One system beside the baseline.

    score: of the system. mean, half_width: its interval, None where the test gives none. p_value: the probability of a
    difference as large if the two were alike, None for the baseline itself.
    """

    score: float
    mean: float | None
    half_width: float | None
    p_value: float | None


class PairedTestResult(NamedTuple):
    """One metric: its signature, which names the test, and every system by name, the baseline first."""

    signature: str
    systems: dict[str, PairedTestRow]


def bootstrap_intervals(
    hypotheses: Sequence[str], references: Sequence[str], config: MetricsConfig
) -> dict[str, ConfidenceInterval]:
    """Return bootstrap confidence intervals of each of `config.names` (Koehn 2004); {} for `config.resamples` below 2.

    Raises ValueError when there are not as many hypotheses as references, or none.
    """
    check_lengths(hypotheses, references)
    if config.num_resamples < 2:
        return {}
    measured = {}
    for name, metric in build_metrics(config).items():
        if name.startswith("chrf"):
            metric._compute_score_from_stats = _of_one_kind(metric._compute_score_from_stats)
        value = metric.corpus_score(hypotheses, [references], n_bootstrap=config.num_resamples)
        measured[name] = ConfidenceInterval(float(value._mean), float(value._ci), str(metric.get_signature()))
    return measured


def _of_one_kind(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap a metric's function so that its scores of resampled texts have one type.

    chrF is of numpy's single precision, but Python's 0.0 without any match; Python's statistics, by which sacrebleu
    takes the mean of all, refuse the two together.
    """

    def computed(statistics: Any) -> Any:
        result = compute(statistics)
        if type(result.score) is float and not isinstance(statistics, list):
            result.score = statistics.dtype.type(result.score)
        return result

    return computed


def paired_test(
    systems: Mapping[str, Sequence[str]], references: Sequence[str], config: MetricsConfig
) -> dict[str, PairedTestResult]:
    """Compare systems with the first one, the baseline, on the same test set.

    Args:
        systems: hypotheses by name, two or more.
        references: in the same order.
        config: names of the metrics, `paired` for the test, and `resamples` (0: sacrebleu's default).

    Returns:
        for each metric by name.

    Raises:
        ValueError: fewer than two systems, or another number of hypotheses than references.
    """
    if len(systems) < 2:
        raise ValueError(f"{len(systems)} systems: a comparison needs two or more")
    for name, hypotheses in systems.items():
        try:
            check_lengths(hypotheses, references)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    from sacrebleu.significance import PairedTest

    logging.getLogger("sacrebleu").setLevel(logging.WARNING)  # which logs each of its steps
    test = PairedTest(
        [(system, list(hypotheses)) for system, hypotheses in systems.items()],
        build_metrics(config),
        [list(references)],
        test_type=SIGNIFICANCE_TESTS[config.significance_test],
        n_samples=config.num_resamples,
    )
    signatures, columns = test()
    baseline, *_ = systems.values()
    comparisons = {}
    for name, (title, signature) in zip(config.names, signatures.items(), strict=True):
        rows = [
            PairedTestRow(float(row.score), *(None if x is None else float(x) for x in (row.mean, row.ci, row.p_value)))
            for row in columns[title]
        ]
        for i, hypotheses in enumerate(systems.values()):
            if i and list(hypotheses) == list(baseline):  # for which sacrebleu's bootstrap gives its smallest p-value
                rows[i] = rows[i]._replace(p_value=1.0)
        comparisons[name] = PairedTestResult(str(signature), dict(zip(systems, rows, strict=True)))
    return comparisons
