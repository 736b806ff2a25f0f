"""Statistical inference from few seeds: confidence intervals, paired tests, and corrections for multiple tests."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
ALPHA = 1 - LEVEL
MIN_SEEDS = 3
"""Seeds below which the t interval says nothing: of two it reaches nine deviations to each side, beyond most scales."""
TOO_FEW = "too few seeds for an interval"
_NORMAL = statistics.NormalDist()


@dataclass(frozen=True)
class SampleSummary:
    """A quantity over the seeds of a group.

    values: by seed. deviation: sample standard deviation (n − 1); None for one seed. low, high: the ends of a 95 %
    confidence interval, None where there is none; method: how the interval was computed.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = "none: 1 seed"

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval; None where there is none or it is of fewer than `MIN_SEEDS` seeds, but not one."""
        if self.low is None or self.high is None or 1 < len(self.values) < MIN_SEEDS:
            return None
        return self.low, self.high


def summarize(values: Sequence[float], interval: tuple[float, float] | None = None) -> SampleSummary:
    """Return the mean, the standard deviation and a 95 % confidence interval of the mean by Student's t.

    Args:
        values: one for each seed.
        interval: mean and half width of a bootstrap over the sentences of one run, used when there is one seed.
    """
    sample, mean = tuple(values), statistics.fmean(values)
    if len(sample) > 1:
        from scipy import stats  # slow to import

        deviation = statistics.stdev(sample)
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(sample) - 1)) * deviation / math.sqrt(len(sample))
        return SampleSummary(sample, mean, deviation, mean - half, mean + half, f"t over {len(sample)} seeds")
    if interval is not None:
        center, half = interval
        return SampleSummary(sample, mean, None, center - half, center + half, "bootstrap over sentences, 1 seed")
    return SampleSummary(sample, mean)


def t_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of Student's paired t-test; None for fewer than two differences."""
    if len(differences) < 2:
        return None
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    if deviation <= 1e-9 * abs(mean):  # rounding, or 0: then t is infinite, or 0 / 0
        return 0.0 if abs(mean) > 1e-9 else 1.0
    from scipy import stats

    return float(2 * stats.t.sf(abs(mean) / deviation * math.sqrt(len(differences)), len(differences) - 1))


def stouffer(p_values: Sequence[float], signs: Sequence[float], correlation: float) -> float:
    """Combine the p-values of several dependent tests of the same difference into one.

    Stouffer's method for dependent tests (Strube 1985): Σ z / √(n + n (n − 1) r), each z with the sign of its
    difference. Models of several seeds are tested on the same sentences; r is the correlation of their differences.

    Args:
        p_values: two-sided.
        signs: of the differences.
        correlation: r; below 0 counts as 0.
    """
    n = len(p_values)
    scores = [
        math.copysign(-_NORMAL.inv_cdf(min(max(p, 1e-300), 1.0) / 2), sign) if sign else 0.0
        for p, sign in zip(p_values, signs, strict=True)
    ]
    z = sum(scores) / math.sqrt(n + n * (n - 1) * min(max(correlation, 0.0), 1.0))
    return 2 * _NORMAL.cdf(-abs(z))


def mean_correlation(rows: Sequence[Sequence[float]]) -> float:
    """Return the mean correlation of all pairs of rows; 0 for fewer than two rows or columns, and of constant rows."""
    if len(rows) < 2 or len(rows[0]) < 2:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations: npt.NDArray[np.float64] = np.nan_to_num(np.asarray(np.corrcoef(rows)))
    return float(correlations[np.triu_indices(len(rows), 1)].mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted to control the family-wise error rate (Holm 1979)."""
    values = np.asarray(p_values, dtype=float)
    order = values.argsort()
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(np.minimum((len(values) - np.arange(len(values))) * values[order], 1.0))
    return [float(value) for value in adjusted]
