"""One self-contained HTML page about a test set: scores, curves, alignment, diagnostics, data, and every sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.evaluation.report import head_maps, score_cards
from nmt.evaluation.report.charts import charts
from nmt.evaluation.report.html import escape, section, table
from nmt.evaluation.report.html_page import document, own
from nmt.evaluation.report.sentence_browser import Browser
from nmt.runtime.files import write_text


@dataclass
class SplitReport:
    """What became of one part of the data: pairs read and kept, dropped and repaired by reason."""

    name: str
    num_read: int
    num_kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """Everything the page shows; what is empty is left out.

    Attributes:
        title: the heading, such as the test set's name.
        name: the run's name.
        scores: what scores.json holds.
        readings: what readings.json holds.
        diagnostics: what diagnostics.json holds.
        history: rows of metrics.jsonl; `nmt.evaluation.report.charts` says which names are read.
        data: one entry for each part of the data.
        texts: for each part what was read, [file or text, SHA-256].
        command: the command line, exactly as given.
        versions: version by package.
        config: the composed configuration as text.
        notes: what a reader should know, one sentence each.
        browser: the sentences and their attention.
    """

    title: str
    name: str
    scores: Mapping[str, Any] = field(default_factory=dict)
    readings: Sequence[Mapping[str, Any]] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    data: Sequence[SplitReport] = ()
    texts: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    notes: Sequence[str] = ()
    browser: Browser = field(default_factory=Browser)


def write_page(path: str | Path, report: Report) -> None:
    """Writes the page; its folder is made. It needs no network and appears whole or not at all."""
    write_text(Path(path), render(report))


def render(report: Report) -> str:
    """The page as text."""
    scores = report.scores
    choose = "Choosing a cell shows that layer and head in the sentences below."
    notes = f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in report.notes)}</ul>" if report.notes else ""
    found = {
        "Summary": section("Summary", score_cards.cards(scores) + notes + score_cards.comparisons(scores)),
        "Training": section("Training", charts(report.history)),
        "Learned": section(
            "Learned", score_cards.quantities(report.history), "Quantities that the attention has learned."
        ),
        "Parts": section(
            "Parts", score_cards.buckets(scores) + score_cards.rates(scores), "Where it is good, and where not."
        ),
        "Alignment": section(
            "Alignment", head_maps.alignment_error(scores, report.readings), f"Of every layer and head. {choose}"
        ),
        "Attention": section(
            "Attention",
            head_maps.diagnostics(report.diagnostics),
            f"What each layer and head does over the hypotheses. {choose}",
        ),
        "Sentences": section("Sentences", report.browser.render()),
        "Data": section("Data", _data(report.data)),
        "Provenance": section("Provenance", _provenance(report)),
    }
    run = f'<p class="soft">run <code>{escape(report.name)}</code></p>'
    return document(report.title, report.name, run, found, styles=own("page.css"), script=own("matrix.js", "page.js"))


def _data(parts: Sequence[SplitReport]) -> str:
    if not parts:
        return ""

    def reasons(counts: Mapping[str, int]) -> str:
        return "<br>".join(f"{count:,} {escape(reason)}" for reason, count in counts.items() if count) or "none"

    heads = ["part", "pairs read", "kept", "dropped because", "repaired"]
    rows = [
        [escape(part.name), f"{part.num_read:,}", f"{part.num_kept:,}", reasons(part.dropped), reasons(part.repaired)]
        for part in parts
    ]
    return table("Data", heads, rows)


def _provenance(report: Report) -> str:
    parts = []
    if report.command:
        parts.append(f"<h3>Command</h3><pre>{escape(report.command)}</pre>")
    digests = [
        [escape(part), f"<code>{escape(name)}</code>", f"<code>{escape(digest)}</code>"]
        for part, texts in report.texts.items()
        for name, digest in texts
    ]
    if digests:
        shown = table("Digests of the data", ["part", "file or text", "SHA-256"], digests)
        parts.append(f"<details open><summary>Digests of the data</summary>{shown}</details>")
    if report.versions:
        items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(v)}</dd>" for name, v in report.versions.items())
        parts.append(f"<details open><summary>Versions</summary><dl>{items}</dl></details>")
    if report.config:
        parts.append(f"<details><summary>Configuration</summary><pre>{escape(report.config)}</pre></details>")
    return "\n".join(parts)
