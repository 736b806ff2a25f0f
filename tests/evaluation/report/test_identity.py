"""The facts about a model at the top of the page."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from nmt.attention.config import AttentionConfig
from nmt.data import DataConfig
from nmt.evaluation.report.identity import model_facts


def config(attention: AttentionConfig, architecture: str = "rnn") -> Any:
    model = SimpleNamespace(architecture=architecture, attention=attention)
    return SimpleNamespace(data=DataConfig(source_lang="en", target_lang="ja"), model=model)


def facts(contents: list[dict[str, Any]], configs: list[Any], history: Sequence[dict[str, Any]] = ()) -> list[str]:
    translator: Any = SimpleNamespace(model=nn.Linear(1000, 2), device=torch.device("cpu"), engine_used="")
    return model_facts(contents, configs, translator, history)


@pytest.mark.parametrize(
    ("attention", "text"),
    [
        (AttentionConfig("dot"), "dot attention"),
        (AttentionConfig("dot", heads=8), "dot attention with 8 heads"),
        (AttentionConfig("none"), "no attention"),
        (AttentionConfig(["dot", "additive"], heads=2), "dot and additive attention with 2 heads"),
        (AttentionConfig("dot", per_layer=[{}, {"score": "general"}]), "dot and general attention"),
        (AttentionConfig("dot", per_layer=[{"score": "none"}, {"score": "general"}]), "general attention"),
    ],
)
def test_the_scores_of_every_layer_and_head_are_named(attention: AttentionConfig, text: str) -> None:
    assert facts([{}], [config(attention)])[:3] == ["en → ja", f"rnn, {text}", "2,002 parameters"]


def test_the_update_is_that_of_the_checkpoint() -> None:
    content = {"position": {"update": 1500, "seconds": 90.0}, "precision": "bf16"}
    plain = [config(AttentionConfig("dot"))]
    for last, text in ((1500, "1,500 updates"), (2500, "update 1,500 of 2,500"), (None, "1,500 updates")):
        history = [] if last is None else [{"update": 20}, {"update": last}, {"loss": 1.0}]
        assert facts([content], plain, history)[3:5] == [f"{text}, 1.5 minutes", "trained in bf16"]
    quick = {"position": {"update": 7, "seconds": 59.4}}
    assert facts([quick], plain)[3] == "7 updates, 59 s"
    assert facts([{"position": {"update": 7}}], plain)[3].startswith("evaluated on cpu, ")


def test_an_ensemble_says_once_what_its_models_share() -> None:
    configs = [
        config(AttentionConfig("dot")),
        config(AttentionConfig("dot")),
        config(AttentionConfig("none"), "hybrid"),
    ]
    content = {"position": {"update": 5, "seconds": 1.0}, "precision": "fp32"}
    found = facts([content, content, content], configs)
    shared = ["2,002 parameters", "5 updates, 1 s", "trained in fp32"]
    assert found[:-1] == ["en → ja", "ensemble of 3", "rnn, dot attention", "hybrid, no attention", *shared]
