"""Runs: their names, the commands that repeat them, where reports go, and when a run may be continued."""

import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from nmt import checkpoint
from nmt.cli.configs import AlignConfig, EvaluateConfig, ExportConfig

from nmt.cli.continuation import RESUMABLE_OPTIONS, has_prefix
from nmt.runtime.files import remove_stale_temp_files

_NAMED = ["experiment", "model", "data"]


def run_name(overrides: Sequence[str], swept: Sequence[str] = ()) -> str:
    """Return a directory name for the run that these `name=value` arguments describe; "default" for none.

    The same for any order of the arguments. The readable part is cut to 48 characters; a digest of the whole keeps
    different runs apart.

    Args:
        overrides: the arguments. Options of `RESUMABLE_OPTIONS` are left out, so a longer run continues a shorter one.
        swept: arguments that tell the runs of a sweep apart; they always count.
    """
    values: dict[str, str] = {}
    for override in [*overrides, *swept]:
        key, _, value = override.partition("=")
        if override in swept or not has_prefix(key, RESUMABLE_OPTIONS):
            values[key] = value.strip()
    if not values:
        return "default"
    first = dict.fromkeys(override.partition("=")[0] for override in swept)  # what is cut off are the others
    ordered = [(key, values[key]) for key in dict.fromkeys([*_NAMED, *first]) if key in values]
    ordered += sorted(item for item in values.items() if item not in ordered)
    words = []
    for key, value in ordered:
        value_words = re.sub(r"[^\w.]+", "-", value.rstrip("/").rpartition("/")[2]).strip("-.")
        words.append(value_words if key in _NAMED else f"{key.rpartition('.')[2]}-{value_words}")
    digest = hashlib.sha256("\n".join(f"{key}={value}" for key, value in sorted(values.items())).encode()).hexdigest()
    return f"{'_'.join(words)[:48].strip('-_.')}-{digest[:6]}"


def command_line(name: str, overrides: Sequence[str]) -> str:
    """Return the command that was given, quoted for a shell: "python -m nmt.train seed=2"."""
    return shlex.join(["python", "-m", f"nmt.{name}", *overrides])


def remove_temp_files(directory: Path) -> None:
    """Remove the temporary files that a killed process has left in the run directory of this process; in its reports,
    where an evaluation may be writing, only those of processes that have ended."""
    for folder in (directory, directory / "checkpoints"):
        remove_stale_temp_files(folder, mine=True)
    for report in directory.glob("report*"):
        for folder in (report, *(path for path in report.rglob("*") if path.is_dir())):
            remove_stale_temp_files(folder)


def job_name(fixed: Sequence[str], swept: Sequence[str]) -> list[str]:
    """Return the name that keeps a run of a sweep apart from the others; a name given for all becomes a folder of runs.

    Args:
        fixed, swept: the arguments common to all runs, and those of this one.

    Returns:
        One more argument, or none when the runs are already named apart.
    """
    if not swept or any(item.startswith("name=") for item in swept):
        return []
    given = [item.partition("=")[2].strip("'\" ") for item in fixed if item.startswith("name=")]
    name = f"{given[-1]}/{run_name((), swept)}" if given else run_name(fixed, swept)
    return [f"name={_quoted(name)}"]


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w./-]+", value) else f"'{value}'"


def job_output(place: Path, swept: Sequence[str], others: Sequence[Sequence[str]], *, given: bool) -> list[str]:
    """Return the folder that keeps what one command of a sweep writes apart; one given for all holds them all.

    Args:
        place: where it would write; see `result_folder`.
        swept: the arguments of its own.
        others: those of each command that would write there too.
        given: `output` was given.

    Returns:
        One more argument, or none when they are apart already.
    """
    own = [item for item in swept if not item.startswith("output=")]
    if given and len(own) < len(swept) and not others:
        return []
    if not given:  # checkpoints and texts mostly have folders of their own
        named = ("checkpoint", "data.test", "source")
        own = [
            item
            for item in own
            if not has_prefix(item.partition("=")[0], named) or any(item not in other for other in others)
        ]
    separator = "/" if given else "-"
    return [f"output={_quoted(f'{place}{separator}{run_name((), own)}')}"] if own else []


def run_directory(file: Path) -> Path:
    """Return the run directory that a checkpoint file lies in; its folder, when it lies in none."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def result_folder(config: EvaluateConfig | AlignConfig | ExportConfig, overrides: Sequence[str]) -> Path:
    """Return where a command writes: `output`, or a folder in the run directory.

    Args:
        config: what the command composed.
        overrides: the arguments it was given.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    if config.output:
        return Path(config.output)
    first = config.checkpoint[0] if isinstance(config.checkpoint, list) else config.checkpoint
    run = run_directory(checkpoint.resolve(first))
    if isinstance(config, AlignConfig):
        return run / f"align-{'test' if config.source is None else Path(config.source).stem}"
    assert isinstance(config, EvaluateConfig), "the output of an export must be given"
    return report_folder(run, config, overrides)


def report_folder(run: Path, config: EvaluateConfig, overrides: Sequence[str]) -> Path:
    """Return where an evaluation writes: `output`, else <run>/report-<name> for another test set, else <run>/report.

    Args:
        run: the run directory of the checkpoint.
        config: what the command composed.
        overrides: the arguments it was given.
    """
    if config.output is not None:
        return Path(config.output)
    names = {override.partition("=")[0] for override in overrides}
    named = config.data.test if "data.test" in names else config.data.hf_dataset if "data.hf_dataset" in names else None
    if named is None:
        return run / "report"
    tests = named if isinstance(named, list) else [named]
    return run / ("report-" + "+".join(Path(str(test)).name for test in tests))
