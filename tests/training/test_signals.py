"""Signals of a process that has started others, and the end of a command."""

import os
import signal
import sys
import threading

import pytest

from nmt.runtime.errors import report_errors
from nmt.training.signals import SignalForwarder


def test_signals_are_forwarded_while_the_context_lasts() -> None:
    sent: list[int] = []
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with SignalForwarder(sent.append) as signals:
        assert signals.received == 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert sent == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]
    assert signals.received == signal.SIGINT
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


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
