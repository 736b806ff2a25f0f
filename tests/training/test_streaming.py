"""A run on a stream: interrupted anywhere it ends as if it had not been, and its mistakes are sentences."""

import contextlib
import io
import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt import checkpoint, train
from nmt.cli.compose import Config, run_command
from nmt.data import streaming, table_files
from nmt.training.trainer import Trainer

SIZE = 300
WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
RUN = f"""
    data=hub data.hf_dataset=set data.streaming=true data.shuffle_buffer=30 data.max_length=40
    data.tokenizer.vocab_size={SIZE} data.tokenizer.subword_regularization=0.1 model.embedding_dim=8 model.hidden_size=8
    model.attention.dim=8 train.batch_tokens=100 train.save_every=2 train.valid_every=100 train.log_every=3
    train.early_stopping_metric=loss train.precision=fp32 train.gradient_accumulation=2 search.beam_size=1
    search.max_length_ratio=1 search.max_length_offset=2 num_threads=1 device=cpu
""".split()


def call(name: str, *more: str, without: str = "-") -> tuple[int, str]:
    """Train in this process; return the exit code and standard error."""
    options = [option for option in RUN if not option.startswith(without)]
    logger = logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            run_command(train.main, Config, "train", [*options, f"name={name}", *more])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, err.getvalue()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of three files, in the current directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("set")
    folder.mkdir()
    choose = random.Random(1)
    for name, size in (("train-0", 30), ("train-1", 25), ("train-2", 35), ("validation", 4), ("test", 4)):
        rows = [choose.choices(WORDS, k=choose.randint(1, 6)) for _ in range(size)]
        texts = [{"en": " ".join(row), "de": " ".join(row).upper() if i != 7 else ""} for i, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return folder


def weights(name: str) -> dict[str, torch.Tensor]:
    content: dict[str, Any] = checkpoint.load(Path("runs") / name / "checkpoints/last.pt")
    return {**content["model"], **{key: torch.tensor(content["position"][key]) for key in ("update", "epoch", "batch")}}


def equal(name: str, other: str) -> bool:
    one, two = weights(name), weights(other)
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("keeps_index", [True, False])
def test_a_killed_run_ends_as_an_uninterrupted_one(keeps_index: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    code, err = call("whole", "train.max_updates=17")
    assert code == 0, err
    assert "training pairs of a stream" in err
    assert "set: 87 of 90 pairs can be used; empty target: 3" in err
    assert weights("whole")["epoch"] == 3
    step = Trainer.step
    for update in (3, 10, 14):

        def killing(self: Trainer, batches: Any, update: int = update) -> Any:
            if self.progress.update == update:
                raise Killed
            return step(self, batches)

        monkeypatch.setattr(Trainer, "step", killing)
        with pytest.raises(Killed):
            call("killed", "train.max_updates=17")
        if not keeps_index:
            Path("runs/killed/stream.jsonl").unlink()
    monkeypatch.setattr(Trainer, "step", step)
    code, err = call("killed", "train.max_updates=17")
    assert code == 0, err
    assert "continues at update 14" in err
    assert equal("killed", "whole")
    if keeps_index:
        report = Path("runs/killed/report/report.html").read_text()
        assert '<th scope="row">train</th><td>90</td><td>87</td>' in report
        assert "<code>set (train)</code>" in report


def test_a_stream_that_breaks_off_leaves_a_run_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("whole", "train.max_updates=7")[0] == 0
    read, num_opened = table_files._json_batches, 0

    def breaking(*arguments: Any) -> Any:
        nonlocal num_opened
        num_opened += arguments[0].keywords["number"] is not None
        if num_opened > 5:  # once for the columns, for the first epoch's three files, and once more
            raise ValueError("set (train): cannot be read: Server Disconnected") from ConnectionError()
        return read(*arguments)

    monkeypatch.setattr(streaming, "RETRY_SECONDS", (0, 0))
    monkeypatch.setattr(table_files, "_json_batches", breaking)
    code, err = call("broken", "train.max_updates=7", "train.save_every=100")
    assert code == 1
    assert err.splitlines()[-1] == (
        "error: set (train): cannot be read: Server Disconnected, again and again; what is trained is saved, and the "
        "same command goes on from there"
    )
    assert "Traceback" not in err
    assert 4 < weights("broken")["update"] < 7
    monkeypatch.setattr(table_files, "_json_batches", read)
    assert call("broken", "train.max_updates=7", "train.save_every=100")[0] == 0
    assert equal("broken", "whole")


def test_epochs_end_where_the_stream_does() -> None:
    code, err = call("run", "train.max_updates=0", "train.max_epochs=2", "optim.schedule=constant")
    assert code == 0, err
    assert "train.max_epochs=2 reached" in err
    assert "of 0 updates" not in err
    assert (weights("run")["epoch"], weights("run")["batch"]) == (2, 0)
    lines = Path("runs/run/stream.jsonl").read_text().splitlines()
    assert [json.loads(line)[1] for line in lines] == [0] * 3 + [1] * 3


def test_the_stream_is_not_searched_for_test_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """That would read all of it before the first update."""

    def refuse(*_: Any) -> list[str]:
        raise AssertionError("the stream was read")

    monkeypatch.setattr(train, "overlaps", refuse)
    assert call("unread", "train.max_updates=2")[0] == 0


def test_an_automatic_batch_size() -> None:
    """A batch is of one buffer, and of sentences of up to `data.max_length`."""
    code, err = call("run", "train.max_updates=2", "train.batch_tokens=auto")
    assert code == 0, err
    assert "train.batch_tokens=auto: 1230 tokens" in err  # 30 pairs of 40 tokens and the end token


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.guided_alignment_weight=0.1"], "train.guided_alignment_weight=0.1: a stream has no word alignments"),
        (
            ["optim.schedule=cosine", "train.max_epochs=3", "train.max_updates=0"],
            "optim.schedule=cosine: set train.max_updates, until which it lasts, or choose",
        ),
        (
            ["model=transformer", "model.positions=learned", "model.max_positions=40"],
            "data.max_length=40: with data.streaming=true and model.positions=learned it must be below model.max_pos",
        ),
        (["data.target_lang=fr"], "no column translation (data.column) and no column fr; it has de, en"),
        (["data.train=dev"], "set (dev)"),
    ],
)
def test_mistakes_are_sentences(options: list[str], message: str) -> None:
    code, err = call("run", *options, without="model" if "model=transformer" in options else "-")
    assert code == 1
    assert message in err.splitlines()[-1]
    assert not Path("runs/run/checkpoints").exists()


def test_a_file_that_was_changed_ends_the_run(folder: Path) -> None:
    assert call("run", "train.max_updates=1")[0] == 0
    path = folder / "train-1.jsonl"
    path.write_text(path.read_text().replace("seven", "SEVEN"))
    code, err = call("run", "train.max_updates=2")
    assert code == 1
    assert "data.train: set (train) has changed since the run was started" in err.splitlines()[-1]


@pytest.mark.slow
def test_two_processes_train_as_one() -> None:
    assert call("one", "train.max_updates=8", "model.dropout=0")[0] == 0
    code, err = call("two", "train.max_updates=8", "model.dropout=0", "train.devices=2")
    assert code == 0, err
    one, two = weights("one"), weights("two")
    assert all(torch.allclose(one[key].float(), two[key].float(), atol=1e-4) for key in one)
