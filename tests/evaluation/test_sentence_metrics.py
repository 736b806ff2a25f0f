"""Metrics of the user's: what they are given, their scores, intervals and tests, what is stored, and their faults."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmt
from nmt import checkpoint, evaluate, plugins, train
from nmt.cli.compose import run_command
from nmt.cli.config_groups import load_named_plugins
from nmt.cli.configs import Config, EvaluateConfig
from nmt.compare.comparison import compare_runs
from nmt.compare.run_results import read_run_result
from nmt.evaluation.metrics import SIGNIFICANCE_TESTS, MetricsConfig, corpus_score, sentence_chrf
from nmt.evaluation.sentence_metrics import _scores, plugin_metric
from nmt.evaluation.significance import bootstrap_intervals, paired_test

MINE = '''
from pathlib import Path

import sacrebleu

with Path("executed").open("a") as file:
    file.write("x")
calls = []

def share(sources, hypotheses, references):
    """Words of the hypothesis that any reference has, in per cent."""
    calls.append((sources, hypotheses, references))
    words = [{word for text in texts for word in text.split()} for texts in zip(*references, strict=True)]
    return [100 * sum(w in known for w in h.split()) / max(len(h.split()), 1) for h, known in zip(hypotheses, words)]

def chrf(sources, hypotheses, references):
    scores = [sacrebleu.sentence_chrf(h, list(r)).score for h, *r in zip(hypotheses, *references)]
    return [round(score, 4) for score in scores]

chrf.name, chrf.version = "sentence chrF|2", 2

class Constant:
    name, version = "constant", "7"

    def __call__(self, sources, hypotheses, references):
        return [len(source) for source in sources]

constant = Constant()
short = lambda sources, hypotheses, references: [1.0]
text = lambda sources, hypotheses, references: ["a"] * len(hypotheses)
endless = lambda sources, hypotheses, references: [float("nan")] + [1.0] * (len(hypotheses) - 1)
number = lambda sources, hypotheses, references: 3.0
divided = lambda sources, hypotheses, references: [1 / 0 for _ in hypotheses]

def missing(sources, hypotheses, references):
    return open("nowhere").read()

def bleu(sources, hypotheses, references): return [0.0] * len(hypotheses)
other = 3
'''
SOURCES = [f"{'s' * (i % 7)} t" for i in range(40)]
REFERENCES = [f"a{i % 5} b{i % 3} c d{i % 2} e" for i in range(40)]
FURTHER = [[f"b{i % 3} a{i % 4} c" for i in range(40)]]
SYSTEMS = {
    "baseline": [f"a{i % 5} x c" for i in range(40)],
    "better": [f"a{i % 4} b{i % 3} c{' y' * (i % 4)}" for i in range(40)],
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load mine.py in the working directory, a new one, as the command line does; return the module."""
    monkeypatch.chdir(tmp_path)
    _scores.cache_clear()
    Path("mine.py").write_text(MINE, encoding="utf-8")
    load_named_plugins(["metrics.plugins=[mine.py:share,mine.py:chrf]"])
    return plugins.sys.modules[plugins._module_name(plugins._key("mine.py"))]


def metrics(*names: str, **options: Any) -> MetricsConfig:
    return MetricsConfig(names=["bleu"], plugins=[f"mine.py:{name}" for name in names], **options)


def test_a_plugin_gets_sources_hypotheses_and_lists_of_references(mine: Any) -> None:
    config = metrics("share", "constant")
    scores = corpus_score(SYSTEMS["better"], REFERENCES, config, FURTHER, SOURCES)
    assert mine.calls == [(SOURCES, SYSTEMS["better"], [REFERENCES, *FURTHER])]
    values = mine.share(SOURCES, SYSTEMS["better"], [REFERENCES, *FURTHER])
    assert scores["share"].score == pytest.approx(sum(values) / 40, rel=1e-12)
    assert scores["constant"].score == sum(map(len, SOURCES)) / 40
    assert list(scores) == ["bleu", "share", "constant"]
    digest = plugins.LOADED[plugins._key("mine.py")].digest[:12]
    assert scores["share"].signature == f"nrefs:2|plugin:share|version:{digest}"
    assert scores["constant"].signature == "nrefs:2|plugin:constant|version:7"
    assert corpus_score(SYSTEMS["better"], REFERENCES, config, (), SOURCES)["share"].signature.startswith("nrefs:1|")


