"""A lexical aligner of our own, small and quick: what attention is compared with where nobody has set links."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nmt.alignment.pharaoh import GoldAlignment

ITERATIONS = 5


def ibm1_alignments(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[GoldAlignment]:
    """Links of words that translate each other, by IBM Model 1 (Brown et al. 1993, section 4.2) in both directions.

    The model is trained on the very pairs, by `ITERATIONS` rounds of expectation maximisation. It knows nothing of
    order, so that it favours no layer, head or shift of attention for where it looks.

    Args:
        pairs: words of source and target.

    Returns:
        for each pair as sure what both directions say, as possible what either says.
    """
    source, target = (_numbers([pair[side] for pair in pairs]) for side in (0, 1))
    forward, backward = _links(source, target), _links(target, source)
    result = []
    for i_of_j, j_of_i in zip(forward, backward, strict=True):
        one = {(int(i), j) for j, i in enumerate(i_of_j) if i >= 0}
        other = {(i, int(j)) for i, j in enumerate(j_of_i) if j >= 0}
        result.append(GoldAlignment(frozenset(one & other), frozenset(one | other)))
    return result


def _numbers(sentences: Sequence[Sequence[str]]) -> list[npt.NDArray[np.int64]]:
    """Every word as a number from 1."""
    known: dict[str, int] = {}
    return [np.array([known.setdefault(word, len(known) + 1) for word in words], np.int64) for words in sentences]


def _links(
    source: Sequence[npt.NDArray[np.int64]], target: Sequence[npt.NDArray[np.int64]]
) -> list[npt.NDArray[np.int64]]:
    """For each target word of each pair its most likely source word, -1 for none (word 0, which is everywhere)."""
    full = [np.concatenate([[0], words]) for words in source]
    size = max((int(words.max(initial=0)) for words in target), default=0) + 1
    # One cell for each source word beside each target word of its pair, target by target.
    cells = [(s[None, :] * size + t[:, None]).ravel() for s, t in zip(full, target, strict=True)]
    kinds, kind = np.unique(np.concatenate([np.empty(0, np.int64), *cells]), return_inverse=True)
    lengths = np.concatenate(
        [np.empty(0, np.int64), *(np.full(len(t), len(s)) for s, t in zip(full, target, strict=True))]
    )
    starts = np.cumsum(lengths) - lengths
    source_of_kind = kinds // size
    table = np.ones(len(kinds))
    for _ in range(ITERATIONS):
        cell = table[kind]
        cell /= np.repeat(np.add.reduceat(cell, starts), lengths) if len(starts) else 1
        counts = np.bincount(kind, cell, minlength=len(kinds))
        table = counts / np.bincount(source_of_kind, counts)[source_of_kind]
    result, begin = [], 0
    for s, t in zip(full, target, strict=True):
        end = begin + len(s) * len(t)
        result.append(table[kind[begin:end]].reshape(len(t), len(s)).argmax(1) - 1)
        begin = end
    return result
