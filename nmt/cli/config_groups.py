"""Config groups: the YAML files in `configs/`, their folders and contents."""

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml  # type: ignore[import-untyped]

from nmt.cli.configs import Config
from nmt.config import coerce, describe_type, leaves, split_optional, suggest
from nmt.models import MODELS
from nmt.renames import renamed_option

SWEEP = "sweep"
"""The group of sweeps."""


def search_path() -> list[Path]:
    """Return the folders of config groups: the project's, then `configs` in the working directory, whose files win."""
    package = Path(__file__).resolve().parents[1]
    configs = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    if not configs.is_dir():
        raise FileNotFoundError(f"{configs}: the folder of configurations is missing; install nmt again")
    user_configs = Path("configs")  # relative, for messages
    has_more = user_configs.is_dir() and user_configs.resolve() != configs
    return [configs, user_configs] if has_more else [configs]


def group_choices(group: str) -> list[str]:
    """Return the names that may follow `group=`."""
    return sorted({file.stem for folder in search_path() for file in (folder / group).glob("*.yaml")})


def group_file(group: str, choice: str) -> Path | None:
    """Return the file of a choice, the user's before the project's; None when there is none."""
    files = [folder / group / f"{choice}.yaml" for folder in reversed(search_path())]
    return next((file for file in files if file.is_file()), None)


class GroupFile(NamedTuple):
    """What a file of a config group sets: options by their full names, its `defaults`, and where Hydra puts it."""

    options: dict[str, Any]
    defaults: list[Any] | None
    package: str


def read_group_file(file: Path, group: str) -> GroupFile:
    """Read a file of `configs/<group>/`; options may be written nested or with dots.

    Raises:
        ValueError: naming file and line: no YAML, an unknown option, or a value of another type.
    """
    text, loader, root = _parse(file)
    header = re.search(r"\A(?:\s*#.*\n)*?\s*#\s*@package\s+(\S+)", text)
    package = "_global_" if group == "experiment" or (header and header[1] == "_global_") else group
    if header and header[1] not in {"_global_", "_group_", group} - {group if package == "_global_" else ""}:
        raise ValueError(f"{file}: # @package {header[1]}: must be _global_, or left out")
    defaults, options = None, {}
    for path, node in _walk(loader, root, "" if package == "_global_" else f"{group}.", file):
        where = f"{file}: line {node.start_mark.line + 1}"
        if path == ("defaults" if package == "_global_" else f"{group}.defaults"):
            defaults = loader.construct_object(node, deep=True)
            continue
        if path not in _hints():
            raise ValueError(f"{where}: {unknown_option(path, _hints())}")
        hint, value = _hints()[path], _read_value(loader, node, _hints()[path], path)
        try:
            if isinstance(value, str) and split_optional(hint)[0] in (int, float):
                value = value if "${" in value else float(value)
            options[path] = value if isinstance(value, str) and "${" in value else coerce(hint, value)
        except (TypeError, ValueError):
            raise ValueError(f"{where}: {path}={format_override(value)}: {describe_type(hint)}") from None
    if group == "model" and defaults is None:
        if (architecture := options.get("model.architecture")) not in MODELS:
            raise ValueError(f"{file}: needs an architecture, one of {', '.join(MODELS)}")
        defaults = [f"{architecture}_schema", "_self_"]
    return GroupFile(options, defaults, package)


def unknown_option(path: str, known: dict[str, Any]) -> str:
    """Return a sentence about an option that is not known: its name today, or the nearest one."""
    if new := renamed_option(path, known):
        return f"{path} is called {new} since version 0.4"
    if options := [option for option in known if option.startswith(f"{path}.")]:
        return f"{path} holds several options, set one of them: {', '.join(options)}"
    nearest = suggest(path, known)
    return f"unknown option {path}" + (f"; did you mean {nearest}?" if nearest else "")


@functools.cache
def _hints() -> dict[str, Any]:
    """Return the type hint of every option of a run, with those of every architecture."""
    hints = leaves(Config())
    for spec in MODELS.values():
        hints |= leaves(spec.config(), "model.")
    return hints


def _parse(file: Path) -> tuple[str, Any, Any]:
    """Return the text of a YAML file, a loader for its nodes, and their root."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: the file is not UTF-8 (byte {error.start + 1}); convert it first") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        line = "" if mark is None else f" line {mark.line + 1}:"
        raise ValueError(f"{file}:{line} {' '.join(problem.split())}") from None
    if root is None:
        raise ValueError(f"{file}: the file is empty; it needs options, such as seed: 2")
    return text, loader, root


def _walk(loader: Any, node: Any, prefix: str, file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the full name of every option of a mapping, and the node of its value."""
    if not isinstance(node, yaml.MappingNode):
        where = f"{file}: line {node.start_mark.line + 1}"
        raise ValueError(f"{where}: a mapping of options is needed, such as seed: 2")
    names = [key.value for key, _ in node.value]
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or names.count(key.value) > 1:
            raise ValueError(f"{file}: line {key.start_mark.line + 1}: {prefix}{key.value} is given twice, or no name")
    loader.flatten_mapping(node)
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if path in _hints() or not isinstance(value, yaml.MappingNode):
            yield path, value
        else:
            yield from _walk(loader, value, f"{path}.", file)


def _read_value(loader: Any, node: Any, hint: Any, path: str) -> Any:
    """Return the value of a node; that of a text option, or of an item of a list of text, as it is written.

    YAML 1.1 takes no, on, 1e3, 007, 1:30 and 2024-01-02 for something else.
    """
    inner, _ = split_optional(hint)
    if isinstance(node, yaml.SequenceNode):
        item = next(iter(get_args(inner)), str if inner is Any else None)
        return [_read_value(loader, item_node, item, path) for item_node in node.value]
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return loader.construct_object(node, deep=True)
    tag, text = node.tag.rpartition(":")[2], node.value
    if tag == "null":
        return None
    if (
        tag == "timestamp"
        or ":" in text
        or inner is str
        or (inner is Any and (path.startswith("data.") or tag == "bool"))
    ):
        return text
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else loader.construct_object(node)


def group_options(group: str, choice: str) -> list[str]:
    """Return the options that a choice of a group sets."""
    file = group_file(group, choice)
    return list(read_group_file(file, group).options) if file else []


def load_sweep(choice: str) -> list[list[str]]:
    """Return the runs of a sweep, each as `option=value` arguments.

    The file holds a mapping from option to the list of its values, for a grid of all combinations; or, where several
    options change together, a list of mappings from option to value, one for each run.

    Raises:
        ValueError: there is no sweep of this name, or the file holds something else.
    """
    file = group_file(SWEEP, choice)
    if file is None:
        raise ValueError(f"sweep={choice}: must be one of {', '.join(group_choices(SWEEP)) or '(none)'}")
    _, loader, root = _parse(file)

    def options(node: Any) -> dict[str, Any]:
        return {key.value: _read_value(loader, value, _hints().get(key.value), key.value) for key, value in node.value}

    if isinstance(root, yaml.MappingNode) and root.value:
        content = options(root)
        values = [value if isinstance(value, list) else [value] for value in content.values()]
        points = [dict(zip(content, combination, strict=True)) for combination in itertools.product(*values)]
    elif root.value and all(isinstance(point, yaml.MappingNode) for point in root.value):
        points = [options(point) for point in root.value]
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
