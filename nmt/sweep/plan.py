"""Which runs a command line with several values means."""

import itertools
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nmt.options import convert, needed, options
from nmt.presets import sweep_points
from nmt.runs import own_name, own_output
from nmt.schema import Config, EvaluateConfig
from nmt.sweep.jobs import Job, SweepOptions
from nmt.usage import one_line


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
    jobs = []
    for fixed, swept in combinations([a for a in arguments if a.key not in options(given)], given.sweep):
        job = Job(0, 0, shlex.join(swept), [*fixed, *swept])
        try:
            _prepare(job, fixed, swept, ready)
        except (ValueError, OSError) as error:
            job.fail(one_line(error))
        jobs.append(job)
    return given, distinct(jobs)


def combinations(arguments: Sequence[Argument], sweeps: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """For every run of a sweep, the arguments common to all and its own; those of named sweeps change slowest."""
    fixed: list[str] = []
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
    """Reads the configuration of a run, which gets a place of its own to write to."""
    job.config = ready(job.arguments)
    if isinstance(job.config, Config):
        option, own = "name", own_name(fixed, swept)
    elif isinstance(job.config, EvaluateConfig):
        option, own = "output", own_output(job.config, fixed, swept)
    else:
        return
    if own:
        job.arguments = [*(item for item in fixed if not item.startswith(f"{option}=")), *swept, *own]
        setattr(job.config, option, own[0].partition("=")[2].strip("'"))


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
