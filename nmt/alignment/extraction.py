"""Choice of the attention matrix that word alignments are read from, and of how links are read off it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, get_type_hints

import numpy as np
import numpy.typing as npt

from nmt.alignment.aer import AERAccumulator, AlignmentScore
from nmt.alignment.pharaoh import GoldAlignment, Link
from nmt.alignment.projection import hard_alignment, link_mask, to_word_matrix
from nmt.config import check_choice, check_range, coerce

_Weights = npt.NDArray[np.floating]
_Words = Sequence[int]
AUTO, MEAN = "auto", "mean"
DECISIONS = (AUTO, "argmax", "threshold")
SHIFTS = (0, 1)
NULL_MODES = {"true": True, "false": False}
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Candidates of decision=auto, beside argmax."""


@dataclass
class AlignmentConfig:
    """Extraction of word alignments from attention.

    layer: whose attention is read: auto, mean (of all layers) or a number counted from 1; layers without attention to
        the source do not count.
    head: whose attention is read: auto, mean (of the layer's heads) or a number counted from 1.
    shift: which row of the weights belongs to a word: 0 = a word is aligned with the row that predicted it; 1 = with
        the next one, whose query has seen it (Chen et al. 2020); or auto.
    decision: which weights become links: argmax = each target word is linked to the source word it attends to most, so
        it has at most one link; threshold = to every source word of at least weight `threshold`; auto = argmax or one
        of several thresholds.
    threshold: with decision=threshold: the least weight of a link.
    allow_null: with argmax: true = a target word that attends more to </s> than to any word has no link; false = </s>
        does not count, and every target word has a link; or auto. Some heads attend to </s> where they have nothing
        to do.
    selection_pairs: how many sentence pairs of the validation set auto chooses on.
    head_importance_pairs: how many sentence pairs of a test set on which an evaluation measures the rise of the loss
        when a head is masked, one pass for each head; 0 = off.

    Options left at auto are chosen on the validation set: lowest error against its gold alignment where there is one
    (data.train_alignments says where), else best agreement with a lexical aligner, IBM model 1.
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
        """Raise ValueError naming the option, its value and what is allowed."""
        if self.layer == MEAN and self.head not in (AUTO, MEAN) and _is_selector(self.head):
            raise ValueError(
                f"alignment.head={self.head}: the mean of all layers has no heads; give the layer too, as in "
                "alignment.layer=1"
            )
        for name in ("layer", "head"):
            if not _is_selector(value := getattr(self, name)):
                raise ValueError(f"alignment.{name}={value}: must be auto, mean, or a number counted from 1")
        check_choice("alignment", self, "shift", (AUTO, *map(str, SHIFTS)))
        check_choice("alignment", self, "allow_null", (AUTO, *NULL_MODES))
        check_choice("alignment", self, "decision", DECISIONS)
        check_range("alignment", self, ["threshold"], above=0, maximum=1)
        check_range("alignment", self, ["selection_pairs"], minimum=1)
        check_range("alignment", self, ["head_importance_pairs"], minimum=0)

    @property
    def is_all_auto(self) -> bool:
        """Return whether everything about the alignment source is left to be chosen."""
        return {self.layer, self.head, self.shift, self.decision, self.allow_null} == {AUTO}


def _is_selector(value: str) -> bool:
    return value in (AUTO, MEAN) or (value.isdecimal() and int(value) > 0)


class AlignmentSource(NamedTuple):
    """One matrix out of attention (L, H, T, S), and the rule that turns it into links.

    layer, head: counted from 1; 0 = the mean of all.
    shift: as in `AlignmentConfig`.
    null: its allow_null; without effect where there is a threshold.
    threshold: the least weight of a link; 0 = argmax.
    """

    layer: int = 0
    head: int = 0
    shift: int = 0
    null: bool = True
    threshold: float = 0.0

    def __str__(self) -> str:
        text = "mean of all layers and heads"
        if self.layer:
            text = f"layer {self.layer}, {f'head {self.head}' if self.head else 'mean of its heads'}"
        if self.shift:
            text += ", shifted by one step"
        if self.threshold:
            return text + f", links of weight {self.threshold:g} and more"
        return text if self.null else text + ", links leave </s> out"

    @property
    def without_rule(self) -> "AlignmentSource":
        """The same matrix without the rule, as in titles of pictures, which show all weights."""
        return self._replace(null=True, threshold=0.0)

    def matrix(self, weights: _Weights) -> _Weights:
        """Select (L, H, T, S) -> (T, S), without the shift."""
        layers = weights[self.layer - 1 : self.layer] if self.layer else weights
        heads = layers[:, self.head - 1 : self.head] if self.head else layers
        selected: _Weights = heads.mean((0, 1))
        return selected

    def plot_rows(self, weights: _Weights) -> _Weights:
        """Select (L, H, T, S) -> (T - shift, S) for heat maps: row t aligns target subword t; a single row is kept."""
        selected = self.matrix(weights)
        return selected[self.shift :] if len(selected) > self.shift else selected

    def word_matrix(self, weights: _Weights, target_words: _Words, source_words: _Words) -> npt.NDArray[np.float64]:
        """Select and project (L, H, T, S) -> (Tw, Sw + 1); see `to_word_matrix`."""
        return to_word_matrix(self.matrix(weights), target_words, source_words, shift=self.shift)

    def links(self, weights: _Weights, target_words: _Words, source_words: _Words) -> list[Link]:
        """Return the hard links between words."""
        matrix = self.word_matrix(weights, target_words, source_words)
        return hard_alignment(matrix, null=self.null, threshold=self.threshold)


class StoredAlignmentSource(NamedTuple):
    """The alignment source that a checkpoint stores.

    source: layer, head and rule. selected_by: how it was chosen; "" for the default, the mean of all heads.
    """

    source: AlignmentSource = AlignmentSource()
    selected_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {**self.source._asdict(), "by": self.selected_by}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read it from the content of a checkpoint; the default where older versions stored none.

        Raises:
            ValueError: what is stored there is no alignment source.
        """
        stored = content.get("alignment_source", content.get("reading"))  # "reading" in version 0.3
        if stored is None:
            return cls()
        try:
            # Older versions stored the threshold of argmax as None.
            values = {**stored, "threshold": stored["threshold"] or 0.0}
            hints = get_type_hints(AlignmentSource)
            source = AlignmentSource(**{name: coerce(hint, values[name]) for name, hint in hints.items()})
            if min(source.layer, source.head) < 0 or source.shift not in SHIFTS or not 0 <= source.threshold <= 1:
                raise TypeError
            return cls(source, coerce(str, stored["by"]))
        except (KeyError, TypeError):
            raise ValueError(f"alignment_source: {stored!r} is none that this version knows") from None


