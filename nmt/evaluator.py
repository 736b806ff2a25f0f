"""Evaluation of a test set into a report folder: hypotheses, scores, alignments, diagnostics, pictures and a page."""

import hashlib
import json
import logging
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nmt import __version__, alignment, metrics, significance
from nmt.aligner import CHUNK, Aligner, chosen
from nmt.alignment import AlignmentConfig, AlignmentScore, Choice, Gold
from nmt.alignment.record import Aligned as AlignedPair
from nmt.alignment.record import writing
from nmt.breakdown import breakdown, out_of_order
from nmt.data import DataConfig, Pair
from nmt.diagnostics import Collector, importance
from nmt.evaluation import Aligned, Evaluation, EvaluationSet, Given, evaluation_sets, training_frequencies
from nmt.files import write_text
from nmt.metrics import MetricsConfig, Result
from nmt.report import Browser, Report, ReportSentence, SplitReport, heatmap, write_page
from nmt.translator import Translation, Translator

__all__ = ["About", "EvaluationSet", "Scored", "evaluate", "evaluate_sets", "evaluation_sets", "score", "versions"]

log = logging.getLogger(__name__)

NUM_HEATMAPS = 10
FILES = ("pharaoh", "npz")


@dataclass
class Scored:
    """Translations of a test set and what they are worth; `alignment` is over the references, when there is gold."""

    translations: list[Translation]
    scores: dict[str, Result]
    alignment: AlignmentScore | None

    def numbers(self) -> dict[str, float]:
        """Scores by name: sacreBLEU's from 0 to 100, alignment error from 0 to 1."""
        found = {name: result.score for name, result in self.scores.items()}
        return found if self.alignment is None else {**found, "aer": self.alignment.aer}


@dataclass
class About:
    """What a report says beside the results: names of run and test set, how the run was made, and its history."""

    name: str = ""
    test: str = "test"
    command: str = ""
    config: str = ""
    history: Sequence[dict[str, Any]] = ()
    data: Sequence[SplitReport] = field(default_factory=list)
    texts: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)  # see `nmt.runs.texts`


