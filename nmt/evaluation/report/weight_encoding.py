"""Compact encoding of attention weights of all layers and heads for a page."""

import base64
import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEVELS = 64
"""Number of quantization levels of a weight."""
MAX_QUANTIZATION_ERROR = (LEVELS - 1.25) / (LEVELS - 1) ** 2
"""Largest error of a weight, near 1; that of a weight of 0.1 is a third of it."""
MAX_BYTES = 12_000_000
"""All matrices of a page together, compressed; they take a third more as base64."""


class PackedAttention(NamedTuple):
    """Matrices as text, one line for each sentence: base64 of zlib of one byte for each weight, "" for no matrix.

    The first `num_full` sentences have every layer and head, the next `num_one` the selected matrix, of shape
    (1, 1, T, S). Those after them have none.
    """

    lines: list[str]
    num_full: int
    num_one: int


def check_weights(
    weights: npt.NDArray[Any], shape: tuple[int, int], prefix: str = "", *, leading: int = 2, unit: str = "subwords"
) -> None:
    """Raise ValueError when the shape after `leading` dimensions is wrong, or a weight is negative or not finite."""
    if weights.shape[leading:] != shape or not weights.size:
        raise ValueError(
            f"{prefix}attention of shape {weights.shape} does not fit {shape[0]} target and {shape[1]} source {unit}"
        )
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"{prefix}attention holds values that are negative or not finite numbers")


def quantize(weights: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Return weights from 0 to 1 as 0 … LEVELS - 1, uniform in the square root: small weights have finer steps."""
    rounded: npt.NDArray[np.uint8] = np.rint(np.sqrt(np.clip(weights, 0.0, 1.0)) * (LEVELS - 1)).astype(np.uint8)
    return rounded


class AttentionPacker:
    """Collects the attention of a page's sentences, compressed.

    Args:
        layer, head: the matrix to keep where there is no room for all, counted from 1; 0 = the mean.
    """

    def __init__(self, layer: int = 0, head: int = 0) -> None:
        self.layer, self.head = layer, head
        self.shape = (0, 0)
        self._full: list[bytes] = []
        self._one: list[bytes] = []

    def add(self, weights: npt.NDArray[np.floating[Any]] | None) -> None:
        """Add the next sentence, (L, H, T, S) weights that `check_weights` accepts, or None: it has no attention."""
        full = one = b""
        if weights is not None:
            self.shape = weights.shape[0], weights.shape[1]
            layers = weights[self.layer - 1 : self.layer] if self.layer else weights
            selected = (layers[:, self.head - 1 : self.head] if self.head else layers).mean((0, 1))
            full, one = (zlib.compress(quantize(matrix).tobytes()) for matrix in (weights, selected))
        self._full.append(full)
        self._one.append(one)

    def pack(self, max_bytes: int = MAX_BYTES) -> PackedAttention:
        """Return as many sentences with one matrix as fit, and of those as many as fit with every layer and head."""
        sizes = [len(item) for item in self._one]
        num_one, num_full = _count(sizes, max_bytes), 0
        if num_one == len(sizes):
            extra = [len(full) - size for full, size in zip(self._full, sizes, strict=True)]
            num_full = _count(extra, max_bytes - sum(sizes))
        kept = [*self._full[:num_full], *self._one[num_full:num_one], *[b""] * (len(sizes) - num_one)]
        return PackedAttention([base64.b64encode(item).decode() for item in kept], num_full, num_one - num_full)

    def selected(self, index: int) -> str:
        """Return the selected matrix of a sentence, not compressed, as base64; "" for none."""
        return base64.b64encode(zlib.decompress(self._one[index])).decode() if self._one[index] else ""

    def header(self, packed: PackedAttention) -> dict[str, int]:
        """Return what the script of a page needs to decode and select the matrices."""
        sizes = dict(zip(("layers", "heads"), self.shape, strict=True))
        return {**sizes, "layer": self.layer, "head": self.head, "levels": LEVELS, "full": packed.num_full}


def _count(sizes: list[int], limit: int) -> int:
    """Return how many of the first ones fit."""
    total = np.cumsum(sizes)
    return int((total > limit).argmax()) if len(total) and total[-1] > limit else len(sizes)
