"""The commands from end to end: their files, interruption and continuation, and error messages."""

import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import nmt
from nmt import checkpoint, evaluate, train, translate
from nmt.cli.compose import run_command
from nmt.cli.configs import Config, EvaluateConfig, TranslateConfig
from nmt.config import to_dict

MAINS: dict[str, tuple[Any, Any]] = {
    "train": (train.main, Config),
    "evaluate": (evaluate.main, EvaluateConfig),
    "translate": (translate.main, TranslateConfig),
}
NUM_TEST = 3
UPDATES = 150
TINY = f"""
    data.synthetic.train=300 data.synthetic.valid=4 data.synthetic.test={NUM_TEST} data.synthetic.long=2
    data.tokenizer.type=word data.tokenizer.vocab_size=500 model.embedding_dim=32 model.hidden_size=32
    model.attention.dim=16 train.valid_every=60 train.save_every=40 train.log_every=5 train.batch_tokens=512
    train.max_updates={UPDATES}
    train.precision=fp32 train.early_stopping_metric=loss optim.learning_rate=1e-2 optim.warmup_updates=10
    search.beam_size=2 search.max_length_ratio=1 search.max_length_offset=2 num_threads=1 device=cpu
""".split()
MACHINE = ["num_threads=1", "device=cpu"]


