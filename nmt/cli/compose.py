"""Compose the configuration of a command from its command line, and run the command.

The schema and the defaults are the dataclasses next to the code they configure; `configs/` holds config groups. Hydra
composes the groups (`hydra_groups.py`) and parses the `name=value` grammar. Checks, messages and the sweep loop are the
project's own, so that a mistake is reported in one line.
"""

import gc
import json
import os
import re
import shlex
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from nmt import __version__
from nmt.cli.config_groups import (
    CONFIG_DIR,
    SWEEP,
    FileOption,
    find_file,
    group_choices,
    is_text_option,
    load_named_plugins,
    nearest_choice,
    stored_config,
)
from nmt.cli.configs import MAPPINGS, PATH_OPTIONS, Config, map_paths, map_texts
from nmt.cli.continuation import has_prefix
from nmt.cli.continuation import merge_with_checkpoint as merge_with_checkpoint
from nmt.cli.flags import Flags, hydra_hint, read_flags
from nmt.cli.help import SWEEP_OPTIONS, help_text
from nmt.cli.hydra_groups import compose_groups, log_user_file, sweep_values
from nmt.cli.run_directory import Argument, run_name
from nmt.cli.sweep import SweepJob, SweepOptions, SweepOverride, exit_with_parent, expand_grid, run_sweep
from nmt.cli.sweep.jobs import FAILED
from nmt.cli.synonyms import note, synonym, value_synonym
from nmt.config import FromEnvironment, coerce, describe_type, get_node, leaves, suggest, to_dict, validate
from nmt.models import MODELS
from nmt.plugins import naming_faults
from nmt.renames import renamed_option
from nmt.runtime.errors import check_arguments, error_message, report_errors
from nmt.runtime.files import write_text
from nmt.runtime.process import environment
from nmt.runtime.terminal import escape_controls

T = TypeVar("T")

_TEXTS = {
    "evaluate": "; a test set is data.test=PREFIX",
    "translate": "; text is input=FILE, or comes from standard input, as in < FILE",
    "align": "; texts are source=FILE target=FILE",
    "score": "; texts are source=FILE target=FILE, or pairs from standard input",
}
"""How commands take texts, for whoever gives one as a plain word."""

GROUPS: dict[str, tuple[str, ...]] = {
    "train": ("data", "model", "experiment"),
    "evaluate": ("data",),
    "translate": (),
    "export": (),
    "align": (),
    "score": (),
    "serve": (),
    "trim": (),
    "clean": (),
}


def to_yaml(config: object) -> str:
    """Return the full configuration as YAML."""
    text: str = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    return text


def save_yaml(config: object, path: Path) -> None:
    """Write the full configuration to a file, atomically."""
    write_text(path, to_yaml(config))


class _ParsedOverride(NamedTuple):
    key: str
    parsed: Any  # an `Override` of Hydra; None where it is in a file
    text: str  # key=value, as typed

    @property
    def typed(self) -> str:
        return self.text.partition("=")[2].strip()

    @property
    def written(self) -> str | list[str]:
        """The value as it was typed; of a plain list its items."""
        is_list = isinstance(self.parsed.value(), list) and _add_quotes(self.typed) is not None
        return [item.strip() for item in self.typed[1:-1].split(",") if item.strip()] if is_list else self.typed


def _option_name(text: str) -> str:
    return text.partition("=")[0].lstrip("+~").partition("@")[0].strip()


def _parse(text: str, known: Sequence[str], command: str) -> _ParsedOverride:
    key, equals, value = text.partition("=")
    name = _option_name(text)
    if (name not in known or not equals or "@" in key) and (hint := hydra_hint(text)):
        raise ValueError(f"{text}: unknown option; {hint}")
    known = [*known, name] if name.startswith(tuple(f"{m}." for m in MAPPINGS if m in known)) else known
    if name not in known and not renamed_option(name, known) and (sentence := synonym(name, value, command)):
        raise ValueError(sentence)
    nearest = suggest(name, known) if not equals or name not in known else None
    if not equals:
        hint = f"; did you mean {nearest}=…?" if nearest else ", such as seed=2"
        if text and Path(text).exists():  # for training
            hint = f"; nmt.evaluate and nmt.translate take {text}, and config={text} trains with its options"
        elif "/" in text or ("checkpoint" in known and not nearest):
            hint = f", and there is no run or checkpoint {text} in {Path.cwd()}"
        raise ValueError(f"{text or repr(text)}: options are written name=value{hint}")
    if name not in known:
        if new := renamed_option(name, known):
            raise ValueError(f"{text}: {name} is called {new} since version 0.4; write {new}={value}")
        hint = f"did you mean {nearest}?" if nearest else "--help shows the options"
        raise ValueError(f"{text}: unknown option; {hint}")
    if key != name:
        raise ValueError(f"{text}: write it as {name}={value}")
    try:
        return _ParsedOverride(name, OverridesParser.create().parse_override(text), text)
    except HydraException:
        if (quoted := _add_quotes(value)) is not None:
            return _parse(f"{key}={quoted}", known, command)._replace(text=text)
        escaped = value.strip("'\"").replace("\\", "\\\\").replace('"', '\\"')
        proposal = shlex.quote(f'{key}="{escaped}"')
        raise ValueError(f"{text}: the value cannot be read; quote it twice, as in {proposal}") from None


