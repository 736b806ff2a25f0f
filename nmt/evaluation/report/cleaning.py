"""The pairs that the filters of a corpus rejected: counts, overlaps, samples, and the page that shows them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nmt.data.cleaning.filters import FILTERS
from nmt.data.cleaning.lexicon import Floats
from nmt.data.cleaning.text_block import Flags, Ints
from nmt.data.sources import Block
from nmt.evaluation.report.html import html_document, macros

SAMPLES = 8
"""Pairs of each kind that are shown of a filter."""


class Tally:
    """Counts of F filters and samples of what they reject and what they only just keep.

    num_pairs, num_kept: so far. reasons: pairs whose reason each filter is, (F,). both: pairs that each two filters
    reject, (F, F). alone: pairs that no other filter rejects, (F,). samples: by filter and whether it rejects them,
    with a rank, line, value, source and target each.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options, self.num_pairs, self.num_kept, size = options, 0, 0, len(options)
        self.reasons, self.alone, self.both = (np.zeros(shape, np.int64) for shape in (size, size, (size, size)))
        self.samples: dict[tuple[str, bool], list[Any]] = {
            (name, flag): [] for name in options for flag in (True, False)
        }

    def rejected(self, values: Floats, *, dry: bool = False) -> Flags:
        """Return which filters reject which pairs, also those that only count: (F, N) -> (F, N)."""
        rows = zip(self.options.items(), values, strict=True)
        return np.stack([FILTERS[name].rejects(row, o) & (dry or not o.dry) for (name, o), row in rows])

    def add(self, values: Floats, block: Block) -> Ints:
        """Count the pairs of a block by their values, (F, N), and return what each is rejected by first, or -1."""
        beyond, rejected = self.rejected(values, dry=True), self.rejected(values)
        reasons = np.where(rejected.any(0), rejected.argmax(0), -1)
        self.both += beyond.astype(np.int64) @ beyond.T
        self.alone += (beyond & (beyond.sum(0) == 1)).sum(1)
        self.reasons += np.bincount(reasons[reasons >= 0], minlength=len(values))
        random = np.random.default_rng(self.num_pairs).random(len(reasons))
        for (name, flag), found in self.samples.items():
            row, options = list(self.options).index(name), self.options[name]
            distance = np.abs(values[row] - getattr(options, "max", getattr(options, "min", 0)))
            is_near = (reasons < 0) & (distance > 0 if hasattr(options, "min") else values[row] > 0)
            rank = np.where(beyond[row], random, np.nan) if flag else np.where(is_near, distance, np.nan)
            best = [i for i in np.argsort(rank, kind="stable")[:SAMPLES] if rank[i] >= 0]
            found += [(rank[i], self.num_pairs + i + 1, values[row, i], block[0][i], block[1][i]) for i in best]
            self.samples[name, flag] = sorted(found)[:SAMPLES]
        self.num_pairs, self.num_kept = self.num_pairs + len(reasons), self.num_kept + int((reasons < 0).sum())
        return reasons


def cleaning_page(name: str, tally: Tally, about: str) -> str:
    """Return the page as HTML."""
    html = macros("evaluation/report/templates/cleaning.html")
    overlaps = "Pairs that two filters reject; the shade is their share of those of the filter of the row."
    wide = ".data td:last-child, .data td[dir] { min-width: 15rem; } .data { font-variant-numeric: tabular-nums; }"
    sections = {
        "Filters": (html.filters(tally, FILTERS), ""),
        "Overlaps": (html.overlaps(tally), overlaps),
        "Samples": (html.samples(tally, FILTERS), "Line, value, source and target."),
    }
    return html_document(f"Cleaning of {name}", "cleaning", about, sections, styles=wide)
