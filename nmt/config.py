"""Configuration dataclasses as trees of options: walking, checking, storing and comparing them.

Plain dataclasses and the standard library: reading a checkpoint's configuration needs no Hydra. An *option* is a leaf
of the tree, written with dots ("model.attention.score"); a *node* is a dataclass inside the tree ("model.attention").
"""

import difflib
import inspect
import itertools
import re
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
MISSING = "(none)"
"""Stands for the value of an option that a configuration does not have."""

_RENAMED_ATTENTION = {
    "project": "project_qk",
    "positions": "max_positions",
    "normaliser": "normalizer",
    "top": "top_k",
    "width": "window_size",
    "layers": "per_layer",
}
_RENAMED_NODES = {
    "attention": "attention",
    "encoder_self": "encoder_self_attention",
    "decoder_self": "decoder_self_attention",
}
RENAMED_OPTIONS = {
    "threads": "num_threads",
    **{
        f"data.builtin_{old}": f"data.synthetic.{new}"
        for old, new in {"pairs": "train", "valid": "valid", "test": "test", "long": "long", "seed": "seed"}.items()
    },
    "data.kind": "data.format",
    "data.more_tests": "data.extra_tests",
    "data.path": "data.hf_dataset",
    "data.config": "data.hf_config",
    "data.max_ratio": "data.max_length_ratio",
    "data.alignment": "data.train_alignments",
    "data.strict": "data.error_on_dropped",
    "data.cache": "data.cache_dir",
    "data.tokenizer.kind": "data.tokenizer.type",
    "data.tokenizer.sampling": "data.tokenizer.subword_regularization",
    "data.tokenizer.max_pairs": "data.tokenizer.max_training_pairs",
    "data.tokenizer.max_characters": "data.tokenizer.max_training_characters",
    "search.beam": "search.beam_size",
    "search.num_best": "search.n_best",
    "search.no_repeat": "search.no_repeat_ngram_size",
    "search.groups": "search.diverse_groups",
    "search.diversity": "search.diversity_penalty",
    "search.stop": "search.early_stopping",
    "search.min_ratio": "search.min_length_ratio",
    "search.min_extra": "search.min_length_offset",
    "search.max_ratio": "search.max_length_ratio",
    "search.max_extra": "search.max_length_offset",
    "search.length_norm": "search.length_normalization",
    "search.samples": "search.mbr_samples",
    "search.utility": "search.mbr_utility",
    "metrics.resamples": "metrics.num_resamples",
    "metrics.paired": "metrics.significance_test",
    "alignment.links": "alignment.decision",
    "alignment.null": "alignment.allow_null",
    "alignment.choose_on": "alignment.selection_pairs",
    "alignment.importance_on": "alignment.head_importance_pairs",
    "optim.warmup": "optim.warmup_updates",
    "optim.final_ratio": "optim.min_lr_ratio",
    "optim.decay": "optim.plateau_factor",
    "train.coverage_loss": "train.coverage_loss_weight",
    "train.guided_alignment": "train.guided_alignment_weight",
    "train.r_drop": "train.r_drop_alpha",
    "train.keep_last": "train.keep_last_checkpoints",
    "train.keep_best": "train.keep_best_checkpoints",
    "train.average": "train.average_checkpoints",
    "train.guard": "train.on_divergence",
    "train.guard_factor": "train.max_grad_norm_ratio",
    "train.accumulate": "train.gradient_accumulation",
    "train.ema": "train.ema_decay",
    "train.stop_metric": "train.early_stopping_metric",
    "train.valid_sentences": "train.valid_bleu_sentences",
    "model.width": "model.d_model",
    "model.feed_forward": "model.ffn_dim",
    "model.layer_drop": "model.layerdrop",
    "model.tie": "model.tie_embeddings",
    "model.embedding": "model.embedding_dim",
    "model.hidden": "model.hidden_size",
    "model.wiring": "model.decoder",
    **{f"model.{old}": f"model.{new}" for old, new in _RENAMED_NODES.items() if old != new},
    **{
        f"model.{node}.{old}": f"model.{new_node}.{new}"
        for node, new_node in _RENAMED_NODES.items()
        for old, new in _RENAMED_ATTENTION.items()
    },
}
"""Options of version 0.3 and their names since: stored configurations are read with it, command lines are corrected."""

