"""The expected end of a run, and warnings of limits inside the warm-up or the schedule, and of changed schedules."""

import dataclasses
import logging
from typing import Any

import pytest

from nmt.training.config import TrainConfig
from nmt.training.forecast import RunForecast
from nmt.training.optim import SCHEDULES, OptimConfig, learning_rate
from nmt.training.progress import TrainProgress


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("nmt"), "propagate", True)
    caplog.set_level(logging.INFO, "nmt")
    return caplog


def messages(
    log: pytest.LogCaptureFixture,
    warmup: int,
    seconds: float = 1.0,
    begin: int = 0,
    patience: int = 0,
    schedule: str = "constant",
    **limits: Any,
) -> list[str]:
    """Return the warnings of a session whose first update takes 60 seconds and the others `seconds` each."""
    log.clear()
    train = TrainConfig(**{"max_updates": 1000, "patience": 1, **limits})
    progress = TrainProgress(update=begin, seconds=begin * seconds)
    optim = OptimConfig(schedule=schedule, warmup_updates=warmup)
    watch = RunForecast(optim, train, progress, {})
    progress.seconds += 60
    while not progress.stop_reason:
        progress.update, progress.seconds = progress.update + 1, progress.seconds + seconds
        watch.check(progress)
        if progress.update >= train.max_updates or 0 < 60 * train.max_minutes <= progress.seconds:
            progress.stop_reason = "a limit"
        elif progress.update == patience:
            progress.stop_reason = "patience"
    watch.check(progress)
    RunForecast(optim, train, progress, {}).check(progress)  # given again: nothing
    return list(dict.fromkeys(record.getMessage() for record in log.records))


def test_a_run_that_is_long_enough_is_not_warned_about(log: pytest.LogCaptureFixture) -> None:
    assert messages(log, warmup=999) == messages(log, warmup=0, max_updates=1) == []
    assert messages(log, warmup=100, max_minutes=5) == []
    assert messages(log, warmup=100, max_minutes=5, begin=40) == []
    assert messages(log, warmup=49, max_minutes=2) == []


def test_a_warm_up_as_long_as_the_run_is_said_at_the_start(log: pytest.LogCaptureFixture) -> None:
    warmup = "the warm-up of optim.warmup_updates={} is too long: the run"
    for updates in (80, 81):
        first, last = messages(log, warmup=updates, max_updates=80)
        assert first == warmup.format(updates) + " ends at update 80; lower it, or raise the limit"
        assert last == warmup.format(updates) + " ended at update 80 (a limit); lower it, or raise the limit"


@pytest.mark.parametrize("begin", [0, 30])
def test_too_few_minutes_are_said_as_soon_as_the_speed_is_known(log: pytest.LogCaptureFixture, begin: int) -> None:
    """The first update of a session, which is slow, does not count."""
    lines = messages(log, warmup=200, max_minutes=3, begin=begin)
    assert len(lines) == 2
    assert "at this speed train.max_minutes=3 ends the run near update 120" in lines[0]
    assert "the run ended at update 120 (a limit)" in lines[1]


def test_patience_that_ends_the_run_in_the_warm_up(log: pytest.LogCaptureFixture) -> None:
    (line,) = messages(log, warmup=200, patience=150)
    assert "the run ended at update 150 (patience); lower it, or raise the limit" in line


def test_a_schedule_longer_than_the_minutes(log: pytest.LogCaptureFixture) -> None:
    """The numbers are those of the cosine at the update that is reached, and at its end."""
    lines = messages(log, warmup=10, max_minutes=3, schedule="cosine", max_updates=1000)
    optim = OptimConfig(warmup_updates=10)
    rates = [f"{learning_rate(optim, 120, share):.2e}" for share in (0.12, 1.0)]
    what = "the schedule optim.schedule=cosine, until update 1000, is too long: "
    rest = f", with a learning rate of {rates[0]} instead of {rates[1]}; set train.max_updates=120, or raise the limit"
    causes = ("at this speed train.max_minutes=3 ends the run near update 120", "the run ended at update 120 (a limit)")
    assert lines == [what + cause + rest for cause in causes]
    assert messages(log, warmup=10, max_minutes=3, schedule="cosine", max_updates=125) == []  # nearly at its end
    assert messages(log, warmup=10, max_minutes=3, schedule="inverse_sqrt") == []  # it has no end
    assert messages(log, warmup=10, max_minutes=9, schedule="cosine", max_updates=100) == []


