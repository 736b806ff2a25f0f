"""Own code from outside the package: every command with plugins, what is stored, and what is refused."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import nmt
from nmt import align, checkpoint, evaluate, plugins, train, translate
from nmt.attention import NORMALIZERS, SCORES, AttentionConfig
from nmt.cli.compose import run_command
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig, TranslateConfig
from nmt.cli.sweep.completion import is_run_complete
from nmt.compare.__main__ import main as compare
from nmt.data import TokenizerConfig
from nmt.data.tokenizer import training_options
from nmt.inference.translator import Translator
from nmt.plugins import LOADED, load_plugins
from nmt.training.optim import OptimConfig, learning_rate

PAGE = (Path(__file__).parent.parent / "docs/plugins.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
SCORE = """
from pathlib import Path
from nmt.attention.scores import SCORES, Dot
Path("executed").touch()
class Double(Dot):
    '''score(q, k) = 2 qᵀk.'''
    def transform_query(self, query):
        return 2 * query
SCORES["double"] = Double
"""
OTHERS = """
from dataclasses import dataclass
from nmt.attention.scores import SCORES, Dot
from nmt.data.tokenizer import TOKENIZERS
from nmt.models import MODELS, ModelSpec
from nmt.models.rnn import RNNConfig, RNNSeq2Seq
from nmt.models.rnn_decoder import DECODERS
from nmt.training.optim import SCHEDULES
@dataclass
class OtherConfig(RNNConfig):
    '''As RNNConfig.'''
    architecture: str = "other"
class OtherDot(Dot):
    pass
MODELS["other"] = ModelSpec(OtherConfig, RNNSeq2Seq)
SCORES["other_dot"] = OtherDot
TOKENIZERS["other_word"] = TOKENIZERS["char"]
DECODERS["other_luong"] = DECODERS["luong"]
SCHEDULES["falling"] = lambda config, update, progress: 1 - progress
"""
TEXT = ("data=text", "data.train=train", "data.valid=valid", "data.test=valid", "data.tokenizer.type=word")
TINY = (
    *("train.max_updates=2", "train.valid_every=2", "train.save_every=2", "optim.warmup_updates=0", "device=cpu"),
    *("metrics.num_resamples=10", "alignment.head_importance_pairs=0", "metrics.breakdown=false"),
)
RNN = ("model.embedding_dim=8", "model.hidden_size=8")


def prepare(folder: Path) -> None:
    """Write the plugins and a small text into the working directory."""
    for name, code in {"score.py": SCORE, "others.py": OTHERS, **FILES}.items():
        (folder / name).write_text(code, encoding="utf-8")
    words = ["the", "dog", "sees", "a", "cat", "and", "one", "bird"]
    for split, num in (("train", 40), ("valid", 6)):
        lines = [" ".join(words[i % 8 : i % 8 + 3] + words[: i % 5]) for i in range(num)]
        (folder / f"{split}.en").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"{split}.de").write_text("".join(f"{line[::-1]}\n" for line in lines))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with plugins, text, and a run with the score double."""
    folder = tmp_path_factory.mktemp("plugins")
    prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_train("plugins=score.py", "model.attention.score=double", "name=run", *TEXT, *RNN)
    unload_plugins()
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, a copy of the prepared one, in a process without plugins."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    Path("executed").unlink()
    return tmp_path


def unload_plugins() -> None:
    for table, entry in plugins.OWNERS:
        del plugins._table(table)[entry]
    for key in plugins.LOADED:
        sys.modules.pop(plugins._module_name(key), None)
    plugins.OWNERS.clear()
    plugins.LOADED.clear()
    plugins.warn_once.cache_clear()


def run_train(*arguments: str) -> None:
    run_command(train.main, Config, "train", [*TINY, *arguments])


