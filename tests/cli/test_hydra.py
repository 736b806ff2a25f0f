"""Hydra's habits: each line of docs/hydra.md, files of the user's own, and replaying runs."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import nmt
from nmt.cli.compose import run_command, save_yaml
from nmt.cli.config_groups import CONFIG_DIR, group_choices
from nmt.cli.configs import COMMANDS, Config
from nmt.cli.hydra_groups import log_user_file
from nmt.cli.run_directory import command_line
from nmt.config import to_dict
from nmt.models import MODELS

PAGE = (Path(nmt.__file__).parent.parent / "docs/hydra.md").read_text(encoding="utf-8")
ROWS = [tuple(row.strip() for row in line.strip("|").split(" | ")) for line in PAGE.splitlines() if line[:3] == "| `"]
HABITS = [row for row in ROWS if not row[0].startswith(("`interval(", "`tag(", "`range(", "`a,b,c`", "`python"))]
FILES = {
    "configs/experiment/mine": "seed: 7\n",
    "configs/experiment/papers/ablation": "defaults: [/experiment/mine, override /model: transformer]\nseed: 8\n",
    "configs/experiment/papers/mine": "defaults: [mine]\nmodel.hidden_size: 64\n",
    "configs/experiment/papers/wider": "defaults: [papers/ablation]\nmodel.d_model: 64\n",
    "configs/own": PAGE.partition("```yaml\n")[2].partition("```")[0],
    "other/experiment/elsewhere": "seed: 9\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory that docs/hydra.md describes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # of which --config-dir sets a variable
    log_user_file.cache_clear()
    for name, content in FILES.items():
        write(name, content)
    save_yaml(Config(name="a", seed=5, model=MODELS["transformer"].config()), Path("runs/a/config.yaml"))
    return tmp_path


def write(name: str, content: str) -> None:
    path = Path(f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def read(*arguments: str, name: str = "train") -> Any:
    """Return the configuration that a task is called with."""
    return call(*arguments, name=name)[0][0]


def call(*arguments: str, name: str = "train") -> list[tuple[Any, list[str]]]:
    """Return the configuration and the arguments of each call of the task."""
    calls: list[tuple[Any, list[str]]] = []
    run_command(lambda config, overrides: calls.append((config, overrides)), COMMANDS[name], name, list(arguments))
    return calls


def failure(capsys: pytest.CaptureFixture[str], *arguments: str, name: str = "train") -> str:
    """Return the error line of a command line, without its "error: "."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_command(lambda *_: pytest.fail("the task was called"), COMMANDS[name], name, list(arguments))
    err = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1
    assert [line.startswith("error: ") for line in err if not re.match(r"\d\d:\d\d:\d\d options of", line)] == [True]
    return err[-1].removeprefix("error: ")


def arguments_of(text: str) -> list[str]:
    """Return the arguments in a cell of the table, where braces are not quoted for the shell."""
    return re.findall(r"\S+=\{[^}]*\}|\S+", text.strip("`"))


@pytest.mark.parametrize(("written", "outcome"), HABITS, ids=[row[0].strip("`") for row in HABITS])
def test_each_habit_works_or_is_answered(written: str, outcome: str, folder: Path, capsys: Any) -> None:
    arguments = arguments_of(written)
    if outcome.startswith("works"):
        calls = call(*arguments)
        out = capsys.readouterr().out
        assert bool(calls) is not bool(out)
    else:
        instead = outcome.split("`")[1]
        assert instead in failure(capsys, *arguments), outcome


def test_the_table_has_every_kind_of_habit() -> None:
    assert len(HABITS) > 45
    written = " ".join(row[0] for row in HABITS)
    for habit in ("-m", "--cfg", "hydra/launcher", "hydra/sweeper", "+", "++", "~", "@", "glob(", "range(", "choice("):
        assert f" {habit}" in written or f"`{habit}" in written or habit in written


