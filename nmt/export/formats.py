"""What each format can carry, and what of a model is in the way."""

import importlib.util
from collections.abc import Iterator
from typing import Any, NamedTuple

from nmt.attention import NONE, AttentionConfig
from nmt.cli.configs import Config


class Format(NamedTuple):
    """modules: what must be installed; extra: the project's extra that installs it; about: one line."""

    modules: tuple[str, ...]
    extra: str
    about: str


FORMATS = {
    "ctranslate2": Format(("ctranslate2",), "ctranslate2", "fast translation on CPU and GPU, int8 too"),
    "huggingface": Format(("transformers", "safetensors"), "huggingface", "AutoModelForSeq2SeqLM, AutoTokenizer"),
    "onnx": Format(("onnx", "onnxscript", "onnxruntime"), "onnx", "encoder and one step, for any runtime"),
}

_FIXED = ("ctranslate2", "huggingface")
"""Formats with a fixed set of models; "onnx" carries what can be computed."""

_PRODUCTS = ("dot", "scaled", "general", NONE)

CARRIED: dict[str, dict[str, tuple[object, ...]]] = {
    "model.architecture": dict.fromkeys(_FIXED, ("transformer",)),
    "model.norm": {"huggingface": ("layer",)},
    "model.positions": {"huggingface": ("sinusoidal", "learned")},
    "model.activation": {"huggingface": ("relu", "gelu")},
    "data.tokenizer.kind": {"huggingface": ("unigram", "bpe")},
    "data.tokenizer.lowercase": dict.fromkeys(FORMATS, (False,)),
    "score": dict.fromkeys(_FIXED, _PRODUCTS),
    "normaliser": dict.fromkeys(_FIXED, ("softmax",)),
    "window": dict.fromkeys(_FIXED, ("global",)),
    "coverage": dict.fromkeys(_FIXED, (False,)),
}
"""For each option the values that a format can carry; a format that is not named carries all. The last four are of
every attention: model.attention, model.encoder_self and model.decoder_self. Options that matter in training only, and
those that say how many or how wide, are not here: every format carries them, but see `_combinations`."""

SITES = ("encoder_self", "decoder_self", "attention")


class Obstacle(NamedTuple):
    """An option in the way, its value, and what would do."""

    option: str
    value: object
    allowed: str

    def __str__(self) -> str:
        return f"{self.option}={self.value} (it can carry {self.allowed})"


def obstacles(config: Config, name: str) -> list[Obstacle]:
    """What keeps a model of this configuration from being exported in a format; empty: nothing."""
    found = [
        Obstacle(option, _word(value), " or ".join(map(_word, allowed[name])))
        for option, allowed in CARRIED.items()
        if "." in option and name in allowed
        for value in [_value(config, option)]
        if value is not None and value not in allowed[name]
    ]
    if name not in _FIXED or config.model.architecture != "transformer":
        return found  # options of other architectures are none of a Transformer's
    for site in SITES:
        found += _of_attention(getattr(config.model, site), f"model.{site}", name)
    return found + list(_combinations(config.model, name))


def _word(value: object) -> str:
    """As the value is written on a command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(config: Config, option: str) -> object:
    value: object = config
    for part in option.split("."):
        value = getattr(value, part, None)
    return value


def _layers(attention: AttentionConfig) -> list[AttentionConfig]:
    return [attention.layer(number) for number in range(len(attention.layers))] or [attention]


def _of_attention(attention: AttentionConfig, path: str, name: str) -> Iterator[Obstacle]:
    """Values of an attention, of any layer and head, that are in the way, each once."""
    seen = set()
    for layer in _layers(attention):
        for option in ("score", "normaliser", "window", "coverage"):
            allowed = CARRIED[option][name]
            for value in layer.scores if option == "score" else [getattr(layer, option)]:
                matters = option == "score" or layer.scores[0] != NONE
                if matters and value not in allowed and (option, value) not in seen:
                    seen.add((option, value))
                    yield Obstacle(f"{path}.{option}", _word(value), " or ".join(map(_word, allowed)))


def _combinations(model: Any, name: str) -> Iterator[Obstacle]:
    """Values that a fixed format can carry, but not together."""
    heads = {layer.heads for layer in _layers(model.attention) if layer.scores[0] != NONE}
    if heads - {model.decoder_self.heads}:
        yield Obstacle(
            "model.attention.heads",
            model.attention.heads,
            f"as many as model.decoder_self.heads={model.decoder_self.heads}",
        )
    for site in SITES:
        turned = model.positions == "rotary" and site != "attention"
        for layer in _layers(getattr(model, site)):
            width = (layer.dim or model.width) if layer.project else model.width
            if layer.scores[0] != NONE and (width > model.width or (turned and width != model.width)):
                yield Obstacle(
                    f"model.{site}.dim", layer.dim, f"{'' if turned else 'at most '}model.width={model.width}"
                )
            if turned and "general" in layer.scores:
                yield Obstacle(f"model.{site}.score", "general", "dot or scaled with model.positions=rotary")
    if name == "huggingface" and model.positions == "learned" and model.norm_position == "post":
        yield Obstacle("model.positions", "learned", "sinusoidal with model.norm_position=post")


def able(config: Config) -> list[str]:
    """The formats that can carry a model of this configuration."""
    return [name for name in FORMATS if not obstacles(config, name)]


def check(config: Config, name: str) -> None:
    """Raises ValueError when the format cannot carry the model or the packages it needs are not installed."""
    if found := obstacles(config, name):
        others = " or ".join(f"format={other}" for other in able(config))
        raise ValueError(
            f"format={name}: in the way is {', and '.join(map(str, dict.fromkeys(found)))}; this model can be exported "
            f"{f'with {others}' if others else 'in no format'}"
        )
    missing = [module for module in FORMATS[name].modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"format={name}: the package {missing[0]} is not installed; "
            f"python -m pip install 'nmt-attention[{FORMATS[name].extra}]' brings what this format needs"
        )


def overview(presets: dict[str, Config]) -> str:
    """What each format can carry, and in which formats the models of named configurations can be exported.

    Args:
        presets: configurations by the arguments that name them, such as "experiment=multi30k_rnn".
    """
    lines = [f"{name:12}  {kind.about}" for name, kind in FORMATS.items()]
    lines += ["", f"{'':30}{'ctranslate2':34}{'huggingface':34}onnx"]
    for option, allowed in CARRIED.items():
        label = option if "." in option else f"every attention's {option}"
        cells = [
            " ".join("false" if one is False else str(one) for one in allowed[name]) if name in allowed else "all"
            for name in FORMATS
        ]
        lines.append(f"{label:30}{cells[0]:34}{cells[1]:34}{cells[2]}")
    lines += [
        "",
        "ctranslate2 and huggingface moreover need model.attention.heads = model.decoder_self.heads, and attentions no",
        "wider than the model (as wide, and no score=general, with positions=rotary); huggingface has learned",
        "positions with norm_position=pre only. Everything else can be any value.",
        "",
    ]
    width = max(map(len, presets), default=0)
    return "\n".join([*lines, *(f"{label:{width}}  {', '.join(able(config))}" for label, config in presets.items())])
