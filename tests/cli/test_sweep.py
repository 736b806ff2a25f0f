"""Sweeps: the runs of a command line, launchers, finished runs that are skipped, and failed runs."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import submitit
import yaml
from submitit.slurm.slurm import SlurmInfoWatcher

import nmt
from nmt import checkpoint, evaluate, train
from nmt.cli.compose import run_command, save_yaml
from nmt.cli.config_groups import format_override, group_choices, load_sweep
from nmt.cli.configs import COMMANDS, Config, EvaluateConfig
from nmt.cli.help import SWEEP_OPTIONS, help_text
from nmt.cli.run_directory import result_folder, run_name
from nmt.cli.sweep import SweepJob, progress, slurm_launcher
from nmt.cli.sweep.completion import is_run_complete
from nmt.cli.sweep.jobs import DONE, FAILED, RUNNING, SKIPPED, SweepOptions
from nmt.cli.sweep.process_launcher import (
    PARENT,
    JobProcess,
    ResourceSlot,
    allocate_slots,
    failure_reason,
    job_environment,
)
from nmt.cli.sweep.progress import SweepProgress
from nmt.compare.run_results import read_run_result
from nmt.config import leaves
from nmt.data import cache
from nmt.models import MODELS
from nmt.training.launcher import SIGNAL_HINTS

NUM_TEST = 12
TINY = f"""
    data.synthetic.train=300 data.synthetic.valid=4 data.synthetic.test={NUM_TEST} data.synthetic.long=2
    data.tokenizer.type=word data.tokenizer.vocab_size=500 model.embedding_dim=16 model.hidden_size=16
    model.attention.dim=8 train.valid_every=10 train.save_every=5 train.log_every=5 train.batch_tokens=256
    train.max_updates=20
    train.precision=fp32 train.early_stopping_metric=loss optim.learning_rate=1e-2 optim.warmup_updates=5
    metrics.num_resamples=20 search.beam_size=1 search.max_length_ratio=1 search.max_length_offset=2 num_threads=1
    device=cpu
