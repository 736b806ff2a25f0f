"""train.batch_tokens=auto: as large as memory allows, and measured once for a run."""

import contextlib
import io
import logging
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from nmt import train
from nmt.cli.compose import Config, run_command
from nmt.data import PAD, make_batches
from nmt.training import auto_batch_size
from nmt.training.auto_batch_size import MEMORY_FRACTION
from nmt.training.config import AUTO, TrainConfig

CPU = torch.device("cpu")
MB = 2**20


@pytest.mark.parametrize(("available", "processes"), [(400, 1), (800, 1), (800, 2)])
def test_memory_of_larger_batches_is_extrapolated(
    available: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a step that takes 2 MB per row, and 40 MB reserved."""
    monkeypatch.setattr(auto_batch_size, "available_memory", lambda: available * MB)
    steps = []

    def step(rows: int) -> None:
        steps.append(rows)
        with mmap.mmap(-1, 2 * MB * rows) as taken:  # from the system and back, whatever else the process keeps
            for page in range(0, len(taken), mmap.PAGESIZE):
                taken[page] = 1

    rows = auto_batch_size._on_cpu(step, 10**6, 40 * MB, CPU, processes)
    assert rows == pytest.approx((MEMORY_FRACTION * available / processes - 40) / 2, rel=0.15)
    assert max(steps) <= rows  # it never tried more than it then allows


def test_no_batch_is_larger_than_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_batch_size, "available_memory", lambda: 400 * MB)
    assert auto_batch_size._on_cpu(lambda rows: None, 30, 0, CPU, 1) == 30
    assert auto_batch_size._on_cpu(lambda rows: None, 30, 1000 * MB, CPU, 1) in (0, 30)


@pytest.mark.parametrize(("limit", "low"), [(0, 0), (1, 1), (37, 35), (1000, 940), (10**6, 4700)])
def test_a_gpu_is_filled_until_a_step_fails(limit: int, low: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fractions = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: fractions.append(share))

    def step(rows: int) -> None:
        if rows > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    rows = auto_batch_size._on_gpu(step, 5000, 8, CPU, 1)
    assert low <= rows <= min(limit, 5000)
    assert fractions == [pytest.approx((10 + MEMORY_FRACTION * 60) / 100), 1.0]


def test_available_memory_is_plausible() -> None:
    """More than 32 MB and less than 64 TB."""
    available = auto_batch_size.available_memory()
    assert 2**25 < available < 2**46


VOCABULARY = 300
TINY = f"""
    data.synthetic.train=60 data.synthetic.valid=2 data.synthetic.test=1 data.synthetic.long=1 data.tokenizer.type=word
    data.tokenizer.vocab_size={VOCABULARY} model.embedding_dim=8 model.hidden_size=8 model.attention.dim=8
    train.precision=fp32 search.max_length_ratio=1 search.max_length_offset=1 search.beam_size=1 num_threads=1
    device=cpu
    train.batch_tokens=auto name=run
""".split()


def call(arguments: list[str]) -> tuple[int, str]:
    """Train in this process; return the exit code and standard error."""
    logger = logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            run_command(train.main, Config, "train", arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, err.getvalue()


def test_a_run_keeps_the_size_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    max_rows_seen = []

    def find_five_rows(step: Callable[[int], None], max_rows: int, *_: Any) -> int:
        step(5)
        max_rows_seen.append(max_rows)
        return 5

    monkeypatch.setattr(auto_batch_size, "_on_cpu", find_five_rows)
    for updates in (2, 4):
        code, err = call([*TINY, f"train.max_updates={updates}"])
        assert code == 0, err
        batch_tokens = yaml.safe_load(Path("runs/run/config.yaml").read_text())["train"]["batch_tokens"]
    assert Path("runs/run/train.log").read_text().count(f"train.batch_tokens=auto: {batch_tokens} tokens") == 1
    assert max_rows_seen == [60]  # measured once, and not for the run that was continued
    rows = np.full(20, batch_tokens // 5 - 1)
    batches = make_batches(rows, rows, batch_tokens, seed=1, epoch=0)  # of the longest pairs
    assert [len(batch) for batch in batches] == [5] * 4
    monkeypatch.setattr(auto_batch_size, "_on_cpu", lambda *_: 0)
    code, err = call([*TINY, "name=other"])
    assert code == 1
    assert "error: train.batch_tokens=auto: not even one pair of" in err


def test_dummy_batches_look_like_real_ones() -> None:
    batch = auto_batch_size._dummy_batch(3, 5, (20, 30), torch.Generator().manual_seed(1), linked=True)
    assert batch.num_tokens == int((batch.labels != PAD).sum()) == 15
    assert torch.equal(batch.inputs[:, 1:], batch.labels[:, :-1])
    assert batch.source.max() < 20
    assert batch.labels.max() < 30
    assert batch.links is not None
    assert torch.equal(batch.links.weights.sum(), torch.tensor(15.0))


@pytest.mark.parametrize("value", ["600", " 600 ", 600])
def test_numbers_may_be_text(value: object) -> None:
    config = TrainConfig(batch_tokens=value)
    config.validate()
    assert config.batch_tokens == 600
    TrainConfig(batch_tokens=AUTO).validate()


@pytest.mark.parametrize("value", ["0", "many", "-3", 1.5, True, "6e2"])
def test_invalid_numbers_of_tokens_are_rejected(value: object) -> None:
    with pytest.raises(ValueError, match=f"train.batch_tokens={value}: must be a whole number of at least 1, or auto"):
        TrainConfig(batch_tokens=value).validate()
