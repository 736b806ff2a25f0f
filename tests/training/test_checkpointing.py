"""Which checkpoints of a run are kept and which one it continues from: valid or damaged files, and full disks."""

import copy
import dataclasses
import errno
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from nmt import checkpoint
from nmt.checkpoint import average_state_dicts
from nmt.cli.configs import Config
from nmt.cli.continuation import check_continuation
from nmt.config import to_dict
from nmt.models import Seq2Seq
from nmt.runtime import files
from nmt.runtime.files import JsonlLog, directory_lock, remove_stale_temp_files
from nmt.training import logger
from nmt.training.checkpointing import CheckpointConfig, CheckpointManager, TrainingObjects
from nmt.training.ema import temporarily_loaded
from nmt.training.optim import OptimConfig, ReduceOnPlateau
from nmt.training.progress import TrainProgress

CPU = torch.device("cpu")


class Run:
    """A run whose model has one weight, the number of the update."""

    def __init__(self, folder: Path, *, save_every: int = 10, sign: int = 1, **policy: Any) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        state = TrainingObjects(cast(Seq2Seq, self.model), optimizer, ReduceOnPlateau(OptimConfig()), None)
        self.header: dict[str, Any] = {"config": {}, "tokenizer": {"kind": "none"}}
        config = CheckpointConfig(**policy)
        config.validate()
        self.checkpoints = CheckpointManager(folder, self.header, state, config, save_every, sign)
        self.progress = TrainProgress()

    def set_update(self, update: int) -> None:
        self.progress.update = update
        with torch.no_grad():
            self.model.weight.fill_(update)

    def save(self, *updates: int, must: bool = True) -> None:
        for update in updates:
            self.set_update(update)
            self.checkpoints.save_last(self.progress, "fp32", lambda: None, must=must)

    def validate(self, update: int, score: float) -> None:
        self.set_update(update)
        progress, sign = self.progress, self.checkpoints.sign
        if not sign * (score - progress.best_score) <= 0:
            progress.best_score, progress.best_update, progress.best_averaged_updates = score, update, []
        self.checkpoints.save_best(progress, "fp32", score)

    def resume(self) -> int:
        resumed = self.checkpoints.resume(CPU)
        self.progress = resumed[0] if resumed is not None else TrainProgress()
        return int(self.model.weight.item()) if resumed is not None else 0


def held(folder: Path) -> dict[str, int]:
    """Return the update whose weights each file holds; -1 for a file that cannot be read."""
    updates = {}
    for path in folder.iterdir():
        try:
            updates[path.name] = int(checkpoint.load(path)["model"]["weight"].item())
        except ValueError:
            updates[path.name] = -1
    return updates


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("nmt"), "propagate", True)
    caplog.set_level(logging.INFO, "nmt")
    return caplog


