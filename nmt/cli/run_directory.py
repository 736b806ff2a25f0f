"""Names of runs, their directories, and the folders of what commands write."""

import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from nmt import checkpoint
from nmt.cli.config_groups import CONFIG_DIR
from nmt.cli.configs import AlignConfig, EvaluateConfig, ExportConfig
from nmt.cli.continuation import RESUMABLE_OPTIONS, has_prefix
from nmt.data.test_set_names import candidate_names
from nmt.runtime.files import remove_stale_temp_files

_GROUPS = ["experiment", "model", "data"]


def run_name(overrides: Sequence[str], swept: Sequence[str] = ()) -> str:
    """Return a directory name for the run that these `name=value` arguments describe; "default" for none.

    The name does not depend on the order of the arguments. Its readable part is cut to 48 characters; a digest of all
    arguments keeps different runs apart.

    Args:
        overrides: the arguments. Options of `RESUMABLE_OPTIONS` are left out, so a longer run continues a shorter one.
        swept: the arguments in which this run of a sweep differs from the others; they always count.
    """
    values: dict[str, str] = {}
    for override in [*overrides, *swept]:
        key, _, value = override.partition("=")
        if override in swept or not has_prefix(key, RESUMABLE_OPTIONS):
            values[key] = value.strip()
    if not values:
        return "default"
    swept_keys = [override.partition("=")[0] for override in swept]  # before the rest, which may be cut off
    ordered = {key: values[key] for key in [*_GROUPS, *swept_keys] if key in values} | dict(sorted(values.items()))
    words = []
    for key, value in ordered.items():
        word = re.sub(r"[^\w.]+", "-", value.rstrip("/").rpartition("/")[2]).strip("-.")
        words.append(word if key in _GROUPS else f"{key.rpartition('.')[2]}-{word}")
    digest = hashlib.sha256("\n".join(f"{key}={value}" for key, value in sorted(values.items())).encode()).hexdigest()
    return f"{'_'.join(words)[:48].strip('-_.')}-{digest[:6]}"


class Argument(str):
    """An argument that was given as other `words`, such as `checkpoint=runs/a` as `runs/a`."""

    words: Sequence[str] = ()


def command_line(name: str, overrides: Sequence[str]) -> str:
    """Return the command that was given, quoted for a shell: "python -m nmt.train seed=2"."""
    words = [word for text in overrides for word in getattr(text, "words", [text])]
    words += ["--config-dir", os.environ[CONFIG_DIR]] if os.environ.get(CONFIG_DIR) else []
    return shlex.join(["python", "-m", f"nmt.{name}", *words])


def remove_temp_files(directory: Path) -> None:
    """Remove the temporary files of killed processes from the run directory of this process.

    In its reports, where an evaluation may be writing, only those of processes that have ended are removed.
    """
    for folder in (directory, directory / "checkpoints"):
        remove_stale_temp_files(folder, mine=True)
    for report in directory.glob("report*"):
        for folder in (report, *(path for path in report.rglob("*") if path.is_dir())):
            remove_stale_temp_files(folder)


def job_name(common: Sequence[str], swept: Sequence[str]) -> list[str]:
    """Return a list with the `name=` argument of a run of a sweep, or [] when the runs have different names already.

    A name among the arguments `common` to all runs becomes a folder of them.
    """
    if not swept or any(item.startswith("name=") for item in swept):
        return []
    names = [item.partition("=")[2].strip("'\" ") for item in common if item.startswith("name=")]
    name = f"{names[-1]}/{run_name((), swept)}" if names else run_name(common, swept)
    return [f"name={_quoted(name)}"]


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w./-]+", value) else f"'{value}'"


def job_output(
    folder: Path, swept: Sequence[str], conflicting: Sequence[Sequence[str]], *, is_given: bool
) -> list[str]:
    """Return a list with the `output=` argument of a command of a sweep, or [] when the folders differ already.

    Args:
        folder: where the command would write; see `result_folder`.
        swept: the arguments of this command.
        conflicting: those of each other command that would write there too.
        is_given: `output` was given, and becomes a folder of folders.
    """
    distinctive = [item for item in swept if not item.startswith("output=")]
    if is_given and len(distinctive) < len(swept) and not conflicting:
        return []
    if not is_given:  # checkpoints and texts mostly have folders of their own
        inputs = ("checkpoint", "data.test", "source")
        distinctive = [
            item
            for item in distinctive
            if not has_prefix(item.partition("=")[0], inputs) or any(item not in other for other in conflicting)
        ]
    separator = "/" if is_given else "-"
    return [f"output={_quoted(f'{folder}{separator}{run_name((), distinctive)}')}"] if distinctive else []


def run_directory(file: Path) -> Path:
    """Return the run directory of a checkpoint file; its folder, when it is in no run directory."""
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def result_folder(config: EvaluateConfig | AlignConfig | ExportConfig, overrides: Sequence[str]) -> Path:
    """Return where a command writes: `output`, or a folder in the run directory.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    if config.output:
        return Path(config.output)
    first = config.checkpoint[0] if isinstance(config.checkpoint, list) else config.checkpoint
    run = run_directory(checkpoint.resolve(first))
    if isinstance(config, AlignConfig):
        path = Path(config.source or "test")
        return _folder_of_set(run, "align", [path.parent / path.stem], {"source": config.source})
    assert isinstance(config, EvaluateConfig), "the output of an export must be given"
    return report_folder(run, config, overrides)


def report_folder(run: Path, config: EvaluateConfig, overrides: Sequence[str]) -> Path:
    """Return where an evaluation writes: `output`, else <run>/report-<name> for another test set, else <run>/report."""
    if config.output is not None:
        return Path(config.output)
    keys = {override.partition("=")[0] for override in overrides}
    given = {name: getattr(config.data, name) for name in ("test", "hf_dataset", "hf_config") if f"data.{name}" in keys}
    test = given.get("test", given.get("hf_dataset"))
    if not test:
        return run / "report"
    return _folder_of_set(run, "report", test if isinstance(test, list) else [test], given)


def _folder_of_set(run: Path, kind: str, locations: Sequence[object], given: dict[str, object]) -> Path:
    """Return <run>/<kind>-<name> with the first of `candidate_names` where no results of other options are."""
    all_names = zip(*map(candidate_names, map(str, locations)), strict=True)
    folders = (run / f"{kind}-{'+'.join(names)}" for names in all_names)
    return next(folder for folder in folders if (given | _options_of_set(folder)).items() >= given.items())


def _options_of_set(folder: Path) -> dict[str, object]:
    """Return the options that determine the set of a report or an alignment; {} without one, or an unreadable one."""
    for name, key in (("config.yaml", "data"), ("scores.json", "alignments")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
            return dict(yaml.safe_load((folder / name).read_text(encoding="utf-8"))[key])
    return {}