def error_of(capsys: pytest.CaptureFixture[str], run: Any) -> str:
    """Return the one line with which a command fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        run()
    assert error.value.code == 1
    message = capsys.readouterr().err
    *_, line = message.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in message
    return line


def content(run: str) -> dict[str, Any]:
    return checkpoint.load(checkpoint.resolve(f"runs/{run}"))


def digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def test_names_and_digests_are_stored_and_nothing_else(folder: Path) -> None:
    assert content("run")["plugins"] == [["score.py", digest("score.py")]]
    assert content("run")["config"]["plugins"] == ["score.py"]
    assert yaml.safe_load(Path("runs/run/config.yaml").read_text())["plugins"] == ["score.py"]
    assert "Double" not in Path("runs/run/checkpoints/best.pt").read_bytes().decode("latin-1")
    report = Path("runs/run/report/report.html").read_text()
    assert re.search(rf">plugins</th><td><code>score.py</code></td><td><code>{digest('score.py')}<", report)
    assert "plugins=score.py" in shlex.split(Path("runs/run/command.txt").read_text())


def test_loading_executes_nothing_and_asks_for_the_plugin(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("runs/run", "runs/copy")
    runs = (
        lambda: run_command(translate.main, TranslateConfig, "translate", ["checkpoint=runs/run"]),
        lambda: run_command(evaluate.main, EvaluateConfig, "evaluate", ["checkpoint=runs/run"]),
        lambda: compare(["--diff", "runs/run", "runs/run"]),
        lambda: compare(["runs/run", "runs/copy"]),
    )
    for run in runs:
        message = error_of(capsys, run)
        assert f"with the plugin score.py (sha256 {digest('score.py')[:12]}…): give plugins=score.py" in message
        assert "NMT_PLUGINS=score.py" in message
    with pytest.raises(ValueError, match=r"give plugins=score\.py"):
        Translator.from_checkpoint(content("run"), None, torch.device("cpu"))
    assert not Path("executed").exists()
    assert "double" not in SCORES


def test_older_checkpoints_have_no_entry(folder: Path) -> None:
    stored = content("run")
    del stored["plugins"]
    with pytest.raises(ValueError, match="must be one of"):  # as before: the score is unknown
        Config.from_checkpoint(stored)
    stored["config"]["model"]["attention"]["score"] = "dot"
    del stored["config"]["plugins"]
    assert Config.from_checkpoint(stored).plugins == []


def test_commands_with_a_plugin(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("stdin").write_text("the dog sees\n\na cat\n")
    with open("stdin") as stdin:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", stdin)
        arguments = ["checkpoint=runs/run", "plugins=score.py"]
        run_command(translate.main, TranslateConfig, "translate", arguments)
    assert capfdbinary.readouterr().out.count(b"\n") == 3
    unload_plugins()
    monkeypatch.setenv(plugins.VARIABLE, "others.py,score.py")
    run_command(align.main, AlignConfig, "align", ["checkpoint=runs/run"])
    assert Path("runs/run/align-test/alignments.pharaoh").read_text().count("\n") == 6
    before = json.loads(Path("runs/run/report/scores.json").read_text())
    run_command(evaluate.main, EvaluateConfig, "evaluate", ["checkpoint=runs/run", "output=again"])
    assert json.loads(Path("again/scores.json").read_text()) == before
    assert yaml.safe_load(Path("again/config.yaml").read_text())["plugins"] == ["others.py", "score.py"]


def test_runs_are_compared_with_their_plugins(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_train("model.attention.score=dot", "name=dot", *TEXT, *RNN)
    compare(["runs/run", "runs/dot", "--num-resamples", "0", "--plugins", "score.py"])
    out = capsys.readouterr().out
    assert "model.attention.score: double | dot" in out
    assert "plugins:" not in out  # no option of the experiment
    compare(["--diff", "runs/run", "runs/dot"])  # this process has it now
    assert "[score.py]" in capsys.readouterr().out.replace("'", "")
    unload_plugins()
    compare(["runs/run", "runs/dot", "--num-resamples", "0", "plugins=[score.py]"])  # as with the other commands
    assert capsys.readouterr().out == out
    unload_plugins()
    shutil.rmtree("runs/run/checkpoints")
    compare(["runs/run", "runs/dot", "--num-resamples", "0"])  # without the model, its options are enough
    assert "double" in capsys.readouterr().out


def test_another_content_under_the_name(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = digest("score.py")
    Path("score.py").write_text(SCORE.replace("2 * query", "3 * query"))
    arguments = ["checkpoint=runs/run", "plugins=[./score.py]", "output=again"]
    run_command(evaluate.main, EvaluateConfig, "evaluate", arguments)
    assert f"score.py: now sha256 {digest('score.py')[:12]}…, when it was trained {before[:12]}…" in caplog.text
    again = ("model.attention.score=double", "name=run", "train.max_updates=4", *TEXT, *RNN)
    message = error_of(capsys, lambda: run_train("plugins=score.py", *again))
    assert f"started with score.py (sha256 {before[:12]}…), which is not given or has changed" in message
    config = Config.from_dict(yaml.safe_load(Path("runs/run/config.yaml").read_text()))
    assert not is_run_complete(config)
    Path("moved").mkdir()
    Path("moved/renamed.py").write_text(SCORE)  # the same content elsewhere is the same plugin
    unload_plugins()
    run_train("plugins=moved/renamed.py", *again)
    assert content("run")["position"]["update"] == 4
    config.train.max_updates, config.plugins = 4, ["moved/renamed.py"]
    assert is_run_complete(config)


def test_a_run_continues_with_its_plugins_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_train("plugins=others.py", "name=idle", *TEXT, *RNN)
    unload_plugins()
    message = error_of(capsys, lambda: run_train("train.max_updates=4", "name=idle", *TEXT, *RNN))
    assert "give plugins=others.py" in message


def test_own_components_compute_what_those_of_the_project_do(folder: Path) -> None:
    common = (*TEXT[:4], *RNN)
    builtin = ("model.attention.score=dot", "model.decoder=luong", "data.tokenizer.type=char")
    own = (
        "model.attention.score=other_dot",
        "model.decoder=other_luong",
        "data.tokenizer.type=other_word",
        "model=other",
    )
    run_train("name=a", *builtin, *common)
    run_train("name=b", "plugins=others.py", *own, *common)
    states = [content(name)["model"] for name in "ab"]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_own_schedule(folder: Path) -> None:
    load_plugins(["others.py"])
    config = OptimConfig(schedule="falling", learning_rate=0.5, warmup_updates=4)
    config.validate()
    assert learning_rate(config, 2, 0.25) == 0.5 * 0.5 * 0.75


def test_own_options_are_not_called_useless(folder: Path) -> None:
    load_plugins(["score.py", "mine.py"])
    assert AttentionConfig("double", divisor=3, normalizer="sharp", top_k=2).unused_options(AttentionConfig()) == []
    unused = AttentionConfig("dot", divisor=3, max_positions=3, top_k=2).unused_options(AttentionConfig())
    assert unused == ["top_k", "divisor", "max_positions"]


def test_the_examples_of_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The normalizer, the metric and the data source, in training, report and comparison."""
    command = next(line for line in PAGE.splitlines() if line.startswith("python -m nmt.train plugins=mine.py"))
    arguments = [*shlex.split(command)[3:], *RNN]
    run_train(*arguments, "name=one")
    run_train(*arguments, "name=two", "seed=2", "train.max_updates=40", "optim.learning_rate=0.02")
    scores = torch.randn(3, 5)
    assert torch.allclose(
        NORMALIZERS["sharp"](scores, 0), (scores.exp() ** 2) / (scores.exp() ** 2).sum(-1, keepdim=True)
    )
    rows = [json.loads(line) for line in Path("runs/two/report/sentences.jsonl").read_text().splitlines()]
    pairs = [(row["hypothesis"].split(), row["reference"].split()) for row in rows]
    right = sum(a == b for hypothesis, reference in pairs for a, b in zip(hypothesis, reference, strict=False))
    expected = 100 * right / sum(max(map(len, pair)) for pair in pairs)
    stored = json.loads(Path("runs/two/report/scores.json").read_text())
    assert stored["accuracy"]["score"] == pytest.approx(expected)
    assert expected > 5
    assert stored["intervals"]["accuracy"]["half_width"] > 0
    kept = content("two")["position"]
    history = [json.loads(line) for line in Path("runs/two/metrics.jsonl").read_text().splitlines()]
    assert kept["best_score"] == max(row["valid_accuracy"] for row in history if "valid_accuracy" in row)
    capsys.readouterr()
    compare(["runs/one", "runs/two", "--num-resamples", "20", "--factors", "optim.learning_rate", "--format", "json"])
    result = json.loads(capsys.readouterr().out)
    assert "accuracy" in result["signatures"]
    assert {contrast["metric"] for contrast in result["contrasts"]} >= {"bleu", "accuracy"}
    compare(["runs/one", "runs/two", "--num-resamples", "20", "--factors", "optim.learning_rate"])
    assert re.search(r"BLEU.* accuracy +seeds", capsys.readouterr().out)


