"""How sure the differences between groups of runs are."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nmt.compare.checks import check_comparable, confounded, few_seeds, target_not_reached, versions
from nmt.compare.grouping import RunGroup, find_baseline, format_value, groups, label_options, varying_options
from nmt.compare.run_results import RunResult
from nmt.compare.statistics import ALPHA, SampleSummary, holm, mean_correlation, stouffer, summary, t_test
from nmt.evaluation.significance import paired_test


@dataclass
class GroupContrast:
    """One group compared with the baseline in one metric.

    difference: over the pairs of runs. per_seed: p-values of sacrebleu's paired test, one for each pair: would these
    two models differ on other sentences? sentences: those combined; None for what is no metric of sacrebleu. seeds: of
    a paired t-test over the pairs: would models of other seeds differ on these sentences? None for one pair. The
    adjusted ones are corrected by Holm's method over all groups. differs: both adjusted are below 0.05, of AER that
    over seeds; None for one pair, and where sacrebleu's test was not wanted.

    Models of one configuration and two seeds often differ on any sentences, so the first question alone would find
    differences between configurations where there are none.
    """

    metric: str
    group: str
    difference: SampleSummary
    per_seed: list[float]
    sentences: float | None
    seeds: float | None
    adjusted_sentences: float | None = None
    adjusted_seeds: float | None = None
    differs: bool | None = None


@dataclass(frozen=True)
class RunComparison:
    """Everything about some runs. varied: for each option that differs its values. groups: the baseline first."""

    varied: dict[str, list[Any]]
    groups: list[RunGroup]
    contrasts: list[GroupContrast]
    signatures: dict[str, str]
    test_signatures: dict[str, str]
    num_sentences: int
    warnings: list[str] = field(default_factory=list)

    @property
    def baseline(self) -> RunGroup:
        return self.groups[0]


def compare_runs(
    outcomes: Sequence[RunResult],
    *,
    baseline: str | None = None,
    varied: Sequence[str] = (),
    resamples: int = 1000,
    test: str = "bootstrap",
    target_bleu: float | None = None,
) -> RunComparison:
    """Group runs by the options in which they differ, and compare every group with the baseline.

    Args:
        baseline: a group's label, an option=value that only it has, or one of its runs; None: the first run's group.
        varied: options that were varied on purpose; empty: whatever differs.
        resamples, test: of sacrebleu's paired test, a key of `SIGNIFICANCE_TESTS`.
        target_bleu: adds the minutes that each run took to so much on the validation set.

    Raises:
        ValueError: the runs cannot be ranked, or there is no such baseline.
    """
    check_comparable(outcomes, varied)
    values = varying_options(outcomes)
    for option in varied:
        if not any(option in outcome.options for outcome in outcomes):
            raise ValueError(f"--factors {','.join(varied)}: {option} is no option of these runs")
    warnings: list[str] = []
    ranked = groups(outcomes, values, label_options(values, varied, outcomes), warnings, target_bleu)
    ranked.insert(0, ranked.pop(find_baseline(ranked, baseline)))
    warnings += confounded(ranked, values, varied) + few_seeds(ranked) + versions(outcomes)
    warnings += target_not_reached(ranked, target_bleu)
    contrasts, signatures = _contrasts(ranked, resamples, test)
    return RunComparison(
        varied={option: list(dict.fromkeys(format_value(each) for each in values[option])) for option in values},
        groups=ranked,
        contrasts=contrasts,
        signatures=outcomes[0].signatures,
        test_signatures=signatures,
        num_sentences=len(outcomes[0].references),
        warnings=warnings,
    )


def _pairs(base: RunGroup, group: RunGroup) -> list[tuple[RunResult, RunResult]]:
    """Return pairs of runs of the same seed, else in the order of their seeds, which is as good as any other."""
    by_seed = {outcome.seed: outcome for outcome in base.results}
    common = [(by_seed[outcome.seed], outcome) for outcome in group.results if outcome.seed in by_seed]
    return common or list(zip(base.results, group.results, strict=False))


def _contrasts(groups: Sequence[RunGroup], resamples: int, kind: str) -> tuple[list[GroupContrast], dict[str, str]]:
    """Compare every group with the first, in every metric and in AER; the signatures of the tests by metric."""
    base = groups[0]
    config = dataclasses.replace(base.results[0].config.metrics, num_resamples=resamples, significance_test=kind)
    config.names = [name for name in config.names if name in base.results[0].signatures]
    contrasts, signatures = [], {}
    for group in groups[1:]:
        pairs = _pairs(base, group)
        tests = [
            paired_test({"0": one.hypotheses, "1": other.hypotheses}, one.references, config) if resamples else {}
            for one, other in pairs
        ]
        correlation = mean_correlation(
            [[b - a for a, b in zip(one.sentence_chrf, other.sentence_chrf, strict=True)] for one, other in pairs]
        )
        for metric in [*config.names, "aer"]:
            if not all(metric in each.quantities for pair in pairs for each in pair):
                continue
            differences = [other.quantities[metric] - one.quantities[metric] for one, other in pairs]
            per_seed = [float(test[metric].systems["1"].p_value or 0.0) for test in tests if metric in test]
            if per_seed:
                signatures[metric] = tests[0][metric].signature
            over_sentences = stouffer(per_seed, differences, correlation) if per_seed else None
            contrasts.append(
                GroupContrast(metric, group.label, summary(differences), per_seed, over_sentences, t_test(differences))
            )
    _correct(contrasts)
    return contrasts, signatures


def _correct(contrasts: Sequence[GroupContrast]) -> None:
    """Correct the p-values for the number of groups, metric by metric, and set what follows from them."""
    for metric in dict.fromkeys(each.metric for each in contrasts):
        for kind in ("sentences", "seeds"):
            tested = [each for each in contrasts if each.metric == metric and getattr(each, kind) is not None]
            for each, p_value in zip(tested, holm([getattr(each, kind) for each in tested]), strict=True):
                setattr(each, f"adjusted_{kind}", p_value)
    for each in contrasts:
        p_values = [p for p in (each.adjusted_sentences, each.adjusted_seeds) if p is not None]
        if each.adjusted_seeds is not None and (len(p_values) == 2 or each.metric == "aer"):
            each.differs = max(p_values) < ALPHA
