"""A lexicon of word translations, learned from the corpus that is to be cleaned, and what it says of a pair."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.data.cleaning.hashing import HashTable
from nmt.data.cleaning.text_block import MARK, Hashes, Ints, TextBlock, mix

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
        self.words, self.frequencies, self.table = [HashTable(1), HashTable(1)], list[Floats](), HashTable(2)
        for table, side in zip(self.words, sides, strict=True):
            words, counts = np.unique(side.tokens[side.kind[side.token_starts] != MARK], return_counts=True)
            words, counts = words[counts > 1], counts[counts > 1]
            table.set(words, np.arange(len(words), dtype=np.float32)[:, None])
            self.frequencies.append(counts / max(counts.sum(), 1))
        ids, _, (source, target) = self._cells(sides)
        size = max(len(self.frequencies[1]), 1)
        types, type_of = np.unique(ids[0][source] * size + ids[1][target], return_inverse=True)
        first, second = np.divmod(types, size)
        forward = _ratios(type_of, target, first, self.frequencies[1][second])
        backward = _ratios(type_of, source, second, self.frequencies[0][first])
        ratios = np.stack([forward, backward], 1)
        useful = ratios.max(1) > _USEFUL
        self.table.set(_keys(first[useful], second[useful]), ratios[useful].astype(np.float32))

    def score(self, sides: Sides) -> PairScores:
        """Return what the lexicon says of N pairs."""
        ids, sizes, cells = self._cells(sides)
        found, ratios = self.table.find(_keys(ids[0][cells[0]], ids[1][cells[1]]))
        means, tails = [], []
        for side in (0, 1):
            sums = np.bincount(cells[side][found], ratios[:, 1 - side], len(ids[side]))
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
            which, rows = table.find(side.tokens)
            lines = np.repeat(np.arange(len(side.lines)), side.num_tokens)[which]
            first = np.arange(len(lines)) - np.searchsorted(lines, lines) < MAX_WORDS
            ids.append(rows[first, 0].astype(np.int64))
            sizes.append(np.bincount(lines[first], minlength=len(side.lines)))
        num = np.repeat(sizes[0], sizes[1])  # cells of each target word
        offsets = np.repeat(np.cumsum(sizes[0]) - sizes[0], sizes[1]) - (np.cumsum(num) - num)
        target = np.repeat(np.arange(len(num)), num)
        return ids, sizes, (np.arange(len(target)) + offsets[target], target)


def _keys(source: Ints, target: Ints) -> Hashes:
    return mix((source << 32 | target).astype(np.uint64))


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
