"""How far predicted links are from a gold standard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nmt.alignment.pharaoh import GoldAlignment, Link


class AlignmentScore(NamedTuple):
    """Corpus scores between 0 and 1; `aer` is better when lower, the others when higher."""

    aer: float
    precision: float
    recall: float
    f1: float


def alignment_error_rate(predicted: Sequence[Iterable[Link]], gold: Sequence[GoldAlignment]) -> AlignmentScore:
    """Alignment error rate over a whole test set (Och & Ney 2003, section 6.1).

    With A the predicted, S the sure and P the possible links of all sentences together:
    precision = |A∩P| / |A|, recall = |A∩S| / |S|, AER = 1 - (|A∩S| + |A∩P|) / (|A| + |S|), and f1 is the harmonic
    mean of precision and recall. When there is no sure link, recall is 1. When nothing is predicted, precision is 0,
    or 1 if there was nothing to find; AER is then 1 or 0.

    Raises:
        ValueError: another number of predictions than of gold lines, or none at all.
    """
    if len(predicted) != len(gold):
        raise ValueError(f"{len(predicted)} predicted alignments but {len(gold)} gold ones: each sentence needs both")
    if not gold:
        raise ValueError("no sentences to score: 0 predicted and 0 gold alignments")
    num_predicted = num_sure = num_hit_sure = num_hit_possible = 0
    for sentence, (sure, possible) in zip(predicted, gold, strict=True):
        found = set(sentence)
        num_predicted += len(found)
        num_sure += len(sure)
        num_hit_sure += len(found & sure)
        num_hit_possible += len(found & (possible | sure))
    return _score(num_predicted, num_sure, num_hit_sure, num_hit_possible)


class AERAccumulator:
    """`score` of C alignments of the same sentences at once.

    Args:
        num: C.
    """

    def __init__(self, num: int) -> None:
        self._counts = np.zeros((3, num), np.int64)  # predicted, hits among the sure, among the possible
        self._num_sure = 0

    def add(self, linked: npt.NDArray[np.bool_], gold: GoldAlignment) -> None:
        """One sentence.

        Args:
            linked: (C, Tw, Sw).
            gold: its links; those of words beyond Tw or Sw are never hit.
        """
        num_target, num_source = linked.shape[1:]
        self._counts[0] += linked.sum((1, 2))
        for count, those in ((1, gold.sure), (2, gold.possible | gold.sure)):
            inside = [(j, i) for i, j in those if j < num_target and i < num_source]
            if inside:
                rows, columns = np.array(inside).T
                self._counts[count] += linked[:, rows, columns].sum(1)
        self._num_sure += len(gold.sure)

    def scores(self) -> list[AlignmentScore]:
        """One for each of the C alignments."""
        return [
            _score(predicted, self._num_sure, sure, possible) for predicted, sure, possible in self._counts.T.tolist()
        ]


def _score(num_predicted: int, num_sure: int, num_hit_sure: int, num_hit_possible: int) -> AlignmentScore:
    recall = num_hit_sure / num_sure if num_sure else 1.0
    precision = num_hit_possible / num_predicted if num_predicted else float(not num_sure)
    total = num_predicted + num_sure
    return AlignmentScore(
        aer=1.0 - (num_hit_sure + num_hit_possible) / total if total else 0.0,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    )
