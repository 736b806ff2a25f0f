"""One self-contained HTML page about a run: scores, curves, data, configuration and attention sentence by sentence."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.files import write_text
from nmt.report.chart import charts
from nmt.report.style import CSS, SCRIPT

MAX_POSITIONS = 120
"""Rows and columns of a matrix shown at most; longer sentences are cut, with a note."""
END = "</s>"
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass
class ReportSentence:
    """One test sentence.

    Attributes:
        source: the text translated.
        reference: the translation by people; None when there is none.
        hypothesis: the model's translation.
        source_labels: S labels of the matrix columns, words or subwords.
        target_labels: T labels of the matrix rows.
        matrix: (T, S) attention weights between 0 and 1; None for a model without attention.
    """

    source: str
    reference: str | None
    hypothesis: str
    source_labels: Sequence[str] = ()
    target_labels: Sequence[str] = ()
    matrix: npt.NDArray[Any] | None = None


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
        scores: score and signature of each metric (`nmt.metrics.Result` fits).
        alignment: alignment scores by name between 0 and 1 (`AlignmentScore._asdict()` fits); None without a gold.
        history: rows of metrics.jsonl; `nmt.report.chart` says which names are read.
        data: one entry for each part of the data.
        command: the command line, exactly as given.
        versions: version by package.
        config: the composed configuration as text.
        notes: what a reader should know, one sentence each.
        sentences: examples, shown in this order.
    """

    title: str
    name: str
    scores: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    alignment: Mapping[str, float] | None = None
    history: Sequence[Mapping[str, Any]] = ()
    data: Sequence[SplitReport] = ()
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    notes: Sequence[str] = ()
    sentences: Sequence[ReportSentence] = ()


def write_page(path: str | Path, report: Report, *, max_sentences: int = 30) -> None:
    """Writes the page. It needs no network and appears whole or not at all.

    Args:
        path: where to; its folder is made.
        report: what to show.
        max_sentences: sentences shown at most; the page says how many there are.

    Raises:
        ValueError: a sentence's labels do not fit its matrix, or a weight is negative or not a finite number.
    """
    text = render(report, max_sentences=max_sentences)
    write_text(Path(path), text)