def test_epochs_are_said_in_updates(log: pytest.LogCaptureFixture) -> None:
    for updates, level in ((0, "INFO"), (60, "INFO"), (59, "WARNING")):
        log.clear()
        train = TrainConfig(max_updates=updates, max_epochs=3)
        RunForecast(OptimConfig(warmup_updates=9), train, TrainProgress(), {}, 20)
        (record,) = log.records
        end = f"train.max_epochs=3 of 20 updates, train.max_updates={updates}: the run ends at update {updates or 60}"
        hint = "; train.max_updates=0 is no limit" if updates == 59 else ""
        assert (record.getMessage(), record.levelname) == (end + hint, level)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_updates": 1000}, (1000, 400 * 2.0 + 5 * 30)),  # validations after 600 to 1000
        ({"max_updates": 950}, (950, 350 * 2.0 + 5 * 30)),  # the last one after 950
        ({"max_updates": 0, "max_epochs": 7}, (700, 100 * 2.0 + 2 * 30)),
        ({"max_updates": 650, "max_epochs": 7}, (650, 50 * 2.0 + 2 * 30)),
        ({"max_updates": 750, "max_epochs": 7}, (700, 100 * 2.0 + 2 * 30)),
        # 230 s for every 100 updates; one more validation at the end
        ({"max_updates": 1000, "max_minutes": 30 + 7 / 3}, (660, 140 + 30)),
        ({"max_updates": 0, "max_minutes": 30 + 7 / 3}, (660, 140 + 30)),
        ({"max_updates": 0, "max_minutes": 20}, (600, 30)),  # over already
        ({"max_updates": 660, "max_minutes": 30 + 7 / 3}, (660, 60 * 2.0 + 2 * 30)),
        ({"max_updates": 0, "patience": 3}, None),
    ],
)
def test_expected_end(limits: dict[str, Any], expected: tuple[int, float] | None) -> None:
    """Update 600 after half an hour; an update takes 2 seconds and a validation 30."""
    config, progress = TrainConfig(valid_every=100, **limits), TrainProgress(600, last_validated=500, seconds=1800.0)
    forecast = RunForecast(OptimConfig(schedule="constant"), config, progress, {}, 100)
    assert forecast.expected_end(progress) is None  # nothing was measured
    forecast.num_timed, forecast.update_seconds, forecast.validation_seconds = 1, 2.0, 30.0
    assert forecast.expected_end(progress) == (pytest.approx(expected) if expected else None)


def test_the_speed_of_a_session_leaves_out_validations_and_the_first_update() -> None:
    train, progress = TrainConfig(max_updates=100, valid_every=10), TrainProgress(40, last_validated=40, seconds=500.0)
    forecast = RunForecast(OptimConfig(), train, progress, {})
    for seconds in (9.0, 2.0, 3.0):
        assert forecast.expected_end(progress) is None or seconds == 3
        progress.update, progress.seconds = progress.update + 1, progress.seconds + seconds
        forecast.check(progress)
    assert forecast.expected_end(progress) == (100, 57 * 2.5)
    progress.update, progress.seconds, progress.last_validated = 51, progress.seconds + 8 * 2.5 + 12.5, 50
    forecast.check(dataclasses.replace(progress, last_validated=40, seconds=progress.seconds - 12.5))
    forecast.check(progress)
    update, seconds = forecast.expected_end(progress) or (0, 0)
    assert update == 100
    assert seconds == pytest.approx(49 * forecast.update_seconds + 5 * (12.5 - forecast.update_seconds))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("limits", [(150, 400), (400, 150), (150, 150)])
def test_another_limit_and_the_rate_before_and_after(
    log: pytest.LogCaptureFixture, schedule: str, limits: tuple[int, int]
) -> None:
    former, now = limits
    optim, progress = OptimConfig(schedule=schedule, warmup_updates=20), TrainProgress(update=100)
    RunForecast(optim, TrainConfig(max_updates=now), progress, {"train": {"max_updates": former}})
    lines = {record.getMessage() for record in log.records}
    if schedule != "cosine" or former == now:
        assert not lines
        return
    rates = [learning_rate(optim, 101, 101 / limit) for limit in (now, former)]
    change = f"the run ends at update {now} instead of {former}, which changes optim.schedule=cosine"
    assert lines == {f"{change}: the learning rate of update 101 is {rates[0]:.2e} instead of {rates[1]:.2e}"}
    log.clear()
    progress.stop_reason = "finished"
    RunForecast(optim, TrainConfig(max_updates=now), progress, {"train": {"max_updates": former}})
    assert not log.records
