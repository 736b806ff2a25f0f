"""The report folder of an evaluation: its files, the attention of its hypotheses, pictures and a page."""

import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nmt import __version__, alignment
from nmt.alignment.writers import AlignedPair, alignment_writers
from nmt.data import SentencePair
from nmt.evaluation.attention_diagnostics import DiagnosticsAccumulator, head_importance
from nmt.evaluation.report import ReportData, ReportSentence, SentenceBrowser, heatmap, write_page
from nmt.evaluation.results import EvaluationResult
from nmt.inference.aligner import ALIGN_CHUNK_PAIRS, WORDS_CHANGED, Aligner
from nmt.runtime.files import write_text

log = logging.getLogger(__name__)

NUM_HEATMAPS = 10
FILES = ("pharaoh", "npz")
About = ReportData
"""What a report says beside the results: names of run and test set, how the run was made, and its history."""


def write_report(result: EvaluationResult, aligner: Aligner | None, directory: Path, about: About) -> None:
    """Write everything; the diagnostics of the hypotheses are measured on the way and added to the result.

    Args:
        result: everything that was measured.
        aligner: holds the model; None for a model without attention.
        directory: the report folder; what it held under the same names is replaced.
        about: what else the page says.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "reference_alignments.pharaoh", "head_alignment_scores.json", "diagnostics.json"):
        (directory / name).unlink(missing_ok=True)
    write_text(directory / "hypotheses.txt", "".join(f"{t.text}\n" for t in result.translations))
    browser = _write_attention(result, aligner, directory)
    scores, readings = result.to_dict(), result.head_scores()
    diagnostics = result.diagnostics.to_dict() if result.diagnostics is not None else {}
    if result.alignment is not None:
        alignment.write_pharaoh(directory / "reference_alignments.pharaoh", result.alignment.links)
        _write_json(directory / "head_alignment_scores.json", readings)
    _write_json(directory / "scores.json", scores)
    if result.diagnostics is not None:
        _write_json(directory / "diagnostics.json", diagnostics)
        for line in result.diagnostics.table():
            log.info("%s", line)
    rows = (json.dumps(row, ensure_ascii=False) for row in result.sentences())
    write_text(directory / "sentences.jsonl", "".join(f"{row}\n" for row in rows))
    for note in result.notes:
        log.info("%s", note)
    page = replace(
        about,
        title=f"{about.test}: {len(result.pairs)} sentences",
        scores=scores,
        readings=readings,
        diagnostics=diagnostics,
        texts={**about.texts, about.test: _digests(result.pairs)},
        versions=package_versions(),
        notes=result.notes,
        browser=browser,
    )
    write_page(directory / "report.html", page)
    write_text(directory / "config.yaml", about.config)  # comes last: who finds it has a whole report


def _write_attention(result: EvaluationResult, aligner: Aligner | None, directory: Path) -> SentenceBrowser:
    """Write links, weights, heat maps and diagnostics of the hypotheses; return what the page shows of them."""
    pairs, translations, rows = result.pairs, result.translations, result.sentences()
    for picture in (directory / "heatmaps").glob("[0-9]*.png"):
        picture.unlink()
    if aligner is None:
        for name in FILES:
            (directory / f"alignments.{name}").unlink(missing_ok=True)
        browser = SentenceBrowser()
        for row in rows:
            browser.add(_sentence(row))
        return browser
    reading, changed = aligner.reading, 0
    assert reading is not None, "it was chosen"
    alignment_source_text = aligner.translator.describe(reading)
    browser, collector = SentenceBrowser(*reading[:3], alignment_source_text), DiagnosticsAccumulator()
    with alignment_writers(directory, FILES, weights=True) as add:
        for begin in range(0, len(pairs), ALIGN_CHUNK_PAIRS):
            part = slice(begin, begin + ALIGN_CHUNK_PAIRS)
            texts = [(pair.source, t.text) for pair, t in zip(pairs[part], translations[part], strict=True)]
            sources = aligner.tokenizer.encode_source([pair.source for pair in pairs[part]])
            aligned = aligner.align_ids(texts, sources, [t.tokens for t in translations[part]])
            add(aligned)
            for i, (one, row) in enumerate(zip(aligned, rows[part], strict=True), start=begin):
                changed += not one.words_match
                collector.add(one.weights, one.source_subwords, one.source)
                browser.add(_sentence(row, one), one.weights)
                if i < NUM_HEATMAPS:
                    picture, weights = directory / "heatmaps" / f"{i + 1:04d}.png", reading.plot_rows(one.weights)
                    labels = one.source_subwords, one.target_subwords[: len(weights)]
                    notes = heatmap.draw(picture, weights, *labels, title=alignment_source_text)
                    result.notes += [f"{picture.name}: {note}" for note in notes]
    if changed:
        result.notes.append(f"{changed} of {len(pairs)} sentences have no links: {WORDS_CHANGED}.")
    result.diagnostics = collector.result()
    if result.diagnostics is not None and aligner.config.head_importance_pairs:
        some = pairs[: aligner.config.head_importance_pairs]
        result.diagnostics.importance = head_importance(aligner.translator, some)
        result.diagnostics.num_importance = len(some)
    return browser


def _digests(pairs: Sequence[SentencePair]) -> list[list[str]]:
    """Return the SHA-256 of each side of a test set, as of a file of its lines."""
    sides = {name: "".join(f"{pair[side]}\n" for pair in pairs) for side, name in enumerate(("sources", "references"))}
    return [[name, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()] for name, text in sides.items()]


def _sentence(row: dict[str, Any], one: AlignedPair | None = None) -> ReportSentence:
    """Return a row of sentences.jsonl for the page, with the names of its subwords and their links."""
    others = row.keys() - {"id", "source", "reference", "hypothesis", "truncated", "chrf"}
    values = {"chrF": row["chrf"], **{name.replace("_", " "): row[name] for name in row if name in others}}
    shown = row["source"], row["reference"], row["hypothesis"], values
    if one is None:
        return ReportSentence(*shown)
    return ReportSentence(
        *shown, one.source_subwords, one.target_subwords, one.source_words, one.target_words, one.links
    )


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def package_versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    packages = ("torch", "sentencepiece", "sacrebleu", "numpy", "datasets")
    return {"nmt": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
