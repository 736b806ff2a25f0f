"""Validation of the best models again, when a run is continued with options that give scores another meaning."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from nmt import checkpoint
from nmt.config import MISSING, diff, upgrade
from nmt.models import Seq2Seq
from nmt.runtime.files import hard_link
from nmt.training.checkpointing import CheckpointManager
from nmt.training.early_stopping import EarlyStopping
from nmt.training.ema import temporarily_loaded
from nmt.training.progress import TrainProgress

log = logging.getLogger(__name__)

_OPTIONS = {
    "bleu": ("search.", "metrics.tokenize", "metrics.lowercase"),
    "chrf": ("search.", "metrics.lowercase"),
    "aer": ("alignment.",),
    "loss": (),
}
"""Options, or their beginnings, that a continued run may change and that a metric depends on."""
_WITHOUT_EFFECT = ("search.batch_size", "search.batch_tokens", "alignment.head_importance_pairs")


def changed_score_options(metric: str, stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return the changes from a stored configuration that give `metric` another meaning: "search.beam_size: 5 → 1"."""
    options = _OPTIONS.get(metric, _OPTIONS["bleu"])  # a plugin's metric: whatever it may depend on
    lines = [line for line in diff(upgrade(stored), dict(current)) if line.startswith(options)]
    return [line for line in lines if MISSING not in line and not line.startswith(_WITHOUT_EFFECT)]


def rescore_best(
    checkpoints: CheckpointManager,
    progress: TrainProgress,
    early_stopping: EarlyStopping,
    model: Seq2Seq,
    validate: Callable[[], Mapping[str, float] | None],
) -> TrainProgress | None:
    """Validate the best models again and make the best of them best.pt; return a progress with their new ranking.

    `validate` returns the scores of `model`, or None when a signal interrupts it, which is then returned.
    """
    ranked, best_path = TrainProgress(), checkpoints.best
    kept: list[tuple[float, int, float]] = []
    candidates = [(best_path, progress.best_update, progress.best_averaged_updates)]
    for _, update in progress.kept_best if checkpoints.config.keep_best_checkpoints > 1 else ():
        if progress.best_averaged_updates or update != progress.best_update:
            candidates.append((checkpoint.checkpoint_path(checkpoints.folder, "best", update), update, []))
    for path, ranked.update, averaged in candidates:
        try:
            content = checkpoint.load(path)
            if (update := content["position"]["update"]) != ranked.update:  # of a later session, which was killed
                raise ValueError(f"{path}: holds the model of update {update}, not of {ranked.update}")
        except (ValueError, OSError) as error:
            log.warning("no longer among the best, since it cannot be validated again: %s", error)
            continue
        with temporarily_loaded(model, content["model"]):
            scores = validate()
        if scores is None:
            return None
        log.info("valid of %s again: %s", path.name, "  ".join(f"{name} {scores[name]:.4g}" for name in scores))
        score, loss = early_stopping.score(scores)
        if early_stopping.update(score, loss, ranked, averaged):
            best_path = path
        if not averaged:
            kept.append((score, ranked.update, loss))
    checkpoints.rank_best(ranked, kept)
    if best_path != checkpoints.best:
        hard_link(best_path, checkpoints.best)
    return ranked
