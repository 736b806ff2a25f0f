"""Runs in groups by the options in which they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.attention import NONE
from nmt.cli.continuation import has_prefix, retention_only_options
from nmt.compare.run_diff import NAMES
from nmt.compare.run_results import RunResult
from nmt.compare.statistics import SampleSummary, summary
from nmt.config import MISSING

NON_EXPERIMENTAL_OPTIONS = (
    *(
        *NAMES,
        "seed",
        "device",
        "num_threads",
        "data.cache_dir",
        "data.test",
        "data.extra_tests",
        "data.error_on_dropped",
        "metrics",
    ),
    *("train.devices", "train.log_every"),
    *("search.batch_size", "search.batch_tokens", "alignment.head_importance_pairs"),
)
"""Options (or nodes) that make no other experiment of a run, or whose effect is looked at in the results themselves."""


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in their seed only.

    label: what tells it from the others. options: the varied ones. summaries: each quantity over the seeds.
    """

    label: str
    options: dict[str, Any]
    results: list[RunResult]
    summaries: dict[str, SampleSummary]

    @property
    def seeds(self) -> list[int]:
        return [outcome.seed for outcome in self.results]


def varying_options(outcomes: Sequence[RunResult]) -> dict[str, list[Any]]:
    """Return the options in which runs differ, each with its value in every run; `MISSING` where it has no effect."""
    options = {}
    for path in dict.fromkeys(path for outcome in outcomes for path in outcome.options):
        has_effect = [path not in retention_only_options(outcome.config) for outcome in outcomes]
        values = [
            outcome.options.get(path, MISSING) if has else MISSING
            for outcome, has in zip(outcomes, has_effect, strict=True)
        ]
        compared = [value for value, has in zip(values, has_effect, strict=True) if has]
        if not has_prefix(path, NON_EXPERIMENTAL_OPTIONS) and any(value != compared[0] for value in compared):
            options[path] = values
    return options


def auto_set_options(outcome: RunResult) -> list[str]:
    """Return options that a run has found itself, so that something else be equal."""
    model = outcome.config.model
    return [] if model.match == NONE else [f"model.{model.match_width}"]


def label_options(values: dict[str, list[Any]], varied: Sequence[str], outcomes: Sequence[RunResult]) -> list[str]:
    """Return the options by which groups are named."""
    found_by_runs = {option for outcome in outcomes for option in auto_set_options(outcome)}
    options = [option for option in values if option not in found_by_runs]
    options = [option for option in options if not varied or option in varied] or options or list(values)
    everywhere = [option for option in options if MISSING not in values[option]]
    return everywhere if _told_apart(values, everywhere) == _told_apart(values, options) else options


def _told_apart(values: dict[str, list[Any]], options: Sequence[str]) -> int:
    """Return how many groups have distinct names when these options name them."""
    return len({repr(each) for each in zip(*(values[option] for option in options), strict=True)})


def groups(
    outcomes: Sequence[RunResult],
    values: dict[str, list[Any]],
    shown: Sequence[str],
    warnings: list[str],
    target_bleu: float | None,
) -> list[RunGroup]:
    members: dict[str, dict[int, RunResult]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for i, outcome in enumerate(outcomes):
        setting = {option: values[option][i] for option in values}
        settings[key := repr(setting)] = setting
        same = members.setdefault(key, {})
        if outcome.seed in same:
            warnings.append(
                f"{outcome.label} has the options and the seed of {same[outcome.seed].label} and is left out: it is no "
                "other sample"
            )
        else:
            same[outcome.seed] = outcome
    labels = [_label(settings[key], shown) for key in members]
    made = []
    for i, (key, by_seed) in enumerate(members.items()):
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        number = f" #{labels[: i + 1].count(labels[i])}" if labels.count(labels[i]) > 1 else ""
        made.append(RunGroup(labels[i] + number, settings[key], runs, _summaries(runs, target_bleu)))
    return made


def _label(setting: dict[str, Any], shown: Sequence[str]) -> str:
    if len(shown) == 1:
        return format_value(setting[shown[0]])
    return ", ".join(f"{_leaf(option, shown)}={format_value(setting[option])}" for option in shown) or "all"


def _leaf(option: str, shown: Sequence[str]) -> str:
    """Return the shortest end of an option's name that no other one has."""
    parts = option.split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1))
    return next((end for end in ends if sum(other.endswith(f".{end}") for other in shown) == 1), option)


def _summaries(outcomes: Sequence[RunResult], target_bleu: float | None) -> dict[str, SampleSummary]:
    """Summarize every quantity that all of the runs have."""
    summaries = {}
    for name in outcomes[0].quantities:
        if all(name in outcome.quantities for outcome in outcomes):
            interval = outcomes[0].intervals.get(name)
            summaries[name] = summary([outcome.quantities[name] for outcome in outcomes], interval)
    if target_bleu is not None:
        reached = [value for outcome in outcomes if (value := outcome.minutes_to(target_bleu)) is not None]
        if len(reached) == len(outcomes):
            summaries["minutes_to_bleu"] = summary(reached)
    return summaries


def find_baseline(groups: Sequence[RunGroup], name: str | None) -> int:
    if name is None:
        return 0
    option, _, value = name.partition("=")
    for i, group in enumerate(groups):
        runs = {str(outcome.run) for outcome in group.results} | {outcome.label for outcome in group.results}
        if name == group.label or name.rstrip("/") in runs or str(Path(name)) in runs:
            return i
    matching = [
        i
        for i, group in enumerate(groups)
        if any(
            path == option or path.endswith(f".{option}")
            for path in group.options
            if format_value(group.options[path]) == value
        )
    ]
    if len(matching) == 1:
        return matching[0]
    raise ValueError(f"--baseline {name}: must be one of {'; '.join(group.label for group in groups)}")


def format_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
