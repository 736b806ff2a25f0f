"""README and docs/: commands parse, links lead somewhere, options and Python names exist, and the site can be built."""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import nmt
from nmt.cli.compose import run_command
from nmt.cli.configs import COMMANDS, Config
from nmt.compare import __main__ as compare
from nmt.config import leaves
from nmt.models import MODELS
from nmt.models.flops import build_on_meta

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs/dev").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def path_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Return the `python -m nmt.NAME …` lines of a page's code blocks, continued lines joined, without comments."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text.replace("\\\n", " "), re.MULTILINE | re.DOTALL)
    lines = [re.split(r"\s#|\s<\s", line)[0].strip() for block in blocks for line in block.splitlines()]
    lines = [line.partition(" | ")[2] if line.startswith("echo ") else line for line in lines]
    flags = ("--help", "--cfg", "--formats", "--version", "--info", "--install-completion")
    lines = [line for line in lines if not any(flag in line for flag in flags)]  # they print and end
    return [line for line in lines if re.match(rf"python -m nmt\.({'|'.join(COMMANDS)})\b", line)]


LINES = [(path_of(page), line) for page in PAGES for line in commands(page.read_text(encoding="utf-8"))]


WITH_PLUGINS = [line for _, line in LINES if "plugins=" in line]


@pytest.mark.slow  # in processes of their own: what a plugin adds stays until the end of one
@pytest.mark.parametrize("line", WITH_PLUGINS)
def test_a_command_with_the_plugins_of_the_page_parses(line: str, tmp_path: Path) -> None:
    text = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block, encoding="utf-8")
    command = [sys.executable, *shlex.split(line)[1:], "--cfg", "job"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "plugins" in result.stdout


@pytest.mark.parametrize(("page", "line"), [command for command in LINES if command[1] not in WITH_PLUGINS])
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
    run_command(lambda config, _: configs.append(config), COMMANDS[name], name, arguments)
    assert configs
    if page == "docs/attention.md":
        for config in configs:
            build_on_meta(config.model, 1000, 1000, joint=True)


COMPARISONS = [
    line.split(" > ")[0].split("  #")[0]
    for page in PAGES
    for line in re.findall(r"^python -m nmt\.compare .*", page.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("line", COMPARISONS)
def test_a_comparison_parses(line: str) -> None:
    arguments = compare._parser().parse_args(shlex.split(line)[3:])
    assert arguments.runs


def test_pages_have_commands() -> None:
    pages = [page for page, _ in LINES]
    for page, least in {"attention": 10, "training": 4, "decoding": 6, "evaluation": 6, "alignment": 5}.items():
        assert pages.count(f"docs/{page}.md") >= least, page
    assert pages.count("README.md") >= 2


def test_every_component_of_attention_is_documented() -> None:
    from nmt.attention import NO_ATTENTION, NORMALIZERS, SCORES, WINDOWS

    text = (ROOT / "docs/attention.md").read_text(encoding="utf-8")
    for name in (*SCORES, NO_ATTENTION, *NORMALIZERS, *WINDOWS):
        assert f"| `{name}` |" in text, name


def test_every_method_of_search_is_documented() -> None:
    with pytest.raises(ValueError, match=r"search\.method=\?: must be one of") as error:
        dataclasses.replace(Config().search, method="?").validate()
    methods = str(error.value).partition("must be one of ")[2].split(", ")
    assert "beam" in methods
    text = (ROOT / "docs/decoding.md").read_text(encoding="utf-8")
    for name in methods:
        assert f"| `{name}` |" in text, name


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=path_of)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`((?:docs|nmt|scripts|tests)/[\w./-]+\.\w+)`", page.read_text("utf-8")):
        assert (ROOT / name).is_file(), name


@functools.cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: those that are written, and those of headings, as GitHub and the site make them."""
    content = prose(page.read_text(encoding="utf-8"))
    found = set(re.findall(r'<a id="([^"]+)">', content))
    for heading in re.findall(r"^#+ (.+)$", content, re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", ALL_PAGES, ids=path_of)
def test_links_lead_to_files_and_headings_of_the_repository(page: Path) -> None:
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target
        assert file.is_relative_to(ROOT), target


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def nav_pages(node: Any) -> Iterator[str]:
    """Yield the pages of a navigation tree of mkdocs.yml."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from nav_pages(child)


def test_every_page_is_in_the_index_of_readme_and_in_the_navigation_of_the_site() -> None:
    lines = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    navigation = set(nav_pages(yaml.safe_load(lines)))
    index = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert page.relative_to(ROOT / "docs").as_posix() in navigation, page
        assert path_of(page) in index, page


@functools.cache
def option_names() -> set[str]:
    """Return every option of every command and architecture, and the nodes above them."""
    names: set[str] = set()
    for command in COMMANDS.values():
        names |= set(leaves(command()))
    for spec in MODELS.values():
        names |= set(leaves(Config(model=spec.config())))
    return names | {name[:i] for name in names for i, letter in enumerate(name) if letter == "."}


OPTION = re.compile(r"`((?:data|model|optim|train|search|metrics|alignment)\.[a-z_0-9.]+)(?:=[^`]*)?`")
FILE_SUFFIXES = ("log", "jsonl", "yaml", "en", "de", "fr")  # train.log, metrics.jsonl and train.en are files


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_options_that_are_named_exist(page: Path) -> None:
    for name in OPTION.findall(page.read_text(encoding="utf-8")):
        if name.rpartition(".")[2] not in FILE_SUFFIXES:
            assert name in option_names(), name


def test_options_are_named_in_the_pages() -> None:
    named = {name for page in PAGES for name in OPTION.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 80


def python_object(name: str) -> Any:
    """Return the module or attribute of a dotted name; raise ImportError or AttributeError where there is none."""
    module, *attributes = name.split(".")
    while attributes and importlib.util.find_spec(f"{module}.{attributes[0]}"):
        module = f"{module}.{attributes.pop(0)}"
        if not hasattr(importlib.import_module(module), "__path__"):
            break  # a module, not a package
    return functools.reduce(getattr, attributes, importlib.import_module(module))


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_python_names_exist(page: Path) -> None:
    for name in set(re.findall(r"`(nmt(?:\.[A-Za-z_]\w*)+)[`( ]", page.read_text(encoding="utf-8"))):
        assert python_object(name) is not None, name


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_python_in_the_pages_uses_names_of_the_package(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nmt":
                assert getattr(nmt, node.attr) is not None, node.attr


def site(target: Path) -> subprocess.CompletedProcess[str]:
    """Build the site into a folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs pip install 'nmt-attention[docs]'")
def test_the_site_can_be_built_and_fetches_nothing(tmp_path: Path) -> None:
    result = site(tmp_path / "site")
    assert result.returncode == 0, result.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    for file in [*pages, *(tmp_path / "site").rglob("*.css")]:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//", text), file
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", text), file
    attention = (tmp_path / "site/reference/nmt.attention.html").read_text(encoding="utf-8")
    assert "Bahdanau et al. 2015" in attention  # from the docstrings
