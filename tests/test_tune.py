"""python -m nmt.tune: ranges, pruning, and studies that are continued."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import nmt.tune
from nmt.runtime.files import directory_lock


@pytest.fixture
def tune() -> Any:
    return nmt.tune


def call(tune: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run a command line; in place of an error's line and exit code 1, raise SystemExit with the line."""
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    try:
        tune.main(list(arguments))
    except SystemExit as stop:
        assert stop.code == 1  # noqa: PT017
        assert stream.getvalue().count("\n") == 1
        raise SystemExit(stream.getvalue()) from None


def test_ranges(tune: Any) -> None:
    parse = tune.parse
    assert parse("a=tag(log, interval(1e-4,1e-2))") == ("a", FloatDistribution(1e-4, 1e-2, log=True))
    assert parse("a=interval(0,1)") == ("a", FloatDistribution(0.0, 1.0))
    assert parse("a=range(1,9)") == ("a", IntDistribution(1, 8))
    assert parse("a=range(8,0,-2)") == ("a", IntDistribution(2, 8, step=2))
    assert parse("a=tag(log, range(1,9))") == ("a", IntDistribution(1, 8, log=True))
    assert parse("a=range(0.25,1.0,0.25)") == ("a", FloatDistribution(0.25, 0.75, step=0.25))
    assert parse("a=choice(x,y)") == parse("a=x,y") == ("a", CategoricalDistribution(["x", "y"]))
    assert parse("a=[x],null,1") == ("a", CategoricalDistribution(["[x]", "null", "1"]))  # as they are written
    assert parse("model=glob(*_rnn)") == ("model", CategoricalDistribution(["transformer_rnn"]))
    for plain in ("a=1", "data.train=../x", "data.train=a..b", "name=x", "metrics.names=[bleu,chrf]", "data.train=é#"):
        assert parse(plain) is None
    for wrong in ("a=interval(2,1)", "a=tag(log, interval(0,1))", "a=range(3,3)", "a=tag(log,range(0,9))"):
        with pytest.raises(ValueError, match="needs a lower end"):
            parse(wrong)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a=1e-4..1e-2:log", "write 'a=tag(log, interval(1e-4,1e-2))'"),
        ("a=0.0..1", "write 'a=interval(0.0,1)', or range(0.0,1) for whole numbers below 1"),
        ("a=-1..8", "write 'a=interval(-1,8)', or range(-1,8) for whole numbers below 8"),
        ("a=x|y", "write a=x,y,…, with commas"),
    ],
)
def test_a_range_of_version_0_5_costs_one_line(old: str, new: str, tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=f"^error: {re.escape(f'{old}: {new}')}\n$"):
        call(tune, monkeypatch, "study", old)
    (written,) = re.findall(r"a=(?:[\w.-]+,[\w.-]+|\w+\(.*?\)+)", new)[:1]
    assert tune.parse(written) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: NAME"),
        (
            ("study", "seed=1,2", "--trials", "many"),
            "--trials: invalid int value: 'many'; python -m nmt.tune --help shows the options",
        ),
        (("study", "seed=1,2", "--metric", "ter"), "--metric: invalid choice: 'ter'"),
        (("study", "seed=1,2", "--n-trials", "3"), "unrecognized arguments: --n-trials 3; did you mean --trials?"),
        (("study", "seed=1,2", "n_trials=3"), "n_trials=3: write --trials 3"),
        (("study_name=x", "seed=1,2"), "study_name=x: the first argument is the name of the study: write python -m"),
        (
            ("a=interval(0,1)",),
            "a=interval(0,1): the first argument is the name of the study, as in python -m nmt.tune ",
        ),
        (("study", "a=loguniform(1e-4,1e-2)"), "write 'a=tag(log, interval(1e-4,1e-2))'"),
        (("study", "seed=1,2", "launcher=processes"), "launcher=processes: leave it out; trials run one after the"),
        (("study", "seed=1,2", "trian.max_epochs=1"), "trian.max_epochs=1: unknown option; did you mean train.max_ep"),
        (("study", "optim.lrr=interval(0,1)"), "optim.lrr=0.5: unknown option"),
        (("study", "model.attention.score=dott,dot"), "model.attention.score=dott: must be one of"),
        (("../study", "seed=1,2"), "name=../study: must be a folder name"),
    ],
)
def test_a_mistake_costs_one_line_and_no_trial(
    arguments: tuple[str, ...], message: str, tune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=re.escape(message)):
        call(tune, monkeypatch, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_study_prunes_lists_failures_and_is_continued(
    tune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Use a training whose score falls with the dropout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "WARM_UP", 1)
    made: list[str] = []

    def train(trial: Any, arguments: list[str], directory: Path, metric: str) -> float:
        assert arguments[0] == "train.max_updates=5"
        made.append(str(directory))
        assert arguments[1:] == [f"model.dropout={trial.params['model.dropout']:.6g}", f"name=study/{directory.name}"]
        value = -trial.params["model.dropout"]
        if len(made) == 2:
            raise ChildProcessError("by design")
        trial.report(value, 10)
        if trial.should_prune():
            raise optuna.TrialPruned
        return value

    monkeypatch.setattr(tune, "train", train)
    arguments = ["study", "model.dropout=interval(0.0,0.5)", "train.max_updates=5"]
    call(tune, monkeypatch, *arguments, "--trials", "4")
    out = capsys.readouterr().out
    assert "trial 1: failed: by design" in out
    assert "1 fail" in out
    call(tune, monkeypatch, *arguments, "--trials", "8")
    out = capsys.readouterr().out
    assert len(set(made)) == len(made)
    assert "pruned after" in out
    assert "best: bleu -" in out
    assert all(path.startswith("runs/study/dropout-") for path in made)
    before = len(made)
    call(tune, monkeypatch, *arguments, "--trials", "8")  # nothing is left to do
    assert len(made) == before
    with pytest.raises(SystemExit, match="error: no option has a range"):
        call(tune, monkeypatch, "study", "seed=1")
    call(tune, monkeypatch, *arguments, "num_threads=1", "--trials", "8")
    dropout, updates = arguments[1:]
    log_range = "model.dropout=tag(log, interval(0.1,0.5))"
    for changed, message in (
        (
            [*arguments, "model=transformer"],
            "model=transformer: the study study was begun without it; give another NAME",
        ),
        ([*arguments, "seed=1,2"], "seed=1,2: the study study was begun without it; give another NAME"),
        (["study", dropout, "train.max_updates=6"], f"train.max_updates=6: the study study was begun with {updates}; "),
        (["study", log_range, updates], f"{log_range}: the study study was begun with {dropout}; give another NAME"),
        (["study", dropout], f"{updates} is missing: the study study was begun with it; give it again, or another "),
    ):
        with pytest.raises(SystemExit, match=re.escape(f"error: {message}")):
            call(tune, monkeypatch, *changed, "--trials", "9")
    assert len(made) == before


CHILD = """#!/bin/bash
trap 'echo signal >> signals; sleep 1; echo saved > saved; exit 143' TERM
for argument; do case $argument in name=*) directory=runs/${argument#name=};; esac; done
mkdir -p "$directory"
echo '{"update": 5, "valid_loss": 2.0, "valid_bleu": 1.0}' >> "$directory/metrics.jsonl"
echo valid at update 5 >&2
for _ in {1..500}; do sleep 0.02; done
"""
"""In place of a training: it validates, and takes longer to save than Popen waits after a Ctrl-C."""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use `CHILD` in the working directory."""
    program = tmp_path / "child"
    program.write_text(CHILD)
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize("is_pruned", [False, True])
def test_an_interrupted_trial_has_saved(is_pruned: bool, tune: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Trial:
        def report(self, value: float, update: int) -> None:
            assert (value, update) == (1.0, 5)
            if not is_pruned:
                raise KeyboardInterrupt

        def should_prune(self) -> bool:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            return True

    with pytest.raises(KeyboardInterrupt):
        tune.train(Trial(), ["name=study/a"], Path("runs/study/a"), "bleu")
    assert Path("saved").exists()
    assert Path("signals").read_text().splitlines() == ["signal"]  # a second one would stop it at once
    assert "the trial saves and stops (once more: stop at once)" in capsys.readouterr().out


@pytest.mark.usefixtures("child")
def test_a_second_interruption_does_not_wait(tune: Any) -> None:
    class Trial:
        def report(self, *_: float) -> None:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune.train(Trial(), ["name=study/a"], Path("runs/study/a"), "bleu")
    assert not Path("saved").exists()


@pytest.mark.usefixtures("child")
@pytest.mark.parametrize(("metric", "needed"), [("aer", "gold alignments"), ("chrf", r"metrics.names=\[bleu,chrf\]")])
def test_a_metric_that_validation_does_not_give_ends_the_study(
    metric: str, needed: str, tune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=rf"error: --metric {metric}: validation gives only bleu, loss; .*{needed}"):
        call(tune, monkeypatch, "study", "seed=range(1,10)", "--metric", metric)
    assert len(list(Path("runs/study").glob("*/metrics.jsonl"))) == 1
    assert Path("saved").exists()
    with pytest.raises(SystemExit, match=f"error: --metric bleu: the study study is of {metric}; give another NAME"):
        call(tune, monkeypatch, "study", "seed=range(1,10)")


def test_validations_with_other_metrics_are_ignored(tune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also, a run that was finished before keeps its score."""
    program = tmp_path / "child"
    program.write_text("#!/bin/bash\necho finished >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    rows = ['{"update": 5, "valid_loss": 2.0}', '{"update": 9, "loss": 1.5}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(ValueError, match="--metric bleu: validation gives only loss"):
        tune.train(None, [], tmp_path, "bleu")
    rows += ['{"update": 10, "valid_loss": 1.0, "valid_bleu": 7.0}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    trial = optuna.create_study(pruner=optuna.pruners.NopPruner()).ask()
    assert tune.train(trial, [], tmp_path, "bleu") == 7.0


def test_a_study_belongs_to_one_process(tune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = rf"error: runs/study: another process .*\(process {os.getpid()} on .*\); .* give this study another NAME"
    with directory_lock(Path("runs/study")), pytest.raises(SystemExit, match=message):
        call(tune, monkeypatch, "study", "seed=range(1,10)")
    assert not Path("runs/study/optuna.log").exists()


def test_the_help_shows_every_kind_of_range(tune: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        tune.main(["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(text in out for text in ("interval(LOW,HIGH)", "tag(log, ", "range(1,5)", "a,b,c", "--trials"))
    assert all(f"default {default} " in " ".join(out.split()) for default in ("20", "bleu", "1"))
    (example,) = re.findall(r"example: python -m nmt\.tune (.*)", out)
    assert [tune.parse(word) is None for word in shlex.split(example)] == [True, False, False, True, True]


@pytest.mark.slow
def test_trials_are_runs(tmp_path: Path) -> None:
    tiny = """
        data.synthetic.train=300 data.synthetic.valid=4 data.synthetic.test=4 data.synthetic.long=2
        data.tokenizer.type=word data.tokenizer.vocab_size=500 model.embedding_dim=16 model.hidden_size=16
        train.valid_every=5 train.log_every=5 train.batch_tokens=256 train.precision=fp32 search.beam_size=1
        metrics.num_resamples=0 num_threads=1 device=cpu
    """
    line = [
        "rates",
        "optim.learning_rate=tag(log, interval(1e-5,1e-2))",
        "--trials",
        "4",
        "--metric",
        "loss",
        "train.max_updates=20",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "nmt.tune", *line, *tiny.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "best: loss" in done.stdout
    assert len(list(tmp_path.glob("runs/rates/*/config.yaml"))) == 4
