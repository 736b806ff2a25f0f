"""Group runs by the options in which they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.cli.config_groups import format_override
from nmt.cli.continuation import has_prefix, retention_only_options
from nmt.compare.run_diff import NAMES
from nmt.compare.run_results import RunResult
from nmt.compare.statistics import SampleSummary, summarize
from nmt.config import MISSING
from nmt.evaluation.report.html import printable_line

NON_EXPERIMENTAL_OPTIONS = (
    *(*NAMES, "seed", "device", "num_threads", "plugins", "metrics", "train.devices", "train.log_every"),
    *("data.cache_dir", "data.test", "data.extra_tests", "data.error_on_dropped"),
    *("search.batch_size", "search.batch_tokens", "alignment.head_importance_pairs"),
)
"""Options (or nodes) that do not change the experiment, or whose effect shows in the results themselves."""

Values = dict[str, list[Any]]  # of each varying option, in every run


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in their seed only.

    label: unique among the groups. options: values of the varying options. summaries: each quantity over the seeds.
    """

    label: str
    options: dict[str, Any]
    results: list[RunResult]
    summaries: dict[str, SampleSummary]

    @property
    def seeds(self) -> list[int]:
        return [result.seed for result in self.results]


def varying_options(results: Sequence[RunResult]) -> Values:
    """Return the options in which runs differ, each with its value in every run; `MISSING` where it has no effect."""
    unused = [retention_only_options(result.config) for result in results]
    options = {}
    for path in dict.fromkeys(path for result in results for path in result.options):
        values = [
            MISSING if path in skipped else result.options.get(path, MISSING)
            for result, skipped in zip(results, unused, strict=True)
        ]
        effective = [value for value, skipped in zip(values, unused, strict=True) if path not in skipped]
        if not has_prefix(path, NON_EXPERIMENTAL_OPTIONS) and any(value != effective[0] for value in effective):
            options[path] = values
    return options


def auto_set_options(result: RunResult) -> list[str]:
    """Return the options that parameter matching adjusted."""
    model = result.config.model
    return [] if model.match == "none" else [f"model.{model.match_width}"]


def label_options(values: Values, factors: Sequence[str], results: Sequence[RunResult]) -> list[str]:
    """Return the options that make up the labels of the groups."""
    auto_set = {option for result in results for option in auto_set_options(result)}
    options = [option for option in values if option not in auto_set]
    options = [option for option in options if not factors or option in factors] or options or list(values)
    everywhere = [option for option in options if MISSING not in values[option]]
    return everywhere if _num_distinct(values, everywhere) == _num_distinct(values, options) else options


def _num_distinct(values: Values, options: Sequence[str]) -> int:
    return len({repr(setting) for setting in zip(*(values[option] for option in options), strict=True)})


def group_runs(
    results: Sequence[RunResult], values: Values, factors: Sequence[str], warnings: list[str], target_bleu: float | None
) -> list[RunGroup]:
    """Return the groups in the order of their first runs; runs that repeat a seed are left out with a warning."""
    members: dict[str, dict[int, RunResult]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for i, result in enumerate(results):
        setting = {option: values[option][i] for option in values}
        settings[key := repr(setting)] = setting
        first = members.setdefault(key, {}).setdefault(result.seed, result)
        if first is not result:
            warnings.append(
                f"{result.label} has the options and the seed of {first.label} and is left out: it is no "
                "independent sample"
            )
    options = label_options(values, factors, results)
    labels = [printable_line(_label(settings[key], options)) for key in members]
    groups = []
    for i, (key, by_seed) in enumerate(members.items()):
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        number = f" #{labels[: i + 1].count(labels[i])}" if labels.count(labels[i]) > 1 else ""
        groups.append(RunGroup(labels[i] + number, settings[key], runs, _summaries(runs, target_bleu)))
    return groups


def _label(setting: dict[str, Any], options: Sequence[str]) -> str:
    if len(options) == 1:
        return format_override(setting[options[0]])
    values = {_short_name(option, options): format_override(setting[option]) for option in options}
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "all"


def _short_name(option: str, options: Sequence[str]) -> str:
    """Return the shortest suffix of an option's name that is unique among the options."""
    parts = option.split(".")
    suffixes = (".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1))
    return next((end for end in suffixes if sum(name.endswith(f".{end}") for name in options) == 1), option)


def _summaries(results: Sequence[RunResult], target_bleu: float | None) -> dict[str, SampleSummary]:
    """Summarize every quantity that all of the runs have."""
    summaries = {
        name: summarize([result.quantities[name] for result in results], results[0].intervals.get(name))
        for name in results[0].quantities
        if all(name in result.quantities for result in results)
    }
    if target_bleu is not None:
        minutes = [value for result in results if (value := result.minutes_to(target_bleu)) is not None]
        if len(minutes) == len(results):
            summaries["minutes_to_bleu"] = summarize(minutes)
    return summaries


def find_baseline(groups: Sequence[RunGroup], name: str | None) -> int:
    """Return the index of the group that `name` means: a label, a run, or an option=value of one group only.

    Raises:
        ValueError: no group, or more than one.
    """
    if name is None:
        return 0
    for i, group in enumerate(groups):
        runs = {str(result.run) for result in group.results} | {result.label for result in group.results}
        if name == group.label or name.rstrip("/") in runs or str(Path(name)) in runs:
            return i
    option, _, value = name.partition("=")
    matching = [
        i
        for i, group in enumerate(groups)
        if any(
            f".{path}".endswith(f".{option}") and format_override(group.options[path]) == value
            for path in group.options
        )
    ]
    if len(matching) == 1:
        return matching[0]
    raise ValueError(f"--baseline {name}: must be one of {'; '.join(group.label for group in groups)}")
