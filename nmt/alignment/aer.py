"""Alignment error rate, precision, recall and F1 of predicted links against a gold standard."""

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
    """Return the alignment error rate of a whole test set (Och & Ney 2003, section 6.1).

    With A the predicted, S the sure and P the possible links of all sentences together:
    precision = |A∩P| / |A|, recall = |A∩S| / |S|, AER = 1 - (|A∩S| + |A∩P|) / (|A| + |S|), and f1 is the harmonic
    mean of precision and recall. Without any sure link, recall is 1. Without any prediction, precision is 0, or 1 if
    there is no sure link either; AER is then 1 or 0.

    Raises:
        ValueError: the numbers of predicted and gold alignments differ, or both are 0.
    """
    if len(predicted) != len(gold):
        raise ValueError(f"{len(predicted)} predicted alignments but {len(gold)} gold ones: each sentence needs both")
    if not gold:
        raise ValueError("no sentences to score: 0 predicted and 0 gold alignments")
    links = [set(sentence) for sentence in predicted]
    return _score(
        sum(map(len, links)),
        sum(len(sure) for sure, _ in gold),
        sum(len(links[i] & sure) for i, (sure, _) in enumerate(gold)),
        sum(len(links[i] & (possible | sure)) for i, (sure, possible) in enumerate(gold)),
    )


class AERAccumulator:
    """Running counts from which the scores of C alignments of the same sentences are computed at once.

    Args:
        num_alignments: C.
    """

    def __init__(self, num_alignments: int) -> None:
        self._counts = np.zeros((3, num_alignments), np.int64)  # predicted, sure hits, possible hits
        self._num_sure = 0

    def add(self, mask: npt.NDArray[np.bool_], gold: GoldAlignment) -> None:
        """Add one sentence.

        Args:
            mask: (C, Tw, Sw) which words are linked.
            gold: its links; those of words beyond Tw or Sw are never hit.
        """
        num_target, num_source = mask.shape[1:]
        self._counts[0] += mask.sum((1, 2))
        for row, gold_links in ((1, gold.sure), (2, gold.possible | gold.sure)):
            inside = [(j, i) for i, j in gold_links if j < num_target and i < num_source]
            if inside:
                target, source = np.array(inside).T
                self._counts[row] += mask[:, target, source].sum(1)
        self._num_sure += len(gold.sure)

    def scores(self) -> list[AlignmentScore]:
        """Return the score of each of the C alignments."""
        return [
            _score(num_predicted, self._num_sure, num_sure_hits, num_possible_hits)
            for num_predicted, num_sure_hits, num_possible_hits in self._counts.T.tolist()
        ]


def _score(num_predicted: int, num_sure: int, num_sure_hits: int, num_possible_hits: int) -> AlignmentScore:
    recall = num_sure_hits / num_sure if num_sure else 1.0
    precision = num_possible_hits / num_predicted if num_predicted else float(not num_sure)
    total = num_predicted + num_sure
    return AlignmentScore(
        aer=1.0 - (num_sure_hits + num_possible_hits) / total if total else 0.0,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    )
