"""Measures speed and memory, and prints one JSON object.

usage: python scripts/benchmark.py train [name=value …] [updates=N] [warmup=N]
       python scripts/benchmark.py attention [threads=N] [dtype=fp32|bf16] [lengths=64-128-256] [repeats=N]

train: target tokens per second of training updates (end tokens counted, padding not), the share of the device's
    measured matrix rate that they use, and where the time goes. The options are those of `python -m nmt.train`.
attention: time and extra memory of the scores, forward and backward, and how both grow with length; additive beside its
    formula written down directly. A table of it goes to standard error.
"""

import nmt  # noqa: F401  # isort: skip  # before torch: it decides how torch's threads wait

import sys
from collections.abc import Callable

import benchmark_attention
import benchmark_train

KINDS: dict[str, Callable[[list[str]], None]] = {
    "train": benchmark_train.main,
    "attention": benchmark_attention.main,
}


def main() -> None:
    """Hands the arguments after the first to the kind of measurement that the first names."""
    kind, *arguments = sys.argv[1:] or ["nothing"]
    if kind not in KINDS:
        raise SystemExit(f"error: {kind}: say what to measure: {', '.join(KINDS)}")
    KINDS[kind](arguments)


if __name__ == "__main__":
    main()