def _add_quotes(value: str) -> str | None:
    """Return a plain text, or a list of them, in the quotes that the grammar needs around letters such as é and #."""
    is_list = value.startswith("[") and value.endswith("]")
    inner = value[1:-1] if is_list else value
    if set(inner) & set("'\"[]{}$\\") or ("(" in inner and "," in inner):
        return None
    quoted = ",".join(f'"{part.strip()}"' for part in inner.split(","))
    return f"[{quoted}]" if is_list else quoted


def _known_names(command: str, tree: object) -> list[str]:
    """Return the groups, nodes and options that are allowed before "=", with the options of every architecture."""
    known = dict.fromkeys((*GROUPS[command], *SWEEP_OPTIONS)) | leaves(tree)
    if hasattr(tree, "model"):
        known["config"] = None
        for spec in MODELS.values():
            known |= leaves(spec.config(), "model.")
    for path in list(known):
        while "." in path:
            path = path.rpartition(".")[0]
            known.setdefault(path)
    return list(known)


def _read(command: str, config_class: type[T], arguments: Sequence[str]) -> T:
    """Return the configuration that one run's arguments describe; that of a training is valid."""
    known = _known_names(command, config_class())
    for text in arguments:
        if _option_name(text) in SWEEP_OPTIONS:
            raise ValueError(f"{text}: belongs to a sweep of several runs, which needs -m")
    overrides = [_parse(text, known, command) for text in arguments]
    for override in overrides:
        if override.parsed.is_sweep_override():
            raise ValueError(
                f"{override.text}: several values make several runs, which needs -m; one list is written [a,b], and "
                f"a comma inside a value is quoted: '{override.key}=\"{override.typed}\"'"
            )
    groups = [override for override in overrides if override.key in GROUPS[command]]
    bases = [override for override in overrides if override.key == "config"]
    if len(bases) > 1:
        raise ValueError(f"{bases[1].text}: {bases[0].text} is given too; a run starts from one configuration")
    tree, in_files = _compose(command, config_class, groups, *bases)
    try:
        defaults = OmegaConf.to_object(tree)
        for override in overrides:
            if override not in groups + bases:
                _assign(tree, defaults, override.key, override.parsed.value(), override, override.written)
        config = OmegaConf.to_object(tree)
        _resolve_paths(config, tree)
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {str(error).partition(chr(10))[0]}") from error
    assert isinstance(config, config_class)
    if isinstance(config, Config):
        try:
            validate(config)
        except ValueError as error:
            option, value = str(error).partition(":")[0].partition("=")[::2]
            hint = f"; write {other}" if (other := value_synonym(option, value)) else ""
            is_given = has_prefix(option, [override.key for override in overrides])
            place = f" ({in_files[option].where})" if option in in_files and not is_given else ""
            raise ValueError(f"{error}{hint}{place}") from error
    return config


def _resolve_paths(config: object, tree: DictConfig) -> None:
    """Put the home folder in place of `~` in path options, and mark what came from the environment."""
    written: dict[str, list[str]] = {option: [] for option in PATH_OPTIONS}
    OmegaConf.register_new_resolver("oc.env", _as_written, replace=True)
    try:
        for option, texts in written.items():
            value = OmegaConf.select(tree, option)
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            map_texts(value, partial(_append, texts))
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)

    def change(option: str, text: str) -> str:
        as_written = written[option].pop(0)
        if match := re.fullmatch(r"(\w+:)?(~.*)", text, re.DOTALL):  # external_scores are NAME:FILE
            text = (match[1] or "") + os.path.expanduser(match[2])  # noqa: PTH111
        return FromEnvironment(text, as_written) if "${oc.env:" in as_written else text

    map_paths(config, change)


def _append(texts: list[str], text: str) -> str:
    texts.append(text)
    return text


def _as_written(*arguments: object) -> str:
    return f"${{oc.env:{','.join(map(str, arguments))}}}"


