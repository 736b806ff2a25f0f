"""A compressed corpus is the corpus: the same pairs, the same ids, the same errors, and no file to be named twice."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nmt.data import DataConfig, EncodedCorpus, attach_alignments, load_corpus, read_pairs, train_or_load_tokenizer
from nmt.data.sources import alignment_path
from nmt.evaluation.external_scores import read_external_scores
from nmt.evaluation.results import EvaluationSet, read_hypotheses
from nmt.runtime.compression import SUFFIXES, atomic_output

NUM = 9000  # more than a block
SOURCES = [f"a{row % 50} \x85 b\u2028{row % 7}  c" for row in range(NUM)]
TARGETS = [f"x{row % 40} y\rz é{row % 9}" for row in range(NUM)]


def write(path: Path, text: str, suffix: str = "") -> None:
    with atomic_output(path.with_name(path.name + suffix)) as file:
        file.write(text.encode())


def write_corpus(folder: Path, suffix: str, sources: list[str] = SOURCES, targets: list[str] = TARGETS) -> None:
    write(folder / "t.en", "\ufeff" + "".join(f" {line}\r\n" for line in sources), suffix)
    write(folder / "t.de", "\n".join(targets), suffix)
    write(folder / "t.gold", "".join("0-0 1p1\n" for _ in sources), suffix)
    rows = list(zip(sources, targets, strict=False))
    write(folder / "t.tsv", "".join(f"{source}\t{target}\n" for source, target in rows), suffix)
    write(folder / "t.jsonl", "".join(json.dumps({"en": s, "de": t}) + "\n" for s, t in rows), suffix)
    write(folder / "list.jsonl", json.dumps([{"en": s, "de": t} for s, t in rows], indent=1), suffix)


def config(folder: Path, kind: str = "text", name: str = "t") -> DataConfig:
    config = DataConfig(format=kind, train=str(folder / name), cache_dir=str(folder / "cache"))
    config.tokenizer.type = "word"
    return config


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_reads_it(tmp_path: Path, suffix: str) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for folder, ending in ((plain, ""), (packed, suffix)):
        write_corpus(folder, ending)
    for kind, name in (("text", "t"), ("tsv", "t.tsv"), ("jsonl", "t.jsonl"), ("jsonl", "list.jsonl")):
        expected, repaired = list(read_pairs(config(plain, kind, name), "train", counts := Counter())), Counter[str]()
        assert list(read_pairs(config(packed, kind, name), "train", repaired)) == expected
        assert repaired == counts
        assert len(expected) == NUM
        if kind != "text":  # its full name does as well
            assert list(read_pairs(config(packed, kind, name + suffix), "train")) == expected
            assert alignment_path(config(packed, kind, "t.tsv" + suffix), "train") == packed / f"t.gold{suffix}"
    assert EvaluationSet.read(config(packed), "train").digests() == EvaluationSet.read(config(plain), "train").digests()


def same(first: EncodedCorpus, second: EncodedCorpus) -> bool:
    assert first.links is not None
    assert second.links is not None
    columns = zip(
        [*first.source, *first.target, *first.links], [*second.source, *second.target, *second.links], strict=True
    )
    return all(np.array_equal(one, other) for one, other in columns)


def test_the_cache_serves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora = []
    for suffix in ("", ".gz"):
        write_corpus(tmp_path / f"data{suffix}", suffix)
        options = config(tmp_path / f"data{suffix}")
        tokenizer = train_or_load_tokenizer(options)
        corpora.append(attach_alignments(options, load_corpus(options, "train", tokenizer), tokenizer))
    assert same(*corpora)
    with monkeypatch.context() as patch:  # a second time nothing is read
        patch.setattr("nmt.data.sources.read_parallel", None)
        assert same(corpora[0], attach_alignments(options, load_corpus(options, "train", tokenizer), tokenizer))
    write_corpus(tmp_path / "data.gz", ".gz", [*SOURCES[:-1], "other"])
    changed = load_corpus(options, "train", tokenizer)
    assert changed.digest != corpora[1].digest
    assert not np.array_equal(changed.source.ids, corpora[0].source.ids)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_corpus_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    write_corpus(tmp_path, suffix)
    options = config(tmp_path)
    tokenizer = train_or_load_tokenizer(options)
    shutil.rmtree(tmp_path / "cache")
    path = tmp_path / f"t.de{suffix}"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged or incomplete") as info:
        load_corpus(options, "train", tokenizer)
    assert str(info.value).startswith(f"{path}: ")
    assert list((tmp_path / "cache").iterdir()) == []
    jsonl = tmp_path / f"t.jsonl{suffix}"
    jsonl.write_bytes(jsonl.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        list(read_pairs(config(tmp_path, "jsonl", "t.jsonl"), "train"))


def test_lines_are_named_as_in_a_plain_file(tmp_path: Path) -> None:
    write_corpus(tmp_path, ".gz", SOURCES, TARGETS[:-1])
    with pytest.raises(ValueError, match=rf"t\.en\.gz has {NUM} lines and .*t\.de\.gz has {NUM - 1}:"):
        list(read_pairs(config(tmp_path), "train"))
    with atomic_output(tmp_path / "t.de.gz") as file:
        file.write(b"x\n" * (NUM - 1) + b"ab\xff\n")
    with pytest.raises(ValueError, match=rf"t\.de\.gz: line {NUM}, byte 3 \(0xff\)"):
        list(read_pairs(config(tmp_path), "train"))
    with pytest.raises(FileNotFoundError, match=rf"write {tmp_path}/t$"):
        list(read_pairs(config(tmp_path, name="t.en.gz"), "train"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_files_of_an_evaluation(tmp_path: Path, suffix: str) -> None:
    write_corpus(tmp_path, suffix, SOURCES[:20], TARGETS[:20])
    test = EvaluationSet.read(config(tmp_path), "train")
    assert test.gold is not None
    assert len(test.gold) == 20
    write(tmp_path / "hypotheses.txt", "".join(f"h {row}\n" for row in range(20)), suffix)
    for name in ("hypotheses.txt", f"hypotheses.txt{suffix}"):
        assert read_hypotheses(tmp_path / name, test) == [f"h {row}" for row in range(20)]
    write(tmp_path / "scores", "".join(f"{row}\n" for row in range(20)), suffix)
    assert read_external_scores(tmp_path / "scores", 20).sentences == [float(row) for row in range(20)]


def test_the_plain_file_is_preferred(tmp_path: Path) -> None:
    write_corpus(tmp_path, ".gz")
    write_corpus(tmp_path, "", ["plain"], ["eben"])
    assert list(read_pairs(config(tmp_path), "train")) == [("plain", "eben")]
