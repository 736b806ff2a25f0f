"""Configuration dataclasses as trees of options: walking, checking, storing and comparing them.

Plain dataclasses and the standard library: reading a checkpoint's configuration needs no Hydra. An *option* is a leaf
of the tree, written with dots ("model.attention.score"); a *node* is a dataclass inside the tree ("model.attention").
"""

import difflib
import types
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nmt.models import MODELS

T = TypeVar("T")


def options(config: object, prefix: str = "") -> dict[str, Any]:
    """Every option of a configuration object and its type hint, in the order of the fields."""
    hints = get_type_hints(type(config))
    found: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        path = prefix + field.name
        if is_dataclass(value):
            found |= options(value, path + ".")
        else:
            found[path] = hints[field.name]
    return found


def nodes(config: object) -> Iterator[object]:
    """The configuration object and every dataclass inside it, parents first."""
    yield config
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from nodes(value)


def node(config: object, path: str) -> Any:
    """The dataclass at a path such as "model.attention"; the whole for ""."""
    for name in path.split(".") if path else []:
        config = getattr(config, name)
    return config


def validate(config: object) -> None:
    """Call `validate` of every dataclass of the tree that has one.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    for node in nodes(config):
        check = getattr(node, "validate", None)
        if check is not None:
            check()


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` most likely means, wherever in the tree it lies; None when nothing is near.

    A name is compared with as many last components of each candidate as it has itself, so "learning_rate" finds
    "optim.learning_rate"; the initials of the last component ("lr") count too.
    """
    best, best_ratio = None, 0.6
    name = name.lower()
    depth = name.count(".") + 1
    last = name.rpartition(".")[2]
    for candidate in candidates:
        parts = candidate.lower().split(".")
        whole = max(_ratio(name, candidate.lower()), _ratio(name, ".".join(parts[-depth:])))
        ratio = (whole + _ratio(last, parts[-1])) / 2 if depth > 1 else whole
        if len(parts) < depth:
            ratio *= 0.8
        words = parts[-1].split("_")
        initials = len(words) > 1 and last == "".join(word[:1] for word in words)
        if initials or (len(last) > 2 and parts[-1].startswith(last)):
            ratio = max(ratio, 0.75)
        if ratio > best_ratio:
            best, best_ratio = candidate, ratio
    return best


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _optional(hint: Any) -> tuple[Any, bool]:
    """A hint without its `| None`, and whether it had one."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [argument for argument in get_args(hint) if argument is not type(None)]
        return inner[0], True
    return hint, hint is Any or hint is type(None)


def needed(hint: Any) -> str:
    """What a value of this type looks like, in words."""
    inner, optional = _optional(hint)
    if get_origin(inner) is list:
        words = "a list is needed, written [a,b]"
    elif get_origin(inner) is dict:
        words = "a mapping is needed, written {a: 1, b: 2}"
    else:
        table = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: "text",
            Any: "text or a list [a,b]",
        }
        words = f"{table.get(inner, 'another value')} is needed"
    return f"{words}, or null" if optional and inner is not Any else words


def convert(hint: Any, value: Any, text: str | None = None) -> Any:
    """A value of the hint's type, or TypeError when `value` cannot be read as one.

    Args:
        hint: type hint of the option.
        value: what was parsed or stored.
        text: the value as it was typed, which is what a text option means by 007 or 1e3.
    """
    inner, optional = _optional(hint)
    if value is None and optional:
        return None
    scalar = isinstance(value, bool | int | float)
    if inner in (str, Any) and scalar and text is not None:
        return text
    if inner is Any:
        if isinstance(value, dict):
            raise TypeError
        return [str(each) for each in value] if isinstance(value, list) else value
    if get_origin(inner) is list:
        (item,) = get_args(inner)
        if value is None:
            raise TypeError
        values = value if isinstance(value, list) else [value]
        return [convert(item, each, str(each) if isinstance(value, list) else text) for each in values]
    if get_origin(inner) is dict and isinstance(value, dict):
        return value
    if inner is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if inner is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(inner, type) or not isinstance(value, inner) or (inner is int and isinstance(value, bool)):
        raise TypeError
    return value


def to_primitive(config: object) -> dict[str, Any]:
    """A configuration as nested dicts of strings, numbers, booleans, None and lists, fit for a checkpoint."""
    return {field.name: _primitive(getattr(config, field.name)) for field in fields(config)}  # type: ignore[arg-type]


def _primitive(value: Any) -> Any:
    if is_dataclass(value):
        return to_primitive(value)
    if isinstance(value, list | tuple):
        return [_primitive(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _primitive(each) for key, each in value.items()}
    if isinstance(value, Path):
        return str(value)
    assert value is None or isinstance(value, str | bool | int | float), f"{value!r} cannot be stored"
    return value


def from_primitive(cls: type[T], stored: dict[str, Any], prefix: str = "") -> T:
    """The configuration that `to_primitive` stored; options it lacks take their defaults.

    Raises:
        ValueError: an option is unknown to this version or has a value of another type.
    """
    config = cls()
    hints = get_type_hints(cls)
    for key, value in stored.items():
        path = f"{prefix}{key}"
        if key not in hints:
            raise ValueError(
                f"{path}: the stored configuration has an option that this version of nmt does not know; "
                "use the version that wrote it"
            )
        default = getattr(config, key)
        if hints[key] is Any and isinstance(value, dict) and "architecture" in value:
            setattr(config, key, _model(value, path))
        elif is_dataclass(default) and isinstance(value, dict):
            setattr(config, key, from_primitive(type(default), value, path + "."))
        else:
            try:
                if is_dataclass(default):
                    raise TypeError
                setattr(config, key, convert(hints[key], value))
            except TypeError:
                words = "a mapping of options is needed" if is_dataclass(default) else needed(hints[key])
                raise ValueError(f"{path}={value!r} in the stored configuration: {words}") from None
    return config


def _model(stored: dict[str, Any], path: str) -> Any:
    architecture = stored["architecture"]
    if architecture not in MODELS:
        raise ValueError(
            f"{path}.architecture={architecture}: the stored configuration names an architecture that this version of "
            f"nmt does not have; it has {', '.join(MODELS)}"
        )
    return from_primitive(MODELS[architecture].config, stored, path + ".")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict from dotted option to value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two stored configurations: "model.attention.score: additive → dot"."""
    before, after = flatten(old), flatten(new)
    absent = object()

    def show(value: Any) -> str:
        return "(none)" if value is absent else "null" if value is None else str(value)

    return [
        f"{path}: {show(before.get(path, absent))} → {show(after.get(path, absent))}"
        for path in [*before, *(path for path in after if path not in before)]
        if before.get(path, absent) != after.get(path, absent)
    ]
