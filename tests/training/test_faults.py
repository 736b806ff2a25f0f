"""The faults that training survives: killed processes, full disks, damaged files, clocks that jump.

After each of them the same command either produces what an uninterrupted run produces, bit for bit, or ends with an
error and changes nothing.
"""

import contextlib
import errno
import io
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import nmt
from nmt import checkpoint, train
from nmt.cli.compose import Config, run_command
from nmt.evaluation import evaluator
from nmt.runtime.files import directory_lock
from nmt.training import logger

UPDATES = 30
WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
RUN = f"""
    name=run data=text data.train=text/train data.valid=text/valid data.test=text/test data.tokenizer.type=char
    data.tokenizer.vocab_size=100 model.embedding_dim=256 model.hidden_size=256 model.attention.score=none
    train.batch_tokens=300 train.max_updates={UPDATES} train.log_every=1 train.save_every=4 train.valid_every=14
    train.early_stopping_metric=loss train.precision=fp32 train.ema_decay=0.9 train.keep_last_checkpoints=3
    train.keep_best_checkpoints=2 train.average_checkpoints=last optim.warmup_updates=4 search.beam_size=1
    search.max_length_ratio=1 search.max_length_offset=2 num_threads=1
    device=cpu
""".split()
"""A run whose checkpoints (about 15 MB) take long enough to be killed in."""


def start(folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "nmt.train", *RUN, *more]
    return subprocess.Popen(arguments, cwd=folder, env=environment, stderr=subprocess.PIPE)


def call(folder: Path, *more: str) -> tuple[int, str]:
    """Run the same command in this process; return the exit code and standard error."""
    logger = logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            run_command(train.main, Config, "train", [*RUN, *more])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, err.getvalue()


def continues(folder: Path, whole: Path) -> str:
    """Check that the same command leaves the files of the uninterrupted run; return its standard error."""
    code, err = call(folder)
    assert code == 0, err
    same(folder / "runs/run", whole / "runs/run")
    return err


def fails(folder: Path, *words: str) -> None:
    """Check that the same command fails with an error of one line, and changes nothing."""
    before = contents(folder / "runs")
    code, err = call(folder)
    assert code == 1, err
    last = err.splitlines()[-1]
    assert last.startswith("error: "), err
    assert "Traceback" not in err
    assert [word for word in words if word not in last] == [], last
    assert contents(folder / "runs") == before


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file but the log, to which a failed run may add, and the lock of a killed one."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("train.log", ".lock")
    }


def same(actual: Path, expected: Path) -> None:
    """Check that checkpoints, metrics and hypotheses are equal, apart from time, and that no temporary file is left."""
    metrics = [logger.read_metrics(run / "metrics.jsonl") for run in (actual, expected)]
    rows = [
        [{key: value for key, value in row.items() if key not in logger.MACHINE_DEPENDENT_KEYS} for row in run_metrics]
        for run_metrics in metrics
    ]
    assert rows[0] == rows[1]
    names = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (actual, expected)]
    assert [name for name in names[0] if not name.endswith(".corrupt")] == names[1]
    for name in names[1]:
        contents = [checkpoint.load(run / "checkpoints" / name) | {"path": name} for run in (actual, expected)]
        same_tensors(*contents, f"{name}:")
    for name in ("hypotheses.txt", "scores.json"):
        assert (actual / "report" / name).read_bytes() == (expected / "report" / name).read_bytes()
    assert leftovers(actual.parent.parent) == []


def same_tensors(actual: Any, expected: Any, place: str) -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected), place
    elif isinstance(expected, dict):
        assert list(actual) == list(expected), place
        for key in set(expected) - {"seconds"}:
            same_tensors(actual[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), place
        for number, value in enumerate(expected):
            same_tensors(actual[number], value, f"{place}.{number}")
    else:
        assert actual == expected, place


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.endswith(".tmp") or path.name == ".lock"]