def test_a_plugin_is_called_once_for_each_system(mine: Any) -> None:
    config = metrics("share", num_resamples=20)
    corpus_score(SYSTEMS["better"], REFERENCES, config, FURTHER, SOURCES)
    bootstrap_intervals(SYSTEMS["better"], REFERENCES, config, FURTHER, SOURCES)
    paired_test(SYSTEMS, REFERENCES, config, FURTHER, SOURCES)
    paired_test(SYSTEMS, REFERENCES, config, FURTHER, SOURCES)
    assert [hypotheses for _, hypotheses, _ in mine.calls] == [SYSTEMS["better"], SYSTEMS["baseline"]]
    corpus_score(SYSTEMS["better"], REFERENCES, config, (), SOURCES)  # other references, so another score
    assert len(mine.calls) == 3


def test_a_plugin_that_computes_chrf_gives_chrf(mine: Any) -> None:
    metric = plugin_metric("mine.py:chrf", SOURCES)
    values = metric.scores(SYSTEMS["better"], [REFERENCES, *FURTHER])
    assert values == sentence_chrf(SYSTEMS["better"], REFERENCES, MetricsConfig(), FURTHER)
    assert (metric.name, metric.details) == ("sentence-chrF-2", {"plugin": "sentence-chrF-2", "version": "2"})


def test_intervals_are_of_means_of_resampled_sentences(mine: Any) -> None:
    config = metrics("share", num_resamples=100)
    interval = bootstrap_intervals(SYSTEMS["better"], REFERENCES, config, FURTHER, SOURCES)["share"]
    values = np.array(mine.share(SOURCES, SYSTEMS["better"], [REFERENCES, *FURTHER]))
    samples = np.random.default_rng(12345).choice(40, size=(100, 40))  # sacreBLEU's own samples
    means = np.sort(values[samples].mean(1))
    assert interval.mean == pytest.approx(means.mean(), abs=1e-4)
    assert interval.half_width == pytest.approx((means[97] - means[2]) / 2, abs=1e-4)
    assert interval.signature.startswith("nrefs:2|bs:100|seed:12345|plugin:share|")


