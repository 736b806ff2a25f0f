"""All directions of a model beside each other: the overview of an evaluation, its pages, and comparisons of runs."""

import contextlib
import json
import logging
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmt
from nmt import evaluate, train
from nmt.cli.compose import run_command
from nmt.cli.configs import Config, EvaluateConfig
from nmt.compare.__main__ import main as compare
from nmt.data import language_id
from nmt.training.logger import read_metrics

WORDS = {
    "en": ["dog", "cat", "bird", "cow", "sheep"],
    "de": ["Hund", "Katze", "Vogel", "Kuh", "Schaf"],
    "fr": ["chien", "chat", "oiseau", "vache", "mouton"],
}
FRAME = {"en": "the {} sees the {}", "de": "der {} sieht der {}", "fr": "le {} voit le {}"}
FOLDERS = {"en-de": "", **{name: name for name in ("en-fr", "de-en", "fr-en", "fr-de", "de-fr")}}
OPTIONS = [
    *("num_threads=1", "data=text", "train.batch_tokens=400", "data.tokenizer.type=word", "train.precision=fp32"),
    *("search.max_length_ratio=0", "search.max_length_offset=6", "optim.schedule=constant", "optim.warmup_updates=0"),
    *("alignment.head_importance_pairs=0", "search.beam_size=1", "train.log_every=5", "train.save_every=1000"),
    *("model.hidden_size=48", "model.embedding_dim=32", "model.attention.dim=32", "model.dropout=0"),
    *("optim.learning_rate=0.01", "metrics.num_resamples=20", "data.languages=[en,de,fr]", "data.zero_shot=[de-fr]"),
    *("data.train=train", "data.valid=valid", "data.test=test", "data.extra_tests=[more]"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two runs, of which the first is trained well."""
    folder = tmp_path_factory.mktemp("languages")
    pairs = [(a, b) for a in range(5) for b in range(5)]
    for name, chosen in (("train", pairs * 4), ("valid", pairs[::6]), ("test", pairs[::6]), ("more", pairs[1::9])):
        for language, words in WORDS.items():
            lines = (FRAME[language].format(words[a], words[b]) for a, b in chosen)
            if name != "more" or language != "fr":
                (folder / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        for module in ("lingua", "py3langid"):
            patch.setitem(sys.modules, module, None)
        for name, updates in (("good", 150), ("bad", 20)):
            limits = [f"train.max_updates={updates}", f"train.valid_every={updates}"]
            run_command(train.main, Config, "train", [f"name={name}", *limits, *OPTIONS])
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_overview_holds_the_scores_of_every_report(folder: Path) -> None:
    report = folder / "runs/good/report"
    overview = read(report / "languages.json")
    assert list(overview) == ["test", "more"]  # of which there is no French
    assert [row["direction"] for row in overview["more"]["directions"]] == ["en-de", "de-en"]
    rows = overview["test"]["directions"]
    assert {row["direction"]: row["folder"] for row in rows} == FOLDERS
    assert [row["direction"] for row in rows if not row["seen"]] == ["de-fr"]
    for row in rows:
        scores = read(report / row["folder"] / "scores.json")
        assert row["details"] == scores
        assert row["scores"] == {
            "bleu": scores["bleu"]["score"],
            "chrf": scores["chrf"]["score"],
            "wrong_language": scores["rates"]["wrong_language"],
        }
        assert scores["output_languages"]["target"] == row["target_lang"]
        assert scores["output_languages"]["identifier"] == "character trigrams of the training text"
    means = overview["test"]["means"]
    assert {kind: mean["num_directions"] for kind, mean in means.items()} == {"seen": 5, "zero-shot": 1, "all": 6}
    for name, mean in means["all"]["scores"].items():
        assert mean == pytest.approx(statistics.fmean(row["scores"][name] for row in rows))
    assert means["zero-shot"]["scores"] == rows[-1]["scores"]
    assert [*overview["more"]["means"]] == ["all"]
    # the model has never translated from German into French, and answers in English
    assert means["seen"]["scores"]["wrong_language"] == 0 < means["zero-shot"]["scores"]["wrong_language"]
    log = (folder / "runs/good/train.log").read_text()
    assert f"test: mean of all directions (6): bleu {means['all']['scores']['bleu']:.2f}, chrf " in log
    assert re.search(r"de-fr: wrong language [01]\.\d+, undecided \d\.\d+ \(by character trigrams of the", log)


def test_pages_are_linked_and_show_all_directions(folder: Path, open_file: Callable[..., Any]) -> None:
    report = folder / "runs/good/report"
    rows = read(report / "languages.json")["test"]["directions"]
    for name in FOLDERS.values():
        page = (report / name / "report.html").read_text(encoding="utf-8")
        target = re.search(r'href="([^"]*languages\.html)"', page)
        assert target is not None
        assert (report / name / target[1]).resolve() == (report / "languages.html").resolve()
    page = open_file(report / "languages.html")
    table = page.locator("table.data").first
    links = [link.get_attribute("href") for link in table.locator("a").all()]
    assert links == [f"{name}/report.html" if name else "report.html" for name in FOLDERS.values()]
    assert all((report / link).is_file() for link in links)
    texts = [[cell.inner_text() for cell in row.locator("td").all()] for row in table.locator("tbody tr").all()]
    half = rows[-1]["details"]["intervals"]["bleu"]["half_width"]
    expected = ["zero-shot", "5", f"{rows[-1]['scores']['bleu']:.2f} ± {half:.2f}", "13a"]
    assert texts[5][:4] == expected
    assert [row[0] for row in texts[6:]] == ["5 directions", "1 direction", "6 directions"]
    matrix = page.locator("table.map").first
    assert matrix.locator("th").all_inner_texts() == ["de", "en", "fr", "de", "en", "fr"]
    assert matrix.locator("td[data-chosen]").inner_text() == f"{rows[-1]['scores']['bleu']:.1f}"
    # attention: that of the first layer and head of the alignment source, as it is in the files of the directions
    options = page.locator("#sentences option").all_inner_texts()
    assert len(options) == 12
    page.locator("#sentences").select_option(label=(chosen := next(o for o in options if o.startswith("fr: "))))
    assert page.locator("#models h3").all_inner_texts() == ["fr → en", "fr → de"]
    sources = [f"fr: {line}" for line in (folder / "test.fr").read_text(encoding="utf-8").splitlines()]
    number, source = sources.index(chosen), rows[0]["details"]["alignment_source"]
    with np.load(report / "fr-de/alignments.npz") as stored:
        weights, words = stored[f"{number}.weights"], stored[f"{number}.source_words"]
    assert (source["layer"], source["head"]) == (1, 1)
    row = weights[0, 0, source["shift"], np.flatnonzero(words == 4)].sum()
    page.locator("#models article").nth(1).locator("tbody td").nth(4).hover()
    assert float(page.locator("#models output").nth(1).inner_text().rpartition(": ")[2]) == pytest.approx(row, abs=0.02)
    report_page = open_file(report / "de-fr/report.html")
    rates = report_page.locator("#parts").inner_text()
    assert "in another language than fr, by character trigrams of the training text: " in rates
    assert "en, de, fr: 6 directions" in report_page.locator("header").inner_text()


def test_training_is_shown_by_corpus(folder: Path, open_file: Callable[..., Any]) -> None:
    page = open_file(folder / "runs/good/report/report.html")
    last = [row for row in read_metrics(folder / "runs/good/metrics.jsonl") if "pairs/fr-de" in row][-1]
    rows = page.locator("#data table").nth(1).locator("tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == [name for name in FOLDERS if name != "de-fr"]
    cells = next(row.split("\t") for row in rows if row.startswith("fr-de"))
    assert cells[1:] == ["100", f"{last['pairs/fr-de']:,}", f"{last['pairs/fr-de'] / 100:.2f}"]
    charts = page.locator("#training figure").all_inner_texts()
    (chart,) = [text for text in charts if "Training loss by corpus over updates" in text]
    assert f"last {last['loss/fr-de']:.4g} at update {last['update']}" in chart
    assert repr(nmt.load(folder / "runs/good", device="cpu")).endswith("runs/good: en, de, fr: 6 directions>")


@pytest.mark.slow
def test_one_direction_has_no_overview(folder: Path) -> None:
    with contextlib.chdir(folder):
        for options in (["data.source_lang=fr", "data.target_lang=de"], ["metrics.breakdown=false"]):
            arguments = ["checkpoint=runs/bad", "data.test=test", "output=again", "num_threads=1", *options]
            run_command(evaluate.main, EvaluateConfig, "evaluate", arguments)
            has_overview = options == ["metrics.breakdown=false"]
            assert (folder / "again/languages.html").is_file() == has_overview
            assert ("languages.html" in (folder / "again/report.html").read_text()) == has_overview
            assert ("output_languages" in read(folder / "again/scores.json")) != has_overview
        arguments[-1] = "data.source_lang=fr"
        run_command(evaluate.main, EvaluateConfig, "evaluate", [*arguments, "data.target_lang=de"])
    assert not list((folder / "again").glob("languages.*"))  # of the evaluation before


def compared(folder: Path, name: str, *options: str) -> Any:
    with contextlib.chdir(folder):
        compare(["runs/good", "runs/bad", "--num-resamples", "50", *options, "--output", name])
    return read(folder / name) if name.endswith(".json") else (folder / name).read_text()


def test_runs_are_compared_in_every_direction_and_in_the_mean(folder: Path) -> None:
    pooled = compared(folder, "all.json", "--test-set", "all")
    by_metric = {contrast["metric"]: contrast for contrast in pooled["contrasts"]}
    groups = [group["quantities"] for group in pooled["groups"]]
    for direction, name in FOLDERS.items():
        alone = compared(folder, "one.json", *(["--test-set", name] if name else []))
        for contrast in alone["contrasts"]:
            found = by_metric[f"{contrast['metric']}@{direction}"]
            assert {**found, "metric": contrast["metric"]} == contrast
        for group, quantities in zip(groups, (group["quantities"] for group in alone["groups"]), strict=True):
            assert group[f"bleu@{direction}"] == quantities["bleu"]
            assert group["parameters"] == quantities["parameters"]
    for group in groups:
        scores = [group[f"bleu@{direction}"]["mean"] for direction in FOLDERS]
        assert group["bleu"]["mean"] == pytest.approx(statistics.fmean(scores))
    assert by_metric["bleu"]["difference"]["mean"] == pytest.approx(
        groups[1]["bleu"]["mean"] - groups[0]["bleu"]["mean"]
    )
    assert by_metric["bleu"]["per_seed"] == [pytest.approx(1 / 51)]
    assert pooled["test_signatures"]["bleu"].startswith("mean of 6 directions: nrefs:1|bs:50|")
    text = compared(folder, "all.txt", "--test-set", "all")
    rows = [line.split(": ")[0] for line in text.splitlines() if line.startswith("BLEU ")]
    assert rows == [f"BLEU {direction}" for direction in [*FOLDERS, "mean"]]
    (mean,) = [line.split() for line in text.splitlines() if line.startswith("BLEU mean: ")]
    assert mean[4:6] == [f"{group['bleu']['mean']:.2f}" for group in groups]
    page = compared(folder, "all.html", "--test-set", "all")
    assert "BLEU de-fr" in page
    assert 'id="sentences"' not in page  # they are in the pages of single directions


def test_what_has_no_directions_in_common_is_not_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(folder):
        run_command(
            evaluate.main,
            EvaluateConfig,
            "evaluate",
            ["checkpoint=runs/bad", "data.source_lang=fr", "data.target_lang=de", "data.test=test", "output=fr"],
        )
        with pytest.raises(SystemExit):
            compare(["runs/good", "fr", "--test-set", "all"])
    assert "fr/languages.json: not there; evaluate the run on a test set in several" in capsys.readouterr().err
    overview = read(folder / "runs/bad/report/languages.json")
    overview["test"]["directions"] = overview["test"]["directions"][:4]
    (folder / "runs/bad/report/languages.json").write_text(json.dumps(overview))
    with contextlib.chdir(folder), pytest.raises(SystemExit):
        compare(["runs/good", "runs/bad", "--test-set", "all"])
    assert "were evaluated on different test sets (30 and 20 sentences)" in capsys.readouterr().err


def test_the_identifier_that_is_installed_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = {"de": 9.0, "en": 0.0, "fr": 0.0, "cs": 0.0}
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder), caplog.at_level(logging.INFO, "nmt"):
        patch.setattr(language_id, "_lingua", lambda codes: lambda text: values)
        patch.setattr(language_id.metadata, "version", lambda name: "2")
        options = ["checkpoint=runs/bad", "data.test=test", "output=named", "num_threads=1"]
        run_command(evaluate.main, EvaluateConfig, "evaluate", options)
    assert "Wrong language: outputs in another language than that of the direction, by lingua 2." in (
        folder / "named/languages.html"
    ).read_text(encoding="utf-8")
    wrong = {
        row["direction"]: row["scores"]["wrong_language"]
        for row in read(folder / "named/languages.json")["test"]["directions"]
    }
    assert all(share == (0 if name.endswith("-de") else 1) for name, share in wrong.items()), wrong
