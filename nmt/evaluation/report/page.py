"""One self-contained HTML page about a test set: scores, curves, alignment, diagnostics, data, and every sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nmt.evaluation.report import head_maps
from nmt.evaluation.report.charts import training_curves
from nmt.evaluation.report.html import macros
from nmt.evaluation.report.html_page import html_document, read_resource
from nmt.evaluation.report.sentence_browser import SentenceBrowser
from nmt.runtime.files import write_text


@dataclass
class SplitStats:
    """What became of one part of the data: pairs read and kept, dropped and repaired by reason."""

    name: str
    num_read: int
    num_kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)


@dataclass
class ReportData:
    """Everything the page shows; what is empty is left out.

    Attributes:
        title: the heading.
        name: the run's name.
        test: the test set's name.
        scores: what scores.json holds.
        readings: what head_alignment_scores.json holds.
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

    title: str = ""
    name: str = ""
    test: str = "test"
    scores: Mapping[str, Any] = field(default_factory=dict)
    readings: Sequence[Mapping[str, Any]] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    data: Sequence[SplitStats] = ()
    texts: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    notes: Sequence[str] = ()
    browser: SentenceBrowser = field(default_factory=SentenceBrowser)


def write_page(path: str | Path, report: ReportData) -> None:
    """Write the page; its folder is made. It needs no network and appears whole or not at all."""
    write_text(Path(path), render(report))


def render(report: ReportData) -> str:
    """Return the page as text."""
    scores, made = report.scores, macros("evaluation/report/templates/report.html")
    choose = "Choosing a cell shows that layer and head in the sentences below."
    quantities = next((row["learned_scalars"] for row in reversed(report.history) if row.get("learned_scalars")), None)
    errors = head_maps.alignment_error(scores, report.readings)
    sections = {
        "Summary": (made.summary(scores, report.notes), ""),
        "Training": (training_curves(report.history), ""),
        "Learned": (made.learned(quantities), "Quantities that the attention has learned."),
        "Parts": (made.parted(scores.get("buckets"), scores.get("rates")), "Where it is good, and where not."),
        "Alignment": (made.alignment(errors, scores.get("alignment")), f"Of every layer and head. {choose}"),
        "Attention": (
            made.attention(head_maps.diagnostics(report.diagnostics)),
            f"What each layer and head does over the hypotheses. {choose}",
        ),
        "Sentences": (report.browser.render(), ""),
        "Data": (made.data(report.data), ""),
        "Provenance": (made.provenance(report), ""),
    }
    run = Markup("run <code>{}</code>").format(report.name)
    return html_document(
        report.title,
        report.name,
        run,
        sections,
        styles=read_resource("page.css"),
        script=read_resource("matrix.js", "page.js"),
    )
