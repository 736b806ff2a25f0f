"""Runs on several corpora and in several languages, from the command line."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nmt
from nmt import align, checkpoint, clean, evaluate, score, train, translate
from nmt.cli.compose import run_command
from nmt.cli.configs import AlignConfig, CleanConfig, Config, EvaluateConfig, ScoreConfig, TranslateConfig
from nmt.data import DataConfig
from nmt.inference.aligner import check_directions
from nmt.training.logger import read_metrics

WORDS = {
    "en": ["dog", "cat", "bird", "cow", "sheep"],
    "de": ["Hund", "Katze", "Vogel", "Kuh", "Schaf"],
    "fr": ["chien", "chat", "oiseau", "vache", "mouton"],
}
FRAME = {"en": "the {} sees the {}", "de": "der {} sieht der {}", "fr": "le {} voit le {}"}
SMALL = [
    *("num_threads=1", "data=text", "train.batch_tokens=80", "data.tokenizer.type=word", "train.precision=fp32"),
    *("search.max_length_ratio=0", "search.max_length_offset=6", "optim.schedule=constant", "optim.warmup_updates=0"),
    *("alignment.head_importance_pairs=0", "search.beam_size=2", "train.log_every=1"),
]
TRAINED = [
    *("model.hidden_size=48", "model.embedding_dim=32", "model.attention.dim=32", "model.dropout=0"),
    *("optim.learning_rate=0.01", "train.batch_tokens=400"),
]
RNN = ["model.hidden_size=8", "model.embedding_dim=8", "model.attention.dim=8"]
CORPORA = "data.corpora={clean:{path:clean},web:{path:web,tag:web}}"
STAGES = "data.stages=[{mix:{clean:1,web:3},until:5 updates},{mix:{web:1},until:0.5 epochs of web},{mix:{clean:1}}]"


def write(folder: Path, name: str, pairs: list[tuple[int, int]], languages: tuple[str, ...] = ("en", "de")) -> None:
    for language in languages:
        words, frame = WORDS[language], FRAME[language]
        text = "".join(frame.format(words[a], words[b]) + "\n" for a, b in pairs)
        (folder / f"{name}.{language}").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    pairs = [(a, b) for a in range(5) for b in range(5)]
    write(folder, "clean", pairs * 4)
    write(folder, "web", pairs[::-1] * 8)
    write(folder, "test", pairs[::4])
    for name, chosen in (("train", pairs * 4), ("valid", pairs[::3]), ("small", pairs[::4])):
        write(folder, name, chosen, ("en", "de", "fr"))
    return folder


def fit(folder: Path, name: str, updates: int, *options: str) -> dict[str, Any]:
    limits = [f"train.max_updates={updates}", "train.valid_every=50", "train.save_every=1000"]
    with contextlib.chdir(folder):
        run_command(train.main, Config, "train", [f"name={name}", *SMALL, *limits, *options])
    return checkpoint.load(folder / "runs" / name / "checkpoints/last.pt")


def test_a_run_continues_exactly_inside_every_stage(folder: Path) -> None:
    options = [CORPORA, STAGES, "data.valid=test", "data.test=test", *RNN]
    whole = fit(folder, "whole", 30, *options)
    for stop in (2, 8, 14, 30):  # inside the first stage, the second, at its end and in the third
        parts = fit(folder, "parts", stop, *options)
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name
    assert whole["position"]["pairs_by_corpus"] == parts["position"]["pairs_by_corpus"]
    text = (folder / "runs/whole/train.log").read_text()
    assert "stage 1 of 3, epoch 0: shares clean 0.250, web 0.750" in text
    assert "stage 2 of 3, epoch 0: shares web 1.000" in text
    assert "stage 3 of 3, epoch 0: shares clean 1.000" in text
    rows = [row for row in read_metrics(folder / "runs/whole/metrics.jsonl") if "loss" in row]
    assert rows[-1]["pairs/web"] == whole["position"]["pairs_by_corpus"][1] > 100
    assert all(abs(row["share/clean"] + row["share/web"] - 1) < 1e-9 for row in rows)
    second = [row for row in rows if row["share/web"] == 1.0 and row["update"] > 5]
    assert second
    assert all("loss/clean" not in row and row["loss/web"] < row["perplexity"] for row in second)


def test_one_corpus_trains_as_before(folder: Path) -> None:
    texts = ["data.valid=test", "data.test=test", *RNN]
    plain = fit(folder, "plain", 6, "data.train=clean", *texts)
    entry = fit(folder, "entry", 6, "data.corpora={clean:{path:clean}}", *texts)
    assert all(torch.equal(tensor, entry["model"][name]) for name, tensor in plain["model"].items())


def test_losses_by_corpus_add_up(folder: Path) -> None:
    options = [CORPORA, "data.valid=test", "data.test=test", *RNN]
    for number, extra in enumerate([[], ["train.r_drop_alpha=1"], ["train.gradient_accumulation=2"]]):
        fit(folder, f"sums{number}", 4, *options, *extra)
        rows = read_metrics(folder / f"runs/sums{number}/metrics.jsonl")
        for row in (row for row in rows if "loss" in row):
            mean = sum(row[f"loss/{name}"] * row[f"share/{name}"] for name in ("clean", "web") if f"loss/{name}" in row)
            assert float(torch.tensor(mean).exp()) == pytest.approx(row["perplexity"], rel=1e-4)


@pytest.mark.parametrize("place", ["source", pytest.param("decoder", marks=pytest.mark.slow)])
def test_one_model_translates_into_the_language_that_is_asked_for(
    place: str, folder: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    languages = [f"data.tags={place}", "data.languages=[en,de,fr]", "data.train=train", "data.valid=valid"]
    fit(folder, place, 250, *languages, "data.test=small", *TRAINED)
    run = folder / "runs" / place
    names = ["", "en-fr", "de-en", "de-fr", "fr-en", "fr-de"]
    scores = [json.loads((run / "report" / name / "scores.json").read_text())["bleu"]["score"] for name in names]
    assert min(scores) > 90, scores
    (folder / "in.en").write_text("the cow sees the dog\n\n", encoding="utf-8")
    for language, expected in (("fr", "le vache voit le chien"), ("de", "der Kuh sieht der Hund")):
        with contextlib.chdir(folder):
            options = [f"checkpoint={run}", "input=in.en", f"target_lang={language}", f"output=out.{language}"]
            run_command(translate.main, TranslateConfig, "translate", options)
        assert (folder / f"out.{language}").read_text(encoding="utf-8") == f"{expected}\n\n"
    model = nmt.load(run, device="cpu")
    result = model.translate("the cow sees the dog", target_lang="fr")
    assert result.text == "le vache voit le chien"
    assert model.score("le vache voit le chien", result.text).num_tokens == 6 + (place == "decoder")
    into_german = model.translate("le vache voit le chien")
    assert into_german.text == "der Kuh sieht der Hund"
    # scores of given translations are those of the search, a forced tag counted in both
    pair = model.score("the cow sees the dog", into_german.text)
    assert pair.log_prob == pytest.approx(model.translate("the cow sees the dog").n_best[0].log_prob, abs=1e-4)
    both = model.score("the cow sees the dog", into_german.text, model)  # reads as it writes: in the other direction
    back = model.translate(into_german.text, target_lang="en").n_best[0]
    assert (back.text, both.reverse_log_prob) == ("the cow sees the dog", pytest.approx(back.log_prob, abs=1e-4))
    with contextlib.chdir(folder):
        given = ["source=small.fr", "target=small.en", "source_lang=fr", "target_lang=en", "output=kept"]
        given += [f"checkpoint={run}", f"reverse={run}", "filters.dual.min=0.5"]
        run_command(clean.main, CleanConfig, "clean", given)
    assert (folder / "kept.en").read_text() == (folder / "small.en").read_text()
    known = model.config.data
    assert check_directions("a", known, "b", DataConfig(source_lang="fr", target_lang="de"), "fr") == "de"
    with pytest.raises(ValueError, match="reverse=b: the source may be en or de; give a run of one direction"):
        check_directions("a", known, "b", known, "fr")
    with pytest.raises(ValueError, match="translates fr into de, a en into de: a run of the other direction is needed"):
        check_directions("a", known, "b", DataConfig(source_lang="fr", target_lang="de"))
    aligned = model.align("the cow sees the dog", into_german.text)
    assert {link for link in aligned.links if link[1] in (1, 4)} <= {(s, t) for s in range(5) for t in (1, 4)}
    weights = model.attention("the cow sees the dog").numpy()
    assert weights.shape[2:] == (6 + (place == "decoder"), 6 + (place == "source"))
    with contextlib.chdir(folder), pytest.raises(SystemExit):
        run_command(translate.main, TranslateConfig, "translate", [f"checkpoint={run}", "target_lang=xx"])
    assert b"target_lang=xx: the model translates into de, fr, en" in capsysbinary.readouterr().err
    with contextlib.chdir(folder):
        one = [f"checkpoint={run}", "data.source_lang=fr", "data.target_lang=de", "data.test=small", "output=one"]
        run_command(evaluate.main, EvaluateConfig, "evaluate", one)
    assert json.loads((folder / "one/scores.json").read_text())["bleu"]["score"] == scores[-1]


def test_a_tag_chooses_the_kind_of_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two corpora give the same sources other targets; the tag says which."""
    write(folder, "formal", [(a, b) for a in range(5) for b in range(5)])
    text = (folder / "formal.de").read_text()
    (folder / "formal.de").write_text(text.replace("sieht", "erblickt"))
    corpora = "data.corpora={plain:{path:clean},formal:{path:formal,tag:formal,weight:1}}"
    fit(folder, "kinds", 150, corpora, "data.valid=test", "data.test=test", *TRAINED)
    model = nmt.load(folder / "runs/kinds", device="cpu")
    assert model.translate("the cow sees the dog").text == "der Kuh sieht der Hund"
    assert model.translate("the cow sees the dog", tag="formal").text == "der Kuh erblickt der Hund"
    with pytest.raises(ValueError, match="tag=x: must be one of formal"):
        model.translate("the cow sees the dog", tag="x")
    sizes = list[int]()
    for tag, word in (("", "sieht"), ("tag=formal", "erblickt")):
        with contextlib.chdir(folder):
            options = ["checkpoint=runs/kinds", "output=kinds", *filter(None, [tag])]
            run_command(evaluate.main, EvaluateConfig, "evaluate", options)
        lines = (folder / "kinds/hypotheses.txt").read_text(encoding="utf-8").splitlines()
        assert all(f" {word} " in line for line in lines)
        pairs = ["checkpoint=runs/kinds", "source=formal.en", "target=formal.de", *filter(None, [tag])]
        with contextlib.chdir(folder):
            run_command(score.main, ScoreConfig, "score", [*pairs, f"output=scores.{word}"])
            run_command(align.main, AlignConfig, "align", [*pairs, "formats=[npz,pharaoh]", f"output=links.{word}"])
        with np.load(folder / f"links.{word}/alignments.npz") as stored:
            sizes.append(stored["0.weights"].shape[-1])
        links = (folder / f"links.{word}/alignments.pharaoh").read_text().splitlines()
        assert max(int(end) for line in links for link in line.split() for end in link.split("-")) == 4
    assert sizes == [6, 7]  # the tag is read, and no word
    per_word = [np.loadtxt(folder / f"scores.{word}")[:, 0] for word in ("sieht", "erblickt")]
    assert (per_word[0] + 1 < per_word[1]).all()  # the formal text is likelier with its tag
    for name, main, config in (("score", score.main, ScoreConfig), ("align", align.main, AlignConfig)):
        with contextlib.chdir(folder), pytest.raises(SystemExit):
            run_command(main, config, name, [*pairs[:3], "tag=x"])
        assert "tag=x: must be one of formal" in capsys.readouterr().err