def _compose(
    command: str, config_class: type, groups: list[_ParsedOverride], base: _ParsedOverride | None = None
) -> tuple[DictConfig, dict[str, FileOption]]:
    """Return the defaults of the command, or the options of `base`, with the chosen groups; and what is in files."""
    for key, parsed, text in groups:
        choices = group_choices(key)
        value = parsed.value()
        if value not in choices and not (key == "experiment" and value is None):
            nearest = nearest_choice(str(value), choices)
            hint = f"; did you mean {key}={nearest}?" if nearest else ""
            hint = f"; {other}" if key == "model" and (other := note(str(value))) else hint
            raise ValueError(f"{text}: must be one of {', '.join(choices) or '(none)'}{hint}")
    chosen = [f"~{key}" if parsed.value() is None else f"{key}={parsed.value()}" for key, parsed, _ in groups]
    config, primary = config_class(), command
    if base is not None:
        primary = os.path.expanduser(base.typed.strip("'\""))  # noqa: PTH111
        config, primary = (config, primary) if find_file(primary) else (stored_config(primary), "_stored")
    options, files = compose_groups(primary, chosen)
    if (architecture := options.get("model.architecture")) and architecture.value in MODELS:
        config.model = MODELS[architecture.value].config()
    tree: DictConfig = OmegaConf.structured(config)
    for path, option in options.items():
        override = _ParsedOverride(path, None, f"{option.where}: {path}={option.text}")
        _assign(tree, config, path, option.value, override, option.text)
    for file in files:
        log_user_file(file)
    return tree, options


def _assign(
    tree: DictConfig, defaults: object, path: str, value: Any, override: _ParsedOverride, text: str | list[str] | None
) -> None:
    """Set an option in the composed tree, or several options by a mapping for a node.

    Args:
        tree: changed.
        defaults: the object behind it, with the chosen architecture.
        path, value: of the option.
        override: for messages.
        text: the value as it is written; see `nmt.config.coerce`.
    """
    hints = leaves(defaults)
    options = [option for option in hints if option.startswith(path + ".")]
    if path in hints:
        if not (isinstance(value, str) and "${" in value):
            try:
                value = coerce(hints[path], value, text)
            except TypeError:
                raise ValueError(f"{override.text}: {describe_type(hints[path])}") from None
        OmegaConf.update(tree, path, value, merge=False)
    elif path.startswith(tuple(f"{mapping}." for mapping in MAPPINGS)):
        OmegaConf.update(tree, path, value)
    elif options and isinstance(value, dict):
        for key, item in value.items():
            _assign(tree, defaults, f"{path}.{key}", item, override, str(item))
    elif options:
        hint = f", set one of them: {', '.join(options)}"
        if (score := f"{path}.score") in hints:
            hint = f"; did you mean {score}={override.typed}?"
        raise ValueError(f"{override.text}: {path} holds several options{hint}")
    elif models := _models_with(path):
        raise ValueError(
            f"{override.text}: not an option of model={getattr(get_node(defaults, 'model'), 'architecture', '?')}; "
            f"an option of {models}"
        )
    elif new := renamed_option(path, _known_names("train", Config())):
        raise ValueError(f"{override.text}: {path} is called {new} since version 0.4")
    elif sentence := synonym(path, text if isinstance(text, str) else "", "train"):
        is_whole = override.text.endswith(f"{path}={text}")  # which the sentence begins with
        raise ValueError(
            (override.text.removesuffix(f"{path}={text}") if is_whole else f"{override.text}: ") + sentence
        )
    else:
        nearest = suggest(path, hints)
        raise ValueError(f"{override.text}: unknown option {path}" + (f"; did you mean {nearest}?" if nearest else ""))


def _models_with(path: str) -> str:
    """Return the architectures that have an option or node, as "model=rnn, model=transformer"."""
    models = [name for name, spec in MODELS.items() if has_prefix(path, list(leaves(spec.config(), "model.")))]
    return ", ".join(f"model={name}" for name in models)


