"""Which word each token belongs to, for whole batches at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_AS_SPACE = bytes.maketrans(b" \n", b"  ")


class WordIds:
    """Finds the words of token sequences: the same maximal runs of characters other than U+0020 as in the decoded text.

    A token belongs to the word of its first character that is no space. A token of spaces alone belongs to the word
    that follows it. PAD, BOS and EOS belong to none, nor do spaces at the end.

    Args:
        surfaces: for each id the bytes that it adds to the text, None for PAD, BOS and EOS.
    """

    def __init__(self, surfaces: Sequence[bytes | None]) -> None:
        self._is_text = np.array([surface is not None for surface in surfaces])
        # How many words a token has, whether its first begins inside it, and whether its last is still open after it.
        split = [(surface or b"").translate(_AS_SPACE) for surface in surfaces]
        self._num_words = np.array([sum(1 for word in surface.split(b" ") if word) for surface in split])
        self._begins = np.array([surface[:1] == b" " for surface in split])
        self._ends_open = np.array([surface[-1:] not in (b"", b" ") for surface in split])

    def __call__(self, ids: NDArray[np.integer], starts: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The word of each token, counted from 0 in each sequence; -1 for none.

        Args:
            ids: (N,) sequences one after another.
            starts: (N,) True at the first token of each.
        """
        result = np.full(len(ids), -1, np.int64)
        text = np.flatnonzero(self._is_text[ids])
        if not len(text):
            return result
        sequence = np.cumsum(starts)[text]  # PAD and the like may stand between the tokens of one
        ids = ids[text]
        num_words = self._num_words[ids]
        has_words = num_words > 0
        first_here = np.diff(sequence, prepend=-1) != 0
        inside = np.concatenate([[False], self._ends_open[ids[:-1]]]) & ~first_here
        goes_on = has_words & inside & ~self._begins[ids]
        new = num_words - goes_on
        before = np.cumsum(new) - new
        number = np.cumsum(first_here) - 1
        bases = before[first_here]
        totals = np.append(bases[1:], before[-1] + new[-1]) - bases
        word = before - bases[number] - goes_on
        result[text] = np.where(word < totals[number], word, -1)  # spaces after the last word have none
        return result