def test_the_cache_follows_the_code_of_a_tokenizer(folder: Path) -> None:
    load_plugins(["others.py"])
    first = training_options(TokenizerConfig(type="other_word"))
    assert training_options(TokenizerConfig(type="word")).keys() < first.keys()
    unload_plugins()
    Path("others.py").write_text(OTHERS + "# changed\n")
    load_plugins(["others.py"])
    assert training_options(TokenizerConfig(type="other_word")) != first


def test_a_file_of_a_group_may_name_plugins(folder: Path) -> None:
    Path("configs/experiment").mkdir(parents=True)
    text = "plugins: others.py\ndefaults:\n  - override /model: other\nmodel: {attention: {score: other_dot}}\n"
    Path("configs/experiment/own.yaml").write_text(text)
    configs: list[Config] = []
    arguments = ["experiment=own", "plugins=score.py", "model.encoder_layers=2"]
    run_command(lambda config, _: configs.append(config), Config, "train", arguments)
    assert type(configs[0].model).__name__ == "OtherConfig"
    assert configs[0].plugins == ["score.py", "others.py"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ndef f():\n    raise KeyError('k')\nf()\n", "bad.py: line 3: KeyError: 'k'"),
        ("x = 1\ny = = 2\n", "bad.py: line 2: SyntaxError: invalid syntax"),
        ("import no_such_module\n", "bad.py: line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys\nsys.exit(0)\n", "bad.py: line 2: SystemExit: 0"),
        (
            "from nmt.attention import SCORES\nSCORES['dot'] = SCORES['scaled']\n",
            "bad.py: dot in SCORES is taken, by nmt; choose another name",
        ),
        ("from nmt.attention import SCORES\ndel SCORES['dot']\n", "bad.py: dot in SCORES is taken, by nmt"),
        (SCORE, "bad.py: double in SCORES is taken, by score.py; choose another name"),
    ],
)
def test_a_plugin_that_cannot_be_imported(
    folder: Path, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    before = dict(SCORES)
    Path("bad.py").write_text(code)
    assert message in error_of(capsys, lambda: run_train("plugins=[score.py,bad.py]"))
    assert before | {"double": SCORES["double"]} == SCORES
    assert [Path(name).name for name in LOADED] == ["score.py"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("gone.py", "plugins: gone.py: no such file"),
        ("runs/", "plugins: runs/: is a folder"),
        ("runs", "plugins: runs: is a folder without __init__.py"),
        ("gone.away", "plugins: gone.away: ModuleNotFoundError: No module named 'gone'"),
        ("[score.py,./score.py]", "plugins=[score.py,./score.py]: one of them is named more than once"),
    ],
)
def test_names_that_are_no_plugins(folder: Path, capsys: pytest.CaptureFixture[str], names: str, message: str) -> None:
    assert message in error_of(capsys, lambda: run_train(f"plugins={names}"))


