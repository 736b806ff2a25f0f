"""Inputs and results of an evaluation, from which its files and its page are made."""

import contextlib
import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nmt.alignment import AlignmentScore, AlignmentSource, GoldAlignment, HeadSelection, Link, read_gold
from nmt.alignment.markup import MarkedText, parse_markup
from nmt.data import DataConfig, SentencePair, alignment_path, extra_test_sets, read_pairs
from nmt.data.corpora import directions, join, of_split
from nmt.data.sources import dataset_fingerprint, further_splits, read_further_references
from nmt.data.text_files import check_file, read_lines
from nmt.evaluation.attention_diagnostics import AttentionDiagnostics
from nmt.evaluation.breakdown import Breakdown, OutputLanguages, word_frequencies
from nmt.evaluation.external_scores import ExternalScore
from nmt.evaluation.metrics import MetricScore
from nmt.evaluation.significance import ConfidenceInterval, PairedTestResult
from nmt.evaluation.span_projection import SpanEvaluation
from nmt.inference.translator import Translation
from nmt.runtime.text import is_blank

log = logging.getLogger(__name__)

MAX_LISTED = 5


@dataclass(frozen=True)
class EvaluationSet:
    """Texts to translate, their references, and word alignments when there is a gold file beside them."""

    name: str
    folder: str  # inside the report directory; "" for that directory itself
    pairs: list[SentencePair]
    gold: list[GoldAlignment] | None
    repaired: dict[str, int]
    further: list[list[str]] = field(default_factory=list)  # references of all pairs beyond the first, their target
    split: str = "test"
    target_lang: str = ""
    source_lang: str = ""
    markup: list[tuple[MarkedText, MarkedText]] | None = None  # of the pairs

    @classmethod
    def read(cls, config: DataConfig, split: str, folder: str = "") -> "EvaluationSet":
        """Read a test set; raise ValueError or FileNotFoundError if the text or the gold file is at fault."""
        direction, _ = of_split(config, split)
        repaired: Counter[str] = Counter()
        pairs = list(read_pairs(config, split, repaired))
        path = alignment_path(config, split)
        gold = read_gold(path, pairs) if path is not None else None
        further = read_further_references(config, split, repaired)
        name = folder or (split if direction is config else split.partition("@")[2])
        pair = direction.target_lang, direction.source_lang
        return cls(name, folder, pairs, gold, dict(repaired), further, split, *pair)

    def without_markup(self) -> "EvaluationSet":
        """Take the markup off the text, and leave out pairs with markup that is not well-formed.

        Raise ValueError if no pair has an element of the same name on both sides.
        """
        marked: dict[int, tuple[MarkedText, MarkedText]] = {}
        for i, pair in enumerate(self.pairs):
            with contextlib.suppress(ValueError):
                marked[i] = parse_markup(pair.source), parse_markup(pair.target)
        named = ([{tag.name for tag in text.tags if tag.start < tag.end} for text in pair] for pair in marked.values())
        if not any(source & target for source, target in named):
            raise ValueError(f"markup: no line of {self.name} has well-formed tags of one name on both sides")
        if num := len(self.pairs) - len(marked):
            log.warning("%d of %d pairs are left out: their markup is not well-formed", num, len(self.pairs))
        pairs = [SentencePair(source.text, target.text) for source, target in marked.values()]
        return replace(self, pairs=pairs, gold=None, further=[], markup=list(marked.values()))

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of sources, references and, where there are any, gold alignments, as of files of lines."""
        lines = {"sources": [pair.source for pair in self.pairs], "references": [pair.target for pair in self.pairs]}
        lines |= {f"references_{number}": texts for number, texts in enumerate(self.further, start=2)}
        if self.gold is not None:
            lines["gold"] = [f"{sorted(gold.sure)} {sorted(gold.possible)}" for gold in self.gold]
        texts = {name: "".join(f"{line}\n" for line in lines[name]) for name in lines}
        return {name: hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for name, text in texts.items()}


def stored_digests(report: Path) -> dict[str, str]:
    """Return the digests of what the report in this folder is of; {} when it holds none, as before version 0.5."""
    try:
        return dict(json.loads((report / "scores.json").read_text(encoding="utf-8")).get("digests", {}))
    except (OSError, ValueError):
        return {}


def has_test_set(config: DataConfig) -> bool:
    """Return whether there is a first test set."""
    return config.test is not None or config.format in ("builtin", "hub")


def test_splits(config: DataConfig) -> dict[str, str]:
    """Return the folder of each test set inside the report directory by its split: "" of the first, of the others the
    name of the set, of the direction, or both."""
    splits = further_splits(config, "test") if has_test_set(config) else []
    folders = {split: split.partition("@")[2] if number else "" for number, split in enumerate(splits)}
    for location, name in extra_test_sets(config).items():
        for split in further_splits(config, location):
            folders[split] = name + split.removeprefix(location).replace("@", ".")
    return folders


def load_test_sets(config: DataConfig) -> list[EvaluationSet]:
    """Load `data.test` and `data.extra_tests`, each in every direction of the model that has such a text."""
    names = {join(pair) for pair in directions(config)} if has_test_set(config) else set()
    if len(names) > 1 and (missing := names - {split.partition("@")[2] for split in further_splits(config, "test")}):
        log.warning("data.test: has no text for %s, which are not tested", ", ".join(sorted(missing)))
    return [EvaluationSet.read(config, split, folder) for split, folder in test_splits(config).items()]


@dataclass
class EvaluationInputs:
    """Inputs of an evaluation beside model and test set.

    hypotheses: translations to evaluate instead of the model's own.
    baselines: hypotheses of other systems by name, to compare with.
    external_scores: scores of other programs by metric.
    """

    hypotheses: list[str] | None = None
    baselines: dict[str, list[str]] = field(default_factory=dict)
    external_scores: dict[str, ExternalScore] = field(default_factory=dict)


@dataclass
class ReferenceAlignment:
    """Alignment of the references.

    score: of the selected source. selection: how that was chosen on the validation set. links: for each sentence.
    head_scores: of every layer, head, shift and null on this test set, by argmax; not used for the selection.
    by_length: `score` in each bucket of source length.
    """

    score: AlignmentScore
    selection: HeadSelection
    links: list[list[Link]] = field(default_factory=list)
    head_scores: dict[AlignmentSource, AlignmentScore] = field(default_factory=dict)
    by_length: dict[str, AlignmentScore] = field(default_factory=dict)


@dataclass
class EvaluationResult:
    """Results of one test set; of the validation set, scores and `alignment.score` only.

    scores: of the whole, by metric; `intervals` likewise. sentence_chrf: chrF of each sentence. comparisons: with the
    baselines, by metric. alignment_source: None without attention. alignment: None without gold or attention.
    diagnostics: of the hypotheses' attention, None without. notes: sentences for the reader of the report. digests: of
    what was evaluated, as `EvaluationSet.digests`, and of the model's weights unless it did not translate;
    engine: what decoded, unless torch did.
    """

    name: str
    pairs: Sequence[SentencePair]
    translations: Sequence[Translation]
    scores: dict[str, MetricScore]
    intervals: dict[str, ConfidenceInterval] = field(default_factory=dict)
    sentence_chrf: list[float] = field(default_factory=list)
    comparisons: dict[str, PairedTestResult] = field(default_factory=dict)
    external_scores: Mapping[str, ExternalScore] = field(default_factory=dict)
    breakdown: Breakdown | None = None
    output_languages: OutputLanguages | None = None  # beside a breakdown, of a model with several target languages
    alignment_source: AlignmentSource | None = None
    alignment: ReferenceAlignment | None = None
    diagnostics: AttentionDiagnostics | None = None
    notes: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    engine: str = ""
    further: Sequence[Sequence[str]] = ()  # references beyond the first
    spans: SpanEvaluation | None = None  # of a test set with markup
    sentence_scores: dict[str, Sequence[float]] = field(default_factory=dict)  # of plugins, by metric

    def flat_scores(self) -> dict[str, float]:
        """Return the corpus scores by name: of `scores`, external ones, "wrong_language" and "aer" from 0 to 1."""
        scores = {name: result.score for name, result in self.scores.items()}
        scores |= {name: result.score for name, result in self.external_scores.items()}
        scores |= {} if self.output_languages is None else {"wrong_language": self.output_languages.wrong}
        return scores if self.alignment is None else {**scores, "aer": self.alignment.score.aer}

    def to_dict(self) -> dict[str, Any]:
        """Return scores.json: each metric under its name, the rest under names that are no metric's."""
        sections: dict[str, Any] = {
            "digests": self.digests,
            "engine": self.engine,
            "intervals": _as_dicts(self.intervals),
            "significance": {
                name: {"signature": comparison.signature, "systems": _as_dicts(comparison.systems)}
                for name, comparison in self.comparisons.items()
            },
            "external": {
                name: {"score": result.score, "signature": result.signature}
                for name, result in self.external_scores.items()
            },
        }
        if self.breakdown is not None:
            sections["rates"] = self.breakdown.rates._asdict()
            sections["buckets"] = {name: _as_dicts(buckets) for name, buckets in self.breakdown.buckets.items()}
        if self.output_languages is not None:
            sections["rates"]["wrong_language"] = self.output_languages.wrong
            sections["output_languages"] = self.output_languages._asdict()
        if self.alignment_source is not None:
            sections["alignment_source"] = self.alignment_source._asdict()
        if self.alignment is not None:
            selection = self.alignment.selection
            sections["alignment"] = {
                **self.alignment.score._asdict(),
                "alignment_source": selection.source._asdict(),
                "alignment_source_text": str(selection.source),
                "selected_by": selection.selected_by,
                "by_length": _as_dicts(self.alignment.by_length),
            }
        if self.spans is not None:
            sections["spans"] = self.spans.to_dict()
        return _as_dicts(self.scores) | {name: section for name, section in sections.items() if section}

    def head_scores(self) -> list[dict[str, Any]]:
        """Return head_alignment_scores.json: the score of every layer, head, shift and null on the references."""
        scores = {} if self.alignment is None else self.alignment.head_scores
        return [{**source._asdict(), **score._asdict()} for source, score in scores.items()]

    def summary_lines(self) -> Iterator[str]:
        """Yield the main numbers, for the log."""
        for name, result in self.scores.items():
            interval = self.intervals.get(name)
            shown = f" (95 %: {interval.mean:.2f} ± {interval.half_width:.2f})" if interval is not None else ""
            yield f"{name} {result.score:.2f}{shown} ({result.signature})"
        for name, external in self.external_scores.items():
            yield f"{name} {external.score:.4f} ({external.signature or 'from a file'})"
        for name, comparison in self.comparisons.items():
            (baseline_name, baseline), *_, (_, system) = comparison.systems.items()
            difference = system.score - baseline.score
            p_value = "p not defined" if system.p_value is None else f"p = {system.p_value:.4f}"
            yield f"{name} {difference:+.2f} over {baseline_name}, {p_value} ({comparison.signature})"
        if self.breakdown is not None:
            rates = self.breakdown.rates._asdict().items()
            yield ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in rates if value is not None)
        if (found := self.output_languages) is not None:
            yield f"wrong language {found.wrong:.3f}, undecided {found.undecided:.3f} (by {found.identifier})"
        if self.alignment is not None:
            yield f"AER {100 * self.alignment.score.aer:.1f} % (read from {self.alignment.selection.source})"
        if self.spans is not None:
            yield str(self.spans)

    def sentences(self) -> list[dict[str, Any]]:
        """Return one record for each sentence, for sentences.jsonl."""
        external = {name: ext.sentences for name, ext in self.external_scores.items() if ext.sentences is not None}
        by_metric = {**self.sentence_scores, **external}
        return [
            {
                "id": i,
                "source": pair.source,
                "reference": pair.target,
                **({"references": [pair.target, *(texts[i] for texts in self.further)]} if self.further else {}),
                "hypothesis": translation.text,
                "model_score": translation.score if math.isfinite(translation.score) else None,
                "truncated": translation.truncated,
                "chrf": self.sentence_chrf[i],
                **{name: scores[i] for name, scores in by_metric.items()},
            }
            for i, (pair, translation) in enumerate(zip(self.pairs, self.translations, strict=True))
        ]


