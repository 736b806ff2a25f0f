"""The table of supported values: models it allows are exported, and options it does not are named."""

import copy
from typing import Any

import pytest

from nmt.cli.compose import load_experiment
from nmt.cli.config_groups import group_choices, search_path
from nmt.cli.configs import EXPORTS, Config
from nmt.config import leaves
from nmt.export import formats
from nmt.export.formats import FORMATS, SUPPORTED_VALUES, format_support_table, supported_formats, unsupported_options
from nmt.models import MODELS

Make = Any  # see conftest.py


def configured(architecture: str = "transformer", **values: Any) -> Config:
    config = Config()
    config.model = MODELS[architecture].config()
    for option, value in values.items():
        *path, last = option.split("__")
        node = config.model
        for part in path:
            node = getattr(node, part)
        setattr(node, last, value)
    config.model.validate()
    return config


def test_formats_are_those_of_the_option() -> None:
    assert tuple(FORMATS) == EXPORTS


UNSUPPORTED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"norm": "rms"}, "huggingface", "model.norm=rms", "layer"),
    ({"positions": "rotary"}, "huggingface", "model.positions=rotary", "sinusoidal or learned"),
    ({"positions": "learned", "norm_position": "post"}, "huggingface", "model.positions=learned", "sinusoidal"),
    ({"activation": "swiglu"}, "huggingface", "model.activation=swiglu", "relu or gelu"),
    ({"attention__score": "additive"}, "ctranslate2", "model.attention.score=additive", "dot or scaled or general"),
    (
        {"encoder_self_attention__score": ["dot", "dot", "cosine", "dot"]},
        "huggingface",
        "model.encoder_self_attention.score=cosine",
        "dot",
    ),
    (
        {"decoder_self_attention__normalizer": "entmax15"},
        "ctranslate2",
        "model.decoder_self_attention.normalizer=entmax15",
        "softmax",
    ),
    (
        {"encoder_self_attention__window": "sliding"},
        "ctranslate2",
        "model.encoder_self_attention.window=sliding",
        "global",
    ),
    ({"attention__per_layer": [{}, {"window": "local_m"}]}, "ctranslate2", "model.attention.window=local_m", "global"),
    (
        {"attention__heads": 2},
        "ctranslate2",
        "model.attention.heads=2",
        "as many as model.decoder_self_attention.heads=4",
    ),
    ({"attention__dim": 256}, "huggingface", "model.attention.dim=256", "at most model.d_model=128"),
    (
        {"positions": "rotary", "encoder_self_attention__dim": 64},
        "ctranslate2",
        "model.encoder_self_attention.dim=64",
        "model.d_model=128",
    ),
    (
        {"positions": "rotary", "decoder_self_attention__score": "general"},
        "ctranslate2",
        "model.decoder_self_attention.score=general",
        "dot",
    ),
]


@pytest.mark.parametrize(("values", "name", "option", "allowed"), UNSUPPORTED)
def test_unsupported_options_are_named(values: dict[str, Any], name: str, option: str, allowed: str) -> None:
    config = configured(**values)
    with pytest.raises(ValueError, match="does not support") as error:
        formats.ensure_supported(config, name)
    message = str(error.value)
    assert f"{option} (supported: " in message
    assert allowed in message
    assert "this model can be exported with format=" in message
    assert "format=onnx" in message
    assert len(unsupported_options(config, name)) == 1


def test_lowercasing_is_not_supported() -> None:
    config = configured()
    config.data.tokenizer.lowercase = True
    for name in FORMATS:
        with pytest.raises(ValueError, match=r"tokenizer\.lowercase=true \(supported: false\); .* in no format"):
            formats.ensure_supported(config, name)


def test_coverage_is_named_beside_its_score() -> None:
    config = configured(attention__score="additive", attention__coverage=True)
    reasons = unsupported_options(config, "ctranslate2")
    assert any(reason.startswith("model.attention.coverage=true (supported: false") for reason in reasons)


@pytest.mark.parametrize("architecture", [name for name in MODELS if name != "transformer"])
def test_recurrent_models_are_exported_to_onnx_only(architecture: str) -> None:
    config = configured(architecture)
    assert supported_formats(config) == ["onnx"]
    with pytest.raises(ValueError, match=f"model.architecture={architecture} .supported: transformer.*format=onnx$"):
        formats.ensure_supported(config, "huggingface")


def test_without_attention_its_other_options_are_ignored() -> None:
    config = configured(attention__score="none", attention__normalizer="sparsemax", attention__heads=2)
    assert supported_formats(config) == list(FORMATS)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"ctranslate2 is not installed; .*nmt-attention\[ctranslate2\]"):
        formats.ensure_supported(configured(), "ctranslate2")


def test_huggingface_does_not_support_words() -> None:
    config = configured()
    config.data.tokenizer.type = "word"
    assert supported_formats(config) == ["ctranslate2", "onnx"]


def test_table_names_options_that_exist() -> None:
    known = leaves(configured())
    for option in SUPPORTED_VALUES:
        assert option in known or f"model.attention.{option}" in known


@pytest.mark.parametrize("name", [name for name in group_choices("experiment") if name != "debug"])  # of any model
def test_claims_for_experiments(name: str, make: Make, tmp_path: Any) -> None:
    """Check the line of the table with a small model of the same kind, and with the head of the experiment's file."""
    config = load_experiment(name)
    line = next(line for line in format_support_table({name: config}).splitlines() if line.startswith(name))
    claimed = line.removeprefix(name).strip().split(", ")
    assert "onnx" in claimed
    head = (search_path()[0] / f"experiment/{name}.yaml").read_text("utf-8").split("\n")[:3]
    assert head[2] == f"# Export: {', '.join(claimed)}."
    small = {"d_model": 16, "ffn_dim": 24, "embedding_dim": 16, "hidden_size": 16}
    values = {
        option.removeprefix("model."): value
        for option, value in _flat(config.model).items()
        if option not in small and option != "architecture" and not option.startswith("match")
    }
    values |= {option: 8 for option in values if option.endswith(".dim") and values[option]}
    translator, smaller = make(config.model.architecture, kind=config.data.tokenizer.type, **_underscored(values))
    smaller.data.tokenizer.type = config.data.tokenizer.type
    for kind in ("ctranslate2", "huggingface"):
        pytest.importorskip(FORMATS[kind].modules[0])
        from nmt.export import export

        if kind in claimed:
            assert export(translator, copy.deepcopy(smaller), kind, tmp_path / kind, 64).difference < 1e-4
        else:
            with pytest.raises(ValueError, match="does not support"):
                export(translator, copy.deepcopy(smaller), kind, tmp_path / kind, 64)
            assert not (tmp_path / kind).exists()


def _flat(config: Any) -> dict[str, Any]:
    values = {}
    for option in leaves(config):
        node = config
        for part in option.split("."):
            node = getattr(node, part)
        values[option] = node
    return values


def _underscored(values: dict[str, Any]) -> dict[str, Any]:
    return {option.replace(".", "__"): value for option, value in values.items()}
