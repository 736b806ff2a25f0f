"""scripts/optimise.py: ranges, early ends, and a study that goes on."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/optimise.py"


@pytest.fixture(scope="module")
def optimise() -> Any:
    spec = importlib.util.spec_from_file_location("optimise", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["optimise"] = module
    spec.loader.exec_module(module)
    return module


def call(optimise: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["optimise.py", *arguments])
    optimise.main()


def test_ranges(optimise: Any) -> None:
    parse = optimise.parse
    assert parse("a=1e-4..1e-2:log")[2:] == (1e-4, 1e-2, True, False)
    assert parse("a=1..8")[2:] == (1.0, 8.0, False, True)
    assert parse("a=0.0..1")[2:] == (0.0, 1.0, False, False)
    assert parse("a=x|y").choices == ["x", "y"]
    for plain in ("a=1", "data.train=../x", "data.train=a..b", "name=x"):
        assert parse(plain) is None
    for wrong in ("a=2..1", "a=0..1:log"):
        with pytest.raises(ValueError, match="needs a lower end"):
            parse(wrong)
    study = optuna.create_study()
    drawn = {parse(text).draw(study.ask()) for _ in range(20) for text in ("a=1..3", "b=x|y", "c=0.1..0.2:log")}
    assert {"1", "2", "3", "x", "y"} <= drawn
    assert all(0.1 <= float(value) <= 0.2 for value in drawn - {"1", "2", "3", "x", "y"})


def test_a_study_prunes_lists_failures_and_goes_on(
    optimise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a training that is as good as its dropout is small; its last trials are cut off where the median is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(optimise, "WARM_UP", 1)
    made: list[str] = []

    def train(trial: Any, arguments: list[str], directory: Path, metric: str) -> float:
        assert arguments[0] == "train.max_updates=5"
        made.append(str(directory))
        value = -trial.params["model.dropout"]
        if len(made) == 2:
            raise ChildProcessError("by design")
        trial.report(value, 10)
        if trial.should_prune():
            raise optuna.TrialPruned
        return value

    monkeypatch.setattr(optimise, "train", train)
    arguments = ["study", "model.dropout=0.0..0.5", "train.max_updates=5"]
    call(optimise, monkeypatch, *arguments, "--trials", "4")
    out = capsys.readouterr().out
    assert "trial 1: failed: by design" in out
    assert "1 fail" in out
    call(optimise, monkeypatch, *arguments, "--trials", "8")
    out = capsys.readouterr().out
    assert len(set(made)) == len(made)
    assert "ended early" in out
    assert "best: bleu -" in out
    assert all(path.startswith("runs/study/dropout-") for path in made)
    before = len(made)
    call(optimise, monkeypatch, *arguments, "--trials", "8")  # nothing is left to do
    assert len(made) == before
    with pytest.raises(SystemExit, match="error: no option has a range"):
        call(optimise, monkeypatch, "study", "seed=1")


def test_the_script_has_a_help() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "LOW..HIGH:log" in done.stdout


@pytest.mark.slow
def test_trials_are_runs(tmp_path: Path) -> None:
    tiny = """
        data.builtin_pairs=300 data.builtin_valid=4 data.builtin_test=4 data.builtin_long=2
        data.tokenizer.kind=word data.tokenizer.vocab_size=500 model.embedding=16 model.hidden=16
        train.valid_every=5 train.log_every=5 train.batch_tokens=256 train.precision=fp32 search.beam=1
        metrics.resamples=0 threads=1 device=cpu
    """
    line = ["rates", "optim.learning_rate=1e-5..1e-2:log", "--trials", "4", "--metric", "loss", "train.max_updates=20"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *line, *tiny.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "best: loss" in done.stdout
    assert len(list(tmp_path.glob("runs/rates/*/config.yaml"))) == 4
