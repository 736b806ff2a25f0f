"""Notes in the log before a run trains and in the report after it, and experiment=debug."""

import contextlib
import dataclasses
import html
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nmt import evaluate, train
from nmt.cli.compose import run_command
from nmt.cli.configs import Config, EvaluateConfig
from nmt.data import DataConfig, TokenizerConfig, extra_test_sets
from nmt.data.vocabulary import UNK, unknown_share
from nmt.models import build_model
from nmt.models.rnn import RNNConfig
from nmt.models.transformer import TransformerConfig
from nmt.search import SearchConfig
from nmt.training.config import TrainConfig
from nmt.training.distributed import DistributedContext
from nmt.training.progress import TrainProgress


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "word",
            [
                "valid: 25 % of the source tokens and 0 % of the target tokens are <unk>",
                "test: 33.3 % of the source tokens and 100 % of the target tokens are <unk>",
            ],
        ),
        ("bpe", []),
    ],
)
def test_unknown_tokens_of_each_text_are_told(tmp_path: Path, kind: str, expected: list[str]) -> None:
    texts = {
        "train": [("the dog sees", "der hund sieht"), ("the cat hears", "die katze hört")],
        "valid": [("the zebra", "der hund"), ("the cat", "die katze")],
        "test": [("the dog barks", "bellt")],
    }
    for split, pairs in texts.items():
        for language, side in (("en", 0), ("de", 1)):
            (tmp_path / f"{split}.{language}").write_text("".join(pair[side] + "\n" for pair in pairs))
    tokenizer = TokenizerConfig(type=kind, vocab_size=280 if kind == "bpe" else 100)
    paths = {split: str(tmp_path / split) for split in texts}
    data = DataConfig(format="text", **paths, cache_dir=str(tmp_path / "cache"), tokenizer=tokenizer)
    config = Config(name="run", runs=str(tmp_path / "runs"), model=RNNConfig(embedding_dim=8, hidden_size=8), data=data)
    assert train._prepare(config).notes == expected
    replaced = dataclasses.replace(config, search=SearchConfig(replace_unknown="copy"))
    unused = ["search.replace_unknown=copy"] if kind == "bpe" else []
    assert [option for option in replaced.unused_options() if "unknown" in option] == unused


def test_share_of_unknown_tokens() -> None:
    assert unknown_share(np.array([4, UNK, 5, UNK])) == 0.5
    assert unknown_share(np.empty(0, np.uint16)) == 0.0
    assert unknown_share(np.repeat(np.array([UNK, 7, 7], np.uint16), 1 << 23)) == pytest.approx(1 / 3)


def run(folder: Path, *options: str) -> tuple[str, str]:
    """Run a command line in a folder; return the report and the log."""
    with contextlib.chdir(folder):
        run_command(train.main, Config, "train", ["experiment=debug", "name=run", "num_threads=1", *options])
    page = (folder / "runs/run/report/report.html").read_text("utf-8")
    return html.unescape(page), (folder / "runs/run/train.log").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rnn", "transformer"])
