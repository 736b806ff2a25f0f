"""Phrases that translations must contain."""

from collections.abc import Sequence

import numpy as np

from nmt.data import BOS, EOS, PAD, UNK
from nmt.search.config import SearchConfig
from nmt.search.scoring import Ints

Phrases = Sequence[Sequence[Sequence[int]]]
"""For each sentence the phrases that its translation must contain, as ids."""


def check_phrases(config: SearchConfig, phrases: Phrases = ()) -> None:
    """Raise ValueError if the search cannot hold phrases, or an id cannot be part of a translation."""
    options = (("method", "beam"), ("diverse_groups", 1), ("no_repeat_ngram_size", 0))
    for name, needed in options:
        if (value := getattr(config, name)) != needed:
            raise ValueError(f"search.{name}={value}: does not go with required phrases or a glossary; set {needed}")
    forbidden = {PAD, BOS, EOS, *([UNK] if config.replace_unknown == "forbid" else [])}
    for phrase in (phrase for wanted in phrases for phrase in wanted):
        if not phrase:
            raise ValueError("a required phrase is empty")
        if wrong := [token for token in phrase if token < 0 or token in forbidden]:
            raise ValueError(f"a required phrase holds the id {wrong[0]}, which cannot be part of a translation")


def num_occurrences(phrase: Sequence[int], tokens: Sequence[int]) -> int:
    """Return how often a phrase occurs in tokens, without overlaps."""
    count, start, wanted = 0, 0, list(phrase)
    while start <= len(tokens) - len(wanted):
        found = list(tokens[start : start + len(wanted)]) == wanted
        count, start = count + found, start + (len(wanted) if found else 1)
    return count


class PhraseStates:
    """How far hypotheses have come with the phrases of their sentences, as states of one automaton for each sentence.

    A phrase is needed as often as it occurs, without overlaps, in the phrases of the list: twice if it is given twice,
    or once and as a part of another. Two phrases may overlap. A phrase that breaks off goes on from its longest
    beginning that the hypothesis ends with (Knuth, Morris & Pratt 1977). States have numbers, given as they are met.

    Arguments are those of `check_phrases`.
    """

    def __init__(self, phrases: Phrases) -> None:
        self._phrases = [[*dict.fromkeys(map(tuple, wanted))] for wanted in phrases]
        self._borders = [[_borders(phrase) for phrase in distinct] for distinct in self._phrases]
        self._needed = [
            [sum(num_occurrences(phrase, other) for other in wanted) for phrase in distinct]
            for wanted, distinct in zip(phrases, self._phrases, strict=True)
        ]
        self._tokens = np.array([*{token for wanted in phrases for phrase in wanted for token in phrase}], np.int64)
        # of each state: sentence, occurrences of each phrase, tokens of the one that is begun; what a token of no
        # phrase leads to; the tokens by which a phrase advances; how many of them are missing until all are met
        self._states: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        self._broken: list[int] = []
        self._next_tokens: list[list[int]] = []
        self._num_missing: list[int] = []
        self._numbers: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = {}
        self._followed: dict[tuple[int, int], int] = {}
        zeros = [(0,) * len(distinct) for distinct in self._phrases]
        self.start: Ints = np.array([self._number(i, none, none) for i, none in enumerate(zeros)], np.int64)

    def num_missing(self, states: Ints) -> Ints:
        """Return how many tokens of phrases are missing; with every token of `next_tokens` it falls."""
        return np.array(self._num_missing, np.int64)[states]

    def next_tokens(self, states: Ints) -> Ints:
        """Return the tokens that begin or continue a missing phrase, (R, A) of states (R,); -1 for none."""
        tokens = [self._next_tokens[state] for state in states.tolist()]
        width = max(map(len, tokens))
        return np.array([row + [-1] * (width - len(row)) for row in tokens], np.int64).reshape(len(tokens), width)

    def follow(self, states: Ints, tokens: Ints) -> Ints:
        """Return the states after one token more each, of states and tokens of the same shape."""
        after: Ints = np.array(self._broken, np.int64)[states]
        for place in zip(*np.nonzero(np.isin(tokens, self._tokens)), strict=True):
            key = int(states[place]), int(tokens[place])
            if key not in self._followed:
                self._followed[key] = self._follow(*key)
            after[place] = self._followed[key]
        return after

    def _follow(self, state: int, token: int) -> int:
        sentence, counts, begun = self._states[state]
        after = []
        for i, phrase in enumerate(self._phrases[sentence]):
            count, length = counts[i], begun[i]
            if count < self._needed[sentence][i]:
                while length and phrase[length] != token:
                    length = self._borders[sentence][i][length]
                length += phrase[length] == token
                if length == len(phrase):
                    count, length = count + 1, 0
            after.append((count, length))
        return self._number(sentence, tuple(count for count, _ in after), tuple(length for _, length in after))

    def _number(self, sentence: int, counts: tuple[int, ...], begun: tuple[int, ...]) -> int:
        key = sentence, counts, begun
        if key not in self._numbers:
            broken = self._number(sentence, counts, (0,) * len(begun)) if any(begun) else len(self._states)
            items = zip(self._phrases[sentence], self._needed[sentence], counts, begun, strict=True)
            missing = [(phrase, needed - count, length) for phrase, needed, count, length in items if count < needed]
            num = sum(len(phrase) * times for phrase, times, _ in missing) - max(begun, default=0)
            self._numbers[key] = len(self._states)
            self._states.append(key)
            self._broken.append(broken)
            self._next_tokens.append([*dict.fromkeys(phrase[length] for phrase, _, length in missing)])
            self._num_missing.append(num)
        return self._numbers[key]


def _borders(phrase: Sequence[int]) -> list[int]:
    """Return for each number of tokens of a phrase how many of its first are its last too, fewer than all."""
    return [
        max((size for size in range(1, end) if phrase[:size] == phrase[end - size : end]), default=0)
        for end in range(len(phrase))
    ]
