"""Early stopping: which validation was the best so far, and when a run no longer improves."""

import math
from collections.abc import Mapping

from nmt.training.checkpointing import TrainProgress
from nmt.training.config import EARLY_STOPPING_METRICS, TrainConfig


class EarlyStopping:
    """The bookkeeping of early stopping: the best validation of a run, by `train.early_stopping_metric`.

    Scores and the count of validations without improvement are kept in `TrainProgress`; a tie keeps the earlier
    validation. The function `stop_reason` compares that count with `train.patience`.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.metric = config.early_stopping_metric
        self.sign = EARLY_STOPPING_METRICS[self.metric]

    def score(self, scores: Mapping[str, float]) -> float:
        """Return the value of the metric. Raise ValueError when the validation set does not provide it."""
        if self.metric not in scores:
            raise ValueError(f"train.early_stopping_metric={self.metric}: validation gives only {', '.join(scores)}")
        return scores[self.metric]

    def update(self, score: float, progress: TrainProgress) -> None:
        """Record the score of the validation at the current update."""
        progress.last_validated = progress.update
        progress.validations_without_improvement += 1
        if self._is_better(score, progress):
            progress.best_score, progress.best_update, progress.best_averaged_updates = score, progress.update, []
            progress.validations_without_improvement = 0

    def update_averaged(self, score: float, averaged_updates: list[int], progress: TrainProgress) -> bool:
        """Record the score of the mean of the checkpoints of `averaged_updates`; return whether it is the best."""
        progress.last_averaged = progress.update
        if not self._is_better(score, progress):
            return False
        progress.best_score, progress.best_update = score, progress.update
        progress.best_averaged_updates = averaged_updates
        return True

    def _is_better(self, score: float, progress: TrainProgress) -> bool:
        return math.isnan(progress.best_score) or self.sign * (score - progress.best_score) > 0


def stop_reason(config: TrainConfig, progress: TrainProgress) -> str:
    """Return why a run with this progress is finished (patience, updates or minutes); "" when it is not."""
    if progress.update >= config.max_updates:
        return f"train.max_updates={config.max_updates} reached"
    if config.max_minutes and progress.seconds >= 60 * config.max_minutes:
        return f"train.max_minutes={config.max_minutes:g} reached"
    if config.patience and progress.validations_without_improvement >= config.patience:
        return f"no better valid {config.early_stopping_metric} in train.patience={config.patience} validations"
    return ""
