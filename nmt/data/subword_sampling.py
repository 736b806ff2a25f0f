"""Random segmentations of words into pieces: unigram (Kudo, 2018) and BPE dropout (Provilkov et al., 2020).

SentencePiece draws from generators that belong to its threads, and no seed makes two processes draw alike. Here each
random number is a function of its word's key, and all words of a call are segmented side by side.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]

UNKNOWN = -1  # a character that is no piece
_MERGED = -2  # no piece any more: part of its left neighbor
_UNKNOWN_PENALTY = 10.0  # SentencePiece's: an unknown character costs this much more than the least probable piece
_NUM_CODE_POINTS = 0x110000
_NONE = np.iinfo(np.int64).max


class Segments(NamedTuple):
    """The pieces of words, one word after the other."""

    pieces: Ints  # ids, or UNKNOWN
    characters: Ints  # code point of the first character of each
    owners: Ints  # the number of its word, ascending


def row_keys(seed: Sequence[int], rows: Ints) -> Keys:
    """Return a key for each row of a corpus."""
    return derive_keys(np.array(np.random.SeedSequence(seed).generate_state(1, np.uint64), np.uint64), rows)


def derive_keys(keys: Keys, numbers: Ints) -> Keys:
    """Return output `numbers` (from 0) of the generators SplitMix64 (Steele et al., 2014) that start from the keys."""
    key: Keys = keys + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def uniform(keys: Keys, numbers: Ints) -> NDArray[np.float64]:
    """Return a random number in [0, 1) for each key and number."""
    return np.float64(2.0**-53) * (derive_keys(keys, numbers) >> np.uint64(11))


def enumerate_groups(sizes: Ints) -> tuple[Ints, Ints]:
    """Return for each member of groups of these sizes the group's number, and the member's number in the group."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    return group, np.arange(len(group)) - (np.cumsum(sizes) - sizes)[group]


class UnigramSampler:
    """Samples a segmentation x with probability proportional to P(x)^strength (Kudo, 2018, equation 8, over all
    segmentations): sums over the lattice from the ends of words, then draws from their starts.

    Args:
        pieces: id of each piece.
        scores: log-probability of each id.
    """

    def __init__(self, pieces: Mapping[str, int], scores: Sequence[float]) -> None:
        nodes = {"": 0}  # of a trie: the beginnings of pieces
        for piece in pieces:
            for length in range(1, len(piece) + 1):
                nodes.setdefault(piece[:length], len(nodes))
        self._dead = len(nodes)
        children = {nodes[text[:-1]] * _NUM_CODE_POINTS + ord(text[-1]): node for text, node in nodes.items() if text}
        self._children = _Lookup(children, self._dead)
        self._pieces = np.array([*(pieces.get(text, UNKNOWN) for text in nodes), UNKNOWN])
        unknown = min(scores[index] for index in pieces.values()) - _UNKNOWN_PENALTY
        self._scores = np.array([*scores, unknown])  # the last is that of UNKNOWN

    def sample(self, words: Sequence[str], chosen: Ints, strength: float, keys: Keys) -> Segments:
        """Segment the words of these indices, each by the random numbers of its key, (N,) both."""
        characters, sizes = _join(words)
        word, offset = enumerate_groups(sizes)
        to_end = sizes[word] - offset
        # A node stands for the characters from one to the end of its word; those nearest to the ends come first, and
        # the last node is the empty one.
        order = np.argsort(to_end, kind="stable")
        nodes = np.empty_like(order)
        nodes[order], end = np.arange(len(order)), len(order)
        begins, lengths, pieces = self._edges(characters, to_end)
        order = np.argsort(nodes[begins], kind="stable")
        begins, lengths, pieces = begins[order], lengths[order], pieces[order]
        targets = np.where(lengths < to_end[begins], np.append(nodes, end)[begins + lengths], end)
        first_edge = np.searchsorted(nodes[begins], np.arange(end + 1))
        weights, sums = strength * self._scores[pieces], np.zeros(end + 1)
        for start, stop in pairwise(np.cumsum(np.bincount(to_end)).tolist()):
            edges = slice(first_edge[start], first_edge[stop])
            values = weights[edges] + sums[targets[edges]]
            sums[start:stop] = np.logaddexp.reduceat(values, first_edge[start:stop] - first_edge[start])
        # The edges of node i divide the interval from i to i + 1.
        bounds = np.cumsum(np.exp(weights + sums[targets] - sums[nodes[begins]]))
        drawn: list[Ints] = []
        owners, node = np.arange(len(chosen)), nodes[(np.cumsum(sizes) - sizes)[chosen]]
        while len(owners):
            numbers = node + uniform(keys[owners], np.array([len(drawn)]))
            edge = np.searchsorted(bounds, numbers, side="right")
            edge = np.clip(edge, first_edge[node], first_edge[node + 1] - 1)  # after rounding
            drawn.append(np.stack([edge, owners]))
            going = targets[edge] < end
            owners, node = owners[going], targets[edge[going]]
        edge, owners = np.concatenate(drawn, axis=1)
        order = np.argsort(owners, kind="stable")
        return Segments(pieces[edge[order]], characters[begins[edge[order]]], owners[order])

    def _edges(self, characters: Ints, to_end: Ints) -> tuple[Ints, Ints, Ints]:
        """Return where each edge of the lattice begins, its number of characters, and its piece."""
        begins, node = np.arange(len(to_end)), np.zeros(len(to_end), np.int64)
        found: list[Ints] = []
        while len(begins):
            node = self._children(node * _NUM_CODE_POINTS + characters[begins + len(found)])
            found.append(np.stack([begins, np.full_like(begins, len(found) + 1), self._pieces[node]]))
            going = (node != self._dead) & (len(found) < to_end[begins])
            begins, node = begins[going], node[going]
        begins, lengths, pieces = np.concatenate(found, axis=1)
        kept = (pieces != UNKNOWN) | (lengths == 1)
        return begins[kept], lengths[kept], pieces[kept]


