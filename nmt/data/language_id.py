"""The language of a text, by its character trigrams: learned within a second from texts in the languages meant."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nmt.data.cleaning.text_block import DIGIT, LATIN, Flags, Ints, TextBlock, mix

_BUCKETS = 1 << 18


class LanguageIdentifier:
    """A naive Bayes classifier of texts.

    Args:
        languages: L names.
        log_probs: of each bucket of trigrams in each language, (buckets, L).
    """

    def __init__(self, languages: Sequence[str], log_probs: NDArray[np.float32]) -> None:
        self.languages, self.log_probs = list(languages), log_probs

    @classmethod
    def train(cls, texts: Mapping[str, Sequence[str]]) -> "LanguageIdentifier":
        """Learn languages from lines in each of them; some 10,000 suffice.

        Lines in another of the languages do no harm as long as they are few: after a first round they are left out.
        Raises ValueError unless there are two languages or more, each with letters.
        """
        blocks = [TextBlock([line.replace("\n", " ") for line in [*lines, ""]]) for lines in texts.values()]
        if len(blocks) < 2 or not all(block.num_letters.any() for block in blocks):
            raise ValueError(f"languages {', '.join(texts)}: two or more are needed, and a text with letters in each")
        identifier, keep = (
            cls(list(texts), np.zeros((_BUCKETS, len(blocks)), np.float32)),
            [b.sizes > 0 for b in blocks],
        )
        for _ in range(2):
            counts = [np.bincount(_trigrams(*side)[0], minlength=_BUCKETS) for side in zip(blocks, keep, strict=True)]
            smoothed = np.stack(counts, 1) + 0.5
            identifier.log_probs = np.log(smoothed / smoothed.sum(0)).astype(np.float32)
            keep = [identifier.log_likelihoods(block).argmax(1) == i for i, block in enumerate(blocks)]
        return identifier

    def log_likelihoods(self, block: TextBlock) -> NDArray[np.float64]:
        """Return log p(text | language) of every line, (N, L); 0 of a line without letters."""
        trigrams, lines = _trigrams(block, block.sizes > 0)
        columns = (np.bincount(lines, column, len(block.lines)) for column in self.log_probs[trigrams].T)
        return np.stack(list(columns), 1)

    def identify(self, text: str) -> tuple[str, float]:
        """Return the likeliest language, and by how many nats it is likelier than the next: below 10 there is little
        text or little difference."""
        values = self.log_likelihoods(TextBlock([text.replace("\n", " ")]))[0]
        second, first = np.argsort(values, kind="stable")[-2:]
        return self.languages[first], float(values[first] - values[second])


def _trigrams(block: TextBlock, keep: Flags) -> tuple[Ints, Ints]:
    """Return the bucket of each trigram with a letter in the middle, and its line, of the lines to keep."""
    inner = np.flatnonzero((block.kind >= LATIN) & np.repeat(keep, block.sizes))
    codes = np.where(block.kind > DIGIT, block.lower, 0).astype(np.uint64)  # all else is one
    hashes = mix(codes[inner - 1] << np.uint64(42) | codes[inner] << np.uint64(21) | codes[inner + 1])
    lines = np.repeat(np.arange(len(keep)), np.where(keep, block.num_letters, 0))
    return (hashes % np.uint64(_BUCKETS)).astype(np.int64), lines