def run_command(
    task: Callable[[T, list[str]], None], config_class: type[T], name: str, arguments: Sequence[str] | None = None
) -> None:
    """Run `python -m nmt.<name>`: call the task with the validated configuration and its `name=value` arguments.

    Raises:
        SystemExit: 1 after an error, in one line `error: …` (with the environment variable NMT_TRACEBACK=1 after the
            traceback) or when a run of several failed; 130 when interrupted. Any exception but ValueError and
            OSError is a defect and passes through.
    """
    exit_with_parent()
    if arguments is None:  # a process of its own: what is imported stays, and is not gone through at its end (0.4 s)
        gc.freeze()
    with report_errors():
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        check_arguments(arguments)
        flags = read_flags(arguments, name)
        with environment(NMT_QUIET="1" if flags.quiet else "", **{CONFIG_DIR: flags.config_dir}), naming_faults():
            flags = flags._replace(overrides=load_named_plugins(flags.overrides))
            if flags.help is not None:
                choices = {group: group_choices(group) for group in GROUPS[name]}
                topic = flags.help or (flags.overrides[0] if len(flags.overrides) == 1 else "")
                print(escape_controls(help_text(name, config_class(), choices, group_choices(SWEEP), topic)))
            elif flags.version:
                print(f"nmt {__version__}")
            else:
                _run(task, config_class, name, flags)


def _run(task: Callable[[T, list[str]], None], config_class: type[T], name: str, flags: Flags) -> None:
    """Call the task, or print the configurations that it would be called with."""
    overrides = _with_checkpoint(flags.overrides, name)
    if flags.multirun:
        sweep_options, jobs = _expand(config_class, name, overrides)
        if not flags.cfg:
            run_sweep(name, jobs, sweep_options, lambda job: task(job.config, job.arguments))
        for job in jobs if flags.cfg else ():
            if job.status == FAILED:
                raise ValueError(f"run {job.number} of {job.total}: {job.failure}")
            print(f"---\n# {job.head}\n{to_yaml(job.config)}", end="")
    elif flags.cfg:
        config: Any = _read(name, config_class, overrides)
        if not isinstance(config, Config) and config.checkpoint:
            config.validate()
        print(to_yaml(config), end="")
    else:
        task(compose_config(config_class, name, overrides), overrides)


def _with_checkpoint(arguments: list[str], command: str) -> list[str]:
    """Return the arguments of a command with plain words that name runs or checkpoints as `checkpoint=`."""
    runs = [text for text in arguments if command != "train" and "=" not in text and Path(text).exists()]
    others = [text for text in arguments if text not in runs]
    for text in runs:
        if Path(text).is_file() and not (text.endswith(".pt") or zipfile.is_zipfile(text)):
            raise ValueError(f"{text}: no run or checkpoint{_TEXTS.get(command, '')}")
    if runs and (given := [text for text in others if text.startswith("checkpoint=")]):
        raise ValueError(f"{runs[0]}: {given[0]} is given too; leave one of them out, or write checkpoint=[a,b]")
    if len(runs) > 1 and command in ("align", "export", "trim", "clean"):
        raise ValueError(f"{' '.join(runs)}: python -m nmt.{command} takes one run; call it for each of them")
    argument = Argument(f"checkpoint={json.dumps(runs if runs[1:] else ''.join(runs), ensure_ascii=False)}")
    argument.words = runs
    return [argument, *others] if runs else others


def compose_config(config_class: type[T], name: str, overrides: list[str]) -> T:
    """Return the configuration a task is called with."""
    config: Any = _read(name, config_class, overrides)
    if isinstance(config, Config):
        config.name = config.name or run_name(overrides)
    else:  # its nodes are complete, and validated, only on top of the checkpoint's (see `merge_with_checkpoint`)
        config.validate()
    return config  # type: ignore[no-any-return]


def load_experiment(experiment: str | None = None) -> Config:
    """Return the configuration of `python -m nmt.train experiment=NAME`, or without any option."""
    return _read("train", Config, [f"experiment={experiment}"] if experiment else [])


def _expand(config_class: type, name: str, overrides: list[str]) -> tuple[SweepOptions, list[SweepJob]]:
    """Return the options of a sweep, and its runs: every combination of the values given; see `nmt.cli.sweep`."""
    known = _known_names(name, config_class())
    arguments = []
    for text in overrides:
        key, parsed, _ = _parse(text.lstrip("+") if _option_name(text) in SWEEP_OPTIONS else text, known, name)
        if not parsed.is_sweep_override():
            arguments.append(SweepOverride(key, text, parsed.value(), None))
            continue
        typed = text.partition("=")[2]
        try:
            is_plain = is_text_option(key) and not set(typed) & set("'\"()[]{}$\\")
            texts = typed.split(",") if is_plain else sweep_values(parsed)
            values = [f"{key}={value.strip()}" for value in texts]
        except HydraException as error:
            raise ValueError(f"{text}: {error_message(error)}; write {key}=a,b,c, or search with nmt.tune") from None
        arguments.append(SweepOverride(key, text, None, values))
    return expand_grid(arguments, lambda overrides: compose_config(config_class, name, overrides))
