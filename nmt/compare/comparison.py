"""Compare groups of runs with a baseline: differences, paired tests and their correction."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nmt.cli.config_groups import format_override
from nmt.compare.checks import check_comparable, confounded, few_seeds, target_not_reached, version_warnings
from nmt.compare.grouping import RunGroup, find_baseline, group_runs, label_options, varying_options
from nmt.compare.run_results import RunResult
from nmt.compare.statistics import ALPHA, SampleSummary, holm, mean_correlation, stouffer, summarize, t_test
from nmt.evaluation.metrics import TOKENIZERS, MetricsConfig, build_metrics
from nmt.evaluation.significance import PairedTestResult, mean_test, paired_test


@dataclass
class GroupContrast:
    """One group compared with the baseline in one metric.

    difference: over the pairs of runs. per_seed: p-values of sacrebleu's paired test, one for each pair: would these
    two models differ on other sentences? sentences: those combined; None for metrics that sacrebleu does not have.
    seeds: of a paired t-test over the pairs: would models of other seeds differ on these sentences? None for one pair.
    The adjusted ones are corrected by Holm's method over all groups. differs: both adjusted are below 0.05 (AER: only
    that over seeds); None for one pair, and without sacrebleu's test.

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
    """A comparison of runs. varied: values of each option that differs, those in labels first. groups: the baseline
    first."""

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
    results: Sequence[RunResult],
    *,
    baseline: str | None = None,
    factors: Sequence[str] = (),
    num_resamples: int = 1000,
    significance_test: str = "bootstrap",
    target_bleu: float | None = None,
) -> RunComparison:
    """Group runs by the options in which they differ, and compare every group with the baseline.

    Args:
        baseline: a group's label, an option=value that only it has, or one of its runs; None: the first run's group.
        factors: options that were varied on purpose; empty: whatever differs.
        num_resamples, significance_test: of sacrebleu's paired test, a key of `SIGNIFICANCE_TESTS`.
        target_bleu: adds the minutes that each run took to this BLEU on the validation set.

    Raises:
        ValueError: the runs cannot be ranked, or there is no such baseline.
    """
    for part in ["", *results[0].parts]:
        check_comparable([result.parts.get(part, result) for result in results], factors)
    values = varying_options(results)
    for option in factors:
        if not any(option in result.options for result in results):
            raise ValueError(f"--factors {','.join(factors)}: {option} is no option of these runs")
    warnings: list[str] = []
    groups = group_runs(results, values, factors, warnings, target_bleu)
    groups.insert(0, groups.pop(find_baseline(groups, baseline)))
    warnings += confounded(groups, values, factors) + few_seeds(groups) + version_warnings(results)
    warnings += target_not_reached(groups, target_bleu)
    contrasts, test_signatures = _contrasts(groups, num_resamples, significance_test)
    named = label_options(values, factors, results)
    return RunComparison(
        varied={
            option: list(dict.fromkeys(map(format_override, values[option])))
            for option in sorted(values, key=lambda option: option not in named)
        },
        groups=groups,
        contrasts=contrasts,
        signatures=results[0].signatures,
        test_signatures=test_signatures,
        num_sentences=len(results[0].references),
        warnings=warnings,
    )


def pair_runs(base: RunGroup, group: RunGroup) -> list[tuple[RunResult, RunResult]]:
    """Pair runs by seed, else in the order of their seeds, which is as good as any other."""
    by_seed = {result.seed: result for result in base.results}
    common = [(by_seed[result.seed], result) for result in group.results if result.seed in by_seed]
    return common or list(zip(base.results, group.results, strict=False))