def score(
    translator: Translator,
    pairs: Sequence[Pair],
    gold: Sequence[Gold] | None,
    config: MetricsConfig,
    reading: AlignmentConfig | None = None,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Scored:
    """Translates and scores, with the code and the search of an evaluation: what validation does.

    Where there is gold the references are aligned by the layer and head that are best on these very sentences, unless
    the options `reading` fix them.

    Raises:
        ValueError: gold of another number of sentences.
    """
    translations = translator.translate([pair.source for pair in pairs], on_batch=on_batch)
    scores = metrics.score([t.text for t in translations], [pair.target for pair in pairs], config)
    aligned: AlignmentScore | None = None
    if gold is not None:
        aligner = Aligner(translator, reading or AlignmentConfig())
        choice = aligner.choose(pairs, gold, "the sentences themselves")
        if choice is not None and aligner.config.links == "argmax":
            aligned = choice.scores[choice.reading]
        elif choice is not None:
            found = aligner.against(pairs, gold)
            aligned = found.score if found is not None else None
    return Scored(translations, scores, aligned)


def evaluate(
    aligner: Aligner,
    choice: Choice | None,
    test: EvaluationSet,
    config: MetricsConfig,
    directory: Path,
    about: About,
    given: Given | None = None,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluates a test set and writes the report folder, every file whole or not at all.

    Args:
        aligner: holds the model.
        choice: which layer and head alignments are read from; None for a model without attention.
        test: texts, and word alignments of the references or None.
        config: which scores.
        directory: the report folder; what it held under the same names is replaced.
        about: what else the page says.
        given: translations, other systems and other scores.
        on_batch: called with the number of sentences translated so far.

    Returns:
        everything that was found.

    Raises:
        ValueError: what was given does not fit the test set.
    """
    given = given or Given()
    translator, pairs = aligner.translator, test.pairs
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    if given.hypotheses is None:
        translations = translator.translate(sources, on_batch=on_batch)
    else:
        ids = translator.tokenizer.encode_target(given.hypotheses)
        rows = zip(given.hypotheses, ids, strict=True)
        translations = [Translation(text=text, tokens=own, score=math.nan, cut=False) for text, own in rows]
    texts = [translation.text for translation in translations]
    result = Evaluation(about.test, pairs, translations, metrics.score(texts, references, config))
    result.notes += _notes(translations, sources, references, choice)
    result.intervals = significance.intervals(texts, references, config)
    result.sentence_chrf = metrics.sentence_chrf(texts, references, config)
    if given.baselines:
        name = about.name or "this"
        name += " (this)" if name in given.baselines else ""
        result.comparisons = significance.paired({**given.baselines, name: texts}, references, config)
    result.outside = given.outside
    if config.breakdown:
        result.breakdown = breakdown(sources, texts, references, config, given.frequencies)
    if choice is not None and test.gold is not None:
        against = aligner.against(pairs, test.gold)
        assert against is not None, "a model with attention"
        result.alignment = Aligned(against.score, choice, against.links, against.readings)
    _write(result, aligner if choice is not None else None, directory, about)
    return result


def _notes(
    translations: Sequence[Translation], sources: Sequence[str], references: Sequence[str], choice: Choice | None
) -> list[str]:
    notes = []
    if num_cut := sum(translation.cut for translation in translations):
        notes.append(
            f"{num_cut} of {len(translations)} translations reached the longest length allowed and end there: "
            "raise search.max_ratio or search.max_extra if they should not."
        )
    correlation = out_of_order(sources, references)
    if correlation is not None:
        notes.append(
            f"The lengths of sources and references hardly go together (correlation {correlation:.2f}): are the "
            "references in another order, or of another text?"
        )
    if choice is None:
        notes.append("This model has no attention: there are no alignments.")
    return notes


def _write(result: Evaluation, aligner: Aligner | None, directory: Path, about: About) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").unlink(missing_ok=True)
    write_text(directory / "hypotheses.txt", "".join(f"{t.text}\n" for t in result.translations))
    browser = _write_attention(result, aligner, directory)
    if result.alignment is not None:
        alignment.write_pharaoh(directory / "reference_alignments.pharaoh", result.alignment.links)
        _write_json(directory / "readings.json", result.readings())
    _write_json(directory / "scores.json", result.primitive())
    if result.diagnostics is not None:
        _write_json(directory / "diagnostics.json", result.diagnostics.primitive())
        for line in result.diagnostics.table():
            log.info("%s", line)
    rows = (json.dumps(row, ensure_ascii=False) for row in result.sentences())
    write_text(directory / "sentences.jsonl", "".join(f"{row}\n" for row in rows))
    for note in result.notes:
        log.info("%s", note)
    page = Report(
        title=f"{about.test}: {len(result.pairs)} sentences",
        name=about.name,
        scores=result.primitive(),
        readings=result.readings(),
        diagnostics=result.diagnostics.primitive() if result.diagnostics is not None else {},
        history=about.history,
        data=about.data,
        texts={**about.texts, about.test: _digests(result.pairs)},
        command=about.command,
        versions=versions(),
        config=about.config,
        notes=result.notes,
        browser=browser,
    )
    write_page(directory / "report.html", page)
    write_text(directory / "config.yaml", about.config)  # comes last: who finds it has a whole report


def _write_attention(result: Evaluation, aligner: Aligner | None, directory: Path) -> Browser:
    """alignments.npz, alignments.pharaoh, heat maps and diagnostics of the hypotheses; what the page shows of them."""
    pairs, translations = result.pairs, result.translations
    texts = [(pair.source, translation.text) for pair, translation in zip(pairs, translations, strict=True)]
    if aligner is None:
        for name in FILES:
            (directory / f"alignments.{name}").unlink(missing_ok=True)
        (directory / "diagnostics.json").unlink(missing_ok=True)
        browser = Browser()
        for row in result.sentences():
            browser.add(_sentence(row))
        return browser
    reading = aligner.reading
    assert reading is not None, "it was chosen"
    browser, collector, rows = Browser(*reading[:3], str(reading)), Collector(), iter(result.sentences())
    with writing(directory, FILES, weights=True) as write:
        for begin in range(0, len(pairs), CHUNK):
            part = slice(begin, begin + CHUNK)
            sources = aligner.tokenizer.encode_source([pair.source for pair in pairs[part]])
            found = aligner.align_ids(texts[part], sources, [t.tokens for t in translations[part]])
            write(found)
            for one in found:
                collector.add(one.weights, one.source_pieces, one.source)
                browser.add(_sentence(next(rows), one), one.weights)
            for i, one in enumerate(found[: max(NUM_HEATMAPS - begin, 0)], start=begin):
                picture = directory / "heatmaps" / f"{i + 1:04d}.png"
                drawn = heatmap.draw(picture, one.weights.mean((0, 1)), one.source_pieces, one.target_pieces)
                result.notes += [f"{picture.name}: {note}" for note in drawn]
    result.diagnostics = collector.result()
    if result.diagnostics is not None and aligner.config.importance_on:
        some = pairs[: aligner.config.importance_on]
        result.diagnostics.importance = importance(aligner.translator, some)
        result.diagnostics.num_importance = len(some)
    return browser


def _digests(pairs: Sequence[Pair]) -> list[list[str]]:
    """SHA-256 of each side of a test set, as of a file of its lines."""
    sides = {name: "".join(f"{pair[side]}\n" for pair in pairs) for side, name in enumerate(("sources", "references"))}
    return [[name, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()] for name, text in sides.items()]


def _sentence(row: dict[str, Any], one: AlignedPair | None = None) -> ReportSentence:
    """A row of sentences.jsonl for the page, with the names of its subwords and their links."""
    texts = ("id", "source", "reference", "hypothesis", "cut", "chrf")
    values = {"chrF": row["chrf"], **{name.replace("_", " "): row[name] for name in row if name not in texts}}
    given = (row["source"], row["reference"], row["hypothesis"], values)
    if one is None:
        return ReportSentence(*given)
    return ReportSentence(*given, one.source_pieces, one.target_pieces, one.source_words, one.target_words, one.links)


def evaluate_sets(
    translator: Translator,
    config: MetricsConfig,
    sets: Sequence[EvaluationSet],
    directory: Path,
    about: About,
    *,
    reading: AlignmentConfig | None = None,
    data: DataConfig | None = None,
    given: Sequence[Given] | None = None,
) -> list[Evaluation]:
    """Evaluates each test set into `directory`, or its own folder inside it.

    Args:
        reading: how alignments are read off attention.
        data: the run's, whose validation set decides between layers and heads, and whose training text says which
            words are rare; None: neither is there.
        given: what is given beside the model, for each test set; None: nothing.
    """
    texts = [pair for test in sets for pair in test.pairs]
    aligner, choice = chosen(translator, reading or AlignmentConfig(), data, texts)
    known = training_frequencies(data, sets) if data is not None and config.breakdown else None
    results = []
    for test, own in zip(sets, given or [Given()] * len(sets), strict=True):
        folder = directory / test.folder
        part = SplitReport(test.name, len(test.pairs), len(test.pairs), {}, test.repaired)
        here = replace(about, test=test.name, data=[*about.data, part])
        own = replace(own, frequencies=known)
        result = evaluate(aligner, choice, test, config, folder, here, own)
        for line in result.lines():
            log.info("%s: %s", test.name, line)
        log.info("%s: %s", test.name, folder / "report.html")
        results.append(result)
    return results


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    packages = ("torch", "sentencepiece", "sacrebleu", "numpy", "datasets")
    return {"nmt": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
