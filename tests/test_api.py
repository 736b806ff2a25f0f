"""The project from Python: what users would guess, and the blocks of docs/api.md, on one small run."""

import concurrent.futures
import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmt

ROOT = Path(__file__).parent.parent
SMALL = [
    *("data.synthetic.train=300", "data.synthetic.valid=4", "data.synthetic.test=4", "data.synthetic.long=1"),
    *("data.tokenizer.type=word", "data.tokenizer.vocab_size=500", "model.embedding_dim=32", "model.hidden_size=32"),
    *("model.attention.dim=16", "train.batch_tokens=512", "train.precision=fp32", "train.early_stopping_metric=loss"),
    *("optim.learning_rate=1e-2", "optim.warmup_updates=10", "metrics.num_resamples=0", "search.beam_size=2"),
    *("search.max_length_ratio=1", "search.max_length_offset=2", "alignment.head_importance_pairs=0"),
    *("num_threads=1", "device=cpu"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def run(folder: Path) -> Any:
    """A run of `nmt.train`, called in `folder`."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return nmt.train("name=default", *SMALL, "train.max_updates=60", "train.valid_every=30")
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def model(run: Any, folder: Path) -> Any:
    return nmt.load(folder / run.path, device="cpu")


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def sentences(folder: Path, run: Any) -> list[dict[str, Any]]:
    lines = (folder / run.path / "report/sentences.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return found.stdout


def test_importing_the_package_imports_no_torch() -> None:
    names = "Attention", "Model", "Run", "load", "train"
    code = (
        "import sys, os, nmt; print('torch' in sys.modules, sorted(set(dir(nmt)) - {n for n in dir(nmt) if '_' in n}))"
    )
    assert python(f"{code}; print(os.environ['GOMP_SPINCOUNT'])").split("\n")[:2] == [f"False {list(names)}", "1000"]
    for name in names:
        assert callable(getattr(nmt, name))


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'; did you mean load"):
        _ = nmt.laod
    with pytest.raises(AttributeError, match="Attention or Model or Run or load or train"):
        _ = nmt.nonsense


def test_the_examples_of_the_documentation_run(in_folder: Path, run: Any) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    assert len(blocks) > 5
    for block in blocks:
        exec(block, names)
    assert (in_folder / "attention.png").stat().st_size > 1000


def test_a_run_has_the_scores_metrics_and_options_of_its_files(in_folder: Path, run: Any) -> None:
    assert nmt.Run(str(run.path)).scores == run.scores
    assert set(run.scores) == {"test", "test_long"}
    for name, file in (("test", "report/scores.json"), ("test_long", "report/test_long/scores.json")):
        assert run.scores[name] == json.loads((run.path / file).read_text())
    assert [row["update"] for row in run.metrics if "valid_loss" in row] == [30, 60]
    assert run.config.model.hidden_size == 32
    assert run.load().translate("The man reads.").text == nmt.load(run.path).translate("The man reads.").text
    with pytest.raises(FileNotFoundError, match=r"runs: no run directory; it has no config.yaml"):
        nmt.Run("runs")


def test_the_same_call_continues_a_run_and_leaves_logging_as_it_was(
    in_folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("nmt")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)
    before = log.level
    again = nmt.train("name=default", *SMALL, "train.max_updates=62", "train.valid_every=30", quiet=True)
    assert (log.handlers, log.level, log.propagate) == ([], before, True)
    (warning,) = capsys.readouterr().err.splitlines()  # nothing else
    assert "which changes optim.schedule=cosine" in warning
    assert again.path == run.path
    assert again.metrics[-1]["update"] == 62
    assert "continues at update 60" in (run.path / "train.log").read_text()
    with pytest.raises(ValueError, match=r"the run .* was started with other options"):
        nmt.train(*SMALL, f"name={run.path.name}", "model.hidden_size=48")


def test_a_thread_may_train_and_a_model_without_attention_says_so(folder: Path) -> None:
    options = [*SMALL, "model.attention.score=none", "train.max_updates=2", f"runs={folder}/threads", "name=none"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        run = pool.submit(nmt.train, *options, f"data.cache_dir={folder}/cache").result()
    model = run.load()
    assert isinstance(model.translate("The man reads.").text, str)
    for call in (model.attention, model.align):
        with pytest.raises(ValueError, match="this model has no attention to the source"):
            call("The man reads.", "Der Mann liest.")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["model=rnnn"], ValueError, "did you mean model=rnn"),
        (["lr=1"], ValueError, "lr=1: write optim.learning_rate=1"),
        (["seed=1,2"], ValueError, "several values make several runs, which needs -m"),
        (["-m", "seed=1,2"], ValueError, "-m: options are written name=value"),
        ([{"seed": 1}], TypeError, "options as texts"),
        (["data.format=text", "data.train=missing", "data.valid=missing"], FileNotFoundError, "missing"),
    ],
)
def test_wrong_options_raise_the_sentence_of_the_command(
    options: list[Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        nmt.train(*options)


@pytest.mark.parametrize(("code", "error"), [(130, KeyboardInterrupt), (143, SystemExit)])
def test_an_interruption_is_what_python_expects(
    code: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("nmt.api.main", stop)
    with pytest.raises(error):
        nmt.train("seed=2")


def test_translations_are_those_of_the_command(in_folder: Path, run: Any, model: Any) -> None:
    texts = [row["source"] for row in sentences(in_folder, run)]
    texts += ["", "  ", "The man reads. " * 90, "The man\tsees , the \x00 woman .", "a\r", "über 3 Frauen"]
    command = [sys.executable, "-m", "nmt.translate", f"checkpoint={run.path}", "format=jsonl", "search.n_best=2"]
    command += ["search.replace_unknown=copy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    text = "".join(f"{text}\n" for text in texts).encode()
    found = subprocess.run([*command, "device=cpu"], input=text, capture_output=True, env=environment, check=True)
    expected = [json.loads(line) for line in found.stdout.decode().split("\n")[:-1]]
    results = model.translate(texts, n_best=2, replace_unknown="copy")
    assert [result.text for result in results] == [line["translation"] for line in expected]
    assert [result.truncated for result in results] == [line["truncated"] for line in expected]
    assert [result.subwords for result in results] == [line["target_subwords"] for line in expected]
    assert [[t.text for t in r.n_best] for r in results] == [[t["text"] for t in line["n_best"]] for line in expected]
    scores = [[t.score for t in result.n_best] for result in results]
    assert scores == [pytest.approx([t["score"] for t in line["n_best"]], abs=1e-4) for line in expected]
    assert expected[-4]["parts"] > 1
    one = model.translate(texts[0], replace_unknown="copy")
    assert (one.text, len(one.n_best)) == (results[0].text, 1)
    assert one.score == pytest.approx(results[0].score, abs=1e-4)
    assert model.translate(iter(texts[:2]), replace_unknown="copy")[1].text == results[1].text
    assert model.translate([]) == []


def test_a_list_of_models_is_an_ensemble(in_folder: Path, run: Any, model: Any) -> None:
    both = nmt.load([run.path, f"{run.path}/checkpoints/last.pt"], beam_size=3)
    text = "The man reads a book."
    assert both.attention(text).weights.shape[:2] == (1, 1)
    same = nmt.load((run.path, run.path)).translate(text)
    assert same.text == model.translate(text).text
    assert same.score == pytest.approx(model.translate(text).score, abs=1e-4)


def test_options_of_the_search_are_those_of_the_model_or_of_the_call(in_folder: Path, run: Any, model: Any) -> None:
    text = "The man reads a book."
    greedy, wide = model.translate(text, beam_size=1), model.translate(text, beam_size=8, n_best=8)
    assert len(wide.n_best) > 2
    assert wide.score == wide.n_best[0].score == max(t.score for t in wide.n_best)
    loaded = nmt.load(run.path, beam_size=8, n_best=8)
    assert loaded.translate(text) == wide
    assert loaded.translate(text, beam_size=1, n_best=1) == greedy
    plain = model.translate(text, length_penalty=0)
    assert plain.score == plain.n_best[0].log_prob != greedy.score


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model: model.translate(5), TypeError, "5: a text is needed, or a list of texts"),
        (lambda model: model.translate(b"abc"), TypeError, "b'abc': a text is needed"),
        (lambda model: model.translate(["a", 5]), TypeError, "5: a text is needed"),
        (lambda model: model.translate(["a", b"b"]), TypeError, "b'b': a text is needed"),
        (lambda model: model.translate("a", beam=3), TypeError, "beam: unknown option; did you mean beam_size"),
        (lambda model: model.translate("a", beam_size="3"), TypeError, "beam_size='3': a whole number is needed"),
        (lambda model: model.translate("a", beam_size=2.5), TypeError, "beam_size=2.5: a whole number is needed"),
        (lambda model: model.translate("a", beam_size=0), ValueError, "search.beam_size=0: must be at least 1"),
        (lambda model: model.translate("a", prefix=5), ValueError, "prefix must be a text, not 5"),
        (lambda model: model.translate("a", prefix="\ud800"), ValueError, "prefix: the vocabulary writes '\ufffd' as"),
        (lambda model: model.translate("a", markup="yes"), ValueError, 'markup must be true or false, not "yes"'),
        (
            lambda model: model.translate("a", glossary=["b"]),
            TypeError,
            r"glossary: must be a file, or a .*, not \['b'\]",
        ),
        (
            lambda model: model.translate(["a", "<b>a"], markup=True),
            ValueError,
            "text 2: markup: <b> at character 1 is",
        ),
        (lambda model: model.attention("a", 5), TypeError, "one text is needed"),
        (lambda model: model.attention(["a", "b"]), TypeError, "one text is needed"),
        (lambda model: model.align(["a", "b"], ["c"]), ValueError, "2 source texts and 1 target texts"),
        (lambda model: nmt.load([]), ValueError, "the list is empty"),
        (lambda model: nmt.load("nowhere"), FileNotFoundError, "nowhere: no such file or run directory"),
        (lambda model: nmt.load(ROOT / "docs"), FileNotFoundError, "docs: the directory has no checkpoints/best.pt"),
        (lambda model: nmt.load(ROOT / "README.md"), ValueError, "README.md: .*not a checkpoint"),
        (lambda model: nmt.load(5), TypeError, "5: the path of a run"),
        (lambda model: nmt.Run(ROOT), FileNotFoundError, "no run directory; it has no config.yaml"),
        (lambda model: nmt.load(ROOT, device=0), ValueError, "device=0: must be auto, cpu, cuda"),
        (lambda model: nmt.load(ROOT, device="gpu"), ValueError, "device=gpu: must be auto, cpu, cuda"),
    ],
)
def test_wrong_arguments_are_errors_in_words(model: Any, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(model)


def test_attention_is_that_of_the_report(in_folder: Path, run: Any, model: Any) -> None:
    """With its own translation and with another, in every layer and head."""
    for i, row in enumerate(sentences(in_folder, run)):
        with np.load(run.path / "report/alignments.npz") as arrays:
            source, target, weights = (arrays[f"{i}.{name}"] for name in ("source", "target", "weights"))
        found = model.attention(row["source"])
        assert (found.source, found.target) == (source.tolist(), target.tolist())
        np.testing.assert_allclose(found.numpy(), weights, atol=1e-3)
        np.testing.assert_array_equal(np.asarray(found), found.numpy())
        given = model.attention(row["source"], "Der Mann Großmütter")
        assert given.target == ["Der", "Mann", "Großmütter", "</s>"]
        np.testing.assert_allclose(given.numpy().sum(-1), 1, rtol=1e-5)


def test_links_are_those_of_the_report(in_folder: Path, run: Any, model: Any) -> None:
    rows = sentences(in_folder, run)
    expected = (run.path / "report/reference_alignments.pharaoh").read_text().splitlines()
    found = model.align([row["source"] for row in rows], [row["reference"] for row in rows])
    assert [alignment.pharaoh for alignment in found] == expected
    first = model.align(rows[0]["source"], rows[0]["reference"])
    assert first == found[0]
    assert (first.source, first.target) == (rows[0]["source"].split(), rows[0]["reference"].split())
    assert first.links == [tuple(map(int, link.split("-"))) for link in expected[0].split()]
    assert model.align([], []) == []


@pytest.fixture
def attention() -> Any:
    """Attention of 2 layers, 3 heads, 4 target and 5 source subwords, one of them markup, and a source with a shift."""
    from nmt.alignment import AlignmentSource
    from nmt.api import AttentionMap

    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(5), (2, 3, 4)).astype(np.float32)
    target, source = ["<b>", "zwei", "drei", "</s>"], ["one", "&amp;", "three", "four", "</s>"]
    return AttentionMap(range(1, 3), range(1, 4), target, source, weights, AlignmentSource(2, 3, shift=1))


def test_layers_and_heads_are_counted_from_one(attention: Any) -> None:
    weights = attention.numpy()
    np.testing.assert_array_equal(attention[1, 2], weights[0, 1])
    np.testing.assert_allclose(attention[2], weights[1].mean(0), rtol=1e-6)
    np.testing.assert_allclose(attention[0], weights.mean((0, 1)), rtol=1e-6)
    for index in (3, -1, (1, 4), (3, 1)):
        with pytest.raises(IndexError, match=r"has \d, counted from 1"):
            attention[index]
    with pytest.raises(IndexError, match="give the layer too"):
        attention.plot(head=2)
    one_layer = dataclasses.replace(attention, layers=range(1, 2), weights=attention.weights[:1])
    assert one_layer.plot(head=2).get_suptitle() == "layer 1, head 2"
    text = repr(attention)
    for part in ("layers=range(1, 3)", "heads=range(1, 4)", "'zwei'", "'three'", "layer=2"):
        assert part in text


def test_a_plot_shows_the_matrix_with_its_labels(attention: Any) -> None:
    for call, matrix, title in (
        ({}, attention.weights[1, 2, 1:], "layer 2, head 3, shifted by one step"),
        ({"layer": 1, "head": 2}, attention.weights[0, 1], "layer 1, head 2"),
        ({"layer": 2, "head": 1}, attention.weights[1, 0], "layer 2, head 1"),
        ({"layer": 1}, attention.weights[0].mean(0), "layer 1, mean of its heads"),
    ):
        figure = attention.plot(**call)
        axes = figure.axes[0]
        np.testing.assert_allclose(axes.images[0].get_array(), matrix, rtol=1e-6)
        assert [label.get_text() for label in axes.get_xticklabels()] == attention.source
        assert [label.get_text() for label in axes.get_yticklabels()] == attention.target[: len(matrix)]
        assert figure.get_suptitle() == title
        assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows


def test_a_notebook_shows_a_table_without_matplotlib(attention: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = attention._repr_html_()
    rows = re.findall(r"<tr.*?</tr>", text, re.S)
    assert len(rows) == 1 + 3
    assert "<b>" not in text
    assert "&lt;b&gt;" in rows[1]
    assert "&amp;amp;" in rows[0]
    shades = [[float(x) for x in re.findall(r"rgba\(28,50,105,([\d.]+)\)", row)] for row in rows[1:]]
    np.testing.assert_allclose(shades, attention.weights[1, 2, 1:], atol=0.0051)
    assert not re.search(r"<script|https?:|url\(", text)
    with pytest.raises(ImportError, match="matplotlib"):
        attention.plot()


def test_a_model_with_other_attention(model: Any) -> None:
    source, target = "The man reads a book.", "Der Mann liest ein Buch."
    before = model.score(source, target).log_prob
    silenced = model.intervene(layer=1, head=1, weights="zero")
    assert not silenced.attention(source, target).numpy().any()
    assert silenced.score(source, target).log_prob != pytest.approx(before, abs=1e-4)
    chained = silenced.intervene(weights="uniform")
    own = model.attention(source, target)
    np.testing.assert_allclose(chained.attention(source, target)[1, 1], 1 / len(own.source), atol=1e-6)
    same = model.intervene(layer=1, head=1, weights=own[1, 1])
    assert same.score(source, target).log_prob == pytest.approx(before, abs=1e-4)
    alignment = model.align(source, target)._replace(links=[(4, 0), (0, 1), (1, 1)])
    moved = model.intervene(layer=1, weights="from_alignment", alignment=alignment).attention(source, target)
    words = alignment.target.index("Mann"), [alignment.source.index(word) for word in ("The", "man")]
    assert moved[1, 1][words[0]][words[1]].tolist() == pytest.approx([0.5, 0.5])
    assert moved[1, 1][0, 4:-1].sum() == pytest.approx(1)  # "book." and its full stop
    np.testing.assert_allclose(moved[1, 1][2].sum(), 1, atol=1e-5)
    assert moved[1, 1][2].max() < 0.99  # a word without link
    assert model.score(source, target).log_prob == before
    result = chained.translate(source)
    assert chained.translate(source).n_best[0].log_prob == result.n_best[0].log_prob
    for options, message in (
        ({"weights": "from_alignment"}, "alignment: is for weights=from_alignment, which needs what align"),
        ({"weights": "zero", "alignment": alignment}, "alignment: is for weights=from_alignment"),
        ({"weights": "from_alignment", "alignment": [(0, 0)]}, "alignment: is for weights=from_alignment"),
        ({"layer": 2, "weights": "zero"}, "layer=2: attention to the source has one layer; 0 is all"),
        (
            {"weights": "from_alignment", "alignment": alignment._replace(links=[(9, 0)])},
            "alignment: link 9-0: the source",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model.intervene(**options)
    short = model.intervene(weights=[[1.0]])
    with pytest.raises(
        RuntimeError, match=r"text 1: not translated: weights have 1 columns, and the source has \d+ sub"
    ):
        short.translate(source)
    with pytest.raises(ValueError, match="weights have 1 columns"):
        short.attention(source, target)
