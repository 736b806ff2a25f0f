"""The runs of a sweep: every combination of the values on the command line."""

import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nmt.cli.config_groups import load_sweep
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig, ExportConfig
from nmt.cli.run_directory import job_name, job_output, result_folder
from nmt.cli.sweep.jobs import FAILED, SweepJob, SweepOptions
from nmt.config import coerce, describe_type, leaves
from nmt.runtime.errors import error_message


class SweepOverride(NamedTuple):
    """One argument of the command line.

    key: the option. text: the argument as it was typed. value: the parsed value, if there is only one. values: several
    values, each as `option=value`; else None.
    """

    key: str
    text: str
    value: Any
    values: list[str] | None


def expand_grid(
    arguments: Sequence[SweepOverride], read_config: Callable[[list[str]], Any]
) -> tuple[SweepOptions, list[SweepJob]]:
    """Return the options of the sweep itself, and its runs: every combination of the values, each once.

    A run for whose arguments `read_config` raises ValueError or OSError is a failed job.

    Raises:
        ValueError: the options of the sweep are wrong.
    """
    sweep_keys = leaves(SweepOptions())
    sweep_options = _options([argument for argument in arguments if argument.key in sweep_keys])
    swept: dict[SweepJob, list[str]] = {}
    jobs: dict[tuple[str, ...], SweepJob] = {}
    run_arguments = [argument for argument in arguments if argument.key not in sweep_keys]
    common, points = _combinations(run_arguments, sweep_options.sweep)
    for point in points:
        job = SweepJob(0, 0, shlex.join(point), [*common, *point])
        try:
            job.config = read_config(job.arguments)
            if isinstance(job.config, Config):
                _set(job, job_name(common, point))
        except (ValueError, OSError) as error:
            job.end(FAILED, error_message(error))
        swept[jobs.setdefault(tuple(job.arguments), job)] = point
    for number, job in enumerate(jobs.values(), start=1):
        job.number, job.total = number, len(jobs)
    _separate_outputs(swept)
    return sweep_options, list(jobs.values())


def _combinations(arguments: Sequence[SweepOverride], sweeps: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the arguments that all runs share, and for every run those that vary; named sweeps change slowest.

    When an option is given twice, the last value is used, as without -m.
    """
    common: list[str] = []
    last = {argument.key: argument for argument in arguments}
    axes = [load_sweep(sweep) for sweep in sweeps]
    named = zip(sweeps, axes, strict=True)
    sweep_of = {text.partition("=")[0]: sweep for sweep, axis in named for point in axis for text in point}
    for argument in arguments:
        if argument is not last[argument.key]:
            continue
        if sweep := sweep_of.get(argument.key):
            raise ValueError(f"{argument.text}: sweep={sweep} sets {argument.key} too; leave one of them out")
        if argument.values is None:
            common.append(argument.text)
        else:
            axes.append([[value] for value in argument.values])
    return common, [[text for point in points for text in point] for points in itertools.product(*axes)]


def _separate_outputs(swept: Mapping[SweepJob, list[str]]) -> None:
    """Set a separate output for each job: a folder, or for a command that writes one file a file in such a folder."""
    jobs_by_folder: dict[Path, list[SweepJob]] = {}
    for job in swept:
        writes = isinstance(job.config, EvaluateConfig | AlignConfig | ExportConfig) or getattr(
            job.config, "output", None
        )
        if writes and job.status != FAILED:
            try:
                jobs_by_folder.setdefault(result_folder(job.config, job.arguments), []).append(job)
            except FileNotFoundError as error:
                job.end(FAILED, error_message(error))
    for folder, jobs in jobs_by_folder.items():
        for job in jobs:
            conflicting = [swept[rival] for rival in jobs if rival is not job]
            _set(job, job_output(folder, swept[job], conflicting, is_given=bool(job.config.output)))


def _set(job: SweepJob, items: Sequence[str]) -> None:
    """Set options of a job, in its arguments and its configuration."""
    for item in items:
        option, _, value = item.partition("=")
        job.arguments = [*(text for text in job.arguments if not text.startswith(f"{option}=")), item]
        setattr(job.config, option, value.strip("'"))


def _options(arguments: Sequence[SweepOverride]) -> SweepOptions:
    sweep_options = SweepOptions()
    hints = leaves(sweep_options)
    for argument in arguments:
        if argument.values is not None:
            raise ValueError(f"{argument.text}: one for the whole sweep; a list is written [a,b]")
        try:
            typed = argument.text.partition("=")[2].strip()
            setattr(sweep_options, argument.key, coerce(hints[argument.key], argument.value, typed))
        except TypeError:
            raise ValueError(f"{argument.text}: {describe_type(hints[argument.key])}") from None
    sweep_options.validate()
    return sweep_options