RENAMED_COMMAND_OPTIONS = {
    "outside": "external_scores",
    "weights": "save_weights",
    "longest": "max_length",
    "names": "allowed_hosts",
    "max_lines": "max_sentences",
    "max_characters": "max_sentence_chars",
    "max_waiting": "queue_size",
    "max_seconds": "timeout",
}
"""The same for options that are not stored."""

RENAMED_VALUES = {
    ("search.early_stopping", "bound"): "never",
    ("metrics.significance_test", "bs"): "bootstrap",
    ("metrics.significance_test", "ar"): "randomization",
    **{
        ("model.match_width", old): new
        for old, new in {
            "embedding": "embedding_dim",
            "hidden": "hidden_size",
            "width": "d_model",
            "feed_forward": "ffn_dim",
            "encoder_self.dim": "encoder_self_attention.dim",
            "decoder_self.dim": "decoder_self_attention.dim",
        }.items()
    },
}


def renamed_option(path: str, known: Collection[str]) -> str | None:
    """Return today's name of an option of version 0.3, if it is one of `known`."""
    node, _, leaf = path.rpartition(".")
    new = RENAMED_OPTIONS.get(path) or RENAMED_COMMAND_OPTIONS.get(path)
    if new is None and node in RENAMED_OPTIONS:
        new = f"{RENAMED_OPTIONS[node]}.{leaf}"
    return new if new in known else None


RENAMED_KEYS = {
    "quantities": "learned_scalars",
    "batches_split": "oom_splits",
    "mean_of": "averaged_updates",
    **{f"mean_{name}": f"averaged_{name}" for name in ("loss", "perplexity", "bleu", "chrf", "chrf++", "ter", "aer")},
    "reading": "alignment_source",
    "read_from": "alignment_source_text",
    "chosen_by": "selected_by",
    "outside": "external",
    "under": "under_attended",
    "over": "over_attended",
    "forward": "monotonic",
    "jump": "jump_length",
    "end": "eos_weight",
}
"""Keys in the files of a run of version 0.3 (metrics.jsonl, scores.json), and their names since."""


def upgrade_keys(record: Any) -> Any:
    """Return what a JSON file of a run holds, under today's keys."""
    if isinstance(record, dict):
        return {RENAMED_KEYS.get(key, key): upgrade_keys(value) for key, value in record.items()}
    return [upgrade_keys(each) for each in record] if isinstance(record, list) else record


