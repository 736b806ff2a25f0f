"""Config groups: the YAML files in `configs/`, their folders and contents."""

import contextlib
import functools
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from nmt.cli.configs import Config, map_paths
from nmt.config import from_dict, leaves, split_optional, suggest
from nmt.data import SOURCES
from nmt.models import MODELS
from nmt.plugins import files_of_functions, load_plugins

SWEEP = "sweep"
"""The group of sweeps."""
CONFIG_DIR = "NMT_CONFIG_DIR"
"""Environment variable of --config-dir, which the processes of a sweep inherit."""
_TABLES: dict[str, tuple[str, Mapping[str, object]]] = {"model": ("architecture", MODELS), "data": ("format", SOURCES)}
"""The option that a choice of a group without a file sets, and the table that plugins have put it into."""


def search_path() -> list[Path]:
    """Return the folders of config groups, the last of which wins: the project's, ./configs, and --config-dir."""
    package = Path(__file__).resolve().parents[1]
    configs = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    if not configs.is_dir():
        raise FileNotFoundError(f"{configs}: the folder of configurations is missing; install nmt again")
    extra = os.environ.get(CONFIG_DIR)
    if extra and not Path(extra).is_dir():
        raise FileNotFoundError(f"--config-dir {extra}: no such folder (in {Path.cwd()})")
    user_configs = [Path("configs"), *([Path(extra)] if extra else [])]  # relative, for messages
    return [configs, *(folder for folder in user_configs if folder.is_dir() and folder.resolve() != configs)]


def group_choices(group: str) -> list[str]:
    """Return the names that may follow `group=`."""
    folders = [folder / group for folder in search_path()]
    names = {file.relative_to(folder).as_posix()[:-5] for folder in folders for file in folder.rglob("*.yaml")}
    names.update(_TABLES[group][1] if group in _TABLES else ())
    return sorted(name for name in names if not name.startswith("."))  # of an editor's folder of copies


def nearest_choice(name: str, choices: Sequence[str]) -> str | None:
    """Return the choice closest to a name, which may be the last part of one in a sub-folder; or None."""
    dotted = {choice.replace("/", "."): choice for choice in choices}
    return dotted.get(suggest(name.replace("/", "."), dotted) or "")


class FileOption(NamedTuple):
    """An option in a file: where it is, its full name, its value, and the value as it is written (of a list its items).

    YAML 1.1 takes no, on, 007 and 1:30 for something else than text.
    """

    where: str
    path: str
    value: Any
    text: str | list[str] | None


class GroupFile(NamedTuple):
    """A file of a config group: its defaults list, the package of its options as in Hydra, and the options."""

    defaults: list[Any]
    package: str | None
    options: list[FileOption]


def find_file(name: str) -> Path | None:
    """Return the file of "group/choice", the user's before the project's, or of a whole configuration ("train")."""
    folders = search_path()[::-1] if "/" in name else search_path()
    return next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)


def read_file(file: Path, group: str) -> GroupFile:
    """Read a file of a config group, "" for that of a command; import the plugins that it names.

    Raises:
        ValueError: naming file and line, for what is no YAML, or no options.
    """
    with _parsed(file) as (text, loader, root):
        options = _options(loader, root, "", file)
        load_plugins(_plugins(options))  # before the rest of the file is checked
        load_plugins(files_of_functions(_plugins(options, "metrics.plugins")))
        defaults = next((option for option in options if option.path == "defaults"), None)
        header = re.search(r"^\s*#\s*@package\s+(\S+)", text, re.MULTILINE)
    if mapping := next((option for option in options if option.path.startswith("defaults.")), None):
        raise ValueError(f"{mapping.where}: defaults: a list is needed, such as [override /model: rnn]")
    entries: list[Any] = []
    if defaults is not None:
        entries = defaults.value if isinstance(defaults.value, list) else [defaults.value]
        entries = [entry for entry in entries if not str(entry).endswith("_schema")]  # of version 0.3
        for entry in entries:
            if reason := _mistake_in_defaults(entry, file.stem, group):
                raise ValueError(f"{defaults.where}: defaults: {entry}: {reason}")
    package = header[1] if header else "_global_" if group.partition("/")[0] == "experiment" else None
    return GroupFile(entries, package, [option for option in options if option is not defaults])


def _mistake_in_defaults(entry: Any, choice: str, group: str) -> str:
    """Return what is wrong in an entry of the defaults list of `group=choice`, or ""; Hydra checks the rest."""
    if isinstance(entry, dict) and len(entry) == 1:
        ((key, value),) = entry.items()
        name = str(key).removeprefix("override ").lstrip("/")
        if name in ("data", "model") and value not in (None, *(choices := group_choices(name))):
            return f"must be one of {', '.join(choices)}"
        return ""
    if not isinstance(entry, str):
        return "write a name, or `override /model: rnn`"
    is_name = re.fullmatch(r"\w+", entry) is not None and entry != "_self_" and "/" not in group
    if is_name and entry == choice:
        return "a file cannot build on itself"
    return f"there is no {group}={entry}" if is_name and not find_file(f"{group}/{entry}".lstrip("/")) else ""


