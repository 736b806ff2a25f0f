"""Word indices of tokens, for whole batches at once."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nmt.data.vocabulary import FlatIds

_AS_SPACE = bytes.maketrans(b" \n", b"  ")


class WordIds:
    """Map from the tokens of sequences to words: maximal runs of characters other than U+0020 in the decoded text.

    A token belongs to the word of its first non-space character, a token of spaces alone to the word that follows it.
    PAD, BOS, EOS and spaces at the end belong to none. What annotates a source with terms belongs to the words that it
    annotates.

    Args:
        surfaces: for each id the bytes that it adds to the text, None for PAD, BOS and EOS.
        term_ids: those of `Tokenizer.term_ids`; None: no sequence is annotated.
    """

    def __init__(self, surfaces: Sequence[bytes | None], term_ids: tuple[int, int, int] | None = None) -> None:
        self._term_ids = term_ids
        self._is_text = np.array([surface is not None for surface in surfaces])
        # Number of words in a token, whether it begins with a space, and whether its last word can continue after it.
        texts = [(surface or b"").translate(_AS_SPACE) for surface in surfaces]
        self._num_words = np.array([sum(1 for word in text.split(b" ") if word) for text in texts])
        self._starts_with_space = np.array([text[:1] == b" " for text in texts])
        self._ends_open = np.array([text[-1:] not in (b"", b" ") for text in texts])

    def __call__(self, ids: NDArray[np.integer], starts: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the word of each token, counted from 0 in each sequence; -1 for none.

        Args:
            ids: (N,) concatenated sequences.
            starts: (N,) True at the first token of each sequence.
        """
        result, owners = np.full(len(ids), -1, np.int64), self.owners(ids)
        positions = np.flatnonzero(self._is_text[ids] & (owners == np.arange(len(ids))))
        if not len(positions):
            return result
        sequence = np.cumsum(starts)[positions]  # PAD and the like may stand between the tokens of one
        ids = ids[positions]
        num_words = self._num_words[ids]
        is_first = np.diff(sequence, prepend=-1) != 0
        inside = np.concatenate([[False], self._ends_open[ids[:-1]]]) & ~is_first
        continues = (num_words > 0) & inside & ~self._starts_with_space[ids]
        num_new = num_words - continues
        before = np.cumsum(num_new) - num_new
        number = np.cumsum(is_first) - 1
        bases = before[is_first]
        totals = np.append(bases[1:], before[-1] + num_new[-1]) - bases
        word = before - bases[number] - continues
        result[positions] = np.where(word < totals[number], word, -1)  # spaces after the last word belong to none
        return result[owners]

    def owners(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return for each token the place of the one whose word it belongs to: of what annotates a term (see
        `nmt.data.terms`) the last of the term before it, or the first behind <term>; of others their own."""
        places = np.arange(len(ids))
        if self._term_ids is None:
            return places
        mark, between, end = (ids == index for index in self._term_ids)
        is_added = (np.cumsum(between) > np.cumsum(end)) | end
        return np.asarray(np.maximum.accumulate(np.where(is_added, 0, places)) + mark)

    def in_text(self, text: str, ids: Sequence[int], encode: Callable[[Sequence[str]], FlatIds]) -> list[int]:
        """Return the word of each token of an encoded text, counted in the text as given; -1 for none.

        A tokenizer's normalization may split a word (NFKC does at U+00A0) or leave nothing of it (as of U+200B): the
        parts of each are counted by encoding it by itself. -1 for all when these are not the words of the tokens.
        """
        words = [word for word in text.split(" ") if word]
        flat, lengths = encode(words)
        index = np.repeat(np.arange(len(words)), lengths)
        num_parts = np.zeros(len(words), np.int64)
        np.maximum.at(num_parts, index, self(flat, np.diff(index, prepend=-1) != 0) + 1)
        parts = self(np.array(ids, np.int64), np.arange(len(ids)) == 0)
        if num_parts.sum() != parts.max(initial=-1) + 1:
            return [-1] * len(ids)
        # the last -1 is for tokens of no word
        return list(np.append(np.repeat(np.arange(len(words)), num_parts), -1)[parts].tolist())