""".split()


def sweep(*arguments: str, name: str = "train") -> list[tuple[str | None, list[str]]]:
    """Return the names (or outputs) and arguments of the runs of a command line, without training."""
    runs: list[tuple[str | None, list[str]]] = []
    tree: Any = Config if name == "train" else EvaluateConfig
    option = "name" if name == "train" else "output"
    run_command(lambda config, items: runs.append((getattr(config, option), items)), tree, name, ["-m", *arguments])
    return runs


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run_command(lambda *_: pytest.fail("the task was called"), Config, "train", list(arguments))
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (1, "")
    return err


def start(arguments: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "nmt.train", "-m", *arguments]
    return subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.PIPE)


def test_a_named_sweep_and_seeds_are_combined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = [
        [f"model.attention.score={score}", f"seed={seed}"]
        for score in ("none", "additive", "dot", "scaled", "general", "cosine", "hybrid")
        for seed in (1, 2)
    ]
    for named in ("sweep=attention", "+sweep=attention"):
        runs = sweep(named, "seed=1,2", "num_threads=1")
        assert [arguments[1:3] for _, arguments in runs] == expected
        assert len({name for name, _ in runs}) == 14
    by_hand = sweep("model.attention.score=none,additive,dot,scaled,general,cosine,hybrid", "seed=1,2", "num_threads=1")
    assert [name for name, _ in by_hand] == [name for name, _ in runs]
    assert str(runs[0][0]).startswith("score-none_seed-1-")
    both = sweep("sweep=[decoder,label_smoothing]")
    assert [arguments[:2] for _, arguments in both][:2] == [
        ["model.decoder=luong", "train.label_smoothing=0.0"],
        ["model.decoder=luong", "train.label_smoothing=0.05"],
    ]
    assert len(both) == 12
    assert len(sweep("seed=1,1,2")) == 2  # the same run twice is one run


@pytest.mark.parametrize("name", group_choices("sweep"))
def test_every_named_sweep_changes_a_valid_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    points = load_sweep(name)
    model = "transformer" if name in ("placement", "norm") else "rnn"
    runs = sweep(f"sweep={name}", f"model={model}")
    assert [arguments[1 : 1 + len(point)] for (_, arguments), point in zip(runs, points, strict=True)] == points
    assert len({tuple(point) for point in points}) == len(points) > 1
    known = leaves(MODELS[model].config(), "model.") | leaves(Config())
    assert {text.partition("=")[0] for point in points for text in point} <= set(known)


def test_the_users_own_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "configs/sweep/mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(
        "- {model.attention.score: [additive, dot], model.attention.heads: 2}\n"
        "- {seed: 7, data.error_on_dropped: true}\n"
    )
    runs = sweep("sweep=mine")
    assert [arguments[:2] for _, arguments in runs] == [
        ["model.attention.score=[additive,dot]", "model.attention.heads=2"],
        ["seed=7", "data.error_on_dropped=true"],
    ]
    for content in ("[]", "{}", "- 3\n", "text"):
        mine.write_text(content)
        assert "needs a mapping {option: [values]}, or a list of mappings" in failure(capsys, "-m", "sweep=mine")
    mine.write_text("{seed: [")
    assert "mine.yaml" in failure(capsys, "-m", "sweep=mine")
    assert format_override({"a": [None, True, 1e-5]}) == "{a: [null,true,1e-05]}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=attention"], "sweep=attention: belongs to a sweep of several runs, which needs -m"),
        (["launcher=processes"], "launcher=processes: belongs to a sweep of several runs, which needs -m"),
        (["-m", "sweep=attentio"], "sweep=attentio: must be one of attention, "),
        (["-m", "sweep=attention", "model.attention.score=dot"], "sweep=attention sets model.attention.score too"),
        (["-m", "sweep=attention,heads"], "one for the whole sweep; a list is written [a,b]"),
        (["-m", "launcher=joblib"], "launcher=joblib: must be one of serial, processes, slurm"),
        (["-m", "jobs=2"], "jobs=2: needs launcher=processes or launcher=slurm"),
        (["-m", "launcher=processes", "jobs=many"], "jobs=many: a whole number is needed"),
        (["-m", "launcher=processes", "jobs=-1"], "jobs=-1: must be at least 0"),
        (["-m", "slurm={partition: a}"], "needs launcher=slurm"),
        (["-m", "launcher=slurm", "slurm={cluster: moon}"], "must be slurm, or local"),
        (["-m", "lancher=serial"], "did you mean launcher?"),
    ],
)
def test_a_mistake_costs_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where no run is finished already
    monkeypatch.setattr("nmt.cli.sweep.runner._prepare_data", lambda jobs, progress: None)
    err = failure(capsys, *arguments)
    assert message in err
    assert err.startswith("error: ") or "\nerror: " in err or "launcher=slurm" in arguments
    assert "Traceback" not in err


def test_the_options_of_a_sweep_are_in_the_help() -> None:
    assert list(SWEEP_OPTIONS) == list(leaves(SweepOptions()))
    lines = help_text("train", Config(), {}, ["attention"]).partition("With -m:\n")[2].splitlines()
    assert [line.split()[0] for line in lines[: len(SWEEP_OPTIONS)]] == list(SWEEP_OPTIONS)
    assert all(len(line.split()) > 2 for line in lines[: len(SWEEP_OPTIONS)])


def test_evaluations_of_a_sweep_have_separate_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"runs/{name}/checkpoints").mkdir(parents=True)
        (tmp_path / f"runs/{name}/checkpoints/best.pt").touch()
    beam_name = run_name((), ["search.beam_size=5"])
    assert beam_name.startswith("beam_size-5-")
    arguments = ["checkpoint=runs/a", "search.beam_size=1,5"]
    assert [folder for folder, _ in sweep(*arguments, name="evaluate")][1] == f"runs/a/report-{beam_name}"
    folders = [folder for folder, _ in sweep(*arguments, "data.test=D/x", name="evaluate")]
    assert folders[1] == f"runs/a/report-x-{beam_name}"
    folders = [
        folder for folder, _ in sweep("checkpoint=runs/a,runs/b", "search.beam_size=1,5", "output=o", name="evaluate")
    ]
    assert len(set(folders)) == 4
    assert all(folder is not None and folder.startswith("o/") for folder in folders)
    assert [folder for folder, _ in sweep("checkpoint=runs/a,runs/b", name="evaluate")] == [None, None]
    assert [folder for folder, _ in sweep("checkpoint=[runs/a]", "search.beam_size=1,5", name="evaluate")][1] == (
        f"runs/a/report-{beam_name}"
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("evaluate", ["checkpoint=runs/a/checkpoints/best.pt,runs/a/checkpoints/last.pt"]),
        ("evaluate", ["checkpoint=runs/a", "data.test=D1/test,D2/test"]),
        ("evaluate", ["checkpoint=runs/a,runs/b", "search.beam_size=1,5"]),
        ("evaluate", ["checkpoint=runs/a,runs/b", "output=x,y"]),
        ("align", ["checkpoint=runs/a", "alignment.layer=1,2"]),
        ("align", ["checkpoint=runs/a", "source=D1/t.en,D2/t.en", "target=D/t.de"]),
        ("export", ["checkpoint=runs/a", "format=onnx,ctranslate2", "output=x"]),
        ("translate", ["checkpoint=runs/a", "search.beam_size=1,5", "output=x"]),
        ("translate", ["checkpoint=runs/a,runs/b", "output=x.gz,y.gz"]),
        ("trim", ["checkpoint=runs/a,runs/b", "text=t", "output=x.pt"]),
        ("clean", ["source=a", "target=b", "output=x", "filters.numbers.max=0.1,0.2"]),
    ],
)
def test_no_command_of_a_sweep_overwrites_another(
    name: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("a", "b"):
        (tmp_path / f"runs/{run}/checkpoints").mkdir(parents=True)
        for file in ("best.pt", "last.pt"):
            (tmp_path / f"runs/{run}/checkpoints" / file).touch()
    folders: list[Path] = []
    tree = COMMANDS[name]
    run_command(lambda config, items: folders.append(result_folder(config, items)), tree, name, ["-m", *arguments])
    assert len(set(folders)) == len(folders) > 1


def test_the_last_value_of_an_option_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep("name=s", "seed=1,2,3", "num_threads=1", "seed=5") == [("s", ["name=s", "num_threads=1", "seed=5"])]
    assert [arguments[0] for _, arguments in sweep("seed=1,2", "seed=4,5")] == ["seed=4", "seed=5"]
    assert [arguments[0] for _, arguments in sweep("seed=1", "seed=4,5")] == ["seed=4", "seed=5"]


def test_a_machine_is_divided_into_slots() -> None:
    assert allocate_slots(0, 9, 1, [], 8) == [ResourceSlot(1, [])] * 8
    assert allocate_slots(3, 9, 1, [], 8) == [ResourceSlot(2, [])] * 3
    assert allocate_slots(0, 2, 1, [], 8) == [ResourceSlot(4, [])] * 2
    assert allocate_slots(0, 9, 1, ["0", "1"], 8) == [ResourceSlot(4, ["0"]), ResourceSlot(4, ["1"])]
    assert allocate_slots(4, 9, 1, ["0", "1"], 8) == [
        ResourceSlot(2, ["0"]),
        ResourceSlot(2, ["1"]),
        ResourceSlot(2, ["0"]),
        ResourceSlot(2, ["1"]),
    ]
    assert allocate_slots(0, 9, 2, ["0", "1", "2", "3"], 8) == [
        ResourceSlot(4, ["0", "1"]),
        ResourceSlot(4, ["2", "3"]),
    ]
    assert allocate_slots(9, 9, 1, [], 2)[0].threads == 1


def test_the_environment_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    slot = ResourceSlot(3, ["1", "2"])
    started: list[dict[str, str]] = []

    class Process:
        def __init__(self, *_: object, env: dict[str, str], **__: object) -> None:
            self.stderr = started.append(env) or []

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    assert JobProcess("train", [], job_environment(slot, Config()))() == (0, "")
    (environment,) = started
    assert (environment["OMP_NUM_THREADS"], environment["CUDA_VISIBLE_DEVICES"]) == ("3", "1,2")
    assert (environment[PARENT], environment["PATH"]) == (str(os.getpid()), os.environ["PATH"])
    variables = job_environment(slot, Config(num_threads=1, device="cuda:1"))
    assert "OMP_NUM_THREADS" not in variables
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "CUDA_VISIBLE_DEVICES" not in job_environment(ResourceSlot(3, []), Config())


def test_failure_reasons() -> None:
    assert failure_reason(1, ["12:00:00 update 3", "error: no such file", "12:00:01 last"]) == "no such file"
    assert (
        failure_reason(1, ["Traceback (most recent call last):", "  x", "ZeroDivisionError: y"])
        == "ZeroDivisionError: y"
    )
    assert failure_reason(-9, []) == f"ended by SIGKILL ({SIGNAL_HINTS[signal.SIGKILL]})"
    assert failure_reason(143, ["12:00:00 saved"]).startswith("stopped by SIGTERM, and saved before")
    assert failure_reason(3, []) == "ended with exit code 3"


def test_the_progress_of_a_sweep(clock_of: Callable[..., list[float]]) -> None:
    clock = clock_of(progress)
    jobs = [SweepJob(i, 4, f"seed={i}", [], Config()) for i in (1, 2, 3, 4)]
    jobs[0].end(SKIPPED)
    shown = SweepProgress(jobs)
    assert shown.line() == "sweep: 1 of 4 runs finished (1 of them before)"
    jobs[1].status = RUNNING
    clock[0] += 60
    assert shown.line() == "sweep: 1 of 4 runs finished (1 of them before), 1 running"
    clock[0] += 60
    jobs[1].end(DONE)
    assert shown.line() == "sweep: 2 of 4 runs finished (1 of them before); about 04:00 left"
    jobs[2].end(FAILED, "why")
    jobs[3].end(DONE)
    assert shown.line() == "sweep: 3 of 4 runs finished (1 of them before), 1 failed; took 02:00"


def test_lines_of_threads_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    written: list[str] = []
    monkeypatch.setattr(sys, "stderr", Recorder())
    SweepProgress([]).print("run 1 of 2: started")
    assert [text for text in written if text] == ["run 1 of 2: started\n"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory with a finished run."""
    work = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(work)
    try:
        run_command(train.main, Config, "train", ["name=run", *TINY])
    finally:
        os.chdir(before)
    return work