def start(name: str, arguments: list[str], folder: Path, **streams: Any) -> "subprocess.Popen[bytes]":
    root = str(Path(nmt.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", f"nmt.{name}", *arguments], cwd=folder, env=environment, **streams)


def call(name: str, arguments: list[str]) -> tuple[int, str]:
    """Return the exit code and standard error of a command called in this process."""
    logger = logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            run_command(*MAINS[name], name, arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, err.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory with the finished run "tiny"."""
    folder = tmp_path_factory.mktemp("work")
    process = start("train", ["name=tiny", *TINY], folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert out == b""
    assert b"error" not in err
    return folder


@pytest.fixture
def workdir(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to the directory of `work`, in which a test leaves no temporary files."""
    monkeypatch.chdir(work)
    yield work
    assert [path for path in work.rglob("*") if path.name.endswith((".tmp", ".part", "~"))] == []


def prefix(work: Path, split: str) -> str:
    (path,) = (work / "cache").glob(f"builtin-*/{split}.en")
    return str(path.with_suffix(""))


def test_a_run_is_complete(workdir: Path) -> None:
    run = workdir / "runs/tiny"
    assert sorted(path.name for path in (workdir / "runs").iterdir()) == ["tiny"]
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "command.txt", "metrics.jsonl", "train.log", "checkpoints", "tensorboard", "report")
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.pt", "update-000120.pt", "best.pt"}
    stored = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert to_dict(Config.from_dict(stored)) == checkpoint.load(run / "checkpoints/best.pt")["config"]
    assert (run / "command.txt").read_text().split()[:4] == ["python", "-m", "nmt.train", "name=tiny"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {row["update"]: row["loss"] for row in rows if "loss" in row}
    assert list(losses) == list(range(5, UPDATES + 1, 5))
    assert losses[UPDATES] < 0.8 * losses[5]
    scores = json.loads((run / "report/scores.json").read_text(encoding="utf-8"))
    assert {"bleu", "chrf", "alignment"} <= set(scores)
    assert set(scores["bleu"]) == {"score", "signature"}
    stored_source = checkpoint.load(run / "checkpoints/best.pt")["alignment_source"]
    assert scores["alignment"]["alignment_source"].items() <= stored_source.items()
    assert stored_source["by"] == scores["alignment"]["selected_by"] == "AER on the validation set"
    for name in ("hypotheses.txt", "alignments.pharaoh"):
        assert (run / "report" / name).read_bytes().count(b"\n") == NUM_TEST
    with np.load(run / "report/alignments.npz") as arrays:
        assert len([name for name in arrays if name.endswith("weights")]) == NUM_TEST
    assert (run / "report/report.html").stat().st_size > 1000


def test_evaluating_again_gives_the_same_report(workdir: Path) -> None:
    assert call("evaluate", ["checkpoint=runs/tiny", "output=again", *MACHINE])[0] == 0
    for name in ("hypotheses.txt", "scores.json", "alignments.pharaoh"):
        assert (workdir / "again" / name).read_bytes() == (workdir / "runs/tiny/report" / name).read_bytes()
    position = checkpoint.load(workdir / "runs/tiny/checkpoints/best.pt")["position"]
    for folder in ("again", "runs/tiny/report"):  # how the model was trained
        page = (workdir / folder / "report.html").read_text(encoding="utf-8")
        assert f"{position['update']} updates, {position['seconds']:.0f} s" in page
        assert re.search(r"· (300|29\d) training pairs", page)
        assert '<th scope="row">valid</th>' in page
    shutil.rmtree(workdir / "again")


def test_another_test_set_gets_its_own_report(workdir: Path) -> None:
    before = files(workdir / "runs/tiny/report")
    arguments = [
        "checkpoint=runs/tiny",
        f"data.test={prefix(workdir, 'test_long')}",
        "data=text",
        "search.beam_size=1",
        *MACHINE,
    ]
    code, err = call("evaluate", arguments)
    assert code == 0, err
    report = workdir / "runs/tiny/report-test_long"
    assert (report / "hypotheses.txt").read_bytes().count(b"\n") == 2
    assert files(workdir / "runs/tiny/report") == before
    shutil.rmtree(report)


def test_translating_gives_one_line_for_each_line(workdir: Path) -> None:
    source = Path(prefix(workdir, "test") + ".en").read_bytes()
    first = source.split(b"\n")[0]
    odd = (
        source.replace(b"\n", b"\r\n", 1) + b"\n" + b"a\rb \xe2\x80\xa8 c\n" + b"\xff\n" + first
    )  # no newline at the end
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start("translate", ["checkpoint=runs/tiny", *MACHINE], workdir, **pipes)
    out, err = process.communicate(odd, timeout=60)
    lines = out.split(b"\n")
    hypotheses = (workdir / "runs/tiny/report/hypotheses.txt").read_bytes().split(b"\n")
    assert process.returncode == 0, err.decode()
    assert len(lines) == NUM_TEST + 4 + 1
    assert lines[:NUM_TEST] == hypotheses[:NUM_TEST]
    assert lines[-2] == hypotheses[0]
    messages = err.decode().splitlines()
    assert [line for line in messages if "longest length" not in line] == [
        "1 lines were not valid UTF-8: the bytes in question became U+FFFD"
    ]


def test_a_closed_pipe_is_no_error(workdir: Path) -> None:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start("translate", ["checkpoint=runs/tiny", *MACHINE, "search.batch_size=1"], workdir, **streams)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(b"a\n" * 40, timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_an_interrupted_run_is_continued_with_the_same_results(workdir: Path) -> None:
    command_of_run = ["name=stopped", *TINY]
    run = workdir / "runs/stopped"

    def rows() -> list[dict[str, Any]]:
        path = run / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    reached = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start("train", command_of_run, workdir, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while max((row["update"] for row in rows()), default=0) <= reached and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number, err.decode()
        assert b"Traceback" not in err
        position = checkpoint.load(run / "checkpoints/last.pt")["position"]
        assert reached < position["update"] < UPDATES
        reached = position["update"]
        assert not (run / "report").exists()
    code, err_text = call("train", command_of_run)
    assert code == 0, err_text
    assert f"continues at update {reached}" in err_text
    whole, parts = (checkpoint.load(workdir / "runs" / name / "checkpoints/last.pt") for name in ("tiny", "stopped"))
    assert all(torch.equal(whole["model"][key], parts["model"][key]) for key in whole["model"])

    def losses(name: str) -> list[tuple[Any, ...]]:
        lines = (workdir / "runs" / name / "metrics.jsonl").read_text().splitlines()
        return [(row["update"], row.get("loss"), row.get("valid_loss")) for row in map(json.loads, lines)]

    assert losses("stopped") == losses("tiny")
    for name in ("hypotheses.txt", "scores.json"):
        assert (run / "report" / name).read_bytes() == (workdir / "runs/tiny/report" / name).read_bytes()
    shutil.rmtree(run)


def test_a_run_is_not_continued_as_another_one(workdir: Path) -> None:
    before = files(workdir / "runs/tiny")
    code, err = call("train", ["name=tiny", *TINY, "model.attention.score=dot", "seed=2"])
    assert code == 1
    assert "seed: 1 → 2; model.attention.score: additive → dot" in err
    assert files(workdir / "runs/tiny") == before


def write(folder: Path, name: str, source: bytes, target: bytes) -> str:
    for language, content in (("en", source), ("de", target)):
        (folder / f"{name}.{language}").write_bytes(content)
    return str(folder / name)


GOOD = b"".join(b"%d small words of many kinds, number %d\n" % (i, i * i) for i in range(40))
LONGER = GOOD + b"one more\n"
LATIN = GOOD + b"caf\xe9\n"


def sides_differ(folder: Path) -> list[str]:
    return [f"data.train={write(folder, 'odd', GOOD, LONGER)}"]


def no_such_file(folder: Path) -> list[str]:
    return [f"data.train={folder / 'nothing'}"]


def empty_file(folder: Path) -> list[str]:
    return [f"data.train={write(folder, 'empty', b'', b'')}"]


def not_utf8(folder: Path) -> list[str]:
    return [f"data.train={write(folder, 'latin', LATIN, LONGER)}"]


def all_filtered(folder: Path) -> list[str]:
    return ["data.max_length=1"]


def directory_for_a_file(folder: Path) -> list[str]:
    (folder / "place.en").mkdir()
    (folder / "place.de").mkdir()
    return [f"data.train={folder / 'place'}"]


def vocabulary_too_large(folder: Path) -> list[str]:
    return ["data.tokenizer.vocab_size=50000", "data.tokenizer.exact_size=true"]


def vocabulary_too_small(folder: Path) -> list[str]:
    return ["data.tokenizer.vocab_size=20"]


def unknown_language(folder: Path) -> list[str]:
    return ["data.target_lang=fr"]


def bad_validation_set(folder: Path) -> list[str]:
    return [f"data.valid={write(folder, 'odd', GOOD, LONGER)}"]


def missing_test_set(folder: Path) -> list[str]:
    return [f"data.test={folder / 'nothing'}"]


def file_for_runs(folder: Path) -> list[str]:
    (folder / "taken").write_bytes(b"")
    return [f"runs={folder / 'taken'}"]


def file_for_cache(folder: Path) -> list[str]:
    (folder / "taken").write_bytes(b"")
    return [f"data.cache_dir={folder / 'taken'}"]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (sides_differ, ["odd.en", "odd.de", "40", "41"]),
        (no_such_file, ["nothing"]),
        (empty_file, ["empty.en"]),
        (not_utf8, ["latin.en", "41", "UTF-8"]),
        (all_filtered, ["max_length"]),
        (directory_for_a_file, ["place.en"]),
        (vocabulary_too_large, ["data.tokenizer.vocab_size=50000"]),
        (vocabulary_too_small, ["data.tokenizer.vocab_size=20"]),
        (unknown_language, ["fr", "de"]),
        (bad_validation_set, ["odd.en"]),
        (missing_test_set, ["nothing"]),
        (file_for_runs, ["taken"]),
        (file_for_cache, ["taken"]),
    ],
)
def test_bad_input_to_training(
    mistake: Callable[[Path], list[str]], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = write(tmp_path, "good", GOOD, GOOD)
    splits = [f"data.{split}={good}" for split in ("train", "valid", "test")]
    base = [item for item in TINY if "synthetic" not in item and "tokenizer" not in item]
    arguments = [
        "data=text",
        *splits,
        "data.tokenizer.vocab_size=300",
        *base,
        "name=never",
        "train.max_updates=2",
        *mistake(tmp_path),
    ]
    code, err = call("train", arguments)
    check_error(code, err, words)
    assert not list(tmp_path.glob("runs/**/*")), "a run that could not begin left something behind"
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")] == []


def check_error(code: int, err: str, words: list[str]) -> None:
    """Check that a command failed with one error line at the end, which contains these words."""
    lines = err.splitlines()
    assert code == 1, err
    assert lines, "no error line"
    assert lines[-1].startswith("error: "), err
    assert sum(line.startswith("error:") for line in lines) == 1
    assert "Traceback" not in err
    assert [word for word in words if word not in lines[-1]] == [], lines[-1]


def truncated(run: Path, folder: Path) -> str:
    content = (run / "checkpoints/best.pt").read_bytes()
    (folder / "half.pt").write_bytes(content[: len(content) // 2])
    return str(folder / "half.pt")


def flipped(run: Path, folder: Path) -> str:
    content = bytearray((run / "checkpoints/best.pt").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / "flipped.pt").write_bytes(content)
    return str(folder / "flipped.pt")


def foreign(run: Path, folder: Path) -> str:
    torch.save({"model": {"weight": torch.zeros(2)}}, folder / "foreign.pt")
    return str(folder / "foreign.pt")


def no_archive(run: Path, folder: Path) -> str:
    (folder / "text.pt").write_text("not a checkpoint")
    return str(folder / "text.pt")


def empty_directory(run: Path, folder: Path) -> str:
    (folder / "empty").mkdir()
    return str(folder / "empty")


def nothing(run: Path, folder: Path) -> str:
    return str(folder / "nothing")


@pytest.mark.parametrize("name", ["evaluate", "translate"])
@pytest.mark.parametrize("damage", [truncated, flipped, foreign, no_archive, empty_directory, nothing])
def test_bad_checkpoints(damage: Callable[[Path, Path], str], name: str, workdir: Path, tmp_path: Path) -> None:
    path = damage(workdir / "runs/tiny", tmp_path)
    before = files(tmp_path)
    check_error(*call(name, [f"checkpoint={path}", *MACHINE]), [path])
    assert files(tmp_path) == before


def test_damaged_checkpoints_stop_the_run(workdir: Path) -> None:
    shutil.copytree(workdir / "runs/tiny", workdir / "runs/damaged")
    for name in ("last.pt", "update-000120.pt"):
        path = workdir / "runs/damaged/checkpoints" / name
        path.write_bytes(path.read_bytes()[:1000])
    before = files(workdir / "runs/damaged")
    check_error(*call("train", ["name=damaged", *TINY]), ["runs/damaged/checkpoints/last.pt"])
    assert files(workdir / "runs/damaged") == before
    shutil.rmtree(workdir / "runs/damaged")


@pytest.mark.parametrize("mistake", [sides_differ, no_such_file, empty_file, not_utf8, directory_for_a_file])
def test_bad_test_sets(mistake: Callable[[Path], list[str]], workdir: Path, tmp_path: Path) -> None:
    (argument,) = mistake(tmp_path)
    path = argument.partition("=")[2]
    before = files(workdir)
    check_error(*call("evaluate", ["checkpoint=runs/tiny", "data=text", f"data.test={path}", *MACHINE]), [path])
    assert files(workdir) == before


def test_a_report_folder_that_cannot_be_written(workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"mine")
    check_error(*call("evaluate", ["checkpoint=runs/tiny", f"output={tmp_path / 'taken'}", *MACHINE]), ["taken"])
    assert files(tmp_path) == {"taken": b"mine"}
