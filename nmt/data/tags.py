"""Reserved ids beside a tokenizer's own: tags, which no text can contain and no translation shows."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.data.vocabulary import FlatIds, TokenizerModel

TERM_TAGS = ("<term>", "<is>", "</term>")
"""Reserved ids around source words and the target words that annotate them; see `nmt.data.terms`."""


class TaggedModel(TokenizerModel):
    """A model of one side with tags, whose ids follow its own; `prefix` are the ids that begin every sequence.

    As of PAD, BOS and EOS, nothing of a tag is in the decoded text, and it belongs to no word.
    """

    def __init__(self, base: TokenizerModel, tags: Sequence[str], prefix: Sequence[int] = ()) -> None:
        self.base, self.tags, self.prefix = base, tuple(tags), tuple(prefix)
        self.surfaces: list[bytes | None] = [*base.surfaces, *[None] * len(tags)]
        self.marks_start, self.has_unknown, self.symbols = base.marks_start, base.has_unknown, base.symbols

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*self.prefix, *ids] for ids in self.base.encode(texts)]

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        return with_prefixes(self.base.encode_flat(texts), [self.prefix], np.zeros(len(texts), np.int64))

    def sample(self, texts: Sequence[str], strength: float, keys: NDArray[np.uint64]) -> FlatIds:
        flat = self.base.sample(texts, strength, keys)
        return with_prefixes(flat, [self.prefix], np.zeros(len(texts), np.int64))

    def subword(self, index: int) -> str:
        num = self.base.size
        return self.base.subword(index) if index < num else self.tags[index - num]

    def state(self) -> dict[str, Any]:
        return self.base.state()

    def cut(self, used: Collection[int]) -> tuple[TokenizerModel, list[int]]:
        num = self.base.size
        model, ids = self.base.cut([index for index in used if index < num])
        return TaggedModel(model, self.tags), [*ids, *range(num, self.size)]


def with_prefixes(flat: FlatIds, prefixes: Sequence[Sequence[int]], of_row: NDArray[np.int64]) -> FlatIds:
    """Insert before each sequence the ids `prefixes[of_row[i]]`."""
    if not any(prefixes):
        return flat
    ids, lengths = flat
    sizes = np.array([len(prefix) for prefix in prefixes])[of_row]
    starts = np.cumsum(lengths) - lengths
    added = np.concatenate([np.array(prefixes[i], ids.dtype) for i in of_row.tolist()])
    return np.insert(ids, np.repeat(starts, sizes), added), lengths + sizes