def _averaged(work: Path, how: str) -> list[str]:
    """Change the files of the finished run as if it had averaged checkpoints; return the options for that."""
    for path in (work / "runs/run").rglob("config.yaml"):
        stored = yaml.safe_load(path.read_text())
        stored["train"] |= {
            "average_checkpoints": how,
            "keep_last_checkpoints": 5,
            "keep_best_checkpoints": 5,
        }
        path.write_text(yaml.safe_dump(stored))
    last = work / "runs/run/checkpoints/last.pt"
    content = checkpoint.load(last)
    position = {**content["position"], "last_averaged": content["position"]["update"]}
    checkpoint.save(last, {**content, "position": position})
    return [f"train.average_checkpoints={how}", "train.keep_last_checkpoints=5", "train.keep_best_checkpoints=5"]


def test_a_run_without_a_test_set_is_finished_too(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    monkeypatch.chdir(work)
    config = Config.from_dict(yaml.safe_load((work / "runs/run/config.yaml").read_text()))
    config.data.format, config.data.extra_tests = "text", []
    assert not is_run_complete(config)
    save_yaml(config, work / "runs/run/config.yaml")
    shutil.rmtree(work / "runs/run/report")
    assert is_run_complete(config)
    config.data.test = "D/test"
    assert not is_run_complete(config)


def test_a_run_with_test_sets_of_one_name_is_finished_with_a_report_of_each(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, work := tmp_path / "work")
    monkeypatch.chdir(work)
    config = Config.from_dict(yaml.safe_load((work / "runs/run/config.yaml").read_text()))
    config.data.extra_tests = ["a/long", "b/long"]
    reports = work / "runs/run/report"
    for folder in (work / "runs/run", reports, reports / "test_long"):
        save_yaml(config, folder / "config.yaml")
    shutil.copytree(reports / "test_long", reports / "a-long")
    assert not is_run_complete(config)
    shutil.copytree(reports / "test_long", reports / "b-long")
    assert is_run_complete(config)


def test_when_a_run_is_finished(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    monkeypatch.chdir(work)

    def is_done(*changes: str) -> bool:
        seen: list[Config] = []
        run_command(lambda config, _: seen.append(config), Config, "train", ["name=run", *TINY, *changes])
        return is_run_complete(seen[0])

    assert is_done()
    same = (
        "num_threads=2",
        "train.log_every=1",
        "train.keep_last_checkpoints=7",
        "train.keep_best_checkpoints=7",
        "train.save_every=7",
    )
    assert is_done(*same)  # they do not change the result
    for change in ("train.max_updates=21", "search.beam_size=2", "seed=2", "data.synthetic.test=13", "name=other"):
        assert not is_done(change), change
    report = work / "runs/run/report"
    for change in ("train.keep_last_checkpoints=7", "train.save_every=7", "train.keep_best_checkpoints=7"):
        averaged = _averaged(work, "best" if "best" in change else "last")
        assert is_done(*averaged)
        assert not is_done(*averaged, change), change  # the mean is of other checkpoints
    _averaged(work, "none")
    scores = (report / "scores.json").read_text()
    (report / "scores.json").write_text(scores[:-10])
    assert not is_done()
    (report / "scores.json").write_text(scores)
    for damage in (report / "config.yaml", report / "test_long/config.yaml", work / "runs/run/checkpoints/best.pt"):
        damage.rename(damage.with_suffix(".away"))
        assert not is_done(), damage
        damage.with_suffix(".away").rename(damage)
    last = work / "runs/run/checkpoints/last.pt"
    content = checkpoint.load(last)
    for changed in ({"last_validated": 10}, {"update": 19}):
        checkpoint.save(last, {**content, "position": {**content["position"], **changed}})
        assert not is_done()
    checkpoint.save(last, {**content, "texts": {"train": [["x", "another digest"]]}})
    assert not is_done()
    last.write_bytes(b"damaged")
    assert not is_done()


def _change(text: Path, content: str) -> None:
    """Change a file of the built-in pair in the cache, as if it had been prepared so."""
    text.write_text(content)
    lines = "".join(f"{cache._checksum(path)}\n" for path in sorted(text.parent.glob("[!c]*")))
    (text.parent / cache.CHECKSUMS).write_text(f"{zlib.crc32(lines.encode()):08x}\n{lines}")


@pytest.mark.parametrize("change", ["test.de", "test.gold", "test_long.en", "model", "hypotheses", "0.4"])
def test_what_is_stale_is_evaluated_again_and_nothing_is_trained(
    change: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    run = Path("runs/run")
    arguments = ["name=run", *TINY]
    reports = [run / "report", run / "report/test_long"]
    scores = [json.loads((report / "scores.json").read_text()) for report in reports]
    if change == "0.4":
        (run / "report/scores.json").write_text(json.dumps({k: v for k, v in scores[0].items() if k != "digests"}))
    elif change == "model":
        content = checkpoint.load(run / "checkpoints/best.pt")
        first = next(iter(content["model"]))
        other = {**content, "model": {**content["model"], first: content["model"][first] + 1}}
        checkpoint.save(Path("other.pt"), other)
        run_command(evaluate.main, EvaluateConfig, "evaluate", ["checkpoint=other.pt", f"output={run}/report"])
        shutil.copy(run / "config.yaml", run / "report/config.yaml")  # as if it differed in the weights only
    elif change == "hypotheses":
        (text,) = Path("cache").glob("builtin-*/test.de")
        overrides = [f"checkpoint={run}", f"data.test={text.with_suffix('')}", f"hypotheses={text}"]
        run_command(evaluate.main, EvaluateConfig, "evaluate", [*overrides, f"output={run}/report"])
        shutil.copy(run / "config.yaml", run / "report/config.yaml")
    else:
        (text,) = Path("cache").glob(f"builtin-*/{change}")
        _change(text, ("" if change == "test.gold" else "A") + text.read_text()[text.read_text().index(" ") :])
    assert [read_run_result(report).is_stale for report in reports] == [change == "model"] * 2
    checkpoints = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    capsys.readouterr()
    run_command(train.main, Config, "train", ["-m", *arguments])
    assert "finished before" not in capsys.readouterr().err
    after = [json.loads((report / "scores.json").read_text()) for report in reports]
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == checkpoints
    names = {"test.de": {"references"}, "test.gold": {"gold"}, "test_long.en": {"sources"}}.get(change, set())
    changed = {name for old, new in zip(scores, after, strict=True) for name, digest in new["digests"].items()
               if digest != old["digests"][name]}  # fmt: skip
    assert changed == names
    if not changed:
        assert after == scores
    assert not any(read_run_result(report).is_stale for report in reports)
    run_command(lambda *_: pytest.fail("not again"), Config, "train", ["-m", *arguments])
    assert "finished before" in capsys.readouterr().err


def test_text_at_fault_is_not_passed_over(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text that was removed leaves the result as it is; a side that has lost a line does not."""
    shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    (text,) = Path("cache").glob("builtin-*/test.de")
    _change(text, text.read_text().partition("\n")[2])
    with pytest.raises(SystemExit):
        run_command(train.main, Config, "train", ["-m", "name=run", *TINY])
    err = capsys.readouterr().err
    assert "1 of 1 runs failed" in err
    assert f"{NUM_TEST - 1}" in err


def test_processes_run_what_is_left_and_list_failures(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four runs, two have an invalid seed, one diverges by design, and one finishes."""
    shutil.copytree(finished / "cache", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    tiny = [item for item in TINY if not item.startswith("optim.learning_rate")]
    arguments = ["-m", "name=s", "seed=1,-1", "optim.learning_rate=1e-2,1e38", *tiny, "launcher=processes", "jobs=2"]
    with pytest.raises(SystemExit) as stop:
        run_command(lambda *_: pytest.fail("not in this process"), Config, "train", arguments)
    err = capfd.readouterr().err
    assert stop.value.code == 1
    assert "sweep: data prepared, 1 kind of it" in err
    assert "2 at a time" in err
    summary = err[err.index("3 of 4 runs failed:") :].splitlines()
    assert len(summary) == 4
    assert "  seed=-1 optim.learning_rate=0.01: seed=-1: must be at least 0" in summary
    assert any("1e+38: " in line and "lower optim.learning_rate" in line for line in summary)
    assert "Traceback" not in err
    (good,) = (path for path in (tmp_path / "runs/s").iterdir() if (path / "report/config.yaml").exists())
    assert good.name.startswith("seed-1_learning_rate-0.01-")


def fake_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> Path:
    """Put fake SLURM programs on the path; return the path of the script that will be submitted."""
    programs = folder / "bin"
    programs.mkdir()
    scripts = {
        "sbatch": f"""
            cp "${{@: -1}}" {folder}/script.sh
            n=77
            until mkdir {folder}/submitted-$n 2>/dev/null; do n=$((n + 1)); done
            echo "Submitted batch job $n"
        """,
        "sacct": f'echo "JobID|State|NodeList"; for i in 7{{7,8,9}}_{{0,1}}; do echo "$i|{state}|node"; done',
        "srun": "exit 0",
        "scancel": "exit 0",
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm_launcher, "PAUSE", 0.05)
    monkeypatch.setattr(submitit.SlurmJob, "watcher", SlurmInfoWatcher(delay_s=1))
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0)
    return folder / "script.sh"


def test_jobs_for_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check the script that is passed to sbatch, and jobs without a result."""
    script = fake_slurm(tmp_path, monkeypatch, "OUT_OF_MEMORY")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nmt.cli.sweep.runner._prepare_data", lambda jobs, progress: None)
    resources = "slurm={partition: long, timeout_min: 240, gpus_per_node: 1, cpus_per_task: 4, mem_gb: 16, account: us}"
    err = failure(capsys, "-m", "seed=1,2", "launcher=slurm", "jobs=1", resources)
    lines = script.read_text().splitlines()
    for line in ("partition=long", "time=240", "gpus-per-node=1", "cpus-per-task=4", "mem=16GB", "account=us"):
        assert f"#SBATCH --{line}" in lines
    assert "#SBATCH --array=0-1%1" in lines
    assert any(line.startswith("#SBATCH --signal=USR2@") for line in lines)  # so that a job saves before its limit
    assert "run 1 of 2: seed=1: submitted as job 77_0" in err
    assert "2 of 2 runs failed:" in err
    assert "  seed=2: job 77_1 ended as OUT_OF_MEMORY without a result; see " in err
    assert list(json.loads((tmp_path / "runs/.slurm/jobs.json").read_text()).values()) == ["77_0", "77_1"]
    assert "parameter" in failure(capsys, "-m", "seed=1,2", "launcher=slurm", "slurm={wings: 2}").lower()


def test_jobs_in_the_queue_are_not_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = fake_slurm(tmp_path, monkeypatch, "RUNNING")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nmt.cli.sweep.runner._prepare_data", lambda jobs, progress: None)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    for again in (False, True):
        with pytest.raises(SystemExit) as stop:
            run_command(lambda *_: None, Config, "train", ["-m", "seed=1,2", "launcher=slurm"])
        err = capsys.readouterr().err
        assert stop.value.code == 130
        assert script.exists() is not again
        assert ("run 1 of 2: seed=1: is job 77_0" in err) is again
        assert "sweep: the jobs continue; scancel 77 ends them" in err
        script.unlink(missing_ok=True)


def launch(name: str, *seeds: int, **options: Any) -> list[SweepJob]:
    """Run several seeds as jobs of a cluster, without preparing the data."""
    jobs = [
        SweepJob(i, len(seeds), f"seed={seed}", [f"seed={seed}"], Config()) for i, seed in enumerate(seeds, start=1)
    ]
    slurm_launcher.run_on_slurm(name, jobs, SweepOptions(launcher="slurm", **options), SweepProgress(jobs))
    return jobs


def test_the_jobs_of_several_sweeps_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are recorded by command and arguments, as long as they are in SLURM's queue."""
    script = fake_slurm(tmp_path, monkeypatch, "RUNNING")
    monkeypatch.chdir(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def known(name: str, *seeds: int) -> list[str]:
        """Return the recorded jobs after a sweep that was interrupted."""
        script.unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            launch(name, *seeds)
        return list(json.loads((tmp_path / "runs/.slurm/jobs.json").read_text()).values())

    monkeypatch.setattr(time, "sleep", interrupt)
    assert known("train", 1, 2) == ["77_0", "77_1"]
    assert known("train", 3, 4) == ["77_0", "77_1", "78_0", "78_1"]
    capsys.readouterr()
    assert known("train", 1, 2) == ["77_0", "77_1", "78_0", "78_1"]
    assert not script.exists()
    err = capsys.readouterr().err
    assert "run 1 of 2: seed=1: is job 77_0" in err
    assert "run 2 of 2: seed=2: is job 77_1" in err
    assert "scancel 77 ends them" in err
    assert known("evaluate", 1, 2)[4:] == ["79_0", "79_1"]
    assert known("train", 4, 5) == ["77_0", "77_1", "78_0", "78_1", "79_0", "79_1", "80"]
    sacct = tmp_path / "bin/sacct"
    sacct.write_text(sacct.read_text().replace("RUNNING", "COMPLETED"))
    assert known("train", 1, 2) == ["80", "81_0", "81_1"]  # this SLURM does not list job 80


@pytest.mark.parametrize(
    ("options", "max_running"),
    [({"jobs": 2}, 2), ({}, 3), ({"slurm": {"gpus_per_node": 1}}, 1)],
    ids=["given", "cores", "gpu"],
)
def test_submitits_own_executor_gets_no_more_jobs_than_may_run(
    options: dict[str, Any],
    max_running: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Use processes that end when they are polled for the third time."""
    running: set[int] = set()
    seen: list[int] = []

    class Process:
        def __init__(self, **_: object) -> None:
            self.pid, self.looks = len(seen) + 1, 0
            running.add(self.pid)
            seen.append(len(running))

        def poll(self) -> int | None:
            self.looks += 1
            if self.looks < 3:
                return None
            running.discard(self.pid)
            return 0

    monkeypatch.setattr("submitit.local.local.start_controller", Process)
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 0)
    monkeypatch.setattr(submitit.LocalExecutor, "_throttle", lambda _: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(slurm_launcher, "PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)
    jobs = launch("train", 1, 2, 3, 4, 5, **{**options, "slurm": {"cluster": "local", **options.get("slurm", {})}})
    assert (len(seen), max(seen), running) == (5, max_running, set())
    assert all("ended as FINISHED without a result" in job.reason for job in jobs)
    assert f"sweep: 5 jobs, {max_running} at a time; their output is in runs/.slurm/" in capsys.readouterr().err
    assert not (tmp_path / "runs/.slurm/jobs.json").exists()  # only for jobs of SLURM


def test_without_a_cluster(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nmt.cli.sweep.runner._prepare_data", lambda jobs, progress: None)
    assert "there is no sbatch on this machine" in failure(capsys, "-m", "seed=1,2", "launcher=slurm")


def test_a_job_returns_why_its_command_failed(capsys: pytest.CaptureFixture[str]) -> None:
    code, reason = JobProcess("evaluate", ["checkpoint=nowhere"])()
    assert code == 1
    assert reason == f"checkpoint=nowhere: no such file or run directory (relative to {Path.cwd()})"
    assert reason in capsys.readouterr().err


TWELVE = ["model.attention.score=additive,dot,none", "seed=1,2,3,4", "name=study", *TINY]


def table(folder: Path) -> str:
    """Return the comparison of a sweep, without the parts that depend on the clock."""
    line = ["study", "--sections", "scores,significance,length", "--num-resamples", "50", "--format", "json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-m", "nmt.compare", *line],
        cwd=folder / "runs",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.slow
def test_a_sweep_that_was_killed_twice_has_the_results_of_one_that_was_not(tmp_path: Path) -> None:
    """After SIGKILL and SIGTERM, the same command continues the rest of twelve runs."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert start(TWELVE, whole).wait(900) == 0
    parallel = [*TWELVE, "launcher=processes", "jobs=2"]
    for number, reports in ((signal.SIGKILL, 2), (signal.SIGTERM, 5)):
        process = start(parallel, killed)
        deadline = time.monotonic() + 600
        while len(list(killed.glob("runs/study/*/report/config.yaml"))) < reports and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), err.decode()
        deadline = time.monotonic() + 120
        while list(killed.glob("runs/study/*/.lock")) and time.monotonic() < deadline:
            time.sleep(0.1)  # runs whose sweep was killed save and stop
    process = start(parallel, killed)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err.decode()
    assert "finished before" in err.decode()
    assert table(killed) == table(whole)
    again = start(parallel, killed)
    _, err = again.communicate(timeout=120)
    assert b"sweep: 12 of 12 runs finished (12 of them before)" in err


@pytest.mark.slow
def test_jobs_of_submitits_own_executor(finished: Path, tmp_path: Path) -> None:
    """Use submitit's local executor in place of a cluster."""
    shutil.copytree(finished / "cache", tmp_path / "cache")
    process = start(["seed=1,2", "launcher=slurm", "slurm={cluster: local}", "jobs=1", *TINY], tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    assert len(list(tmp_path.glob("runs/seed-*/report/config.yaml"))) == 2
    assert b"2 of 2 runs finished" in err
    assert err.index(b"run 1 of 2: seed=1: finished") < err.index(b"run 2 of 2: seed=2: submitted as job")


@pytest.mark.slow
def test_a_preempted_job_saves_and_is_submitted_again(finished: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(finished / "cache", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    tiny = [item for item in TINY if not item.startswith("train.max_updates")]
    task = JobProcess("train", ["name=long", *tiny, "train.max_updates=100000"])
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(task()))
    thread.start()
    last = tmp_path / "runs/long/checkpoints/last.pt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    again = task.checkpoint()
    thread.join(60)
    assert outcome[0][0] == 128 + signal.SIGTERM
    assert again.function.arguments == task.arguments
    reached = checkpoint.load(last)["position"]["update"]
    assert 0 < reached < 100000
