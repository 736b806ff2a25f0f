"""Statistics of a comparison: equal to the formulas, with the stated error rates."""

import statistics

import numpy as np
import pytest
from scipy import stats

from nmt.compare.statistics import holm, mean_correlation, stouffer, summarize, t_test


def test_means_intervals_and_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 9):
        first, second = rng.normal(30, 2, n), rng.normal(31, 2, n)
        summary = summarize(list(first))
        expected = stats.t.interval(0.95, n - 1, loc=first.mean(), scale=stats.sem(first))
        assert (summary.low, summary.high) == pytest.approx(expected)
        assert (summary.mean, summary.deviation) == pytest.approx((first.mean(), first.std(ddof=1)))
        assert summary.method == f"t over {n} seeds"
        assert t_test(list(second - first)) == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert summarize([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.302653 / 3**0.5)  # t of 2 degrees, from a table
    assert t_test([1.0, 3.0]) == pytest.approx(1 - 2 / np.pi * np.arctan(2))  # of 1 degree, a Cauchy distribution
    assert t_test([1.0]) is None
    assert (t_test([0.0, 0.0]), t_test([2.0, 2.0])) == (1.0, 0.0)


def test_one_seed_has_the_interval_over_sentences_and_no_deviation() -> None:
    alone, bootstrapped = summarize([3.0]), summarize([3.0], (3.1, 0.5))
    assert (alone.deviation, alone.low, alone.high, alone.method) == (None, None, None, "none: 1 seed")
    assert (bootstrapped.low, bootstrapped.high, bootstrapped.deviation) == (2.6, 3.6, None)
    assert "bootstrap" in bootstrapped.method
    assert summarize([3.0, 4.0], (3.1, 0.5)).method.startswith("t ")


def test_combining_independent_tests_is_stouffers_method_of_scipy() -> None:
    p_values, signs = [0.04, 0.3, 0.2], [1.0, 1.0, -1.0]
    one_sided = [p / 2 if sign > 0 else 1 - p / 2 for p, sign in zip(p_values, signs, strict=True)]
    z = stats.combine_pvalues(one_sided, method="stouffer").statistic
    assert stouffer(p_values, signs, 0.0) == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert stouffer([0.03], [-2.0], 0.5) == pytest.approx(0.03)
    assert stouffer([0.03] * 4, [1.0] * 4, 1.0) == pytest.approx(0.03)  # four times the same test is one test
    assert stouffer([0.03] * 4, [1.0] * 4, 0.0) < 0.001
    assert stouffer([0.01, 0.01], [1.0, -1.0], 0.0) == pytest.approx(1.0)
    assert stouffer([0.01, 0.01], [0.0, 0.0], 0.0) == pytest.approx(1.0)


def test_holm_by_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # by hand
    assert holm([]) == []
    rng = np.random.default_rng(1)
    for _ in range(20):
        p_values = rng.uniform(size=6) ** 3
        rejected = np.zeros(6, bool)
        for rank, i in enumerate(np.argsort(p_values)):  # step down until the first that is not rejected
            if p_values[i] > 0.05 / (6 - rank):
                break
            rejected[i] = True
        assert [p <= 0.05 for p in holm(list(p_values))] == list(rejected)


def test_correlation() -> None:
    rows = np.random.default_rng(2).normal(size=(3, 50))
    expected = np.corrcoef(rows)[np.triu_indices(3, 1)].mean()
    assert mean_correlation(rows.tolist()) == pytest.approx(expected)
    assert mean_correlation([[1.0, 2.0]]) == 0.0
    assert mean_correlation([[1.0, 1.0], [1.0, 2.0]]) == 0.0


def rate(alarms: list[bool]) -> float:
    return statistics.fmean(alarms)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_without_a_difference_give_five_percent_of_false_alarms(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    p_values = [t_test(list(row)) for row in rng.normal(0, 3, (4000, seeds))]
    assert 0.04 < rate([p is not None and p < 0.05 for p in p_values]) < 0.06


@pytest.mark.parametrize("likeness", [0.0, 0.4, 1.0])
def test_sentences_without_a_difference_give_five_percent_of_false_alarms(likeness: float) -> None:
    """Combine tests of several seeds on the same sentences with a known correlation."""
    rng = np.random.default_rng(7)
    shared, individual = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 3))
    scores = np.sqrt(likeness) * shared + np.sqrt(1 - likeness) * individual
    p_values = 2 * stats.norm.sf(np.abs(scores))
    alarms = [stouffer(list(p), list(z), likeness) < 0.05 for p, z in zip(p_values, scores, strict=True)]
    assert 0.04 < rate(alarms) < 0.06
    naive = [stouffer(list(p), list(z), 0.0) < 0.05 for p, z in zip(p_values, scores, strict=True)]
    assert likeness == 0 or rate(naive) > 0.08


def test_sentences_alone_would_find_differences_between_seeds() -> None:
    """A difference must hold over seeds too: models of two seeds differ more than sentences can explain."""
    rng = np.random.default_rng(8)
    true = rng.normal(0, 1.0, (2000, 3))  # of each pair of seeds, no difference on average
    measured = true + rng.normal(0, 0.5, (2000, 3))  # sentences blur it
    p_values = 2 * stats.norm.sf(np.abs(measured) / 0.5)
    over_sentences = [stouffer(list(p), list(d), 0.0) < 0.05 for p, d in zip(p_values, measured, strict=True)]
    both = [alarm and (t_test(list(d)) or 0.0) < 0.05 for alarm, d in zip(over_sentences, measured, strict=True)]
    assert rate(over_sentences) > 0.3
    assert 0.02 < rate(both) < 0.06
