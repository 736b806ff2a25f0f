"""The configuration of every command, and the way from a command line to it.

The schema is the dataclasses, which lie beside the code they configure and hold the defaults; `configs/` holds named
sets of values. This is the only module that knows Hydra: it composes the groups and reads the `name=value` grammar,
while the checks, the messages and the sweep loop are the project's own: a mistake costs the user one line.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from nmt.cli.config_groups import SWEEP, group_choices, search_path
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig, ExportConfig, ServeConfig, TranslateConfig
from nmt.cli.continuation import RESUMABLE_OPTIONS, check_continuation, has_prefix, merge_with_checkpoint
from nmt.cli.help import SWEEP_OPTIONS, help_text, read_flags
from nmt.cli.run_directory import command_line, report_folder, run_name
from nmt.cli.sweep import SweepOverride, exit_with_parent, expand_grid
from nmt.cli.sweep import run_sweep as run_sweep
from nmt.config import (
    coerce,
    describe_type,
    diff,
    from_dict,
    get_node,
    leaves,
    renamed_option,
    suggest,
    to_dict,
    validate,
)
from nmt.models import MODELS
from nmt.runtime.errors import error_message, report_errors
from nmt.runtime.files import write_text

__all__ = [
    "RESUMABLE_OPTIONS",
    "AlignConfig",
    "Config",
    "EvaluateConfig",
    "ExportConfig",
    "ServeConfig",
    "TranslateConfig",
    "check_continuation",
    "command_line",
    "diff",
    "from_dict",
    "load_experiment",
    "merge_with_checkpoint",
    "report_folder",
    "run_command",
    "run_name",
    "save_yaml",
    "to_dict",
]

T = TypeVar("T")

GROUPS: dict[str, tuple[str, ...]] = {
    "train": ("data", "model", "experiment"),
    "evaluate": ("data",),
    "translate": (),
    "export": (),
    "align": (),
    "serve": (),
}


def to_yaml(config: object) -> str:
    """Return the full configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def save_yaml(config: object, path: Path) -> None:
    """Write the full configuration, through a temporary neighbour."""
    write_text(path, to_yaml(config))


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'file://{escaped}'"


class _ParsedOverride(NamedTuple):
    key: str
    parsed: Override
    text: str  # key=value, as typed

    @property
    def typed(self) -> str:
        return self.text.partition("=")[2].strip()


def _bare(text: str) -> str:
    return text.partition("=")[0].lstrip("+~").partition("@")[0].strip()


def _parse(text: str, known: Sequence[str]) -> _ParsedOverride:
    key, equals, value = text.partition("=")
    bare = _bare(text)
    near = suggest(bare, known)
    hint = f"; did you mean {near}?" if near else "; --help shows the options"
    if not equals:
        likely = f"; did you mean {near}=…?" if near else ", such as seed=2"
        raise ValueError(f"{text or repr(text)}: options are written name=value{likely}")
    if bare in known and key != bare:
        raise ValueError(f"{text}: write it as {bare}={value}")
    if bare not in known:
        if new := renamed_option(bare, known):
            raise ValueError(f"{text}: {bare} is called {new} since version 0.4; write {new}={value}")
        raise ValueError(f"{text}: unknown option{hint}")
    try:
        parsed = OverridesParser.create().parse_override(text)
    except HydraException:
        if (plain := _in_quotes(value)) is not None:
            return _parse(f"{key}={plain}", known)._replace(text=text)
        bare_value = value.strip("'\"").replace("\\", "\\\\").replace('"', '\\"')
        quoted = shlex.quote(f'{key}="{bare_value}"')
        raise ValueError(f"{text}: the value cannot be read; quote it twice, as in {quoted}") from None
    return _ParsedOverride(bare, parsed, text)


def _in_quotes(value: str) -> str | None:
    """Return a plain text, or a list of them, with the quotes that the grammar wants around letters such as é and #."""
    is_list = value.startswith("[") and value.endswith("]")
    inner = value[1:-1] if is_list else value
    if set(inner) & set("'\"[]{}$\\") or ("(" in inner and "," in inner):
        return None
    quoted = ",".join(f'"{part.strip()}"' for part in inner.split(","))
    return f"[{quoted}]" if is_list else quoted


