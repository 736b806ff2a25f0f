"""Which of a model's attention matrices its word alignment is read from, and how one is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nmt.alignment.aer import AERAccumulator, AlignmentScore
from nmt.alignment.pharaoh import GoldAlignment, Link
from nmt.alignment.projection import hard_alignment, link_mask, to_word_matrix

AUTO, MEAN = "auto", "mean"
DECISIONS = (AUTO, "argmax", "threshold")
SHIFTS = (0, 1)
NULL_MODES = {"true": True, "false": False}
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Among which links=auto chooses, beside argmax."""


@dataclass
class AlignmentConfig:
    """How word alignments are read off attention.

    layer: auto, mean (of all layers) or a number counted from 1; layers without attention to the source do not count.
    head: auto, mean (of the layer's heads) or a number counted from 1.
    shift: 0 = a word is aligned with the row that predicted it; 1 = with the next one, whose query has seen it (Chen
        et al. 2020); or auto.
    decision: auto, argmax or threshold. argmax = each target word is linked to the source word it attends to most, so
        that it has one link at most; threshold = to every source word that it gives at least `threshold`; auto = argmax
        or
        one of `THRESHOLDS`.
    threshold: above 0 and at most 1, for links=threshold.
    allow_null: with argmax: true = a target word that attends more to </s> than to any word has no link; false = </s>
        does not count, and every target word has one; or auto. Some heads rest on </s> where they find nothing to do.
    selection_pairs: sentence pairs of the validation set on which auto chooses.
    head_importance_pairs: sentence pairs of a test set on which an evaluation measures what the loss rises by when a
        head is silenced, one pass for each head; 0 = it does not.

    What is auto is chosen on the validation set: lowest error against its gold alignment where there is one (see
    `nmt.data.alignment_path`), else best agreement with a lexical aligner (`nmt.alignment.ibm_model1`).
    """

    layer: str = AUTO
    head: str = AUTO
    shift: str = AUTO
    decision: str = AUTO
    threshold: float = 0.25
    allow_null: str = AUTO
    selection_pairs: int = 1000
    head_importance_pairs: int = 50

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        for option in ("layer", "head"):
            value = getattr(self, option)
            if value not in (AUTO, MEAN) and not (value.isdecimal() and int(value) > 0):
                raise ValueError(f"alignment.{option}={value}: must be auto, mean, or a number counted from 1")
        if self.layer == MEAN and self.head not in (AUTO, MEAN):
            raise ValueError(
                f"alignment.head={self.head}: the mean of all layers has no heads; give the layer too, as in "
                "alignment.layer=1"
            )
        if self.shift not in (AUTO, *map(str, SHIFTS)):
            raise ValueError(f"alignment.shift={self.shift}: must be auto, 0 or 1")
        if self.allow_null not in (AUTO, *NULL_MODES):
            raise ValueError(f"alignment.allow_null={self.allow_null}: must be auto, true or false")
        if self.decision not in DECISIONS:
            raise ValueError(f"alignment.decision={self.decision}: must be one of {', '.join(DECISIONS)}")
        if not 0 < self.threshold <= 1 or math.isnan(self.threshold):
            raise ValueError(f"alignment.threshold={self.threshold}: must be above 0 and at most 1")
        if self.selection_pairs < 1:
            raise ValueError(f"alignment.selection_pairs={self.selection_pairs}: must be at least 1")
        if self.head_importance_pairs < 0:
            raise ValueError(f"alignment.head_importance_pairs={self.head_importance_pairs}: must be 0 (off) or more")

    @property
    def is_open(self) -> bool:
        """Whether everything about the reading is left to be chosen."""
        return {self.layer, self.head, self.shift, self.decision, self.allow_null} == {AUTO}


