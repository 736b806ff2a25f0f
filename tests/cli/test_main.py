"""The command nmt: its list, its commands, and the completion of shells."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nmt.cli.commands import SUMMARIES
from nmt.cli.config_groups import group_choices

ROOT = Path(__file__).parents[2]


def nmt(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "nmt", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_list_is_light(tmp_path: Path) -> None:
    code = "import sys; from nmt.__main__ import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"\n  {command} " in done.stdout for command in SUMMARIES)
    assert nmt(cwd=tmp_path).stdout == nmt("--help", cwd=tmp_path).stdout == done.stdout
    assert nmt("--version", cwd=tmp_path).stdout.startswith("nmt ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tarin"], "tarin: no command of nmt; did you mean train?"),
        (["zzz"], "zzz: no command of nmt; the commands are train, evaluate"),
        (["completion", "fish"], "completion: write nmt completion bash"),
        (["train", "lr=0.1"], "lr=0.1: write optim.learning_rate=0.1"),
    ],
)
def test_mistakes_cost_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = nmt(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_command_is_the_same_as_its_module(command: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    module = subprocess.run(
        [sys.executable, "-m", f"nmt.{command}", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    done = nmt(command, "--help", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (module.returncode, module.stdout, module.stderr)
    assert f"python -m nmt.{command}" in done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    (folder / "runs/my_run").mkdir(parents=True)
    (folder / "configs/experiment").mkdir(parents=True)
    (folder / "configs/experiment/mine.yaml").write_text("seed: 2\n")
    (folder / "configs/experiment/paper").mkdir()
    (folder / "configs/experiment/paper/ablation.yaml").write_text("seed: 3\n")
    (folder / "configs/own.yaml").write_text("seed: 4\n")
    (folder / "nmt.bash").write_text(nmt("completion", "bash", cwd=folder).stdout)
    assert nmt("completion", "zsh", cwd=folder).stdout == (folder / "nmt.bash").read_text()
    return folder


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("nmt tr", ["train ", "translate ", "trim "]),
        ("nmt completion ", ["bash ", "zsh "]),
        ("nmt train model.", None),
        ("nmt train model.attention.no", ["model.attention.normalizer="]),
        ("nmt train model.enc", ["model.encoder_layers=", "model.encoder_self_attention."]),
        ("nmt train mod", ["model.", "model="]),
        ("nmt train model=", [f"{name} " for name in group_choices("model")]),
        ("nmt train seed=2 model.attention.score=s", ["scaled "]),
        ("nmt train model.attention.coverage=", ["false ", "true "]),
        ("nmt train experiment=m", [f"{n} " for n in sorted(["mine", *group_choices("experiment")]) if n[0] == "m"]),
        ("nmt train -m sweep=at", ["attention "]),
        ("nmt evaluate checkpoint=", ["runs/my_run/"]),
        ("nmt translate search.b", ["search.batch_size=", "search.batch_tokens=", "search.beam_size="]),
        ("nmt translate model", []),
        ("nmt train --mul", ["--multirun "]),
        ("nmt o", []),
        ("nmt train -c ", ["job "]),
        ("nmt train --cfg j", ["job "]),
        ("nmt train experiment=pap", ["paper/ablation "]),
        ("nmt train experiment=paper/", ["paper/ablation "]),
        ("nmt train config=ow", ["own "]),
        ("nmt train config=ru", ["runs/"]),
        ("nmt train -m model.attention.score=dot,ad", ["dot,additive "]),
        ("nmt train metrics.names=[bleu,t", ["[bleu,ter "]),
        ("nmt train metrics.names=[t", ["[ter "]),
        ("nmt tune study optim.learning_rate", ["optim.learning_rate="]),
        ("nmt tune study la", []),
        ("nmt tune study --me", ["--metric "]),
        ("nmt tune study --metric ch", ["chrf "]),
    ],
)
def test_bash_completes(line: str, offers: list[str] | None, folder: Path) -> None:
    words = line.replace("=", " = ").split() + ([""] if line[-1] in " =" else [])  # bash splits words at =
    words = words[:-1] if line.endswith("=") else words
    script = (
        f"source ./nmt.bash; COMP_LINE='{line}'; COMP_POINT={len(line)}; COMP_CWORD={len(words) - 1}; "
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}); _nmt; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    found = sorted(done.stdout.removesuffix("\n").split("\n")) if done.stdout != "\n" else []
    assert done.stderr == ""
    if offers is None:
        assert {"model.attention.", "model.decoder=", "model.d_model="} <= set(found)
        assert not any("attention.score" in offer for offer in found)
    else:
        assert found == sorted(offers)
