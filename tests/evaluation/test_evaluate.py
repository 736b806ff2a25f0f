"""python -m nmt.evaluate and nmt.align on untrained models: files, agreement with the functions, and user errors."""

import contextlib
import dataclasses
import datetime
import io
import json
import logging
import operator
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nmt import align, checkpoint, evaluate, models, translate
from nmt.alignment import (
    AlignmentConfig,
    AlignmentSource,
    StoredAlignmentSource,
    alignment_error_rate,
    read_gold,
    read_pharaoh,
    symmetrize,
)
from nmt.alignment.markup import parse_markup, project, unit_weights, units
from nmt.cli.compose import run_command, to_dict
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig, TranslateConfig
from nmt.data import EOS, DataConfig, alignment_path, read_pairs, train_or_load_tokenizer
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.data.test_set_names import RESERVED_NAMES
from nmt.evaluation.breakdown import alignment_by_length, breakdown, word_frequencies
from nmt.evaluation.evaluator import Evaluator
from nmt.evaluation.metrics import MetricsConfig, corpus_score
from nmt.evaluation.report import ReportData
from nmt.evaluation.results import EvaluationInputs, load_test_sets
from nmt.evaluation.significance import bootstrap_intervals, paired_test
from nmt.evaluation.span_projection import span_score
from nmt.inference.translator import Translator
from nmt.search import SearchConfig

NUM_TEST, NUM_LONG = 40, 5
QUICK = [
    "num_threads=1",
    "device=cpu",
    "metrics.num_resamples=50",
    "alignment.head_importance_pairs=4",
    "search.beam_size=1",
]
MAINS: dict[str, tuple[Any, Any]] = {
    "evaluate": (evaluate.main, EvaluateConfig),
    "align": (align.main, AlignConfig),
    "translate": (translate.main, TranslateConfig),
}


