"""Score hypotheses: length normalization and coverage penalty."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nmt.search.config import SearchConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_COVERAGE = 1e-6


class Hypothesis(NamedTuple):
    """A finished translation.

    tokens: ids without begin and end token.
    score: log_prob over the length normaliser, and the coverage penalty: see `SearchConfig`. Of mbr: expected utility.
    log_prob: natural logarithm of its probability, end token included.
    weights: (L, H, T, S) attention weights collected along the beam when asked for, T = len(tokens) + 1.
    cut: it ended because it had reached the longest length allowed.
    """

    tokens: list[int]
    score: float
    log_prob: float
    weights: Tensor | None = None
    truncated: bool = False


def length_norm(config: SearchConfig, length: Ints | int) -> Floats:
    """What log p is divided by, for lengths with end token."""
    lengths = np.asarray(length, np.float64)
    base = lengths if config.length_normalization == "power" else (5 + lengths) / 6
    norm: Floats = np.asarray(base**config.length_penalty)
    return norm


def coverage_penalty(config: SearchConfig, covered: Floats) -> Floats:
    """covered (..., S), what each source token received in all -> (...), at most 0."""
    logs: Floats = np.log(np.clip(covered, MIN_COVERAGE, 1.0)).sum(-1)
    return config.coverage_penalty * logs
