"""Report directory of an evaluation: its files, the attention of its hypotheses, heat maps and a page."""

import json
import logging
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nmt import __version__, alignment
from nmt.alignment.writers import AlignedPair, alignment_writers
from nmt.evaluation.attention_diagnostics import DiagnosticsAccumulator, head_importance
from nmt.evaluation.report import ReportData, ReportSentence, SentenceBrowser, heatmap, write_page
from nmt.evaluation.results import EvaluationResult
from nmt.inference.aligner import ALIGN_CHUNK_PAIRS, WORDS_CHANGED, Aligner
from nmt.runtime.files import write_text

log = logging.getLogger(__name__)

NUM_HEATMAPS = 10
ALIGNMENT_FORMATS = ("pharaoh", "npz")


def write_scores(result: EvaluationResult, directory: Path) -> None:
    """Write translations and scores, which nothing that fails later may cost; the report is not complete by that."""
    directory.mkdir(parents=True, exist_ok=True)
    names = ("config.yaml", "reference_alignments.pharaoh", "head_alignment_scores.json", "diagnostics.json")
    for name in (*names, "languages.json", "languages.html"):
        (directory / name).unlink(missing_ok=True)
    write_text(directory / "hypotheses.txt", "".join(f"{t.text}\n" for t in result.translations))
    _write_json(directory / "scores.json", result.to_dict())


def write_report(result: EvaluationResult, aligner: Aligner | None, directory: Path, metadata: ReportData) -> None:
    """Write a report, each file atomically; add the diagnostics of the hypotheses' attention to the result.

    Args:
        result: everything else that was measured.
        aligner: holds the model; None for a model without attention.
        directory: the report directory; files of the same names are replaced.
        metadata: names of run and test set, how the run was made, and its history.
    """
    write_scores(result, directory)
    rows = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in result.sentences())
    write_text(directory / "sentences.jsonl", "".join(f"{row}\n" for row in rows))
    browser = _write_attention(result, aligner, directory)
    scores, head_scores, diagnostics = result.to_dict(), result.head_scores(), {}
    if result.alignment is not None:
        alignment.write_pharaoh(directory / "reference_alignments.pharaoh", result.alignment.links)
        _write_json(directory / "head_alignment_scores.json", head_scores)
    if result.diagnostics is not None:
        diagnostics = result.diagnostics.to_dict()
        _write_json(directory / "diagnostics.json", diagnostics)
    for line in [*(result.diagnostics.table() if result.diagnostics is not None else ()), *result.notes]:
        log.info("%s", line)
    page = replace(
        metadata,
        title=f"{metadata.test}: {len(result.pairs):,} sentence{'s' * (len(result.pairs) > 1)}",
        scores=scores,
        head_scores=head_scores,
        diagnostics=diagnostics,
        fingerprints={**metadata.fingerprints, metadata.test: list(result.digests.items())},
        versions=package_versions(),
        notes=[*metadata.notes, *result.notes],
        browser=browser,
    )
    write_page(directory / "report.html", page)
    write_text(directory / "config.yaml", metadata.config)  # last: its presence marks a complete report


def _write_attention(result: EvaluationResult, aligner: Aligner | None, directory: Path) -> SentenceBrowser:
    """Write links, weights, heat maps and diagnostics of the hypotheses; return what the page shows of them."""
    pairs, translations, rows = result.pairs, result.translations, result.sentences()
    for picture in (directory / "heatmaps").glob("[0-9]*.png"):
        picture.unlink()
    if aligner is None:
        for name in ALIGNMENT_FORMATS:
            (directory / f"alignments.{name}").unlink(missing_ok=True)
        browser = SentenceBrowser()
        for row in rows:
            browser.add(_report_sentence(row))
        return browser
    source, num_changed = aligner.source, 0
    assert source is not None, "selected before"
    source_text, title = map(aligner.translator.describe, (source, source.without_rule))
    browser, accumulator = SentenceBrowser(*source[:3], source_text), DiagnosticsAccumulator()
    with alignment_writers(directory, ALIGNMENT_FORMATS, weights=True) as write:
        for begin in range(0, len(pairs), ALIGN_CHUNK_PAIRS):
            chunk = slice(begin, begin + ALIGN_CHUNK_PAIRS)
            texts = [(pair.source, t.text) for pair, t in zip(pairs[chunk], translations[chunk], strict=True)]
            source_ids = aligner.tokenizer.encode_source([text for text, _ in texts])
            aligned = aligner.align_ids(texts, source_ids, [t.tokens for t in translations[chunk]])
            write(aligned)
            for i, (pair, row) in enumerate(zip(aligned, rows[chunk], strict=True), start=begin):
                num_changed += not pair.words_match
                accumulator.add(pair.weights, pair.source_subwords, pair.source)
                browser.add(_report_sentence(row, pair), pair.weights)
                if i < NUM_HEATMAPS:
                    picture, weights = directory / "heatmaps" / f"{i + 1:04d}.png", source.plot_rows(pair.weights)
                    labels = pair.source_subwords, pair.target_subwords[: len(weights)]
                    notes = heatmap.save_heatmap(picture, weights, *labels, title=title)
                    result.notes += [f"{picture.name}: {note}" for note in notes]
    if num_changed:
        result.notes.append(f"{num_changed} of {len(pairs)} sentences have no links: {WORDS_CHANGED}.")
    result.diagnostics = accumulator.result()
    if result.diagnostics is not None and aligner.config.head_importance_pairs:
        sample = pairs[: aligner.config.head_importance_pairs]
        result.diagnostics.importance = head_importance(aligner.translator, sample)
        result.diagnostics.num_importance = len(sample)
    return browser


def _report_sentence(row: dict[str, Any], pair: AlignedPair | None = None) -> ReportSentence:
    """Convert a row of sentences.jsonl for the page, with its subwords and links."""
    fixed = {"id", "source", "reference", "references", "hypothesis", "truncated", "chrf"}
    values = {"chrF": row["chrf"], **{name.replace("_", " "): row[name] for name in row if name not in fixed}}
    texts, further = (row["source"], row["reference"], row["hypothesis"], values), row.get("references", [])[1:]
    if pair is None:
        return ReportSentence(*texts, further=further)
    subwords, words = (pair.source_subwords, pair.target_subwords), (pair.source_words, pair.target_words)
    return ReportSentence(*texts, *subwords, *words, pair.links, further)


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def package_versions() -> dict[str, str]:
    """Return the versions of nmt, Python, and the packages that results depend on."""
    packages = ("torch", "sentencepiece", "sacrebleu", "numpy", "datasets")
    return {"nmt": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