class HeadSelection(NamedTuple):
    """The alignment source that was selected, on what (`selected_by`), and the score of every candidate there."""

    source: AlignmentSource
    selected_by: str
    scores: dict[AlignmentSource, AlignmentScore]


def candidate_sources(config: AlignmentConfig, num_layers: int, num_heads: int) -> list[AlignmentSource]:
    """List the alignment sources that the options leave to choose from, simple ones first.

    Raises:
        ValueError: a layer or head that the model does not have.
    """
    for option, value, num in (("layer", config.layer, num_layers), ("head", config.head, num_heads)):
        if value.isdecimal() and int(value) > num:
            plural = "s" if num > 1 else ""
            raise ValueError(f"alignment.{option}={value}: attention to the source has {num} {option}{plural}")
    shifts = SHIFTS if config.shift == AUTO else (int(config.shift),)
    nulls = NULL_MODES.values() if config.allow_null == AUTO else (NULL_MODES[config.allow_null],)
    thresholds = {AUTO: THRESHOLDS, "argmax": (), "threshold": (config.threshold,)}[config.decision]
    argmax = [] if config.decision == "threshold" else [(null, 0.0) for null in nulls]
    return [
        AlignmentSource(layer, head, shift, null, threshold)
        for layer in _candidate_numbers(config.layer, num_layers)
        for head in (_candidate_numbers(config.head, num_heads) if layer else [0])
        for shift in shifts
        for null, threshold in (*argmax, *((True, threshold) for threshold in thresholds))
    ]


def _candidate_numbers(value: str, num: int) -> list[int]:
    """Return numbers from 1, and 0 for the mean unless there is only one, its own mean."""
    if value.isdecimal():
        return [int(value)]
    if value == MEAN:
        return [0]
    return [0, *range(1, num + 1)] if num > 1 else [1]


class AlignmentExample(NamedTuple):
    """Attention of one pair: weights (L, H, T, S), the word of each row and column, -1 for none, and gold links."""

    weights: _Weights
    target_words: _Words
    source_words: _Words
    gold: GoldAlignment


def score_sources(examples: Iterable[AlignmentExample], sources: Sequence[AlignmentSource]) -> list[AlignmentScore]:
    """Return the alignment error of many sources on the same sentences; memory does not grow with the sentences."""
    accumulator = AERAccumulator(len(sources))
    matrices = list(dict.fromkeys(source[:2] for source in sources))
    decisions = list(dict.fromkeys(source[2:] for source in sources))
    # Each matrix is projected once for each shift; `order` picks the source's row out of all combinations.
    order = [decisions.index(source[2:]) * len(matrices) + matrices.index(source[:2]) for source in sources]
    for weights, target_words, source_words, gold in examples:
        stacked = np.stack([AlignmentSource(*matrix).matrix(weights) for matrix in matrices])
        projected = {shift: to_word_matrix(stacked, target_words, source_words, shift=shift) for shift, *_ in decisions}
        masks = [link_mask(projected[shift], null=null, threshold=threshold) for shift, null, threshold in decisions]
        accumulator.add(np.concatenate(masks)[order], gold)
    return accumulator.scores()


def select_source(examples: Iterable[AlignmentExample], sources: Sequence[AlignmentSource], by: str) -> HeadSelection:
    """Select the source with the lowest error; of equal ones the first, which is the simplest."""
    scores = score_sources(examples, sources)
    best = min(range(len(sources)), key=lambda i: scores[i].aer)
    return HeadSelection(sources[best], by, dict(zip(sources, scores, strict=True)))
