"""A dirty corpus becomes clean: what is planted is found, files are whole or not there, and mistakes are sentences."""

import contextlib
import gzip
import io
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt import checkpoint, clean
from nmt.cli.compose import run_command
from nmt.cli.configs import CleanConfig, Config
from nmt.config import to_dict
from nmt.data import DataConfig, SentencePair, Tokenizer, TokenizerConfig
from nmt.data.cleaning.overlap import overlaps
from nmt.models import MODELS, build_model

STEMS = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
RNG = random.Random(1)
ROWS = [RNG.sample(range(60), RNG.randint(7, 11)) for _ in range(1300)]
SOURCES = [" ".join(f"{STEMS[i]}the" for i in row) + "." for row in ROWS]
TARGETS = [" ".join(f"{STEMS[59 - i]}ung" for i in row) + "." for row in ROWS]


def write(folder: Path, sources: Sequence[str], targets: Sequence[str]) -> list[str]:
    for language, lines in (("en", sources), ("de", targets)):
        (folder / f"in.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return [f"source={folder}/in.en", f"target={folder}/in.de", f"output={folder}/out"]


def call(*arguments: str) -> tuple[int, str]:
    """Return the exit code and standard error of the command, called in this process."""
    logger, code = logging.getLogger("nmt"), 0
    before, logger.handlers = logger.handlers, []
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            run_command(clean.main, CleanConfig, "clean", list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, err.getvalue()


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def rejected(folder: Path) -> dict[int, str]:
    """Return the reason by line, from 1."""
    head, *rows = (line.split("\t") for line in lines(folder / "out.rejected.tsv"))
    assert head == ["line", "filter", "value", "source", "target"]
    assert all(len(row) == 5 for row in rows)
    return {int(row[0]): row[1] for row in rows}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("out*")}


def test_what_is_planted_is_found(tmp_path: Path) -> None:
    sources, targets = SOURCES[:], TARGETS[:]
    sources[10], targets[10] = targets[10], sources[10]
    targets[20] = sources[20]
    targets[30] = " ".join(targets[30].split()[:2])
    targets[40] = targets[41]
    sources[50], targets[50] = "\tsee https://a.org " + sources[50], targets[50]
    sources[60] = ""
    planted = {11: "language", 21: "identical", 31: "truncation", 41: "lexical", 51: "urls", 61: "min_characters"}
    sources += [SOURCES[5], SOURCES[6].upper() + "!", SOURCES[7], SOURCES[60], SOURCES[70]]
    targets += [TARGETS[5], TARGETS[6], "   " + TARGETS[8], TARGETS[60], TARGETS[71]]
    planted |= {1301: "duplicate_pairs", 1302: "duplicate_normalized", 1303: "lexical", 1305: "lexical"}
    code, err = call(*write(tmp_path, sources, targets), "num_threads=1")
    assert code == 0
    assert rejected(tmp_path) == planted  # line 1304 is the first with its source that is kept
    assert "kept 1295 of 1305 pairs" in err
    assert "languages are identified by character trigrams" in err
    keep = [i for i in range(len(sources)) if i + 1 not in planted]
    assert lines(tmp_path / "out.en") == [sources[i] for i in keep]
    assert lines(tmp_path / "out.de") == [targets[i] for i in keep]
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    for text in (
        "1,295",
        "duplicate_normalized",
        "character trigrams",
        "Kept, nearest to the threshold",
        sources[50][1:30],
    ):
        assert text in page
    first = files(tmp_path)
    assert call(*write(tmp_path, sources, targets), "num_threads=2")[0] == 0
    assert files(tmp_path) == first
    assert {path.name for path in tmp_path.iterdir()} == {*first, "in.en", "in.de"}


def test_dry_and_disabled_filters_and_thresholds(tmp_path: Path) -> None:
    given = write(tmp_path, ["a 12345", "b c", "d", "d"], ["a b c", "b c d e f g h", "e", "f"])
    call(*given)
    assert rejected(tmp_path) == {1: "numbers"}
    call(*given, "filters={numbers: {dry: true}, length_ratio: {max: 4}, duplicate_source: {enabled: true}}")
    assert rejected(tmp_path) == {2: "length_ratio", 4: "duplicate_source"}
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.count("counted only") == 1
    call(*given, "filters.numbers.enabled=false", "filters.max_words.max=6", "filters.duplicate_source.enabled=true")
    assert rejected(tmp_path) == {2: "max_words", 4: "duplicate_source"}


def test_test_sentences_are_removed_from_either_side(tmp_path: Path) -> None:
    (tmp_path / "t.en").write_text("A test?\nother\n")
    with gzip.open(tmp_path / "t.de.gz", "wb") as file:
        file.write(b"Ein Satz\nzwei\n")
    given = write(tmp_path, ["a TEST", "x", "zwei", "y"], ["ein", "ein satz!", "other", "z"])
    assert call(*given, f"tests=[{tmp_path}/t]")[0] == 0
    assert rejected(tmp_path) == {1: "test_overlap", 2: "test_overlap"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["filters.length_ration.max=3"], "did you mean filters.length_ratio.max?"),
        (["filters={length_ration: {max: 3}}"], "did you mean filters.length_ratio"),
        (["filters.numbers.max=-1"], "filters.numbers.max=-1.0: must be at least 0"),
        (["filters.numbers.max=much"], "a number is needed"),
        (["filters.script.min=2"], "filters.script.min=2.0: must be at least 0.0 and at most 1"),
        (["tests=[DIR/none]"], "none.en: no such file"),
        (["output=DIR/in"], "would overwrite"),
        (["source=DIR/short"], "both sides need the same number (line 2 of in.de has no partner)"),
        (["source=DIR/cut.gz"], "the compressed file is damaged or incomplete"),
        (["source=DIR/empty"], "empty: the file is empty"),
        (["target_lang=en"], "must be two languages"),
        (["reverse=x"], "needs checkpoint=RUN"),
        (["source="], "must be given: source=FILE target=FILE output=PREFIX"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(change: list[str], sentence: str, tmp_path: Path) -> None:
    given = write(tmp_path, ["a b", "c d", "e"], ["f", "g", "h"])
    (tmp_path / "short").write_text("a\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a\nb\nc\n" * 1000)[:-20])
    (tmp_path / "empty").touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, err = call(*given, *(text.replace("DIR", str(tmp_path)) for text in change))
    assert code == 1
    assert err.count("error: ") == 1
    assert sentence in err.splitlines()[-1]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def save_model(path: Path, languages: tuple[str, str], pairs: Sequence[SentencePair]) -> None:
    options = DataConfig(source_lang=languages[0], target_lang=languages[1], tokenizer=TokenizerConfig(type="word"))
    model = MODELS["rnn"].config()
    model.hidden_size = model.embedding_dim = 8
    trained = Tokenizer.train(options.tokenizer, pairs)
    torch.manual_seed(3)
    built = build_model(model, trained.source_size, trained.target_size, joint=trained.joint)
    content = {"config": to_dict(Config(model=model, data=options)), "tokenizer": trained.state_dict()}
    checkpoint.save(path, content | {"model": built.state_dict()})


def test_models_score_what_the_other_filters_keep_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, targets = SOURCES[:40], TARGETS[:40]
    save_model(tmp_path / "a.pt", ("en", "de"), list(map(SentencePair, sources, targets)))
    save_model(tmp_path / "b.pt", ("de", "en"), list(map(SentencePair, targets, sources)))
    given = write(tmp_path, [*sources, sources[0]], [*targets, targets[0]])
    models = [f"checkpoint={tmp_path}/a.pt", f"reverse={tmp_path}/b.pt"]
    models += ["filters.model.min=0", "filters.coverage={enabled: true, dry: true, min: 1}"]
    assert call(*given, *models, "filters.dual.min=0.9")[0] == 0
    assert rejected(tmp_path) == dict.fromkeys(range(1, 41), "dual") | {41: "duplicate_pairs"}
    values = [float(line.split("\t")[2]) for line in lines(tmp_path / "out.rejected.tsv")[1:-1]]
    translator, reverse = clean._load_models(CleanConfig(checkpoint=models[0][11:], reverse=models[1][8:]))
    scores = translator.score([(s, t, ()) for s, t in zip(sources, targets, strict=True)], reverse)
    assert values == pytest.approx([score.dual for score in scores], rel=1e-4)
    expected, write_page = files(tmp_path), clean.cleaning_page

    def interrupt(*arguments: Any) -> str:
        raise KeyboardInterrupt

    for name in expected:
        (tmp_path / name).unlink()
    monkeypatch.setattr(clean, "cleaning_page", interrupt)
    assert call(*given, *models, "filters.dual.min=0.9")[0] == 130
    assert [path.suffix for path in (tmp_path).glob("out*/*")] == [".npy"]
    assert not (tmp_path / "out.en").exists()
    monkeypatch.setattr(clean, "cleaning_page", write_page)
    monkeypatch.setattr(clean.Translator, "score", interrupt)  # what was scored is not scored again
    assert call(*given, *models, "filters.dual.min=0.9")[0] == 0
    assert files(tmp_path) == expected
    monkeypatch.undo()
    assert call(*given, *models, "filters.coverage.dry=false", "filters.dual.dry=true")[0] == 0
    found = {int(row.split("\t")[0]): row.split("\t")[1:3] for row in lines(tmp_path / "out.rejected.tsv")[1:-1]}
    links = translator.links(list(zip(sources, targets, strict=True)))
    assert links is not None
    for i, of in enumerate(links):
        sides = zip(zip(*of, strict=True), (sources[i], targets[i]), strict=True)
        share = min(len(set(linked)) / len(text.split()) for linked, text in sides)
        assert (found[i + 1][0], float(found[i + 1][1])) == ("coverage", pytest.approx(share, rel=1e-5))
    code, err = call(*given, f"checkpoint={tmp_path}/b.pt")
    assert (code, "translates de into en, the corpus is of en and de" in err) == (1, True)
    code, err = call(*given, f"checkpoint={tmp_path}/a.pt", f"reverse={tmp_path}/a.pt")
    assert (code, "a run of de into en is needed" in err) == (1, True)


@pytest.mark.slow
def test_a_killed_command_leaves_nothing_half_written_and_starts_again(tmp_path: Path) -> None:
    given = write(tmp_path, SOURCES * 30, TARGETS * 30)
    command = [sys.executable, "-m", "nmt.clean", *given, "num_threads=1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        assert process.stderr is not None
        assert any(b"cleaning" in line for line in process.stderr)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"in.en", "in.de"}
    assert call(*given, "num_threads=1")[0] == 0
    assert Counter(rejected(tmp_path).values()) == {"duplicate_pairs": 29 * 1300}
    assert lines(tmp_path / "out.de") == TARGETS


def test_training_text_with_test_pairs_in_it(tmp_path: Path) -> None:
    write(tmp_path, SOURCES[:20], TARGETS[:20])
    for end in ("en", "de"):
        text = lines(tmp_path / f"in.{end}")
        (tmp_path / f"test.{end}").write_text("\n".join([*text[3:5], "none", text[7].upper()]) + "\n")
    data = DataConfig(format="text", train=f"{tmp_path}/in", valid=f"{tmp_path}/in", test=f"{tmp_path}/test")
    data.cache_dir = str(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    pairs = list(zip(lines(tmp_path / "test.en"), lines(tmp_path / "test.de"), strict=True))
    pairs[1] = pairs[1][0], pairs[0][1]  # both sides are there, but in two pairs
    for _ in range(2):  # the second time from the cache
        same, found = overlaps(data, ["valid"], {"test": pairs})
        assert same == f"valid: {tmp_path}/in is training text too: its scores say nothing of text that is not"
        assert found.startswith("test: 2 of 4 pairs are in the training text")
        assert f"line 1: {pairs[0][0]} ||| {pairs[0][1]}" in found
    assert overlaps(data, ["test"], {"test": pairs[1:3]}) == []
