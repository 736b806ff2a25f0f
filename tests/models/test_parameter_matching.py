"""Parameter matching: matched widths, messages and errors."""

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt import checkpoint, models, train
from nmt.attention import NO_ATTENTION, SCORES
from nmt.cli.compose import Config, run_command
from nmt.config import diff, get_node, to_dict
from nmt.inference.translator import Translator
from nmt.models import MODELS
from nmt.models.flops import flops_per_token
from nmt.models.parameter_matching import match_parameters

VOCABULARY = 2000  # of the built-in pair
CHOICES = (*SCORES, NO_ATTENTION)
WIDTH = 256


def config_of(architecture: str, score: str, **changes: Any) -> Any:
    config = MODELS[architecture].config(**changes)
    config.attention.score = score
    config.validate()
    return config


def number_of_parameters(config: Any) -> int:
    model = models.build_model(config, VOCABULARY, VOCABULARY, joint=True)
    return sum(parameter.numel() for parameter in model.parameters())


def match(config: Any) -> tuple[Any, str]:
    return match_parameters(config, VOCABULARY, VOCABULARY, joint=True)


@pytest.mark.parametrize("score", CHOICES)
@pytest.mark.parametrize("architecture", MODELS)
def test_every_score_gets_the_parameters_of_the_reference(architecture: str, score: str) -> None:
    config = config_of(architecture, score, match="parameters")
    before = to_dict(config)
    found, text = match(config)
    reference = number_of_parameters(config_of(architecture, "scaled"))
    number = number_of_parameters(found)
    assert abs(number / reference - 1) <= 0.005
    assert to_dict(config) == before
    changed = diff(before, to_dict(found))
    assert all(line.startswith(f"{config.match_width}: ") for line in changed)
    off = 100 * (number / reference - 1)
    ending = f", {number:,} parameters, reference (scaled) {reference:,}: {off:+.2f} %"
    width = f"{changed[0].partition(': ')[2]}" if changed else f"stays {getattr(config, config.match_width)}"
    assert text == f"model.match=parameters: model.{config.match_width} {width}{ending}"


def check_flops(architecture: str, score: str) -> None:
    found, text = match(config_of(architecture, score, match="flops"))
    cost, reference = (
        flops_per_token(matched, VOCABULARY, VOCABULARY, joint=True)
        for matched in (found, config_of(architecture, "scaled"))
    )
    assert abs(cost / reference - 1) <= 0.005
    assert f"{cost:,.0f} FLOPs per target token, reference (scaled) {reference:,.0f}: " in text


@pytest.mark.parametrize("architecture", MODELS)
def test_a_model_without_attention_gets_the_flops_of_the_reference(architecture: str) -> None:
    check_flops(architecture, NO_ATTENTION)


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("architecture", MODELS)
def test_every_score_gets_the_flops_of_the_reference(architecture: str, score: str) -> None:
    check_flops(architecture, score)


def test_nothing_is_matched_by_default() -> None:
    config = config_of("rnn", "location")
    assert match(config) == (config, "")


def test_the_nearest_width_is_taken() -> None:
    config = config_of(
        "rnn", "location", match="parameters", match_width="hidden_size", embedding_dim=64, hidden_size=200
    )
    reference = number_of_parameters(config_of("rnn", "scaled", embedding_dim=64, hidden_size=200))
    errors = {
        hidden: abs(
            number_of_parameters(config_of("rnn", "location", embedding_dim=64, hidden_size=hidden)) - reference
        )
        for hidden in range(2, 260, 2)  # half of it each way
    }
    found, _ = match(config)
    assert found.hidden_size == min(errors, key=errors.__getitem__)
    assert found.hidden_size != 200


def test_another_width_and_another_reference() -> None:
    config = config_of("transformer", "location", match="parameters", match_score="general")
    config.match_width = "attention.dim"  # 0 = as wide as the query
    found, text = match(config)
    reference = number_of_parameters(config_of("transformer", "general"))
    assert found.attention.dim % found.attention.heads == 0
    assert found.attention.dim > 0
    assert (found.d_model, found.ffn_dim) == (config.d_model, config.ffn_dim)
    assert abs(number_of_parameters(found) / reference - 1) <= 0.005
    assert f"attention.dim 0 → {found.attention.dim}, " in text
    assert f"reference (general) {reference:,}" in text


