"""What is evaluated, and everything that came out: the values from which files and pages are made."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.alignment import AlignmentScore, AlignmentSource, GoldAlignment, HeadSelection, Link, read_gold
from nmt.data import DataConfig, SentencePair, alignment_path, extra_test_sets, read_pairs
from nmt.data.text_files import check_file, read_lines
from nmt.evaluation.attention_diagnostics import AttentionDiagnostics
from nmt.evaluation.breakdown import Breakdown, word_frequencies
from nmt.evaluation.external_scores import ExternalScore
from nmt.evaluation.metrics import MetricScore
from nmt.evaluation.significance import ConfidenceInterval, PairedTestResult
from nmt.inference.translator import Translation

log = logging.getLogger(__name__)

MAX_LISTED = 5


@dataclass(frozen=True)
class EvaluationSet:
    """Texts to translate, their references, and word alignments when there is a gold file beside them."""

    name: str
    folder: str  # inside the report; "" for the report itself
    pairs: list[SentencePair]
    gold: list[GoldAlignment] | None
    repaired: dict[str, int]

    @classmethod
    def read(cls, config: DataConfig, split: str, folder: str = "") -> "EvaluationSet":
        """Reads all of it. Raises ValueError or FileNotFoundError where the text or the gold file is at fault."""
        repaired: Counter[str] = Counter()
        pairs = list(read_pairs(config, split, repaired))
        path = alignment_path(config, split)
        gold = read_gold(path, pairs) if path is not None else None
        return cls(folder or split, folder, pairs, gold, dict(repaired))


def has_test_set(config: DataConfig) -> bool:
    """Whether there is a first test set."""
    return config.test is not None or config.format in ("builtin", "hub")


def load_test_sets(config: DataConfig) -> list[EvaluationSet]:
    """`data.test`, and each of `data.extra_tests` under its own name."""
    first = [EvaluationSet.read(config, "test")] if has_test_set(config) else []
    return first + [EvaluationSet.read(config, name, Path(name).name) for name in extra_test_sets(config)]


@dataclass
class EvaluationInputs:
    """What an evaluation is given beside model and test set.

    hypotheses: translations to judge in the place of the model's own.
    baselines: hypotheses of other systems by name, to compare with.
    outside: scores of other programs by metric.
    frequencies: of the sources' words in the training text; None: not known.
    """

    hypotheses: list[str] | None = None
    baselines: dict[str, list[str]] = field(default_factory=dict)
    external_scores: dict[str, ExternalScore] = field(default_factory=dict)
    frequencies: Mapping[str, int] | None = None


@dataclass
class ReferenceAlignment:
    """The alignment of the references.

    score: of the reading chosen. choice: which, and what there was to choose from on the validation set. links: by
    sentence. readings: what every layer, head, shift and null scores here, by argmax; nothing was chosen by it.
    by_length: `score` in each bucket of source length.
    """

    score: AlignmentScore
    selection: HeadSelection
    links: list[list[Link]]
    head_scores: dict[AlignmentSource, AlignmentScore]
    by_length: dict[str, AlignmentScore] = field(default_factory=dict)


@dataclass
class EvaluationResult:
    """Everything about one test set.

    scores: of the whole, by metric; `intervals` beside them. sentence_chrf: chrF of each sentence. comparisons: with
    the baselines, by metric. reading: where links are read from, None without attention. alignment: None without gold
    or attention. diagnostics: of the hypotheses' attention, None without. notes: what a reader should know, one
    sentence each.
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
    alignment_source: AlignmentSource | None = None
    alignment: ReferenceAlignment | None = None
    diagnostics: AttentionDiagnostics | None = None
    notes: list[str] = field(default_factory=list)

    def flat_scores(self) -> dict[str, float]:
        """The scores of the whole by name: those of `scores`, "aer" from 0 to 1, and outside ones."""
        found = {name: result.score for name, result in self.scores.items()}
        found |= {name: one.score for name, one in self.external_scores.items()}
        return found if self.alignment is None else {**found, "aer": self.alignment.score.aer}

    def to_dict(self) -> dict[str, Any]:
        """scores.json: each metric under its name, and what else there is under names that are no metric's."""
        found: dict[str, Any] = {name: result._asdict() for name, result in self.scores.items()}
        if self.intervals:
            found["intervals"] = {name: interval._asdict() for name, interval in self.intervals.items()}
        if self.comparisons:
            found["significance"] = {
                name: {
                    "signature": comparison.signature,
                    "systems": {system: row._asdict() for system, row in comparison.systems.items()},
                }
                for name, comparison in self.comparisons.items()
            }
        if self.external_scores:
            found["external"] = {
                name: {"score": one.score, "signature": one.signature} for name, one in self.external_scores.items()
            }
        if self.breakdown is not None:
            found["rates"] = self.breakdown.rates._asdict()
            found["buckets"] = {
                parting: {name: bucket._asdict() for name, bucket in buckets.items()}
                for parting, buckets in self.breakdown.buckets.items()
            }
        if self.alignment_source is not None:
            found["alignment_source"] = self.alignment_source._asdict()
        if self.alignment is not None:
            reading = self.alignment.selection.reading
            found["alignment"] = {
                **self.alignment.score._asdict(),
                "alignment_source": reading._asdict(),
                "alignment_source_text": str(reading),
                "selected_by": self.alignment.selection.by,
                "by_length": {bucket: score._asdict() for bucket, score in self.alignment.by_length.items()},
            }
        return found

    def head_scores(self) -> list[dict[str, Any]]:
        """What every layer, head, shift and null scores on the references, for head_alignment_scores.json."""
        found = {} if self.alignment is None else self.alignment.head_scores
        return [{**reading._asdict(), **score._asdict()} for reading, score in found.items()]

    def summary_lines(self) -> Iterator[str]:
        """The main numbers, for the log."""
        for name, value in self.scores.items():
            interval = self.intervals.get(name)
            shown = f" (95 %: {interval.mean:.2f} ± {interval.half_width:.2f})" if interval is not None else ""
            yield f"{name} {value.score:.2f}{shown} ({value.signature})"
        for name, outside in self.external_scores.items():
            yield f"{name} {outside.score:.4f} ({outside.signature or 'from a file'})"
        for name, comparison in self.comparisons.items():
            (baseline, *_), (this, *_) = comparison.systems.items(), reversed(comparison.systems.items())
            difference = this[1].score - baseline[1].score
            yield f"{name} {difference:+.2f} over {baseline[0]}, p = {this[1].p_value:.4f} ({comparison.signature})"
        if self.breakdown is not None:
            rates = self.breakdown.rates._asdict().items()
            yield ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in rates)
        if self.alignment is not None:
            yield f"AER {100 * self.alignment.score.aer:.1f} % (read from {self.alignment.selection.reading})"

    def sentences(self) -> list[dict[str, Any]]:
        """One plain value for each sentence, for sentences.jsonl."""
        rows = []
        for i, (pair, translation) in enumerate(zip(self.pairs, self.translations, strict=True)):
            row = {
                "id": i,
                "source": pair.source,
                "reference": pair.target,
                "hypothesis": translation.text,
                "model_score": None if math.isnan(translation.score) else translation.score,
                "truncated": translation.truncated,
                "chrf": self.sentence_chrf[i],
            }
            for name, one in self.external_scores.items():
                if one.sentences is not None:
                    row[name] = one.sentences[i]
            rows.append(row)
        return rows


