"""Sentences of a page: texts as JSON, attention as compressed bytes, and the HTML around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.evaluation.report.html import macros, printable
from nmt.evaluation.report.weight_encoding import (
    LEVELS,
    MAX_BYTES,
    MAX_QUANTIZATION_ERROR,
    AttentionPacker,
    check_weights,
)

MAX_SENTENCES = 3000
"""Sentences in a page; further ones are left out."""


@dataclass
class ReportSentence:
    """One test sentence.

    reference: None when there is none. values: numbers to sort by, such as chrF; None where this one has none.
    source_subwords, target_subwords: names of the S columns and T rows of its attention; () for none. source_words,
    target_words: the word index of each of them, -1 for none. links: (source word, target word), the hard alignment.
    further: references beyond the first.
    """

    source: str
    reference: str | None
    hypothesis: str
    values: Mapping[str, float | None] = field(default_factory=dict)
    source_subwords: Sequence[str] = ()
    target_subwords: Sequence[str] = ()
    source_words: Sequence[int] = ()
    target_words: Sequence[int] = ()
    links: Sequence[tuple[int, int]] = ()
    further: Sequence[str] = ()


def subword_row(
    source: Sequence[str],
    target: Sequence[str],
    source_words: Sequence[int],
    target_words: Sequence[int],
    links: Sequence[Sequence[int]],
) -> dict[str, list[Any]]:
    """Return the subwords of a sentence, the words they belong to and its links, under the script's keys."""
    subwords = {"sp": list(map(printable, source)), "tp": list(map(printable, target))}
    return {**subwords, "sw": list(source_words), "tw": list(target_words), "k": list(map(list, links))}


class SentenceBrowser:
    """Collects the sentences of a page, in order.

    Args:
        layer, head, shift: the alignment source, counted from 1; 0 = the mean. It is shown first.
        alignment_source_text: its description.
    """

    def __init__(self, layer: int = 0, head: int = 0, shift: int = 0, alignment_source_text: str = "") -> None:
        self.layer, self.head, self.shift, self.alignment_source_text = layer, head, shift, alignment_source_text
        self.num_added = 0
        self.names: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._packer = AttentionPacker(layer, head)

    def add(self, sentence: ReportSentence, weights: npt.NDArray[np.floating[Any]] | None = None) -> None:
        """Add the next sentence; those beyond `MAX_SENTENCES` are only counted.

        Args:
            weights: (L, H, T, S) attention between 0 and 1; None for a model without attention.

        Raises:
            ValueError: the subwords do not fit the weights, or a weight is negative or not a finite number.
        """
        self.num_added += 1
        if len(self._rows) == MAX_SENTENCES:
            return
        source, target = sentence.source_subwords, sentence.target_subwords
        if weights is not None:
            check_weights(weights, (len(target), len(source)), f"sentence {self.num_added}: ")
        self._packer.add(weights)
        row = {
            "s": printable(sentence.source),
            "r": None if sentence.reference is None else printable(sentence.reference),
            **({"rs": [*map(printable, sentence.further)]} if sentence.further else {}),
            "h": printable(sentence.hypothesis),
            "v": [None if value is None else round(value, 4) for value in sentence.values.values()],
        }
        words = sentence.source_words, sentence.target_words
        self._rows.append({**row, **subword_row(source, target, *words, sentence.links)})
        self.names = list(sentence.values)

    def examples(self) -> dict[str, int]:
        """Return the indices of the best, the median and the worst sentence by chrF, fewer when there are fewer.

        Of equal ones the first in the file is the better, of two in the middle the worse is the median.
        """
        columns = [i for i, name in enumerate(self.names) if name == "chrF"]
        scores = [(row["v"][column], -i) for column in columns for i, row in enumerate(self._rows)]
        order = [-number for _, number in sorted((pair for pair in scores if pair[0] is not None), reverse=True)]
        chosen = {"Best": order[:1], "Median": order[len(order) // 2 : -1], "Worst": order[1:][-1:]}
        return {name: indices[0] for name, indices in chosen.items() if indices}

    def render(self, max_bytes: int = MAX_BYTES) -> str:
        """Return the HTML of the section; "" without sentences."""
        if not self._rows:
            return ""
        packed = self._packer.pack(max_bytes)
        content = {
            **self._packer.header(packed),
            "shift": self.shift,
            "alignment_source_text": printable(self.alignment_source_text),
            "one": packed.num_one,
            "values": list(map(printable, self.names)),
            "examples": {name: (i, self._packer.selected(i)) for name, i in self.examples().items()},
            "sentences": self._rows,
        }
        weights = packed.lines if content["layers"] else ()
        about = self._about(packed.num_full, packed.num_one)
        return macros("evaluation/report/templates/report.html").sentences(about, content, weights)

    def _about(self, num_full: int, num_one: int) -> str:
        """Return a description of the sentences and matrices in the page, and of their precision."""
        shown, (num_layers, num_heads) = len(self._rows), self._packer.shape
        all_shown = shown == self.num_added
        sentences = f"All {shown:,} sentences." if all_shown else f"The first {shown:,} of {self.num_added:,}."
        if not num_layers:
            return sentences
        full = f"{num_layers * num_heads} matri{'x' if num_layers * num_heads == 1 else 'ces'}"
        full += f" ({num_layers} layer{'s' * (num_layers > 1)} × {num_heads} head{'s' * (num_heads > 1)})"
        if num_full == shown:
            matrices = f"Each with its {full}"
        else:
            matrices = f"The first {num_full:,} with their {full}, the next {num_one:,} with one"
            matrices += f" ({self.alignment_source_text or 'the mean'})"
            matrices += ", the rest with none" * (num_full + num_one < shown)
            matrices += ", to keep the page small; alignments.npz holds all"
        rounded = f"weights are rounded to {LEVELS} levels and off by {MAX_QUANTIZATION_ERROR:.3f} at most."
        return f"{sentences} {matrices}; {rounded}"