def test_the_reference_has_its_score_in_every_layer_and_no_coverage_it_cannot_use() -> None:
    config = config_of("transformer", "additive", match="parameters")
    config.attention.coverage = True
    config.attention.per_layer = [{}, {"score": "location", "coverage": False}]
    config.validate()
    found, text = match(config)
    reference = number_of_parameters(config_of("transformer", "scaled"))
    assert f"reference (scaled) {reference:,}" in text
    assert found.attention == config.attention
    assert abs(number_of_parameters(found) / reference - 1) <= 0.005


@pytest.mark.parametrize(
    ("architecture", "score", "changes", "messages"),
    [
        (
            "rnn",
            NO_ATTENTION,
            {"match_width": "attention.dim"},
            ["attention.dim cannot be adjusted (it has no effect"],
        ),
        (
            "transformer",
            "location",
            {"match_width": "d_model"},
            [
                "model.match=parameters: nothing comes within 0.5 % of the reference, the nearest is model.d_model 128",
                " %; model.match_width=ffn_dim or model.match_width=attention.dim would do",
            ],
        ),
        (
            "transformer_rnn",
            "location",
            {"match_width": "embedding_dim", "tie_embeddings": "all"},
            [
                "embedding_dim cannot be adjusted (model.tie_embeddings=all: source embeddings are 128 wide",
                "match_width=ffn_dim",
            ],
        ),
        (
            "rnn",
            "dot",
            {"match_score": "additive", "attention.project_qk": False},
            ["model.match_score=additive: this"],
        ),
        (
            "transformer",
            "location",
            {"attention.max_positions": 1_000_000},
            ["the nearest is model.ffn_dim 256 → 1,", "no other width comes near enough either"],
        ),
    ],
)
def test_what_cannot_be_matched(architecture: str, score: str, changes: dict[str, Any], messages: list[str]) -> None:
    config = config_of(architecture, score, match="parameters")
    for path, value in changes.items():
        parent, _, name = path.rpartition(".")
        setattr(get_node(config, parent), name, value)
    with pytest.raises(ValueError, match="match") as refused:
        match(config)
    assert all(message in str(refused.value) for message in messages), str(refused.value)


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("match", "size"),
        ("match_score", "bilinear"),
        ("match_width", "breadth"),
        ("match_width", "attention.score"),
        ("match_width", "attention.project_qk"),
        ("match_width", ""),
    ],
)
def test_options_are_checked(architecture: str, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^model\.{option}={value}: must be "):
        config_of(architecture, "scaled", **{option: value})


TINY = f"""
    name=matched data.synthetic.train=200 data.synthetic.valid=2 data.synthetic.test=2 data.synthetic.long=1
    data.tokenizer.type=word data.tokenizer.vocab_size=300 model.embedding_dim={WIDTH} model.hidden_size=32
    model.attention.dim=16 model.match=parameters train.valid_every=4 train.batch_tokens=256 train.precision=fp32
    train.early_stopping_metric=loss search.beam_size=1 search.max_length_ratio=1 search.max_length_offset=1
    num_threads=1 device=cpu
""".split()


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a training command."""
    logger = logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            run_command(train.main, Config, "train", [*TINY, *arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, err.getvalue()


def test_a_matched_run_is_stored_continued_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run("model.attention.score=location", "train.max_updates=4")
    assert code == 0, output
    last = tmp_path / "runs/matched/checkpoints/last.pt"
    stored = checkpoint.load(last)["config"]["model"]
    width = stored["embedding_dim"]
    assert width < WIDTH
    assert (stored["match"], stored["match_width"], stored["match_score"]) == ("parameters", "embedding_dim", "scaled")
    assert f"embedding_dim: {width}\n" in (tmp_path / "runs/matched/config.yaml").read_text(encoding="utf-8")
    assert f"model.match=parameters: model.embedding_dim {WIDTH} → {width}, " in output
    assert f"model.embedding_dim {WIDTH} → {width}, " in (tmp_path / "runs/matched/train.log").read_text(
        encoding="utf-8"
    )
    model = Translator.from_checkpoint(checkpoint.load(last), None, torch.device("cpu")).model
    assert model.target_embedding.embedding_dim == width  # not matched again

    code, output = run("model.attention.score=location", "train.max_updates=6")
    assert code == 0, output
    assert "continues at update 4" in output
    assert checkpoint.load(last)["config"]["model"] == stored

    code, output = run("model.attention.score=location", "train.max_updates=6", "model.embedding_dim=250")
    assert code == 1
    assert f"model.embedding_dim: {width} → " in output
    code, output = run("model.attention.score=location", "train.max_updates=6", "model.match=none")
    assert code == 1
    assert f"(model.match: parameters → none; model.embedding_dim: {width} → {WIDTH})" in output
