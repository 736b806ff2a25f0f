"""Which models each format can carry, and which of a model's options it cannot."""

import importlib.util
from collections.abc import Iterator
from typing import Any, NamedTuple

from nmt.attention import NONE, AttentionConfig
from nmt.cli.configs import Config


class ExportFormat(NamedTuple):
    """modules: what must be installed, which the project's extra of the format's name does; about: one line."""

    modules: tuple[str, ...]
    about: str


FORMATS = {
    "ctranslate2": ExportFormat(("ctranslate2",), "fast translation on CPU and GPU, int8 too"),
    "huggingface": ExportFormat(("transformers", "safetensors"), "AutoModelForSeq2SeqLM, AutoTokenizer"),
    "onnx": ExportFormat(("onnx", "onnxscript", "onnxruntime"), "encoder and one step, for any runtime"),
}

_FIXED = ("ctranslate2", "huggingface")
"""Formats with a fixed set of models; "onnx" carries what can be computed."""

_PRODUCTS = ("dot", "scaled", "general", NONE)

CARRIED: dict[str, dict[str, tuple[object, ...]]] = {
    "model.architecture": dict.fromkeys(_FIXED, ("transformer",)),
    "model.norm": {"huggingface": ("layer",)},
    "model.positions": {"huggingface": ("sinusoidal", "learned")},
    "model.activation": {"huggingface": ("relu", "gelu")},
    "data.tokenizer.type": {"huggingface": ("unigram", "bpe")},
    "data.tokenizer.lowercase": dict.fromkeys(FORMATS, (False,)),
    "score": dict.fromkeys(_FIXED, _PRODUCTS),
    "normalizer": dict.fromkeys(_FIXED, ("softmax",)),
    "window": dict.fromkeys(_FIXED, ("global",)),
    "coverage": dict.fromkeys(_FIXED, (False,)),
}
"""For each option the values that a format can carry; a format that is not named carries all. The last four are of
every attention: model.attention, model.encoder_self_attention and model.decoder_self_attention. Options that matter in
training only, and
those that say how many or how wide, are not here: every format carries them, but see `_combinations`."""

ATTENTION_NODES = ("encoder_self_attention", "decoder_self_attention", "attention")


def unsupported_options(config: Config, name: str) -> list[str]:
    """Name each option that keeps a model of this configuration from being exported in a format, and what would do."""
    reasons = []
    for option, allowed in CARRIED.items():
        if "." in option and name in allowed:
            value: Any = config
            for part in option.split("."):
                value = getattr(value, part, None)
            if value is not None and value not in allowed[name]:
                reasons.append(_obstacle(option, value, allowed[name]))
    # the other options of the table are a Transformer's only
    if name in _FIXED and config.model.architecture == "transformer":
        for site in ATTENTION_NODES:
            reasons += _of_attention(getattr(config.model, site), f"model.{site}", name)
        reasons += _combinations(config.model, name)
    return list(dict.fromkeys(reasons))


def _obstacle(option: str, value: object, allowed: str | tuple[object, ...]) -> str:
    values = allowed if isinstance(allowed, str) else " or ".join(map(_word, allowed))
    return f"{option}={_word(value)} (it can carry {values})"


def _word(value: object) -> str:
    """Return a value as it is written on a command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _layers(attention: AttentionConfig) -> list[AttentionConfig]:
    return [attention.for_layer(number) for number in range(len(attention.per_layer))] or [attention]


def _of_attention(attention: AttentionConfig, path: str, name: str) -> Iterator[str]:
    """Yield the obstacles in an attention, of any layer and head."""
    for layer in _layers(attention):
        values = {"score": layer.scores}
        if layer.scores[0] != NONE:
            values |= {option: [getattr(layer, option)] for option in ("normalizer", "window", "coverage")}
        for option, each in values.items():
            allowed = CARRIED[option][name]
            yield from (_obstacle(f"{path}.{option}", value, allowed) for value in each if value not in allowed)


def _combinations(model: Any, name: str) -> Iterator[str]:
    """Yield values that a fixed format can carry, but not together."""
    heads = model.decoder_self_attention.heads
    if any(layer.heads != heads for layer in _layers(model.attention) if layer.scores[0] != NONE):
        yield _obstacle(
            "model.attention.heads", model.attention.heads, f"as many as model.decoder_self_attention.heads={heads}"
        )
    for site in ATTENTION_NODES:
        turned = model.positions == "rotary" and site != "attention"
        for layer in _layers(getattr(model, site)):
            width = (layer.dim or model.d_model) if layer.project_qk else model.d_model
            if layer.scores[0] != NONE and (width > model.d_model or (turned and width != model.d_model)):
                limit = f"model.d_model={model.d_model}"
                yield _obstacle(f"model.{site}.dim", layer.dim, limit if turned else f"at most {limit}")
            if turned and "general" in layer.scores:
                yield _obstacle(f"model.{site}.score", "general", "dot or scaled with model.positions=rotary")
    if name == "huggingface" and model.positions == "learned" and model.norm_position == "post":
        yield _obstacle("model.positions", "learned", "sinusoidal with model.norm_position=post")


def supported_formats(config: Config) -> list[str]:
    """Return the formats that can carry a model of this configuration."""
    return [name for name in FORMATS if not unsupported_options(config, name)]


def ensure_supported(config: Config, name: str) -> None:
    """Raise ValueError when the format cannot carry the model or the packages it needs are not installed."""
    if reasons := unsupported_options(config, name):
        others = " or ".join(f"format={other}" for other in supported_formats(config))
        raise ValueError(
            f"format={name}: in the way is {', and '.join(reasons)}; this model can be exported "
            f"{f'with {others}' if others else 'in no format'}"
        )
    missing = [module for module in FORMATS[name].modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"format={name}: the package {missing[0]} is not installed; "
            f"python -m pip install 'nmt-attention[{name}]' brings what this format needs"
        )


def format_support_table(presets: dict[str, Config]) -> str:
    """Tabulate what each format can carry, and which formats can carry the models of named configurations.

    Args:
        presets: configurations by the arguments that name them, such as "experiment=multi30k_rnn".
    """
    lines = [f"{name:12}  {kind.about}" for name, kind in FORMATS.items()]
    lines += ["", f"{'':30}{'ctranslate2':34}{'huggingface':34}onnx"]
    for option, allowed in CARRIED.items():
        label = option if "." in option else f"every attention's {option}"
        cells = [" ".join(map(_word, allowed[name])) if name in allowed else "all" for name in FORMATS]
        lines.append(f"{label:30}{cells[0]:34}{cells[1]:34}{cells[2]}")
    lines += [
        "",
        "ctranslate2 and huggingface moreover need model.attention.heads = model.decoder_self_attention.heads,",
        "and attentions no wider than the model (as wide, and no score=general, with positions=rotary);",
        "huggingface has learned positions with norm_position=pre only. Everything else can be any value.",
        "",
    ]
    width = max(map(len, presets), default=0)
    return "\n".join(
        [*lines, *(f"{label:{width}}  {', '.join(supported_formats(config))}" for label, config in presets.items())]
    )
