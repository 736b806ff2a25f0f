"""Evaluation of a model on test sets: translations, scores, their uncertainty, and alignments, into a report folder."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nmt import checkpoint
from nmt.alignment import AlignmentConfig, GoldAlignment, HeadSelection, StoredAlignmentSource
from nmt.data import DataConfig, SentencePair
from nmt.data.corpora import directions, training_corpora
from nmt.evaluation.breakdown import alignment_by_length, breakdown, length_correlation_warning
from nmt.evaluation.language_overview import write_overview
from nmt.evaluation.metrics import MetricsConfig, build_metrics, corpus_score, sentence_chrf
from nmt.evaluation.output_language import make_identifier, output_languages
from nmt.evaluation.report import ReportData, SplitStats
from nmt.evaluation.report_writer import write_report, write_scores
from nmt.evaluation.results import (
    EvaluationInputs,
    EvaluationResult,
    EvaluationSet,
    ReferenceAlignment,
    training_frequencies,
)
from nmt.evaluation.significance import bootstrap_intervals, paired_test
from nmt.evaluation.span_projection import evaluate_spans
from nmt.inference.aligner import Aligner, aligner_with_selected_head
from nmt.inference.translator import Translation, Translator
from nmt.runtime.progress import show_stage
from nmt.search.decode import LENGTH_MULTIPLE

log = logging.getLogger(__name__)

MIN_PROBED, MAX_PROBED = 16, 64
"""Sentences of a validation whose translations show whether the model is trained at all."""


def translate_and_score(
    translator: Translator,
    pairs: Sequence[SentencePair],
    gold: Sequence[GoldAlignment] | None,
    config: MetricsConfig,
    alignment: AlignmentConfig | None = None,
    further: Sequence[Sequence[str]] = (),
    *,
    on_batch: Callable[[int], None] | None = None,
) -> EvaluationResult:
    """Translate and score during training, with the code and the search of an evaluation.

    Where there is gold, the references are aligned by the layer and head that are best on these very sentences, unless
    the options `alignment` fix them. `further` are references of `pairs` beyond the first.

    An untrained model continues every translation up to the longest length allowed, which costs minutes and shows
    nothing. So a probe is translated first, and where nearly all of it is such, it alone is scored, which is logged:
    the result has its pairs only. Otherwise its translations are those that they would be among the others.

    Raises:
        ValueError: gold of another number of sentences.
    """
    sources = [pair.source for pair in pairs]
    probe = _probe([len(ids) for ids in translator.tokenizer.encode_source(sources)])
    first = translator.translate([sources[i] for i in probe], on_batch=on_batch)
    translations = dict(zip(probe, first, strict=True))
    if num_endless := _count_endless(translator, translations, pairs):
        text = "validation: %d of %d translations never end, as without training; scores are of these, of %d sentences"
        log.info(text, num_endless, len(probe), len(pairs))
    else:
        others = [i for i in range(len(pairs)) if i not in translations]
        show = on_batch and (lambda num_done: on_batch(num_done + len(probe)))
        translations |= zip(others, translator.translate([sources[i] for i in others], on_batch=show), strict=True)
    scored = [pairs[i] for i in sorted(translations)]
    texts = [translations[i].text for i in sorted(translations)]
    references = [[column[i] for i in sorted(translations)] for column in further]
    scored_sources, targets = [pair.source for pair in scored], [pair.target for pair in scored]
    scores = corpus_score(texts, targets, config, references, scored_sources)
    result = EvaluationResult("valid", scored, [translations[i] for i in sorted(translations)], scores)
    if gold is not None:
        aligner = Aligner(translator, alignment or AlignmentConfig())
        selection = aligner.select_head(pairs, gold, "the sentences themselves")
        if selection is not None:
            result.alignment_source = selection.source
            result.alignment = ReferenceAlignment(selection.scores[selection.source], selection)
    return result


def _probe(lengths: Sequence[int]) -> list[int]:
    """Return the sentences to translate first, of sources with these lengths; none where that would spare little.

    They are of the most frequent padded length, and so as many as a batch holds by default: no batch is added.
    """
    padded = [length // LENGTH_MULTIPLE for length in lengths]
    most_frequent = max(sorted(set(padded)), key=padded.count, default=0)
    probe = [i for i, length in enumerate(padded) if length == most_frequent][:MAX_PROBED]
    return probe if MIN_PROBED <= len(probe) <= len(lengths) / 2 else []


def _count_endless(translator: Translator, probe: Mapping[int, Translation], pairs: Sequence[SentencePair]) -> int:
    """Return how many translations reached the longest length allowed and are longer than their references, which a
    short limit could cut too; 0 when these are not nearly all."""
    references = translator.tokenizer.encode_target([pairs[i].target for i in probe])
    endless = [t.truncated and len(t.tokens) > len(r) for t, r in zip(probe.values(), references, strict=True)]
    return sum(endless) if sum(endless) > 0.9 * len(endless) else 0


@dataclass
class Evaluator:
    """Evaluation of one model on test sets.

    translator: the model.
    metrics: the scores to compute.
    alignment: how alignments are read off attention.
    data: the data of the run, whose validation set decides between layers and heads, and whose training text shows
        which words are rare; None: neither is available.
    tag: of a corpus, with which everything is translated; None: none.
    """

    translator: Translator
    metrics: MetricsConfig
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    data: DataConfig | None = None
    tag: str | None = None

    def evaluate_sets(
        self,
        sets: Sequence[EvaluationSet],
        directory: Path,
        metadata: ReportData,
        inputs: Sequence[EvaluationInputs] | None = None,
        *,
        checkpoint_path: Path | None = None,
    ) -> list[EvaluationResult]:
        """Evaluate each test set into `directory`, or its own folder inside it.

        Args:
            metadata: names, history and configuration of the run, for the reports.
            inputs: hypotheses, other systems and other scores for each test set.
            checkpoint_path: the checkpoint, in which the alignment source and the notes are stored; None: in none.

        Raises:
            ValueError: the inputs do not fit a test set.
        """
        pairs = [pair for test in sets for pair in test.pairs]
        aligner, selection = aligner_with_selected_head(self.translator, self.alignment, self.data, pairs)
        if checkpoint_path is not None:
            _store_findings(checkpoint_path, selection, metadata.notes)
        frequencies = None
        if self.data is not None and self.metrics.breakdown:
            digests = [digest for _, digest in metadata.fingerprints.get("train", ())]
            frequencies = training_frequencies(self.data, sets, digests)
        identifier = make_identifier(self.data, sets) if self.data is not None and self.metrics.breakdown else None
        results, has_overview = [], len({(test.source_lang, test.target_lang) for test in sets}) > 1
        for test, test_inputs in zip(sets, inputs or [EvaluationInputs()] * len(sets), strict=True):
            folder = directory / test.folder
            of_test, aligner = self._for_direction(test, aligner)
            result = of_test._evaluate(aligner, selection, test, metadata.name, test_inputs, frequencies, folder)
            if identifier is not None:
                texts = [(t.text, pair.target) for t, pair in zip(result.translations, test.pairs, strict=True)]
                result.output_languages = output_languages(identifier, texts, test.target_lang)
            for line in result.summary_lines():
                log.info("%s: %s", test.name, line)
            split = SplitStats(test.name, len(test.pairs), len(test.pairs), {}, test.repaired)
            folders = {other.name: other.folder for other in sets}
            test_metadata = replace(metadata, test=test.name, folders=folders, data=[*metadata.data, split])
            test_metadata.overview = has_overview
            with show_stage(f"{test.name}: attention and report"):
                write_report(result, aligner if selection is not None else None, folder, test_metadata)
            log.info("%s: %s", test.name, folder / "report.html")
            results.append(result)
        if has_overview:
            seen = {part.direction for part in training_corpora(self.data)} if self.data is not None else set()
            write_overview(directory, seen, list(zip(sets, results, strict=True)), metadata)
        return results

    def _for_direction(self, test: EvaluationSet, aligner: Aligner) -> tuple["Evaluator", Aligner]:
        """Return evaluator and aligner for the language that a test set is translated into."""
        if self.data is None or not self.translator.tokenizer.tags:
            return self, aligner
        translator, metrics = self.translator.into(self.data, test.target_lang, self.tag), self.metrics
        if len(directions(self.data)) > 1:
            metrics = metrics.for_language(test.target_lang)
        return replace(self, translator=translator, metrics=metrics), Aligner(
            translator, aligner.config, aligner.source
        )

    def _evaluate(
        self,
        aligner: Aligner,
        selection: HeadSelection | None,
        test: EvaluationSet,
        system_name: str,
        inputs: EvaluationInputs,
        frequencies: Mapping[str, int] | None,
        directory: Path,
    ) -> EvaluationResult:
        """Compute everything but the attention of the hypotheses; write translations and scores as soon as known."""
        sources, references = [pair.source for pair in test.pairs], [pair.target for pair in test.pairs]
        translations = self._translations(test.name, sources, inputs.hypotheses)
        texts = [translation.text for translation in translations]
        scores = corpus_score(texts, references, replace(self.metrics, plugins=[]), test.further)
        result = EvaluationResult(test.name, test.pairs, translations, scores, further=test.further)
        result.digests = test.digests()
        if inputs.hypotheses is None:
            result.digests["model"] = checkpoint.state_digest(self.translator.model.state_dict())
            result.engine = self.translator.engine_used
        write_scores(result, directory)  # before a plugin may fail
        if self.metrics.plugins:
            result.scores = corpus_score(texts, references, self.metrics, test.further, sources)
            for name, metric in build_metrics(replace(self.metrics, names=[]), sources).items():
                result.sentence_scores[name] = metric.scores(texts, [references, *test.further])
        result.notes += _notes(translations, test.pairs, self.metrics)
        with show_stage(f"{test.name}: intervals of the scores"):
            result.intervals = bootstrap_intervals(texts, references, self.metrics, test.further, sources)
        result.sentence_chrf = sentence_chrf(texts, references, self.metrics, test.further)
        if inputs.baselines:
            name = system_name or "this"
            name += " (this)" if name in inputs.baselines else ""
            with show_stage(f"{test.name}: significance of the differences"):
                systems = {**inputs.baselines, name: texts}
                result.comparisons = paired_test(systems, references, self.metrics, test.further, sources)
        result.external_scores = inputs.external_scores
        if self.metrics.breakdown:
            result.breakdown = breakdown(sources, texts, references, self.metrics, frequencies, test.further)
        if selection is None:
            result.notes.append("This model has no attention: there are no alignments.")
            return result
        result.alignment_source = selection.source
        if test.gold is not None and not any(map(any, test.gold)):
            result.notes.append("The alignment error is not defined: the gold alignments have no links.")
        elif test.gold is not None:
            evaluation = aligner.evaluate(test.pairs, test.gold)
            assert evaluation is not None, "a model with attention"
            score, links, head_scores = evaluation
            by_length = alignment_by_length(sources, links, test.gold)
            result.alignment = ReferenceAlignment(score, selection, links, head_scores, by_length)
        if test.markup is not None and aligner.source is not None:
            with show_stage(f"{test.name}: spans of markup"):
                result.spans = evaluate_spans(self.translator, aligner.source.without_rule, test.markup, translations)
        if self.translator.member is not None:
            model = f"model {self.translator.member} of the ensemble"
            result.notes.append(f"Alignments and everything about attention are those of {model}.")
        return result

    def _translations(self, name: str, sources: list[str], hypotheses: list[str] | None) -> list[Translation]:
        """Translate, unless there are hypotheses to evaluate instead."""
        if hypotheses is None:
            with show_stage(f"{name}: translating {len(sources)} sentences", len(sources)) as show:
                return self.translator.translate(sources, on_batch=show)
        tokens = self.translator.tokenizer.encode_target(hypotheses)
        return [Translation(text, ids, math.nan, False) for text, ids in zip(hypotheses, tokens, strict=True)]


def _notes(translations: Sequence[Translation], pairs: Sequence[SentencePair], config: MetricsConfig) -> list[str]:
    (sources, references), notes = zip(*pairs, strict=True), []
    tokenize = build_metrics(replace(config, names=["bleu"], plugins=[]))["bleu"].tokenizer
    if not any(map(tokenize, references)):
        notes.append("The references are blank: no score says anything about the translations.")
    elif "bleu" in config.names and all(len(tokenize(reference).split()) < 4 for reference in references):
        notes.append("No reference has four tokens, which BLEU needs: it does not measure these translations.")
    if len(references) == 1:
        notes.append("Intervals and p-values are not defined for one sentence, of which there is no other sample.")
    if num_truncated := sum(translation.truncated for translation in translations):
        notes.append(
            f"{num_truncated} of {len(translations)} translations reached the longest length allowed and end there: "
            "train longer if they repeat themselves, or raise search.max_length_ratio or search.max_length_offset."
        )
    if (correlation := length_correlation_warning(sources, references)) is not None:
        notes.append(
            f"The lengths of sources and references hardly correlate ({correlation:.2f}): are the references in "
            "another order, or of another text?"
        )
    return notes


def _store_findings(path: Path, selection: HeadSelection | None, notes: Sequence[str]) -> None:
    findings: dict[str, Any] = {"notes": list(notes)}
    if selection is not None:
        findings["alignment_source"] = StoredAlignmentSource(selection.source, selection.selected_by).to_dict()
    try:
        checkpoint.update_metadata(path, findings)
    except OSError as error:
        log.warning("the alignment source is not stored in the checkpoint: %s", error)