@pytest.mark.parametrize("num_lines", [None, 1, 20])
def test_debug_runs_the_whole_path_with_any_model_and_data(tmp_path: Path, model: str, num_lines: int | None) -> None:
    """Also on a text of one pair, whose epochs are updates."""
    options = [f"model={model}"]
    if num_lines is not None:
        options += ["data=text", *(f"data.{split}=text" for split in ("train", "valid", "test"))]
        options += ["train.max_epochs=3", "train.max_updates=0"] if num_lines == 1 else []
        for language in ("en", "de"):
            words = ["a", "b", "c", "d", "e", "f", "g"]
            lines = [" ".join(f"{language}{word}" for word in words[: 1 + n % 7]) for n in range(num_lines)]
            (tmp_path / f"text.{language}").write_text("".join(f"{line}\n" for line in lines))
    page, log = run(tmp_path, *options)
    folder = tmp_path / "runs/run"
    assert {"best.pt", "last.pt"} <= {path.name for path in (folder / "checkpoints").iterdir()}
    num_test = len((folder / "report/hypotheses.txt").read_text().splitlines())
    assert num_test == (num_lines or 4)
    updates = [json.loads(line)["update"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert updates[-1] == (3 if num_lines == 1 else 20)
    assert f"test: translating {num_test} sentences" in log
    assert "left" in log or num_lines == 1
    assert ("is too long" in page) == (num_lines == 1)  # its 3 updates are within the warm-up


@pytest.mark.slow
def test_a_report_says_what_its_run_has_missed(tmp_path: Path) -> None:
    """Also when the run was over and is evaluated again; not when it was continued to its end."""
    tiny = ["model.embedding_dim=8", "model.hidden_size=8", "model.attention.dim=8", "metrics.names=[bleu]"]
    for _ in range(2):
        page, log = run(tmp_path, *tiny, "train.max_minutes=1e-4")
        (update,) = set(re.findall(r"train\.max_minutes=0\.0001 reached after (\d+) updates", log))
        cause = f"the run ended at update {update} (train.max_minutes=0.0001 reached)"
        assert f"The warm-up of optim.warmup_updates=4 is too long: {cause}; lower it, or raise the limit." in page
    with contextlib.chdir(tmp_path):
        run_command(evaluate.main, EvaluateConfig, "evaluate", ["runs/run"])
    page = (tmp_path / "runs/run/report/report.html").read_text("utf-8")
    assert f"The warm-up of optim.warmup_updates=4 is too long: {cause}" in html.unescape(page)
    page, _ = run(tmp_path, *tiny, "optim.warmup_updates=4")
    assert "is too long" not in page


@pytest.mark.parametrize("given", [{"train": "a"}, {"train": "a", "valid": "b"}, {"test": "a"}])
def test_own_texts_are_not_mixed_with_the_built_in_pair(given: dict[str, str]) -> None:
    (split, text), *_ = given.items()
    with pytest.raises(ValueError, match=rf"data\.{split}={text}: without data\..*data=text"):
        train._prepare(Config(data=DataConfig(**given)))  # type: ignore[arg-type]
    assert extra_test_sets(DataConfig(train="a", valid="b", test="c")) == {}


@pytest.mark.parametrize("section", ["train", "search"])
def test_tf32_on_a_cpu_is_refused_before_anything_is_prepared(tmp_path: Path, section: str) -> None:
    options = {"train": {"train": TrainConfig(precision="tf32")}, "search": {"search": SearchConfig(precision="tf32")}}
    config = Config(name="run", runs=str(tmp_path / "runs"), device="cpu", **options[section])
    with pytest.raises(ValueError, match=rf"^{section}\.precision=tf32: a CPU has no TF32"):
        train.main(config, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("deterministic", [True, False])
def test_determinism_lasts_for_one_run(deterministic: bool) -> None:
    config = Config(name="run", num_threads=1, train=TrainConfig(deterministic=deterministic))
    with train._joined_process(config, "cpu"):
        assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("model", "precision", "device", "expected"),
    [
        (RNNConfig(), "bf16", "cuda", True),
        (RNNConfig(), "fp16", "cuda", False),
        (RNNConfig(), "bf16", "cpu", False),
        (TransformerConfig(), "bf16", "cuda", False),
    ],
)
def test_the_log_says_what_a_precision_leaves_out_and_what_determinism_costs(
    model: RNNConfig | TransformerConfig,
    precision: str,
    device: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("nmt"), "propagate", True)
    trainer: Any = SimpleNamespace(
        model=build_model(model, 20, 20, joint=False),
        precision=precision,
        device=torch.device(device),
        directory=Path("runs/run"),
        progress=TrainProgress(update=3),
        distributed=DistributedContext(),
    )
    setup: Any = SimpleNamespace(
        config=Config(model=model, train=TrainConfig(deterministic=expected)), corpora={}, notes=["a note"], loaded=()
    )
    with caplog.at_level("INFO"):
        train._log_header(trainer, setup)
    lines = list(dict.fromkeys(caplog.messages))[1:]
    assert "a note" in lines
    assert setup.notes == ["a note"]
    assert (
        "cuDNN has no recurrent layers in bf16: they run in fp32, with TF32 where the GPU has it" in lines
    ) == expected
    assert any("train.deterministic=true: slower, and more memory" in line for line in lines) == expected
