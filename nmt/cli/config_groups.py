"""Config groups: the YAML files in `configs/`, their folders and contents."""

import itertools
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

SWEEP = "sweep"
"""The group of sweeps."""


def search_path() -> list[Path]:
    """Return the folders of config groups: the project's, then `configs` in the working directory."""
    package = Path(__file__).resolve().parents[1]
    configs = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    if not configs.is_dir():
        raise FileNotFoundError(f"{configs}: the folder of configurations is missing; install nmt again")
    user_configs = Path.cwd() / "configs"
    has_more = user_configs.is_dir() and user_configs.resolve() != configs
    return [configs, user_configs] if has_more else [configs]


def group_choices(group: str) -> list[str]:
    """Return the names that may follow `group=`."""
    return sorted({file.stem for folder in search_path() for file in (folder / group).glob("*.yaml")})


def _file(group: str, choice: str) -> Path | None:
    files = [folder / group / f"{choice}.yaml" for folder in search_path()]
    return next((file for file in files if file.is_file()), None)


def group_options(group: str, choice: str) -> list[str]:
    """Return the options that a choice of a group sets."""
    file = _file(group, choice)
    values = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    return [f"{group}.{key}" for key in values or {} if key != "defaults"]


def load_sweep(choice: str) -> list[list[str]]:
    """Return the runs of a sweep, each as `option=value` arguments.

    The file holds a mapping from option to the list of its values, for a grid of all combinations; or, where several
    options change together, a list of mappings from option to value, one for each run.

    Raises:
        ValueError: there is no sweep of this name, or the file holds something else.
    """
    file = _file(SWEEP, choice)
    if file is None:
        raise ValueError(f"sweep={choice}: must be one of {', '.join(group_choices(SWEEP)) or '(none)'}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: {' '.join(str(error).split())}") from None
    if isinstance(content, dict) and content:
        values = [value if isinstance(value, list) else [value] for value in content.values()]
        points = [dict(zip(content, combination, strict=True)) for combination in itertools.product(*values)]
    elif isinstance(content, list) and content and all(isinstance(point, dict) for point in content):
        points = content
    else:
        raise ValueError(f"{file}: needs a mapping {{option: [values]}}, or a list of mappings {{option: value}}")
    return [[f"{option}={format_override(value)}" for option, value in point.items()] for point in points]


def format_override(value: Any) -> str:
    """Return a plain value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(format_override, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_override(item)}" for key, item in value.items()) + "}"
    return str(value)
