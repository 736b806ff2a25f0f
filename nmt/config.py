"""Configuration dataclasses as trees of options: walking, checking, storing and comparing them.

Only the standard library is used, so that reading a checkpoint needs no Hydra. An *option* is a leaf of the tree,
written with dots ("model.attention.score"); a *node* is a dataclass inside the tree ("model.attention").
"""

import difflib
import inspect
import itertools
import operator
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nmt.renames import RENAMED_ATTENTION_OPTIONS, RENAMED_VALUES
from nmt.renames import RENAMED_OPTIONS as RENAMED_OPTIONS
from nmt.renames import upgrade_keys as upgrade_keys

T = TypeVar("T")
_type_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)
MISSING = "(none)"
"""Shown as the value of an option that a configuration does not have."""


def leaves(config: object, prefix: str = "") -> dict[str, Any]:
    """Return every option of a configuration object and its type hint, in the order of the fields."""
    hints = _type_hints(type(config))
    hints_by_option: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        path = prefix + field.name
        hints_by_option |= leaves(value, path + ".") if is_dataclass(value) else {path: hints[field.name]}
    return hints_by_option


def nodes(config: object) -> Iterator[object]:
    """Yield the configuration object and every dataclass inside it, parents first."""
    yield config
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from nodes(value)


def get_node(config: object, path: str) -> Any:
    """Return the dataclass at a path such as "model.attention"; the whole for ""."""
    for name in path.split(".") if path else []:
        config = getattr(config, name)
    return config


def option_docs(cls: type) -> dict[str, str]:
    """Return the description of each option: lines "name, name: text" in the docstrings of a class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for names, text in re.findall(r"(?m)^(\w+(?:, \w+)*): (.*(?:\n +.*)*)", inspect.cleandoc(base.__doc__ or "")):
            texts |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return texts


def validate(config: object) -> None:
    """Call `validate` of every dataclass of the tree that has one.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    for node in nodes(config):
        check = getattr(node, "validate", None)
        if check is not None:
            check()


