"""Several references of one source: reading, scores against the command line of sacrebleu, reports and comparisons."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nmt import evaluate, train
from nmt.cli.compose import run_command
from nmt.cli.configs import Config, EvaluateConfig
from nmt.cli.continuation import data_fingerprints
from nmt.compare.__main__ import main as compare
from nmt.compare.comparison import compare_runs
from nmt.compare.run_results import RunResult, read_run_result
from nmt.data import DataConfig, read_pairs
from nmt.data.sources import read_further_references, reference_files
from nmt.evaluation.breakdown import breakdown
from nmt.evaluation.evaluator import translate_and_score
from nmt.evaluation.metrics import METRICS, SIGNIFICANCE_TESTS, MetricsConfig, corpus_score, sentence_chrf
from nmt.evaluation.significance import bootstrap_intervals, paired_test

WORDS = ["ein", "Mann", "der", "Hund", "sieht", "die", "Frau", "und", "läuft", "rot", ",", "Haus", "3", "."]
OPTIONS: dict[str, list[str]] = {"bleu": [], "chrf": [], "chrf++": ["--chrf-word-order", "2"]}
OPTIONS["ter"] = ["--ter-case-sensitive"]
NUM = 30


def texts(seed: int, mistakes: float = 0.3) -> list[str]:
    """Return the same sentences for each seed, with a share of `mistakes` of their words replaced or left out."""
    draws = random.Random(0)
    lines = [[draws.choice(WORDS) for _ in range(draws.randint(5, 14))] for _ in range(NUM)]
    draws.seed(seed)
    changed = [
        ["x" if draws.random() < 0.5 else "" if draws.random() < mistakes else w for w in line] for line in lines
    ]
    return [
        " ".join(w if draws.random() > mistakes else c for w, c in zip(*pair, strict=True)).replace("  ", " ").strip()
        for pair in zip(lines, changed, strict=True)
    ]


REFERENCES = [texts(1), texts(2), texts(3)]
SYSTEMS = {"baseline": texts(4, 0.5), "better": texts(5, 0.3)}


def write(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def sacrebleu(folder: Path, references: list[str], systems: list[str], metric: str, *options: str) -> Any:
    command = [sys.executable, "-m", "sacrebleu", *references, "-i", *systems, "-m", metric.rstrip("+"), "-w", "10"]
    command += [*OPTIONS[metric], *options]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """Write a test set with three references, and the systems' translations; return its prefix."""
    write(tmp_path / "t.en", [f"{i} words" for i in range(NUM)])
    for suffix, lines in zip(("", ".1", ".2"), REFERENCES, strict=True):
        write(tmp_path / f"t.de{suffix}", lines)
    for name, lines in SYSTEMS.items():
        write(tmp_path / name, lines)
    return str(tmp_path / "t")


def config(prefix: Any, **options: Any) -> DataConfig:
    return DataConfig(format="text", train=prefix, valid=prefix, test=prefix, **options)


def error(data: DataConfig, split: str = "test") -> str:
    with pytest.raises((ValueError, OSError)) as raised:
        read_further_references(data, split, Counter())
    message = str(raised.value)
    assert "\n" not in message
    return message


# --- reading ---------------------------------------------------------------------------------------------------------


def test_references_beside_and_instead_of_the_file_without_a_number(prefix: str) -> None:
    data = config(prefix)
    assert [pair.target for pair in read_pairs(data, "test")] == REFERENCES[0]
    assert read_further_references(data, "test", Counter()) == REFERENCES[1:]
    Path(f"{prefix}.de").unlink()
    for split in ("train", "valid", "test", prefix):
        assert [pair.target for pair in read_pairs(data, split)] == REFERENCES[1]
        assert read_further_references(data, split, Counter()) == REFERENCES[2:]
    assert reference_files(data, prefix) == [Path(f"{prefix}.de.1"), Path(f"{prefix}.de.2")]


