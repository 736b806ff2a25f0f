"""The special symbols, and the vocabularies of whole words and of single characters."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>")

FlatIds = tuple[NDArray[np.int32], NDArray[np.int64]]  # the ids of all texts, and the number of ids of each


class TokenizerModel(Protocol):
    """One side's mapping between text and ids.

    `surfaces[i]` holds the UTF-8 bytes that id i adds to the decoded text (None for PAD, BOS and EOS); with
    `marks_start` the decoded text begins with one space that is not part of the sentence. With `has_unknown` there are
    texts whose ids have UNK.
    """

    surfaces: list[bytes | None]
    marks_start: bool
    has_unknown: bool = True

    @property
    def size(self) -> int:
        return len(self.surfaces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        return flatten_ids(self.encode(texts))

    def sample(self, texts: Sequence[str], strength: float, keys: NDArray[np.uint64]) -> FlatIds: ...

    def subword(self, index: int) -> str: ...

    def state(self) -> dict[str, Any]: ...


def flatten_ids(sequences: Sequence[Sequence[int]]) -> FlatIds:
    """Concatenate the ids of all sequences; also return the length of each."""
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    return np.fromiter(chain.from_iterable(sequences), np.int32, int(lengths.sum())), lengths


def unknown_share(ids: NDArray[Any]) -> float:
    """Return the share of UNK in the ids, read block by block."""
    blocks = (ids[start : start + (1 << 24)] for start in range(0, len(ids), 1 << 24))
    return sum(int(np.count_nonzero(block == UNK)) for block in blocks) / max(len(ids), 1)


def displayable(subword: str) -> str:
    """Return a subword in printable form: spaces as U+2581, other unprintable characters as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in subword.replace(" ", "▁")
    )


class Vocabulary(TokenizerModel):
    """Words (maximal runs of characters other than U+0020) or single characters, the most frequent first.

    Anything else becomes UNK. Words are joined by one space when decoded, so runs of spaces are not restored.
    """

    def __init__(self, items: Sequence[str], *, words: bool) -> None:
        self.items = list(items)
        self.marks_start = words
        self._words = words
        self._ids = {item: index for index, item in enumerate(self.items, start=len(SPECIAL_TOKENS))}
        start = b" " if words else b""
        self.surfaces: list[bytes | None] = [None, start + SPECIAL_TOKENS[UNK].encode(), None, None]
        self.surfaces += [start + item.encode() for item in self.items]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, *, words: bool) -> "Vocabulary":
        """Keep the `vocab_size - 4` most frequent items of the texts (or all, if fewer); ties by code point."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(filter(None, text.split(" ")) if words else text)
        ranked = sorted(counts, key=lambda item: (-counts[item], item))
        return cls(ranked[: vocab_size - len(SPECIAL_TOKENS)], words=words)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        get = self._ids.get
        if self._words:
            return [[get(word, UNK) for word in text.split(" ") if word] for text in texts]
        return [[get(character, UNK) for character in text] for text in texts]

    def sample(self, texts: Sequence[str], strength: float, keys: NDArray[np.uint64]) -> FlatIds:
        """Encode: words and characters have one segmentation only."""
        return self.encode_flat(texts)

    def subword(self, index: int) -> str:
        num = len(SPECIAL_TOKENS)
        return SPECIAL_TOKENS[index] if index < num else displayable(self.items[index - num])

    def state(self) -> dict[str, Any]:
        return {"items": self.items, "words": self._words}
