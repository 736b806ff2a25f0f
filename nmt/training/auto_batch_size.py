"""The largest batch that a device holds, found by training steps on made-up batches."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nmt.data import BOS, EOS, AlignmentTargets, Batch, EncodedCorpus, batch_to_device
from nmt.data.vocabulary import SPECIAL_TOKENS
from nmt.runtime.device import resolve_precision
from nmt.runtime.memory import available_memory, is_oom_error, peak_memory
from nmt.training.config import TrainConfig
from nmt.training.distributed import DistributedContext
from nmt.training.objective import TrainingObjective

MEMORY_FRACTION = 0.85
"""Of the memory that is there; the rest is for fragments, for what other processes take, and for validation."""
MAX_CPU_STEP_SECONDS = 10.0
"""On a CPU a step that takes longer than this is not doubled any more; memory beyond it is computed."""


def find_batch_tokens(
    model: nn.Module, corpus: EncodedCorpus, config: TrainConfig, device: torch.device, ranks: DistributedContext
) -> int:
    """Tokens of the largest batch for all ranks together; the smallest of what they find, times their number.

    Every pair is as long as the longest of the corpus, which takes the most memory for a number of tokens. On a GPU
    batches double until one does not fit, then the gap is halved. On a CPU, where running out of memory would end the
    process, memory is measured on a few sizes and computed for larger ones, up to the whole corpus.

    Args:
        model: on the device; it is left as it was.
        corpus: the training data.
        config: with the options of the objective and the precision.

    Raises:
        ValueError: not even one pair fits.
    """
    length = 1 + corpus.longest
    everything = -(-len(corpus) // ranks.size)
    objective = TrainingObjective(config)
    precision = resolve_precision(config.precision, device)
    generator = torch.Generator().manual_seed(0)

    def step(rows: int) -> None:
        batch = batch_to_device(
            _made_up(rows, length, _vocabulary(model), generator, config.guided_alignment_weight > 0), device
        )
        try:
            loss, _ = objective(model, batch, precision)  # type: ignore[arg-type]
            loss.backward()
        finally:
            model.zero_grad(set_to_none=True)

    # The optimiser's two moments, an average of the weights, and the buckets in which several devices add up.
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    reserved = weights * (2 + (config.ema_decay > 0) + (ranks.size > 1))
    state = torch.get_rng_state()
    try:
        find = _on_gpu if device.type == "cuda" else _on_cpu
        rows = find(step, everything, reserved, device, ranks.local_size)
    finally:
        torch.set_rng_state(state)
    rows = int(min(own for (own,) in ranks.all_gather((rows,))))
    if rows == 0:
        raise ValueError(
            f"train.batch_tokens=auto: not even one pair of {length} tokens fits: lower data.max_length, or make the "
            "model smaller"
        )
    return rows * length * ranks.size


def _on_gpu(step: Callable[[int], None], most: int, reserved: int, device: torch.device, _: int) -> int:
    """Rows that fit, besides `reserved` bytes; a share of the memory is kept free while trying."""
    index = device.index if device.index is not None else torch.cuda.current_device()
    free, total = torch.cuda.mem_get_info(index)
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(index) + MEMORY_FRACTION * free) / total, index
    )
    held = torch.empty(reserved, dtype=torch.uint8, device=device)

    def fits(rows: int) -> bool:
        try:
            step(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_oom_error(error):
                raise
            return False
        finally:
            torch.cuda.empty_cache()
        return True

    try:
        good, bad = 0, 1
        while bad <= most and fits(bad):
            good, bad = bad, 2 * bad
        bad = min(bad, most + 1)
        while bad - good > max(1, good // 16):
            middle = (good + bad) // 2
            good, bad = (middle, bad) if fits(middle) else (good, middle)
    finally:
        del held
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0, index)
    return good


def _on_cpu(step: Callable[[int], None], most: int, reserved: int, _: torch.device, processes: int) -> int:
    """Rows whose step would take a share of the memory that is available to this one of `processes`."""
    budget = MEMORY_FRACTION * (available_memory() / processes) - reserved
    step(1)
    start = _peak(reset=True)
    rows, measured = min(8, most), [(0, 0)]
    while True:
        begin = time.monotonic()
        step(rows)
        measured.append((rows, _peak() - start))
        is_long = time.monotonic() - begin > MAX_CPU_STEP_SECONDS or 4 * measured[-1][1] > budget
        # What the process already has is used first, so one size alone says too little, unless it takes too much.
        if 2 * rows > most or (is_long and (measured[-2][1] > 0 or 2 * measured[-1][1] > budget)):
            break
        rows *= 2
    (rows_before, before), (rows, last) = measured[-2:]
    if last <= before:  # the whole corpus is too small to be seen
        return most
    growth = (last - before) / (rows - rows_before)
    return max(0, min(most, int(rows + (budget - last) / growth)))


def _peak(*, reset: bool = False) -> int:
    """Bytes of memory that this process had at most, since the last reset where the system can do that."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return peak_memory(torch.device("cpu"))


def _vocabulary(model: nn.Module) -> tuple[int, int]:
    """Entries of the source's and the target's."""
    tables = [getattr(model, f"{side}_embedding").num_embeddings for side in ("source", "target")]
    return tables[0], tables[1]


def _made_up(rows: int, length: int, sizes: tuple[int, int], generator: torch.Generator, linked: bool) -> Batch:
    """`rows` pairs of `length` tokens, end tokens counted."""
    source, labels = (
        torch.randint(min(len(SPECIAL_TOKENS), size - 1), size, (rows, length), generator=generator) for size in sizes
    )
    source[:, -1] = labels[:, -1] = EOS
    inputs = labels.roll(1, 1)
    inputs[:, 0] = BOS
    links = None
    if linked:
        row, place = torch.meshgrid(torch.arange(rows), torch.arange(length), indexing="ij")
        links = AlignmentTargets(
            torch.stack([row.flatten(), place.flatten(), place.flatten()]), torch.ones(rows * length)
        )
    mask = torch.ones(rows, length, dtype=torch.bool)
    return Batch(source, mask, inputs, labels, torch.arange(rows * length), rows * length, np.arange(rows), links)