def _contrasts(
    groups: Sequence[RunGroup], num_resamples: int, significance_test: str
) -> tuple[list[GroupContrast], dict[str, str]]:
    """Compare every group with the first, in every metric and in AER; return the tests' signatures by metric too."""
    base = groups[0]
    config = dataclasses.replace(
        base.results[0].config.metrics, num_resamples=num_resamples, significance_test=significance_test
    )
    config.names = [name for name in config.names if name in base.results[0].signatures]
    config.plugins = []  # their scores of sentences are stored
    config.validate()  # the plugin of a metric may not be there
    names = [*config.names, *base.results[0].sentence_scores, "aer"]
    metrics = [metric for name in names for metric in (*(f"{name}@{part}" for part in base.results[0].parts), name)]
    contrasts, signatures = [], {}
    for group in groups[1:]:
        pairs = pair_runs(base, group)
        tests = [_paired_tests(pair, config) for pair in (pairs if num_resamples else [])]
        for metric in metrics:
            parts = [[run.parts.get(metric.partition("@")[2], run) for run in pair] for pair in pairs]
            chrf_pairs = [zip(first.sentence_chrf, second.sentence_chrf, strict=True) for first, second in parts]
            correlation = mean_correlation([[b - a for a, b in sentences] for sentences in chrf_pairs])
            if not all(metric in result.quantities for pair in pairs for result in pair):
                continue
            differences = [second.quantities[metric] - first.quantities[metric] for first, second in pairs]
            per_seed = [p for test in tests if metric in test and (p := test[metric].systems["1"].p_value) is not None]
            if per_seed and "@" not in metric:
                signatures[metric] = tests[0][metric].signature
            combined = stouffer(per_seed, differences, correlation) if per_seed else None
            seeds = t_test(differences)
            contrasts.append(GroupContrast(metric, group.label, summarize(differences), per_seed, combined, seeds))
    _adjust(contrasts)
    return contrasts, signatures


def _paired_tests(pair: tuple[RunResult, RunResult], config: MetricsConfig) -> dict[str, PairedTestResult]:
    """Test two models in each metric; of several directions in the mean over them, and as "bleu@en-de" in each."""
    first, second = pair
    if not first.parts:
        systems, options = {"0": first.hypotheses, "1": second.hypotheses}, dataclasses.replace(config, names=[])
        return paired_test(systems, first.references, options, first.further, stored=_metrics(pair, config))
    parts = {name: (part, second.parts[name]) for name, part in first.parts.items()}
    tests = {f"{metric}@{n}": test for n, part in parts.items() for metric, test in _paired_tests(part, config).items()}
    sets = [
        (_metrics((a, b), config), (a.hypotheses, b.hypotheses), (a.references, *a.further)) for a, b in parts.values()
    ]
    for metric in sets[0][0]:
        row = mean_test([(metrics[metric], systems, references) for metrics, systems, references in sets], config)
        signature = "; ".join(dict.fromkeys(tests[f"{metric}@{name}"].signature for name in parts))
        tests[metric] = PairedTestResult(f"mean of {len(parts)} directions: {signature}", {"1": row})
    return tests


def _metrics(pair: tuple[RunResult, RunResult], config: MetricsConfig) -> dict[str, Any]:
    """Return the metrics of a test set: BLEU with the tokenizer that its signature names, and those that are stored."""
    signature = pair[0].signatures.get("bleu", "")
    tokenizer = next((name for name in TOKENIZERS if f"|tok:{name}" in signature), config.tokenize)
    stored = {name: _stored_metric(name, pair) for name in pair[0].sentence_scores}
    return build_metrics(dataclasses.replace(config, tokenize=tokenizer)) | stored


def _stored_metric(name: str, results: Sequence[RunResult]) -> Any:
    """Return a plugin's metric, without the plugin: from the scores that the reports have of each sentence."""
    from nmt.evaluation.sentence_metrics import SentenceMetric  # imports sacreBLEU

    scores = {result.hypotheses: result.sentence_scores[name] for result in results}
    _, *details = (part.split(":") for part in results[0].signatures[name].split("|"))  # without nrefs
    return SentenceMetric(name, dict(details), lambda hypotheses, references: scores[hypotheses])


def _adjust(contrasts: Sequence[GroupContrast]) -> None:
    """Correct the p-values for the number of groups, metric by metric, and decide which groups differ."""
    for metric in dict.fromkeys(contrast.metric for contrast in contrasts):
        for kind in ("sentences", "seeds"):
            tested = [c for c in contrasts if c.metric == metric and getattr(c, kind) is not None]
            for contrast, p_value in zip(tested, holm([getattr(c, kind) for c in tested]), strict=True):
                setattr(contrast, f"adjusted_{kind}", p_value)
    for contrast in contrasts:
        p_values = [p for p in (contrast.adjusted_sentences, contrast.adjusted_seeds) if p is not None]
        if contrast.adjusted_seeds is not None and (len(p_values) == 2 or contrast.metric == "aer"):
            contrast.differs = max(p_values) < ALPHA
