"""The commands of README and docs/: each parses, and the models of docs/attention.md can be built."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from nmt.cli.compose import run_command
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig, ExportConfig, ServeConfig, TranslateConfig
from nmt.models.flops import build_on_meta

ROOT = Path(__file__).parent.parent
CONFIGS: dict[str, type] = {
    "train": Config,
    "evaluate": EvaluateConfig,
    "translate": TranslateConfig,
    "align": AlignConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
}
PAGES = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[str]:
    """Return the `python -m nmt.NAME …` lines of a page's code blocks, continued lines joined, without comments."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text.replace("\\\n", " "), re.MULTILINE | re.DOTALL)
    lines = [re.split(r"\s#|\s<\s", line)[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(rf"python -m nmt\.({'|'.join(CONFIGS)})\b", line)]


COMMANDS = [(page.name, line) for page in PAGES for line in commands(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_parses(page: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nmt.cli.compose.run_sweep", lambda name, jobs, common, run: [run(job) for job in jobs])
    for file, code in re.findall(
        r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "docs/plugins.md").read_text("utf-8"), re.S
    ):
        (tmp_path / file).write_text(code, encoding="utf-8")
    _, _, command, *arguments = shlex.split(line)
    name = command.removeprefix("nmt.")
    configs: list[Any] = []
    run_command(lambda config, _: configs.append(config), CONFIGS[name], name, arguments)
    assert configs
    if page == "attention.md":
        for config in configs:
            build_on_meta(config.model, 1000, 1000, joint=True)


def test_pages_have_commands() -> None:
    pages = [page for page, _ in COMMANDS]
    assert pages.count("attention.md") > 10
    assert pages.count("README.md") > 5
    assert pages.count("usage.md") > 10


def test_every_component_of_attention_is_documented() -> None:
    from nmt.attention import NO_ATTENTION, NORMALIZERS, SCORES, WINDOWS

    text = (ROOT / "docs/attention.md").read_text(encoding="utf-8")
    for name in (*SCORES, NO_ATTENTION, *NORMALIZERS, *WINDOWS):
        assert f"| `{name}` |" in text, name


def test_pages_that_are_named_exist() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for name in re.findall(r"`((?:docs|nmt|scripts|tests)/[\w./-]+\.\w+)`", page.read_text("utf-8")):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"