def upgrade(stored: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a stored configuration under today's option names and values.

    Args:
        stored: nested dict, as `to_dict` made it in this version or in 0.3.
        prefix: path of `stored` in the whole tree, with a dot at its end.
    """
    upgraded: dict[str, Any] = {}
    for path, value in flatten(stored, prefix).items():
        node, _, leaf = path.rpartition(".")
        name = RENAMED_OPTIONS.get(path) or f"{RENAMED_OPTIONS.get(node, node)}.{leaf}".lstrip(".")
        if name.endswith(".per_layer") and isinstance(value, list):
            value = [{_RENAMED_ATTENTION.get(key, key): each for key, each in layer.items()} for layer in value]
        if isinstance(value, str):
            value = RENAMED_VALUES.get((name, value), value)
        *parents, leaf = name.removeprefix(prefix).split(".")
        branch = upgraded
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return upgraded


def leaves(config: object, prefix: str = "") -> dict[str, Any]:
    """Return every option of a configuration object and its type hint, in the order of the fields."""
    hints = get_type_hints(type(config))
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
    """Return what the docstrings of a configuration class and its bases say of each option, as "name, name: text"."""
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
    prefix: str, config: object, names: Iterable[str], *, minimum: float, below: float | None = None
) -> None:
    """Raise ValueError unless each of these options is a number of at least `minimum`, and below `below` if that is set.

    Args:
        prefix: path of `config` in the whole tree, without a dot at its end; "" for the whole tree.
        config: the dataclass that holds the options.
        names: fields of `config`.
    """
    for name in names:
        value = getattr(config, name)
        is_number = isinstance(value, int | float)
        if not is_number or not value >= minimum or (below is not None and not value < below):
            bounds = f"at least {minimum}" if below is None else f"at least {minimum} and below {below}"
            raise ValueError(f"{prefix}.{name}={value}: must be {bounds}".removeprefix("."))


def check_choice(prefix: str, config: object, name: str, allowed: Iterable[str]) -> None:
    """Raise ValueError unless an option has one of the values that are allowed; see `check_range`."""
    value, choices = getattr(config, name), tuple(allowed)
    if value not in choices:
        raise ValueError(f"{prefix}.{name}={value}: must be one of {', '.join(choices)}".removeprefix("."))


def suggest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `name` most likely means, wherever in the tree it lies; None when nothing is near.

    A name is compared with the last components of each candidate, however many, so "learning_rate" finds
    "optim.learning_rate"; the initials of the last component ("lr") and its beginning count too.
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


def _optional(hint: Any) -> tuple[Any, bool]:
    """Return a hint without its `| None`, and whether it had one."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [argument for argument in get_args(hint) if argument is not type(None)]
        return inner[0], True
    return hint, hint is Any or hint is type(None)


def describe_type(hint: Any) -> str:
    """Return in words what a value of this type looks like."""
    inner, optional = _optional(hint)
    table = {
        bool: "true or false is needed",
        int: "a whole number is needed",
        float: "a number is needed",
        str: "text is needed",
        Any: "text or a list [a,b] is needed",
        list: "a list is needed, written [a,b]",
        dict: "a mapping is needed, written {a: 1, b: 2}",
    }
    words = table.get(get_origin(inner) or inner, "another value is needed")
    return f"{words}, or null" if optional and inner is not Any else words


def coerce(hint: Any, value: Any, text: str | None = None) -> Any:
    """Return `value` as one of the hint's type; raise TypeError when it cannot be read as one.

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
        return [coerce(item, each, str(each) if isinstance(value, list) else text) for each in values]
    if get_origin(inner) is dict and isinstance(value, dict):
        return value
    if inner is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if inner is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(inner, type) or not isinstance(value, inner) or (inner is int and isinstance(value, bool)):
        raise TypeError
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dicts of strings, numbers, booleans, None and lists, fit for a checkpoint."""
    return asdict(config)


def from_dict(
    cls: type[T], stored: Mapping[str, Any], prefix: str = "", *, models: Mapping[str, type] | None = None
) -> T:
    """Return the configuration that `to_dict` stored; options it lacks take their defaults, and option names of version
    0.3 are read as today's (`RENAMED_OPTIONS`).

    Args:
        cls: dataclass of the configuration.
        stored: nested dict.
        prefix: path of `cls` in the whole tree, with a dot at its end.
        models: configuration class of each architecture, for a tree that contains a model.

    Raises:
        ValueError: an option is unknown to this version or has a value of another type.
    """
    return _from_dict(cls, upgrade(stored, prefix), prefix, models or {})


def _from_dict(cls: type[T], stored: Mapping[str, Any], prefix: str, models: Mapping[str, type]) -> T:
    config = cls()
    hints = get_type_hints(cls)
    for key, value in stored.items():
        path = f"{prefix}{key}"
        if key not in hints:
            raise ValueError(
                f"{path}: the stored configuration has an option that this version of nmt does not know; "
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
            words = "a mapping of options is needed" if is_node else describe_type(hints[key])
            raise ValueError(f"{path}={value!r} in the stored configuration: {words}") from None
    return config


def _model(architecture: str, path: str, models: Mapping[str, type]) -> type:
    if architecture not in models:
        raise ValueError(
            f"{path}.architecture={architecture}: the stored configuration names an architecture that this version of "
            f"nmt does not have; it has {', '.join(models)}"
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
    """Return what changed between two stored configurations: "model.attention.score: additive → dot"."""
    return [f"{path}: {' → '.join(values)}" for path, values in differing(old, new).items()]


def differing(*stored: dict[str, Any]) -> dict[str, list[str]]:
    """Return the options whose values are not the same in all stored configurations, with each value as text."""
    flat = [flatten(each) for each in stored]
    values = {path: [each.get(path, MISSING) for each in flat] for path in dict.fromkeys(itertools.chain(*flat))}
    return {
        path: ["null" if value is None else str(value) for value in row]
        for path, row in values.items()
        if any(value != row[0] for value in row)
    }