def updates(folder: Path) -> int:
    """Return the last update in the metrics of the run."""
    rows = logger.read_metrics(folder / "runs/run/metrics.jsonl")
    return max((row["update"] for row in rows), default=0)


def writes(folder: Path) -> bool:
    """Return whether a checkpoint is being written."""
    with contextlib.suppress(FileNotFoundError):
        return any(path.name.endswith(".tmp") for path in (folder / "runs/run/checkpoints").iterdir())
    return False


def kill(folder: Path, when: Callable[[Path], bool], number: int = signal.SIGKILL) -> bool:
    """Start the run and send the signal once `when` holds; return False when the run ended before."""
    process = start(folder)
    deadline = time.monotonic() + 300
    while not when(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode in (0, -number if number == signal.SIGKILL else 128 + number), err.decode()
    assert b"Traceback" not in err
    return process.returncode != 0


def write_text(folder: Path) -> None:
    """Write train, valid and test: 8 words and their mirror image on each line."""
    choose = random.Random(1)
    (folder / "text").mkdir()
    for split, size in (("train", 60), ("valid", 4), ("test", 3)):
        lines = [" ".join(choose.choices(WORDS, k=8)) for _ in range(size)]
        (folder / f"text/{split}.en").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"text/{split}.de").write_text("".join(f"{line[::-1]}\n" for line in lines))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the text and a run that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write_text(folder)
    code, err = call(folder)
    assert code == 0, err
    assert leftovers(folder) == []
    return folder


