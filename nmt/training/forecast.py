"""The end of a run, estimated from its limits and its speed, and what a run misses that ends too early."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from nmt.config import flatten, upgrade
from nmt.training.config import TrainConfig
from nmt.training.optim import OptimConfig, learning_rate
from nmt.training.progress import TrainProgress

log = logging.getLogger(__name__)

TIMED_UPDATES = 50
"""Updates of a session, after its first one, by which its speed is known."""


def last_update(max_updates: int, max_epochs: int, updates_per_epoch: int) -> int:
    """Return where updates or epochs end a run, and with it the schedule; 0 when neither is limited."""
    return min((limit for limit in (max_updates, max_epochs * updates_per_epoch) if limit), default=0)


def shortfalls(optim: OptimConfig, update: int, last: int, cause: str) -> Iterator[str]:
    """Yield a sentence each for a warm-up, and a schedule until `last`, that are not over where `cause` ends the run.

    A schedule counts when its rate would fall further by more than 5 % of the highest one.
    """
    if update <= optim.warmup_updates:
        what = f"the warm-up of optim.warmup_updates={optim.warmup_updates} is too long"
        yield f"{what}: {cause}; lower it, or raise the limit"
    rate, final = (learning_rate(optim, update, share) for share in (update / max(last, 1), 1.0))
    if update < last and rate - final > 0.05 * optim.learning_rate:
        what, rates = f"optim.schedule={optim.schedule}, until update {last}", f"{rate:.2e} instead of {final:.2e}"
        advice = f"set train.max_updates={update}, or raise the limit"
        yield f"the schedule {what}, is too long: {cause}, with a learning rate of {rates}; {advice}"


class RunForecast:
    """Measures the speed of a session, and warns of what its run will miss.

    Args:
        begin: progress at the beginning of the session.
        stored: the configuration that it continues; {}: none.
        epoch: updates of one; 0 where epochs are not limited, neither now nor in `stored`, and of a stream: unknown.
    """

    def __init__(
        self, optim: OptimConfig, train: TrainConfig, begin: TrainProgress, stored: Mapping[str, Any], epoch: int = 0
    ) -> None:
        self.optim, self.train, self.begin, self.last_validated = optim, train, begin.update, begin.last_validated
        self.last = last = last_update(train.max_updates, train.max_epochs, epoch)
        self.seconds, self.num_timed, self.update_seconds, self.validation_seconds = begin.seconds, 0, 0.0, 0.0
        if begin.stop_reason:
            return
        if train.max_epochs and epoch:
            hint = "; train.max_updates=0 is no limit" if last < train.max_epochs * epoch else ""
            text = "train.max_epochs=%d of %d updates, train.max_updates=%d: the run ends at update %d%s"
            level = logging.WARNING if hint else logging.INFO
            log.log(level, text, train.max_epochs, epoch, train.max_updates, last, hint)
        if last:
            self._warn(last, f"the run ends at update {last}")
        limits, update = flatten(upgrade(stored)), begin.update + 1
        former = last_update(limits.get("train.max_updates", last), limits.get("train.max_epochs", 0), epoch)
        before, now = (learning_rate(optim, update, update / max(end, 1)) for end in (former, last))
        if before != now:
            change = f"the run ends at update {last} instead of {former}, which changes optim.schedule={optim.schedule}"
            log.warning("%s: the learning rate of update %d is %.2e instead of %.2e", change, update, now, before)

    def check(self, progress: TrainProgress) -> None:
        """Measure an update; warn, once the speed is known, of `train.max_minutes`, and when the run has ended."""
        number, passed, self.seconds = progress.update - self.begin, progress.seconds - self.seconds, progress.seconds
        if progress.stop_reason:
            if number:
                self._warn(progress.update, f"the run ended at update {progress.update} ({progress.stop_reason})")
        elif progress.last_validated > self.last_validated:  # in the time that passed
            self.last_validated = progress.last_validated
            self.validation_seconds = max(passed - self.update_seconds, 0.0)
        elif number > 1:  # the first update is slow
            self.num_timed += 1
            self.update_seconds += (passed - self.update_seconds) / min(self.num_timed, 4 * TIMED_UPDATES)
        end = self.expected_end(progress)
        if number == 1 + TIMED_UPDATES and end is not None and end[0] != self.last and not progress.stop_reason:
            cause = f"at this speed train.max_minutes={self.train.max_minutes:g} ends the run near update {end[0]}"
            self._warn(end[0], cause)

    def expected_end(self, progress: TrainProgress) -> tuple[int, float] | None:
        """Return at which update, in how many seconds, the limit that comes first will end the run, the validation at
        its end counted; None without a limit, and before the speed of the session is known."""
        update, last, every, seconds = progress.update, self.last, self.train.valid_every, self.validation_seconds
        if self.train.max_minutes and self.num_timed:
            left = max(60 * self.train.max_minutes - progress.seconds, 0.0)
            reached = update + int(left / max(self.update_seconds + seconds / every, 1e-9))
            if not 0 < last <= reached:
                return reached, left + seconds
        num_validations = -(-last // every) - progress.last_validated // every
        left = (last - update) * self.update_seconds + num_validations * seconds
        return (last, left) if last and self.num_timed else None

    def _warn(self, update: int, cause: str) -> None:
        for text in shortfalls(self.optim, update, self.last, cause):
            log.warning("%s", text)
