"""The divergence guard: a skipped update leaves no trace, and its state is all that a continuation needs."""

import math

import pytest
import torch

from nmt.training.divergence import (
    MAX_CONSECUTIVE_SKIPS,
    MAX_ROLLBACKS,
    WARMUP_UPDATES,
    DivergenceConfig,
    DivergenceGuard,
)
from nmt.training.optim import OptimConfig, build_optimizer

CPU = torch.device("cpu")


def check_all(guard: DivergenceGuard, norms: list[float]) -> list[float]:
    return [float(guard.check(torch.tensor(norm), torch.ones(2))) for norm in norms]


def test_the_optimizer_skips_bad_updates() -> None:
    """Fused AdamW with a bad update in between ends in the same state as without that update."""
    gradients = [torch.randn(3, 2) for _ in range(3)]
    states = []
    for sequence in ([gradients[0], torch.full((3, 2), math.nan), gradients[1], gradients[2]], gradients):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 3, bias=False)
        adam, guard = build_optimizer(OptimConfig(weight_decay=0.1), model), DivergenceGuard("skip", 0.0, CPU)
        for gradient in sequence:
            model.weight.grad = gradient.clone()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.found_inf = guard.check(norm, torch.zeros(1))  # type: ignore[attr-defined]
            adam.step()
        states.append([model.weight.detach(), *adam.state[model.weight].values()])
        assert guard.skip_counts() == (len(sequence) - 3, 0)
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_guard_that_has_nothing_to_skip_changes_nothing() -> None:
    weights = []
    for mode in ("off", "skip"):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 3)
        adam, guard = build_optimizer(OptimConfig(), model), DivergenceGuard(mode, 5.0, CPU)
        for _ in range(3):
            model(torch.randn(4, 2)).sum().backward()
            skipped = guard.check(torch.tensor(1.0), torch.zeros(1))
            if guard.enabled:
                adam.found_inf = skipped  # type: ignore[attr-defined]
            adam.step()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


def test_non_finite_updates_are_skipped() -> None:
    guard = DivergenceGuard("skip", 0.0, CPU)
    assert check_all(guard, [1.0, math.inf, math.nan, 1e30]) == [0, 1, 1, 0]
    assert float(guard.check(torch.tensor(1.0), torch.tensor([1.0, math.nan]))) == 1
    assert guard.skip_counts() == (3, 1)
    assert check_all(DivergenceGuard("off", 2.0, CPU), [1.0] * WARMUP_UPDATES + [math.nan, 1e30]) == [0] * (
        WARMUP_UPDATES + 2
    )


@pytest.mark.parametrize("mode", ["off", "skip"])
def test_an_overflow_because_of_the_scale_is_skipped_and_is_no_divergence(mode: str) -> None:
    def check(norm: float, loss: float, scale: float) -> float:
        return float(guard.check(torch.tensor(norm), torch.tensor([1.0, loss]), torch.tensor(scale)))

    guard = DivergenceGuard(mode, 0.0, CPU)
    for norm in (math.inf, math.nan, math.inf):
        assert check(norm, 1.0, 2.0) == 1
    assert guard.skip_counts() == ((0, 0) if mode == "off" else (3, 0))
    expected = float(mode == "skip")
    # at a scale of 1 there is nothing to lower, and a loss that is not finite has another cause
    assert [check(math.inf, 1.0, 1.0), check(math.inf, 1.0, 0.5), check(math.nan, math.nan, 2.0)] == [expected] * 3
    assert check(math.inf, 1.0, 2.0) == 1
    assert guard.skip_counts() == ((0, 0) if mode == "off" else (7, 3))
    assert check(1.0, 1.0, 2.0) == 0
    assert guard.skip_counts()[1] == 0


def test_unusually_large_gradients_are_skipped() -> None:
    guard = DivergenceGuard("skip", 3.0, CPU)
    # not before the mean is known
    assert check_all(guard, [50.0, *[1.0] * (WARMUP_UPDATES - 1)]) == [0] * WARMUP_UPDATES
    mean = (50 + WARMUP_UPDATES - 1) / WARMUP_UPDATES
    assert check_all(guard, [3 * mean + 0.01, 3 * mean - 0.01]) == [1, 0]
    assert guard.skip_counts() == (1, 0)
    assert check_all(guard, [1.0] * 600 + [3.2]) == [0] * 600 + [1]  # early norms are forgotten


def test_a_guard_continues_from_its_state() -> None:
    norms = torch.rand(3 * WARMUP_UPDATES, generator=torch.Generator().manual_seed(1)).mul(4).tolist()
    whole, continued = DivergenceGuard("rollback", 1.5, CPU), DivergenceGuard("rollback", 1.5, CPU)
    expected = check_all(whole, norms)
    results = []
    for start in range(0, len(norms), 7):
        restored = DivergenceGuard("rollback", 1.5, CPU)
        restored.load_state_dict(continued.state_dict())
        results += check_all(restored, norms[start : start + 7])
        continued = restored
    assert results == expected
    assert sum(expected) > 3
    assert continued.state_dict() == whole.state_dict()
    whole.load_state_dict([])
    assert whole.state_dict() == continued.state_dict()


def test_rollbacks_are_limited() -> None:
    guard = DivergenceGuard("rollback", 0.0, CPU)
    for number in range(MAX_ROLLBACKS):
        assert guard.can_roll_back
        check_all(guard, [math.nan] * MAX_CONSECUTIVE_SKIPS)
        assert guard.skip_counts() == (MAX_CONSECUTIVE_SKIPS * (number + 1), MAX_CONSECUTIVE_SKIPS)
        guard.on_rollback()
        assert guard.skip_counts()[1] == 0
    assert not guard.can_roll_back
    assert not DivergenceGuard("skip", 0.0, CPU).can_roll_back


@pytest.mark.parametrize(
    ("option", "value"), [("on_divergence", "on"), ("max_grad_norm_ratio", 0.5), ("max_grad_norm_ratio", math.inf)]
)
def test_impossible_configurations(option: str, value: object) -> None:
    config = DivergenceConfig()
    setattr(config, option, value)
    with pytest.raises(ValueError, match=f"train.{option}={value}: must be"):
        config.validate_divergence()
