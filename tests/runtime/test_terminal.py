"""No control character of a file name, an option or a checkpoint reaches a terminal as it is."""

import fcntl
import logging
import os
import pty
import struct
import termios
from pathlib import Path

import pytest

from nmt.cli.compose import run_command
from nmt.cli.configs import Config
from nmt.cli.sweep.progress import SweepProgress
from nmt.runtime.errors import error_message
from nmt.runtime.logs import log_file, log_to_stderr
from nmt.runtime.terminal import escape_controls, shows_bars

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b1m\x7f\u202e\r\u2028\0\b"


def has_controls(text: str) -> bool:
    return any(not (character.isprintable() or character in "\n\t") for character in text)


def test_controls_become_escapes_and_other_text_stays() -> None:
    assert has_controls(HOSTILE)
    assert escape_controls("\x1b[2J\x9b\u202e") == "\\x1b[2J\\x9b\\u202e"
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            text = chr(code)
            assert escape_controls(text) == text or not text.isprintable()
    text = "ü 日本語\tא\n👩‍👩‍👧"
    assert escape_controls(text) == text


def test_errors_log_lines_and_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ValueError(HOSTILE), FileNotFoundError(2, "No such file", HOSTILE)):
        assert not has_controls(error_message(error))
    log_to_stderr()
    with log_file(tmp_path / "train.log"):
        logging.getLogger("nmt.test").warning("two\nlines %s", HOSTILE)
    SweepProgress([]).print(HOSTILE)
    with pytest.raises(SystemExit):
        run_command(lambda *_: None, Config, "train", [f"data.test={HOSTILE}", "data=text", f"device={HOSTILE}"])
    shown = capsys.readouterr().err
    assert shown.count("title") >= 3
    assert not has_controls(shown)
    assert not has_controls((tmp_path / "train.log").read_text())


def test_a_terminal_without_a_width_shows_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of `script` in a pipe, where a bar would be drawn in no columns at all."""
    _, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        for columns in (0, 80):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            assert shows_bars() == (columns > 0)
    with open(os.devnull, "w") as file:  # noqa: PTH123
        monkeypatch.setattr("sys.stderr", file)
        assert not shows_bars()
