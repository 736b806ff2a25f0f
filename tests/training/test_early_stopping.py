"""Early stopping: the best validation is the one that sorts first, and ties and noise count as such."""

import itertools
import math
import random

import pytest

from nmt.training.config import TrainConfig
from nmt.training.early_stopping import EarlyStopping, stop_reason
from nmt.training.progress import TrainProgress


def run(metric: str, validations: list[dict[str, float]], patience: int = 0) -> TrainProgress:
    """Return the progress after validations at updates 1, 2, …, or when patience ends the run."""
    config = TrainConfig(early_stopping_metric=metric, patience=patience)
    early_stopping, progress = EarlyStopping(config), TrainProgress()
    for progress.update, scores in enumerate(validations, start=1):
        early_stopping.update(*early_stopping.score(scores), progress)
        if stop_reason(config, progress):
            break
    return progress


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("metric", "sign"), [("bleu", 1), ("chrf", 1), ("aer", -1), ("loss", -1)])
def test_the_best_sorts_first_by_score_loss_and_update(metric: str, sign: int, seed: int) -> None:
    generator = random.Random(seed)
    validations = [{"loss": generator.choice([1.0, 2.0, 3.0]), metric: generator.choice([2, 3])} for _ in range(8)]
    ranked = sorted(range(len(validations)), key=lambda i: (-sign * validations[i][metric], validations[i]["loss"], i))
    progress = run(metric, validations)
    assert progress.best_update == ranked[0] + 1
    assert (progress.best_score, progress.best_loss) == (
        validations[ranked[0]][metric],
        validations[ranked[0]]["loss"],
    )
    assert progress.validations_without_improvement == len(validations) - progress.best_update


@pytest.mark.parametrize("bleu", [[0.0], [0.0, 0.9, 1e-9]], ids=["zero", "noise"])
def test_while_bleu_says_nothing_the_loss_decides(bleu: list[float]) -> None:
    falling = [{"bleu": value, "loss": 6.0 - i} for i, value in zip(range(6), itertools.cycle(bleu), strict=False)]
    progress = run("bleu", falling, patience=1)
    assert (progress.update, progress.best_update, progress.validations_without_improvement) == (6, 6, 0)
    rising = [*falling, {"bleu": bleu[0], "loss": 2.0}, {"bleu": bleu[0], "loss": 3.0}, {"bleu": bleu[0], "loss": 0.0}]
    progress = run("bleu", rising, patience=2)
    assert (progress.update, progress.best_update) == (8, 6)
    first_words = {"bleu": 1.5, "loss": 9.0}
    assert run("bleu", [*falling, first_words]).best_update == 7
    assert run("bleu", [first_words, *falling]).best_update == 1


@pytest.mark.parametrize("values", [[math.nan, 2.0, 3.0], [5.0, math.nan, 3.0]])
def test_a_loss_that_is_no_number_loses_a_tie(values: list[float]) -> None:
    progress = run("chrf", [{"chrf": 7.0, "loss": loss} for loss in values])
    assert progress.best_loss == min(value for value in values if value == value)


def test_the_best_of_a_checkpoint_without_its_loss_gives_way_in_a_tie_only() -> None:
    progress = TrainProgress.from_dict({"best": 7.0, "bad": 3})
    early_stopping = EarlyStopping(TrainConfig(early_stopping_metric="chrf"))
    assert not early_stopping.update(6.9, 0.1, progress)
    assert progress.validations_without_improvement == 4
    assert early_stopping.update(7.0, 5.0, progress)
    assert (progress.best_loss, progress.validations_without_improvement) == (5.0, 0)


def test_a_mean_takes_part_in_ties_and_leaves_patience_alone() -> None:
    early_stopping, progress = EarlyStopping(TrainConfig()), TrainProgress(update=30)
    early_stopping.update(0.0, 4.0, progress)
    assert not early_stopping.update(0.0, 4.0, progress, [10, 20])
    assert progress.best_averaged_updates == []
    assert early_stopping.update(0.0, 3.0, progress, [10, 20])
    assert (progress.best_loss, progress.best_averaged_updates, progress.last_averaged) == (3.0, [10, 20], 30)
    assert progress.validations_without_improvement == 0
