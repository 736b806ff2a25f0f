"""MkDocs hook: pages of the site that are not in docs/, and links from page to page as they are in the repository.

Pages outside docs/ (README, data/README, CONTRIBUTING, CHANGELOG) and those of the API get a place in the site when it
is built, so that nothing is copied in the repository. Every link is written as it holds in the repository; where its
target has another place in the site, the link is changed on the way.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "data/README.md": "corpora.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the repository outside docs/, and their places in the site."""

PACKAGES = {
    "nmt.api": "load a run, translate, align and train from Python",
    "nmt.attention": "the attention layer, scores, normalizers and windows",
    "nmt.models": "encoder-decoders",
    "nmt.search": "beam search, sampling, minimum Bayes risk, ensembles",
    "nmt.inference": "translating and aligning text with a trained model",
    "nmt.data": "from text to batches",
    "nmt.alignment": "word links from attention, their error rate and their files",
    "nmt.evaluation": "metrics, significance, diagnostics and reports",
    "nmt.training": "the trainer and what it is made of",
}
"""Packages and modules that have a page of the API."""

LINK = re.compile(r"(?<!!)(?P<start>\[[^\]]*\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
ENTRY = re.compile(r"(\w+(?:, \w+)*): (.*)")
IMAGE = re.compile(r"(?P<start>!\[[^\]]*\]\()(?P<target>[^)\s#:]+)(?P<anchor>)\)")


def place_in_repository(page: str) -> str:
    """Return the path in the repository of a page of the site."""
    return next((path for path, place in PAGES.items() if place == page), posixpath.join("docs", page))


def place_in_site(path: str) -> str | None:
    """Return the place in the site of a file of the repository, or None where it has none."""
    return PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)


def site_links(markdown: str, page: str) -> str:
    """Return a page with its links, which hold in the repository, as they hold in the site."""
    folder = posixpath.dirname(place_in_repository(page))

    def change(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match["target"]))
        place = place_in_site(path)
        if place is None:
            return match[0]  # strict mode then names it
        return f"{match['start']}{posixpath.relpath(place, posixpath.dirname(page) or '.')}{match['anchor'] or ''})"

    blocks = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith("```") else IMAGE.sub(change, LINK.sub(change, block)) for block in blocks)


def api_page(module: str) -> str:
    """Return the page of a package, with a section for each of its modules, or of a module."""
    path = ROOT / module.replace(".", "/")
    names = sorted(file.stem for file in path.glob("*.py") if not file.stem.startswith("_"))
    if names:  # a package: what it exports comes first
        text = (path / "__init__.py").read_text(encoding="utf-8")
        exported = re.findall(rf"from {re.escape(module)}\.(\w+) import", text)
        names = list(dict.fromkeys([*exported, *names]))
    only_docstring = ", members: false" if names else ""
    parts = [f"# {module}\n", f"::: {module}\n    options: {{show_root_heading: false{only_docstring}}}\n"]
    for name in names:
        parts.append(f"::: {module}.{name}\n    options: {{heading_level: 2}}\n")
    return "\n".join(parts)


def docstring_markdown(text: str) -> str:
    """Return a docstring as Markdown: its entries "name: text" as a list, marks such as </s> as text."""
    parts = re.split(r"(`[^`]*`)", text)
    text = "".join(part if part.startswith("`") else re.sub(r"<(?=[/a-z])", "&lt;", part) for part in parts)
    summary, *paragraphs = re.split(r"\n\s*\n", text)
    for i, paragraph in enumerate(paragraphs):
        if ENTRY.match(paragraph):
            paragraphs[i] = re.sub(rf"^{ENTRY.pattern}", r"* `\1`: \2", paragraph, flags=re.MULTILINE)
    return "\n\n".join([summary, *paragraphs])


class DocstringMarkdown(griffe.Extension):
    """Reads docstrings as `docstring_markdown` does."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = docstring_markdown(obj.docstring.value)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for path, place in PAGES.items():
        head = "---\nhide: [navigation]\n---\n" if place == "index.md" else ""
        files.append(File.generated(config, place, content=head + (ROOT / path).read_text(encoding="utf-8")))
    rows = "".join(f"| [`{module}`]({module}.md) | {text} |\n" for module, text in PACKAGES.items())
    intro = "Made from the docstrings. [From Python](../api.md) is the place to begin."
    index = f"# Python reference\n\n{intro}\n\n| | |\n|---|---|\n{rows}"
    files.append(File.generated(config, "reference/index.md", content=index))
    for module in PACKAGES:
        files.append(File.generated(config, f"reference/{module}.md", content=api_page(module)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Change the links of a page."""
    return site_links(markdown, page.file.src_uri)
