"""languages.html and languages.json: all directions of a model beside each other."""

import json
import logging
import statistics
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from nmt.alignment import AlignmentSource
from nmt.data.corpora import Direction, join
from nmt.evaluation.report import ReportData
from nmt.evaluation.report.html import html_document, macros, printable, read_resource
from nmt.evaluation.report.sentence_browser import subword_row
from nmt.evaluation.report.weight_encoding import LEVELS, AttentionPacker
from nmt.evaluation.results import EvaluationResult, EvaluationSet
from nmt.runtime.files import write_text

log = logging.getLogger(__name__)

NUM_SENTENCES, MAX_TARGETS = 4, 3
"""Sentences of each source language whose attention is shown, and target languages that are beside each other."""
Rows = list[dict[str, Any]]
Evaluated = tuple[EvaluationSet, EvaluationResult]


def write_overview(directory: Path, seen: Set[Direction], evaluated: Sequence[Evaluated], metadata: ReportData) -> None:
    """Write both files into the directory of the reports, of test sets in several directions, of which those `seen` are
    in training; log the means over the directions."""
    by_set: dict[str, Rows] = {}
    members: dict[str, list[Evaluated]] = {}
    for test, result in evaluated:
        pair, location = (test.source_lang, test.target_lang), test.split.rpartition("@")[0]
        name = location if location == "test" else test.folder.removesuffix(f".{join(pair)}")
        names = {"direction": join(pair), "source_lang": pair[0], "target_lang": pair[1], "folder": test.folder}
        numbers = {"seen": pair in seen, "num_sentences": len(test.pairs), "scores": result.flat_scores()}
        by_set.setdefault(name, []).append({**names, **numbers, "details": result.to_dict()})
        members.setdefault(name, []).append((test, result))
    html, content, sections = macros("evaluation/report/templates/languages.html"), {}, dict[str, tuple[Any, str]]()
    for name, rows in by_set.items():
        means = mean_scores(rows)
        for kind, mean in means.items():
            shown = ", ".join(f"{metric.replace('_', ' ')} {value:.2f}" for metric, value in mean["scores"].items())
            log.info("%s: mean of %s directions (%d): %s", name, kind, mean["num_directions"], shown)
        content[name] = {"directions": rows, "means": means}
        sections[name.capitalize()] = html.scores(rows, means), ""
    if (source := evaluated[0][1].alignment_source) is not None:
        about = f"The same source in up to {MAX_TARGETS} languages. Matrices: {source}. Links are outlined."
        texts = _sentences(directory, next(iter(members.values())), seen, source)
        sections["Attention"] = html.attention({"levels": LEVELS, "shift": source.shift, "sentences": texts}), about
    write_text(directory / "languages.json", json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    resources = {"styles": read_resource("languages.css"), "script": read_resource("languages.js")}
    page = html_document("All directions", metadata.name, html.identity(metadata), sections, **resources)
    write_text(directory / "languages.html", page)
    log.info("all directions: %s", directory / "languages.html")


def mean_scores(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return the means of the scores that all directions have: of those in training, of the others, and of all."""
    kinds = {"seen": [row for row in rows if row["seen"]], "zero-shot": [row for row in rows if not row["seen"]]}
    means = {}
    for kind, chosen in {**(kinds if all(kinds.values()) else {}), "all": rows}.items():
        names = [name for name in chosen[0]["scores"] if all(name in row["scores"] for row in chosen)]
        scores = {name: statistics.fmean(row["scores"][name] for row in chosen) for name in names}
        means[kind] = {"num_directions": len(chosen), "scores": scores}
    return means


def _sentences(
    directory: Path, evaluated: Sequence[Evaluated], seen: Set[Direction], source: AlignmentSource
) -> list[dict[str, Any]]:
    """Return of each source language a few sources of different lengths that several directions have, each with its
    translations and their attention."""
    sentences: Rows = []
    for language in dict.fromkeys(test.source_lang for test, _ in evaluated):
        chosen = [(test, result) for test, result in evaluated if test.source_lang == language][:MAX_TARGETS]
        places = [{pair.source: number for number, pair in enumerate(test.pairs)} for test, _ in chosen]
        common = sorted((text for text in places[0] if all(text in place for place in places)), key=len)
        num = min(NUM_SENTENCES, len(common)) if len(chosen) > 1 else 0
        for text in (common[(2 * k + 1) * len(common) // (2 * num)] for k in range(num)):
            sentences.append({"s": printable(text), "lang": language, "of": list[dict[str, Any]]()})
            for (test, result), number in zip(chosen, (place[text] for place in places), strict=True):
                with np.load(directory / test.folder / "alignments.npz", allow_pickle=False) as stored:
                    names = ("source", "target", "source_words", "target_words", "links")
                    subwords = subword_row(*(stored[f"{number}.{name}"].tolist() for name in names))
                    packer = AttentionPacker(source.layer, source.head)
                    packer.add(stored[f"{number}.weights"].astype(np.float64))
                about = {"to": test.target_lang, "seen": (language, test.target_lang) in seen, **subwords}
                about |= {"h": printable(result.translations[number].text), "w": packer.selected(0)}
                sentences[-1]["of"].append(about)
    return sentences