class AlignmentSource(NamedTuple):
    """One matrix out of (L, H, T, S), and how links are read off it.

    layer, head: counted from 1; 0 = the mean of all.
    shift, null: as in `AlignmentConfig`; null says nothing where there is a threshold.
    threshold: what a source word must receive to be linked; 0 = argmax.
    """

    layer: int = 0
    head: int = 0
    shift: int = 0
    null: bool = True
    threshold: float = 0.0

    def __str__(self) -> str:
        if not self.layer:
            where = "mean of all layers and heads"
        else:
            where = f"layer {self.layer}, {f'head {self.head}' if self.head else 'mean of its heads'}"
        if self.threshold:
            how = f", links of weight {self.threshold:g} and more"
        else:
            how = "" if self.null else ", </s> not counted"
        return where + (", shifted by one step" if self.shift else "") + how

    def matrix(self, weights: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """(L, H, T, S) -> (T, S), not shifted: the rows stay where they are."""
        layers = weights[self.layer - 1 : self.layer] if self.layer else weights
        heads = layers[:, self.head - 1 : self.head] if self.head else layers
        selected: npt.NDArray[np.floating] = heads.mean((0, 1))
        return selected

    def plot_rows(self, weights: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """(L, H, T, S) -> (T - shift, S), for pictures: row t is the one that target piece t is aligned with.

        A target of nothing has one row, which stays.
        """
        selected = self.matrix(weights)
        return selected[self.shift :] if len(selected) > self.shift else selected

    def word_matrix(
        self, weights: npt.NDArray[np.floating], target_words: Sequence[int], source_words: Sequence[int]
    ) -> npt.NDArray[np.float64]:
        """(L, H, T, S) -> (Tw, Sw + 1); see `nmt.alignment.words`."""
        return to_word_matrix(self.matrix(weights), target_words, source_words, shift=self.shift)

    def links(
        self, weights: npt.NDArray[np.floating], target_words: Sequence[int], source_words: Sequence[int]
    ) -> list[Link]:
        """Hard links of the words."""
        matrix = self.word_matrix(weights, target_words, source_words)
        return hard_alignment(matrix, null=self.null, threshold=self.threshold)


class StoredAlignmentSource(NamedTuple):
    """A reading as a checkpoint carries it.

    reading: which. by: how it was chosen; "" for the mean that is read where nothing was.
    """

    reading: AlignmentSource = AlignmentSource()
    by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**self.reading._asdict(), "by": self.by}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StoredAlignmentSource:
        """From the content of a checkpoint; one without a reading, as older versions wrote them, has the mean."""
        stored = content.get("alignment_source", content.get("reading"))  # "reading" in version 0.3
        if stored is None:
            return cls()
        # None is how argmax was written before it was one of the thresholds.
        reading = AlignmentSource(**{name: stored[name] for name in AlignmentSource._fields})
        return cls(reading._replace(threshold=reading.threshold or 0.0), stored["by"])


class HeadSelection(NamedTuple):
    """What was chosen, and why: `by` says on what, `scores` what every candidate had there."""

    reading: AlignmentSource
    by: str
    scores: dict[AlignmentSource, AlignmentScore]


def candidate_sources(config: AlignmentConfig, num_layers: int, num_heads: int) -> list[AlignmentSource]:
    """What the options leave to choose from: plain ones first.

    Raises:
        ValueError: a layer or head that the model does not have.
    """
    for what, value, there in (("layer", config.layer, num_layers), ("head", config.head, num_heads)):
        if value.isdecimal() and int(value) > there:
            plural = "s" if there > 1 else ""
            raise ValueError(f"alignment.{what}={value}: attention to the source has {there} {what}{plural}")
    shifts = SHIFTS if config.shift == AUTO else (int(config.shift),)
    nulls = NULL_MODES.values() if config.allow_null == AUTO else (NULL_MODES[config.allow_null],)
    thresholds = {AUTO: THRESHOLDS, "argmax": (), "threshold": (config.threshold,)}[config.decision]
    argmax = [] if config.decision == "threshold" else [(null, 0.0) for null in nulls]
    return [
        AlignmentSource(layer, head, shift, null, threshold)
        for layer in _choices(config.layer, num_layers)
        for head in (_choices(config.head, num_heads) if layer else [0])
        for shift in shifts
        for null, threshold in (*argmax, *((True, threshold) for threshold in thresholds))
    ]


def _choices(value: str, num: int) -> list[int]:
    """Numbers from 1, 0 being the mean; where there is one only it is its own mean."""
    if value.isdecimal():
        return [int(value)]
    if value == MEAN:
        return [0]
    return [0, *range(1, num + 1)] if num > 1 else [1]


class AlignmentExample(NamedTuple):
    """Attention of one pair: weights (L, H, T, S), the word of each row and column, -1 for none, and gold links."""

    weights: npt.NDArray[np.floating]
    target_words: Sequence[int]
    source_words: Sequence[int]
    gold: GoldAlignment


def score_sources(sentences: Iterable[AlignmentExample], readings: Sequence[AlignmentSource]) -> list[AlignmentScore]:
    """The alignment error of many readings of the same sentences, in memory that does not grow with them."""
    tally = AERAccumulator(len(readings))
    matrices = list(dict.fromkeys((reading.layer, reading.head) for reading in readings))
    hows = list(dict.fromkeys(reading[2:] for reading in readings))
    place = [hows.index(reading[2:]) * len(matrices) + matrices.index(reading[:2]) for reading in readings]
    for weights, target_words, source_words, gold in sentences:
        stacked = np.stack([AlignmentSource(*matrix).matrix(weights) for matrix in matrices])
        projected = {shift: to_word_matrix(stacked, target_words, source_words, shift=shift) for shift, *_ in hows}
        found = np.concatenate(
            [link_mask(projected[shift], null=null, threshold=threshold) for shift, null, threshold in hows]
        )
        tally.add(found[place], gold)
    return tally.scores()


def select_source(sentences: Iterable[AlignmentExample], readings: Sequence[AlignmentSource], by: str) -> HeadSelection:
    """The reading with the lowest error; of equal ones the first, which is the plainest."""
    scores = score_sources(sentences, readings)
    best = min(range(len(readings)), key=lambda number: scores[number].aer)
    return HeadSelection(readings[best], by, dict(zip(readings, scores, strict=True)))
