"""Which runs a command line with several values means."""

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
    """One argument of the command line: what stands before and after "=", as it was typed.

    value: what that means. values: when there are several, each as `option=value`; else None.
    """

    key: str
    text: str
    value: Any
    values: list[str] | None


def expand_grid(
    arguments: Sequence[SweepOverride], ready: Callable[[list[str]], Any]
) -> tuple[SweepOptions, list[SweepJob]]:
    """Return the options of the sweep itself, and its runs: every combination of the values given, each once.

    Args:
        arguments: of the command.
        ready: reads the configuration from the arguments of one run; its ValueError or OSError is the reason why this
            run fails.

    Raises:
        ValueError: the options of the sweep are wrong.
    """
    known = leaves(SweepOptions())
    sweep_options = _options([argument for argument in arguments if argument.key in known])
    swept: dict[SweepJob, list[str]] = {}
    jobs: dict[tuple[str, ...], SweepJob] = {}
    for common, own in _combinations([a for a in arguments if a.key not in known], sweep_options.sweep):
        job = SweepJob(0, 0, shlex.join(own), [*common, *own])
        try:
            job.config = ready(job.arguments)
            if isinstance(job.config, Config):
                _set(job, job_name(common, own))
        except (ValueError, OSError) as error:
            job.end(FAILED, error_message(error))
        swept[jobs.setdefault(tuple(job.arguments), job)] = own
    for number, job in enumerate(jobs.values(), start=1):
        job.number, job.total = number, len(jobs)
    _set_apart(swept)
    return sweep_options, list(jobs.values())


def _combinations(arguments: Sequence[SweepOverride], sweeps: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Return for every run the arguments common to all and its own; those of named sweeps change slowest.

    Of an option that is given twice the last one counts, as it does without -m.
    """
    common: list[str] = []
    last = {argument.key: argument for argument in arguments}
    axes = [load_sweep(sweep) for sweep in sweeps]
    set_by = {
        text.partition("=")[0]: sweep
        for sweep, axis in zip(sweeps, axes, strict=True)
        for point in axis
        for text in point
    }
    for argument in arguments:
        if argument is not last[argument.key]:
            continue
        if argument.key in set_by:
            sweep = set_by[argument.key]
            raise ValueError(f"{argument.text}: sweep={sweep} sets {argument.key} too; leave one of them out")
        if argument.values is None:
            common.append(argument.text)
        else:
            axes.append([[value] for value in argument.values])
    return [(common, [text for point in points for text in point]) for points in itertools.product(*axes)]


def _set_apart(swept: Mapping[SweepJob, list[str]]) -> None:
    """Give each evaluation, alignment and export a folder of its own."""
    places: dict[Path, list[SweepJob]] = {}
    for job in swept:
        if isinstance(job.config, EvaluateConfig | AlignConfig | ExportConfig) and job.status != FAILED:
            try:
                places.setdefault(result_folder(job.config, job.arguments), []).append(job)
            except FileNotFoundError as error:
                job.end(FAILED, error_message(error))
    for place, sharing in places.items():
        for job in sharing:
            others = [swept[other] for other in sharing if other is not job]
            _set(job, job_output(place, swept[job], others, given=bool(job.config.output)))


def _set(job: SweepJob, items: Sequence[str]) -> None:
    """Set options of a job, in its arguments and its configuration."""
    for item in items:
        option, _, value = item.partition("=")
        job.arguments = [*(each for each in job.arguments if not each.startswith(f"{option}=")), item]
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
