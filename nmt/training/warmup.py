"""Warnings about a run that ends inside its warm-up, and about a schedule that another `train.max_updates` changes."""

import logging
from collections.abc import Mapping
from typing import Any

from nmt.config import flatten, upgrade
from nmt.training.checkpointing import TrainProgress
from nmt.training.config import TrainConfig
from nmt.training.optim import OptimConfig, learning_rate

log = logging.getLogger(__name__)

FIRST_TIMED, LAST_TIMED = 5, 50
"""Updates of a session between which its speed is measured; the very first ones are slow."""


class WarmupWatch:
    """Warnings, each given once in a session, that the learning rate will not be as the schedule has it.

    Args:
        progress: where this session begins.
        stored: nested configuration of the checkpoint that it continues, of this version or of 0.3; else empty.
    """

    def __init__(
        self, optim: OptimConfig, train: TrainConfig, progress: TrainProgress, stored: Mapping[str, Any]
    ) -> None:
        self.warmup, self.train = optim.warmup_updates, train
        self.begin, self.timed_from = progress.update, progress.seconds
        if progress.stop_reason:
            return
        if self.warmup >= train.max_updates:
            self._warn(f"is not over before train.max_updates={train.max_updates} ends the run")
        former, update = flatten(upgrade(stored)).get("train.max_updates", train.max_updates), progress.update + 1
        before, now = (learning_rate(optim, update, update / limit) for limit in (former, train.max_updates))
        if before != now:
            change = (
                f"train.max_updates={train.max_updates}, which was {former}, changes optim.schedule={optim.schedule}"
            )
            log.warning("%s: the learning rate of update %d is %.2e instead of %.2e", change, update, now, before)

    def check(self, progress: TrainProgress) -> None:
        """Warn as soon as the speed of this session shows that `train.max_minutes` is too short."""
        number, minutes = progress.update - self.begin, self.train.max_minutes
        if number == FIRST_TIMED:
            self.timed_from = progress.seconds
        elif number == LAST_TIMED and minutes:
            per_update = (progress.seconds - self.timed_from) / (LAST_TIMED - FIRST_TIMED)
            last = progress.update + max(0, int((60 * minutes - progress.seconds) / max(per_update, 1e-9)))
            if last < self.warmup:
                self._warn(f"will not be over: at this speed train.max_minutes={minutes:g} ends near update {last}")

    def check_end(self, progress: TrainProgress) -> None:
        """Warn when the run has ended inside the warm-up, in this session."""
        if progress.stop_reason and self.begin < progress.update < self.warmup:
            self._warn(f"was not over when the run ended at update {progress.update} ({progress.stop_reason})")

    def _warn(self, what: str) -> None:
        log.warning("the warm-up of optim.warmup_updates=%d %s; lower it, or raise the limit", self.warmup, what)
