"""What other programs call the options, and the sentence that names the right one; the table is option_words.yaml."""

import contextlib
import functools
import json
import shlex
from typing import Any

from nmt.cli.configs import COMMANDS
from nmt.cli.options import configurations, option_values, option_words, refusal
from nmt.cli.sweep.jobs import SweepOptions
from nmt.config import coerce, leaves
from nmt.models import MODELS

_NODES = ("train", "optim", "model", "data", "search", "metrics", "trainer", "training", "optimizer")


def synonym(name: str, value: str, command: str) -> str | None:
    """Return a sentence that names the right option for an unknown one, or None.

    Args:
        name: as typed, such as "lr", "--num-layers" or "train.batch_size".
        value: as typed; "" for none.
        command: "train" or another.
    """
    full = name.strip("-+~").replace("-", "_").lower()
    given = f"{name} {value}" if name.startswith("-") else f"{name}={value}" if value else name
    node, _, last = full.rpartition(".")
    for key in (full, last) if node in _NODES else (full,):
        of_training = _by_name("train").get(key)
        sentence = _by_name(command).get(key) or _renamed(key, value, command) or _by_name("all").get(key)
        if sentence or of_training:
            return f"{given.strip()}: {sentence or f'belongs to python -m nmt.train: {of_training}'}"
    return None


def value_synonym(option: str, value: str) -> str | None:
    """Return the argument for what others call a value, as "model.attention.score=general" for luong; or None."""
    table = dict(item.split("=") for item in option_words()["values"].get(option, "").split())
    return f"{option}={table[value.lower()]}" if value.lower() in table else None


def note(name: str) -> str | None:
    """Return what there is in training where others have this name, or None."""
    return _by_name("train").get(name.lower())


def flag_synonym(flag: str, value: str, command: str) -> str | None:
    """Return a sentence that names the right option for an unknown flag such as --beam or --seed, or None."""
    name = flag.strip("-").replace("-", "_")
    of_sweep = name in leaves(SweepOptions())
    if of_sweep or any(name in leaves(tree) for tree in _trees(command).values()):
        argument = f"{'-m ' * of_sweep}{name}={shlex.quote(value) if value else '…'}"
        return f"{flag} {value}".strip() + f": write {argument}"
    return synonym(flag, value, command)


def options_called(name: str, command: str) -> list[str]:
    """Return the options of a command that others call by this name."""
    trees = _trees(command).values()
    known = {option for tree in trees for option in leaves(tree)} | ({"model"} if len(trees) > 1 else set())
    return [option for option in _by_name("").get(name, "").split() if option in known]


@functools.cache
def _by_name(scope: str) -> dict[str, str]:
    """Return the notes of a command by single names; for "", the options."""
    if scope:
        rows = option_words()["notes"].get(scope, {}).items()
        return {name: note for names, note in rows for name in names.split()}
    return {name: options for options, names in option_words()["synonyms"].items() for name in names.split()}


def _trees(command: str) -> dict[str, Any]:
    return configurations(COMMANDS.get(command, COMMANDS["train"])())


def _renamed(key: str, value: str, command: str) -> str:
    """Return what the options of this name are called in the command, or in another."""
    if options := options_called(key, command):
        return "write " + " ".join(_argument(_trees(command), option, value) for option in options)
    other = next((other for other in COMMANDS if options_called(key, other)), None)
    return f"{options_called(key, other)[0]} is an option of python -m nmt.{other}, not of {command}" if other else ""


def _argument(trees: dict[str, Any], option: str, value: str) -> str:
    """Return an argument that sets the option, to the value given if it fits."""
    table = dict(item.split("=") for item in option_words()["values"].get(option, "").split())
    value = table.get(value.lower(), value)
    if option == "model":
        return f"model={value}" if value in MODELS else f"model=NAME, one of {', '.join(MODELS)}"
    architecture, tree = next((name, tree) for name, tree in trees.items() if option in leaves(tree))
    prefix = "" if architecture == next(iter(trees)) else f"model={architecture} "
    if value and all(_fits(tree, option, part) for part in value.strip("[]").split(",")):
        return f"{prefix}{option}={shlex.quote(value)}"
    return f"{prefix}{option}=…, {option_values(tree, option)[0]}"


def _fits(config: Any, option: str, value: str) -> bool:
    parsed: Any = value
    with contextlib.suppress(ValueError):
        parsed = json.loads(value)
    try:
        return f"{option}={value}: must be" not in refusal(
            config, option, coerce(leaves(config)[option], parsed, value)
        )
    except TypeError:
        return False
