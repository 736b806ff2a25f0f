"""The sentences of a page: texts as JSON, attention as compressed bytes, and the frame they are shown in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nmt.evaluation.report.html import escape, printable
from nmt.evaluation.report.weight_encoding import MAX_BYTES, Matrices, largest_error

MAX_SENTENCES = 3000
"""Sentences that a page holds at most: the first ones."""


@dataclass
class ReportSentence:
    """One test sentence.

    Attributes:
        source: the text translated.
        reference: the translation by people; None when there is none.
        hypothesis: the model's translation.
        values: numbers by which sentences can be sorted, such as chrF; None where this one has none.
        source_pieces, target_pieces: names of the S columns and T rows of its attention; () for none.
        source_words, target_words: the word of each of them, -1 for none.
        links: (source word, target word), the hard alignment.
    """

    source: str
    reference: str | None
    hypothesis: str
    values: Mapping[str, float | None] = field(default_factory=dict)
    source_pieces: Sequence[str] = ()
    target_pieces: Sequence[str] = ()
    source_words: Sequence[int] = ()
    target_words: Sequence[int] = ()
    links: Sequence[tuple[int, int]] = ()


class Browser:
    """Gathers the sentences of a page, in order.

    Args:
        layer, head, shift: where links were read from, counted from 1; 0 = the mean. It is what is shown first.
        read_from: the same in words.
    """

    def __init__(self, layer: int = 0, head: int = 0, shift: int = 0, read_from: str = "") -> None:
        self.layer, self.head, self.shift, self.read_from = layer, head, shift, read_from
        self.num = 0
        self.shape = (0, 0)
        self._rows: list[dict[str, Any]] = []
        self._matrices = Matrices(layer, head)

    def add(self, sentence: ReportSentence, weights: npt.NDArray[np.floating[Any]] | None = None) -> None:
        """The next sentence; beyond `MAX_SENTENCES` it is counted only.

        Args:
            weights: (L, H, T, S) attention between 0 and 1; None for a model without attention.

        Raises:
            ValueError: pieces do not fit the weights, or a weight is negative or not a finite number.
        """
        self.num += 1
        if len(self._rows) == MAX_SENTENCES:
            return
        source, target = sentence.source_pieces, sentence.target_pieces
        if weights is not None:
            if weights.ndim != 4 or weights.shape[2:] != (len(target), len(source)):
                raise ValueError(
                    f"sentence {self.num}: attention of shape {weights.shape} does not fit"
                    f" {len(target)} target and {len(source)} source pieces"
                )
            self.shape = weights.shape[0], weights.shape[1]
        self._matrices.add(weights)
        row = {
            "s": printable(sentence.source),
            "r": None if sentence.reference is None else printable(sentence.reference),
            "h": printable(sentence.hypothesis),
            "v": [None if value is None else round(value, 4) for value in sentence.values.values()],
            "sp": [printable(piece) for piece in source],
            "tp": [printable(piece) for piece in target],
            "sw": list(sentence.source_words),
            "tw": list(sentence.target_words),
            "k": [list(link) for link in sentence.links],
        }
        self._rows.append(row)
        self.names = list(sentence.values)

    def render(self, max_bytes: int = MAX_BYTES) -> str:
        """HTML of the section; "" without sentences."""
        if not self._rows:
            return ""
        packed = self._matrices.pack(max_bytes)
        content = {
            "layers": self.shape[0],
            "heads": self.shape[1],
            "layer": self.layer,
            "head": self.head,
            "shift": self.shift,
            "read_from": printable(self.read_from),
            "levels": packed.levels,
            "full": packed.num_full,
            "one": packed.num_one,
            "values": [printable(name) for name in self.names],
            "sentences": self._rows,
        }
        # "<" would begin an end tag inside a text.
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        weights = "\n".join(packed.lines) if self.shape[0] else ""
        return (
            f'<p class="soft small">{escape(self._about(packed.levels, packed.num_full, packed.num_one))}</p>\n'
            "<noscript><p>The sentences are shown by a script, which this browser does not run; hypotheses.txt and "
            "sentences.jsonl beside this page hold them too.</p></noscript>\n"
            f'<div id="browser" hidden>{_FRAME}</div>\n'
            f'<script type="application/json" id="texts">{text}</script>\n'
            f'<script type="text/plain" id="weights">{weights}</script>'
        )

    def _about(self, levels: int, num_full: int, num_one: int) -> str:
        """What is here, how exactly, and what is not."""
        shown, parts = len(self._rows), []
        parts.append(f"All {self.num:,} sentences." if shown == self.num else f"The first {shown:,} of {self.num:,}.")
        num_layers, num_heads = self.shape
        if not num_layers:
            return parts[0]
        each = f"{num_layers * num_heads} matri{'x' if num_layers * num_heads == 1 else 'ces'}"
        layers = f"{num_layers} layer{'s' * (num_layers > 1)} × {num_heads} head{'s' * (num_heads > 1)}"
        if num_full == shown:
            parts.append(f"Each with its {each} ({layers})")
        else:
            parts.append(f"The first {num_full:,} with their {each} ({layers}), the next {num_one:,} with one")
            parts[-1] += f" ({self.read_from or 'the mean'})" + (
                "" if num_full + num_one == shown else ", the rest with none"
            )
            parts[-1] += ", to keep the page small; alignments.npz holds all"
        rounded = f"weights are rounded to {levels} levels and off by {largest_error(levels):.3f} at most."
        return f"{' '.join(parts)}; {rounded}"


_FRAME = """
<div class="pane">
  <label>Search <input type="search" id="search" placeholder="in all three texts"></label>
  <label>Sort by <select id="sort"></select></label>
  <p class="soft small" id="found" role="status"></p>
  <div id="list" role="listbox" tabindex="0" aria-label="Sentences"></div>
</div>
<article id="sentence" aria-label="The sentence chosen">
  <div class="bar"><h3 id="name"></h3><span class="soft small" id="values"></span>
    <button type="button" id="previous">← previous</button><button type="button" id="next">next →</button></div>
  <div class="texts" id="texts-shown"></div>
  <div id="attention">
    <div class="bar"><label>Layer <select id="layer"></select></label><label>Head <select id="head"></select></label>
      <label>Units <select id="units"><option value="words">words</option><option value="pieces">subwords</option>
      </select></label><label><input type="checkbox" id="shift"> read one step later</label></div>
    <div class="trace" id="source-line" aria-label="source"></div>
    <div class="trace" id="target-line" aria-label="hypothesis"></div>
    <output id="weight" aria-live="polite"></output>
    <div class="scroll"><table class="heat" id="matrix" dir="ltr" aria-label="Attention"></table></div>
    <p class="soft small" id="legend"></p>
  </div>
</article>
"""