def test_a_module_is_found_in_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(folder))])
    Path("package_of_mine").mkdir()
    Path("package_of_mine/__init__.py").touch()
    Path("package_of_mine/scores.py").write_text(SCORE)
    assert load_plugins(["package_of_mine.scores"]) == [("package_of_mine.scores", digest("score.py"))]
    assert SCORES["double"].__module__ == "package_of_mine.scores"


def test_a_refused_module_is_refused_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("replacing_dot.py").write_text("from nmt.attention import SCORES\nSCORES['dot'] = SCORES['scaled']\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="dot in SCORES is taken"):
            load_plugins(["replacing_dot"])


def test_a_file_that_changes_while_it_is_loaded(folder: Path) -> None:
    assert load_plugins(["score.py"]) == [("score.py", digest("score.py"))]
    assert load_plugins([str(folder / "score.py")]) == [(str(folder / "score.py"), digest("score.py"))]
    Path("score.py").write_text(SCORE + "# changed\n")
    with pytest.raises(ValueError, match="has changed since this process imported it"):
        load_plugins(["score.py"])


def command(*arguments: str) -> str:
    """Run a command in a process of its own and return what it writes."""
    environment = {**os.environ, "PYTHONPATH": str(Path(plugins.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", *arguments]
    result = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.mark.slow
def test_ranks_have_the_plugins(folder: Path) -> None:
    own = ("plugins=[others.py,score.py]", "model=other", "model.attention.score=double", *TEXT, *TINY, *RNN)
    command("nmt.train", *own, "name=ranks", "train.devices=2")
    assert [name for name, _ in content("ranks")["plugins"]] == ["others.py", "score.py"]


@pytest.mark.slow
def test_a_sweep_in_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.VARIABLE, "score.py")
    sweep = ("-m", "model.attention.score=double,dot", "launcher=processes", "jobs=2", "name=s", *TEXT, *TINY, *RNN)
    command("nmt.train", *sweep)
    runs = sorted(Path("runs/s").iterdir())
    assert len(runs) == 2
    for run in runs:  # the command of each repeats it, also without the variable
        assert "'plugins=[score.py]'" in (run / "command.txt").read_text()
    assert "2 of them before" in command("nmt.train", *sweep)


@pytest.mark.slow
def test_exports_carry_or_refuse(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    out = command("nmt.export", "checkpoint=runs/run", "plugins=score.py", "format=onnx", "output=graphs")
    assert "its log-probabilities differ from ours by at most" in out
    from nmt.export.formats import unsupported_options

    load_plugins(["others.py"])
    config = Config()
    config.data.tokenizer.type = "other_word"
    assert "data.tokenizer.type=other_word" in unsupported_options(config, "onnx")[0]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "class Mine(Score):\n    def forward(self, q, keys):\n        return q.nothing\nSCORES['mine'] = Mine\n",
            "plugins: faulty.py: line 4: AttributeError: 'Tensor' object has no attribute 'nothing'; NMT_TRACEBACK=1",
        ),
        (
            "class Mine(Score):\n    def create_parameters(self):\n        pass\nSCORES['mine'] = Mine\n",
            "takes 1 positional argument but 3 were given (perhaps not its fault); NMT_TRACEBACK=1 shows the traceback",
        ),
        (
            "SCORES['mine'] = lambda query, keys: query\n",
            "plugins: faulty.py: AttributeError: 'function' object has no attribute",
        ),
    ],
)
def test_a_fault_of_a_plugin_while_it_runs_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    Path("faulty.py").write_text(f"from nmt.attention.scores import SCORES, Score\n{code}")
    options = ("plugins=faulty.py", "model.attention.score=mine", "name=faulty", *TEXT, *RNN)
    assert message in error_of(capsys, lambda: run_train(*options))


def test_a_defect_without_plugins_is_none_of_the_users() -> None:
    with pytest.raises(ZeroDivisionError), plugins.naming_faults():
        1 / 0  # noqa: B018


def test_an_entry_that_no_plugin_has_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that was written in a notebook: a later process could not load the run."""
    assert plugins.unowned() == []
    monkeypatch.setitem(SCORES, "cell", type("Cell", (SCORES["scaled"],), {"__module__": "__main__"}))
    assert plugins.unowned() == ["cell in SCORES"]
    run_train("model.attention.score=cell", "name=cell", *TEXT, *RNN)
    assert "cell in SCORES: no plugin has it, so no other process can use this run" in capsys.readouterr().err


def test_what_only_a_stored_file_names_is_never_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint and a configuration that were made to name a plugin, without its entry in the header."""
    Path("evil.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    run_train("name=a", *TEXT, *RNN)
    shutil.copytree("runs/a", "runs/b")
    for run in ("a", "b"):
        for name in ("best", "last"):
            stored = checkpoint.load(Path(f"runs/{run}/checkpoints/{name}.pt"))
            stored["config"]["plugins"] = ["evil.py"]
            del stored["plugins"]
            checkpoint.save(Path(f"runs/{run}/checkpoints/{name}.pt"), stored)
        for file in Path(f"runs/{run}").rglob("config.yaml"):
            file.write_text(file.read_text().replace("plugins: []", "plugins:\n- evil.py", 1))
    evaluation = ["checkpoint=runs/a", "output=again"]
    refused = (
        lambda: run_command(evaluate.main, EvaluateConfig, "evaluate", evaluation),
        lambda: run_command(train.main, Config, "train", ["config=runs/a", "name=c"]),
        lambda: run_command(train.main, Config, "train", ["config=runs/a"]),
    )
    for run in refused:
        message = error_of(capsys, run)
        assert "plugins: evil.py: named in a stored configuration, which runs no code by itself" in message
        assert "give plugins=evil.py or set NMT_PLUGINS=evil.py" in message
        assert not Path("executed").exists()
    run_command(align.main, AlignConfig, "align", ["checkpoint=runs/a"])
    compare(["runs/a", "runs/b", "--num-resamples", "0"])
    nmt.load("runs/a").translate("the dog sees")
    assert not Path("executed").exists()
    run_command(evaluate.main, EvaluateConfig, "evaluate", [*evaluation, "plugins=evil.py"])
    assert Path("executed").exists()


def test_plugins_of_earlier_versions_find_the_options_of_the_data_where_they_were() -> None:
    from nmt.data import DataConfig, sources

    assert sources.DataConfig is DataConfig
    with pytest.raises(AttributeError, match="has no attribute Data"):
        _ = sources.Data
