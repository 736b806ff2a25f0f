"""Self-contained HTML page about a test set: scores, examples, every sentence, and what explains them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.evaluation.report import head_maps
from nmt.evaluation.report.charts import training_curves
from nmt.evaluation.report.html import format_number, html_document, macros, read_resource
from nmt.evaluation.report.sentence_browser import SentenceBrowser
from nmt.runtime.files import write_text


@dataclass
class SplitStats:
    """Statistics of one split of the data: pairs read and kept, dropped and repaired by reason."""

    name: str
    num_read: int
    num_kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)


@dataclass
class ReportData:
    """Content of the page; empty parts are left out.

    title: heading. name: of the run. facts: about the model, a few words each. test: name of the test set. folders: of
    all test sets of the evaluation by name, "" for the report directory itself. scores, head_scores, diagnostics:
    content of scores.json, head_alignment_scores.json and diagnostics.json. history: rows of metrics.jsonl. data: one
    entry for each split.
    fingerprints: for each split its files or texts, [name, SHA-256]. command: the command line. versions: by package.
    config: the composed configuration as text. notes: for the reader, one sentence each. browser: sentences and
    attention. overview: there is a page of all directions in the report directory. corpora: number of the first
    training pair of each corpus.
    """

    title: str = ""
    name: str = ""
    facts: Sequence[str] = ()
    test: str = "test"
    folders: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    head_scores: Sequence[Mapping[str, Any]] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    data: Sequence[SplitStats] = ()
    fingerprints: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    notes: Sequence[str] = ()
    browser: SentenceBrowser = field(default_factory=SentenceBrowser)
    overview: bool = False
    corpora: Mapping[str, int] = field(default_factory=dict)


def write_page(path: str | Path, report: ReportData) -> None:
    """Write the page atomically, creating its folder. It needs no network."""
    write_text(Path(path), render(report))


def render(report: ReportData) -> str:
    """Return the page as HTML."""
    scores, html = report.scores, macros("evaluation/report/templates/report.html")
    choose = "Click a cell to show that layer and head in the sentence above."
    validations = [row["learned_scalars"] for row in report.history if row.get("learned_scalars")]
    last_scalars = validations[-1].items() if validations else ()
    scalars = [(name, "  ".join(map(format_number, values))) for name, values in last_scalars]
    errors = head_maps.alignment_error(scores, report.head_scores)
    diagnostics = head_maps.diagnostics(report.diagnostics)
    attention = f"Measures of each layer and head over the hypotheses (–: not defined, they are too short). {choose}"
    sections = {
        "Scores": (html.summary(scores, report.notes), ""),
        "Examples": (html.examples(report.browser), "The best, the median and the worst sentence by chrF."),
        "Sentences": (report.browser.render(), ""),
        "Parts": (html.breakdown(scores), "Quality by category of sentences."),
        "Alignment": (html.alignment(errors, scores.get("alignment")), f"Of every layer and head. {choose}"),
        "Training": (training_curves(report.history), ""),
        "Learned": (html.learned(scalars), "Learned scalars of the attention."),
        "Diagnostics": (html.attention(diagnostics), attention),
        "Data": (html.data(report.data, report), ""),
        "Provenance": (html.provenance(report), ""),
    }
    return html_document(report.title, report.name, html.identity(report), sections, script=read_resource("page.js"))
