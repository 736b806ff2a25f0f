"""A run that begins with another run's model, from the command line."""

import contextlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt import checkpoint, train
from nmt.cli.compose import run_command
from nmt.cli.configs import Config
from nmt.compare.run_diff import RunSnapshot, diff_runs
from nmt.training import logger

WORDS = ["dog", "cat", "bird", "mouse", "horse", "cow", "sheep", "goat"]
PAIRS = [(f"the {a} sees the {b}", f"der {b} sieht der {a}") for a in WORDS for b in WORDS]
SMALL = [
    *("num_threads=1", "data=text", "data.train=train", "data.valid=valid", "data.test=test", "train.batch_tokens=120"),
    *("search.max_length_ratio=0", "search.max_length_offset=3", "optim.schedule=constant", "optim.warmup_updates=0"),
    *("train.precision=fp32", "alignment.head_importance_pairs=0"),
]
PARENT = ["model.hidden_size=8", "model.embedding_dim=8", "model.attention.dim=8", "data.tokenizer.type=word"]


def run(folder: Path, name: str, updates: int, *options: str) -> dict[str, Any]:
    """Train and return the last checkpoint."""
    limits = [f"train.max_updates={updates}", f"train.valid_every={updates}", "train.save_every=2"]
    with contextlib.chdir(folder):
        run_command(train.main, Config, "train", [f"name={name}", *SMALL, *limits, *options])
    return checkpoint.load(folder / "runs" / name / "checkpoints/last.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for split, pairs in {"train": PAIRS, "valid": PAIRS[::9], "test": PAIRS[::13]}.items():
        for side, language in enumerate(("en", "de")):
            (folder / f"{split}.{language}").write_text("".join(pair[side] + "\n" for pair in pairs))
    run(folder, "parent", 4, *PARENT)
    return folder


def test_a_continued_fine_tuning_equals_an_uninterrupted_one_without_its_parent(folder: Path) -> None:
    shutil.copytree(folder / "runs/parent", folder / "runs/copy")
    child = ["config=runs/parent", "init.checkpoint=runs/copy", "optim.lr_scales={encoder: 0.1, embeddings: 0}"]
    whole = run(folder, "whole", 6, *child)
    run(folder, "parts", 3, *child)
    shutil.rmtree(folder / "runs/copy")
    parts = run(folder, "parts", 6, *child)
    parent = checkpoint.load(folder / "runs/parent/checkpoints/best.pt")
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name
        assert torch.equal(tensor, parent["model"][name]) == ("embedding" in name or name == "output.weight"), name
    assert whole["tokenizer"] == parts["tokenizer"] == parent["tokenizer"]
    digest = checkpoint.state_digest(parent["model"])
    assert whole["parent"]["model"] == parts["parent"]["model"] == digest
    text = (folder / "runs/whole/train.log").read_text()
    assert "source_embedding: 128 parameters loaded, 128 parameters frozen" in text
    assert "the vocabulary is that of init.checkpoint=runs/copy" in text
    assert digest[:12] in (folder / "runs/whole/report/report.html").read_text("utf-8")
    with contextlib.chdir(folder):
        difference = diff_runs([RunSnapshot.read("runs/parent"), RunSnapshot.read("runs/whole")])
    assert f"runs/copy/checkpoints/best.pt ({digest[:12]})" in difference


def test_the_first_validation_of_an_unchanged_child_is_its_parents(folder: Path) -> None:
    """A rate too small to change a weight in fp32 stands for no update at all."""
    rate = ["optim.learning_rate=1e-30", "optim.epsilon=1"]
    run(folder, "same", 1, "config=runs/parent", "init.checkpoint=runs/parent", *rate)
    rows = [logger.read_metrics(folder / "runs" / name / "metrics.jsonl")[-1] for name in ("parent", "same")]
    scores = [{key: row[key] for key in row if key.startswith("valid_")} for row in rows]
    assert scores[0] == scores[1]
    assert scores[0]


def test_a_new_vocabulary_is_mapped(folder: Path) -> None:
    options = [
        "config=runs/parent",
        "init.checkpoint=runs/parent",
        "init.vocabulary=map",
        "data.tokenizer.vocab_size=10",
    ]
    child = run(folder, "mapped", 1, *options, "optim.learning_rate=1e-30", "optim.epsilon=1")
    parent = checkpoint.load(folder / "runs/parent/checkpoints/best.pt")
    old, new = (content["tokenizer"]["source"]["items"] for content in (parent, child))
    assert len(new) == 6 < len(old)
    for index, word in enumerate(new, 4):
        row = parent["model"]["source_embedding.weight"][4 + old.index(word)]
        assert torch.equal(child["model"]["source_embedding.weight"][index], row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model=transformer", "init.checkpoint=runs/parent"], r"is missing there and \d+ more: take over"),
        (["config=runs/parent", "init.checkpoint=runs/parent", "init.modules=[decodr]"], "did you mean decoder"),
        (["init.checkpoint=runs/nothing"], "init.checkpoint=runs/nothing: no such file or run directory"),
        (["optim.lr_scales={encoder: -0.5}"], r"optim.lr_scales.encoder=-0.5: must be a number of at least 0"),
        (["optim.lr_scales={embeddings: 0, encoder: 0, decoder: 0, output: 0}"], "every parameter is frozen"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(folder, "wrong", 1, *options)
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])
    assert not (folder / "runs/wrong/checkpoints").exists()
