"""Lines as flat arrays of characters and tokens, so that a filter is a few operations on a whole block.

N lines have C characters, each line with the line feed that ends it, and T tokens: words, numbers, single marks of
punctuation. What is written without spaces is divided where the script changes, and at every Chinese or Thai character.
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
SPACE, MARK, DIGIT, LATIN = range(4)
"""Kinds of characters. Those from LATIN on are letters, one kind for each script."""
SYMBOLS = "123456789()[]{}"
"""Characters that are counted each; those of other digits and of full width are the same."""
_LAST = 0x20000  # the first of the rarer Chinese characters stands for all from there on
_UNSEGMENTED = ("CJK", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
_PREFIX = 6  # letters that distinguish a word: inflected forms are one
_POWERS = np.cumprod(np.full(_PREFIX + 1, 0x2545F4914F6CDD1D, np.uint64), dtype=np.uint64)
_POWERS[_PREFIX] = 0


class Characters(NamedTuple):
    """By the number of a character: its kind, lowercase form, place in `SYMBOLS` from 1, and whether it is a token
    alone; and the kind of each script, as the names of Unicode begin."""

    kind: NDArray[np.uint8]
    lower: NDArray[np.uint32]
    symbol: NDArray[np.uint8]
    alone: Flags
    scripts: dict[str, int]


@functools.cache
def characters() -> Characters:
    """Return the table of all characters."""
    kind, symbol, scripts = np.zeros(_LAST + 1, np.uint8), np.zeros(_LAST + 1, np.uint8), {"LATIN": LATIN}
    lower = np.zeros(_LAST + 1, np.uint32)
    for code, char in enumerate(map(chr, range(_LAST + 1))):
        if (category := unicodedata.category(char))[0] in "LM":
            names = [*unicodedata.name(char, "LATIN").replace("-", " ").split(), "LATIN"]
            script = names[names[0] in ("FULLWIDTH", "HALFWIDTH")]
            script = "LATIN" if script in ("COMBINING", "MODIFIER", "MICRO", "VARIATION") else script
            kind[code] = scripts.setdefault(script, len(scripts) + LATIN)
        elif category[0] not in "ZC":
            kind[code] = DIGIT if category == "Nd" else MARK
            plain = unicodedata.normalize("NFKC", str(unicodedata.digit(char, char)))
            symbol[code] = SYMBOLS.find(plain) + 1 if len(plain) == 1 else 0
        lower[code] = ord(char.lower()) if len(char.lower()) == 1 else code
    return Characters(kind, lower, symbol, np.isin(kind, [MARK, *(scripts[name] for name in _UNSEGMENTED)]), scripts)


def mix(numbers: Hashes) -> Hashes:
    """Return 64-bit hashes of numbers (SplitMix64)."""
    z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class TextBlock:
    """N lines, N > 0, of one side of a corpus; no line has a line feed in it."""

    def __init__(self, lines: Sequence[str]) -> None:
        encoded = "\n".join([*lines, ""]).encode(f"utf-32-{sys.byteorder[0]}e", "surrogatepass")
        self.lines, self.codes = lines, np.minimum(np.frombuffer(encoded, np.uint32), _LAST)  # (C,)
        self.kind, self.lower = characters().kind[self.codes], characters().lower[self.codes]  # (C,)
        self.sizes = np.fromiter(map(len, lines), np.int64, len(lines)) + 1  # (N,), as the rest
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.num_letters = self.count(self.kind >= LATIN)
        self.num_words = self.count((self.kind != SPACE) & np.r_[True, self.kind[:-1] == SPACE])

    def count(self, flags: Flags) -> Ints:
        """Return how many characters of each line have a flag: (C,) -> (N,)."""
        return np.add.reduceat(flags, self.starts, dtype=np.int64)

    @cached_property
    def symbols(self) -> Ints:
        """Number of each of `SYMBOLS` in each line, (N, 15)."""
        symbol, size = characters().symbol[self.codes], len(SYMBOLS) + 1
        at = np.flatnonzero(symbol)
        cells = (np.searchsorted(self.starts, at, "right") - 1) * size + symbol[at]
        return np.bincount(cells, minlength=size * len(self.lines)).reshape(-1, size)[:, 1:]

    @cached_property
    def hashes(self) -> Hashes:
        """Hash of each line as it is, (N,); of this process only."""
        return np.fromiter(map(hash, self.lines), np.int64, len(self.lines)).view(np.uint64)

    @cached_property
    def normalized_hashes(self) -> Hashes:
        """Hash of the lowercase letters alone of each line, (N,); of one without letters that of the line."""
        letters, ends = self.lower[self.kind >= LATIN].tobytes(), np.cumsum(4 * self.num_letters).tolist()
        hashes = np.fromiter((hash(letters[a:b]) for a, b in pairwise([0, *ends])), np.int64, len(ends))
        return np.where(self.num_letters > 0, hashes.view(np.uint64), self.hashes)

    def matches(self, mark: str, pattern: str) -> Ints:
        """Return how many texts of a pattern each line has; each has the mark."""
        find = re.compile(pattern).findall
        return np.array([len(find(line)) if mark in line else 0 for line in self.lines])

    @cached_property
    def token_starts(self) -> Ints:
        begins = np.r_[True, self.kind[1:] != self.kind[:-1]] | characters().alone[self.codes]
        return np.flatnonzero(begins & (self.kind != SPACE))

    @cached_property
    def num_tokens(self) -> Ints:
        """Number of tokens of each line, (N,)."""
        return np.diff(np.searchsorted(self.token_starts, np.r_[self.starts, len(self.codes)]))

    @cached_property
    def tokens(self) -> Hashes:
        """Hash of each token, of the first of its lowercase letters only, (T,)."""
        begins = np.zeros(len(self.codes), np.int64)
        begins[self.token_starts] = self.token_starts
        places = np.arange(len(self.codes)) - np.maximum.accumulate(begins)
        powers = _POWERS[np.where(self.kind == SPACE, _PREFIX, np.minimum(places, _PREFIX))]
        return np.add.reduceat(mix(self.lower.astype(np.uint64)) * powers, self.token_starts)