def test_what_the_habits_set(folder: Path) -> None:
    assert read("experiment=mine").seed == 7
    config = read("experiment=papers/ablation")
    assert (config.seed, config.model.architecture) == (8, "transformer")
    assert config.name.startswith("ablation-")
    config = read("experiment=papers/wider")
    assert (config.seed, config.model.d_model) == (8, 64)
    config = read("experiment=papers/mine")  # names in a group are those of the whole group
    assert (config.seed, config.model.hidden_size) == (7, 64)
    assert read("--config-dir", "other", "experiment=elsewhere").seed == 9
    config = read("config=own", "data=text")
    assert (config.seed, config.data.format, config.data.target_lang) == (3, "text", "no")
    assert config.model.architecture == "transformer"
    assert read("config=own", "seed=4", "experiment=papers/wider").model.d_model == 64
    assert [config.seed for config, _ in call("-m", "seed=range(1,4)")] == [1, 2, 3]
    write("configs/experiment/.copies/mine-copy", "seed: 1\n")
    assert {"mine", "papers/mine"} <= set(group_choices("experiment"))
    assert not [name for name in group_choices("experiment") if "copy" in name]
    models = [config.model.architecture for config, _ in call("-m", "model=glob(*,exclude=rnn*)")]
    assert models == ["transformer", "transformer_rnn"]


def test_a_further_folder_wins(folder: Path, capsys: Any) -> None:
    write("other/experiment/mine", "seed: 70\n")
    assert read("experiment=mine").seed == 7
    seen: list[Any] = []

    def task(config: Any, overrides: list[str]) -> None:
        seen.extend([config, command_line("train", overrides)])
        assert os.environ[CONFIG_DIR] == "other"  # for the processes of a sweep

    run_command(task, Config, "train", ["--config-dir", "other", "experiment=mine"])
    assert seen[0].seed == 70
    assert CONFIG_DIR not in os.environ
    assert "options of other/experiment/mine.yaml" in capsys.readouterr().err
    line = shlex.split(seen[1])
    assert read(*line[3:]).seed == 70  # the command that is written into the run directory gives the same


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, ["--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
        ({}, ["--config-dir"], "--config-dir: a value is needed, as in --config-dir DIR"),
        ({}, ["experiment=../x"], "experiment=../x: must be one of "),
        ({}, ["experiment=/etc/x"], "experiment=/etc/x: must be one of "),
        ({}, ["experiment=papers"], "experiment=papers: must be one of "),
        ({}, ["-m", "experiment=glob(nothing*)"], "nothing in experiment matches"),
        ({}, ["config=own", "config=runs/a"], "config=runs/a: config=own is given too"),
        ({}, ["config=nowhere"], "config=nowhere: there is no nowhere, and no nowhere.yaml in configs/"),
        ({}, ["config=configs"], "config=configs: there is no configs/config.yaml"),
        ({}, ["config=configs/own.yaml"], "configs/own.yaml: not the configuration of a run; a file of yours is"),
        ({"runs/b/config": "[1, 2]"}, ["config=runs/b"], "runs/b/config.yaml: not the configuration of a run"),
        ({"runs/b/config": ""}, ["config=runs/b"], "runs/b/config.yaml: the file is empty"),
        ({"runs/b/config": "seed: ["}, ["config=runs/b"], "runs/b/config.yaml: line 1: "),
        (
            {"runs/b/config": "optim: {momentum: 1}"},
            ["config=runs/b"],
            "runs/b/config.yaml: optim.momentum: the stored",
        ),
        ({"configs/plain": "seed: 2"}, ["config=plain", "data=text"], "begin its defaults list with train"),
        (
            {"configs/experiment/a": "defaults: [b]", "configs/experiment/b": "defaults: [a]"},
            ["experiment=a"],
            "its defaults list leads back to itself",
        ),
        (
            {"configs/data/mine": "data: {train: x}"},
            ["data=mine"],
            "unknown option data.data.train; did you mean data.train",
        ),
        ({}, ["runs/a"], "runs/a: options are written name=value; nmt.evaluate and nmt.translate take runs/a, and con"),
        ({}, ["runs/nope"], "and there is no run or checkpoint runs/nope in "),
        ({}, ["seed=1", "runs/a"], "runs/a: options are written name=value; nmt.evaluate"),
    ],
)
def test_a_mistake_costs_one_line(
    files: dict[str, str], arguments: list[str], message: str, folder: Path, capsys: Any
) -> None:
    for name, content in files.items():
        write(name, content)
    assert message in failure(capsys, *arguments)


def test_groups_of_ones_own_and_optional_ones(folder: Path) -> None:
    write("configs/optim/fast", "learning_rate: 0.5\n")
    write("configs/experiment/mine", "defaults: [/optim: fast, optional /optim@x: missing, _self_]\nseed: 4\n")
    config = read("experiment=mine")
    assert (config.seed, config.optim.learning_rate) == (4, 0.5)


