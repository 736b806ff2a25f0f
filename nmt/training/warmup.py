"""Warnings about a run that ends inside its warm-up, or whose schedule another `train.max_updates` changes."""

import logging
from collections.abc import Mapping
from typing import Any

from nmt.config import flatten, upgrade
from nmt.training.config import TrainConfig
from nmt.training.optim import OptimConfig, learning_rate
from nmt.training.progress import TrainProgress

log = logging.getLogger(__name__)

TIMED_UPDATES = 50
"""Updates of a session, after its first one, by which its speed is known."""


class WarmupWatch:
    """Warns at the beginning of a session, of which `stored` is the configuration that it continues ({}: none)."""

    def __init__(self, optim: OptimConfig, train: TrainConfig, begin: TrainProgress, stored: Mapping[str, Any]) -> None:
        self.warmup, self.train, self.begin, self.timed_from = optim.warmup_updates, train, begin.update, 0.0
        if begin.stop_reason:
            return
        if self.warmup >= train.max_updates:
            self._warn(f"is not over before train.max_updates={train.max_updates} ends the run")
        former, update = flatten(upgrade(stored)).get("train.max_updates", train.max_updates), begin.update + 1
        before, now = (learning_rate(optim, update, update / limit) for limit in (former, train.max_updates))
        if before != now:
            change = (
                f"train.max_updates={train.max_updates}, which was {former}, changes optim.schedule={optim.schedule}"
            )
            log.warning("%s: the learning rate of update %d is %.2e instead of %.2e", change, update, now, before)

    def check(self, progress: TrainProgress) -> None:
        """Warn, once the speed of the session is known, when `train.max_minutes` is too short, and when the run has
        ended inside the warm-up."""
        number, minutes = progress.update - self.begin, self.train.max_minutes
        if progress.stop_reason:
            if number and progress.update < self.warmup:
                self._warn(f"was not over when the run ended at update {progress.update} ({progress.stop_reason})")
        elif number == 1:
            self.timed_from = progress.seconds
        elif number == 1 + TIMED_UPDATES and minutes:
            per_update = max((progress.seconds - self.timed_from) / TIMED_UPDATES, 1e-9)
            last = progress.update + max(0, int((60 * minutes - progress.seconds) / per_update))
            if last < self.warmup:
                self._warn(f"will not be over: at this speed train.max_minutes={minutes:g} ends near update {last}")

    def _warn(self, what: str) -> None:
        log.warning("the warm-up of optim.warmup_updates=%d %s; lower it, or raise the limit", self.warmup, what)
