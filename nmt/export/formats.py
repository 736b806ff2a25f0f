"""Which models each export format supports, and which options of a model it does not."""

import contextlib
import importlib.util
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from nmt.attention import NO_ATTENTION, AttentionConfig
from nmt.cli.configs import Config
from nmt.plugins import OWNERS


class ExportFormat(NamedTuple):
    """modules: required packages, installed by the project's extra of the same name; about: one-line description."""

    modules: tuple[str, ...]
    about: str


FORMATS = {
    "ctranslate2": ExportFormat(("ctranslate2",), "fast translation on CPU and GPU, int8 too"),
    "huggingface": ExportFormat(("transformers", "safetensors"), "AutoModelForSeq2SeqLM, AutoTokenizer"),
    "onnx": ExportFormat(("onnx", "onnxscript", "onnxruntime"), "encoder and one step, for any runtime"),
}

_FIXED = ("ctranslate2", "huggingface")
"""Formats with a fixed set of architectures; ONNX takes any computation."""

SUPPORTED_VALUES: dict[str, dict[str, tuple[object, ...]]] = {
    "model.architecture": dict.fromkeys(_FIXED, ("transformer",)),
    "model.norm": {"huggingface": ("layer",)},
    "model.positions": {"huggingface": ("sinusoidal", "learned")},
    "model.activation": {"huggingface": ("relu", "gelu")},
    "data.tokenizer.type": {"huggingface": ("unigram", "bpe")},
    "data.tokenizer.lowercase": dict.fromkeys(FORMATS, (False,)),
    "score": dict.fromkeys(_FIXED, ("dot", "scaled", "general", NO_ATTENTION)),
    "normalizer": dict.fromkeys(_FIXED, ("softmax",)),
    "window": dict.fromkeys(_FIXED, ("global",)),
    "coverage": dict.fromkeys(_FIXED, (False,)),
}
"""For each option the values that a format supports; a format that is not listed supports all. The last four are
options of every attention: model.attention, model.encoder_self_attention and model.decoder_self_attention. Options of
training, and numbers and widths, are not listed: every format supports them, but see `_unsupported_combinations`."""

ATTENTION_NODES = ("encoder_self_attention", "decoder_self_attention", "attention")


def unsupported_options(config: Config, name: str) -> list[str]:
    """Return, for each option that keeps a model from being exported in a format, its value and what is supported."""
    reasons = [
        _reason(path, value, allowed[name])
        for option, allowed in SUPPORTED_VALUES.items()
        if name in allowed
        for path, value in _values(config, option)
        if value not in allowed[name]
    ]
    if plugin := OWNERS.get(("data.tokenizer.TOKENIZERS", config.data.tokenizer.type)):
        reasons.append(_reason("data.tokenizer.type", config.data.tokenizer.type, f"none of {plugin.name}"))
    if name in _FIXED and config.model.architecture == "transformer":
        reasons += _unsupported_combinations(config.model, name)
    return list(dict.fromkeys(reasons))


def _values(config: Config, option: str) -> Iterator[tuple[str, object]]:
    """Yield the path and value of an option of `SUPPORTED_VALUES`, one of attention for each layer and head."""
    if "." in option:
        with contextlib.suppress(AttributeError):  # not every architecture has it
            yield option, attrgetter(option)(config)
    elif config.model.architecture == "transformer":
        for node in ATTENTION_NODES:
            for layer in _layers(getattr(config.model, node)):
                if option == "score":
                    yield from ((f"model.{node}.score", score) for score in layer.scores)
                elif layer.scores[0] != NO_ATTENTION:
                    yield f"model.{node}.{option}", getattr(layer, option)


def _reason(option: str, value: object, allowed: str | tuple[object, ...]) -> str:
    values = allowed if isinstance(allowed, str) else " or ".join(map(_format_value, allowed))
    return f"{option}={_format_value(value)} (supported: {values})"


def _format_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _layers(attention: AttentionConfig) -> list[AttentionConfig]:
    return [attention.for_layer(number) for number in range(len(attention.per_layer))] or [attention]


def _unsupported_combinations(model: Any, name: str) -> Iterator[str]:
    """Yield values that a fixed format supports, but not together."""
    heads = model.decoder_self_attention.heads
    if any(layer.heads != heads for layer in _layers(model.attention) if layer.scores[0] != NO_ATTENTION):
        limit = f"as many as model.decoder_self_attention.heads={heads}"
        yield _reason("model.attention.heads", model.attention.heads, limit)
    for node in ATTENTION_NODES:
        is_rotary = model.positions == "rotary" and node != "attention"
        for layer in _layers(getattr(model, node)):
            width = (layer.dim or model.d_model) if layer.project_qk else model.d_model
            if layer.scores[0] != NO_ATTENTION and (width > model.d_model or (is_rotary and width != model.d_model)):
                limit = f"model.d_model={model.d_model}"
                yield _reason(f"model.{node}.dim", layer.dim, limit if is_rotary else f"at most {limit}")
            if is_rotary and "general" in layer.scores:
                yield _reason(f"model.{node}.score", "general", "dot or scaled with model.positions=rotary")
    if name == "huggingface" and model.positions == "learned" and model.norm_position == "post":
        yield _reason("model.positions", "learned", "sinusoidal with model.norm_position=post")


def supported_formats(config: Config) -> list[str]:
    """Return the formats that support a model of this configuration."""
    return [name for name in FORMATS if not unsupported_options(config, name)]


def ensure_supported(config: Config, name: str) -> None:
    """Raise ValueError when the format does not support the model or a package it needs is not installed."""
    if reasons := unsupported_options(config, name):
        alternatives = " or ".join(f"format={other}" for other in supported_formats(config))
        raise ValueError(
            f"format={name}: does not support {', and '.join(reasons)}; this model can be exported "
            f"{f'with {alternatives}' if alternatives else 'in no format'}"
        )
    missing = [module for module in FORMATS[name].modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"format={name}: the package {missing[0]} is not installed; "
            f"python -m pip install 'nmt-attention[{name}]' installs what this format needs"
        )


def format_support_table(configs: dict[str, Config]) -> str:
    """Return a table of the values that each format supports, and of the formats of each named configuration."""
    lines = [f"{name:12}  {kind.about}" for name, kind in FORMATS.items()]
    lines += ["", f"{'':30}{'ctranslate2':34}{'huggingface':34}onnx"]
    for option, allowed in SUPPORTED_VALUES.items():
        label = option if "." in option else f"every attention's {option}"
        cells = [" ".join(map(_format_value, allowed[name])) if name in allowed else "all" for name in FORMATS]
        lines.append(f"{label:30}{cells[0]:34}{cells[1]:34}{cells[2]}")
    width = max(map(len, configs), default=0)
    return "\n".join(
        [
            *lines,
            "",
            "ctranslate2 and huggingface also need model.attention.heads = model.decoder_self_attention.heads,",
            "and attentions no wider than the model (as wide, and no score=general, with positions=rotary);",
            "huggingface supports learned positions with norm_position=pre only. Everything else can be any value.",
            "",
            *(f"{label:{width}}  {', '.join(supported_formats(config))}" for label, config in configs.items()),
        ]
    )