def _known(name: str, tree: object) -> list[str]:
    """Return the groups, nodes and options that may stand before "=", with the options of every architecture."""
    known = dict.fromkeys((*GROUPS[name], *SWEEP_OPTIONS)) | leaves(tree)
    if hasattr(tree, "model"):
        known |= _model_options()
    for path in list(known):
        while "." in path:
            path = path.rpartition(".")[0]
            known.setdefault(path)
    return list(known)


def _model_options() -> dict[str, Any]:
    """Return the options of every architecture."""
    return {option: hint for spec in MODELS.values() for option, hint in leaves(spec.config(), "model.").items()}


def _read(name: str, config_class: type[T], arguments: Sequence[str]) -> T:
    """Return the configuration that one run's arguments describe, not validated yet."""
    known = _known(name, config_class())
    for text in arguments:
        if _bare(text) in SWEEP_OPTIONS:
            raise ValueError(f"{text}: belongs to a sweep of several runs, which needs -m")
    parsed = [_parse(text, known) for text in arguments]
    for argument in parsed:
        if argument.parsed.is_sweep_override():
            raise ValueError(
                f"{argument.text}: several values make several runs, which needs -m; one list is written [a,b], and "
                f"a comma inside a value is quoted: '{argument.key}=\"{argument.typed}\"'"
            )
    groups = [argument for argument in parsed if argument.key in GROUPS[name]]
    tree = _compose(name, config_class, groups)
    typed = OmegaConf.to_object(tree)
    assert isinstance(typed, config_class)
    for argument in parsed:
        if argument not in groups:
            _assign(tree, typed, argument.key, argument.parsed.value(), argument)
    try:
        config = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {str(error).partition(chr(10))[0]}") from error
    assert isinstance(config, config_class)
    return config


def _compose(name: str, config_class: type[T], groups: list[_ParsedOverride]) -> DictConfig:
    for key, parsed, text in groups:
        allowed = group_choices(key)
        value = parsed.value()
        if value not in allowed and not (key == "experiment" and value is None):
            near = suggest(str(value), allowed)
            likely = f"; did you mean {key}={near}?" if near else ""
            raise ValueError(f"{text}: must be one of {', '.join(allowed) or '(none)'}{likely}")
    store = ConfigStore.instance()
    schema = OmegaConf.structured(config_class)
    if "model" in schema:
        schema.model = None  # its type comes with the architecture: a typed default would refuse every other one
    store.store(name=f"{name}_schema", node=schema)
    for architecture, kind in MODELS.items():
        store.store(group="model", name=f"{architecture}_schema", node=kind.config)
    searched = search_path()
    overrides = [f"{key}={'null' if parsed.value() is None else parsed.value()}" for key, parsed, _ in groups]
    overrides += [f"hydra.searchpath=[{_quoted(folder)}]" for folder in searched[1:]]
    try:
        with initialize_config_dir(config_dir=str(searched[0]), version_base="1.3"):
            return compose(config_name=name, overrides=overrides)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        option = str(getattr(error.__cause__ or error, "full_key", ""))
        new = renamed_option(option, leaves(config_class()) | dict.fromkeys(_model_options()))
        hint = f"; {option} is called {new} since version 0.4" if new else ""
        raise ValueError(f"configs: {error_message(error)}{hint}") from error


