"""A run's line in TensorBoard's table of runs: its options and what it was worth in the end."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

PLACES = ("name", "runs", "data.cache", "threads", "device")
"""Options that make no other model."""


def final(directory: Path, options: Mapping[str, Any], scores: Mapping[str, float], update: int) -> None:
    """Tells TensorBoard a run's options and what it was worth in the end, for its table of runs (HPARAMS).

    Args:
        directory: the run directory.
        options: nested; those that say where and not what are left out.
        scores: by test set and name, as "test/bleu".
        update: the last one.
    """
    from torch.utils.tensorboard import SummaryWriter

    flat = {name: value for name, value in _flat(options) if name not in PLACES}
    try:
        with SummaryWriter(str(directory / "tensorboard")) as board:
            # "." for the run's own folder: the table has one line for each run then
            board.add_hparams(flat, {f"final/{name}": value for name, value in scores.items()}, None, ".", update)
    except OSError as error:
        log.warning("TensorBoard gets no final scores: %s", error)


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Options under their full names."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, bool | int | float | str) else json.dumps(value)
