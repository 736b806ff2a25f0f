"""Score hypotheses: length normalization and coverage penalty."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nmt.search.config import SearchConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MIN_COVERAGE = 1e-6


class Hypothesis(NamedTuple):
    """A finished translation.

    tokens: ids without begin and end token.
    score: log_prob divided by the length norm, plus the coverage penalty: see `SearchConfig`. Of mbr: expected utility.
    log_prob: natural logarithm of its probability, end token included.
    weights: (L, H, T, S) attention weights collected along the beam, T = len(tokens) + 1, or None.
    truncated: it ended because it had reached the maximum length.
    """

    tokens: list[int]
    score: float
    log_prob: float
    weights: Tensor | None = None
    truncated: bool = False


def length_norm(config: SearchConfig, length: Ints | int) -> Floats:
    """Return the divisor of log p for lengths that count the end token."""
    lengths = np.asarray(length, np.float64)
    base = lengths if config.length_normalization == "power" else (5 + lengths) / 6
    return np.asarray(base**config.length_penalty, np.float64)


def coverage_penalty(config: SearchConfig, coverage: Floats) -> Floats:
    """Return the penalty (...), at most 0, for the attention that each source token received in all (..., S)."""
    logs: Floats = np.log(np.clip(coverage, MIN_COVERAGE, 1.0)).sum(-1)
    return config.coverage_penalty * logs
