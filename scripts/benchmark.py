"""Measure speed and memory, and print one JSON object.

usage: python scripts/benchmark.py train [name=value …] [updates=N] [warmup=N]
       python scripts/benchmark.py attention [num_threads=N] [dtype=fp32|bf16] [lengths=64-128-256] [repeats=N]
       python scripts/benchmark.py decode checkpoint=RUN source=FILE [num_threads=N] [lengths=16-500]
           [search.beam_size=N] …
       python scripts/benchmark.py data [pairs=N] [tokenizer=unigram|bpe|word|char] [text=PREFIX] [output=FILE] …

train: target tokens per second (end tokens counted, padding not), utilization of the device's measured matrix rate, and
    the share of time of each phase. The options are those of `python -m nmt.train`.
attention: time and memory of the scores, forward and backward, and how both grow with length; additive attention also
    in its textbook formula. A table goes to standard error.
decode: sentences and target tokens per second of translating a file, by wall clock and processor time; a lower bound
    from the matrix products; and how the cost of a sentence grows with its length. A table goes to standard error.
data: pairs prepared per second, seconds to the first batch, target tokens read per second, and peak memory, each step
    in a process of its own; the text is synthetic unless PREFIX is given.
"""

import nmt  # noqa: F401  # isort: skip  # before torch: it decides how torch's threads wait

import importlib
import json
import sys

KINDS = ("train", "attention", "data", "decode")


def main() -> None:
    """Run the benchmark that the first argument names, with the other arguments as its options."""
    kind, *arguments = sys.argv[1:] or ["nothing"]
    if kind not in KINDS:
        raise SystemExit(f"error: {kind}: no such benchmark; there are {', '.join(KINDS)}")
    print(json.dumps(importlib.import_module(f"benchmark_{kind}").measure(arguments)))


if __name__ == "__main__":
    main()
