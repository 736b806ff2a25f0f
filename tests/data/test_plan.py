"""A corpus planned in pieces is planned as well as in one, and nothing is in two batches or in none."""

import numpy as np
import pytest

plan_module = pytest.importorskip("nmt.data.plan")


def lengths(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source = rng.gamma(8, 1.8, num).astype(np.int64)
    return source, np.maximum(0, source + rng.normal(0, 2.5, num).astype(np.int64))
