"""What a node, an option, a group or one of its choices is: the text after `--help model.attention`."""

import re
import shlex
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from nmt.cli.config_groups import SWEEP, find_file, format_override, load_sweep, nearest_choice, read_file
from nmt.cli.options import NEEDED, Option, collect_options, node_text
from nmt.cli.sweep.jobs import SweepOptions
from nmt.cli.synonyms import options_called, synonym
from nmt.config import leaves, suggest
from nmt.models import MODELS

_SWEEP_ARGUMENTS = {"jobs": ["seed=1,2", "launcher=processes"], "slurm": ["seed=1,2", "launcher=slurm"]}


def topic_text(command: str, config: Any, choices: Mapping[str, Sequence[str]], topic: str) -> str:
    """Return the text about a topic, such as "model.attention", "optim.learning_rate" or "experiment=multi30k_rnn".

    Args:
        command: "train" or another.
        config: its defaults.
        choices: of each of its groups, and of "sweep".
        topic: a node, an option, the last part of its name, what others call it, a group or a choice of a group.

    Raises:
        ValueError: there is no such topic; with the nearest.
    """
    path, _, choice = topic.partition("=")
    if choice in choices.get(path, ()):
        return "\n".join(_choice_lines(command, path, choice))
    if choice and path in choices:
        nearest = nearest_choice(choice, choices[path])
        hint = f"did you mean --help {path}={nearest}?" if nearest else f"--help {path} lists what there is"
        raise ValueError(f"--help {topic}: there is no {path}={choice}; {hint}")
    options = collect_options(config) | collect_options(SweepOptions())
    nodes = dict.fromkeys(name.rpartition(".")[0] for name in options)
    shown = [option for name, option in options.items() if path in (name, name.rpartition(".")[0])]
    if not shown and path not in choices:
        shown = [option for name, option in options.items() if name.endswith(f".{path}")]
        shown = shown or [options[name] for name in options_called(path, command) if name in options]
        if not shown and (sentence := synonym(path, choice, command)):
            return "\n".join(_wrap(sentence))
        if not shown:
            nearest = suggest(path, [*choices, *nodes, *options])
            hint = f"did you mean --help {nearest}?" if nearest else "--help alone lists the most used options"
            raise ValueError(f"--help {topic}: no option, node or group has this name; {hint}")
    text, only = node_text(config, path), {only_text(option) for option in shown}
    lines = _wrap(f"{path}{min(only) if len(only) == 1 else ''}: {text}") if text else []
    if path in choices:
        lines += ["", f"{path}= takes one of these; --help {path}=NAME shows what it sets:"]
        lines += [line for name in choices[path] for line in _wrap(f"{name}: {choice_text(path, name)}", 2)]
    for option in shown:
        lines += ["", *_wrap(option.path + ("" if text and len(only) == 1 else only_text(option)))]
        lines += _wrap(f"{option.values}; default {default_text(option)}", 4) + _wrap(option.text, 4)
    if inner := [node for node in nodes if node.rpartition(".")[0] == path]:
        lines += ["", *_wrap(f"More options: {', '.join(f'--help {node}' for node in inner)}")]
    examples = [option.example for option in shown if option.example][:1]
    examples = [f"{path}={choices[path][-1]}"] if path in choices and path != SWEEP else examples
    lines += ["", *(f"Example: {example_command(command, config, example)}" for example in examples)]
    return "\n".join(lines).strip("\n")


def choice_text(group: str, choice: str) -> str:
    """Return the comment at the beginning of the file of `group=choice`."""
    file = find_file(f"{group}/{choice}")
    comment = re.match(r"(?:#.*\n)*", file.read_text(encoding="utf-8-sig") if file else "")
    lines = [line.strip("# ") for line in comment[0].splitlines()] if comment else []
    return " ".join(line for line in lines if not line.startswith("@package"))


def example_command(command: str, config: Any, example: str) -> str:
    """Return a command line with the example of an option, and what the command needs besides."""
    name = example.rpartition(" ")[2].partition("=")[0]
    needed = [f"{key}={value}" for key, value in NEEDED.items() if getattr(config, key, None) == "" and key != name]
    needed += ["-m", *_SWEEP_ARGUMENTS.get(name, ["seed=1,2"])] if name in leaves(SweepOptions()) else []
    quoted = [
        shlex.quote(item) if re.search(r"[^\w=\[\],.:/+-]", item) else item for item in [*needed, *example.split()]
    ]
    return " ".join(["python -m", f"nmt.{command}", *quoted]) + (" < source.txt" if command == "translate" else "")


def default_text(option: Option) -> str:
    """Return the default of an option, for several architectures as in "1; 4 with model=transformer"."""
    first, *others = option.defaults
    return "; ".join([first, *(f"{other} with {_models(option.defaults[other])}" for other in others)])


def only_text(option: Option) -> str:
    """Return the architectures that have an option, unless all have it, as in " (with model=transformer)"."""
    names = [name for names in option.defaults.values() for name in names]
    return "" if {*names} in ({""}, {*MODELS}) else f" (with {_models(names)})"


def _models(architectures: Sequence[str]) -> str:
    *others, last = architectures
    return f"model={', '.join(others)} or {last}" if others else f"model={last}"


def _choice_lines(command: str, group: str, choice: str) -> list[str]:
    """Return what a choice of a group sets."""
    lines, file = _wrap(f"{group}={choice}: {choice_text(group, choice)}"), find_file(f"{group}/{choice}")
    assert file is not None, "it is one of the choices"
    if group == SWEEP:
        runs = [f"  {' '.join(run)}" for run in load_sweep(choice)]
        return [*lines, "", "Its runs:", *runs, "", f"Example: python -m nmt.{command} -m sweep={choice}"]
    content, settings = read_file(file, f"{group}/{choice}".rpartition("/")[0]), []
    for entry in content.defaults:
        chosen = entry.items() if isinstance(entry, dict) else [("" if entry.startswith("/") else group, entry)]
        paths = [f"{key.rpartition(' ')[2]}/{value}".lstrip("/") for key, value in chosen if value != "_self_"]
        settings += ["{}={}".format(*path.split("/", 1)) for path in paths]
    prefix = "" if content.package == "_global_" else f"{group}."
    settings += [f"{prefix}{option.path}={format_override(option.value)}" for option in content.options]
    return [*lines, "", f"It sets ({file}):", *(f"  {setting}" for setting in settings)]


def _wrap(text: str, indent: int = 0) -> list[str]:
    """Return the lines of a text, as wide as the terminal."""
    width = max(min(shutil.get_terminal_size((100, 24)).columns, 110), 40)
    spaces = " " * indent
    wrapper = textwrap.TextWrapper(width, spaces, spaces, break_on_hyphens=False, break_long_words=False)
    return wrapper.wrap(text)
