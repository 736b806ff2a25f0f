"""Which runs a command line with several values means."""

import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nmt.cli.config_groups import sweep_points
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig, ExportConfig
from nmt.cli.help import one_line
from nmt.cli.run_directory import own_name, own_output, result_folder
from nmt.cli.sweep.jobs import FAILED, Job, SweepOptions
from nmt.options import convert, needed, options


class Argument(NamedTuple):
    """One argument of the command line: what stands before and after "=", as it was typed.

    value: what that means. values: when there are several, each as `option=value`; else None.
    """

    key: str
    text: str
    value: Any
    values: list[str] | None


def plan(arguments: Sequence[Argument], ready: Callable[[list[str]], Any]) -> tuple[SweepOptions, list[Job]]:
    """The options of the sweep itself, and its runs: every combination of the values given.

    Args:
        arguments: of the command.
        ready: the configuration that the arguments of one run say; ValueError or OSError when they are wrong, which
            then is the reason why this run fails.

    Raises:
        ValueError: the sweep as a whole cannot be.
    """
    given = _options([argument for argument in arguments if argument.key in options(SweepOptions())])
    own: dict[Job, list[str]] = {}
    for fixed, swept in combinations([a for a in arguments if a.key not in options(given)], given.sweep):
        job = Job(0, 0, shlex.join(swept), [*fixed, *swept])
        try:
            _prepare(job, fixed, swept, ready)
        except (ValueError, OSError) as error:
            job.fail(one_line(error))
        own[job] = swept
    found = distinct(list(own))
    _set_apart(found, own)
    return given, found


def combinations(arguments: Sequence[Argument], sweeps: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """For every run of a sweep, the arguments common to all and its own; those of named sweeps change slowest.

    Of an option that is given twice the last one counts, as it does without -m.
    """
    fixed: list[str] = []
    last = {argument.key: argument for argument in arguments}
    arguments = [argument for argument in arguments if argument is last[argument.key]]
    axes = [sweep_points(sweep) for sweep in sweeps]
    set_by = {
        text.partition("=")[0]: sweep
        for sweep, axis in zip(sweeps, axes, strict=True)
        for point in axis
        for text in point
    }
    for argument in arguments:
        if argument.key in set_by:
            sweep = set_by[argument.key]
            raise ValueError(f"{argument.text}: sweep={sweep} sets {argument.key} too; leave one of them out")
        if argument.values is None:
            fixed.append(argument.text)
        else:
            axes.append([[value] for value in argument.values])
    return [(fixed, [text for point in points for text in point]) for points in itertools.product(*axes)]


def distinct(jobs: Sequence[Job]) -> list[Job]:
    """The jobs without those that repeat an earlier one's arguments, numbered anew."""
    found = list({tuple(job.arguments): job for job in reversed(jobs)}.values())[::-1]
    for number, job in enumerate(found, start=1):
        job.number, job.total = number, len(found)
    return found


def _prepare(job: Job, fixed: Sequence[str], swept: Sequence[str], ready: Callable[[list[str]], Any]) -> None:
    """Reads the configuration of a run; one that trains gets a name of its own."""
    job.config = ready(job.arguments)
    if isinstance(job.config, Config):
        _give(job, own_name(fixed, swept))


def _set_apart(jobs: Sequence[Job], swept: Mapping[Job, list[str]]) -> None:
    """Gives each evaluation, alignment and export a folder of its own."""
    places: dict[Path, list[Job]] = {}
    for job in jobs:
        if isinstance(job.config, EvaluateConfig | AlignConfig | ExportConfig) and job.status != FAILED:
            try:
                places.setdefault(result_folder(job.config, job.arguments), []).append(job)
            except FileNotFoundError as error:
                job.fail(one_line(error))
    for place, sharing in places.items():
        for job in sharing:
            others = [swept[other] for other in sharing if other is not job]
            _give(job, own_output(place, swept[job], others, given=bool(job.config.output)))


def _give(job: Job, own: Sequence[str]) -> None:
    """An argument that takes the place of what the job has of that name."""
    for item in own:
        option, _, value = item.partition("=")
        job.arguments = [*(each for each in job.arguments if not each.startswith(f"{option}=")), item]
        setattr(job.config, option, value.strip("'"))


def _options(arguments: Sequence[Argument]) -> SweepOptions:
    given = SweepOptions()
    hints = options(given)
    for argument in arguments:
        if argument.values is not None:
            raise ValueError(f"{argument.text}: one for the whole sweep; a list is written [a,b]")
        try:
            typed = argument.text.partition("=")[2].strip()
            setattr(given, argument.key, convert(hints[argument.key], argument.value, typed))
        except TypeError:
            raise ValueError(f"{argument.text}: {needed(hints[argument.key])}") from None
    given.validate()
    return given
