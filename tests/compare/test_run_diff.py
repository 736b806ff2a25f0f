"""python -m nmt.compare --diff: runs that differ, runs that do not, and wrong inputs."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import nmt
from nmt import checkpoint, models
from nmt.attention import SCORES
from nmt.cli.configs import Config
from nmt.compare import RunSnapshot, diff_runs
from nmt.compare.__main__ import main
from nmt.compare.run_diff import _same_distribution
from nmt.config import get_node, to_dict
from nmt.data import Tokenizer
from nmt.data.tokenizer import TokenizerConfig
from nmt.models.flops import parameter_counts

TEXTS = [(f"some words {i}", f"einige Wörter {i}") for i in range(20)]


def write(folder: Path, name: str, architecture: str = "rnn", *, num_texts: int = 20, **changes: Any) -> str:
    """Write a run directory with an untrained model; option names have "__" for dots."""
    config = Config(name=name, seed=changes.pop("seed", 1))
    config.data.tokenizer = TokenizerConfig(type="word", vocab_size=50)
    if architecture == "rnn":
        config.model = models.MODELS["rnn"].config(embedding_dim=12, hidden_size=16)
        config.model.attention.dim = 8
    else:
        config.model = models.MODELS[architecture].config()
    for option, value in changes.items():
        parent, _, leaf = option.replace("__", ".").rpartition(".")
        setattr(get_node(config, parent), leaf, value)
    tokenizer = Tokenizer.train(config.data.tokenizer, TEXTS[:num_texts])
    torch.manual_seed(config.seed)
    model = models.build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    content = {"config": to_dict(config), "tokenizer": tokenizer.state_dict(), "model": model.state_dict()}
    (folder / name / "checkpoints").mkdir(parents=True)
    checkpoint.save(folder / name / "checkpoints/best.pt", content)
    return str(folder / name)


def diff_of(*paths: str) -> str:
    return diff_runs([RunSnapshot.read(path) for path in paths])


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """Return the table below a heading: first cell -> further cells."""
    (section,) = [section for section in text.split("\n\n") if section.startswith(heading)]
    cells = [line.split() for line in section.splitlines()[1:]]
    return {row[0]: row[1:] for row in cells}


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err.removeprefix("error: ").rstrip("\n")


def test_a_model_is_rebuilt_as_training_began_it(tmp_path: Path) -> None:
    path = write(tmp_path, "a", seed=5)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    run = RunSnapshot.read(path)
    assert torch.equal(torch.rand(3), expected)
    stored = checkpoint.load(Path(path) / "checkpoints/best.pt")["model"]
    assert all(torch.equal(stored[name], tensor) for name, tensor in run.model.state_dict().items())


def test_two_runs_with_different_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path, "one", model__attention__score="scaled")
    two = write(tmp_path, "two", model__attention__score="additive")
    main(["--diff", one, two + "/"])
    text, err = capsys.readouterr()
    assert err == ""
    assert rows(text, "options that differ")["model.attention.score"] == ["scaled", "additive"]
    assert len(rows(text, "options that differ")) == 2  # with the head: the run's name is no difference
    table = rows(text, "parameters")
    counts = parameter_counts(RunSnapshot.read(one).model)
    assert table["encoder"] == [f"{counts['encoder']:,}"] * 2
    assert table["attention"] == ["256", "264", "+3.12", "%"]  # two projections of 16 × 8; v
    total = sum(counts.values())
    assert table["total"] == [f"{total:,}", f"{total + 8:,}", f"+{100 * 8 / total:.2f}", "%"]
    assert f"decoder.attention.scores.*.v  only in {two}: (1, 8), mean " in text
    assert "identical vocabulary: word, " in text
    common = dict(RunSnapshot.read(one).model.named_parameters())
    others = dict(RunSnapshot.read(two).model.named_parameters())
    assert all(torch.equal(common[name], others[name]) for name in common)
    assert f"(seed 1): all {len(common)} common parameters start bit-identical" in text
    flops = text[text.index("FLOPs per target token") :].splitlines()[2].split()
    # per pair of positions and coordinate 4 instead of 2
    assert int(flops[1].replace(",", "")) - int(flops[0].replace(",", "")) == 2 * 32 * 8


def test_identical_runs_are_described_in_a_few_lines(tmp_path: Path) -> None:
    text = diff_of(write(tmp_path, "one"), write(tmp_path, "two"))
    assert text.startswith("identical options\n")
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == 6
    assert "common parameters start bit-identical" in text
    assert ": all " in text
    assert "differ" not in text
    assert all(line.startswith(("identical ", "initialization: ")) for line in lines)


def test_another_seed_samples_other_numbers_of_the_same_distribution(tmp_path: Path) -> None:
    text = diff_of(write(tmp_path, "one", "transformer"), write(tmp_path, "two", "transformer", seed=2))
    assert rows(text, "options that differ")["seed"] == ["1", "2"]
    assert "(seed 1 → 2): " in text
    for state in ("different distribution", "different shape", "in one run only"):
        assert state not in text


def test_other_shapes_vocabularies_and_architectures(tmp_path: Path) -> None:
    one = write(tmp_path, "one")
    two = write(tmp_path, "two", num_texts=5, model__hidden_size=20)
    three = write(tmp_path, "three", "transformer")
    text = diff_of(one, two, three)
    assert rows(text, "options that differ")["model.hidden_size"] == ["16", "20", "(none)"]
    assert set(rows(text, "vocabularies differ")) >= {"kind", "entries", "content"}
    assert "(80, 12), mean" in text  # four gates of 20 from embeddings of 12
    assert rows(text, "parameters")["encoder_self"][:2] == ["0", "0"]
    assert rows(text, "parameters")["encoder_self"][-1] == "new"
    assert f"only in {three}: " in text
    assert " (2 of them)" in text  # layers of the Transformer


@pytest.mark.parametrize("score", SCORES)
def test_every_score_can_be_compared(tmp_path: Path, score: str) -> None:
    text = diff_of(write(tmp_path, "one"), write(tmp_path, "two", model__attention__score=score))
    assert ("identical options" in text) is (score == "additive")


@pytest.mark.parametrize(
    ("first", "other", "alike"),
    [
        (torch.randn(100, 100, generator=torch.Generator().manual_seed(1)), lambda x: x.flip(0), True),
        (torch.randn(100, 100, generator=torch.Generator().manual_seed(1)), lambda x: -x, True),
        (torch.randn(100, 100, generator=torch.Generator().manual_seed(1)), lambda x: 1.2 * x, False),
        (torch.randn(100, 100, generator=torch.Generator().manual_seed(1)), lambda x: x + 0.2, False),
        (torch.zeros(10), lambda x: x + 1, False),
    ],
)
def test_distributions_are_distinguished(first: torch.Tensor, other: Any, alike: bool) -> None:
    assert _same_distribution(first, other(first)) is alike


def test_wrong_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path, "one")
    nothing = str(tmp_path / "nothing")
    text_file = tmp_path / "text.pt"
    text_file.write_text("no checkpoint")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Sequence[str], str]] = [
        ([], "name the runs: "),
        (["--diff"], "two or more runs are needed"),
        (["--diff", run], f"--diff {run}: two or more runs are needed"),
        (["--diff", run, nothing], f"{nothing}: no such file or run directory"),
        (["--diff", run, str(tmp_path / "empty")], "the directory has no checkpoints/best.pt"),
        (["--diff", run, str(text_file)], f"{text_file}: truncated, or not a checkpoint"),
        (["--dif", run, run, "--nonsense"], "unrecognized arguments: --nonsense"),
    ]
    for arguments, message in cases:
        assert message in failure(capsys, *arguments)
    content = checkpoint.load(Path(run) / "checkpoints/best.pt")
    content["config"]["model"]["wings"] = 2
    checkpoint.save(tmp_path / "newer.pt", content)
    message = failure(capsys, "--diff", run, str(tmp_path / "newer.pt"))
    assert message.startswith(f"{tmp_path / 'newer.pt'}: model.wings: the stored configuration has an option")


def test_the_command_has_a_help(tmp_path: Path) -> None:
    root = Path(nmt.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "nmt.compare", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--diff" in done.stdout
    assert done.stderr == ""


def test_other_seeds_are_a_different_sample(tmp_path: Path) -> None:
    text = diff_of(write(tmp_path, "one"), write(tmp_path, "two", seed=2))
    assert "(seed 1 → 2): " in text
    assert "different sample" in text
    assert "different distribution" not in text
    assert "identical numbers of parameters" in text


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    runs = [write(tmp_path, "one"), write(tmp_path, "two", seed=2)]
    line = f"set -o pipefail; {sys.executable} -m nmt.compare --diff {' '.join(runs)} | true"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
