"""Flags: the table of them, and what each does."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import nmt
from nmt.cli.compose import run_command
from nmt.cli.configs import Config, EvaluateConfig
from nmt.cli.flags import FLAGS, Flags, read_flags
from nmt.cli.help import help_text
from nmt.cli.sweep import SweepJob
from nmt.cli.sweep.progress import SweepProgress
from nmt.runtime.logs import is_quiet, log_to_stderr


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, tree: Any = Config, name: str = "train") -> str:
    """Return what a command prints instead of calling its task."""
    run_command(lambda *_: pytest.fail("the task was called"), tree, name, list(arguments))
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        printed(capsys, *arguments)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Flags([])),
        (["seed=1", "-m", "name=x"], Flags(["seed=1", "name=x"], multirun=True)),
        (["--help"], Flags([], help="")),
        (["-h", "seed=1"], Flags(["seed=1"], help="")),
        (["-h", "--cfg", "job"], Flags([], help="", cfg="job")),
        (["--help", "model.attention"], Flags([], help="model.attention")),
        (["--help=data"], Flags([], help="data")),
        (["-c", "job", "--config-dir", "x"], Flags([], cfg="job", config_dir="x")),
        (["--quiet", "runs/a"], Flags(["runs/a"], quiet=True)),
        (["-q", "--version"], Flags([], quiet=True, version=True)),
    ],
)
def test_flags_are_read(arguments: list[str], expected: Flags) -> None:
    assert read_flags(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cfg"], "--cfg: a value is needed, as in --cfg job"),
        (["--cfg", "-m"], "--cfg: a value is needed"),
        (["--cfg", "hydra"], "--cfg hydra: only --cfg job is known"),
        (["-m=1"], "-m=1: unknown flag; did you mean -m?"),
        (["--resolve"], "--resolve: unknown flag; leave it out: --cfg job prints values"),
        (["--cfg", "job", "-p", "model"], "-p: unknown flag; write --help NODE for the options below one node"),
        (["--cfg", "job", "--package=model"], "write --help model for the options below one node"),
        (["--quit"], "--quit: unknown flag; did you mean --quiet?"),
        (["--launcher=processes"], "--launcher processes: write -m launcher=processes"),
        (["--jobs", "2"], "--jobs 2: write -m jobs=2"),
        (["--run"], "--run: unknown flag; leave it out"),
        (["--config-path", "x"], "write --config-dir DIR"),
    ],
)
def test_a_mistake_in_a_flag_costs_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failure(capsys, *arguments)
    assert message in error
    assert error.count("\n") == 1


def test_the_help_lists_every_flag() -> None:
    lines = help_text("train", Config(), {}, []).splitlines()
    for flag in FLAGS.values():
        (line,) = [line for line in lines if line.startswith(f"  {flag.usage} ")]
        assert line.endswith(flag.description)
    assert set(FLAGS) == set(Flags._fields) - {"overrides"}


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version") == f"nmt {nmt.__version__}\n"


def test_what_is_printed_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "seed=-1: must be at least 0" in failure(capsys, "--cfg", "job", "seed=-1")
    assert "error: run 2 of 2: seed=-1: must be" in failure(capsys, "--cfg", "job", "-m", "seed=1,-1")
    assert "error: run 1 of 1: model=x: must be" in failure(capsys, "--cfg", "job", "-m", "model=x")
    assert "checkpoint: ''" in printed(capsys, "--cfg", "job", tree=EvaluateConfig, name="evaluate")


def test_the_configuration_of_every_run_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "-m", "--cfg", "job", "seed=1,2", "name=study")
    stored = list(yaml.safe_load_all(out))
    assert [config["seed"] for config in stored] == [1, 2]
    assert all(config["name"].startswith("study/seed-") for config in stored)
    assert "# run 2 of 2: seed=2" in out


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """Return the logger with a handler of its own for standard error."""
    logger = logging.getLogger("nmt")
    before = logger.handlers, logger.propagate
    logger.handlers = []
    log_to_stderr()
    yield logger
    logger.handlers, logger.propagate = before


def test_a_quiet_command_logs_warnings_only(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = []

    def task(*_: object) -> None:
        logger.info("an info")
        logger.warning("a warning")
        print("a result")
        quiet.append(is_quiet() and "NMT_QUIET" in os.environ)  # in the processes of a sweep, too
        progress = SweepProgress([SweepJob(1, 1, "seed=1", [], Config())])
        progress.print("started")
        progress.print("why", is_error=True)

    run_command(task, Config, "train", [])
    out, err = capsys.readouterr()
    assert all(text in err for text in ("an info", "a warning", "started", "why"))
    run_command(task, Config, "train", ["-q"])
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert [line.partition(" ")[2] or line for line in err.splitlines()] == ["a warning", "why"]
    assert quiet == [False, True]
    assert not is_quiet()