def read_hypotheses(path: str | Path, test: EvaluationSet) -> list[str]:
    """The translations of a test set from a file, one on each line; empty ones are counted in the log.

    Raises:
        ValueError: another number of lines than sentences, or the file cannot be read.
        FileNotFoundError: there is none.
    """
    check_file(Path(path), "")
    found = [line for block in read_lines(Path(path), Counter()) for line in block]
    if len(found) != len(test.pairs):
        raise ValueError(
            f"{path}: {len(found)} lines for the {len(test.pairs)} sentences of {test.name}: each needs one line, "
            "empty for none"
        )
    if empty := [number for number, line in enumerate(found, start=1) if not line.strip()]:
        where = ", ".join(map(str, empty[:MAX_LISTED])) + (", …" if len(empty) > MAX_LISTED else "")
        log.warning("%s: %d of %d hypotheses are empty (line %s)", path, len(empty), len(found), where)
    return found


def training_frequencies(config: DataConfig, sets: Sequence[EvaluationSet]) -> Counter[str] | None:
    """How often the words of the test sources occur in the training sources; None when that text is not there."""
    try:
        training = (pair.source for pair in read_pairs(config, "train"))
        return word_frequencies(training, (pair.source for test in sets for pair in test.pairs))
    except (OSError, ValueError) as error:
        log.info("no scores by rare words: the training text cannot be read (%s)", error)
        return None
