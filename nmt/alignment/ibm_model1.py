"""A small lexical aligner: the reference for attention where there is no gold alignment."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nmt.alignment.pharaoh import GoldAlignment

ITERATIONS = 5


def ibm1_alignments(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[GoldAlignment]:
    """Align words by IBM Model 1 in both directions (Brown et al. 1993, section 4.2).

    The model is trained on `pairs` themselves with `ITERATIONS` rounds of expectation maximization. It ignores word
    order, so its links favor no layer, head or shift of attention because of the positions it attends to.

    Args:
        pairs: words of source and target.

    Returns:
        for each pair, as sure links those of both directions, as possible links those of either.
    """
    source, target = (_word_ids([pair[side] for pair in pairs]) for side in (0, 1))
    alignments = []
    for source_of_target, target_of_source in zip(_links(source, target), _links(target, source), strict=True):
        forward = {(int(i), j) for j, i in enumerate(source_of_target) if i >= 0}
        backward = {(i, int(j)) for i, j in enumerate(target_of_source) if j >= 0}
        alignments.append(GoldAlignment(frozenset(forward & backward), frozenset(forward | backward)))
    return alignments


def _word_ids(sentences: Sequence[Sequence[str]]) -> list[npt.NDArray[np.int64]]:
    """Number the words from 1."""
    ids: dict[str, int] = {}
    return [np.array([ids.setdefault(word, len(ids) + 1) for word in words], np.int64) for words in sentences]


def _links(
    source: Sequence[npt.NDArray[np.int64]], target: Sequence[npt.NDArray[np.int64]]
) -> list[npt.NDArray[np.int64]]:
    """Return the most likely source word of each target word of each pair; -1 for the empty word."""
    with_null = [np.concatenate([[0], words]) for words in source]  # word 0 is the empty word of every sentence
    pairs = list(zip(with_null, target, strict=True))
    size = max((int(words.max(initial=0)) for words in target), default=0) + 1
    # One cell for each combination of a source and a target word of the same pair, target by target.
    cells = [(s[None, :] * size + t[:, None]).ravel() for s, t in pairs]
    types, type_of_cell = np.unique(np.concatenate([np.empty(0, np.int64), *cells]), return_inverse=True)
    lengths = np.concatenate([np.empty(0, np.int64), *(np.full(len(t), len(s)) for s, t in pairs)])
    starts = np.cumsum(lengths) - lengths
    source_of_type = types // size
    probabilities = np.ones(len(types))
    for _ in range(ITERATIONS):
        posteriors = probabilities[type_of_cell]
        posteriors /= np.repeat(np.add.reduceat(posteriors, starts), lengths) if len(starts) else 1
        counts = np.bincount(type_of_cell, posteriors, minlength=len(types))
        probabilities = counts / np.bincount(source_of_type, counts)[source_of_type]
    links, begin = [], 0
    for s, t in pairs:
        end = begin + len(s) * len(t)
        links.append(probabilities[type_of_cell[begin:end]].reshape(len(t), len(s)).argmax(1) - 1)
        begin = end
    return links
