"""Evaluation of a test set: translations, scores, how sure they are, and alignments, into a report folder."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nmt import checkpoint
from nmt.alignment import AlignmentConfig, AlignmentScore, Carried, Choice, Gold, Reading
from nmt.data import DataConfig, Pair
from nmt.evaluation import metrics, significance
from nmt.evaluation.breakdown import alignment_by_length, breakdown, out_of_order
from nmt.evaluation.metrics import MetricsConfig, Result
from nmt.evaluation.report import SplitReport
from nmt.evaluation.report_writer import About, versions, write
from nmt.evaluation.results import Aligned, Evaluation, EvaluationSet, Given, evaluation_sets, training_frequencies
from nmt.inference.aligner import Aligner, chosen
from nmt.inference.translator import Translation, Translator

__all__ = ["About", "EvaluationSet", "Scored", "evaluate", "evaluate_sets", "evaluation_sets", "score", "versions"]

log = logging.getLogger(__name__)


@dataclass
class Scored:
    """Translations of a test set and what they are worth; `alignment` is over the references, when there is gold, and
    `reading` where it was read from."""

    translations: list[Translation]
    scores: dict[str, Result]
    alignment: AlignmentScore | None
    reading: Reading | None = None

    def numbers(self) -> dict[str, float]:
        """Scores by name: sacreBLEU's from 0 to 100, alignment error from 0 to 1."""
        found = {name: result.score for name, result in self.scores.items()}
        return found if self.alignment is None else {**found, "aer": self.alignment.aer}


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
    choice: Choice | None = None
    if gold is not None:
        aligner = Aligner(translator, reading or AlignmentConfig())
        choice = aligner.choose(pairs, gold, "the sentences themselves")
        if choice is not None:
            aligned = choice.scores[choice.reading]
    return Scored(translations, scores, aligned, None if choice is None else choice.reading)


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
    result.reading = None if choice is None else choice.reading
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
        by_length = alignment_by_length(sources, against.links, test.gold)
        result.alignment = Aligned(against.score, choice, against.links, against.readings, by_length)
    if translator.member is not None and choice is not None:
        which = f"model {translator.member} of the ensemble"
        result.notes.append(f"Alignments and everything about attention are those of {which}.")
    write(result, aligner if choice is not None else None, directory, about)
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
    carrier: Path | None = None,
) -> list[Evaluation]:
    """Evaluates each test set into `directory`, or its own folder inside it.

    Args:
        reading: how alignments are read off attention.
        data: the run's, whose validation set decides between layers and heads, and whose training text says which
            words are rare; None: neither is there.
        given: what is given beside the model, for each test set; None: nothing.
        carrier: the model's checkpoint, which from now on says where alignments are read from; None: none is changed.
    """
    texts = [pair for test in sets for pair in test.pairs]
    reading = reading or AlignmentConfig()
    aligner, choice = chosen(translator, reading, data, texts)
    if carrier is not None and choice is not None:
        _carry(carrier, Carried(choice.reading, choice.by))
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


def _carry(path: Path, carried: Carried) -> None:
    """Has a checkpoint say where its alignments are read from."""
    try:
        checkpoint.amend(path, {"reading": carried.primitive()})
    except OSError as error:
        log.warning("where alignments are read from is not kept in the checkpoint: %s", error)