@pytest.mark.parametrize("given", ["config=runs/a", "config=runs/a/config.yaml", "config='runs/a'", "config=~/runs/a"])
def test_a_run_is_replayed_with_its_options_and_another_name(given: str, folder: Path) -> None:
    os.environ["HOME"] = str(folder)
    stored = yaml.safe_load(Path("runs/a/config.yaml").read_text(encoding="utf-8"))
    (config, overrides), *_ = call(given)
    assert config.name != "a"
    assert to_dict(config) == stored | {"name": config.name}
    assert overrides == [given]
    assert read(given, "name=a").name == "a"
    changed = read(given, "model.attention.score=dot", "seed=6")
    assert (changed.seed, changed.model.attention.score, changed.model.architecture) == (6, "dot", "transformer")
    assert read(given, "model=rnn").model == MODELS["rnn"].config()
    assert read(given, "experiment=mine").seed == 7
    names = [config.name for config, _ in call("-m", given, "seed=1,2")]
    assert len(set(names)) == 2


def test_a_run_of_version_0_3_is_replayed(folder: Path) -> None:
    write("runs/old/config", "threads: 2\nsearch: {beam: 3}\nmodel: {architecture: transformer, width: 64}\n")
    config = read("config=runs/old")
    assert (config.num_threads, config.search.beam_size, config.model.d_model) == (2, 3, 64)


def test_a_replayed_run_has_todays_environment_in_paths_alone(folder: Path) -> None:
    os.environ |= {"CORPORA": "/today", "TOKEN": "secret"}
    save_yaml(read("data=text", "data.train=${oc.env:CORPORA}/a", "data.valid=b", "data.test=c"), Path("b.yaml"))
    config = read("config=b.yaml")
    assert config.data.train == "/today/a"
    assert to_dict(config)["data"]["train"] == "${oc.env:CORPORA}/a"
    text = Path("b.yaml").read_text(encoding="utf-8")  # a stranger's file gives away no variable
    changed = text.replace("hf_dataset: null", "hf_dataset: ${oc.env:TOKEN}")
    Path("b.yaml").write_text(changed.replace("source_lang: en", "source_lang: ${oc.env:TOKEN}"), encoding="utf-8")
    data = read("config=b.yaml").data
    assert (data.hf_dataset, data.source_lang) == ("${oc.env:TOKEN}", "${oc.env:TOKEN}")


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"train"}))
def test_a_run_may_be_the_first_word(name: str, folder: Path, capsys: Any) -> None:
    needed = {"export": ["format=onnx", "output=x"], "trim": ["text=[a]", "output=x"]}
    needed |= {"clean": ["source=a", "target=b", "output=x"]}
    needed = needed.get(name, [])
    more = "num_threads=1" if name != "trim" else "output=y"
    for word in ("runs/a", 'runs/a, [ü] "b"'):
        Path(word).mkdir(exist_ok=True)
        ((config, overrides),) = call(word, *needed, name=name)
        assert config.checkpoint == word
        assert shlex.split(command_line(name, overrides)) == ["python", "-m", f"nmt.{name}", word, *needed]
        assert call(*needed, more, word, name=name)[0][0] == read(word, *needed, more, name=name)
    if name in ("align", "export", "trim", "clean"):
        assert "takes one run; call it for each" in failure(capsys, "runs", "runs/a", *needed, name=name)
    else:
        ((config, _),) = call("runs", "runs/a", *(["output=x"] if name == "evaluate" else []), name=name)
        assert config.checkpoint == ["runs", "runs/a"]
    assert "runs/a: checkpoint=b is given too" in failure(capsys, "runs/a", "checkpoint=b", name=name)
    assert "no run or checkpoint runs/b in" in failure(capsys, "runs/b", name=name)
    assert "no run or checkpoint zzz in" in failure(capsys, "zzz", name=name)
    assert "write checkpoint=runs/a for a run" in failure(capsys, "config=runs/a", name=name)


@pytest.mark.parametrize(
    ("command", "hint"),
    [("evaluate", "data.test=PREFIX"), ("translate", "< FILE"), ("align", "source=FILE target=FILE")],
)
def test_a_text_is_no_run(command: str, hint: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.en").write_text("a\n")
    with pytest.raises(SystemExit):
        run_command(lambda *_: pytest.fail("called"), COMMANDS[command], command, ["text.en"])
    assert re.search(rf"error: text\.en: no run or checkpoint; .*{hint}", capsys.readouterr().err)