def test_by_default_the_last_two_states_stay(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save(10)
    assert held(tmp_path) == {"last.pt": 10}
    run.save(20)
    assert held(tmp_path) == {"last.pt": 20, "update-000010.pt": 10}
    run.save(30)
    assert held(tmp_path) == {"last.pt": 30, "update-000020.pt": 20}


@pytest.mark.parametrize(("updates", "keep_last"), [([10, 20, 30, 40], 3), ([10, 13, 20, 29, 30, 40], 3)])
def test_states_that_only_a_stop_has_made_do_not_count(tmp_path: Path, updates: list[int], keep_last: int) -> None:
    """A run that was stopped leaves the same files as an uninterrupted one."""
    for update in updates:
        run = Run(tmp_path, keep_last_checkpoints=keep_last)
        run.resume()
        run.save(update)
    assert held(tmp_path) == {"last.pt": 40, "update-000030.pt": 30, "update-000020.pt": 20}


def test_there_is_always_one_before(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save(3, 7)
    assert held(tmp_path) == {"last.pt": 7, "update-000003.pt": 3}
    run.save(7)  # the same update again, as after the last validation, is no other state
    assert held(tmp_path) == {"last.pt": 7, "update-000003.pt": 3}
    run.save(10)
    assert held(tmp_path) == {"last.pt": 10, "update-000007.pt": 7}


def test_a_damaged_best_model_is_an_error_at_the_start(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    for keep_best, name in ((1, "best.pt"), (2, "best-000020.pt")):
        folder = tmp_path / str(keep_best)
        run = Run(folder, keep_best_checkpoints=keep_best)
        for update in (10, 20, 30):
            run.validate(update, 40.0 - update)
            run.progress.last_validated = update
            run.save(update)
        assert Run(folder, keep_best_checkpoints=keep_best).resume() == 30
        damage(folder / name)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(ValueError, match=f"{name}: the file of a best model is damaged: put back a copy, or"):
            Run(folder, keep_best_checkpoints=keep_best).resume()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        (folder / name).unlink()
        run = Run(folder, keep_best_checkpoints=keep_best)
        assert run.resume() == 30
        assert ("best.pt is missing, the best model (update 10); the best of the later" in log.text) == (keep_best == 1)
        log.clear()
        assert (run.progress.best_update, run.progress.last_validated) == ((0, 29) if keep_best == 1 else (10, 30))
        run.validate(40, 0.0)
        run.save(40)
        assert held(folder)["best.pt"] == (40 if keep_best == 1 else 10)


def test_a_damaged_checkpoint_is_left_out_of_the_mean(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path, keep_last_checkpoints=3, average_checkpoints="last")
    run.save(10, 20, 30)
    damage(tmp_path / "update-000010.pt")
    averaged = run.checkpoints.average(run.progress)
    assert averaged is not None
    assert averaged[1] == [20, 30]
    assert "update-000010.pt: damaged checkpoint (its checksum is wrong) (left out of the mean)" in log.text


def test_a_damaged_last_falls_back_with_a_warning(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    Run(tmp_path, keep_last_checkpoints=4).save(10, 20, 30, 40)
    damage(tmp_path / "last.pt")
    (tmp_path / "update-000030.pt").write_bytes(b"")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run = Run(tmp_path, keep_last_checkpoints=4)
    assert run.resume() == 20
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "reading changed something"
    assert "last.pt is damaged and passed over: damaged checkpoint (its checksum is wrong)" in log.text
    assert "update-000030.pt is damaged and passed over: truncated" in log.text
    assert "continues from" in log.text
    assert "update-000020.pt, update 20; updates after it are done again" in log.text
    run.save(30)
    names = {"last.corrupt": -1, "update-000030.corrupt": -1}
    assert held(tmp_path) == {"last.pt": 30, "update-000020.pt": 20, "update-000010.pt": 10, **names}
    assert (tmp_path / "last.corrupt").read_bytes() == before["last.pt"]


def test_no_valid_checkpoint_is_an_error(tmp_path: Path) -> None:
    Run(tmp_path / "checkpoints").save(10, 20)
    for path in (tmp_path / "checkpoints").iterdir():
        damage(path)
    before = held(tmp_path / "checkpoints")
    with pytest.raises(
        ValueError, match=r"no checkpoint of it is whole \(.*last.pt: .*update-000010.pt: .*nothing was"
    ):
        Run(tmp_path / "checkpoints").resume()
    assert held(tmp_path / "checkpoints") == before


def test_a_newer_version_is_no_reason_to_fall_back(tmp_path: Path) -> None:
    Run(tmp_path).save(10, 20)
    torch.save({"format": checkpoint.FORMAT, "format_version": 99, "nmt": "9.9"}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"written by nmt 9.9, which is newer"):
        Run(tmp_path).resume()


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """Format 2 has no checksum trailer, no text digests, and fewer fields of the progress."""
    Run(tmp_path).save(10)
    content = checkpoint.load(tmp_path / "last.pt")
    position = {name: content["position"][name] for name in ("update", "epoch", "batch", "seconds")}
    position |= {"validated": content["position"]["last_validated"], "best": content["position"]["best_score"]}
    content |= {"format_version": 2, "nmt": "0.2.0", "position": position}
    torch.save(content, tmp_path / "last.pt")
    run = Run(tmp_path)
    run.header["texts"] = {"train": [["a.en", "00"]]}
    assert run.resume() == 10
    run.save(20)
    assert held(tmp_path) == {"last.pt": 20, "update-000010.pt": 10}


def test_options_that_an_older_version_did_not_have_are_their_defaults() -> None:
    now = to_dict(Config(name="a"))
    older = copy.deepcopy(now)
    for option in ("r_drop_alpha", "keep_best_checkpoints", "gradient_accumulation"):
        del older["train"][option]
    check_continuation(older, now)
    now["train"]["gradient_accumulation"] = 2
    with pytest.raises(ValueError, match=r"other options \(train.gradient_accumulation: 1 → 2\)"):
        check_continuation(older, now)
    older["train"]["gone"] = 1
    with pytest.raises(ValueError, match=r"train.gone: .* does not have; use the version that wrote it"):
        check_continuation(older, now)


def test_a_model_of_other_options_is_refused(tmp_path: Path) -> None:
    Run(tmp_path).save(10)
    run = Run(tmp_path)
    run.checkpoints.state = run.checkpoints.state._replace(model=cast(Seq2Seq, nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"last.pt: its model is not the one of these options \(.*bias"):
        run.resume()


SCORES = {10: 5.0, 20: 7.0, 30: 6.0, 40: 7.0, 50: 4.0, 60: 8.0}


@pytest.mark.parametrize(("sign", "expected"), [(1, [60, 20, 40]), (-1, [50, 10, 30])])
@pytest.mark.parametrize("again", [(), (20, 50), (10, 10, 60)])
def test_the_best_stay(tmp_path: Path, sign: int, expected: list[int], again: tuple[int, ...]) -> None:
    """Also when validations are repeated, after kills, from the state before them."""
    run = Run(tmp_path, keep_best_checkpoints=3, sign=sign)
    redo = list(again)
    updates = list(SCORES)
    while updates:
        update = updates.pop(0)
        run.validate(update, SCORES[update])
        if redo and update == redo[0]:
            redo.pop(0)
            updates.insert(0, update)
            run = Run(tmp_path, keep_best_checkpoints=3, sign=sign)
            run.resume()
        else:
            run.save(update)
    updates_by_file = held(tmp_path)
    assert {name: updates_by_file[name] for name in updates_by_file if name.startswith("best-")} == {
        f"best-{update:06d}.pt": update for update in expected
    }
    assert updates_by_file["best.pt"] == expected[0]
    assert [update for _, update in run.progress.kept_best] == expected


def test_ties_among_the_best_are_decided_by_the_loss(tmp_path: Path) -> None:
    """A validation whose loss is not known, of version 0.4, loses them; of equal ones the older stays."""
    run = Run(tmp_path, keep_best_checkpoints=3)
    for update, loss in ((10, math.inf), (20, 4.0), (30, 3.0), (40, 3.0), (50, 5.0)):
        run.set_update(update)
        run.checkpoints.save_best(run.progress, "fp32", 0.0, loss)
        if update == 10:
            run.progress.kept_losses.clear()
        run.save(update)
        run = Run(tmp_path, keep_best_checkpoints=3)
        run.resume()
    assert [update for _, update in run.progress.kept_best] == [30, 40, 20]
    assert run.progress.kept_losses == [3.0, 3.0, 4.0]
    assert {int(path.stem.removeprefix("best-")) for path in tmp_path.glob("best-*.pt")} == {20, 30, 40}


def test_one_best_by_default(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for update, score in SCORES.items():
        run.validate(update, score)
    run.save(60)
    assert held(tmp_path) == {"last.pt": 60, "best.pt": 60}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"average_checkpoints": "last", "keep_last_checkpoints": 3}, [40, 50, 60]),
        ({"average_checkpoints": "best", "keep_best_checkpoints": 2}, [20, 60]),
        ({"average_checkpoints": "best", "keep_best_checkpoints": 9}, [10, 20, 30, 40, 50, 60]),
    ],
)
def test_the_mean_of_the_kept_checkpoints(tmp_path: Path, policy: dict[str, Any], expected: list[int]) -> None:
    run = Run(tmp_path, **policy)
    for update, score in SCORES.items():
        run.validate(update, score)
        run.save(update)
    averaged = run.checkpoints.average(run.progress)
    assert averaged is not None
    assert averaged[1] == expected
    assert averaged[0]["weight"].item() == pytest.approx(sum(expected) / len(expected))


def test_the_mean_takes_the_place_of_the_best_until_it_is_beaten(tmp_path: Path) -> None:
    run = Run(tmp_path, average_checkpoints="best", keep_best_checkpoints=2)
    run.validate(10, 1.0)
    run.validate(20, 3.0)
    run.progress.best_score, run.progress.best_averaged_updates = 9.0, [10, 20]
    with torch.no_grad():
        run.model.weight.fill_(15)
    run.checkpoints.save_averaged(run.progress, "fp32")
    run.save(20)
    assert held(tmp_path) == {"last.pt": 20, "best.pt": 15, "best-000010.pt": 10, "best-000020.pt": 20}
    run.validate(30, 5.0)
    run.save(30)
    assert held(tmp_path)["best.pt"] == 15
    run.validate(40, 10.0)
    run.save(40)
    assert held(tmp_path)["best.pt"] == 40


def test_a_mean_stays_where_one_best_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, average_checkpoints="last")
    run.validate(10, 1.0)
    run.progress.best_score, run.progress.best_averaged_updates = 9.0, [5, 10]
    run.checkpoints.save_averaged(run.progress, "fp32")
    run.validate(20, 5.0)
    assert held(tmp_path) == {"best.pt": 10}


def test_a_mean_of_too_few(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path, average_checkpoints="last")
    run.save(10)
    assert run.checkpoints.average(run.progress) is None
    assert "train.average_checkpoints=last: 1 checkpoint is too few for a mean" in log.text


def test_mean_against_torch() -> None:
    torch.manual_seed(0)
    states = [{"a": torch.randn(5, 3), "b": torch.randn(2).bfloat16(), "n": torch.tensor(i)} for i in range(4)]
    mean = average_state_dicts(iter(states))
    torch.testing.assert_close(mean["a"], torch.stack([state["a"] for state in states]).mean(0))
    torch.testing.assert_close(mean["b"], torch.stack([state["b"].float() for state in states]).mean(0).bfloat16())
    assert mean["n"] == 3
    model = nn.Linear(3, 5, bias=False)
    former = model.weight.detach().clone()
    with temporarily_loaded(model, {"weight": mean["a"]}):
        assert torch.equal(model.weight, mean["a"])
    assert torch.equal(model.weight, former)
    context = temporarily_loaded(model, {"weight": mean["a"]})
    context.__enter__()
    assert not context.__exit__(ValueError, ValueError("inside"), None)
    assert torch.equal(model.weight, former)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep_last_checkpoints": 1}, r"train.keep_last_checkpoints=1: must be at least 2"),
        ({"keep_best_checkpoints": 0}, r"train.keep_best_checkpoints=0: must be at least 1"),
        ({"average_checkpoints": "all"}, r"train.average_checkpoints=all: must be one of none, last, best"),
        (
            {"average_checkpoints": "best"},
            r"train.average_checkpoints=best: needs several .*train.keep_best_checkpoints",
        ),
    ],
)
def test_impossible_policies(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CheckpointConfig(**options).validate()


class Full:
    """A disk on which every write of a checkpoint fails in the middle, while `on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on, write = False, torch.save

        def save(content: Any, file: Any) -> None:
            if self.on:
                file.write(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(content, file)

        monkeypatch.setattr(torch, "save", save)


def test_a_full_disk_costs_no_checkpoint(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Full(monkeypatch)
    run = Run(tmp_path)
    run.save(10, 20)
    disk.on = True
    run.save(30, must=False)
    assert held(tmp_path) == {"last.pt": 20, "update-000010.pt": 10}
    assert f"update 30 is not saved, training goes on; the last checkpoint in {tmp_path} is of update 20: " in log.text
    assert "No space left on device" in log.text
    with pytest.raises(OSError, match=r"last.pt: the checkpoint could not be written") as error:
        run.save(40)
    assert f"updates 21 to 40 are lost, the last checkpoint in {tmp_path} is of update 20: when the disk" in str(
        error.value
    )
    assert held(tmp_path) == {"last.pt": 20, "update-000010.pt": 10}
    disk.on = False
    run.save(50)
    assert held(tmp_path) == {"last.pt": 50, "update-000020.pt": 20}
    disk.on = True
    with pytest.raises(
        OSError, match=r"last validation is lost, the last checkpoint in .* is of update 50: when the disk"
    ):
        run.save(50)
    with pytest.raises(OSError, match=r"updates 1 to 7 are lost, no checkpoint exists: when the disk"):
        Run(tmp_path / "new").save(7)


def test_why_a_checkpoint_could_not_be_written(tmp_path: Path) -> None:
    """A limit of the size of files, not a full disk."""
    code = "import pathlib, resource, torch; from nmt import checkpoint\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    code += "checkpoint.save(pathlib.Path('last.pt'), {'model': torch.zeros(100_000)})"
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "last.pt: the checkpoint could not be written ([Errno 27] File too large)" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep_best", [1, 3])
def test_a_best_model_without_room_waits_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_best: int
) -> None:
    disk = Full(monkeypatch)
    run = Run(tmp_path, keep_best_checkpoints=keep_best)
    run.validate(10, 1.0)
    run.save(10)
    disk.on = True
    run.validate(20, 2.0)
    run.save(20, must=False)
    assert held(tmp_path)["best.pt"] == held(tmp_path)["last.pt"] == 10, (
        "last.pt refers to a best model that does not exist"
    )
    disk.on = False
    run.validate(30, 1.5)
    run.save(30)
    updates_by_file = held(tmp_path)
    assert updates_by_file["best.pt"] == 20
    assert updates_by_file["last.pt"] == 30
    assert sorted(updates_by_file.values()).count(30) == (1 if keep_best == 1 else 2)


def test_records_come_before_the_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save(10)

    def fail() -> None:
        assert held(tmp_path) == {"last.pt": 10}
        raise OSError("no room for the records")

    run.set_update(20)
    run.checkpoints.save_last(run.progress, "fp32", fail, must=False)
    assert held(tmp_path) == {"last.pt": 10}


def test_other_text_is_refused() -> None:
    stored = {"texts": {"train": [["a.en", "1"], ["a.de", "2"]], "valid": [["v.en", "3"]]}, "tokenizer": {"x": b"1"}}
    checkpoint.check_same_data(stored, stored)
    moved = {**stored, "texts": {**stored["texts"], "train": [["b/a.en", "1"], ["b/a.de", "2"]]}}
    checkpoint.check_same_data(stored, moved)
    changed = {**stored, "texts": {**stored["texts"], "train": [["a.en", "1"], ["a.de", "9"]]}}
    with pytest.raises(ValueError, match=r"^data.train: a.de has changed since"):
        checkpoint.check_same_data(stored, changed)
    with pytest.raises(ValueError, match=r"^data.valid: v.en"):
        checkpoint.check_same_data(
            {**stored, "texts": {**stored["texts"], "valid": [["v.en", "3"], ["v.gold", "4"]]}}, stored
        )
    with pytest.raises(ValueError, match=r"^data.tokenizer: "):
        checkpoint.check_same_data(stored, {**stored, "tokenizer": {"x": b"2"}})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_lines_survive_a_full_disk(small_disk: Path, log: pytest.LogCaptureFixture) -> None:
    path = small_disk / "metrics.jsonl"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    lines = JsonlLog(path, ["first"])
    written = ["first", *(f"{number} {'-' * 1000}" for number in range(60))]
    for line in written[1:]:
        lines.write(line)
    assert log.text.count("could not be written (No space left on device); it waits in memory") == 1
    saved = path.read_text().splitlines()
    assert 5 < len(saved) < 30
    assert saved == written[: len(saved)]
    assert path.read_bytes().endswith(b"\n"), "a part of a line stayed"
    with pytest.raises(OSError, match=r"metrics.jsonl: could not be written \(No space left"):
        lines.sync()
    ballast.unlink()
    ballast.write_bytes(b"")
    subprocess.run(["mount", "-o", "remount,size=200k", small_disk], check=True)
    lines.sync()
    assert path.read_text().splitlines() == written
    lines.close()


def test_a_cut_line_is_removed_and_whole_ones_stay(tmp_path: Path) -> None:
    rows = [{"update": update, "loss": 1.0} for update in range(1, 8)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text[:-10])
    with logger.RunLogger(tmp_path, ["loss", "nll"], TrainProgress(update=5), 10, torch.device("cpu")):
        pass
    assert logger.read_metrics(tmp_path / "metrics.jsonl") == rows[:5]


def test_damaged_lines_are_left_out_and_told(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    rows = [json.dumps({"update": update, "loss": 1.0}).encode() for update in range(1, 9)]
    rows[1], rows[3], rows[4], rows[5] = b"\xff" + rows[1], rows[3][:-4] + rows[4], b'"text"', b'{"update": "five"}'
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(rows)[:-9])
    with logger.RunLogger(tmp_path, ["loss", "nll"], TrainProgress(update=7), 10, torch.device("cpu")):
        pass
    assert "metrics.jsonl: damaged and left out: line 2, 4, 5, 6" in log.text
    log.clear()
    assert [row["update"] for row in logger.read_metrics(tmp_path / "metrics.jsonl")] == [1, 3, 7]
    assert log.text == ""


def test_a_row_of_a_mean_that_is_made_again_is_not_doubled(tmp_path: Path) -> None:
    outcome = {"loss": 1.0, "bleu": 2.0}
    for _ in range(2):  # the second time as after a kill before the checkpoint was written
        with logger.RunLogger(
            tmp_path, ["loss", "nll"], TrainProgress(update=5, last_validated=5), 10, torch.device("cpu")
        ) as log:
            log.log_averaged_validation(5, outcome, [3, 5], is_best=True)
            log.sync()
    rows = [{"update": 5, "averaged_updates": [3, 5], "averaged_loss": 1.0, "averaged_bleu": 2.0}]
    assert logger.read_metrics(tmp_path / "metrics.jsonl") == rows
    progress = TrainProgress(update=5, last_validated=5, last_averaged=5)
    with logger.RunLogger(tmp_path, ["loss", "nll"], progress, 10, torch.device("cpu")):
        pass
    assert logger.read_metrics(tmp_path / "metrics.jsonl") == rows


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    with directory_lock(tmp_path / "run"):
        assert (tmp_path / "run/.lock").exists()
        with pytest.raises(
            BlockingIOError, match=rf"run: another process trains there \(process {os.getpid()} on .*name="
        ):
            directory_lock(tmp_path / "run").__enter__()
    assert list((tmp_path / "run").iterdir()) == []
    with directory_lock(tmp_path / "run"):
        pass


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom nmt.runtime.files import directory_lock\n"
        "with directory_lock(pathlib.Path(sys.argv[1])): os._exit(9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], env=environment, check=False)
    assert done.returncode == 9
    assert (tmp_path / "run/.lock").exists()
    with directory_lock(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_a_disk_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with directory_lock(tmp_path / "run"):
        assert "run cannot be locked (No locks available): make sure that no second run uses it" in log.text
    assert list((tmp_path / "run").iterdir()) == []


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = files.temp_path(tmp_path / "mine.pt")
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # above the process ids of Linux
    dead, folder = files.temp_path(tmp_path / "dead.pt"), files.temp_path(tmp_path / "folder")
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    elsewhere = files.temp_path(tmp_path / "elsewhere.pt")
    monkeypatch.undo()
    folder.mkdir()
    for path in (mine, dead, elsewhere, folder / "inside", tmp_path / "users.tmp", tmp_path / ".users.tmp"):
        path.write_bytes(b"")
    remove_stale_temp_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, elsewhere.name, "users.tmp", ".users.tmp"}
    remove_stale_temp_files(tmp_path, mine=True)
    assert {path.name for path in tmp_path.iterdir()} == {"users.tmp", ".users.tmp"}
    remove_stale_temp_files(tmp_path / "nowhere")


def test_checkpoint_options_are_options_of_training() -> None:
    from nmt.training.trainer import TrainConfig

    assert {field.name for field in dataclasses.fields(CheckpointConfig)} < {
        f.name for f in dataclasses.fields(TrainConfig)
    }
    with pytest.raises(ValueError, match=r"train.keep_last_checkpoints=0"):
        TrainConfig(keep_last_checkpoints=0).validate()


@pytest.mark.parametrize("policy", ["last", "best"])
def test_a_mean_leaves_out_checkpoints_that_are_gone(
    tmp_path: Path, log: pytest.LogCaptureFixture, policy: str
) -> None:
    run = Run(tmp_path, average_checkpoints=policy, keep_last_checkpoints=4, keep_best_checkpoints=4)
    for update in (10, 20, 30, 40):
        run.validate(update, float(update))
        run.save(update)
    gone = tmp_path / ("update-000020.pt" if policy == "last" else "best-000020.pt")
    gone.unlink()
    averaged = run.checkpoints.average(run.progress)
    assert averaged is not None
    assert averaged[1] == [10, 30, 40]
    assert averaged[0]["weight"].item() == pytest.approx(80 / 3)
    assert (f"{gone}: no such checkpoint (left out of the mean)" in log.text) == (policy == "best")


def test_a_damaged_file_is_set_aside_once(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """Saving goes on after it, without a word about files that are gone."""
    run = Run(tmp_path)
    run.save(10, 20, 30)
    damage(tmp_path / "last.pt")
    run = Run(tmp_path)
    assert run.resume() == 20
    log.clear()
    run.save(30, 40, 50)
    assert not log.records
    assert held(tmp_path) == {"last.pt": 50, "update-000040.pt": 40, "last.corrupt": -1}