@pytest.fixture(scope="module")
def killed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory whose run was killed with SIGKILL, first before any checkpoint, then after some."""
    folder = tmp_path_factory.mktemp("killed") / "work"
    folder.mkdir()
    shutil.copytree(whole / "text", folder / "text")
    assert kill(folder, lambda _: updates(folder) >= 1)
    assert kill(folder, lambda _: updates(folder) >= 18)
    names = {path.name for path in (folder / "runs/run/checkpoints").glob("*.pt")}
    assert {"last.pt", "best.pt", "update-000012.pt"} <= names
    assert not (folder / "runs/run/report").exists()
    return folder


@pytest.fixture
def work(killed: Path, tmp_path: Path) -> Path:
    """A copy of `killed` that the test may spoil."""
    shutil.copytree(killed, tmp_path / "work")
    return tmp_path / "work"


def damage(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


def test_killed(work: Path, whole: Path) -> None:
    assert "continues at update 16" in continues(work, whole)


def test_killed_while_a_checkpoint_was_written(work: Path, whole: Path) -> None:
    before = (work / "runs/run/checkpoints/last.pt").stat().st_mtime_ns
    assert kill(work, writes)
    names = leftovers(work)
    assert any(name.startswith((".last.pt@", ".best-")) for name in names), "killed too late"
    assert (work / "runs/run/checkpoints/last.pt").stat().st_mtime_ns == before
    continues(work, whole)


def test_a_damaged_last_checkpoint(work: Path, whole: Path) -> None:
    folder = work / "runs/run/checkpoints"
    damage(folder / "last.pt")
    err = continues(work, whole)
    assert "last.pt is damaged and passed over" in err
    assert "continues from runs/run/checkpoints/update-000012.pt, update 12; updates after it are done again" in err
    assert (folder / "last.corrupt").exists()


def test_no_whole_checkpoint(work: Path) -> None:
    for path in (work / "runs/run/checkpoints").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-7])
    fails(work, "no checkpoint of it is whole", "last.pt", "update-000012.pt", "nothing was changed")


def test_a_deleted_cache(work: Path, whole: Path) -> None:
    shutil.rmtree(work / "cache")
    assert "warning" not in continues(work, whole).lower()


@pytest.mark.parametrize(("name", "option"), [("train.de", "data.train"), ("valid.en", "data.valid")])
def test_a_corpus_that_has_changed(work: Path, whole: Path, name: str, option: str) -> None:
    path = work / "text" / name
    text = path.read_text()
    path.write_text(text.replace("one", "two", 1).replace("eno", "owt", 1))
    fails(work, f"{option}: text/{name} has changed since the run was started", "name=")
    path.write_text(text)
    continues(work, whole)


def test_a_clock_that_jumps(work: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(2)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + choose.uniform(-1e6, 1e6))
    continues(work, whole)
    seconds = checkpoint.load(work / "runs/run/checkpoints/last.pt")["position"]["seconds"]
    assert 0 < seconds < 600


def test_two_runs_in_one_directory(work: Path) -> None:
    with directory_lock(work / "runs/run"):
        fails(work, "runs/run: another process trains there (process ", "name=")


LEARNED = ["model.positions=learned", "model.max_positions=60", "train.max_updates=1"]
READS, WRITES = ["model=transformer_rnn", *LEARNED], ["model=rnn_transformer", *LEARNED]


def lengthen(folder: Path, name: str, row: int) -> None:
    """Lengthen a line of the text by 100 characters."""
    lines = (folder / "text" / name).read_text().splitlines()
    lines[row - 1] += " one" * 25
    (folder / "text" / name).write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("long", "options", "words"),
    [
        (("test.en", 3), READS, ["text/test.en: line 3: ", " more than model.max_positions=60, ", "raise it to 1"]),
        (("test.de", 2), WRITES, ["text/test.de: line 2: ", " more than model.max_positions=60, "]),
        (("test.en", 3), [*READS, "data.test=[text/valid,text/test]"], ["text/test.en: line 3: "]),
        (("test.en", 1), [*READS, "data.extra_tests=[text/test]", "data.test=text/valid"], ["text/test.en: line 1: "]),
        (("valid.en", 4), READS, ["text/valid.en: line 4: ", "take the sentence out"]),
        (("train.de", 9), WRITES, ["data.train: the longest target has 1", "data.max_length=59"]),
        (
            None,
            ["train.early_stopping_metric=aer", "model.attention.score=additive"],
            [
                "train.early_stopping_metric=aer: the validation text text/valid has no word alignment beside it",
                "choose",
                "loss",
            ],
        ),
    ],
)
def test_errors_that_would_end_a_run_later_end_it_at_the_start(
    long: tuple[str, int] | None, options: list[str], words: list[str], tmp_path: Path
) -> None:
    write_text(tmp_path)
    if long is not None:
        lengthen(tmp_path, *long)
    code, err = call(tmp_path, *options)
    assert code == 1, err
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert [word for word in words if word not in last] == [], last
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test.de", READS),  # a recurrent decoder writes any length
        ("test.de", [*WRITES, "alignment.head_importance_pairs=2"]),  # references are not read
        ("valid.en", [*READS, "train.valid_bleu_sentences=1", "alignment.selection_pairs=2", "data.max_length=59"]),
    ],
)
def test_sentences_that_the_model_does_not_read_may_be_longer_than_its_positions(
    name: str, options: list[str], tmp_path: Path
) -> None:
    write_text(tmp_path)
    lengthen(tmp_path, name, 3)
    code, err = call(tmp_path, *options, "model.attention.score=additive")
    assert code == 0, err


@pytest.fixture
def small_disk(work: Path) -> Iterator[Path]:
    """The runs of `work`, on a disk of their own with 100 MB."""
    runs = work / "runs"
    runs.rename(work / "former")
    runs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", runs], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.decode().strip()}")
    shutil.move(work / "former/run", runs / "run")
    yield runs
    subprocess.run(["umount", "--lazy", runs], check=True)


@pytest.mark.parametrize("room", [0, 100_000])
def test_a_full_disk(small_disk: Path, work: Path, whole: Path, room: int) -> None:
    """Nothing fits, or only the metrics do."""
    folder = small_disk / "run/checkpoints"
    before = {path.name: path.read_bytes() for path in folder.glob("*.pt")}
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass
    os.truncate(ballast, ballast.stat().st_size // 4096 * 4096 - room)
    code, err = call(work)
    assert code == 1, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: ")
    if room:
        assert (
            "update 20 is not saved, training goes on; the last checkpoint in runs/run/checkpoints is of update 16"
            in err
        )
        assert ".pt: the checkpoint could not be written" in err.splitlines()[-1]
        assert (
            "updates 17 to 30 are lost, the last checkpoint in runs/run/checkpoints is of update 16"
            in err.splitlines()[-1]
        )
    assert {path.name: path.read_bytes() for path in folder.glob("*.pt")} == before
    assert leftovers(small_disk) == []
    ballast.unlink()
    continues(work, whole)


def test_a_full_disk_in_the_evaluation_costs_the_evaluation_only(
    work: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "report/hypotheses.txt")

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "write_report", fail)
        code, err = call(work)
    assert code == 1
    reason = "report/hypotheses.txt: No space left on device; the training is complete and saved, and the same command"
    assert err.splitlines()[-1] == f"error: {reason} evaluates again"
    continues(work, whole)


@pytest.mark.parametrize(
    ("option", "shown"), [("name=\udcff", "name=\\udcff"), ("data.train=a\udce9", "data.train=a\\udce9")]
)
def test_arguments_that_are_no_text_are_refused_before_anything_is_written(
    option: str, shown: str, tmp_path: Path
) -> None:
    write_text(tmp_path)
    code, err = call(tmp_path, option)
    assert code == 1
    assert err.startswith(f"error: {shown}: not text in the encoding of this locale, utf-8; rename the file, or, ")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


@pytest.mark.slow
def test_twenty_kills(whole: Path, tmp_path: Path) -> None:
    """At random times, every third while a checkpoint is written; some with SIGTERM or Ctrl-C."""
    choose = random.Random(3)
    kills = runs = in_write = 0
    reached: list[int] = []
    while kills < 20:
        folder = tmp_path / str(runs)
        folder.mkdir()
        shutil.copytree(whole / "text", folder / "text")
        hit = True
        while hit and kills < 20:
            if kills % 3 == 0:
                hit = kill(folder, writes)
                in_write += any(name.endswith(".tmp") for name in leftovers(folder / "runs"))
            else:
                number = choose.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                hit = kill(folder, after(folder, choose), number)
            kills += hit
            reached.append(updates(folder))
        continues(folder, whole)
        runs += 1
    assert in_write >= 4
    print(f"{kills} kills in {runs} runs, {in_write} with an unfinished file; updates reached: {reached}")


def after(folder: Path, choose: random.Random) -> Callable[[Path], bool]:
    """Return a condition that holds shortly after a few more updates."""
    goal, wait = updates(folder) + choose.randint(1, 8), choose.uniform(0, 0.3)
    reached_at: list[float] = []

    def when(_: Path) -> bool:
        if not reached_at and updates(folder) >= goal:
            reached_at.append(time.monotonic())
        return bool(reached_at) and time.monotonic() > reached_at[0] + wait

    return when


@pytest.mark.slow
def test_two_processes_in_one_directory(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "text", tmp_path / "text")
    first = start(tmp_path)
    while not (tmp_path / "runs/run/checkpoints/last.pt").exists():
        time.sleep(0.001)
    second = start(tmp_path)
    _, err = second.communicate(timeout=300)
    assert (first.wait(timeout=300), second.returncode) in ((0, 1), (0, 0)), err.decode()
    if second.returncode:
        # refused by the lock, or, where the first process ended after this one had looked, by the changed checkpoint
        sentences = (
            f"another process trains there (process {first.pid} on ",
            "another process has trained there in the",
        )
        assert any(sentence in err.decode().splitlines()[-1] for sentence in sentences)
    same(tmp_path / "runs/run", whole / "runs/run")
