"""Standard streams that are closed, full, or read by nobody: one line and exit code 1, or the work goes on."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import nmt

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
CLOSED, FULL = "standard output: it is closed", "standard output: No space left on device"
STREAMS = {"<&-": "", ">&-": CLOSED, "2>&-": "", ">/dev/full": FULL, "2>/dev/full": "", "<&- >&- 2>&-": CLOSED}
"""Redirections of a shell, with the error of a command that writes to standard output."""

SCRIPT = """
import os, sys
from nmt.runtime.errors import report_errors
with report_errors():
    opened = os.open("file", os.O_RDWR | os.O_CREAT)  # takes the place of a closed stream
    for line in range(3000):
        try:
            if "stdout" in sys.argv:
                print("output", line)
        except OSError:
            if "swallowed" not in sys.argv:  # as argparse does
                raise
        print("a message", file=sys.stderr)
    if "error" in sys.argv:
        raise ValueError("a mistake")
    if "exit" in sys.argv:
        raise SystemExit(0)
"""


def test_a_message_of_a_signal_handler_may_come_within_another(tmp_path: Path) -> None:
    """The pipe is full when the signal comes."""
    code = """
import os, signal, sys, threading, time
from nmt.runtime.errors import report_errors
signal.signal(signal.SIGALRM, lambda *_: print("handler", file=sys.stderr))
with report_errors():
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    print("x" * 1_000_000, file=sys.stderr)
"""
    streams: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, **streams)
    time.sleep(1)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert (err.count("x"), err.count("handler")) == (1_000_000, 1)


@pytest.mark.parametrize(("unbuffered", "expected"), [("1", "output\n"), ("", "")])
def test_unbuffered_output_is_there_when_a_process_is_killed(unbuffered: str, expected: str) -> None:
    code = "import os; from nmt.runtime.errors import report_errors\nwith report_errors(): print('output'); os._exit(0)"
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == expected


def shell(folder: Path, redirections: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["sh", "-c", f'exec "$0" "$@" {redirections}', sys.executable, *arguments]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=False, timeout=120, **streams)


@pytest.mark.parametrize("redirections", STREAMS)
@pytest.mark.parametrize("what", ["stdout", "nothing", "error", "stdout exit", "stdout swallowed"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lost_output_is_an_error_and_lost_messages_are_not(
    redirections: str, what: str, unbuffered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PYTHONUNBUFFERED", unbuffered)
    done = shell(tmp_path, redirections, "-c", SCRIPT, *what.split())
    problem = "a mistake" if what == "error" else STREAMS[redirections] if "stdout" in what else ""
    assert done.returncode == (1 if problem else 0)
    lines = [line for line in done.stderr.splitlines() if line != "a message"]
    assert lines == ([f"error: {problem}"] if problem and "2>" not in redirections else [])
    assert (tmp_path / "file").read_bytes() == b"", "what was meant for a stream is in a file"
    assert done.stdout.count("output") == (3000 if "stdout" in what and not problem else 0)


def test_a_reader_that_leaves_is_no_error_on_standard_output_only(tmp_path: Path) -> None:
    code = "import sys; from nmt.runtime.errors import report_errors\nwith report_errors(): "
    for redirections, body, expected in (
        ("", "[print('output') for _ in range(99999)]", (0, "")),
        ("", "raise BrokenPipeError(32, 'Broken pipe')", (1, "error: Broken pipe\n")),
        (
            "3>&2 2>&1 >&3",
            "[print('message', file=sys.stderr) for _ in range(99999)]; print('output')",
            (0, "output\n"),
        ),
    ):
        command = ["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, code + body]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, **streams)
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert (process.communicate(timeout=60)[1], process.returncode) == (expected[1], expected[0])


def test_messages_in_any_locale(tmp_path: Path) -> None:
    code = "from nmt.runtime.errors import *\nwith report_errors(): print(chr(177)); raise ValueError(chr(215))"
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**ENVIRONMENT, **locale}, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"\\xb1\n", b"error: \\xd7\n")


NUM_UPDATES = 4
TINY = f"""
    name=run data.synthetic.train=100 data.synthetic.valid=2 data.synthetic.test=2 data.synthetic.long=1
    data.tokenizer.type=word data.tokenizer.vocab_size=500 model.embedding_dim=8 model.hidden_size=8
    model.attention.dim=8 train.batch_tokens=512 train.max_updates={NUM_UPDATES} train.valid_every=4 train.save_every=2
    train.precision=fp32 train.early_stopping_metric=loss search.beam_size=1 search.max_length_ratio=1
    search.max_length_offset=2 device=cpu num_threads=1