def test_what_is_no_further_reference(prefix: str) -> None:
    for suffix in ("de.1", "de.2"):
        Path(f"{prefix}.{suffix}").unlink()
    for suffix in ("de.0", "de.01", "de.1x", "de.x1", "deX1", "en.1", "gold", "1"):
        write(Path(f"{prefix}.{suffix}"), ["a"])
    assert reference_files(config(prefix), prefix) == [Path(f"{prefix}.de")]
    assert read_further_references(config(prefix), "test", Counter()) == []
    table = write(Path(f"{prefix}.tsv"), ["a\tb"])
    assert reference_files(dataclasses.replace(config(table), format="tsv"), table) == []


def test_more_than_nine_references_are_in_the_order_of_their_numbers(prefix: str) -> None:
    for number in range(1, 12):
        write(Path(f"{prefix}.de.{number}"), [f"{number} a"] * NUM)
    assert [lines[0] for lines in read_further_references(config(prefix), "test", Counter())] == [
        f"{number} a" for number in range(1, 12)
    ]


def test_joined_texts_have_as_many_references_each(prefix: str, tmp_path: Path) -> None:
    for suffix in ("en", "de", "de.1", "de.2"):
        shutil.copy(f"{prefix}.{suffix}", tmp_path / f"u.{suffix}")
    both = config([prefix, str(tmp_path / "u")])
    assert read_further_references(both, "test", Counter()) == [lines * 2 for lines in REFERENCES[1:]]
    (tmp_path / "u.de.2").unlink()
    message = error(both)
    assert f"3 of {prefix}.de, 2 of {tmp_path / 'u.de'}" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: lines[:-2],
            f"t.de.2 has {NUM - 2} lines and PREFIX.de has {NUM}: line {NUM - 1} has text in one",
        ),
        (
            lambda lines: [*lines, "a"],
            f"t.de.2 has {NUM + 1} lines and PREFIX.de has {NUM}: line {NUM + 1} has text in",
        ),
        (lambda lines: [*lines, ""], f"t.de.2 has {NUM + 1} lines and PREFIX.de has {NUM}: line {NUM + 1} has text in"),
        (lambda lines: [*lines[:4], " ", *lines[5:]], "line 5 has text in one of them only; a reference is missing"),
    ],
)
def test_a_missing_reference_is_named_with_file_and_line(prefix: str, change: Any, message: str) -> None:
    write(Path(f"{prefix}.de.2"), change(REFERENCES[2]))
    assert message.replace("PREFIX", prefix) in error(config(prefix))


def test_a_gap_in_the_numbers_is_named(prefix: str) -> None:
    Path(f"{prefix}.de.1").rename(f"{prefix}.de.3")
    assert error(config(prefix)) == f"{prefix}.de.1: no such file; references are numbered from 1 on, without a gap"


def test_repairs_of_further_references_are_counted(prefix: str) -> None:
    write(Path(f"{prefix}.de.1"), [f" {line}" for line in REFERENCES[1]])
    repaired: Counter[str] = Counter()
    assert read_further_references(config(prefix), "test", repaired) == REFERENCES[1:]
    assert repaired == {"spaces at the ends": NUM}


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num", [2, 3])
def test_scores_and_intervals_are_those_of_sacrebleu(prefix: str, metric: str, num: int) -> None:
    metrics = MetricsConfig(names=[metric], num_resamples=100)
    first, *further = REFERENCES[:num]
    files = ["t.de", "t.de.1", "t.de.2"][:num]
    expected = sacrebleu(Path(prefix).parent, files, ["better"], metric, "--confidence", "--confidence-n", "100")
    score = corpus_score(SYSTEMS["better"], first, metrics, further)[metric]
    interval = bootstrap_intervals(SYSTEMS["better"], first, metrics, further)[metric]
    assert f"{score.score:.10f}" == f"{expected['score']:.10f}"
    assert (f"{interval.mean:.6f}", f"{interval.half_width:.6f}") == (
        f"{expected['confidence_mean']:.6f}",
        f"{expected['confidence_var']:.6f}",
    )
    assert interval.signature == expected["signature"]
    assert score.signature.startswith(f"nrefs:{num}|")
    assert score.score != corpus_score(SYSTEMS["better"], first, metrics)[metric].score


