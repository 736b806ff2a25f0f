"""The commands of docs/attention.md: each composes, and its model can be built."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from nmt.cli.compose import run_command
from nmt.cli.configs import Config
from nmt.models.flops import build_on_meta

ROOT = Path(__file__).parent.parent


def commands(name: str) -> list[str]:
    lines = (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines()
    return [line.partition("  #")[0] for line in lines if line.startswith("python -m nmt.train ")]


@pytest.mark.parametrize("line", commands("attention.md"))
def test_a_command_names_a_model_that_can_be_built(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configs: list[Any] = []
    run_command(lambda config, _: configs.append(config), Config, "train", shlex.split(line)[3:])
    build_on_meta(configs[0].model, 1000, 1000, joint=True)


def test_every_component_of_attention_is_documented() -> None:
    from nmt.attention import NO_ATTENTION, NORMALIZERS, SCORES, WINDOWS

    text = (ROOT / "docs/attention.md").read_text(encoding="utf-8")
    for name in (*SCORES, NO_ATTENTION, *NORMALIZERS, *WINDOWS):
        assert f"| `{name}` |" in text, name
    assert len(commands("attention.md")) > 10
