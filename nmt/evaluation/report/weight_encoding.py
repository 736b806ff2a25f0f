"""Attention of every layer and head, small enough to be carried by a page."""

from __future__ import annotations

import base64
import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEVELS = (64, 32, 24, 16)
"""Numbers of levels that a weight may be rounded to, tried in this order until everything fits."""
MAX_BYTES = 12_000_000
"""All matrices of a page together, compressed; they take a third more as base64."""


class Packed(NamedTuple):
    """Matrices as text, one line for each sentence: base64 of zlib of one byte for each weight, "" for no matrix.

    levels: what a byte counts; see `restore`. num_full: this many first sentences have every layer and head.
    num_one: the next ones have the matrix that was chosen, of shape (1, 1, T, S). Those after them have none.
    """

    levels: int
    lines: list[str]
    num_full: int
    num_one: int


def quantise(weights: npt.NDArray[np.floating[Any]], levels: int) -> npt.NDArray[np.uint8]:
    """Weights from 0 to 1 as 0 … levels - 1. The levels are even in the square root, so that small weights differ."""
    rounded: npt.NDArray[np.uint8] = np.rint(np.sqrt(np.clip(weights, 0.0, 1.0)) * (levels - 1)).astype(np.uint8)
    return rounded


def restore(rounded: npt.NDArray[np.uint8], levels: int) -> npt.NDArray[np.float64]:
    """The weights that `quantise` rounded."""
    return np.square(rounded.astype(np.float64) / (levels - 1))


def largest_error(levels: int) -> float:
    """How far a weight is off at most, which is near 1; it was rounded to the most levels first. One of 0.1 is off by a
    third as much."""
    steps = np.arange(LEVELS[0])
    ends = np.clip((steps + np.array([[-0.5], [0.5]])) / (LEVELS[0] - 1), 0.0, 1.0) ** 2
    return float(np.abs(ends - restore(_levels(levels), levels)).max())


class Matrices:
    """Gathers the attention of a page's sentences; memory holds it compressed.

    Args:
        layer, head: the matrix to keep where every one of them would be too much, counted from 1; 0 = the mean.
    """

    def __init__(self, layer: int = 0, head: int = 0) -> None:
        self.layer, self.head = layer, head
        self._full: list[bytes] = []
        self._one: list[bytes] = []

    def add(self, weights: npt.NDArray[np.floating[Any]] | None) -> None:
        """The next sentence, (L, H, T, S), or None: it has no attention.

        Raises:
            ValueError: a weight is negative or not a finite number.
        """
        if weights is None or not weights.size:
            self._full.append(b"")
            self._one.append(b"")
            return
        if not np.isfinite(weights).all() or weights.min() < 0:
            number = len(self._full) + 1
            raise ValueError(f"sentence {number}: attention holds values that are negative or not finite numbers")
        layers = weights[self.layer - 1 : self.layer] if self.layer else weights
        one = (layers[:, self.head - 1 : self.head] if self.head else layers).mean((0, 1))
        self._full.append(zlib.compress(quantise(weights, LEVELS[0]).tobytes()))
        self._one.append(zlib.compress(quantise(one, LEVELS[0]).tobytes()))

    def pack(self, max_bytes: int = MAX_BYTES) -> Packed:
        """As many levels as fit; where no number of levels does, fewer sentences with every layer and head."""
        full, one = self._full, self._one
        levels = LEVELS[0]
        for levels in LEVELS:
            full, one = ([_coarser(item, levels) for item in items] for items in (self._full, self._one))
            if sum(map(len, full)) <= max_bytes:
                break
        # All of them with one matrix each first, then more and more of them with every one.
        num_one = _count([len(item) for item in one], max_bytes)
        left = max_bytes - sum(map(len, one[:num_one]))
        num_full = _count([len(a) - len(b) for a, b in zip(full, one, strict=True)], left)
        if num_one < len(one):
            num_full = 0
        kept = [*full[:num_full], *one[num_full:num_one], *[b""] * (len(one) - num_one)]
        return Packed(levels, [base64.b64encode(item).decode() for item in kept], num_full, num_one - num_full)


def _count(sizes: list[int], limit: int) -> int:
    """How many of the first ones fit."""
    total = np.cumsum(sizes)
    return int((total > limit).argmax()) if len(total) and total[-1] > limit else len(sizes)


def _coarser(item: bytes, levels: int) -> bytes:
    if levels == LEVELS[0] or not item:
        return item
    return zlib.compress(_levels(levels)[np.frombuffer(zlib.decompress(item), np.uint8)].tobytes())


def _levels(levels: int) -> npt.NDArray[np.uint8]:
    """Which of fewer levels each of the most levels becomes."""
    return quantise(restore(np.arange(LEVELS[0], dtype=np.uint8), LEVELS[0]), levels)
