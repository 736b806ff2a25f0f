"""The special symbols, and the vocabularies of whole words and of single characters."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
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
    texts whose ids have UNK. `symbols` are texts of one id each, whatever is around them. `cut` returns a smaller model
    that encodes texts of the ids `used` as before, and which ids it has, ascending, special symbols among them.
    """

    surfaces: list[bytes | None]
    marks_start: bool
    has_unknown: bool = True
    symbols: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return len(self.surfaces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        return flatten_ids(self.encode(texts))

    def sample(self, texts: Sequence[str], strength: float, keys: NDArray[np.uint64]) -> FlatIds: ...

    def subword(self, index: int) -> str: ...

    def state(self) -> dict[str, Any]: ...

    def cut(self, used: Collection[int]) -> tuple["TokenizerModel", list[int]]:
        raise ValueError(f"a tokenizer of the class {type(self).__name__} cannot be cut: it has no method `cut`")


def symbol_pattern(symbols: Iterable[str]) -> str:
    """Return a regular expression of any of the symbols, the longest that fits; it matches nothing without any."""
    return "|".join(map(re.escape, sorted(symbols, key=len, reverse=True))) or r"(?!)"


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

    Anything else becomes UNK. Words are joined by one space when decoded, so runs of spaces are restored only with
    `spaces`, by empty words between them.
    """

    def __init__(self, items: Sequence[str], *, words: bool, spaces: bool = False, symbols: Sequence[str] = ()) -> None:
        self.items = list(items)
        self.symbols = tuple(symbols)
        self.marks_start = words
        self._words, self._keep_spaces = words, spaces
        self._character = re.compile(f"{symbol_pattern(symbols)}|.", re.DOTALL)
        self._ids = {item: index for index, item in enumerate(self.items, start=len(SPECIAL_TOKENS))}
        start = b" " if words else b""
        self.surfaces: list[bytes | None] = [None, start + SPECIAL_TOKENS[UNK].encode(), None, None]
        self.surfaces += [start + item.encode() for item in self.items]

    @classmethod
    def train(
        cls, texts: Iterable[str], size: int, *, words: bool, spaces: bool = False, symbols: Sequence[str] = ()
    ) -> "Vocabulary":
        """Keep the symbols and the most frequent items of the texts, `size - 4` of them together (or all, if
        fewer); ties by code point."""
        counts: Counter[str] = Counter()
        split = cls((), words=words, spaces=spaces, symbols=symbols).tokens
        for text in texts:
            counts.update(split(text))
        ranked = sorted(counts.keys() - {*symbols}, key=lambda item: (-counts[item], item))
        items = [*symbols, *ranked][: size - len(SPECIAL_TOKENS)] if counts else []
        return cls(items, words=words, spaces=spaces, symbols=symbols)

    def tokens(self, text: str) -> list[str]:
        """Return the words or characters of a text."""
        if not self._words:
            return self._character.findall(text) if self.symbols else list(text)
        words = text.split(" ") if text else []
        return words if self._keep_spaces else list(filter(None, words))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        get = self._ids.get
        return [[get(token, UNK) for token in self.tokens(text)] for text in texts]

    def sample(self, texts: Sequence[str], strength: float, keys: NDArray[np.uint64]) -> FlatIds:
        """Encode: words and characters have one segmentation only."""
        return self.encode_flat(texts)

    def subword(self, index: int) -> str:
        num = len(SPECIAL_TOKENS)
        return SPECIAL_TOKENS[index] if index < num else displayable(self.items[index - num] or " ")

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"items": self.items, "words": self._words}
        more = {"spaces": self._keep_spaces, "symbols": list(self.symbols)}
        return state | {name: value for name, value in more.items() if value}

    def cut(self, used: Collection[int]) -> tuple["Vocabulary", list[int]]:
        num = len(SPECIAL_TOKENS)
        ids = sorted({*range(num), *used, *(self._ids[symbol] for symbol in self.symbols)})
        return Vocabulary(**{**self.state(), "items": [self.items[index - num] for index in ids[num:]]}), ids
