"""Learning rates by hand, and the optimiser's groups."""

import math

import pytest
import torch

from nmt.optim import SCHEDULES, OptimConfig, Plateau, learning_rate, optimizer


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_linear(schedule: str) -> None:
    config = OptimConfig(schedule=schedule, learning_rate=1.0, warmup=10)
    rates = [learning_rate(config, update, 0.0) for update in range(1, 11)]
    assert rates == pytest.approx([update / 10 for update in range(1, 11)])


@pytest.mark.parametrize(
    ("schedule", "update", "progress", "expected"),
    [
        ("constant", 5000, 0.9, 1.0),
        ("plateau", 5000, 0.9, 1.0),
        ("inverse_sqrt", 400, 0.1, 1.0),
        ("inverse_sqrt", 1600, 0.1, 0.5),
        ("cosine", 400, 0.0, 1.0),
        ("cosine", 4000, 0.5, 0.1 + 0.9 * 0.5),
        ("cosine", 8000, 1.0, 0.1),
    ],
)
def test_schedules_by_hand(schedule: str, update: int, progress: float, expected: float) -> None:
    config = OptimConfig(schedule=schedule, learning_rate=1.0, warmup=400, final_ratio=0.1)
    assert learning_rate(config, update, progress) == pytest.approx(expected)


def test_plateau_lowers_the_rate_and_survives_a_checkpoint() -> None:
    config = OptimConfig(schedule="plateau", learning_rate=1.0, warmup=0, decay=0.5, plateau_patience=1)
    plateau = Plateau(config)
    for loss, factor in [(3.0, 1.0), (2.0, 1.0), (2.0, 1.0), (2.5, 0.5), (1.0, 0.5), (1.0, 0.5), (1.0, 0.25)]:
        plateau.observe(loss)
        assert learning_rate(config, 100, 0.0, plateau) == factor
        copy = Plateau(config)
        copy.load(plateau.state())
        plateau = copy
    assert learning_rate(OptimConfig(learning_rate=1.0, schedule="constant", warmup=0), 100, 0.0, plateau) == 1.0


def test_weight_decay_spares_vectors() -> None:
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    chosen = optimizer(OptimConfig(learning_rate=0.1, weight_decay=0.5), model)
    (0.0 * (model.weight.sum() + model.bias.sum())).backward()
    chosen.step()
    assert (model.weight == 0.95).all()
    assert (model.bias == 1.0).all()


@pytest.mark.parametrize(
    ("option", "value"),
    [("schedule", "step"), ("learning_rate", 0.0), ("learning_rate", math.nan), ("warmup", -1), ("beta2", 1.0)],
)
def test_impossible_configurations(option: str, value: object) -> None:
    config = OptimConfig()
    setattr(config, option, value)
    with pytest.raises(ValueError, match=f"optim.{option}={value}: must be"):
        config.validate()