def render(report: Report, *, max_sentences: int = 30) -> str:
    """The page as text; arguments and errors as in `write_page`."""
    sections = [
        _section("Notes", _list(report.notes)),
        _section("Scores", _scores(report)),
        _section("Training", charts(report.history)),
        _section("Learned by the attention", _quantities(report.history)),
        _section("Data", _data(report.data)),
        _section("Sentences", _sentences(report.sentences, max_sentences)),
        _section("How it was made", _provenance(report)),
    ]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    # Nothing may be fetched, and no script but ours may run, whatever the sentences hold.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)} – {escape(report.name)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f'<header><h1 dir="auto">{escape(report.title)}</h1><p class="soft">run <code>{escape(report.name)}</code></p>'
        f"</header>\n<main>\n{''.join(sections)}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """`text` safe in HTML content and in quoted attributes, with a placeholder for what HTML cannot hold."""
    return html.escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>\n" if body else ""


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>" if items else ""


def _scores(report: Report) -> str:
    cards = [
        f'<div class="card">{escape(_metric_name(name))}<b>{score:.2f}</b><code>{escape(signature)}</code></div>'
        for name, (score, signature) in report.scores.items()
    ]
    if report.alignment is not None:
        names = {"aer": "Alignment error rate", "f1": "Alignment F1"}
        cards += [
            f'<div class="card">{escape(names.get(name, f"Alignment {name}"))}<b>{value:.3f}</b>'
            f'<span class="soft small">{"lower" if name == "aer" else "higher"} is better</span></div>'
            for name, value in report.alignment.items()
        ]
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _metric_name(name: str) -> str:
    return {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++", "ter": "TER (lower is better)"}.get(name, name)


def _quantities(history: Sequence[Mapping[str, Any]]) -> str:
    """Gates, temperatures and divisors at the last validation, one row for each attention that has some."""
    found = next((row["quantities"] for row in reversed(history) if row.get("quantities")), None)
    if found is None:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{"  ".join(f"{value:.3f}" for value in values)}</td></tr>'
        for name, values in found.items()
    )
    head = '<thead><tr><th scope="col">quantity</th><th scope="col">heads, at the last validation</th></tr></thead>'
    table = f'<table class="data">{head}<tbody>{rows}</tbody></table>'
    return f'<div class="scroll" role="region" aria-label="Learned by the attention" tabindex="0">{table}</div>'


def _data(parts: Sequence[SplitReport]) -> str:
    if not parts:
        return ""

    def reasons(counts: Mapping[str, int]) -> str:
        return "<br>".join(f"{count:,} {escape(reason)}" for reason, count in counts.items() if count) or "none"

    rows = "".join(
        f'<tr><th scope="row">{escape(part.name)}</th><td>{part.num_read:,}</td><td>{part.num_kept:,}</td>'
        f"<td>{reasons(part.dropped)}</td><td>{reasons(part.repaired)}</td></tr>"
        for part in parts
    )
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("part", "pairs read", "kept", "dropped because", "repaired")
    )
    table = f'<table class="data"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="scroll" role="region" aria-label="Data" tabindex="0">{table}</div>'


def _provenance(report: Report) -> str:
    parts = []
    if report.command:
        parts.append(f"<h3>Command</h3><pre>{escape(report.command)}</pre>")
    if report.versions:
        items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(v)}</dd>" for name, v in report.versions.items())
        parts.append(f"<details><summary>Versions</summary><dl>{items}</dl></details>")
    if report.config:
        parts.append(f"<details><summary>Configuration</summary><pre>{escape(report.config)}</pre></details>")
    return "\n".join(parts)


def _sentences(sentences: Sequence[ReportSentence], limit: int) -> str:
    if not sentences:
        return ""
    shown = [_sentence(number, sentence) for number, sentence in enumerate(sentences[:limit], start=1)]
    intro = f"{len(shown)} of {len(sentences):,} sentences. " if len(shown) < len(sentences) else ""
    return (
        f'<p class="soft small">{intro}Rows are target, columns source; numbers are hundredths. '
        "Point at a cell, or move with the arrow keys, to read a weight.</p>\n" + "\n".join(shown)
    )


def _sentence(number: int, sentence: ReportSentence) -> str:
    texts = (("source", sentence.source), ("reference", sentence.reference), ("hypothesis", sentence.hypothesis))
    items = "".join(f'<dt>{name}</dt><dd dir="auto">{escape(text)}</dd>' for name, text in texts if text is not None)
    matrix = "" if sentence.matrix is None else _matrix(number, sentence, np.asarray(sentence.matrix, np.float64))
    return f'<article id="sentence-{number}"><h3>Sentence {number}</h3><dl>{items}</dl>{matrix}</article>'


def _matrix(number: int, sentence: ReportSentence, weights: npt.NDArray[np.float64]) -> str:
    source, target = sentence.source_labels, sentence.target_labels
    if weights.shape != (len(target), len(source)):
        raise ValueError(
            f"sentence {number}: attention of shape {weights.shape} does not fit"
            f" {len(target)} target and {len(source)} source labels"
        )
    if not weights.size:
        return ""
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"sentence {number}: attention holds values that are negative or not finite numbers")
    heads = "".join(_head(label, "col") for label in source[:MAX_POSITIONS])
    rows = "".join(
        f"<tr>{_head(label, 'row')}{_cells(row[:MAX_POSITIONS])}</tr>"
        for label, row in zip(target[:MAX_POSITIONS], weights, strict=False)
    )
    cut = [
        f"only the first {MAX_POSITIONS} of {len(side)} {name} positions are shown"
        for name, side in (("source", source), ("target", target))
        if len(side) > MAX_POSITIONS
    ]
    note = f'<p class="soft small">{"; ".join(cut)}</p>' if cut else ""
    return (
        f'<div class="scroll"><table class="heat" dir="ltr" aria-label="Attention, sentence {number}">'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'{note}<output aria-live="polite"></output>'
    )


def _head(label: str, scope: str) -> str:
    style = ' class="end"' if label == END else ""
    return f'<th scope="{scope}"{style}><span dir="auto">{escape(label)}</span></th>'


def _cells(row: Iterable[float]) -> str:
    cells = []
    for weight in row:
        number = f"{weight:.3f}"
        style = "" if number == "0.000" else f' style="--w:{min(weight, 1.0):.3g}"'
        high = ' class="hi"' if weight >= 0.58 else ""
        shown = f"{min(round(weight * 100), 100)}" if weight >= 0.1 else ""
        cells.append(f'<td tabindex="-1"{high}{style} title="{number}">{shown}</td>')
    return "".join(cells)
