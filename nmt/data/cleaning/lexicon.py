"""A lexicon of word translations, learned from the corpus that is to be cleaned, and what it says of a pair."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.data.cleaning.hashing import SortedKeys
from nmt.data.cleaning.text_block import MARK, Hashes, Ints, TextBlock

ITERATIONS = 5
MAX_WORDS = 100
"""Words of a side of which further ones are not looked at."""
_BASE = 0.3  # weight of a word's own probability: it bounds what a single word can cost
_USEFUL = 2.0  # p(word | other word) / p(word) of the combinations that are kept

Floats = NDArray[np.float64]
Sides = tuple[TextBlock, TextBlock]


class PairScores(NamedTuple):
    """association: mean log p(word | other side) / p(word) of the known words of a pair, nan if there are few.
    tails: of either side how unlikely its last words are, given the other, in nats; 0 where they have a translation.
    """

    association: Floats
    tails: tuple[Floats, Floats]


class Lexicon:
    """IBM Model 1 in both directions (Brown et al. 1993, section 4.2), less one occurrence of each two words together.

    Words that are together once, as in a pair that is no translation, are thus no evidence for each other. Words that
    occur once are unknown.

    Args:
        sides: source and target of the pairs to learn from.
    """

    def __init__(self, sides: Sides) -> None:
        counted = [np.unique(s.tokens[s.kind[s.token_starts] != MARK], return_counts=True) for s in sides]
        self.words = [SortedKeys(words[counts > 1]) for words, counts in counted]
        frequencies = [counts[counts > 1] / max(counts[counts > 1].sum(), 1) for _, counts in counted]
        ids, _, (source, target) = self._cells(sides)
        types, type_of = np.unique(_keys(ids[0][source], ids[1][target]), return_inverse=True)
        first, second = np.divmod(types.view(np.int64), 1 << 32)
        forward = _ratios(type_of, target, first, frequencies[1][second])
        backward = _ratios(type_of, source, second, frequencies[0][first])
        useful = np.maximum(forward, backward) > _USEFUL
        self.types, self.ratios = SortedKeys(types[useful]), (forward[useful], backward[useful])

    def score(self, sides: Sides) -> PairScores:
        """Return what the lexicon says of N pairs."""
        ids, sizes, cells = self._cells(sides)
        found, types = self.types.find(_keys(ids[0][cells[0]], ids[1][cells[1]]))
        means, tails = [], []
        for side in (0, 1):
            sums = np.bincount(cells[side][found], self.ratios[1 - side][types], len(ids[side]))
            logs = np.log(_BASE + (1 - _BASE) * sums / np.repeat(np.maximum(sizes[1 - side], 1), sizes[side]))
            totals, ends = np.r_[0, np.cumsum(logs)], np.cumsum(sizes[side])
            begins = ends - sizes[side]
            means.append((totals[ends] - totals[begins]) / np.maximum(sizes[side], 1))
            highest = np.maximum.reduceat(np.r_[totals, 0], np.stack([begins, ends + 1], 1).ravel())[::2]
            tails.append(highest - totals[ends])
        return PairScores(np.where(sizes[0] + sizes[1] > 4, (means[0] + means[1]) / 2, np.nan), (tails[0], tails[1]))

    def _cells(self, sides: Sides) -> tuple[list[Ints], list[Ints], tuple[Ints, Ints]]:
        """Return for each side the ids of its first known words, and how many there are in each line; and of every two
        words of one pair the places of both among these."""
        ids, sizes = list[Ints](), list[Ints]()
        for table, side in zip(self.words, sides, strict=True):
            which, places = table.find(side.tokens)
            lines = np.repeat(np.arange(len(side.lines)), side.num_tokens)[which]
            first = np.arange(len(lines)) - np.searchsorted(lines, lines) < MAX_WORDS
            ids.append(places[first])
            sizes.append(np.bincount(lines[first], minlength=len(side.lines)))
        num = np.repeat(sizes[0], sizes[1])  # cells of each target word
        offsets = np.repeat(np.cumsum(sizes[0]) - sizes[0], sizes[1]) - (np.cumsum(num) - num)
        target = np.repeat(np.arange(len(num)), num)
        return ids, sizes, (np.arange(len(target)) + offsets[target], target)


def _keys(source: Ints, target: Ints) -> Hashes:
    return (source << 32 | target).view(np.uint64)


def _ratios(types: Ints, explained: Ints, given: Ints, frequency: Floats) -> Floats:
    """Return p(word | given word) / p(word) of every two words, with the type of each cell, the word that the cell is
    one of the explanations of, and by type the given word and the frequency of the other."""
    counts = totals = probabilities = np.ones(len(given))
    for _ in range(ITERATIONS):
        posteriors = probabilities[types]
        posteriors /= np.bincount(explained, posteriors)[explained]
        counts = np.bincount(types, posteriors, len(given)).astype(np.float64)
        totals = np.bincount(given, counts)[given].astype(np.float64)
        probabilities = counts / totals
    return np.asarray(np.maximum(counts - 1, 0) / (totals + 2) / frequency)