class BPESampler:
    """Merges pairs of neighbors as BPE does, each merge left out for good with probability `strength`.

    Args:
        pieces: id of each piece.
        scores: of each id; the pair that gives the highest score is merged first, of equal ones the leftmost.
    """

    def __init__(self, pieces: Mapping[str, int], scores: Sequence[float]) -> None:
        ranked = sorted(pieces, key=lambda piece: -scores[pieces[piece]])
        self._ranked = np.array([pieces[piece] for piece in ranked])
        self._base = len(scores) + 2  # negative numbers are no piece's either when added to a multiple
        ranks = {
            pieces[piece[:cut]] * self._base + pieces[piece[cut:]]: rank
            for rank, piece in enumerate(ranked)
            for cut in range(1, len(piece))
            if piece[:cut] in pieces and piece[cut:] in pieces
        }
        self._ranks = _Lookup(ranks, UNKNOWN)
        self._characters = _Lookup({ord(piece): pieces[piece] for piece in pieces if len(piece) == 1}, UNKNOWN)

    def sample(self, words: Sequence[str], chosen: Ints, strength: float, keys: Keys) -> Segments:
        """Segment the words of these indices, each by the random numbers of its key, (N,) both."""
        plain, num_merges = self._merge(words, 0.0, np.zeros(len(words), np.uint64))
        # Most words lose no merge and are segmented as usual.
        owner, merge = enumerate_groups(num_merges[chosen])
        dropped = np.unique(owner[uniform(keys[owner], merge) < strength])
        sampled, _ = self._merge([words[i] for i in chosen[dropped].tolist()], strength, keys[dropped])
        pieces, characters = (np.concatenate([a, b]) for a, b in zip(plain[:2], sampled[:2], strict=True))
        sizes = np.bincount(np.append(plain.owners, len(words) + sampled.owners))
        result = chosen.copy()
        result[dropped] = len(words) + np.arange(len(dropped))
        owner, index = enumerate_groups(sizes[result])
        place = (np.cumsum(sizes) - sizes)[result[owner]] + index
        return Segments(pieces[place], characters[place], owner)

    def _merge(self, words: Sequence[str], strength: float, keys: Keys) -> tuple[Segments, Ints]:
        """Return the segments of words and the number of merges of each, those left out among them."""
        characters, sizes = _join(words)
        end, num_merges, active = len(characters), np.zeros(len(words), np.int64), np.arange(len(words))
        owners, offset = enumerate_groups(sizes)
        left, right = np.arange(end + 1) - 1, np.arange(end + 1) + 1
        left[:end][offset == 0] = right[np.cumsum(sizes) - 1] = end
        symbols = np.append(self._characters(characters), _MERGED)

        def priority(first: Ints, second: Ints) -> Ints:
            rank = self._ranks(symbols[first] * self._base + symbols[second])
            return np.where(rank == UNKNOWN, _NONE, rank * (end + 1) + first)  # the leftmost of one rank first

        priorities, where = np.append(priority(np.arange(end), right[:end]), _NONE), np.arange(end)
        while len(active):
            best = np.minimum.reduceat(priorities[where], np.cumsum(sizes) - sizes)
            going = best < _NONE
            where, active, sizes, best = where[np.repeat(going, sizes)], active[going], sizes[going], best[going]
            is_dropped = uniform(keys[active], num_merges[active]) < strength
            num_merges[active] += 1
            priorities[best[is_dropped] % (end + 1)] = _NONE
            rank, first = np.divmod(best[~is_dropped], end + 1)
            second, before = right[first], left[first]
            third = right[second]
            symbols[first], symbols[second], priorities[second] = self._ranked[rank], _MERGED, _NONE
            right[first], left[third] = third, first
            priorities[first], priorities[before] = priority(first, third), priority(before, first)
        kept = symbols[:-1] != _MERGED
        return Segments(symbols[:-1][kept], characters[kept], owners[kept]), num_merges


class _Lookup:
    """A map between numbers, for many at once."""

    def __init__(self, items: Mapping[int, int], default: int) -> None:
        self._keys = np.array(sorted(items) or [-1], np.int64)
        self._values = np.array([items.get(key, default) for key in self._keys.tolist()])
        self._default = default

    def __call__(self, keys: Ints) -> Ints:
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[places] == keys, self._values[places], self._default)


def _join(words: Sequence[str]) -> tuple[Ints, Ints]:
    """Return the code points of all words, and the number of those of each."""
    characters = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
    return characters, np.fromiter(map(len, words), np.int64, len(words))
