"""The progress of a stage: counts on a terminal, lines every 15 seconds elsewhere."""

import io
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
import tqdm

from nmt.runtime import progress
from nmt.runtime.progress import LOG_SECONDS, show_stage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("nmt"), "propagate", True)
    caplog.set_level(logging.DEBUG, "nmt")
    return caplog


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_at_most_every_few_seconds(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, terminal: bool, clock_of: Callable[..., list[float]]
) -> None:
    """On a terminal, where there is a bar, they are for the log file alone."""
    clock = clock_of(progress)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    with show_stage("test: translating", 40) as show:
        for num_done in (4, 8, 12, 40):
            clock[0] += LOG_SECONDS - 5
            show(num_done)
    level = logging.DEBUG if terminal else logging.INFO
    lines = ["test: translating", "test: translating: 8 of 40, about 01:20 left"]
    assert [(record.getMessage(), record.levelno) for record in log.records] == [(line, level) for line in lines]
    log.clear()
    with show_stage("validation", 5, announce=False) as show:
        show(2)
    assert not log.records


def test_the_bar_counts_to_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    class Bar(tqdm.tqdm):  # type: ignore[type-arg]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            bars.append(self)

    terminal = Terminal()
    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr(sys, "stderr", terminal)
    with show_stage("translating", 7) as show:
        show(3)
        assert bars[0].n == 3
    assert (bars[0].n, bars[0].total) == (7, 7)
    with pytest.raises(KeyError), show_stage("translating", 7) as show:
        raise KeyError
    assert bars[1].n == 0
    assert bars[1].disable  # closed
    with show_stage("intervals"):
        assert "intervals [00:00]" in terminal.getvalue()
