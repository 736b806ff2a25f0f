"""python -m nmt.evaluate and nmt.align on untrained models: files, agreement, and what a mistake costs."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nmt import align, checkpoint, evaluate, models
from nmt.alignment import (
    AlignmentConfig,
    AlignmentSource,
    StoredAlignmentSource,
    alignment_error_rate,
    read_gold,
    read_pharaoh,
    symmetrize,
)
from nmt.cli.compose import run_command, to_dict
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig
from nmt.data import EOS, DataConfig, alignment_path, read_pairs, train_or_load_tokenizer
from nmt.evaluation.breakdown import alignment_by_length, breakdown, word_frequencies
from nmt.evaluation.evaluator import About, evaluate_sets
from nmt.evaluation.metrics import MetricsConfig
from nmt.evaluation.metrics import corpus_score as corpus_score
from nmt.evaluation.results import EvaluationInputs, load_test_sets
from nmt.evaluation.significance import bootstrap_intervals, paired_test
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
MAINS: dict[str, tuple[Any, Any]] = {"evaluate": (evaluate.main, EvaluateConfig), "align": (align.main, AlignConfig)}


def call(name: str, *arguments: str) -> tuple[int, str]:
    """The exit code of a command called in this process, and what it said."""
    logger = logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            run_command(*MAINS[name], name, list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, said.getvalue()


def data(folder: Path, *, reverse: bool = False) -> DataConfig:
    config = DataConfig(builtin_pairs=300, builtin_valid=20, builtin_test=NUM_TEST, builtin_long=NUM_LONG)
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
    says: str | None = None,
) -> None:
    """A run directory with a random model, which says one word again and again, or nothing for "", where told to."""
    config = Config(name=name, data=data(folder, reverse=reverse), model=models.MODELS[architecture].config())
    config.search.max_length_ratio, config.search.max_length_offset = 1.0, 0
    for width in ("embedding", "hidden", "width", "feed_forward"):
        if hasattr(config.model, width):
            setattr(config.model, width, 32)
    config.model.attention.score, config.model.attention.heads = score, 1 if score == "none" else 2
    tokenizer = train_or_load_tokenizer(config.data)
    torch.manual_seed(seed)
    model = models.build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    if says is not None:
        with torch.no_grad():
            model.get_parameter("output.bias")[[*tokenizer.encode_target([says])[0], EOS][0]] = 100
    content = {"config": to_dict(config), "tokenizer": tokenizer.state_dict(), "model": model.state_dict()}
    path = folder / "runs" / name / "checkpoints/best.pt"
    path.parent.mkdir(parents=True)
    checkpoint.save(path, content)


@pytest.fixture(scope="module", autouse=True)
def _few_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nmt.evaluation.report_writer.NUM_HEATMAPS", 1)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs a, b, back (the other direction) and blind (no attention), and the test set t."""
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
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of `work`, which a test leaves without temporary files."""
    monkeypatch.chdir(work)
    yield work
    assert [path for path in work.rglob("*") if path.name.endswith((".tmp", ".part", "~"))] == []


TEST = ["data=text", "data.test=t"]
ALIGN = ["checkpoint=runs/a", "source=t.en", "target=t.de", "num_threads=1", "device=cpu"]


def pairs(folder: Path) -> list[tuple[str, str]]:
    sides = [(folder / f"t.{language}").read_text("utf-8").split("\n")[:-1] for language in ("en", "de")]
    return list(zip(*sides, strict=True))


def test_every_number_of_an_evaluation_is_that_of_its_own_function(here: Path) -> None:
    (here / "comet").write_text("\n".join(str(i / NUM_TEST) for i in range(NUM_TEST)))
    names = "metrics.names=[bleu,chrf,chrf++,ter]"
    given = ["baselines=[runs/b]", "external_scores=[comet:comet]", names, "data.test=t", "data=text"]
    given += ["alignment.decision=argmax"]  # as head_alignment_scores.json has it of every layer and head
    code, said = call("evaluate", "checkpoint=runs/a", "output=out", *given, *QUICK)
    # b was evaluated on its own test set, which is not called t
    assert code == 1
    assert "runs/b/report-t/hypotheses.txt" in said
    given[0] = "baselines=[runs/b/report/hypotheses.txt]"
    code, said = call("evaluate", "checkpoint=runs/a", "output=out", *given, *QUICK)
    assert code == 0, said
    scores = json.loads((here / "out/scores.json").read_text("utf-8"))
    sources, references = map(list, zip(*pairs(here), strict=True))
    hypotheses = (here / "out/hypotheses.txt").read_text("utf-8").split("\n")[:-1]
    config = MetricsConfig(names=["bleu", "chrf", "chrf++", "ter"], num_resamples=50)
    for name, result in corpus_score(hypotheses, references, config).items():
        assert scores[name] == result._asdict()
    for name, interval in bootstrap_intervals(hypotheses, references, config).items():
        assert scores["intervals"][name] == interval._asdict()
    other = (here / "runs/b/report/hypotheses.txt").read_text("utf-8").split("\n")[:-1]
    baseline = "runs/b/report/hypotheses.txt"
    for name, compared in paired_test({baseline: other, "a": hypotheses}, references, config).items():
        systems = {system: row._asdict() for system, row in compared.systems.items()}
        assert scores["significance"][name] == {"signature": compared.signature, "systems": systems}
    counts = word_frequencies((pair.source for pair in read_pairs(data(here), "train")), sources)
    parts = breakdown(sources, hypotheses, references, config, counts)
    assert scores["rates"] == parts.rates._asdict()
    assert {parting: list(buckets) for parting, buckets in scores["buckets"].items()} == {
        parting: list(buckets) for parting, buckets in parts.buckets.items()
    }
    assert "rare_words" in scores["buckets"]
    assert scores["external"]["comet"]["score"] == pytest.approx((NUM_TEST - 1) / 2 / NUM_TEST)
    aligned = read_pharaoh(here / "out/reference_alignments.pharaoh", pairs(here))
    assert {name: scores["alignment"][name] for name in ("aer", "precision", "recall", "f1")} == alignment_error_rate(
        aligned, read_gold(here / "t.gold")
    )._asdict()
    gold = read_gold(here / "t.gold")
    by_length = alignment_by_length(sources, aligned, gold)
    assert scores["alignment"]["by_length"] == {bucket: each._asdict() for bucket, each in by_length.items()}
    assert scores["alignment"]["selected_by"] == "AER on the validation set"
    chosen = scores["alignment"]["reading"]
    readings = json.loads((here / "out/head_alignment_scores.json").read_text("utf-8"))
    (same,) = [row for row in readings if {**row, **chosen} == row]
    assert same["aer"] == scores["alignment"]["aer"]
    rows = [json.loads(line) for line in (here / "out/sentences.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [row["hypothesis"] for row in rows] == hypotheses
    assert rows[3]["comet"] == 3 / NUM_TEST
    found = json.loads((here / "out/diagnostics.json").read_text("utf-8"))
    assert (found["layers"], found["heads"], found["num_sentences"], found["num_importance"]) == (1, 2, NUM_TEST, 4)
    assert np.shape(found["importance"]) == (1, 2)
    assert "comet 0.4875" in said
    assert "layer  head  entropy" in said


def test_a_run_is_compared_on_each_of_its_test_sets(here: Path) -> None:
    code, said = call("evaluate", "checkpoint=runs/a", "baselines=[runs/b]", *QUICK)
    assert code == 0, said
    for folder, num in (("report", NUM_TEST), ("report/test_long", NUM_LONG)):
        scores = json.loads((here / "runs/a" / folder / "scores.json").read_text("utf-8"))
        assert list(scores["significance"]["bleu"]["systems"]) == ["runs/b", "a"]
        assert (here / "runs/a" / folder / "hypotheses.txt").read_bytes().count(b"\n") == num


def test_given_hypotheses_are_judged_in_the_place_of_the_models_own(here: Path) -> None:
    code, said = call("evaluate", "checkpoint=runs/a", "hypotheses=t.de", "output=gave", *TEST, *QUICK)
    assert code == 0, said
    scores = json.loads((here / "gave/scores.json").read_text("utf-8"))
    assert scores["bleu"]["score"] == pytest.approx(100)
    assert scores["rates"]["exact_match"] == 1
    assert (here / "gave/hypotheses.txt").read_bytes() == (here / "t.de").read_bytes()
    # the attention over them is that over the references
    assert (here / "gave/alignments.pharaoh").read_bytes() == (here / "gave/reference_alignments.pharaoh").read_bytes()


def test_options_change_what_they_say(here: Path) -> None:
    options = [
        "metrics.num_resamples=0",
        "metrics.breakdown=false",
        "alignment.head_importance_pairs=0",
        "alignment.layer=1",
    ]
    options += ["alignment.head=2", "alignment.shift=1", "alignment.decision=argmax", "alignment.allow_null=false"]
    code, said = call("evaluate", "checkpoint=runs/a", "output=plain", *TEST, *QUICK, *options)
    assert code == 0, said
    scores = json.loads((here / "plain/scores.json").read_text("utf-8"))
    assert set(scores) == {"bleu", "chrf", "reading", "alignment"}
    assert (
        scores["reading"]
        == scores["alignment"]["reading"]
        == {"layer": 1, "head": 2, "shift": 1, "null": False, "threshold": 0}
    )
    assert scores["alignment"]["selected_by"] == "the options"
    assert json.loads((here / "plain/diagnostics.json").read_text("utf-8"))["importance"] is None


def test_empty_hypotheses_are_counted_and_judged(here: Path) -> None:
    lines = (here / "t.de").read_bytes().split(b"\n")
    lines[3] = lines[6] = b""
    (here / "gaps").write_bytes(b"\n".join(lines))
    code, said = call("evaluate", "checkpoint=runs/a", "hypotheses=gaps", "output=gave", *TEST, *QUICK)
    assert code == 0, said
    assert "gaps: 2 of 40 hypotheses are empty (line 4, 7)" in said
    scores = json.loads((here / "gave/scores.json").read_text("utf-8"))
    assert scores["rates"]["empty"] == pytest.approx(2 / NUM_TEST)
    (here / "nothing").write_bytes(b"\n" * NUM_TEST)
    code, said = call("evaluate", "checkpoint=runs/a", "hypotheses=nothing", "output=gave", *TEST, *QUICK)
    assert code == 0, said
    assert json.loads((here / "gave/scores.json").read_text("utf-8"))["bleu"]["score"] == 0


ODD = [("the", "der"), (".", "."), ("", "ein Hund"), ("a dog", ""), ("", ""), (" ", "  "), ("? !", ". ,")]


@pytest.mark.parametrize(
    ("architecture", "says", "num"),
    [("rnn", "", len(ODD)), ("rnn", ".", 1), ("transformer", "", 1), ("transformer", "", 3), ("transformer", ".", 7)],
)
def test_models_that_say_next_to_nothing_about_next_to_nothing(
    work: Path, tmp_path: Path, architecture: str, says: str, num: int
) -> None:
    make(tmp_path, "odd", architecture=architecture, says=says)
    for side, suffix in enumerate(("en", "de")):
        (tmp_path / f"odd.{suffix}").write_text("".join(f"{pair[side]}\n" for pair in ODD[:num]))
    if architecture == "rnn":
        (tmp_path / "odd.gold").write_text("0-0\n" + "\n" * (num - 1))
    test = ["data=text", f"data.test={tmp_path / 'odd'}", f"output={tmp_path / 'out'}"]
    code, said = call("evaluate", f"checkpoint={tmp_path / 'runs/odd'}", *test, *QUICK)
    assert code == 0, said
    hypotheses = (tmp_path / "out/hypotheses.txt").read_text("utf-8").split("\n")[:-1]
    assert len(hypotheses) == num
    assert {word for text in hypotheses for word in text.split()} <= {says, "<unk>"}
    found = json.loads((tmp_path / "out/diagnostics.json").read_text("utf-8"))
    assert found["num_sentences"] == num
    has_rows = any(hypotheses)
    assert (found["measures"]["entropy"][0][0] is not None) == has_rows
    assert "report.html" in said


def test_a_model_without_attention_is_evaluated_without_alignments(here: Path) -> None:
    code, said = call("evaluate", "checkpoint=runs/blind", "output=blind", *TEST, *QUICK)
    assert code == 0, said
    assert "This model has no attention: there are no alignments." in said
    assert not {"alignments.npz", "alignments.pharaoh", "diagnostics.json"} & {
        path.name for path in (here / "blind").iterdir()
    }


def test_pictures_of_another_model_do_not_stay(here: Path) -> None:
    assert call("evaluate", "checkpoint=runs/a", "output=mixed", *TEST, *QUICK)[0] == 0
    assert len(list((here / "mixed/heatmaps").glob("*.png"))) == 1
    assert call("evaluate", "checkpoint=runs/blind", "output=mixed", *TEST, *QUICK)[0] == 0
    assert list((here / "mixed").rglob("*.png")) == []


def test_what_links_are_read_from_is_told_without_gold_too(here: Path) -> None:
    for suffix in ("en", "de"):
        shutil.copy(here / f"t.{suffix}", here / f"plain.{suffix}")
    given = ["data=text", "data.test=plain", "output=no_gold", *QUICK]
    assert call("evaluate", "checkpoint=runs/a", *given, "alignment.layer=1", "alignment.head=2")[0] == 0
    scores = json.loads((here / "no_gold/scores.json").read_text("utf-8"))
    assert "alignment" not in scores
    assert (scores["reading"]["layer"], scores["reading"]["head"]) == (1, 2)


def test_further_test_sets_that_are_asked_for(here: Path) -> None:
    code, said = call("evaluate", "checkpoint=runs/a", *TEST, "data.extra_tests=[t]", "output=two", *QUICK)
    assert code == 0, said
    assert (here / "two/t/scores.json").read_bytes() == (here / "two/scores.json").read_bytes()
    assert call("evaluate", "checkpoint=runs/a", *TEST, "output=one", *QUICK)[0] == 0
    assert not list((here / "one").glob("*/scores.json"))


def test_a_checkpoint_carries_what_its_alignments_are_read_from(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "carrying"
    shutil.copytree(here / "runs/a/checkpoints", folder)
    path, also, content = folder / "best.pt", folder / "best-000010.pt", checkpoint.load(folder / "best.pt")
    os.link(path, also)
    own = Translator.from_checkpoint(content, None, torch.device("cpu"))
    assert own.carried == StoredAlignmentSource()
    config = data(here)
    sets = load_test_sets(config)[:1]
    options = AlignmentConfig(layer="1", head="2", decision="threshold", threshold=0.05, head_importance_pairs=0)
    drawn: list[tuple[Any, str]] = []
    monkeypatch.setattr(
        "nmt.evaluation.report_writer.heatmap.draw", lambda _, rows, *names, title: drawn.append((rows, title)) or []
    )
    given = [EvaluationInputs(hypotheses=[pair.target for pair in sets[0].pairs])]
    quick = MetricsConfig(num_resamples=0, breakdown=False)
    (result,) = evaluate_sets(
        own, quick, sets, folder / "out", About(), reading=options, data=config, given=given, carrier=path
    )
    assert result.alignment is not None
    chosen = result.alignment.selection
    assert also.samefile(path)
    found = checkpoint.load(path)
    assert chosen.reading.threshold == 0.05
    assert found.pop("reading") == {**chosen.reading._asdict(), "by": chosen.by}
    assert found.keys() == content.keys()
    assert all(torch.equal(tensor, found["model"][name]) for name, tensor in content["model"].items())
    # what is read from the checkpoint now on is what the evaluation has read
    carrying = Translator.from_checkpoint(checkpoint.load(path), None, torch.device("cpu"))
    assert carrying.links(sets[0].pairs) == result.alignment.links != own.links(sets[0].pairs)
    ((rows, title),) = drawn
    assert title == str(chosen.reading)
    sources, targets = ([pair[side] for pair in sets[0].pairs[:1]] for side in (0, 1))
    ids = own.tokenizer.encode_source(sources), own.tokenizer.encode_target(targets)
    ((_, weights),) = own.attention_weights(*ids)
    np.testing.assert_allclose(rows, weights[0, 1, chosen.reading.shift :], atol=1e-6)
    # and where the validation set is gone, an evaluation reads what the checkpoint says
    stamp = path.stat().st_mtime_ns
    gone = dataclasses.replace(config, format="text", valid=str(folder / "gone"))
    (again,) = evaluate_sets(carrying, quick, sets, folder / "out", About(), data=gone, given=given, carrier=None)
    assert again.alignment is not None
    assert again.alignment.selection.reading == chosen.reading
    assert again.alignment.selection.by == f"{chosen.by}, when it was trained"
    checkpoint.update_metadata(path, {"reading": StoredAlignmentSource(chosen.reading, chosen.by).to_dict()})
    assert path.stat().st_mtime_ns == stamp


def test_an_ensemble_is_evaluated_with_the_attention_of_its_first_model_that_has_any(here: Path) -> None:
    code, said = call("evaluate", "checkpoint=[runs/blind,runs/a]", *TEST, *QUICK)
    assert (code, said.count("error:")) == (1, 1)
    assert "output: must be given, as output=FOLDER: an ensemble's report belongs to no single run" in said
    both = ["checkpoint=[runs/blind,runs/a]", "output=both"]
    for given in (both, ["checkpoint=runs/a", "output=alone"]):
        code, said = call("evaluate", *given, *TEST, *QUICK, "search.beam_size=2")
        assert code == 0, said
    contents = [checkpoint.load(here / f"runs/{name}/checkpoints/best.pt") for name in ("blind", "a")]
    search = SearchConfig(beam_size=2, max_length_ratio=1.0, max_length_offset=0)
    ensemble = Translator.from_checkpoints(contents, search, torch.device("cpu"))
    texts = [translation.text for translation in ensemble.translate([source for source, _ in pairs(here)])]
    assert (here / "both/hypotheses.txt").read_text("utf-8").split("\n")[:-1] == texts
    for name in ("reference_alignments.pharaoh", "head_alignment_scores.json"):
        assert (here / "both" / name).read_bytes() == (here / "alone" / name).read_bytes()
    page = (here / "both/report.html").read_text("utf-8")
    assert "Alignments and everything about attention are those of model 2 of the ensemble." in page
    assert "blind + a" in page
    assert ensemble.describe(AlignmentSource(1, 2)) == "layer 1, head 2, of model 2 of the ensemble"


def test_references_in_another_order_are_warned_of(here: Path, tmp_path: Path) -> None:
    (tmp_path / "s.en").write_bytes((here / "t.en").read_bytes())
    lines = (here / "t.de").read_bytes().split(b"\n")[:-1]
    (tmp_path / "s.de").write_bytes(b"\n".join(lines[1:] + lines[:1]) + b"\n")
    test = ["data=text", f"data.test={tmp_path / 's'}", f"output={tmp_path / 'out'}"]
    code, said = call("evaluate", "checkpoint=runs/a", *test, *QUICK)
    assert code == 0, said
    assert "are the references in another order" in said
    files = [f"source={tmp_path / 's.en'}", f"target={tmp_path / 's.de'}", f"output={tmp_path / 'aligned'}"]
    code, said = call("align", *ALIGN, *files)
    assert code == 0, said
    assert "is one of them in another order?" in said


def test_alignments_of_given_text(here: Path) -> None:
    code, said = call("align", *ALIGN, "gold=t.gold", "output=aligned")
    assert code == 0, said
    assert {path.name for path in (here / "aligned").iterdir()} == {
        *(f"alignments.{kind}" for kind in ("pharaoh", "npz", "jsonl", "parquet")),
        "scores.json",
    }
    found = read_pharaoh(here / "aligned/alignments.pharaoh", pairs(here))
    expected = alignment_error_rate(found, read_gold(here / "t.gold"))
    scores = json.loads((here / "aligned/scores.json").read_text("utf-8"))["alignments"]
    assert {name: scores[name] for name in expected._fields} == expected._asdict()
    assert f"AER {100 * expected.aer:.1f} %, precision {expected.precision:.3f}" in said
    # the same command without files takes the run's test set, which is t
    code, said = call("align", "checkpoint=runs/a", "formats=[pharaoh]", "num_threads=1", "device=cpu")
    assert code == 0, said
    assert (here / "runs/a/align-test/alignments.pharaoh").read_bytes() == (
        here / "aligned/alignments.pharaoh"
    ).read_bytes()
    assert {path.name for path in (here / "runs/a/align-test").iterdir()} == {"alignments.pharaoh", "scores.json"}


@pytest.mark.parametrize("method", ["intersection", "grow-diag-final-and"])
def test_both_directions_are_joined(here: Path, method: str) -> None:
    code, said = call("align", *ALIGN, "gold=t.gold", "reverse=runs/back", f"symmetrize={method}", "output=both")
    assert code == 0, said
    texts = pairs(here)
    files = {name: read_pharaoh(here / f"both/{name}.pharaoh", texts) for name in ("forward", "reverse", "alignments")}
    swapped = ["checkpoint=runs/back", "source=t.de", "target=t.en", "output=swapped", "formats=[pharaoh]"]
    assert call("align", *swapped, "num_threads=1", "device=cpu")[0] == 0
    alone = read_pharaoh(here / "swapped/alignments.pharaoh")
    assert [[(i, j) for j, i in links] for links in alone] == files["reverse"]
    for one, other, joined in zip(files["forward"], files["reverse"], files["alignments"], strict=True):
        assert joined == symmetrize(one, other, method)
    scores = json.loads((here / "both/scores.json").read_text("utf-8"))
    for name, found in files.items():
        assert scores[name]["aer"] == alignment_error_rate(found, read_gold(here / "t.gold")).aer


def without_validation_set(folder: Path) -> Path:
    """A run whose validation set is gone."""
    content = checkpoint.load(folder / "runs/a/checkpoints/best.pt")
    content["config"]["data"] |= {"kind": "text", "valid": str(folder / "gone"), "train": str(folder / "gone")}
    checkpoint.save(folder / "moved.pt", content)
    return folder / "moved.pt"


def test_without_its_validation_set_a_run_chooses_by_agreement_and_never_by_the_gold_of_the_test(here: Path) -> None:
    path = without_validation_set(here)
    code, said = call("align", f"checkpoint={path}", *ALIGN[1:], "gold=t.gold", "output=moved")
    assert code == 0, said
    assert "the validation set is not there any more" in said
    content = checkpoint.load(path)
    content["config"]["data"] |= {"kind": "hub", "path": str(here / "gone"), "train": "train", "valid": "validation"}
    checkpoint.save(here / "hub.pt", content)
    code, said = call("align", f"checkpoint={here / 'hub.pt'}", *ALIGN[1:], "gold=t.gold", "output=moved")
    assert code == 0, said
    assert "the validation set is not there any more" in said
    chosen = json.loads((here / "moved/scores.json").read_text("utf-8"))["alignments"]["selected_by"]
    assert chosen == "agreement with a lexical aligner on the text itself"
    code, said = call("evaluate", f"checkpoint={path}", "output=moved_too", *TEST, *QUICK)
    assert code == 0, said
    assert "no scores by rare words: the training text cannot be read" in said
    assert "rare_words" not in json.loads((here / "moved_too/scores.json").read_text("utf-8"))["buckets"]


def lines(path: Path, change: Callable[[list[bytes]], None]) -> str:
    content = path.read_bytes().split(b"\n")[:-1]
    change(content)
    bad = path.with_name("bad")
    bad.write_bytes(b"\n".join(content) + b"\n")
    return str(bad)


MISTAKES: dict[str, tuple[str, Callable[[Path], list[str]], list[str]]] = {
    "gold beyond the sentence": (
        "align",
        lambda folder: [f"gold={lines(folder / 't.gold', lambda rows: rows.__setitem__(1, b'0-0 99-0'))}"],
        ["bad, line 2: link 99-0 points beyond a sentence of"],
    ),
    "gold of another length": (
        "align",
        lambda folder: [f"gold={lines(folder / 't.gold', lambda rows: rows.pop())}"],
        ["bad: 39 lines for 40 sentence pairs"],
    ),
    "gold that is none": ("align", lambda folder: ["gold=t.de"], ["t.de, line 1:", "is not a link"]),
    "no gold": ("align", lambda folder: ["gold=none.gold"], ["none.gold", "No such file"]),
    "sides of another length": (
        "align",
        lambda folder: [f"target={lines(folder / 't.de', lambda rows: rows.pop())}"],
        ["t.en has 40 lines", "bad has 39"],
    ),
    "no attention": ("align", lambda folder: ["checkpoint=runs/blind"], ["runs/blind: this model has no attention"]),
    "no attention in reverse": ("align", lambda folder: ["reverse=runs/blind"], ["translates en into de", "runs/a"]),
    "the same direction": ("align", lambda folder: ["reverse=runs/b"], ["reverse=runs/b: translates en into de"]),
    "one side only": ("align", lambda folder: ["target=null"], ["target: must be given beside source"]),
    "nothing but a byte-order mark": (
        "align",
        lambda folder: [f"source={_mark(folder)}", f"target={_mark(folder)}"],
        ["mark: the file is empty"],
    ),
    "an unknown method": ("align", lambda folder: ["symmetrize=grow"], ["symmetrize=grow: must be one of inter"]),
    "an unknown kind of file": ("align", lambda folder: ["formats=[csv]"], ["formats=csv: must be one of pharaoh"]),
    "a layer that is not there": ("align", lambda folder: ["alignment.layer=2"], ["alignment.layer=2: attention to"]),
    "a taken output": ("align", lambda folder: ["output=t.en"], ["t.en"]),
    "a missing line": (
        "evaluate",
        lambda folder: [f"hypotheses={lines(folder / 't.de', lambda rows: rows.pop(7))}"],
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


def _mark(folder: Path) -> Path:
    (folder / "mark").write_bytes(b"\xef\xbb\xbf")
    return folder / "mark"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_one_line(mistake: str, here: Path) -> None:
    name, given, expected = MISTAKES[mistake]
    arguments = given(here)
    keys = {argument.partition("=")[0] for argument in arguments}
    base = ALIGN if name == "align" else ["checkpoint=runs/a", *TEST, *QUICK]
    base = [*(item for item in base if item.partition("=")[0] not in keys), *arguments]
    base += [] if "output" in keys else ["output=never"]
    before = (here / "t.en").read_bytes()
    code, said = call(name, *base)
    last = said.splitlines()[-1]
    assert (code, last[:7]) == (1, "error: "), said
    assert said.count("error:") == 1
    assert "Traceback" not in said
    assert [words for words in expected if words not in last] == [], last
    assert not (here / "never").exists()
    assert (here / "t.en").read_bytes() == before


def test_a_file_is_of_one_test_set(here: Path) -> None:
    code, said = call("evaluate", "checkpoint=runs/a", "hypotheses=t.de", "output=never", *QUICK)
    assert code == 1
    assert "error: hypotheses=t.de: a file is of one test set and there are 2 (test, test_long): give data.test" in said


def test_help_and_configuration_name_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("align", "--help")[0] == 0
    said = capsys.readouterr().out
    assert "python -m nmt.align checkpoint=" in said
    assert call("align", "--cfg", "job")[0] == 0
    shown = capsys.readouterr().out
    for name in ("symmetrize: grow-diag-final-and", "choose_on: 1000", "layer: auto", "formats:", "gold: null"):
        assert name in shown


def test_an_untrained_model_aligns_no_better_than_chance(here: Path) -> None:
    code, said = call("align", *ALIGN, "gold=t.gold", "output=chance", "formats=[pharaoh]")
    assert code == 0, said
    assert json.loads((here / "chance/scores.json").read_text("utf-8"))["alignments"]["aer"] > 0.7