def check_range(
    prefix: str,
    config: object,
    names: Iterable[str],
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ValueError unless each of these options is a number within the bounds.

    Args:
        prefix: path of `config` in the whole tree, without a dot at its end; "" for the whole tree.
        config: the dataclass that holds the options.
        names: fields of `config`.
        minimum, maximum: bounds that are allowed themselves.
        above, below: bounds that are not.
    """
    possible = (
        ("at least", operator.ge, minimum),
        ("above", operator.gt, above),
        ("at most", operator.le, maximum),
        ("below", operator.lt, below),
    )
    bounds = [(words, compare, limit) for words, compare, limit in possible if limit is not None]
    for name in names:
        value = getattr(config, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not all(compare(value, limit) for _, compare, limit in bounds):
            allowed = " and ".join(f"{words} {limit}" for words, _, limit in bounds)
            raise ValueError(f"{prefix}.{name}={value}: must be {allowed}".removeprefix("."))


def check_choice(prefix: str, config: object, name: str, allowed: Iterable[str], *, is_list: bool = False) -> None:
    """Raise ValueError unless an option, or each item of a list, has one of the allowed values; see `check_range`."""
    value, choices = getattr(config, name), tuple(allowed)
    for item in value if is_list else [value]:
        if item not in choices:
            similar = suggest(str(item), choices)
            hint = f"; did you mean {similar}?" if similar else ""
            raise ValueError(f"{prefix}.{name}={item}: must be one of {', '.join(choices)}{hint}".removeprefix("."))


def suggest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate closest to `name`, or None.

    A name is compared with the last components of each candidate, however many, so "learning_rate" finds
    "optim.learning_rate". The initials of the last component ("lr") and its beginning match too.
    """
    name = name.lower()
    candidates = list(candidates)
    keys = {candidate.lower(): candidate for candidate in candidates}
    for candidate in candidates:
        parts = candidate.lower().split(".")
        for start in range(1, len(parts)):
            keys.setdefault(".".join(parts[start:]), candidate)
        if "_" in parts[-1] and name == "".join(word[:1] for word in parts[-1].split("_")):
            return candidate
    close = difflib.get_close_matches(name, keys, n=1) or [key for key in keys if name[2:] and key.startswith(name)]
    return keys[close[0]] if close else None


def split_optional(hint: Any) -> tuple[Any, bool]:
    """Return a hint without its `| None`, and whether it had one."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [argument for argument in get_args(hint) if argument is not type(None)]
        return inner[0], True
    return hint, hint is Any or hint is type(None)


def describe_type(hint: Any) -> str:
    """Return a sentence about the values of this type, for error messages."""
    inner, optional = split_optional(hint)
    sentences = {
        bool: "true or false is needed",
        int: "a whole number is needed",
        float: "a number is needed",
        str: "text is needed",
        Any: "text or a list [a,b] is needed",
        list: "a list is needed, written [a,b]",
        dict: "a mapping is needed, written {a: 1, b: 2}",
    }
    sentence = sentences.get(get_origin(inner) or inner, "another value is needed")
    return f"{sentence}, or null" if optional and inner is not Any else sentence


def coerce(hint: Any, value: Any, text: str | list[str] | None = None) -> Any:
    """Return `value` converted to the type of an option; raise TypeError when it cannot be converted.

    Args:
        hint: type hint of the option.
        value: parsed or stored value.
        text: the value as it was written, which a text option takes for 007 or 1e3; of a list its items.
    """
    inner, optional = split_optional(hint)
    if value is None and optional:
        return None
    scalar = isinstance(value, bool | int | float)
    if inner in (str, Any) and scalar and isinstance(text, str):
        return text
    texts = text if isinstance(text, list) else [str(item) for item in value] if isinstance(value, list) else []
    if inner is Any:
        return texts if isinstance(value, list) else value
    if get_origin(inner) is list:
        (item_hint,) = get_args(inner)
        if value is None:
            raise TypeError
        if not isinstance(value, list):
            return [coerce(item_hint, value, text)]
        return [coerce(item_hint, item, text) for item, text in zip(value, texts, strict=True)]
    if get_origin(inner) is dict and isinstance(value, dict):
        return value
    if get_origin(inner) is tuple and isinstance(value, list | tuple) and len(value) == len(get_args(inner)):
        return tuple(coerce(item_hint, item) for item_hint, item in zip(get_args(inner), value, strict=True))
    if inner is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if inner is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(inner, type) or not isinstance(value, inner) or (inner is int and isinstance(value, bool)):
        raise TypeError
    return value


class FromEnvironment(str):
    """A text that came from the environment; `written` is what was written in its place, and what is stored."""

    written: str

    def __new__(cls, text: str, written: str) -> "FromEnvironment":
        value = super().__new__(cls, text)
        value.written = written
        return value

    def __reduce__(self) -> tuple[type["FromEnvironment"], tuple[str, str]]:
        return FromEnvironment, (str(self), self.written)


def from_environment(written: str) -> str:
    """Return a stored text with the values of the environment variables in it that are set."""

    def value(match: re.Match[str]) -> str:
        return os.environ.get(match[1], match[0] if match[2] is None else match[2])

    text = re.sub(r"\$\{oc\.env:(\w+)(?:,([^{}]*))?\}", value, written)
    return written if text == written else FromEnvironment(text, written)


def conceal(text: str, config: Any) -> str:
    """Return a text that begins with a value that came from the environment with what was written in its place."""
    for value in flatten(asdict(config)).values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, FromEnvironment) and text.startswith(item):
                return item.written + text.removeprefix(item)
    return text


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dicts of plain values, fit for a checkpoint; see `FromEnvironment`."""
    stored: dict[str, Any] = _written(asdict(config))
    return stored


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    return value.written if isinstance(value, FromEnvironment) else value


def from_dict(
    cls: type[T], stored: Mapping[str, Any], prefix: str = "", *, models: Mapping[str, type] | None = None
) -> T:
    """Return the configuration that `to_dict` stored, in this version or in 0.3 (`nmt.renames`).

    Options that are missing in it take their defaults.

    Args:
        cls: dataclass of the configuration.
        stored: nested dict.
        prefix: path of `cls` in the whole tree, with a dot at its end.
        models: configuration class of each architecture, for a tree that contains a model.

    Raises:
        ValueError: an option is unknown to this version or has a value of another type.
    """
    return _from_dict(cls, upgrade(stored, prefix), prefix, models or {})


def upgrade(stored: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a stored configuration under today's option names and values; see `from_dict`."""
    upgraded: dict[str, Any] = {}
    for path, value in flatten(stored, prefix).items():
        node, _, leaf = path.rpartition(".")
        name = RENAMED_OPTIONS.get(path) or f"{RENAMED_OPTIONS.get(node, node)}.{leaf}".lstrip(".")
        if name.endswith(".per_layer") and isinstance(value, list):
            value = [{RENAMED_ATTENTION_OPTIONS.get(key, key): layer[key] for key in layer} for layer in value]
        if isinstance(value, str):
            value = RENAMED_VALUES.get((name, value), value)
        *parents, leaf = name.removeprefix(prefix).split(".")
        branch = upgraded
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return upgraded


def _from_dict(cls: type[T], stored: Mapping[str, Any], prefix: str, models: Mapping[str, type]) -> T:
    config = cls()
    hints = _type_hints(cls)
    for key, value in stored.items():
        path = f"{prefix}{key}"
        if key not in hints:
            raise ValueError(
                f"{path}: the stored configuration has an option that this version of nmt does not have; "
                "use the version that wrote it"
            )
        kind: Any = type(getattr(config, key))
        if hints[key] is Any and isinstance(value, dict) and "architecture" in value:
            kind = _model(value["architecture"], path, models)
        is_node = is_dataclass(kind)
        try:
            if is_node and not isinstance(value, dict):
                raise TypeError
            setattr(config, key, _from_dict(kind, value, f"{path}.", models) if is_node else coerce(hints[key], value))
        except TypeError:
            needed = "a mapping of options is needed" if is_node else describe_type(hints[key])
            raise ValueError(f"{path}={value!r} in the stored configuration: {needed}") from None
    return config


def _model(architecture: str, path: str, models: Mapping[str, type]) -> type:
    if architecture not in models:
        raise ValueError(
            f"{path}.architecture={architecture}: the stored configuration names an architecture that this version of "
            f"nmt does not have; it has {', '.join(models)}, and what plugins= adds"
        )
    return models[architecture]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one dict from dotted option to value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def diff(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the changes between two stored configurations, as in "model.attention.score: additive → dot"."""
    return [f"{path}: {' → '.join(values)}" for path, values in differing(old, new).items()]


def differing(*stored: dict[str, Any]) -> dict[str, list[str]]:
    """Return the options whose values are not the same in all stored configurations, with each value as text."""
    trees = [flatten(tree) for tree in stored]
    values = {path: [tree.get(path, MISSING) for tree in trees] for path in dict.fromkeys(itertools.chain(*trees))}
    return {
        path: ["null" if value is None else str(value) for value in row]
        for path, row in values.items()
        if any(value != row[0] for value in row)
    }
