"""Evaluation of a test set: translations, scores, how sure they are, and alignments, into a report folder."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nmt import checkpoint
from nmt.alignment import (
    AlignmentConfig,
    AlignmentScore,
    AlignmentSource,
    GoldAlignment,
    HeadSelection,
    StoredAlignmentSource,
)
from nmt.data import DataConfig, SentencePair
from nmt.evaluation import metrics, significance
from nmt.evaluation.breakdown import alignment_by_length, breakdown, length_correlation_warning
from nmt.evaluation.metrics import MetricsConfig, MetricScore
from nmt.evaluation.report import SplitStats
from nmt.evaluation.report_writer import About, package_versions, write_report
from nmt.evaluation.results import (
    EvaluationInputs,
    EvaluationResult,
    EvaluationSet,
    ReferenceAlignment,
    load_test_sets,
    training_frequencies,
)
from nmt.inference.aligner import Aligner, aligner_with_selected_head
from nmt.inference.translator import Translation, Translator

__all__ = [
    "About",
    "EvaluationSet",
    "ValidationResult",
    "evaluate",
    "evaluate_sets",
    "load_test_sets",
    "package_versions",
    "translate_and_score",
]

log = logging.getLogger(__name__)


@dataclass
class ValidationResult:
    """Translations of a test set and what they are worth; `alignment` is over the references, when there is gold, and
    `reading` where it was read from."""

    translations: list[Translation]
    scores: dict[str, MetricScore]
    alignment: AlignmentScore | None
    alignment_source: AlignmentSource | None = None

    def flat_scores(self) -> dict[str, float]:
        """Scores by name: sacreBLEU's from 0 to 100, alignment error from 0 to 1."""
        found = {name: result.score for name, result in self.scores.items()}
        return found if self.alignment is None else {**found, "aer": self.alignment.aer}


def translate_and_score(
    translator: Translator,
    pairs: Sequence[SentencePair],
    gold: Sequence[GoldAlignment] | None,
    config: MetricsConfig,
    reading: AlignmentConfig | None = None,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> ValidationResult:
    """Translates and scores, with the code and the search of an evaluation: what validation does.

    Where there is gold the references are aligned by the layer and head that are best on these very sentences, unless
    the options `reading` fix them.

    Raises:
        ValueError: gold of another number of sentences.
    """
    translations = translator.translate([pair.source for pair in pairs], on_batch=on_batch)
    scores = metrics.corpus_score([t.text for t in translations], [pair.target for pair in pairs], config)
    aligned: AlignmentScore | None = None
    choice: HeadSelection | None = None
    if gold is not None:
        aligner = Aligner(translator, reading or AlignmentConfig())
        choice = aligner.select_head(pairs, gold, "the sentences themselves")
        if choice is not None:
            aligned = choice.scores[choice.reading]
    return ValidationResult(translations, scores, aligned, None if choice is None else choice.reading)


def evaluate(
    aligner: Aligner,
    choice: HeadSelection | None,
    test: EvaluationSet,
    config: MetricsConfig,
    directory: Path,
    about: About,
    given: EvaluationInputs | None = None,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> EvaluationResult:
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
    given = given or EvaluationInputs()
    translator, pairs = aligner.translator, test.pairs
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    if given.hypotheses is None:
        translations = translator.translate(sources, on_batch=on_batch)
    else:
        ids = translator.tokenizer.encode_target(given.hypotheses)
        rows = zip(given.hypotheses, ids, strict=True)
        translations = [Translation(text=text, tokens=own, score=math.nan, truncated=False) for text, own in rows]
    texts = [translation.text for translation in translations]
    result = EvaluationResult(about.test, pairs, translations, metrics.corpus_score(texts, references, config))
    result.alignment_source = None if choice is None else choice.reading
    result.notes += _notes(translations, sources, references, choice)
    result.intervals = significance.bootstrap_intervals(texts, references, config)
    result.sentence_chrf = metrics.sentence_chrf(texts, references, config)
    if given.baselines:
        name = about.name or "this"
        name += " (this)" if name in given.baselines else ""
        result.comparisons = significance.paired_test({**given.baselines, name: texts}, references, config)
    result.external_scores = given.external_scores
    if config.breakdown:
        result.breakdown = breakdown(sources, texts, references, config, given.frequencies)
    if choice is not None and test.gold is not None:
        against = aligner.evaluate(pairs, test.gold)
        assert against is not None, "a model with attention"
        by_length = alignment_by_length(sources, against.links, test.gold)
        result.alignment = ReferenceAlignment(against.score, choice, against.links, against.readings, by_length)
    if translator.member is not None and choice is not None:
        which = f"model {translator.member} of the ensemble"
        result.notes.append(f"Alignments and everything about attention are those of {which}.")
    write_report(result, aligner if choice is not None else None, directory, about)
    return result


def _notes(
    translations: Sequence[Translation], sources: Sequence[str], references: Sequence[str], choice: HeadSelection | None
) -> list[str]:
    notes = []
    if num_cut := sum(translation.truncated for translation in translations):
        notes.append(
            f"{num_cut} of {len(translations)} translations reached the longest length allowed and end there: "
            "raise search.max_length_ratio or search.max_length_offset if they should not."
        )
    correlation = length_correlation_warning(sources, references)
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
    given: Sequence[EvaluationInputs] | None = None,
    carrier: Path | None = None,
) -> list[EvaluationResult]:
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
    aligner, choice = aligner_with_selected_head(translator, reading, data, texts)
    if carrier is not None and choice is not None:
        _carry(carrier, StoredAlignmentSource(choice.reading, choice.by))
    known = training_frequencies(data, sets) if data is not None and config.breakdown else None
    results = []
    for test, own in zip(sets, given or [EvaluationInputs()] * len(sets), strict=True):
        folder = directory / test.folder
        part = SplitStats(test.name, len(test.pairs), len(test.pairs), {}, test.repaired)
        here = replace(about, test=test.name, data=[*about.data, part])
        own = replace(own, frequencies=known)
        result = evaluate(aligner, choice, test, config, folder, here, own)
        for line in result.summary_lines():
            log.info("%s: %s", test.name, line)
        log.info("%s: %s", test.name, folder / "report.html")
        results.append(result)
    return results


def _carry(path: Path, carried: StoredAlignmentSource) -> None:
    """Has a checkpoint say where its alignments are read from."""
    try:
        checkpoint.update_metadata(path, {"alignment_source": carried.to_dict()})
    except OSError as error:
        log.warning("where alignments are read from is not kept in the checkpoint: %s", error)