""".split()
OPTIONS = ["num_threads=1", "checkpoint=run.pt"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two evaluated runs and a checkpoint."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("run", "other"):
        done = shell(folder, "", "-m", "nmt.train", *TINY, f"name={name}")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (folder / "run.pt").write_bytes((folder / "runs/run/checkpoints/best.pt").read_bytes())
    (folder / "in.txt").write_text("a b\tc\n" * 3)
    return folder


COMMANDS: dict[str, tuple[list[str], bool]] = {
    "train": (["nmt.train", *TINY], False),
    "help": (["nmt.train", "--help"], True),
    "configuration": (["nmt.train", "--cfg", "job"], True),
    "evaluate": (["nmt.evaluate", *OPTIONS, "output=report"], False),
    "translate": (["nmt.translate", *OPTIONS], True),
    "align": (["nmt.align", *OPTIONS, "output=links"], False),
    "score": (["nmt.score", *OPTIONS, "source=in.txt", "target=in.txt"], True),
    "score pairs": (["nmt.score", *OPTIONS, "output=scores.txt"], False),
    "compare": (["nmt.compare", "runs/run", "runs/other", "--num-resamples", "0"], True),
    "compare --help": (["nmt.compare", "--help"], True),
    "compare --output": (["nmt.compare", "runs/run", "runs/other", "--num-resamples", "0", "--output", "a.md"], False),
    "export": (["nmt.export", *OPTIONS, "format=onnx"], True),
    "export --formats": (["nmt.export", "--formats"], True),
    "sweep": (["nmt.train", "-m", *TINY, "seed=1,2", "train.max_updates=2"], False),
}
"""Each command, and whether it writes to standard output."""


@pytest.mark.slow
@pytest.mark.parametrize("redirections", STREAMS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command(name: str, redirections: str, work: Path, tmp_path: Path) -> None:
    arguments, writes = COMMANDS[name]
    if name == "export":
        pytest.importorskip("onnxscript")
        arguments = [*arguments, f"output={tmp_path}/exported"]
    reads = name in ("translate", "score pairs")
    done = shell(
        work, redirections if "<" in redirections or not reads else f"< in.txt {redirections}", "-m", *arguments
    )
    if reads and "<&-" in redirections:
        problem = "standard input is closed; open "
        problem += (
            "both, as in < source.txt > target.txt"
            if name == "translate"
            else ("it, as in < pairs.tsv, or give source and target")
        )
    elif name == "translate" and redirections == ">&-":
        problem = "standard output is closed; open both, as in < source.txt > target.txt"
    else:
        problem = STREAMS[redirections] if writes else ""
    assert done.returncode == (1 if problem else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
    if "2>" in redirections:
        assert done.stderr == ""
    else:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert errors == ([f"error: {problem}"] if problem else [])


@pytest.mark.slow
@pytest.mark.parametrize("redirections", STREAMS)
def test_the_server(redirections: str, work: Path) -> None:
    pytest.importorskip("fastapi")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        "sh",
        "-c",
        f'exec "$0" "$@" {redirections}',
        sys.executable,
        "-m",
        "nmt.serve",
        *OPTIONS,
        f"port={port}",
    ]
    process = subprocess.Popen(command, cwd=work, env=ENVIRONMENT, stderr=subprocess.PIPE)
    deadline, page = time.monotonic() + 60, b""
    while not page and time.monotonic() < deadline:
        time.sleep(0.1)
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
            page = response.read()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert b"<html" in page.lower()
    assert b"Traceback" not in err
