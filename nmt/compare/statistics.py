"""What few numbers allow to say: intervals over seeds, tests of a difference, and many tests at once."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
ALPHA = 1 - LEVEL
_NORMAL = statistics.NormalDist()


@dataclass(frozen=True)
class Summary:
    """A quantity over the seeds of a group.

    values: by seed. deviation: standard deviation over seeds, n − 1 in the denominator; None for one seed. low, high:
    the ends of a 95 % interval, None where there is none; method: what it is.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    method: str


def t_probability(t: float, freedom: int) -> float:
    """P(|T| ≤ |t|) of Student's t with a whole number of degrees of freedom.

    Abramowitz & Stegun 1964, equations 26.7.3 and 26.7.4, which are finite sums.
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(3 if odd else 2, freedom + 1, 2):  # the terms with cosines up to the power freedom − 2
        total += term
        term *= cosine * cosine * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with P(|T| ≤ t) = level."""
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < level:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def summary(values: Sequence[float], interval: tuple[float, float] | None = None) -> Summary:
    """Mean, deviation and 95 % interval of the mean, by Student's t over the values.

    Args:
        values: one for each seed.
        interval: mean and half width of a bootstrap over the sentences of one run, which is told for one value.
    """
    mean = statistics.fmean(values)
    if len(values) > 1:
        deviation = statistics.stdev(values)
        half = t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
        return Summary(tuple(values), mean, deviation, mean - half, mean + half, f"t over {len(values)} seeds")
    if interval is not None:
        low, high = interval[0] - interval[1], interval[0] + interval[1]
        return Summary(tuple(values), mean, None, low, high, "bootstrap over sentences, 1 seed")
    return Summary(tuple(values), mean, None, None, None, "none: 1 seed")


def t_test(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of a mean difference of 0, by Student's paired t-test; None for fewer than two differences."""
    if len(differences) < 2:
        return None
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 1 - t_probability(mean / error, len(differences) - 1)


def combined(p_values: Sequence[float], signs: Sequence[float], correlation: float) -> float:
    """One two-sided p-value of several tests of the same difference that are not independent of each other.

    Stouffer's method for dependent tests (Strube 1985): Σ z / √(n + n (n − 1) r), each z with the sign of its
    difference. Models of several seeds are tested on the same sentences; r says how alike their differences are there.

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
    """The mean correlation of every two rows; 0 for fewer than two, and for rows that do not vary."""
    found = []
    for i, row in enumerate(rows):
        for other in rows[:i]:
            try:
                found.append(statistics.correlation(row, other))
            except statistics.StatisticsError:
                found.append(0.0)
    return statistics.fmean(found) if found else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for being many (Holm 1979): the chance of one false alarm or more among them stays below α."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        found[i] = least
    return found
