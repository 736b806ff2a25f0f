"""How sure the differences between groups of runs are."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nmt.compare.checks import check_same, confounded, few_seeds, not_reached, versions
from nmt.compare.grouping import Group, baseline_of, differing, groups, plain, shown_options
from nmt.compare.run_results import Outcome
from nmt.compare.statistics import ALPHA, Summary, combined, holm, mean_correlation, summary, t_test
from nmt.evaluation.significance import paired


@dataclass(frozen=True)
class Contrast:
    """One group beside the baseline in one metric.

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
    difference: Summary
    per_seed: list[float]
    sentences: float | None
    seeds: float | None
    adjusted_sentences: float | None = None
    adjusted_seeds: float | None = None
    differs: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything about some runs. varied: for each option that differs its values. groups: the baseline first."""

    varied: dict[str, list[Any]]
    groups: list[Group]
    contrasts: list[Contrast]
    signatures: dict[str, str]
    test_signatures: dict[str, str]
    num_sentences: int
    warnings: list[str] = field(default_factory=list)

    @property
    def baseline(self) -> Group:
        return self.groups[0]


def compare(
    outcomes: Sequence[Outcome],
    *,
    baseline: str | None = None,
    varied: Sequence[str] = (),
    resamples: int = 1000,
    test: str = "bs",
    target_bleu: float | None = None,
) -> Comparison:
    """Groups runs by the options in which they differ, and compares every group with the baseline.

    Args:
        baseline: a group's label, an option=value that only it has, or one of its runs; None: the first run's group.
        varied: options that were varied on purpose; empty: whatever differs.
        resamples, test: of sacrebleu's paired test, "bs" or "ar".
        target_bleu: adds the minutes that each run took to so much on the validation set.

    Raises:
        ValueError: the runs cannot be ranked, or there is no such baseline.
    """
    check_same(outcomes, varied)
    values = differing(outcomes)
    unknown = [option for option in varied if not any(option in outcome.options for outcome in outcomes)]
    if unknown:
        raise ValueError(f"--varied {','.join(varied)}: {unknown[0]} is no option of these runs")
    warnings: list[str] = []
    shown = shown_options(values, varied, outcomes)
    found = groups(outcomes, values, shown, warnings, target_bleu)
    index = baseline_of(found, baseline)
    found = [found[index], *found[:index], *found[index + 1 :]]
    warnings += confounded(found, values, varied) + few_seeds(found) + versions(outcomes)
    warnings += not_reached(found, target_bleu)
    contrasts, signatures = _contrasts(found, resamples, test)
    return Comparison(
        varied={option: list(dict.fromkeys(plain(each) for each in values[option])) for option in values},
        groups=found,
        contrasts=_adjusted(contrasts),
        signatures=outcomes[0].signatures,
        test_signatures=signatures,
        num_sentences=len(outcomes[0].references),
        warnings=warnings,
    )


def _pairs(base: Group, group: Group) -> list[tuple[Outcome, Outcome]]:
    """Runs of one seed each, else in the order of their seeds, which are as good as any other."""
    by_seed = {outcome.seed: outcome for outcome in base.outcomes}
    common = [(by_seed[outcome.seed], outcome) for outcome in group.outcomes if outcome.seed in by_seed]
    return common or list(zip(base.outcomes, group.outcomes, strict=False))


def _contrasts(groups: Sequence[Group], resamples: int, kind: str) -> tuple[list[Contrast], dict[str, str]]:
    """Every group against the first, in every metric and in AER."""
    base = groups[0]
    config = dataclasses.replace(base.outcomes[0].config.metrics, resamples=resamples, paired=kind)
    config.names = [name for name in config.names if name in base.outcomes[0].signatures]
    found, signatures = [], {}
    for group in groups[1:]:
        pairs = _pairs(base, group)
        tested = [
            paired({"0": one.hypotheses, "1": other.hypotheses}, one.references, config) if resamples else {}
            for one, other in pairs
        ]
        likeness = mean_correlation(
            [[b - a for a, b in zip(one.sentence_chrf, other.sentence_chrf, strict=True)] for one, other in pairs]
        )
        for metric in [*config.names, "aer"]:
            if not all(metric in each.quantities for pair in pairs for each in pair):
                continue
            differences = [other.quantities[metric] - one.quantities[metric] for one, other in pairs]
            per_seed = [float(each[metric].systems["1"].p_value or 0.0) for each in tested if metric in each]
            if tested and metric in tested[0]:
                signatures[metric] = tested[0][metric].signature
            over_sentences = combined(per_seed, differences, likeness) if per_seed else None
            found.append(
                Contrast(metric, group.label, summary(differences), per_seed, over_sentences, t_test(differences))
            )
    return found, signatures


def _adjusted(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """With p-values corrected for the number of groups, metric by metric, and what follows from them."""
    found = list(contrasts)
    for metric in dict.fromkeys(test.metric for test in contrasts):
        for of, to in (("sentences", "adjusted_sentences"), ("seeds", "adjusted_seeds")):
            rows = [i for i, test in enumerate(found) if test.metric == metric and getattr(test, of) is not None]
            for i, value in zip(rows, holm([getattr(found[i], of) for i in rows]), strict=True):
                changed: dict[str, Any] = {to: value}
                found[i] = dataclasses.replace(found[i], **changed)
    for i, test in enumerate(found):
        if test.adjusted_seeds is not None:
            both = [p for p in (test.adjusted_sentences, test.adjusted_seeds) if p is not None]
            if len(both) == 2 or test.metric == "aer":
                found[i] = dataclasses.replace(test, differs=max(both) < ALPHA)
    return found