def _as_dicts(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Convert named tuples, by name."""
    return {name: value._asdict() for name, value in values.items()}


def read_hypotheses(path: str | Path, test: EvaluationSet) -> list[str]:
    """Read the translations of a test set from a file, one per line, and log how many are empty.

    Raises:
        ValueError: the number of lines is not that of the sentences, or the file cannot be read.
        FileNotFoundError: no such file.
    """
    path = check_file(Path(path), "")
    hypotheses = [line for block in read_lines(path, Counter()) for line in block]
    if len(hypotheses) != len(test.pairs):
        raise ValueError(
            f"{path}: {len(hypotheses)} lines for the {len(test.pairs)} sentences of {test.name}: each needs one line, "
            "empty for none"
        )
    if empty := [number for number, line in enumerate(hypotheses, start=1) if is_blank(line)]:
        numbers = ", ".join(map(str, empty[:MAX_LISTED])) + (", …" if len(empty) > MAX_LISTED else "")
        log.warning("%s: %d of %d hypotheses are empty (line %s)", path, len(empty), len(hypotheses), numbers)
    return hypotheses


def training_frequencies(config: DataConfig, sets: Sequence[EvaluationSet], digests: list[str]) -> Counter[str] | None:
    """Count the words of the test sources in the training sources; None when that text is not there any more as it was
    when it had these digests (none: unknown)."""
    try:
        if config.streaming:
            raise ValueError("data.streaming=true does not read it again for that")
        if digests and not {file.sha256 for file in dataset_fingerprint(config, "train").files} <= {*digests}:
            raise ValueError("it has changed since the training")
        training = (pair.source for pair in read_pairs(config, "train"))
        return word_frequencies(training, (pair.source for test in sets for pair in test.pairs))
    except (OSError, ValueError) as error:
        log.info("no scores by rare words: the training text cannot be read as it was (%s)", error)
        return None