@contextlib.contextmanager
def _parsed(file: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield the text of a YAML file, a loader for its nodes, and their root; report what is wrong in it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise ValueError(f"{file}: the file is empty; it needs options, such as seed: 2")
        yield text, loader, root
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: the file is not UTF-8 (byte {error.start + 1}); convert it first") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        line = "" if mark is None else f" line {mark.line + 1}:"
        raise ValueError(f"{file}:{line} {' '.join(problem.split())}") from None


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _options(loader: Any, node: Any, prefix: str, file: Path) -> list[FileOption]:
    """Return the options of a mapping, which may be nested or have names with dots."""
    where = f"{file}: line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{where}: a mapping of options is needed, such as seed: 2")
    names = [str(key.value) for key, _ in node.value]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{where}: {prefix}{repeated[0]} is given twice")
    loader.flatten_mapping(node)
    options = []
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode) and value.value:
            options += _options(loader, value, f"{prefix}{key.value}.", file)
        else:
            content, text = loader.construct_object(value, deep=True), value.value
            if isinstance(content, str) and value.style is None:
                with contextlib.suppress(ValueError):
                    content = float(content)  # 2e-3, which YAML 1.1 takes for text
            if isinstance(value, yaml.SequenceNode):
                text = [item.value for item in value.value]
            where = f"{file}: line {key.start_mark.line + 1}"
            options.append(FileOption(where, f"{prefix}{key.value}", content, text))
    return options


def stored_config(path: str) -> Config:
    """Return the configuration of a run for OmegaConf, without its name; raise OSError or ValueError.

    Only in paths is ${oc.env:NAME} still a reference to the environment, since the file may be a stranger's.
    """
    file = Path(path) / "config.yaml" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"config={path}: there is no {file}, and no {path}.yaml in configs/ (in {Path.cwd()})")
    with _parsed(file) as (_, loader, root):
        stored = loader.construct_document(root)
    if not isinstance(stored, dict) or "defaults" in stored:
        raise ValueError(f"{file}: not the configuration of a run; a file of yours is given by its name in configs/")
    escaped = json.loads(json.dumps(stored | {"name": None}, default=str).replace("${", "\\\\${"))
    try:
        config = from_dict(Config, escaped, models={name: spec.config for name, spec in MODELS.items()})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    map_paths(config, lambda o, text: text if o == "data.hf_dataset" else text.replace("\\${oc.env:", "${oc.env:"))
    return config


@functools.cache
def is_text_option(option: str) -> bool:
    """Return whether an option holds text that the user is free to choose, or a list of it."""
    hint = split_optional(leaves(Config()).get(option))[0]
    return hint is str or (hint in (Any, list[str]) and option.startswith("data."))


def group_options(group: str, choice: str) -> list[str]:
    """Return the options that a choice of a group sets."""
    file = find_file(f"{group}/{choice}")
    content = read_file(file, group) if file else registered_choice(group, choice)
    return [f"{group}.{option.path}" for option in content.options]


def load_sweep(choice: str) -> list[list[str]]:
    """Return the runs of a sweep, each as `option=value` arguments.

    The file holds a mapping from option to the list of its values, for a grid of all combinations; or, where several
    options change together, a list of mappings from option to value, one for each run.

    Raises:
        ValueError: there is no sweep of this name, or the file holds something else.
    """
    file = find_file(f"{SWEEP}/{choice}")
    if file is None:
        raise ValueError(f"sweep={choice}: must be one of {', '.join(group_choices(SWEEP)) or '(none)'}")
    with _parsed(file) as (_, loader, root):
        points = _sweep_points(file, loader, root)
    return [[f"{option}={format_override(value)}" for option, value in point.items()] for point in points]


def _sweep_points(file: Path, loader: Any, root: Any) -> list[dict[str, Any]]:
    def options(node: Any) -> dict[str, Any]:
        return {key.value: value(item, is_text_option(key.value)) for key, item in node.value}

    def value(node: Any, is_text: bool) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [value(item, is_text) for item in node.value]
        content = loader.construct_object(node, deep=True)
        return node.value if is_text and isinstance(content, bool | int | float) else content

    if isinstance(root, yaml.MappingNode) and root.value:
        content = options(root)
        values = [value if isinstance(value, list) else [value] for value in content.values()]
        return [dict(zip(content, combination, strict=True)) for combination in itertools.product(*values)]
    if root.value and all(isinstance(point, yaml.MappingNode) for point in root.value):
        return [options(point) for point in root.value]
    raise ValueError(f"{file}: needs a mapping {{option: [values]}}, or a list of mappings {{option: value}}")


def format_override(value: Any) -> str:
    """Return a plain value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(format_override, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_override(item)}" for key, item in value.items()) + "}"
    return str(value)


def registered_choice(group: str, choice: str) -> GroupFile:
    """Return the options of a choice without a file."""
    return GroupFile([], None, [FileOption(f"{group}={choice}", _TABLES[group][0], choice, choice)])


def load_named_plugins(arguments: Sequence[str]) -> list[str]:
    """Import the plugins that a command line names, in its experiment and in NMT_PLUGINS too; return it with them all.

    Raises: as `nmt.plugins.load_plugins`, and as `read_file`.
    """
    values = {text.partition("=")[0]: text.partition("=")[2].strip() for text in arguments}
    given = [name.strip(" '\"") for name in values.get("plugins", "").strip("[]").split(",") if name.strip()]
    load_plugins(files_of_functions(values.get("metrics.plugins", "").strip("[]").split(",")))
    names = list(given)
    for experiment in values.get("experiment", "").split(","):
        if (file := find_file(choice := f"experiment/{experiment}")) is not None:
            options = read_file(file, choice.rpartition("/")[0]).options
            names += [name for name in _plugins(options) if name not in names]
    if (loaded := [plugin.name for plugin in load_plugins(names)]) == given:
        return list(arguments)
    others = [text for text in arguments if not text.startswith("plugins=")]
    return [*others, f"plugins=[{','.join(loaded)}]"]


def _plugins(options: Sequence[FileOption], name: str = "plugins") -> list[str]:
    value: Any = next((option.value for option in options if option.path == name), [])
    return list(map(str, value if isinstance(value, list) else [value]))
