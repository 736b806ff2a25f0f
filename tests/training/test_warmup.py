"""Warnings about limits inside the warm-up, and about schedules that another limit changes."""

import logging
import re
from typing import Any

import pytest

from nmt.training.config import TrainConfig
from nmt.training.optim import SCHEDULES, OptimConfig, learning_rate
from nmt.training.progress import TrainProgress
from nmt.training.warmup import WarmupWatch


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("nmt"), "propagate", True)
    caplog.set_level(logging.INFO, "nmt")
    return caplog


def messages(
    log: pytest.LogCaptureFixture, warmup: int, seconds: float = 1.0, begin: int = 0, patience: int = 0, **limits: Any
) -> list[str]:
    """Return the warnings of a session whose first update takes 60 seconds and the others `seconds` each."""
    log.clear()
    train = TrainConfig(**{"max_updates": 1000, "patience": 1, **limits})
    progress = TrainProgress(update=begin, seconds=begin * seconds)
    watch = WarmupWatch(OptimConfig(schedule="constant", warmup_updates=warmup), train, progress, {})
    progress.seconds += 60
    while not progress.stop_reason:
        progress.update, progress.seconds = progress.update + 1, progress.seconds + seconds
        watch.check(progress)
        if progress.update >= train.max_updates or 0 < 60 * train.max_minutes <= progress.seconds:
            progress.stop_reason = "a limit"
        elif progress.update == patience:
            progress.stop_reason = "patience"
    watch.check(progress)
    WarmupWatch(OptimConfig(warmup_updates=warmup), train, progress, {}).check(progress)  # given again: nothing
    return list(dict.fromkeys(record.getMessage() for record in log.records))


def test_a_run_that_is_long_enough_is_not_warned_about(log: pytest.LogCaptureFixture) -> None:
    assert messages(log, warmup=999) == messages(log, warmup=0, max_updates=1) == []
    assert messages(log, warmup=100, max_minutes=5) == []
    assert messages(log, warmup=100, max_minutes=5, begin=40) == []
    assert messages(log, warmup=49, max_minutes=2) == []


def test_a_warm_up_as_long_as_the_run_is_said_at_the_start(log: pytest.LogCaptureFixture) -> None:
    (line,) = messages(log, warmup=80, max_updates=80)
    assert line.startswith(
        "the warm-up of optim.warmup_updates=80 is not over before train.max_updates=80 ends the run"
    )
    lines = messages(log, warmup=81, max_updates=80)
    assert [re.findall(r"\d+", line) for line in lines] == [["81", "80"], ["81", "80"]]
    assert "was not over when the run ended at update 80 (a limit)" in lines[1]


@pytest.mark.parametrize("begin", [0, 30])
def test_too_few_minutes_are_said_as_soon_as_the_speed_is_known(log: pytest.LogCaptureFixture, begin: int) -> None:
    """The first update of a session, which is slow, does not count."""
    lines = messages(log, warmup=200, max_minutes=3, begin=begin)
    assert len(lines) == 2
    assert "train.max_minutes=3 ends near update 120" in lines[0]
    assert "was not over when the run ended at update 120 (a limit)" in lines[1]


def test_patience_that_ends_the_run_in_the_warm_up(log: pytest.LogCaptureFixture) -> None:
    (line,) = messages(log, warmup=200, patience=150)
    assert "was not over when the run ended at update 150 (patience); lower it, or raise the limit" in line


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("limits", [(150, 400), (400, 150), (150, 150)])
def test_another_limit_and_the_rate_before_and_after(
    log: pytest.LogCaptureFixture, schedule: str, limits: tuple[int, int]
) -> None:
    former, now = limits
    optim, progress = OptimConfig(schedule=schedule, warmup_updates=20), TrainProgress(update=100)
    WarmupWatch(optim, TrainConfig(max_updates=now), progress, {"train": {"max_updates": former}})
    lines = {record.getMessage() for record in log.records}
    if schedule != "cosine" or former == now:
        assert not lines
        return
    rates = [learning_rate(optim, 101, 101 / limit) for limit in (now, former)]
    change = f"train.max_updates={now}, which was {former}, changes optim.schedule=cosine"
    assert lines == {f"{change}: the learning rate of update 101 is {rates[0]:.2e} instead of {rates[1]:.2e}"}
    log.clear()
    progress.stop_reason = "finished"
    WarmupWatch(optim, TrainConfig(max_updates=now), progress, {"train": {"max_updates": former}})
    assert not log.records