@pytest.mark.parametrize("test", SIGNIFICANCE_TESTS)
def test_significance_is_that_of_the_differences(mine: Any, test: str) -> None:
    config = metrics("share", num_resamples=300, significance_test=test)
    rows = paired_test(SYSTEMS, REFERENCES, config, FURTHER, SOURCES)["share"].systems
    first, second = (np.array(mine.share(SOURCES, each, [REFERENCES, *FURTHER])) for each in SYSTEMS.values())
    assert rows["better"].score - rows["baseline"].score == pytest.approx((second - first).mean())
    signs = np.random.default_rng(1).choice([-1, 1], size=(5000, 40))
    exceeding = (np.abs((signs * (second - first)).mean(1)) >= abs((second - first).mean())).mean()
    assert rows["better"].p_value == pytest.approx(exceeding, abs=0.08)
    same = paired_test({"a": SYSTEMS["better"], "b": SYSTEMS["better"]}, REFERENCES, config, FURTHER, SOURCES)
    assert same["share"].systems["b"].p_value == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", "returned 1 numbers, of which 1 are finite, for 40 sentences; each needs one"),
        ("endless", "returned 40 numbers, of which 39 are finite, for 40 sentences; each needs one"),
        ("text", "ValueError: could not convert string to float: 'a'"),
        ("number", "TypeError: 'float' object is not iterable"),
        ("divided", "line 33: ZeroDivisionError: division by zero"),
        ("missing", "line 36: FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'"),
        ("bleu", "the name bleu is taken; give the function another"),
        ("other", "mine.py has no function other"),
        ("nothing", "mine.py has no function nothing"),
    ],
)
def test_a_fault_of_a_plugin_is_one_sentence(mine: Any, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^metrics\.plugins=") as raised:
        corpus_score(SYSTEMS["better"], REFERENCES, metrics(name), FURTHER, SOURCES)
    assert str(raised.value) == f"metrics.plugins=mine.py:{name}: {message}"


@pytest.mark.parametrize("name", ["aer", "loss", "intervals", "hypothesis", "chrF2", "chrf", "share"])
def test_names_of_something_else_are_refused(mine: Any, name: str) -> None:
    mine.constant.__class__.name = name
    with pytest.raises(ValueError, match=f"the name {name} is taken"):
        corpus_score(SYSTEMS["better"], REFERENCES, metrics("share", "constant"), FURTHER, SOURCES)


@pytest.mark.parametrize("name", ["mine.py", ":share", "mine.py:", "mine.py:a b", "mine.py:3"])
def test_options_that_name_no_function_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be FILE\.py:FUNCTION or MODULE:FUNCTION"):
        MetricsConfig(plugins=[name]).validate()


def test_the_examples_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call of COMET too, with another program in the place of its environment and of the package."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/evaluation.md").read_text("utf-8")
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    for block in blocks:
        Path(block.split("\n")[0].removeprefix("# ")).write_text(block, encoding="utf-8")
    fake = """class Model:
    def predict(self, rows, **options):
        self.scores = [len(row["src"]) + 10 * len(row["mt"]) + 100 * len(row["ref"]) for row in rows]
        return self
def download_model(name): print("downloading"); return name
def load_from_checkpoint(name): return Model()
"""
    Path("fake").mkdir()
    Path("fake/comet.py").write_text(fake)
    Path("comet-env/bin").mkdir(parents=True)
    program = Path("comet-env/bin/python")
    program.write_text(f'#!/bin/sh\nPYTHONPATH=fake exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    names = ["mine.py:kept_numbers", "comet_score.py:comet"]
    load_named_plugins([f"metrics.plugins=[{','.join(names)}]"])
    config, sources = MetricsConfig(plugins=names), ["a 3 4", "b"]
    scores = corpus_score(["x 3", "yy"], ["r", "s"], config, [["rrr", "sss"]], sources)
    assert scores["kept_numbers"] == (75.0, "nrefs:2|plugin:kept_numbers|version:1")
    assert scores["comet"] == (100 * (5 + 30 + 200 + 1 + 20 + 200) / 2, "nrefs:2|plugin:comet|version:wmt22-comet-da")
    Path("fake/comet.py").write_text("raise OSError('no disk')")
    with pytest.raises(ValueError, match=r"comet_score\.py:comet: line \d+: RuntimeError: OSError: no disk"):
        corpus_score(["x", "yy"], ["r", "s"], config, (), sources)


# --- runs ------------------------------------------------------------------------------------------------------------

TINY = (
    "model.embedding_dim=8",
    "model.hidden_size=8",
    "train.max_updates=2",
    "train.valid_every=2",
    "data.tokenizer.type=word",
)
TINY += ("train.precision=fp32", "search.max_length_offset=0", "search.max_length_ratio=1.5", "optim.warmup_updates=0")
QUICK = ("num_threads=1", "device=cpu", "metrics.num_resamples=20", "alignment.head_importance_pairs=0")
TEXTS = ("data=text", "data.train=train", "data.valid=valid", "data.test=valid")


def run_train(*options: str) -> None:
    run_command(train.main, Config, "train", [*TEXTS, *QUICK, *TINY, *options])


def run_evaluate(*options: str) -> None:
    run_command(evaluate.main, EvaluateConfig, "evaluate", [*QUICK, *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two runs of different models with a plugin's metric; its file is loaded in them only."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("mine.py").write_text(MINE, encoding="utf-8")
        for name, num in (("train", 40), ("valid", 12)):
            for suffix, lines in (("en", SOURCES), ("de", REFERENCES), *((("de.1", FURTHER[0]),) * (name == "valid"))):
                Path(f"{name}.{suffix}").write_text("".join(f"{line}\n" for line in lines[:num]))
        for name, score in (("a", "additive"), ("b", "dot")):
            run_train(f"name={name}", f"model.attention.score={score}", "metrics.plugins=[mine.py:share]")
    for key in plugins.LOADED:
        plugins.sys.modules.pop(plugins._module_name(key), None)
    plugins.LOADED.clear()
    return folder


@pytest.fixture
def cwd(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to the folder of the runs, in a process without plugins."""
    monkeypatch.chdir(trained)
    Path("executed").unlink(missing_ok=True)
    return trained


def read(file: str) -> Any:
    return json.loads(Path(file).read_text("utf-8"))


def error_of(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit):
        run_evaluate(*options)
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_has_the_metric_everywhere(cwd: Path) -> None:
    scores = read("runs/a/report/scores.json")
    rows = [json.loads(line) for line in Path("runs/a/report/sentences.jsonl").read_text("utf-8").splitlines()]
    assert scores["share"]["signature"].startswith("nrefs:2|plugin:share|version:")
    assert scores["share"]["score"] == pytest.approx(sum(row["share"] for row in rows) / len(rows))
    assert scores["intervals"]["share"]["signature"].startswith("nrefs:2|bs:20|seed:12345|plugin:share|")
    history = [json.loads(line) for line in Path("runs/a/metrics.jsonl").read_text().splitlines()]
    (valid,) = [row["valid_share"] for row in history if "valid_share" in row]
    assert valid == pytest.approx(scores["share"]["score"])  # the test set is the validation set
    page = Path("runs/a/report/report.html").read_text("utf-8")
    assert "plugin:share|version" in page
    assert '"values":["chrF","model score","share"]' in page.replace(", ", ",").replace('": ', '":')


def test_runs_are_compared_without_the_plugin(cwd: Path) -> None:
    results = [read_run_result(cwd / f"runs/{name}/report") for name in "ab"]
    comparison = compare_runs(results, num_resamples=100)
    (contrast,) = [contrast for contrast in comparison.contrasts if contrast.metric == "share"]
    assert not Path("executed").exists()
    assert plugins.LOADED == {}
    load_named_plugins(["metrics.plugins=mine.py:share"])
    systems = {"0": results[0].hypotheses, "1": results[1].hypotheses}
    config = metrics("share", num_resamples=100)
    expected = paired_test(systems, results[0].references, config, results[0].further, results[0].sources)["share"]
    assert contrast.per_seed == [expected.systems["1"].p_value]
    assert contrast.difference.mean == pytest.approx(expected.systems["1"].score - expected.systems["0"].score)
    assert comparison.test_signatures["share"] == expected.signature
    (low, high) = comparison.groups[0].summaries["share"].interval or (0, 0)
    assert low <= comparison.groups[0].summaries["share"].mean <= high


def test_a_stored_name_runs_nothing(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of(capsys, "checkpoint=runs/a", "output=again")
    assert "metrics.plugins=mine.py:share: named in a stored configuration, which runs no code by itself" in message
    assert "give metrics.plugins=[mine.py:share], else metrics.plugins=[] to do without" in message
    nmt.load("runs/a").translate("s t")  # which needs no metric
    assert not Path("executed").exists()
    assert checkpoint.load(checkpoint.resolve("runs/a"))["plugins"] == []
    run_evaluate("checkpoint=runs/a", "output=without", "metrics.plugins=[]")
    assert "share" not in read("without/scores.json")
    assert not Path("executed").exists()


def test_an_evaluation_with_the_plugin_compares_systems(cwd: Path) -> None:
    run_evaluate("checkpoint=runs/a", "output=again", "metrics.plugins=[mine.py:share]", "baselines=[runs/b]")
    again, stored = read("again/scores.json"), read("runs/a/report/scores.json")
    assert (again["share"], again["intervals"]["share"]) == (stored["share"], stored["intervals"]["share"])
    systems = again["significance"]["share"]["systems"]
    assert systems["runs/b"]["score"] == pytest.approx(read("runs/b/report/scores.json")["share"]["score"])
    assert Path("executed").read_text() == "x"


def test_a_file_of_options_may_name_it(cwd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE, encoding="utf-8")
    Path("configs/experiment").mkdir(parents=True)
    Path("configs/experiment/mine.yaml").write_text("metrics: {plugins: ['mine.py:share']}\n")
    assert load_named_plugins(["experiment=mine"]) == ["experiment=mine"]  # `plugins` would make the model need it
    assert plugins.named_function("metrics.plugins", "mine.py:share")[0]([""], ["a"], [["a"]]) == [100]


def test_translations_outlive_a_fault(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of(capsys, "checkpoint=runs/a", "output=faulty", "metrics.plugins=[mine.py:divided]")
    assert message == "error: metrics.plugins=mine.py:divided: line 33: ZeroDivisionError: division by zero"
    assert len(Path("faulty/hypotheses.txt").read_text("utf-8").splitlines()) == 12
    assert "bleu" in read("faulty/scores.json")
    assert not Path("faulty/config.yaml").exists()


def test_external_scores_of_the_same_name_are_refused(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("scores").write_text("1\n" * 12)
    options = ("checkpoint=runs/a", "output=both", "metrics.plugins=[mine.py:share]", "external_scores=[share:scores]")
    assert "external_scores=share:scores: share is taken; choose another name" in error_of(capsys, *options)
    assert not Path("both").exists()
