"""The pairs that the filters of a corpus rejected: counts, overlaps, samples, and the page that shows them."""

from collections.abc import Mapping
from itertools import product
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
        self.samples: dict[tuple[str, bool], list[Any]] = {key: [] for key in product(options, (True, False))}
        self.applied = np.array([not o.dry for o in options.values()])

    def excess(self, values: Floats) -> Floats:
        """Return by how much the values of each filter are beyond its threshold: (F, N) -> (F, N)."""
        rows = zip(self.options.items(), values, strict=True)
        return np.stack([FILTERS[name].excess(row, options) for (name, options), row in rows])

    def rejected(self, values: Floats) -> Flags:
        """Return which pairs are rejected: (F, N) -> (N,)."""
        return np.asarray(np.any(self.excess(values)[self.applied] > 0, 0))

    def add(self, values: Floats, block: Block) -> Ints:
        """Count the pairs of a block by their values, (F, N), and return what each is rejected by first, or -1."""
        excess = self.excess(values)
        beyond = excess > 0
        rejected = beyond & self.applied[:, None]
        reasons = np.where(rejected.any(0), rejected.argmax(0), -1)
        self.both += beyond.astype(np.int64) @ beyond.T
        self.alone += (beyond & (beyond.sum(0) == 1)).sum(1)
        self.reasons += np.bincount(reasons[reasons >= 0], minlength=len(values))
        random = np.random.default_rng(self.num_pairs).random(len(reasons))
        near = np.where((excess <= 0) & (values != 0) & (reasons < 0), -excess, np.nan)
        for row, name in enumerate(self.options):
            for flag, ranks in ((True, np.where(beyond[row], random, np.nan)), (False, near[row])):
                best = [i for i in np.argsort(ranks, kind="stable")[:SAMPLES] if ranks[i] >= 0]
                found = [(ranks[i], self.num_pairs + i + 1, values[row, i], block[0][i], block[1][i]) for i in best]
                self.samples[name, flag] = sorted(self.samples[name, flag] + found)[:SAMPLES]
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
