"""The largest batch that a device holds, found by training steps on dummy batches."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from nmt.data import AlignmentTargets, Batch, batch_to_device, collate
from nmt.data.vocabulary import SPECIAL_TOKENS
from nmt.models import Seq2Seq
from nmt.models.encoder_decoder import EncoderDecoder
from nmt.runtime.device import resolve_precision
from nmt.runtime.memory import available_memory, is_oom_error, peak_memory
from nmt.training.config import TrainConfig
from nmt.training.distributed import DistributedContext
from nmt.training.objective import TrainingObjective

CPU = torch.device("cpu")
MEMORY_FRACTION = 0.85
"""Used fraction of the free memory; the rest is for fragmentation, other processes and validation."""
MAX_CPU_STEP_SECONDS = 10.0
"""On a CPU, longer steps than this are not doubled any more; the memory of larger ones is extrapolated."""


def find_batch_tokens(
    model: Seq2Seq, size: tuple[int, int], config: TrainConfig, device: torch.device, distributed: DistributedContext
) -> int:
    """Return the tokens of the largest batch for all ranks together: the smallest result of a rank times their number.

    Every pair is as long as the longest of the corpus, which takes the most memory for a number of tokens. On a GPU
    batches double until one does not fit, then the gap is bisected. On a CPU, where running out of memory would end the
    process, memory is measured on a few sizes and extrapolated to larger ones, up to the whole corpus.

    Args:
        model: on the device; unchanged afterwards.
        size: of the training data: number of pairs, and subwords of the longest sentence.
        config: for the objective and the precision.

    Raises:
        ValueError: not even one pair fits.
    """
    length = 1 + size[1]
    max_rows = -(-size[0] // distributed.size)
    objective = TrainingObjective(config, fused=isinstance(model, EncoderDecoder))
    precision = resolve_precision(config.precision, device)
    vocabulary_sizes = tuple(getattr(model, f"{side}_embedding").num_embeddings for side in ("source", "target"))
    generator = torch.Generator().manual_seed(0)

    def step(rows: int) -> None:
        batch = _dummy_batch(rows, length, vocabulary_sizes, generator, config.guided_alignment_weight > 0)
        try:
            loss, _ = objective(model, batch_to_device(batch, device), precision)
            loss.backward()
        finally:
            model.zero_grad(set_to_none=True)

    # The optimizer's two moments, the moving average, and the buckets in which several devices sum gradients.
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    reserved = weights * (2 + (config.ema_decay > 0) + (distributed.size > 1))
    rng_state = torch.get_rng_state()
    try:
        find_rows = _on_gpu if device.type == "cuda" else _on_cpu
        rows = find_rows(step, max_rows, reserved, device, distributed.local_size)
    finally:
        torch.set_rng_state(rng_state)
    rows = int(min(rank_rows for (rank_rows,) in distributed.all_gather((rows,))))
    if rows == 0:
        raise ValueError(
            f"train.batch_tokens=auto: not even one pair of {length} tokens fits: lower data.max_length, or make the "
            "model smaller"
        )
    return rows * length * distributed.size


def _on_gpu(step: Callable[[int], None], max_rows: int, reserved: int, device: torch.device, _: int) -> int:
    """Return the rows that fit beside `reserved` bytes, within `MEMORY_FRACTION` of the free memory."""
    index = device.index if device.index is not None else torch.cuda.current_device()
    free, total = torch.cuda.mem_get_info(index)
    fraction = (torch.cuda.memory_reserved(index) + MEMORY_FRACTION * free) / total
    torch.cuda.set_per_process_memory_fraction(fraction, index)
    placeholder = torch.empty(reserved, dtype=torch.uint8, device=device)

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
        while bad <= max_rows and fits(bad):
            good, bad = bad, 2 * bad
        bad = min(bad, max_rows + 1)
        while bad - good > max(1, good // 16):
            middle = (good + bad) // 2
            good, bad = (middle, bad) if fits(middle) else (good, middle)
    finally:
        del placeholder
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0, index)
    return good


def _on_cpu(step: Callable[[int], None], max_rows: int, reserved: int, _: torch.device, processes: int) -> int:
    """Return the rows whose step would take this process's share of the available memory."""
    budget = MEMORY_FRACTION * (available_memory() / processes) - reserved
    step(1)
    with contextlib.suppress(OSError):  # resets the peak, where the system can do that
        Path("/proc/self/clear_refs").write_text("5")
    start = peak_memory(CPU)
    rows, measured = min(8, max_rows), [(0, 0)]
    while True:
        begin = time.monotonic()
        step(rows)
        measured.append((rows, peak_memory(CPU) - start))
        is_long = time.monotonic() - begin > MAX_CPU_STEP_SECONDS or 4 * measured[-1][1] > budget
        # Memory that the process already holds is used first, so one size is not enough, unless it takes too much.
        if 2 * rows > max_rows or (is_long and (measured[-2][1] > 0 or 2 * measured[-1][1] > budget)):
            break
        rows *= 2
    (rows_before, before), (rows, last) = measured[-2:]
    if last <= before:  # even the whole corpus is too small to be measured
        return max_rows
    growth = (last - before) / (rows - rows_before)
    return max(0, min(max_rows, int(rows + (budget - last) / growth)))


def _dummy_batch(rows: int, length: int, sizes: Sequence[int], generator: torch.Generator, linked: bool) -> Batch:
    """Return `rows` pairs of `length` tokens, including the end token, from vocabularies of these sizes."""
    sources, targets = (
        torch.randint(min(len(SPECIAL_TOKENS), size - 1), size, (rows, length - 1), generator=generator).tolist()
        for size in sizes
    )
    batch = collate(sources, targets)
    if not linked:
        return batch
    row, position = torch.cartesian_prod(torch.arange(rows), torch.arange(length)).T
    return batch._replace(links=AlignmentTargets(torch.stack([row, position, position]), torch.ones(len(row))))