@pytest.mark.parametrize("test", SIGNIFICANCE_TESTS)
def test_paired_tests_are_those_of_sacrebleu(prefix: str, test: str) -> None:
    metrics = MetricsConfig(names=["bleu"], num_resamples=200, significance_test=test)
    result = paired_test(SYSTEMS, REFERENCES[0], metrics, REFERENCES[1:])["bleu"]
    flag = f"--paired-{SIGNIFICANCE_TESTS[test]}"
    files = ["t.de", "t.de.1", "t.de.2"]
    rows = sacrebleu(Path(prefix).parent, files, list(SYSTEMS), "bleu", flag, f"{flag}-n", "200", "-f", "json")
    for row, system in zip(rows, result.systems.values(), strict=True):
        assert system.score == pytest.approx(row["BLEU"]["score"], abs=1e-9)
        assert system.p_value == pytest.approx(row["BLEU"]["p_value"]) or system.p_value is None
    assert result.signature.startswith("nrefs:3|")


def test_sentences_and_parts_use_every_reference() -> None:
    hypotheses = [REFERENCES[i % 3][i] for i in range(NUM)]  # each is one of its references
    first, *further = REFERENCES
    metrics = MetricsConfig()
    assert sentence_chrf(hypotheses, first, metrics, further) == [100.0] * NUM
    assert min(sentence_chrf(hypotheses, first, metrics)) < 100
    sources = ["a" * (i + 1) for i in range(NUM)]
    parts = breakdown(sources, SYSTEMS["better"], first, metrics, None, further)
    whole = corpus_score(SYSTEMS["better"], first, metrics, further)["bleu"].score
    assert parts.buckets["length"]["0-10"].bleu == whole
    assert parts.rates == breakdown(sources, SYSTEMS["better"], first, metrics).rates


# --- runs ------------------------------------------------------------------------------------------------------------

