"""Learning rates by hand, the parameter groups of the optimizer, and averaged weights."""

import math

import pytest
import torch

from nmt.training.ema import ExponentialMovingAverage
from nmt.training.optim import SCHEDULES, OptimConfig, ReduceOnPlateau, build_optimizer, learning_rate


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_linear(schedule: str) -> None:
    config = OptimConfig(schedule=schedule, learning_rate=1.0, warmup_updates=10)
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
        ("cosine", 9000, 1.5, 0.1),
    ],
)
def test_schedules_by_hand(schedule: str, update: int, progress: float, expected: float) -> None:
    config = OptimConfig(schedule=schedule, learning_rate=1.0, warmup_updates=400, min_lr_ratio=0.1)
    assert learning_rate(config, update, progress) == pytest.approx(expected)


def test_plateau_lowers_the_rate_and_survives_a_checkpoint() -> None:
    config = OptimConfig(
        schedule="plateau", learning_rate=1.0, warmup_updates=0, plateau_factor=0.5, plateau_patience=1
    )
    plateau = ReduceOnPlateau(config)
    for loss, factor in [(3.0, 1.0), (2.0, 1.0), (2.0, 1.0), (2.5, 0.5), (1.0, 0.5), (1.0, 0.5), (1.0, 0.25)]:
        plateau.step(loss)
        assert learning_rate(config, 100, 0.0, plateau) == factor
        copy = ReduceOnPlateau(config)
        copy.load_state_dict(plateau.state_dict())
        plateau = copy
    assert (
        learning_rate(OptimConfig(learning_rate=1.0, schedule="constant", warmup_updates=0), 100, 0.0, plateau) == 1.0
    )


def test_weight_decay_spares_vectors() -> None:
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    optimizer = build_optimizer(OptimConfig(learning_rate=0.1, weight_decay=0.5), model)
    (0.0 * (model.weight.sum() + model.bias.sum())).backward()
    optimizer.step()
    assert (model.weight == 0.95).all()
    assert (model.bias == 1.0).all()


@pytest.mark.parametrize(
    ("option", "value"),
    [("schedule", "step"), ("learning_rate", 0.0), ("learning_rate", math.nan), ("warmup_updates", -1), ("beta2", 1.0)],
)
def test_impossible_configurations(option: str, value: object) -> None:
    config = OptimConfig()
    setattr(config, option, value)
    with pytest.raises(ValueError, match=f"optim.{option}={value}: must be"):
        config.validate()


class Tied(torch.nn.Module):
    """An output matrix that is the embedding, a bias, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(3, 2)
        self.output = torch.nn.Linear(2, 3)
        self.output.weight = self.embedding.weight
        self.register_buffer("table", torch.tensor([7.0]))


def test_average_by_hand() -> None:
    """The weights after update n have the share (1 - d_n) · d_{n+1} · … · d_N, the initial weights the rest."""
    decay, updates = 0.4, 12
    model = torch.nn.Linear(2, 1)
    average = ExponentialMovingAverage(model, decay)
    seen = [model.weight.detach().clone()]
    for number in range(1, updates + 1):
        with torch.no_grad():
            model.weight += torch.randn(1, 2)
        average.update(number)
        seen.append(model.weight.detach().clone())
    decays = [0.0] + [min(decay, (1 + n) / (10 + n)) for n in range(1, updates + 1)]
    assert decays[1] == pytest.approx(2 / 11)
    assert decays[5] == decay
    shares = [(1 - decays[n]) * math.prod(decays[n + 1 :]) for n in range(updates + 1)]
    assert sum(shares) == pytest.approx(1)
    expected = sum(share * weight for share, weight in zip(shares, seen, strict=True))
    torch.testing.assert_close(average.state_dict()["weight"], expected)
    assert torch.equal(average.state_dict()["bias"], model.bias)


def test_tied_weights_are_averaged_once() -> None:
    model = Tied()
    average = ExponentialMovingAverage(model, 0.9)
    assert list(average.state_dict()) == ["embedding.weight", "output.bias"]
    before = model.embedding.weight.detach().clone()
    with torch.no_grad():
        model.embedding.weight += 1
    average.update(1)
    with average.swapped_in():
        torch.testing.assert_close(model.output.weight, before + 9 / 11)
        assert model.output.weight is model.embedding.weight
        assert model.table == 7


def test_weights_come_back_bit_for_bit_after_an_error() -> None:
    model = Tied()
    average = ExponentialMovingAverage(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) / 3
    average.update(1)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    former, averaged = (
        {n: t.clone() for n, t in state.items()} for state in (model.state_dict(), average.state_dict())
    )

    def fail() -> None:
        with average.swapped_in():
            assert not torch.equal(model.output.bias, former["output.bias"])
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(tensor, former[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in average.state_dict().items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == places


def test_averaging_never_waits_for_the_device() -> None:
    """Tensors on the meta device have no values: an operation that reads one fails."""
    model = torch.nn.Linear(2, 2, device="meta")
    average = ExponentialMovingAverage(model, 0.9)
    for number in (1, 1000):
        average.update(number)
    with average.swapped_in():
        pass


def test_a_checkpoint_without_an_average_is_named() -> None:
    with pytest.raises(ValueError, match=r"train.ema_decay=0.9: the run was begun without an average"):
        ExponentialMovingAverage(torch.nn.Linear(2, 2), 0.9).load_state_dict(None)
