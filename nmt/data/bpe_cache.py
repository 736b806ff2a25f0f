"""BPE word by word: each different word is segmented once and then looked up.

No piece holds U+2581, the mark of a space, but at its start, so no merge crosses a space and the pieces of a sentence
are those of its words, one after another. In natural text most words have been seen, and looking them up takes less
than half of the time of segmenting the text. Unigram models are not read this way: they add scores along the sentence,
and rounding may decide between two segmentations of a word; they are fast enough as they are.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_WORDS = 1 << 18
"""With more words the table is begun anew: about 50 MB."""
MAX_IDS = 1 << 22

Arrays = list[NDArray[np.int32]]


class _Numbers(dict[str, int]):
    """Words by order of appearance; asking for an unknown one gives it the next number."""

    def __init__(self) -> None:
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        number = len(self)
        self[word] = number
        self.new.append(word)
        return number


class WordTable:
    """The ids of words, kept from call to call in bounded memory; several threads may use it at once.

    Args:
        encode: the ids of each of several texts.
        space: the id of the piece that is one space: the pieces of an empty word, of which there is one between two
            spaces.
    """

    def __init__(self, encode: Callable[[list[str]], Arrays], space: int) -> None:
        self._encode = encode
        self._space = space
        self._lock = threading.Lock()
        self._clear()

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """All ids of the texts one after another, and the number of ids of each text."""
        num_words = np.fromiter(map(str.count, texts, repeat(" ")), np.int64, len(texts)) + 1
        words = " ".join(texts).split(" ") if texts else []
        with self._lock:
            numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
            if self._numbers.new:
                self._add()
            # They only grow, so what is taken here stays true whatever another thread adds.
            ids, starts, lengths = self._ids, self._starts, self._lengths
            if len(self._numbers) > MAX_WORDS or self._num_ids > MAX_IDS:
                self._clear()
        sizes = lengths[numbers]
        sizes[np.repeat(_empty(texts), num_words)] = 0
        ends = np.cumsum(sizes)
        places = np.repeat(starts[numbers] - (ends - sizes), sizes)
        places += np.arange(len(places))
        sums = np.concatenate([np.zeros(1, np.int64), ends])
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(num_words)])
        return ids[places], np.diff(sums[bounds])

    def _clear(self) -> None:
        self._numbers = _Numbers()
        self._numbers[""] = 0
        self._ids = np.full(1, self._space, np.int32)
        self._starts, self._lengths = np.zeros(1, np.int64), np.ones(1, np.int64)
        self._num_ids = self._num_words = 1

    def _add(self) -> None:
        words = self._numbers.new
        try:
            arrays = self._encode(words)
        except BaseException:
            self._clear()  # these words have numbers but no ids
            raise
        lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
        ends = self._num_ids + np.cumsum(lengths)
        self._ids = _extended(self._ids, self._num_ids, np.concatenate(arrays))
        self._starts = _extended(self._starts, self._num_words, ends - lengths)
        self._lengths = _extended(self._lengths, self._num_words, lengths)
        self._num_ids, self._num_words = int(ends[-1]), self._num_words + len(words)
        words.clear()


def _empty(texts: Sequence[str]) -> NDArray[np.bool_]:
    return np.fromiter((not text for text in texts), np.bool_, len(texts))


def _extended(array: NDArray[Any], used: int, more: NDArray[Any]) -> NDArray[Any]:
    """The array with `more` written from place `used` on, twice as large when it was full."""
    if used + len(more) > len(array):
        array = np.concatenate([array[:used], np.empty(max(used, len(more)), array.dtype)])
    array[used : used + len(more)] = more
    return array