QUICK = ("num_threads=1", "device=cpu", "metrics.num_resamples=20", "alignment.head_importance_pairs=0")
TINY = (
    "model.embedding_dim=8",
    "model.hidden_size=8",
    "train.max_updates=2",
    "train.valid_every=2",
    "data.tokenizer.type=word",
)
TINY += ("train.precision=fp32", "search.max_length_offset=0", "search.max_length_ratio=1.5", "optim.warmup_updates=0")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run whose validation and test sets have two references, and another with one seed more."""
    folder = tmp_path_factory.mktemp("references")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, num in (("train", NUM), ("v", 9), ("t", 12)):
            write(folder / f"{name}.en", [line.lower()[::-1] for line in REFERENCES[0][:num]])
            write(folder / f"{name}.de", REFERENCES[0][:num])
        write(folder / "v.de.1", REFERENCES[1][:9])
        write(folder / "t.de.1", REFERENCES[2][:12])
        texts = ("data=text", "data.train=train", "data.valid=v", "data.test=t")
        for name, score in (("a", "additive"), ("b", "dot")):
            options = (
                *texts,
                *QUICK,
                *TINY,
                f"name={name}",
                f"model.attention.score={score}",
                "metrics.names=[bleu,chrf,ter]",
            )
            run_command(train.main, Config, "train", list(options))
    return folder


@pytest.fixture
def cwd(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return work


def run_evaluate(*arguments: str) -> None:
    run_command(evaluate.main, EvaluateConfig, "evaluate", [*QUICK, *arguments])


def report_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "sentences.jsonl").read_text("utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("metric", ["bleu", "chrf", "ter"])
def test_a_report_has_the_scores_of_sacrebleu_on_the_same_files(cwd: Path, metric: str) -> None:
    scores = json.loads((cwd / "runs/a/report/scores.json").read_text("utf-8"))
    options = ["--confidence", "--confidence-n", "20"]
    expected = sacrebleu(cwd, ["t.de", "t.de.1"], ["runs/a/report/hypotheses.txt"], metric, *options)
    assert f"{scores[metric]['score']:.10f}" == f"{expected['score']:.10f}"
    assert scores["intervals"][metric]["signature"] == expected["signature"]
    assert scores["intervals"][metric]["mean"] == pytest.approx(expected["confidence_mean"], abs=1e-6)
    assert len({scores["digests"][name] for name in ("references", "references_2")}) == 2


def test_every_number_of_an_evaluation_uses_every_reference(cwd: Path, tmp_path: Path) -> None:
    folder, names = tmp_path / "out", ["bleu", "chrf", "ter"]
    files = [write(tmp_path / name, lines[:12]) for name, lines in SYSTEMS.items()]
    run_evaluate("checkpoint=runs/a", f"baselines=[{files[0]}]", f"hypotheses={files[1]}", f"output={folder}")
    scores, rows = json.loads((folder / "scores.json").read_text("utf-8")), report_rows(folder)
    sources, hypotheses = [row["source"] for row in rows], [row["hypothesis"] for row in rows]
    systems = {files[0]: SYSTEMS["baseline"][:12], "a": hypotheses}
    first, further = REFERENCES[0][:12], [REFERENCES[2][:12]]
    metrics = MetricsConfig(names=names, num_resamples=20)
    for name, result in paired_test(systems, first, metrics, further).items():
        expected = {system: row._asdict() for system, row in result.systems.items()}
        assert scores["significance"][name] == {"signature": result.signature, "systems": expected}
    assert [row["chrf"] for row in rows] == sentence_chrf(hypotheses, first, metrics, further)
    length = breakdown(sources, hypotheses, first, metrics, None, further).buckets["length"]
    assert scores["buckets"]["length"] == {name: bucket._asdict() for name, bucket in length.items()}
    assert [row["chrf"] for row in rows] != sentence_chrf(hypotheses, first, metrics)
    assert length != breakdown(sources, hypotheses, first, metrics).buckets["length"]


def test_a_report_shows_every_reference(cwd: Path) -> None:
    rows = report_rows(cwd / "runs/a/report")
    assert [row["references"] for row in rows] == list(
        map(list, zip(REFERENCES[0][:12], REFERENCES[2][:12], strict=True))
    )
    assert [row["reference"] for row in rows] == REFERENCES[0][:12]
    page = (cwd / "runs/a/report/report.html").read_text("utf-8")
    assert json.dumps([REFERENCES[2][3]], ensure_ascii=False)[1:-1] in page.replace("\\u003c", "<")


def test_the_report_page_lists_them_in_a_browser(cwd: Path, open_file: Any) -> None:
    page = open_file(cwd / "runs/a/report/report.html", "#sentence-4")
    shown = page.locator("#texts-shown")
    assert [shown.locator("span.soft.small").nth(i).text_content() for i in range(4)] == [
        "source",
        "reference",
        "hypothesis",
        "reference 2",
    ]
    assert shown.locator("p").nth(3).text_content() == REFERENCES[2][3]
    page.fill("#search", REFERENCES[2][3])
    assert "1" in page.text_content("#match-count")


def test_validation_uses_every_reference(cwd: Path) -> None:
    rows = [json.loads(line) for line in (cwd / "runs/a/metrics.jsonl").read_text().splitlines()]
    (valid,) = [row for row in rows if "valid_bleu" in row]
    content = evaluate.checkpoint.load(cwd / "runs/a/checkpoints/best.pt")
    translator = evaluate.Translator.from_checkpoint(
        content, Config.from_checkpoint(content).search, evaluate.resolve_device("cpu")
    )
    pairs = list(read_pairs(config("v"), "valid"))
    metrics = MetricsConfig(names=["bleu", "chrf", "ter"])
    result = translate_and_score(translator, pairs, None, metrics, None, [REFERENCES[1][:9]])
    assert {name: valid[f"valid_{name}"] for name in metrics.names} == result.flat_scores()
    one = translate_and_score(translator, pairs, None, metrics)
    assert one.flat_scores()["chrf"] != result.flat_scores()["chrf"]
    assert all("nrefs:2" in score.signature for score in result.scores.values())


def test_another_reference_is_another_text(cwd: Path) -> None:
    data = data_fingerprints(Config(data=config("v")))
    assert [Path(file.name).name for file in data["valid"]] == ["v.en", "v.de", "v.de.1"]
    assert [Path(file.name).name for file in data["train"]] == ["v.en", "v.de"]


def test_runs_are_compared_with_every_reference(cwd: Path) -> None:
    results = [read_run_result(cwd / f"runs/{name}/report") for name in "ab"]
    assert results[0].further == (tuple(REFERENCES[2][:12]),)
    comparison = compare_runs(results, num_resamples=100)
    systems = {"0": results[0].hypotheses, "1": results[1].hypotheses}
    metrics = MetricsConfig(names=["bleu", "chrf", "ter"], num_resamples=100)
    expected = paired_test(systems, results[0].references, metrics, results[0].further)
    for contrast in comparison.contrasts:
        if contrast.metric in expected:
            assert contrast.per_seed == [expected[contrast.metric].systems["1"].p_value]
            assert comparison.test_signatures[contrast.metric] == expected[contrast.metric].signature


def test_the_page_of_a_comparison_lists_them_in_a_browser(cwd: Path, tmp_path: Path, open_file: Any) -> None:
    page = tmp_path / "compare.html"
    compare(["runs/a", "runs/b", "--num-resamples", "0", "--output", str(page)])
    shown = open_file(page, "#sentence-4")
    assert shown.locator("#reference").text_content() == f"{REFERENCES[0][3]}\n{REFERENCES[2][3]}"
    shown.fill("#search", REFERENCES[2][3])
    assert shown.locator("#list > *").count() == 1


def test_runs_with_other_references_are_not_ranked(
    cwd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("en", "de"):
        shutil.copy(f"t.{suffix}", tmp_path)
    run_evaluate("checkpoint=runs/b", f"data.test={tmp_path / 't'}", f"output={tmp_path / 'one'}")
    with pytest.raises(SystemExit):
        compare(["runs/a", str(tmp_path / "one")])
    message = capsys.readouterr().err.splitlines()[-1]
    assert "were scored with 2 and 1 references of each sentence; evaluate all with the same files" in message
    result = read_run_result(cwd / "runs/a/report")
    changed: RunResult = dataclasses.replace(result, further=(("other", *result.further[0][1:]),))
    with pytest.raises(ValueError, match=r"different test sets \(sentence 1 differs"):
        compare_runs([result, changed])


def test_a_report_of_one_reference_is_as_before(cwd: Path, tmp_path: Path) -> None:
    for suffix in ("en", "de"):
        shutil.copy(f"t.{suffix}", tmp_path)
    run_evaluate("checkpoint=runs/a", f"data.test={tmp_path / 't'}", f"output={tmp_path / 'one'}")
    scores = json.loads((tmp_path / "one/scores.json").read_text("utf-8"))
    assert scores["bleu"]["signature"].startswith("nrefs:1|")
    assert not [name for name in scores["digests"] if name.startswith("references_")]
    assert "references" not in report_rows(tmp_path / "one")[0]
    assert '"rs"' not in (tmp_path / "one/report.html").read_text("utf-8")
    assert read_run_result(tmp_path / "one").further == ()
