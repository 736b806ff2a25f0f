"""Training speed: target tokens per second, utilization of the device's matrix rate, and time of each phase."""

import os
import resource
import tempfile
import time
import timeit
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from benchmark_common import parse

from nmt import models
from nmt.attention.linear import linear
from nmt.cli.compose import run_command
from nmt.cli.configs import Config
from nmt.data import Batch, BatchLoader, batch_to_device, load_corpus, train_or_load_tokenizer
from nmt.evaluation.report_writer import package_versions
from nmt.models.flops import flops_per_token
from nmt.runtime.device import AUTOCAST_DTYPES, resolve_device
from nmt.runtime.process import setup_process
from nmt.training.optim import clip_gradients
from nmt.training.trainer import Trainer

DEFAULTS = {"updates": 60, "warmup": 20}
BACKWARD = 2
"""FLOPs of a backward pass, relative to a forward pass (an estimate)."""


def measure(arguments: list[str]) -> dict[str, Any]:
    """Measure updates on batches in the order of training; options besides updates and warmup are those of training.

    The first `warmup` updates are not counted. After `updates`, a third as many are measured in phases.
    """
    measuring = [argument for argument in arguments if argument.partition("=")[0] in DEFAULTS]
    training = [argument for argument in arguments if argument not in measuring]
    counts = parse("train", measuring, DEFAULTS)
    results: list[dict[str, Any]] = []
    run_command(lambda config, _: results.append(_measure(config, **counts)), Config, "train", training)
    if not results:  # --help and the like
        raise SystemExit
    return results[0]


def _measure(config: Config, updates: int, warmup: int) -> dict[str, Any]:
    setup_process(config.num_threads)
    device = resolve_device(config.device)
    tokenizer = train_or_load_tokenizer(config.data)
    corpus = load_corpus(config.data, "train", tokenizer)
    torch.manual_seed(config.seed)
    sizes = tokenizer.source_size, tokenizer.target_size
    model = models.build_model(config.model, *sizes, joint=tokenizer.joint).to(device)
    model.train()
    batches = BatchLoader(corpus, tokenizer, config.train.batch_tokens, config.seed, device=device)
    load = os.getloadavg()[0]
    endless = (batch for epoch in count() for batch in batches.epoch(epoch))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model, batches, None, config.train, config.optim, seed=1, device=device, directory=Path(folder), header={}
        )
        for batch in islice(endless, warmup):
            trainer.step([batch])
        _wait(device)
        num_tokens, begin = 0, time.perf_counter()
        for batch in islice(endless, updates):
            trainer.step([batch])
            num_tokens += batch.num_tokens
        _wait(device)
        seconds = time.perf_counter() - begin
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 2**20  # of tensors
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # with libraries and data
        phases = _phases(trainer, endless, max(updates // 3, 1), device)
    flops = flops_per_token(config.model, *sizes, joint=tokenizer.joint)
    rate = matrix_rate(trainer.precision, device)
    return {
        "tokens_per_second": round(num_tokens / seconds, 1),
        "tokens_per_update": round(num_tokens / updates, 1),
        "milliseconds_per_update": round(1000 * seconds / updates, 1),
        "updates": updates,
        "precision": trainer.precision,
        "device": str(device),
        "num_threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "megaflops_per_token": round((1 + BACKWARD) * flops / 1e6, 2),
        "matrix_gigaflops_per_second": round(rate / 1e9, 1),
        "share_of_matrix_rate": round((1 + BACKWARD) * flops * num_tokens / seconds / rate, 3),
        "share_of_time": phases,
        "peak_mebibytes": round(peak, 1),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "versions": package_versions(),
    }


def matrix_rate(precision: str, device: torch.device) -> float:
    """Return FLOPs per second of large square products, the best of several; a multiply-add counts as 2."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = AUTOCAST_DTYPES.get(precision, torch.float32)
    a = torch.randn(size, size, device=device).to(dtype)

    def product() -> None:
        linear(a, a)
        _wait(device)

    return 2 * size**3 / min(timeit.repeat(product, number=1, repeat=20))


def _phases(trainer: Trainer, batches: Iterator[Batch], updates: int, device: torch.device) -> dict[str, float]:
    """Return the share of time of each phase of an update, with the device synchronized after each phase."""
    seconds_of: Counter[str] = Counter()
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        _wait(device)
        now = time.perf_counter()
        seconds_of[name] += now - last
        last = now

    for _ in range(updates):
        batch = batch_to_device(next(batches), device)
        lap("data")
        loss, _losses = trainer.objective(trainer.model, batch, trainer.precision)
        lap("forward")
        (loss / batch.num_tokens).backward()
        lap("backward")
        clip_gradients(trainer.model, trainer.optim_config.clip_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        lap("optimizer")
    return {name: round(seconds / seconds_of.total(), 3) for name, seconds in seconds_of.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
