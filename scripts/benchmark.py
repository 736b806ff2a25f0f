"""Measures speed and memory, and prints one JSON object.

usage: python scripts/benchmark.py train [name=value …] [updates=N] [warmup=N]
       python scripts/benchmark.py attention [threads=N] [dtype=fp32|bf16] [lengths=64-128-256] [repeats=N]

train: target tokens per second of training updates (end tokens counted, padding not). The options are those of
    `python -m nmt.train`.
attention: time and extra memory of the scores, forward and backward, and how both grow with length; additive beside its
    formula written down directly. A table of it goes to standard error.
"""

import nmt  # isort: skip  # before torch: it decides how torch's threads wait

import json
import os
import resource
import sys
import tempfile
import time
from itertools import count, islice
from pathlib import Path

import benchmark_attention
import torch

import nmt.config
from nmt import models, runtime
from nmt.data import Batches, load_tokenizer, prepare
from nmt.evaluator import versions
from nmt.schema import Config
from nmt.trainer import Trainer


def train(config: Config, updates: int, warmup: int) -> dict[str, object]:
    """Updates on real batches in their usual order, the first `warmup` not counted."""
    runtime.prepare(config.threads)
    device = runtime.device(config.device)
    tokenizer = load_tokenizer(config.data)
    corpus = prepare(config.data, "train", tokenizer)
    torch.manual_seed(config.seed)
    model = models.build(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint).to(device)
    model.train()
    batches = Batches(corpus, tokenizer, config.train.batch_tokens, config.seed)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model, batches, None, config.train, config.optim, seed=1, device=device, directory=Path(folder), header={}
        )
        num_tokens, begin = 0, time.perf_counter()
        endless = (batch for epoch in count() for batch in batches.epoch(epoch))
        for number, batch in enumerate(islice(endless, warmup + updates)):
            if number == warmup:
                _wait(device)
                num_tokens, begin = 0, time.perf_counter()
            trainer.step([batch])
            num_tokens += batch.num_tokens
        _wait(device)
        seconds = time.perf_counter() - begin
    return {
        "tokens_per_second": round(num_tokens / seconds, 1),
        "tokens_per_update": round(num_tokens / updates, 1),
        "milliseconds_per_update": round(1000 * seconds / updates, 1),
        "updates": updates,
        "precision": trainer.precision,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "peak_mebibytes": _peak(device),
        "load_before": load,
        "versions": versions(),
    }


def _peak(device: torch.device) -> float:
    """The most memory held: on a GPU by tensors, on a CPU resident in the process, libraries and data included."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Reads `updates=` and `warmup=`; everything else is for the configuration."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in ("train", "attention"):
        raise SystemExit(f"error: {' '.join(arguments[:1]) or 'nothing'}: say what to measure: train or attention")
    if arguments[0] == "attention":
        given = dict(argument.partition("=")[::2] for argument in arguments[1:])
        if unknown := set(given) - {"threads", "dtype", "lengths", "repeats"}:
            raise SystemExit(f"error: {', '.join(unknown)}: attention takes threads, dtype, lengths and repeats")
        print(json.dumps(benchmark_attention.measure(given)))
        return
    counts = {"updates": 60, "warmup": 20}
    rest = []
    for argument in arguments[1:]:
        name, _, value = argument.partition("=")
        if name in counts and value.isdigit() and int(value):
            counts[name] = int(value)
        else:
            rest.append(argument)
    nmt.config.command(lambda config, _: print(json.dumps(train(config, **counts))), Config, "train", rest)


if __name__ == "__main__":
    main()
