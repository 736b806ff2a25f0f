"""What there is to say about each option: its values, defaults, explanation and an example.

What is allowed stands in one place, `validate`: it is given an impossible value, and its error names what is allowed.
"""

import contextlib
import copy
import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple, get_origin

import yaml  # type: ignore[import-untyped]

from nmt.cli.config_groups import format_override
from nmt.config import describe_type, get_node, leaves, option_docs, split_optional, validate
from nmt.models import MODELS

NEEDED = {"checkpoint": "runs/my_run", "format": "onnx", "output": "exported", "text": ["a.en"]}
NEEDED |= {"source": "a.en", "target": "a.de"}
"""Values of options that need one and have none by default."""


class Option(NamedTuple):
    """An option: what it takes, in words, and the values themselves where there are only so many; by default value the
    architectures that have it ("" for a command without any); an argument that sets it, or "".
    """

    path: str
    values: str
    choices: tuple[str, ...]
    text: str
    defaults: dict[str, list[str]]
    example: str


@functools.cache
def option_words() -> dict[str, dict[str, Any]]:
    """Return the tables of option_words.yaml."""
    tables: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("option_words.yaml").read_text(encoding="utf-8"))
    return tables


def configurations(config: Any) -> dict[str, Any]:
    """Return the defaults of a command with each architecture; by "" those of a command that has none to choose."""
    if not hasattr(config, "model"):
        return {"": config}
    return {name: dataclasses.replace(config, model=spec.config()) for name, spec in MODELS.items()}


def collect_options(config: Any, only: Container[str] | None = None) -> dict[str, Option]:
    """Return every option of a command, or only some, by its path, those of all architectures, in the order of the
    fields: first the command's own, then those that it shares with others."""
    options, classes = dict[str, Option](), type(config).__mro__
    order = {name: number for number, cls in reversed([*enumerate(classes)]) for name in inspect.get_annotations(cls)}
    for number, (architecture, tree) in enumerate(configurations(config).items()):
        for path in sorted(leaves(tree), key=lambda path: order[path.partition(".")[0]]):
            if only is not None and path not in only:
                continue
            node, _, name = path.rpartition(".")
            parent = get_node(tree, node)
            if (option := options.get(path)) is None or not option.example:
                values, choices = option_values(tree, path)
                option = option or Option(path, values, choices, option_docs(type(parent))[name], {}, "")
                if example := _example(tree, path, choices):
                    option = option._replace(example=f"model={architecture} {example}" if number else example)
            option.defaults.setdefault(format_override(getattr(parent, name)) or "(none)", []).append(architecture)
            options[path] = option
    return options


def node_text(config: Any, path: str) -> str:
    """Return what a node is: the entry in its parent's docstring, or its own; "" for a path that is no node."""
    parent, _, name = path.rpartition(".")
    for tree in configurations(config).values():
        with contextlib.suppress(AttributeError):  # a node of other architectures
            if dataclasses.is_dataclass(node := get_node(tree, path)):
                paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(type(node).__doc__ or ""))
                own = " ".join(text for text in paragraphs if not re.match(r"\w+(, \w+)*: ", text))
                return option_docs(type(get_node(tree, parent))).get(name) or " ".join(own.split())
    return ""


def option_values(config: Any, path: str) -> tuple[str, tuple[str, ...]]:
    """Return the values of an option in words, and those that can be listed."""
    hint = leaves(config)[path]
    inner, _ = split_optional(hint)
    impossible = math.nan if inner in (int, float) else ["?"] if get_origin(inner) is list else "?"
    message = "" if inner is bool or get_origin(inner) is dict else refusal(config, path, impossible)
    match = re.match(rf"{re.escape(path)}=.*?: must be (.*?)( and below inf)?(?:; .*)?$", message)
    allowed = match[1] if match else f"one of {', '.join(MODELS)}" if path == "model.architecture" else ""
    kind, _, more = describe_type(hint).partition(" is needed")
    if allowed.startswith("one of "):
        words = allowed.removeprefix("one of ").split(", ")  # local_m is none in self-attention
        words = [name for name in words if not refusal(config, path, name).startswith(f"{path}={name} does not work")]
        kind = "a list of" if get_origin(inner) is list else "one of"
        return f"{kind} {', '.join(words)}", tuple(name for name in words if " " not in name)
    if allowed and "number" not in allowed and inner in (int, float):
        return f"{kind}, {allowed}{more}", ()
    return allowed or kind + more, ("true", "false") if inner is bool else ()


def refusal(config: Any, path: str, value: Any) -> str:
    """Return why `validate` refuses a value of an option, the others being the defaults; "" if it does not."""
    trial = copy.deepcopy(config)
    for name, needed in NEEDED.items():
        if getattr(trial, name, None) in ("", []):
            setattr(trial, name, needed)
    node, _, name = path.rpartition(".")
    setattr(get_node(trial, node), name, value)
    try:
        validate(trial)
    except ValueError as error:
        return str(error)
    return ""


def _example(config: Any, path: str, choices: tuple[str, ...]) -> str:
    """Return an argument that gives the option another value than its default, "" where that is impossible."""
    node, _, name = path.rpartition(".")
    value = option_words()["examples"].get(name if node.startswith("model") else path)
    value = next(v for other, v in value.items() if hasattr(config, other)) if isinstance(value, dict) else value
    default = getattr(get_node(config, node), name)
    is_of_other = isinstance(default, bool) and not str(value).lower().startswith(("true", "false"))  # of that name
    if value is not None and not is_of_other:
        return f"{path.removesuffix('.architecture')}={format_override(value)}"
    candidates: list[Any] = [[choice] for choice in choices] if isinstance(default, list) else list(choices)
    if isinstance(default, bool):
        candidates = [not default]
    elif isinstance(default, int | float):
        candidates = [default * 2, default // 2 if isinstance(default, int) else default / 2, 1, 0.1]
    possible = (value for value in candidates if value != default and not refusal(config, path, value))
    return next((f"{path}={format_override(value)}" for value in possible), "")
