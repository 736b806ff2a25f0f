"""Early stopping: which validation was the best so far, and when a run no longer improves."""

import math
from collections.abc import Mapping, Sequence

from nmt.training.config import EARLY_STOPPING_METRICS, TrainConfig
from nmt.training.progress import TrainProgress

MIN_BLEU = 1.0
"""BLEU below this counts as 0: it comes from sacreBLEU's smoothing, and rises and falls by chance."""


class EarlyStopping:
    """The bookkeeping of early stopping: the best validation of a run, by `train.early_stopping_metric`.

    Scores and the count of validations without improvement are kept in `TrainProgress`. Between equal scores the lower
    loss decides, then the earlier validation. The function `stop_reason` compares that count with `train.patience`.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.metric = config.early_stopping_metric
        self.sign = EARLY_STOPPING_METRICS[self.metric]

    def score(self, scores: Mapping[str, float]) -> tuple[float, float]:
        """Return the value of the metric, and the loss, infinite where it is not a number.

        Raises:
            ValueError: the validation set does not provide the metric.
        """
        if self.metric not in scores:
            raise ValueError(f"train.early_stopping_metric={self.metric}: validation gives only {', '.join(scores)}")
        score, loss = scores[self.metric], scores["loss"]
        is_noise = self.metric == "bleu" and score < MIN_BLEU
        return 0.0 if is_noise else score, math.inf if math.isnan(loss) else loss

    def update(self, score: float, loss: float, progress: TrainProgress, averaged: Sequence[int] = ()) -> bool:
        """Record score and loss of the validation at the current update, of the mean of the checkpoints of the updates
        `averaged` if there are any; return whether it is the best."""
        if averaged:
            progress.last_averaged = progress.update
        else:
            progress.last_validated = progress.update
            progress.validations_without_improvement += 1
        best = (self.sign * progress.best_score, -progress.best_loss)
        if not (math.isnan(progress.best_score) or (self.sign * score, -loss) > best):
            return False
        progress.best_score, progress.best_loss, progress.best_update = score, loss, progress.update
        progress.best_averaged_updates = list(averaged)
        if not averaged:
            progress.validations_without_improvement = 0
        return True


def stop_reason(config: TrainConfig, progress: TrainProgress) -> str:
    """Return why a run with this progress is finished (patience, updates, epochs, minutes); "" when it is not."""
    if 0 < config.max_updates <= progress.update:
        return f"train.max_updates={config.max_updates} reached"
    if 0 < config.max_epochs <= progress.epoch:
        return f"train.max_epochs={config.max_epochs} reached"
    if config.max_minutes and progress.seconds >= 60 * config.max_minutes:
        return f"train.max_minutes={config.max_minutes:g} reached"
    if config.patience and progress.validations_without_improvement >= config.patience:
        return f"no better valid {config.early_stopping_metric} in train.patience={config.patience} validations"
    return ""