def _assign(tree: DictConfig, typed: object, path: str, value: Any, argument: _ParsedOverride) -> None:
    """Set one option, or those of a mapping given for a node, in the composed tree."""
    hints = leaves(typed)
    below = [leaf for leaf in hints if leaf.startswith(path + ".")]
    if path in hints:
        if not (isinstance(value, str) and "${" in value):
            try:
                value = coerce(hints[path], value, argument.typed if path == argument.key else str(value))
            except TypeError:
                raise ValueError(f"{argument.text}: {describe_type(hints[path])}") from None
        OmegaConf.update(tree, path, value, merge=True)
    elif below and isinstance(value, dict):
        for key, each in value.items():
            _assign(tree, typed, f"{path}.{key}", each, argument)
    elif below:
        if f"{path}.score" in below:
            raise ValueError(
                f"{argument.text}: {path} holds several options; did you mean {path}.score={argument.typed}?"
            )
        raise ValueError(f"{argument.text}: {path} holds several options, set one of them: {', '.join(below)}")
    elif others := [name for name, kind in MODELS.items() if has_prefix(path, list(leaves(kind.config(), "model.")))]:
        raise ValueError(
            f"{argument.text}: not an option of model={getattr(get_node(typed, 'model'), 'architecture', '?')}; "
            f"an option of {', '.join(f'model={other}' for other in others)}"
        )
    elif new := renamed_option(path, hints):
        raise ValueError(f"{argument.text}: {path} is called {new} since version 0.4")
    else:
        near = suggest(path, hints)
        raise ValueError(f"{argument.text}: unknown option {path}" + (f"; did you mean {near}?" if near else ""))


def run_command(
    task: Callable[[T, list[str]], None], config_class: type[T], name: str, arguments: Sequence[str] | None = None
) -> None:
    """Entry point of `python -m nmt.<name>`: read the command line, check it, and call the task.

    Args:
        task: called with the validated configuration and the `name=value` arguments it was made from.
        config_class: the tree of the command.
        name: the command's name, which is also that of its file in `configs/`.
        arguments: the command line; None: that of the process.

    Raises:
        SystemExit: 1 after an error, in one line `error: …` (with the environment variable NMT_TRACEBACK=1 after the
            traceback) or when a run of several failed; 130 when interrupted. Any exception but ValueError and
            OSError is a defect and passes through.
    """
    exit_with_parent()
    with report_errors():
        overrides, flags = read_flags(list(sys.argv[1:] if arguments is None else arguments))
        if "help" in flags:
            print(
                help_text(
                    name, config_class(), {group: group_choices(group) for group in GROUPS[name]}, group_choices(SWEEP)
                )
            )
        elif "cfg" in flags:
            print(to_yaml(_read(name, config_class, overrides)), end="")
        elif "multirun" in flags:
            _many(task, config_class, name, overrides)
        else:
            task(_ready(config_class, name, overrides), overrides)
        sys.stdout.flush()


def _ready(config_class: type[T], name: str, overrides: list[str]) -> T:
    """Return what a task is called with."""
    config = _read(name, config_class, overrides)
    if isinstance(config, Config):
        validate(config)
        config.name = config.name or run_name(overrides)
    elif isinstance(config, EvaluateConfig | TranslateConfig | ExportConfig | AlignConfig | ServeConfig):
        config.validate()  # its parts are complete, and checked, only on top of the checkpoint's (see `overlay`)
    return config


def load_experiment(experiment: str | None = None) -> Config:
    """Return the configuration of `python -m nmt.train experiment=NAME`, or without any option."""
    return _read("train", Config, [f"experiment={experiment}"] if experiment else [])


def _many(task: Callable[[T, list[str]], None], config_class: type[T], name: str, overrides: list[str]) -> None:
    """Run every combination of the values given; see `nmt.cli.sweep`."""
    known = _known(name, config_class())
    arguments = []
    for text in overrides:
        sweeps = _bare(text) in SWEEP_OPTIONS
        key, parsed, _ = _parse(text.lstrip("+") if sweeps else text, known)
        if not parsed.is_sweep_override():
            arguments.append(SweepOverride(key, text, parsed.value(), None))
            continue
        try:
            values = [f"{key}={value}" for value in parsed.sweep_string_iterator()]
        except HydraException as error:
            raise ValueError(f"{text}: {error_message(error)}; write the values out: {key}=a,b,c") from None
        arguments.append(SweepOverride(key, text, None, values))
    common, jobs = expand_grid(arguments, lambda overrides: _ready(config_class, name, overrides))
    run_sweep(name, jobs, common, lambda job: task(job.config, job.arguments))
