"""Signals of a process that has started others, and the end of a command."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import nmt
from nmt.runtime.errors import report_errors
from nmt.training import signals
from nmt.training.signals import STOP_SIGNALS, GracefulShutdown, SignalForwarder


def test_signals_are_forwarded_while_the_context_lasts() -> None:
    sent: list[int] = []
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    with SignalForwarder(sent.append) as signals:
        assert signals.received == 0
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert sent == [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGINT]
    assert signals.received == signal.SIGINT
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers


@pytest.mark.parametrize(
    ("first", "seconds", "second", "stops_at_once"),
    [
        (signal.SIGHUP, 0.1, signal.SIGHUP, False),  # kernel and shell
        (signal.SIGHUP, 0.1, signal.SIGTERM, False),  # a session manager
        (signal.SIGTERM, 0.1, signal.SIGHUP, False),
        (signal.SIGHUP, 10, signal.SIGTERM, True),
        (signal.SIGINT, 0.1, signal.SIGINT, True),
    ],
)
def test_the_end_of_a_terminal_counts_once(
    first: int, seconds: float, second: int, stops_at_once: bool, clock_of: Callable[..., list[float]]
) -> None:
    now = clock_of(signals)
    with GracefulShutdown() as stop:
        signal.raise_signal(first)
        assert stop.requested
        now[0] += seconds
        with pytest.raises(KeyboardInterrupt) if stops_at_once else contextlib.nullcontext():
            signal.raise_signal(second)
        assert stop.received == first


def test_nohup_lasts() -> None:
    """An ignored SIGHUP stays ignored; SIGINT is handled also where a shell has made a background process ignore it."""
    former = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)]
    try:
        with GracefulShutdown() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
            signal.raise_signal(signal.SIGINT)
            assert stop.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        for number, handler in zip((signal.SIGHUP, signal.SIGINT), former, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_with_nothing_left_to_save_a_signal_ends_the_process(number: int) -> None:
    with GracefulShutdown() as stop:
        stop.stop_at_once("everything is saved")
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(number)
    assert ended.value.code == 128 + number


def test_a_process_ends_with_its_parent() -> None:
    """The parent is killed; its child, which is busy, gets SIGTERM."""
    child = (
        "import os, sys, time; from nmt.runtime.process import end_with_parent\nend_with_parent(int(sys.argv[1]))\n"
        "print(os.getpid(), flush=True)\nwhile True: time.sleep(0.01)"
    )
    parent = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid())])"
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent)}
    command = [sys.executable, "-c", parent, child]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    number = int(process.stdout.readline())
    process.kill()
    try:
        assert process.communicate(timeout=60)[0] == ""  # the child, which holds the pipe, has ended
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def test_a_thread_handles_no_signals() -> None:
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with SignalForwarder(lambda number: None):
                pass
        except BaseException as error:
            failed.append(error)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failed == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("a=1: must be\n  2"), 1, "error: a=1: must be 2\n"),
        (FileNotFoundError(2, "No such file", "a.en"), 1, "error: a.en: No such file\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_user_error_ends_a_command_in_one_line(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NMT_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop, report_errors():
        raise error
    assert (stop.value.code, capsys.readouterr().err) == (code, message)


def test_a_defect_passes() -> None:
    with pytest.raises(ZeroDivisionError), report_errors():
        sys.exit(1 // 0)
