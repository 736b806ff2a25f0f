"""Early stopping: which validation was the best so far, and when a run no longer improves."""

import math
from collections.abc import Mapping

from nmt.training.checkpointing import TrainProgress
from nmt.training.config import EARLY_STOPPING_METRICS, TrainConfig


class EarlyStopping:
    """Keep the best validation of a run in its `TrainProgress`, by the metric `train.early_stopping_metric`.

    A tie keeps the earlier validation. `TrainConfig.over` ends the run after `train.patience` validations without a
    better one.

    Args:
        config: names the metric.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.metric = config.early_stopping_metric
        self.sign = EARLY_STOPPING_METRICS[self.metric]

    def score(self, scores: Mapping[str, float]) -> float:
        """Return the value of the metric.

        Raises:
            ValueError: the validation set does not give it.
        """
        if self.metric not in scores:
            raise ValueError(f"train.early_stopping_metric={self.metric}: validation gives only {', '.join(scores)}")
        return scores[self.metric]

    def is_better(self, score: float, position: TrainProgress) -> bool:
        """Return whether a score beats the best one so far."""
        return math.isnan(position.best_score) or self.sign * (score - position.best_score) > 0

    def update(self, score: float, position: TrainProgress) -> None:
        """Record the score of the validation at the current update."""
        position.last_validated = position.update
        if self.is_better(score, position):
            position.best_score, position.best_update, position.validations_without_improvement = (
                score,
                position.update,
                0,
            )
            position.best_averaged_updates = []
        else:
            position.validations_without_improvement += 1

    def update_averaged(self, score: float, averaged_updates: list[int], position: TrainProgress) -> bool:
        """Record the score of the mean of the checkpoints of `averaged_updates`; return whether it is the best."""
        position.last_averaged = position.update
        is_best = self.is_better(score, position)
        if is_best:
            position.best_score, position.best_update, position.best_averaged_updates = (
                score,
                position.update,
                averaged_updates,
            )
        return is_best