def call(name: str, *arguments: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its standard error."""
    logger = logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            run_command(*MAINS[name], name, list(arguments))
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            logger.handlers = before
    return code, stderr.getvalue()


def data(folder: Path, *, reverse: bool = False) -> DataConfig:
    config = DataConfig(synthetic=SyntheticConfig(train=300, valid=20, test=NUM_TEST, long=NUM_LONG))
    config.cache_dir, config.tokenizer.type, config.tokenizer.vocab_size = str(folder / "cache"), "word", 500
    if reverse:
        config.source_lang, config.target_lang = "de", "en"
    return config


def make(
    folder: Path,
    name: str,
    *,
    seed: int = 1,
    score: str = "additive",
    reverse: bool = False,
    architecture: str = "rnn",
    repeated_word: str | None = None,
) -> None:
    """Create a run directory with a random model; `repeated_word` makes it repeat that word, or for "" end at once."""
    config = Config(name=name, data=data(folder, reverse=reverse), model=models.MODELS[architecture].config())
    config.search.max_length_ratio, config.search.max_length_offset = 1.0, 0
    for width in ("embedding_dim", "hidden_size", "d_model", "ffn_dim"):
        if hasattr(config.model, width):
            setattr(config.model, width, 32)
    config.model.attention.score, config.model.attention.heads = score, 1 if score == "none" else 2
    tokenizer = train_or_load_tokenizer(config.data)
    torch.manual_seed(seed)
    model = models.build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    if repeated_word is not None:
        with torch.no_grad():
            model.get_parameter("output.bias")[[*tokenizer.encode_target([repeated_word])[0], EOS][0]] = 100
    content = {"config": to_dict(config), "tokenizer": tokenizer.state_dict(), "model": model.state_dict()}
    path = folder / "runs" / name / "checkpoints/best.pt"
    path.parent.mkdir(parents=True)
    checkpoint.save(path, content)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create runs a, b, back (the other direction) and blind (no attention), and the test set t."""
    folder = tmp_path_factory.mktemp("work")
    make(folder, "a")
    make(folder, "b", seed=2, score="dot")
    make(folder, "back", reverse=True)
    make(folder, "blind", score="none")
    gold = alignment_path(data(folder), "test")
    assert gold is not None
    for suffix in ("en", "de", "gold"):
        (folder / f"t.{suffix}").write_bytes(gold.with_suffix(f".{suffix}").read_bytes())
    assert call("evaluate", f"checkpoint={folder / 'runs/b'}", *QUICK)[0] == 0
    return folder


@pytest.fixture
def cwd(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to the directory of `work`, and check that the test leaves no temporary files there."""
    monkeypatch.chdir(work)
    yield work
    assert [path for path in work.rglob("*") if path.name.endswith((".tmp", ".part", "~"))] == []


TEST = ["data=text", "data.test=t"]
ALIGN = ["checkpoint=runs/a", "source=t.en", "target=t.de", "num_threads=1", "device=cpu"]


def pairs(folder: Path) -> list[tuple[str, str]]:
    sides = [(folder / f"t.{language}").read_text("utf-8").split("\n")[:-1] for language in ("en", "de")]
    return list(zip(*sides, strict=True))


def test_every_number_of_an_evaluation_equals_that_of_its_function(cwd: Path) -> None:
    (cwd / "comet").write_text("\n".join(str(i / NUM_TEST) for i in range(NUM_TEST)))
    names = "metrics.names=[bleu,chrf,chrf++,ter]"
    arguments = ["baselines=[runs/b]", "external_scores=[comet:comet]", names, "data.test=t", "data=text"]
    arguments += ["alignment.decision=argmax"]  # as in head_alignment_scores.json
    code, output = call("evaluate", "checkpoint=runs/a", "output=out", *arguments, *QUICK)
    # b was evaluated on its own test set, not on t
    assert code == 1
    assert "runs/b/report-t/hypotheses.txt" in output
    arguments[0] = "baselines=[runs/b/report/hypotheses.txt]"
    code, output = call("evaluate", "checkpoint=runs/a", "output=out", *arguments, *QUICK)
    assert code == 0, output
    scores = json.loads((cwd / "out/scores.json").read_text("utf-8"))
    sources, references = map(list, zip(*pairs(cwd), strict=True))
    hypotheses = (cwd / "out/hypotheses.txt").read_text("utf-8").split("\n")[:-1]
    config = MetricsConfig(names=["bleu", "chrf", "chrf++", "ter"], num_resamples=50)
    for name, result in corpus_score(hypotheses, references, config).items():
        assert scores[name] == result._asdict()
    for name, interval in bootstrap_intervals(hypotheses, references, config).items():
        assert scores["intervals"][name] == interval._asdict()
    baseline_texts = (cwd / "runs/b/report/hypotheses.txt").read_text("utf-8").split("\n")[:-1]
    baseline = "runs/b/report/hypotheses.txt"
    for name, compared in paired_test({baseline: baseline_texts, "a": hypotheses}, references, config).items():
        systems = {system: row._asdict() for system, row in compared.systems.items()}
        assert scores["significance"][name] == {"signature": compared.signature, "systems": systems}
    counts = word_frequencies((pair.source for pair in read_pairs(data(cwd), "train")), sources)
    parts = breakdown(sources, hypotheses, references, config, counts)
    assert scores["rates"] == parts.rates._asdict()
    assert {category: list(buckets) for category, buckets in scores["buckets"].items()} == {
        category: list(buckets) for category, buckets in parts.buckets.items()
    }
    assert "rare_words" in scores["buckets"]
    assert scores["external"]["comet"]["score"] == pytest.approx((NUM_TEST - 1) / 2 / NUM_TEST)
    aligned = read_pharaoh(cwd / "out/reference_alignments.pharaoh", pairs(cwd))
    assert {name: scores["alignment"][name] for name in ("aer", "precision", "recall", "f1")} == alignment_error_rate(
        aligned, read_gold(cwd / "t.gold")
    )._asdict()
    gold = read_gold(cwd / "t.gold")
    by_length = alignment_by_length(sources, aligned, gold)
    assert scores["alignment"]["by_length"] == {bucket: score._asdict() for bucket, score in by_length.items()}
    assert scores["alignment"]["selected_by"] == "AER on the validation set"
    source = scores["alignment"]["alignment_source"]
    head_scores = json.loads((cwd / "out/head_alignment_scores.json").read_text("utf-8"))
    (selected,) = [row for row in head_scores if {**row, **source} == row]
    assert selected["aer"] == scores["alignment"]["aer"]
    rows = [json.loads(line) for line in (cwd / "out/sentences.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [row["hypothesis"] for row in rows] == hypotheses
    assert rows[3]["comet"] == 3 / NUM_TEST
    diagnostics = json.loads((cwd / "out/diagnostics.json").read_text("utf-8"))
    counts = {"layers": 1, "heads": 2, "num_sentences": NUM_TEST, "num_importance": 4}
    assert {name: diagnostics[name] for name in counts} == counts
    assert np.shape(diagnostics["importance"]) == (1, 2)
    assert "comet 0.4875" in output
    assert "layer  head  entropy" in output


def test_a_run_is_compared_on_each_of_its_test_sets(cwd: Path) -> None:
    code, output = call("evaluate", "checkpoint=runs/a", "baselines=[runs/b]", *QUICK)
    assert code == 0, output
    for folder, num in (("report", NUM_TEST), ("report/test_long", NUM_LONG)):
        scores = json.loads((cwd / "runs/a" / folder / "scores.json").read_text("utf-8"))
        assert list(scores["significance"]["bleu"]["systems"]) == ["runs/b", "a"]
        assert (cwd / "runs/a" / folder / "hypotheses.txt").read_bytes().count(b"\n") == num
    path = cwd / "runs/b/report/test_long/scores.json"
    before = path.read_text("utf-8")
    path.write_text(json.dumps(json.loads(before) | {"digests": {"sources": "of the text before"}}))
    code, output = call("evaluate", "checkpoint=runs/a", "baselines=[runs/b]", *QUICK)
    assert code == 1
    assert "test_long/hypotheses.txt: translations of another text; evaluate runs/b on test_long again" in output
    path.write_text(before)


def test_given_hypotheses_are_evaluated_instead_of_the_models(cwd: Path) -> None:
    code, output = call("evaluate", "checkpoint=runs/a", "hypotheses=t.de", "output=given", *TEST, *QUICK)
    assert code == 0, output
    scores = json.loads((cwd / "given/scores.json").read_text("utf-8"))
    assert scores["bleu"]["score"] == pytest.approx(100)
    assert scores["rates"]["exact_match"] == 1
    assert (cwd / "given/hypotheses.txt").read_bytes() == (cwd / "t.de").read_bytes()
    # they are the references, and so are their alignments
    assert (cwd / "given/alignments.pharaoh").read_bytes() == (cwd / "given/reference_alignments.pharaoh").read_bytes()


def test_markup_of_a_test_set_is_carried_over_and_measured(cwd: Path, tmp_path: Path) -> None:
    sides = [(cwd / f"t.{language}").read_text("utf-8").split("\n")[:-1] for language in ("en", "de")]
    for language, lines in zip(("en", "de"), sides, strict=True):
        text = [f"<a>{line.split(' ')[0]}</a> <b>{' '.join(line.split(' ')[1:])}</b>" for line in lines]
        (tmp_path / f"tagged.{language}").write_text("\n".join([*text, "<a>one <b>two</a></b>"]) + "\n", "utf-8")
    tagged, plain = f"markup={tmp_path}/tagged", "hypotheses=t.de"
    outputs = [tmp_path / name for name in ("own", "plain", "given")]
    assert call("evaluate", "checkpoint=runs/a", f"output={outputs[0]}", *TEST, *QUICK)[0] == 0
    code, output = call("evaluate", "checkpoint=runs/a", f"output={outputs[1]}", tagged, "data.format=text", *QUICK)
    assert code == 0, output
    code, output = call(
        "evaluate", "checkpoint=runs/a", f"output={outputs[2]}", tagged, plain, "data.format=text", *QUICK
    )
    assert code == 0, output
    scores = [json.loads((path / "scores.json").read_text("utf-8")) for path in outputs]
    assert scores[1]["bleu"] == scores[0]["bleu"]  # as of the text without tags
    assert "spans" not in scores[0]
    own, given = (result["spans"] for result in scores[1:])
    assert own["references"] == given["references"]
    assert own["references"]["num_spans"] == given["output"]["num_spans"] == 2 * NUM_TEST
    assert given["output"]["exact"] >= given["references"]["exact"]  # texts may be alike in other places
    assert own["output"] != given["output"]
    shape = json.loads((outputs[1] / "diagnostics.json").read_text("utf-8"))["measures"]["entropy"]
    assert len(own["heads"]) == 1 + len(shape) * (1 + len(shape[0]))
    # the same by hand, of the mean of all layers and heads
    translator = Translator.from_checkpoint(
        checkpoint.load(cwd / "runs/a/checkpoints/best.pt"), None, torch.device("cpu")
    )
    projected = []
    tagged_lines = ((tmp_path / f"tagged.{name}").read_text("utf-8").split("\n")[:-2] for name in ("en", "de"))
    for source, target in zip(*tagged_lines, strict=True):
        marked, human = parse_markup(source), parse_markup(target)
        (ids,), (target_ids,) = translator.encode_pairs([(marked.text, human.text)])
        ((_, weights),) = translator.attention_weights([ids], [target_ids])
        offsets = translator.tokenizer.offsets(marked.text, ids, human.text, target_ids)
        matrix = unit_weights(weights.mean((0, 1)), *offsets, marked.units(), units(human.text))
        projected.append((project(marked, human.text, matrix), human))
    expected = span_score(projected)._asdict()
    assert own["heads"][0] == pytest.approx({"layer": 0, "head": 0, **expected}, abs=0.02)


@pytest.mark.parametrize(
    ("lines", "options", "sentence"),
    [
        ("a b\n", [], "no line of .* has well-formed tags of one name on both sides"),
        ("<a></a> <b/>\n", [], "no line of .* has well-formed tags of one name on both sides"),
        ("<a>b</a>\n", TEST, "takes the place of data.test; give one of the two"),
    ],
)
def test_markup_that_cannot_be_measured(
    cwd: Path, tmp_path: Path, lines: str, options: list[str], sentence: str
) -> None:
    for language in ("en", "de"):
        (tmp_path / f"tagged.{language}").write_text(lines, "utf-8")
    arguments = [f"markup={tmp_path}/tagged", "data.format=text", f"output={tmp_path}/out", *options, *QUICK]
    code, output = call("evaluate", "checkpoint=runs/a", *arguments)
    assert code != 0
    assert re.search(sentence, output), output
    assert "Traceback" not in output
    assert not (tmp_path / "out").exists()


def test_options_take_effect(cwd: Path) -> None:
    options = [
        "metrics.num_resamples=0",
        "metrics.breakdown=false",
        "alignment.head_importance_pairs=0",
        "alignment.layer=1",
    ]
    options += ["alignment.head=2", "alignment.shift=1", "alignment.decision=argmax", "alignment.allow_null=false"]
    code, output = call("evaluate", "checkpoint=runs/a", "output=plain", *TEST, *QUICK, *options)
    assert code == 0, output
    scores = json.loads((cwd / "plain/scores.json").read_text("utf-8"))
    assert set(scores) == {"bleu", "chrf", "digests", "alignment_source", "alignment"}
    assert (
        scores["alignment_source"]
        == scores["alignment"]["alignment_source"]
        == {"layer": 1, "head": 2, "shift": 1, "null": False, "threshold": 0}
    )
    assert scores["alignment"]["selected_by"] == "the options"
    assert json.loads((cwd / "plain/diagnostics.json").read_text("utf-8"))["importance"] is None


def test_empty_hypotheses_are_counted_and_scored(cwd: Path) -> None:
    lines = (cwd / "t.de").read_bytes().split(b"\n")
    lines[3], lines[6] = b"", "\u200b".encode()  # which only looks empty
    (cwd / "gaps").write_bytes(b"\n".join(lines))
    code, output = call("evaluate", "checkpoint=runs/a", "hypotheses=gaps", "output=given", *TEST, *QUICK)
    assert code == 0, output
    assert "gaps: 2 of 40 hypotheses are empty (line 4, 7)" in output
    scores = json.loads((cwd / "given/scores.json").read_text("utf-8"))
    assert scores["rates"]["empty"] == pytest.approx(2 / NUM_TEST)
    facts = re.findall("<bdi>(.*?)</bdi>", (cwd / "given/report.html").read_text("utf-8"))
    tensors = checkpoint.load(cwd / "runs/a/checkpoints/best.pt")["model"].values()
    size = sum({tensor.data_ptr(): tensor.numel() for tensor in tensors}.values())  # tied ones once
    assert facts[:3] == ["en → de", "rnn, additive attention with 2 heads", f"{size:,} parameters"]
    assert facts[3:] == [f"evaluated on cpu, {datetime.date.today().isoformat()}", "hypotheses of gaps"]
    (cwd / "nothing").write_bytes(b"\n" * NUM_TEST)
    code, output = call("evaluate", "checkpoint=runs/a", "hypotheses=nothing", "output=given", *TEST, *QUICK)
    assert code == 0, output
    assert json.loads((cwd / "given/scores.json").read_text("utf-8"))["bleu"]["score"] == 0


ODD = [("the", "der"), (".", "."), ("", "ein Hund"), ("a dog", ""), ("", ""), (" ", "  "), ("? !", ". ,")]


@pytest.mark.parametrize(
    ("architecture", "word", "num"),
    [("rnn", "", len(ODD)), ("rnn", ".", 1), ("transformer", "", 1), ("transformer", "", 3), ("transformer", ".", 7)],
)
def test_degenerate_hypotheses_of_degenerate_sources(
    work: Path, tmp_path: Path, architecture: str, word: str, num: int
) -> None:
    make(tmp_path, "odd", architecture=architecture, repeated_word=word)
    for side, suffix in enumerate(("en", "de")):
        (tmp_path / f"odd.{suffix}").write_text("".join(f"{pair[side]}\n" for pair in ODD[:num]))
    if architecture == "rnn":
        (tmp_path / "odd.gold").write_text("0-0\n" + "\n" * (num - 1))
    test = ["data=text", f"data.test={tmp_path / 'odd'}", f"output={tmp_path / 'out'}"]
    code, output = call("evaluate", f"checkpoint={tmp_path / 'runs/odd'}", *test, *QUICK)
    assert code == 0, output
    hypotheses = (tmp_path / "out/hypotheses.txt").read_text("utf-8").split("\n")[:-1]
    assert len(hypotheses) == num
    assert {token for text in hypotheses for token in text.split()} <= {word, "<unk>"}
    found = json.loads((tmp_path / "out/diagnostics.json").read_text("utf-8"))
    assert found["num_sentences"] == num
    has_rows = any(hypotheses)
    assert (found["measures"]["entropy"][0][0] is not None) == has_rows
    assert "report.html" in output


def test_a_model_without_attention_is_evaluated_without_alignments(cwd: Path) -> None:
    code, output = call("evaluate", "checkpoint=runs/blind", "output=blind", *TEST, *QUICK)
    assert code == 0, output
    assert "This model has no attention: there are no alignments." in output
    assert not {"alignments.npz", "alignments.pharaoh", "diagnostics.json"} & {
        path.name for path in (cwd / "blind").iterdir()
    }


def test_heat_maps_of_another_model_are_removed(cwd: Path) -> None:
    assert call("evaluate", "checkpoint=runs/a", "output=mixed", *TEST, *QUICK)[0] == 0
    assert len(list((cwd / "mixed/heatmaps").glob("*.png"))) == 1
    assert call("evaluate", "checkpoint=runs/blind", "output=mixed", *TEST, *QUICK)[0] == 0
    assert list((cwd / "mixed").rglob("*.png")) == []


def test_the_alignment_source_is_reported_without_gold_too(cwd: Path) -> None:
    for suffix in ("en", "de"):
        shutil.copy(cwd / f"t.{suffix}", cwd / f"plain.{suffix}")
    given = ["data=text", "data.test=plain", "output=no_gold", *QUICK]
    assert call("evaluate", "checkpoint=runs/a", *given, "alignment.layer=1", "alignment.head=2")[0] == 0
    scores = json.loads((cwd / "no_gold/scores.json").read_text("utf-8"))
    assert "alignment" not in scores
    assert (scores["alignment_source"]["layer"], scores["alignment_source"]["head"]) == (1, 2)


def test_extra_test_sets_are_evaluated_when_named(cwd: Path) -> None:
    code, output = call("evaluate", "checkpoint=runs/a", *TEST, "data.extra_tests=[t]", "output=two", *QUICK)
    assert code == 0, output
    assert (cwd / "two/t/scores.json").read_bytes() == (cwd / "two/scores.json").read_bytes()
    for folder, other in (("two", "two/t"), ("two/t", "two")):  # their pages link to each other
        page = (cwd / folder / "report.html").read_text("utf-8")
        (address,) = re.findall(r'href="([^"#]+)"', page)
        assert (cwd / folder / address).samefile(cwd / other / "report.html")
    assert call("evaluate", "checkpoint=runs/a", *TEST, "output=one", *QUICK)[0] == 0
    assert not list((cwd / "one").glob("*/scores.json"))


def folders_of(path: Path) -> dict[str, int]:
    """Return the folder of each report below a path, and its number of sentences."""
    return {
        str(file.parent.relative_to(path)): file.read_bytes().count(b"\n") for file in path.rglob("sentences.jsonl")
    }


def test_sets_of_one_file_name_have_a_report_each(cwd: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a/test", "b/test", "heatmaps"), start=2):
        for suffix in ("en", "de"):
            (path := tmp_path / f"{name}.{suffix}").parent.mkdir(exist_ok=True)
            path.write_bytes(b"".join((cwd / f"t.{suffix}").read_bytes().splitlines(keepends=True)[:number]))
    extra = f"data.extra_tests=[{tmp_path}/a/test,{tmp_path}/b/test,{tmp_path}/heatmaps]"
    code, output = call("evaluate", "checkpoint=runs/a", *TEST, extra, f"output={tmp_path}/out", *QUICK)
    assert code == 0, output
    other = f"{tmp_path.name}-heatmaps"
    assert folders_of(tmp_path / "out") == {".": NUM_TEST, "a-test": 2, "b-test": 3, other: 4}
    for name in ("a-test", "b-test"):
        assert f"{name}: bleu " in output
        assert f"{name}: {tmp_path}/out/{name}/report.html" in output
        page = (tmp_path / f"out/{name}/report.html").read_text("utf-8")
        assert f'<h1 dir="auto">{name}: ' in page
        assert f'<th scope="row">{name}</th>' in page  # in its table of the data
    held = {path.name for path in (tmp_path / "out").iterdir()}
    of_several_directions = {"languages.html", "languages.json"}
    splits = {"train", "valid", "test"}
    assert held - {"a-test", "b-test", other} == set(RESERVED_NAMES) - splits - of_several_directions


def test_another_set_of_the_same_name_does_not_replace_a_report(cwd: Path, tmp_path: Path) -> None:
    make(tmp_path, "c")
    run = tmp_path / "runs/c"
    given = [f"checkpoint={run}", "data=text", *QUICK]
    for number, name in enumerate(("a/s", "b/s"), start=2):
        for suffix in ("en", "de"):
            (path := tmp_path / f"{name}.{suffix}").parent.mkdir(exist_ok=True)
            path.write_bytes(b"".join((cwd / f"t.{suffix}").read_bytes().splitlines(keepends=True)[:number]))
    for name in ("a/s", "b/s", "a/s"):
        assert call("evaluate", f"data.test={tmp_path}/{name}", *given)[0] == 0
    assert folders_of(run) == {"report-s": 2, "report-b-s": 3}
    # a baseline is the report of the same set
    code, output = call("evaluate", f"data.test={tmp_path}/b/s", f"baselines=[{run}]", *given, f"output={tmp_path}/o")
    assert code == 0, output
    for name in ("a/s", "b/s", "a/s"):
        files = [f"source={tmp_path}/{name}.en", f"target={tmp_path}/{name}.de"]
        assert call("align", f"checkpoint={run}", *files, "num_threads=1", "device=cpu")[0] == 0
    lines = {path.parent.name: path.read_bytes().count(b"\n") for path in run.glob("align-*/alignments.pharaoh")}
    assert lines == {"align-s": 2, "align-b-s": 3}


def test_an_evaluation_stores_the_alignment_source_in_the_checkpoint(
    cwd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(cwd / "runs/a/checkpoints", folder)
    path, hard_link, content = folder / "best.pt", folder / "best-000010.pt", checkpoint.load(folder / "best.pt")
    os.link(path, hard_link)
    before = Translator.from_checkpoint(content, None, torch.device("cpu"))
    assert before.stored_source == StoredAlignmentSource()
    config = data(cwd)
    sets = load_test_sets(config)[:1]
    options = AlignmentConfig(layer="1", head="2", decision="threshold", threshold=0.05, head_importance_pairs=0)
    heat_maps: list[tuple[Any, str]] = []
    monkeypatch.setattr(
        "nmt.evaluation.report_writer.heatmap.save_heatmap",
        lambda _, rows, *names, title: heat_maps.append((rows, title)) or [],
    )
    inputs = [EvaluationInputs(hypotheses=[pair.target for pair in sets[0].pairs])]
    quick = MetricsConfig(num_resamples=0, breakdown=False)
    (result,) = Evaluator(before, quick, options, config).evaluate_sets(
        sets, folder / "out", ReportData(notes=["A note."]), inputs, checkpoint_path=path
    )
    assert result.alignment is not None
    selection = result.alignment.selection
    assert hard_link.samefile(path)
    stored = checkpoint.load(path)
    assert selection.source.threshold == 0.05
    assert stored.pop("alignment_source") == {**selection.source._asdict(), "by": selection.selected_by}
    assert stored.pop("notes") == ["A note."]
    assert stored.keys() == content.keys()
    assert all(torch.equal(tensor, stored["model"][name]) for name, tensor in content["model"].items())
    # from now on, alignments from this checkpoint are those of the evaluation
    after = Translator.from_checkpoint(checkpoint.load(path), None, torch.device("cpu"))
    assert after.links(sets[0].pairs) == result.alignment.links != before.links(sets[0].pairs)
    ((rows, title),) = heat_maps
    assert title == str(selection.source).removesuffix(", links of weight 0.05 and more") != str(selection.source)
    sources, targets = ([pair[side] for pair in sets[0].pairs[:1]] for side in (0, 1))
    ids = before.tokenizer.encode_source(sources), before.tokenizer.encode_target(targets)
    ((_, weights),) = before.attention_weights(*ids)
    np.testing.assert_allclose(rows, weights[0, 1, selection.source.shift :], atol=1e-6)
    # without the validation set, an evaluation uses the stored alignment source
    modified = path.stat().st_mtime_ns
    without_validation = dataclasses.replace(config, format="text", valid=str(folder / "gone"))
    (repeated,) = Evaluator(after, quick, data=without_validation).evaluate_sets(
        sets, folder / "out", ReportData(), inputs
    )
    assert repeated.alignment is not None
    assert repeated.alignment.selection.source == selection.source
    assert repeated.alignment.selection.selected_by == f"{selection.selected_by}, when it was trained"
    checkpoint.update_metadata(
        path, {"alignment_source": StoredAlignmentSource(selection.source, selection.selected_by).to_dict()}
    )
    assert path.stat().st_mtime_ns == modified


def test_an_ensemble_is_evaluated_with_the_attention_of_its_first_model_that_has_any(cwd: Path) -> None:
    code, output = call("evaluate", "checkpoint=[runs/blind,runs/a]", *TEST, *QUICK)
    assert (code, output.count("error:")) == (1, 1)
    assert "output: must be given, as output=FOLDER: an ensemble's report belongs to no single run" in output
    both = ["checkpoint=[runs/blind,runs/a]", "output=both"]
    for given in (both, ["checkpoint=runs/a", "output=alone"]):
        code, output = call("evaluate", *given, *TEST, *QUICK, "search.beam_size=2")
        assert code == 0, output
    contents = [checkpoint.load(cwd / f"runs/{name}/checkpoints/best.pt") for name in ("blind", "a")]
    search = SearchConfig(beam_size=2, max_length_ratio=1.0, max_length_offset=0)
    ensemble = Translator.from_checkpoints(contents, search, torch.device("cpu"))
    texts = [translation.text for translation in ensemble.translate([source for source, _ in pairs(cwd)])]
    assert (cwd / "both/hypotheses.txt").read_text("utf-8").split("\n")[:-1] == texts
    for name in ("reference_alignments.pharaoh", "head_alignment_scores.json"):
        assert (cwd / "both" / name).read_bytes() == (cwd / "alone" / name).read_bytes()
    page = (cwd / "both/report.html").read_text("utf-8")
    assert "Alignments and everything about attention are those of model 2 of the ensemble." in page
    assert "blind + a" in page
    facts = re.findall("<bdi>(.*?)</bdi>", page)
    assert facts[1:4] == ["ensemble of 2", "rnn, no attention", "rnn, additive attention with 2 heads"]
    assert ensemble.describe(AlignmentSource(1, 2)) == "layer 1, head 2, of model 2 of the ensemble"


def test_references_in_another_order_cause_a_warning(cwd: Path, tmp_path: Path) -> None:
    (tmp_path / "s.en").write_bytes((cwd / "t.en").read_bytes())
    lines = (cwd / "t.de").read_bytes().split(b"\n")[:-1]
    (tmp_path / "s.de").write_bytes(b"\n".join(lines[1:] + lines[:1]) + b"\n")
    test = ["data=text", f"data.test={tmp_path / 's'}", f"output={tmp_path / 'out'}"]
    code, output = call("evaluate", "checkpoint=runs/a", *test, *QUICK)
    assert code == 0, output
    assert "are the references in another order" in output
    files = [f"source={tmp_path / 's.en'}", f"target={tmp_path / 's.de'}", f"output={tmp_path / 'aligned'}"]
    code, output = call("align", *ALIGN, *files)
    assert code == 0, output
    assert "is one of them in another order?" in output


def test_tags_are_carried_over_to_given_translations(cwd: Path, tmp_path: Path) -> None:
    lines = [f"<a>{source.split(' ')[0]}</a> & {source}" for source, _ in pairs(cwd)]
    (tmp_path / "tagged.en").write_text("\n".join(["<a>crossing <b>tags</a></b>", *lines[1:]]) + "\n", "utf-8")
    options = [f"source={tmp_path}/tagged.en", "target=t.de", "markup=true", "formats=[pharaoh]", "device=cpu"]
    texts = []
    for name, further in (("one", []), ("both", ["reverse=runs/back"])):
        code, output = call("align", "checkpoint=runs/a", *options, f"output={tmp_path}/{name}", *further)
        assert code == 0, output
        assert "line 1: the target gets no tags: markup: </a> at character 20 crosses <b>" in output
        tagged = (tmp_path / name / "tagged.txt").read_text("utf-8").split("\n")[:-1]
        records = [json.loads(line) for line in (tmp_path / name / "spans.jsonl").read_text("utf-8").splitlines()]
        assert [parse_markup(text).text for text in tagged] == [target for _, target in pairs(cwd)]
        assert [len(parse_markup(text).tags) for text in tagged] == [0, *[1] * (NUM_TEST - 1)]
        assert "error" in records[0]
        for text, record in zip(tagged[1:], records[1:], strict=True):
            (tag,), (span,) = parse_markup(text).tags, record["spans"]
            assert (tag.start, tag.end) == (span["start"], span["end"])
        texts.append(tagged)
    assert texts[0] != texts[1]  # the other direction counts too


def test_translations_with_tags_are_those_that_given_translations_get(cwd: Path, tmp_path: Path) -> None:
    lines = [f"<a>{source.split(' ')[0]}</a> & {source} <b>{source.split(' ')[-1]}</b>" for source, _ in pairs(cwd)]
    (tmp_path / "tagged.en").write_text("\n".join(lines) + "\n", "utf-8")
    found = []
    for number, further in enumerate(([], ["reverse=runs/back"])):
        files = [f"input={tmp_path}/tagged.en", f"output={tmp_path}/{number}.de", "search.replace_unknown=forbid"]
        options = ["checkpoint=runs/a", "markup=true", "device=cpu", *further]
        code, output = call("translate", *options, *files)
        assert code == 0, output
        tagged = (tmp_path / f"{number}.de").read_text("utf-8").split("\n")[:-1]
        (tmp_path / "plain.de").write_text("".join(f"{parse_markup(line).text}\n" for line in tagged), "utf-8")
        files = [f"source={tmp_path}/tagged.en", f"target={tmp_path}/plain.de", f"output={tmp_path}/{number}"]
        code, output = call("align", *options, *files, "alignment.layer=mean", "alignment.shift=0")
        assert code == 0, output
        given = (tmp_path / f"{number}/tagged.txt").read_text("utf-8").split("\n")[:-1]
        both = [[parse_markup(line) for line in lines] for lines in (tagged, given)]
        # a model of random weights repeats words, with nearly equal weights in several places
        of_translate, of_align = ([(t.text, [t.text[x.start : x.end] for x in t.tags]) for t in side] for side in both)
        assert [text for text, _ in of_translate] == [text for text, _ in of_align]
        assert sum(map(operator.eq, of_translate, of_align)) > 0.9 * NUM_TEST
        found.append(of_translate)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["reverse=runs/back"], "reverse=runs/back: is for markup; set markup=true, or leave it out"),
        (["reverse=runs/b", "markup=true"], "reverse=runs/b: translates en into de"),
        (["reverse=runs/nowhere", "markup=true"], "runs/nowhere"),
    ],
)
def test_the_other_direction_has_to_be_one(cwd: Path, tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "a.en").write_text("a\n", "utf-8")
    files = [f"input={tmp_path}/a.en", f"output={tmp_path}/a.de"]
    code, output = call("translate", "checkpoint=runs/a", "device=cpu", *options, *files)
    assert code != 0
    assert message in output
    assert "Traceback" not in output


def test_alignments_of_given_text(cwd: Path) -> None:
    code, output = call("align", *ALIGN, "gold=t.gold", "output=aligned")
    assert code == 0, output
    assert {path.name for path in (cwd / "aligned").iterdir()} == {
        *(f"alignments.{kind}" for kind in ("pharaoh", "npz", "jsonl", "parquet")),
        "scores.json",
    }
    found = read_pharaoh(cwd / "aligned/alignments.pharaoh", pairs(cwd))
    expected = alignment_error_rate(found, read_gold(cwd / "t.gold"))
    scores = json.loads((cwd / "aligned/scores.json").read_text("utf-8"))["alignments"]
    assert {name: scores[name] for name in expected._fields} == expected._asdict()
    assert f"AER {100 * expected.aer:.1f} %, precision {expected.precision:.3f}" in output
    # the same command without files takes the run's test set, which is t
    code, output = call("align", "checkpoint=runs/a", "formats=[pharaoh]", "num_threads=1", "device=cpu")
    assert code == 0, output
    assert (cwd / "runs/a/align-test/alignments.pharaoh").read_bytes() == (
        cwd / "aligned/alignments.pharaoh"
    ).read_bytes()
    assert {path.name for path in (cwd / "runs/a/align-test").iterdir()} == {"alignments.pharaoh", "scores.json"}


@pytest.mark.parametrize("method", ["intersection", "grow-diag-final-and"])
def test_both_directions_are_symmetrized(cwd: Path, method: str) -> None:
    code, output = call("align", *ALIGN, "gold=t.gold", "reverse=runs/back", f"symmetrize={method}", "output=both")
    assert code == 0, output
    texts = pairs(cwd)
    files = {name: read_pharaoh(cwd / f"both/{name}.pharaoh", texts) for name in ("forward", "reverse", "alignments")}
    swapped = ["checkpoint=runs/back", "source=t.de", "target=t.en", "output=swapped", "formats=[pharaoh]"]
    assert call("align", *swapped, "num_threads=1", "device=cpu")[0] == 0
    swapped_links = read_pharaoh(cwd / "swapped/alignments.pharaoh")
    assert [[(i, j) for j, i in links] for links in swapped_links] == files["reverse"]
    for forward, reverse, joined in zip(files["forward"], files["reverse"], files["alignments"], strict=True):
        assert joined == symmetrize(forward, reverse, method)
    scores = json.loads((cwd / "both/scores.json").read_text("utf-8"))
    for name, found in files.items():
        assert scores[name]["aer"] == alignment_error_rate(found, read_gold(cwd / "t.gold")).aer


def without_validation_set(folder: Path) -> Path:
    """Return a checkpoint of a run whose validation set does not exist."""
    content = checkpoint.load(folder / "runs/a/checkpoints/best.pt")
    content["config"]["data"] |= {"format": "text", "valid": str(folder / "gone"), "train": str(folder / "gone")}
    checkpoint.save(folder / "moved.pt", content)
    return folder / "moved.pt"


def test_without_validation_set_the_source_is_selected_by_agreement_not_by_the_gold_of_the_test(cwd: Path) -> None:
    path = without_validation_set(cwd)
    code, output = call("align", f"checkpoint={path}", *ALIGN[1:], "gold=t.gold", "output=moved")
    assert code == 0, output
    assert "the validation set is not there any more" in output
    content = checkpoint.load(path)
    content["config"]["data"] |= {
        "format": "hub",
        "hf_dataset": str(cwd / "gone"),
        "train": "train",
        "valid": "validation",
    }
    checkpoint.save(cwd / "hub.pt", content)
    code, output = call("align", f"checkpoint={cwd / 'hub.pt'}", *ALIGN[1:], "gold=t.gold", "output=moved")
    assert code == 0, output
    assert "the validation set is not there any more" in output
    chosen = json.loads((cwd / "moved/scores.json").read_text("utf-8"))["alignments"]["selected_by"]
    assert chosen == "agreement with a lexical aligner on the text itself"
    code, output = call("evaluate", f"checkpoint={path}", "output=moved_too", *TEST, *QUICK)
    assert code == 0, output
    assert "no scores by rare words: the training text cannot be read as it was" in output
    assert "rare_words" not in json.loads((cwd / "moved_too/scores.json").read_text("utf-8"))["buckets"]


def changed(path: Path, change: Callable[[list[bytes]], None]) -> str:
    """Write a copy of a file with changed lines; return its path."""
    content = path.read_bytes().split(b"\n")[:-1]
    change(content)
    bad = path.with_name("bad")
    bad.write_bytes(b"\n".join(content) + b"\n")
    return str(bad)


MISTAKES: dict[str, tuple[str, Callable[[Path], list[str]], list[str]]] = {
    "gold beyond the sentence": (
        "align",
        lambda folder: [f"gold={changed(folder / 't.gold', lambda rows: rows.__setitem__(1, b'0-0 99-0'))}"],
        ["bad, line 2: link 99-0 points beyond a sentence of"],
    ),
    "gold of another length": (
        "align",
        lambda folder: [f"gold={changed(folder / 't.gold', lambda rows: rows.pop())}"],
        ["bad: 39 lines for 40 sentence pairs"],
    ),
    "gold that is text": ("align", lambda folder: ["gold=t.de"], ["t.de, line 1:", "is not a link"]),
    "no gold": ("align", lambda folder: ["gold=none.gold"], ["none.gold", "No such file"]),
    "sides of another length": (
        "align",
        lambda folder: [f"target={changed(folder / 't.de', lambda rows: rows.pop())}"],
        ["t.en has 40 lines", "bad has 39"],
    ),
    "no attention": ("align", lambda folder: ["checkpoint=runs/blind"], ["runs/blind: this model has no attention"]),
    "no attention in reverse": ("align", lambda folder: ["reverse=runs/blind"], ["translates en into de", "runs/a"]),
    "the same direction": ("align", lambda folder: ["reverse=runs/b"], ["reverse=runs/b: translates en into de"]),
    "one side only": ("align", lambda folder: ["target=null"], ["target: must be given beside source"]),
    "nothing but a byte-order mark": (
        "align",
        lambda folder: [f"source={_byte_order_mark(folder)}", f"target={_byte_order_mark(folder)}"],
        ["mark: the file is empty"],
    ),
    "an unknown method": ("align", lambda folder: ["symmetrize=grow"], ["symmetrize=grow: must be one of inter"]),
    "an unknown kind of file": ("align", lambda folder: ["formats=[csv]"], ["formats=csv: must be one of pharaoh"]),
    "a layer that is not there": ("align", lambda folder: ["alignment.layer=2"], ["alignment.layer=2: attention to"]),
    "a taken output": ("align", lambda folder: ["output=t.en"], ["t.en"]),
    "a missing line": (
        "evaluate",
        lambda folder: [f"hypotheses={changed(folder / 't.de', lambda rows: rows.pop(7))}"],
        ["bad: 39 lines for the 40 sentences of"],
    ),
    "an empty file": ("evaluate", lambda folder: [f"hypotheses={_empty(folder)}"], ["the file is empty"]),
    "no hypotheses": ("evaluate", lambda folder: ["hypotheses=none"], ["none: no such file"]),
    "scores of another length": (
        "evaluate",
        lambda folder: ["external_scores=[comet:t.gold]"],
        ["t.gold, line 1", "number"],
    ),
    "a name that is taken": (
        "evaluate",
        lambda folder: ["external_scores=[bleu:t.gold]"],
        ["external_scores=bleu:t.gold: must be NAME:FILE"],
    ),
    "a baseline never evaluated": ("evaluate", lambda folder: ["baselines=[runs/back]"], ["evaluate runs/back on"]),
}


def _empty(folder: Path) -> Path:
    (folder / "empty").write_bytes(b"")
    return folder / "empty"


def _byte_order_mark(folder: Path) -> Path:
    (folder / "mark").write_bytes(b"\xef\xbb\xbf")
    return folder / "mark"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_user_error_is_one_line(mistake: str, cwd: Path) -> None:
    name, make_arguments, expected = MISTAKES[mistake]
    arguments = make_arguments(cwd)
    keys = {argument.partition("=")[0] for argument in arguments}
    base = ALIGN if name == "align" else ["checkpoint=runs/a", *TEST, *QUICK]
    base = [*(item for item in base if item.partition("=")[0] not in keys), *arguments]
    base += [] if "output" in keys else ["output=never"]
    before = (cwd / "t.en").read_bytes()
    code, output = call(name, *base)
    last = output.splitlines()[-1]
    assert (code, last[:7]) == (1, "error: "), output
    assert output.count("error:") == 1
    assert "Traceback" not in output
    assert [words for words in expected if words not in last] == [], last
    assert not (cwd / "never").exists()
    assert (cwd / "t.en").read_bytes() == before


def test_a_file_of_hypotheses_fits_one_test_set(cwd: Path) -> None:
    code, output = call("evaluate", "checkpoint=runs/a", "hypotheses=t.de", "output=never", *QUICK)
    assert code == 1
    assert (
        "error: hypotheses=t.de: a file is of one test set and there are 2 (test, test_long): give data.test" in output
    )


def test_names_of_external_scores_are_those_of_nothing_else(cwd: Path) -> None:
    (cwd / "numbers").write_text("0.5\n" * NUM_TEST)
    for given, name in (("[source:numbers]", "source"), ("[comet:numbers,comet:numbers]", "comet")):
        code, output = call("evaluate", "checkpoint=runs/a", f"external_scores={given}", "output=never", *TEST, *QUICK)
        assert code == 1
        assert f"error: external_scores={name}:numbers: {name} is taken; choose another name" in output
        assert not (cwd / "never").exists()


def test_help_and_configuration_name_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("align", "--help")[0] == 0
    output = capsys.readouterr().out
    assert "python -m nmt.align checkpoint=" in output
    assert call("align", "--cfg", "job")[0] == 0
    shown = capsys.readouterr().out
    for name in ("symmetrize: grow-diag-final-and", "selection_pairs: 1000", "layer: auto", "formats:", "gold: null"):
        assert name in shown


def test_an_untrained_model_aligns_no_better_than_chance(cwd: Path) -> None:
    code, output = call("align", *ALIGN, "gold=t.gold", "output=chance", "formats=[pharaoh]")
    assert code == 0, output
    assert json.loads((cwd / "chance/scores.json").read_text("utf-8"))["alignments"]["aer"] > 0.7
