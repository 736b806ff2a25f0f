"""Progress of a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from nmt.config import check_range, from_dict


@dataclass
class TrainProgress:
    """The progress of a run: all that a continuation needs besides weights, optimizer and schedule."""

    update: int = 0
    epoch: int = 0
    batch: int = 0  # batches of this epoch that have been used
    pairs_by_corpus: list[int] = field(default_factory=list)  # that were used, of a training text of several corpora
    last_validated: int = 0  # update of the last validation
    best_score: float = math.nan
    best_loss: float = math.inf  # decides between equal scores; infinite in a checkpoint of 0.4, which has none
    best_update: int = 0
    best_averaged_updates: list[int] = field(default_factory=list)  # the updates whose mean best.pt is; else none
    kept_best: list[tuple[float, int]] = field(default_factory=list)  # (score, update), best first, means left out
    kept_losses: list[float] = field(default_factory=list)  # losses of `kept_best`; none in a checkpoint of 0.4
    last_averaged: int = 0  # update at which the mean of checkpoints was last validated
    validations_without_improvement: int = 0  # validations since the best
    seconds: float = 0.0
    unlogged_sums: list[float] = field(default_factory=list)  # sums since the last log line
    oom_splits: int = 0  # times a batch was split because memory ran out
    divergence_state: list[float] = field(default_factory=list)  # see `DivergenceGuard.state_dict`
    scaler_state: list[float] = field(default_factory=list)  # fp16: scale of the loss, updates since it changed
    stop_reason: str = ""  # why the run is finished

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "TrainProgress":
        """Return the progress that a checkpoint of this version or of 0.3 holds."""
        progress = from_dict(
            cls, {_RENAMED_PROGRESS.get(name, name): value for name, value in stored.items()}, "position."
        )
        counts = [field.name for field in fields(cls) if type(getattr(progress, field.name)) in (int, bool)]
        check_range("position", progress, [*counts, "seconds"], minimum=0)
        return progress


_RENAMED_PROGRESS = {
    "validated": "last_validated",
    "best": "best_score",
    "best_mean": "best_averaged_updates",
    "averaged": "last_averaged",
    "bad": "validations_without_improvement",
    "pending": "unlogged_sums",
    "split": "oom_splits",
    "guard": "divergence_state",
    "finished": "stop_reason",
}
"""Fields of `TrainProgress` in version 0.3 and their names since."""
