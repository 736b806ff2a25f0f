"""An encoded corpus is the whole text: what is dropped is counted, and there is never half a corpus."""

import json
import logging
import multiprocessing
import re
import tracemalloc
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nmt.data import (
    BatchLoader,
    DataConfig,
    EncodedCorpus,
    Tokenizer,
    TokenizerConfig,
    batch_sampler,
    load_corpus,
    read_pairs,
    sources,
    text_files,
    train_or_load_tokenizer,
)

SENTENCES = [f"word{row % 7} and number {row}" for row in range(40)]


def make(folder: Path, sources: list[str], targets: list[str], **options: object) -> DataConfig:
    folder.mkdir(exist_ok=True)
    for language, texts in (("en", sources), ("de", targets)):
        (folder / f"a.{language}").write_bytes("".join(f"{line}\n" for line in texts).encode())
    prefix = str(folder / "a")
    tokenizer = TokenizerConfig(type="word", vocab_size=100)
    places = {"train": prefix, "valid": prefix, "test": prefix, "cache_dir": str(folder / "cache")}
    config = DataConfig(**{"format": "text", "tokenizer": tokenizer, **places, **options})
    config.validate()
    return config


def rows(corpus: EncodedCorpus) -> list[tuple[list[int], list[int]]]:
    sides = []
    for ids, offsets in (corpus.source, corpus.target):
        sides.append([ids[start:end].tolist() for start, end in pairwise(offsets)])
    return list(zip(*sides, strict=True))


@pytest.mark.parametrize("kind", ["unigram", "bpe", "word", "char"])
def test_rows_are_the_encoded_pairs(tmp_path: Path, kind: str) -> None:
    """The files, written in several blocks, hold what encoding in memory gives."""
    sources = [f"{row} a\0b\u2028c d\u0085 🙂" + " x" * (row % 30) for row in range(9000)]
    config = make(
        tmp_path, sources, sources[::-1], tokenizer=TokenizerConfig(type=kind, vocab_size=300, max_training_pairs=200)
    )
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    pairs = list(read_pairs(config, "train"))
    assert len(corpus) == corpus.num_read == 9000
    assert corpus.dropped == corpus.repaired == {}
    expected = tokenizer.encode_source([pair.source for pair in pairs])
    assert rows(corpus) == list(zip(expected, tokenizer.encode_target([pair.target for pair in pairs]), strict=True))
    assert np.diff(corpus.source.offsets).tolist() == list(map(len, expected))
    assert isinstance(corpus.source.ids, np.memmap)
    assert corpus.source.ids.dtype == np.uint16


def test_large_vocabularies_need_wider_numbers(tmp_path: Path) -> None:
    words = [f"w{row}" for row in range(70_000)]
    config = make(tmp_path, words, ["x"] * len(words), tokenizer=TokenizerConfig(type="word", vocab_size=80_000))
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    assert corpus.source.ids.dtype == np.uint32
    assert tokenizer.decode_source(corpus.source.ids[[0, -1]].tolist()) == "w0 w69999"


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    sources = ["one", "", "two", "word " * 10_000, "a b", "a b c d e f g", "...", "   ", "a"]
    targets = ["eins", "leer", "", "kurz", "c " * 6, "x", "!?", "", "x y z"]
    config = make(tmp_path, sources, targets, max_length=5)
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    assert corpus.dropped == {"empty source": 2, "empty target": 1, "source too long": 2, "target too long": 1}
    assert corpus.num_read == 9 == len(corpus) + sum(corpus.dropped.values())
    assert [tokenizer.decode_source(source) for source, _ in rows(corpus)] == ["one", "...", "a"]
    assert [tokenizer.decode_target(target) for _, target in rows(corpus)] == ["eins", "!?", "x y z"]

    strange = load_corpus(replace(config, max_length_ratio=2.5), "train", tokenizer)
    assert strange.dropped == {**corpus.dropped, "length ratio": 1}
    assert len(load_corpus(replace(config, max_length_ratio=3.0), "train", tokenizer)) == len(corpus)

    valid = load_corpus(replace(config, max_length_ratio=2.5), "valid", tokenizer)  # blank lines and odd ratios stay
    assert valid.dropped == {"source too long": 2, "target too long": 1}
    assert len(valid) == 6
    assert len(list(read_pairs(config, "valid"))) == 9


def test_lines_that_only_look_blank_are_dropped_as_empty_ones(tmp_path: Path) -> None:
    blank = ["\t", "\u00a0", "\u200b", "\u3000", " \ufeff\u200d\t", "\u2028", "\0"]
    sources = [*blank, "one\u200d", "two", *["three"] * len(blank)]
    targets = ["x"] * (len(blank) + 1) + ["\tzwei", *blank]
    for kind in ("word", "char", "bpe"):
        config = make(tmp_path / kind, sources, targets, tokenizer=TokenizerConfig(type=kind, vocab_size=285))
        tokenizer = train_or_load_tokenizer(config)
        corpus = load_corpus(config, "train", tokenizer)
        assert corpus.dropped == {"empty source": len(blank), "empty target": len(blank)}
        assert corpus.num_read == len(sources) == 2 + sum(corpus.dropped.values())
        decoded = [
            (tokenizer.decode_source(source), tokenizer.decode_target(target)) for source, target in rows(corpus)
        ]
        assert decoded == [("one\u200d", "x"), ("two", "\tzwei")]
        assert len(load_corpus(config, "valid", tokenizer)) == len(sources)


def test_repaired_is_kept_with_the_corpus(tmp_path: Path) -> None:
    config = make(tmp_path, ["\ufeffone\r", " two"], ["eins", "zwei"])
    tokenizer = train_or_load_tokenizer(config)
    for _ in range(2):
        corpus = load_corpus(config, "train", tokenizer)
        assert corpus.repaired == {"byte-order mark": 1, "carriage return at the end": 1, "spaces at the ends": 1}


def test_blank_side_can_be_mapped(tmp_path: Path) -> None:
    config = make(tmp_path, ["one", "two"], ["eins", "zwei"])
    tokenizer = train_or_load_tokenizer(config)
    blank = make(tmp_path / "blank", ["", ""], ["eins", "zwei"])
    assert rows(load_corpus(blank, "test", tokenizer))[1][0] == []


def test_nothing_left(tmp_path: Path) -> None:
    config = make(tmp_path, ["a b c", "", "x"], ["a", "b", "b c d"], max_length=2)
    tokenizer = Tokenizer.train(config.tokenizer, [("a", "b")])
    message = (
        "none of the 3 pairs can be used .empty source: 1, source too long: 1, target too long: 1.; data.max_length=2"
    )
    with pytest.raises(ValueError, match=message):
        load_corpus(config, "train", tokenizer)
    assert list(Path(config.cache_dir).iterdir()) == []


def test_error_on_dropped(tmp_path: Path) -> None:
    config = make(tmp_path, ["a", "a b c", ""], ["a", "b", "c"], max_length=2)
    tokenizer = train_or_load_tokenizer(config)
    load_corpus(config, "train", tokenizer)
    with pytest.raises(
        ValueError, match=r"data\.error_on_dropped=true: .*a: pair 2 and 1 others .*empty source: 1, source too long: 1"
    ):
        load_corpus(replace(config, error_on_dropped=True), "train", tokenizer)
    load_corpus(replace(config, error_on_dropped=True, max_length=3), "test", tokenizer)


def test_counts_are_logged_from_the_cache_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = make(tmp_path, ["a", ""], ["a", "b"])
    tokenizer = train_or_load_tokenizer(config)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            caplog.clear()
            load_corpus(config, "train", tokenizer)
            assert "1 of 2 pairs; dropped: empty source: 1" in caplog.text
    assert "encoded" not in caplog.text


def entries(config: DataConfig, pattern: str) -> set[str]:
    return {path.name for path in Path(config.cache_dir).glob(pattern)}


def test_every_relevant_change_makes_a_new_entry(tmp_path: Path) -> None:
    config = make(tmp_path, SENTENCES, SENTENCES)
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    assert load_corpus(config, "train", train_or_load_tokenizer(config)).digest == corpus.digest
    assert load_corpus(replace(config, error_on_dropped=True), "train", tokenizer).digest == corpus.digest
    assert len(entries(config, "corpus-*")) == len(entries(config, "tokenizer-*")) == 1
    changed = [
        load_corpus(replace(config, max_length=9), "train", tokenizer),
        load_corpus(replace(config, max_length_ratio=2.0), "train", tokenizer),
        load_corpus(config, "test", tokenizer),
        load_corpus(config, "train", train_or_load_tokenizer(replace(config, tokenizer=TokenizerConfig(type="char")))),
    ]
    (tmp_path / "a.de").write_text((tmp_path / "a.de").read_text().replace("word3", "word4"))
    changed += [load_corpus(config, "train", tokenizer), load_corpus(config, "train", train_or_load_tokenizer(config))]
    assert len({corpus.digest, *(variant.digest for variant in changed)}) == 7
    assert not entries(config, ".*")


def test_same_text_elsewhere_comes_from_the_cache(tmp_path: Path) -> None:
    config = make(tmp_path, SENTENCES, SENTENCES)
    copy = make(tmp_path / "other", SENTENCES, SENTENCES, cache_dir=config.cache_dir)
    assert train_or_load_tokenizer(config).digest == train_or_load_tokenizer(copy).digest
    tokenizer = train_or_load_tokenizer(config)
    assert load_corpus(config, "train", tokenizer).digest == load_corpus(copy, "train", tokenizer).digest
    assert len(entries(config, "*")) == 2


def test_tokenizer_comes_from_the_cache_with_the_requested_sampling(tmp_path: Path) -> None:
    config = make(tmp_path, SENTENCES, SENTENCES, tokenizer=TokenizerConfig(type="bpe", vocab_size=300))
    trained = train_or_load_tokenizer(config)
    config.tokenizer.subword_regularization = 0.2
    cached = train_or_load_tokenizer(config)
    assert (cached.digest, cached.subword_regularization, trained.subword_regularization) == (trained.digest, 0.2, 0.0)
    assert cached.encode_source(SENTENCES) == trained.encode_source(SENTENCES)
    assert len(entries(config, "tokenizer-*")) == 1


def test_tokenizer_is_trained_on_the_training_text_only(tmp_path: Path) -> None:
    config = make(tmp_path, ["a"] * 3, ["b"] * 3)
    unseen = make(tmp_path / "other", ["secret"], ["geheim"])
    config.valid, config.test = unseen.valid, unseen.test
    tokenizer = train_or_load_tokenizer(config)
    assert tokenizer.source_subwords(range(4, tokenizer.source_size)) == ["a", "b"]


def test_text_is_kept_for_sampling_of_the_training_split(tmp_path: Path) -> None:
    texts = ["one 🙂", "", "x" * 30, "three\u2028"]
    subwords = TokenizerConfig(type="bpe", vocab_size=270, subword_regularization=0.1)
    config = make(tmp_path, texts, texts, tokenizer=subwords, max_length=20)
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    assert corpus.source_text is not None
    assert corpus.target_text is not None
    kept = [tokenizer.decode_source(source) for source, _ in rows(corpus)]
    assert 0 < len(kept) < 4
    assert corpus.source_text.rows(np.arange(len(kept))) == kept == corpus.target_text.rows(np.arange(len(kept)))
    assert load_corpus(config, "valid", tokenizer).source_text is None
    config.tokenizer.subword_regularization = 0.0
    assert load_corpus(config, "train", train_or_load_tokenizer(config)).source_text is None


def _prepare(config: DataConfig, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    tokenizer = train_or_load_tokenizer(config)
    results.put(rows(load_corpus(config, "train", tokenizer)))  # type: ignore[attr-defined]


def test_several_processes_at_once(tmp_path: Path) -> None:
    config = make(tmp_path, SENTENCES * 50, SENTENCES * 50)
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_prepare, args=(config, start, results)) for _ in range(3)]
    for process in processes:
        process.start()
    first, *later = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(first) == 2000
    assert later == [first, first]
    assert len(entries(config, "*")) == 2


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    config = make(tmp_path, SENTENCES, SENTENCES)
    tokenizer = train_or_load_tokenizer(config)
    with (tmp_path / "a.de").open("a") as file:
        file.write("one more\n")
    with pytest.raises(ValueError, match=r"has 40 lines and .* has 41"):
        load_corpus(config, "train", tokenizer)
    assert len(entries(config, "*")) == 1


def test_jsonl_corpus(tmp_path: Path) -> None:
    """A source without files to fingerprint is cached by its content."""
    folder = tmp_path / "hub"
    folder.mkdir()
    path = folder / "train.jsonl"
    config = make(tmp_path, SENTENCES, SENTENCES)
    tokenizer = train_or_load_tokenizer(config)
    path.write_text("".join(json.dumps({"translation": {"en": line, "de": line}}) + "\n" for line in SENTENCES))
    expected = rows(load_corpus(config, "train", tokenizer))
    for variant in (
        replace(config, format="jsonl", train=str(path)),
        replace(config, format="hub", hf_dataset=str(folder), train="train"),
    ):
        corpus = load_corpus(variant, "train", tokenizer)
        assert rows(corpus) == expected
        assert load_corpus(variant, "train", tokenizer).digest == corpus.digest
    assert len(entries(config, "corpus-*")) == 3


@pytest.mark.parametrize("when", ["before training the tokenizer", "while encoding"])
def test_text_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """The cache must not keep the new text under the fingerprint of the old one."""
    config = make(tmp_path, SENTENCES, SENTENCES)
    tokenizer = Tokenizer.train(config.tokenizer, read_pairs(config, "train"))
    real = sources.read_parallel

    def change(*arguments: object) -> object:
        yield from real(*arguments)  # type: ignore[arg-type]
        path = tmp_path / "a.en"
        path.write_bytes(path.read_bytes().replace(b"word", b"WORD"))

    monkeypatch.setattr(sources, "read_parallel", change)
    read = (
        partial(load_corpus, config, "train", tokenizer)
        if when == "while encoding"
        else partial(train_or_load_tokenizer, config)
    )
    with pytest.raises(ValueError, match=r"a\.en: the text was changed while it was read"):
        read()
    assert entries(config, "*") == set()
    monkeypatch.undo()
    assert len(load_corpus(config, "train", train_or_load_tokenizer(config))) == len(SENTENCES)


def test_log_has_the_number_of_training_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = make(tmp_path, SENTENCES, SENTENCES)
    characters = 2 * sum(map(len, SENTENCES))
    for options, message in (
        ({}, "on all 40 pairs"),
        ({"max_training_pairs": 30}, "on 30 random ones of 40 pairs"),
        ({"max_training_characters": characters // 2}, r"on (19|20) random ones of 40 pairs"),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            train_or_load_tokenizer(replace(config, tokenizer=replace(config.tokenizer, **options)))
        assert re.search(f"trained a word tokenizer with .* entries {message} in", caplog.text)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while sampling, nor while encoding, nor while reading an epoch of batches."""
    monkeypatch.setattr(text_files, "BLOCK_LINES", 128)
    monkeypatch.setattr(batch_sampler, "EPOCH_CHUNK_ROWS", 512)
    monkeypatch.setattr(batch_sampler, "SEGMENT_ROWS", 32)
    peaks = []
    for num in (2000, 16_000):
        texts = [f"word{row % 7} and number {row % 11}" for row in range(num)]
        config = make(tmp_path / str(num), texts, texts)
        config.tokenizer.max_training_characters = 10_000
        tracemalloc.start()
        tokenizer = train_or_load_tokenizer(config)
        corpus = load_corpus(config, "train", tokenizer)
        read = sum(len(batch.indices) for batch in BatchLoader(corpus, tokenizer, 256, 1).epoch(0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert read == num
    assert peaks[1] < 1.2 * peaks[0]


def test_error_on_dropped_counts_pairs_from_the_beginning_of_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first dropped pair is in a later block, and others come after it."""
    monkeypatch.setattr(text_files, "BLOCK_LINES", 4)
    lines = ["a", "b", "c", "d", "e", "f", "", "", "i", "", "k"]
    config = make(tmp_path, lines, ["x"] * len(lines))
    tokenizer = Tokenizer.train(config.tokenizer, [("a b c d e f i k", "x")])
    with pytest.raises(ValueError, match=r"a: pair 7 and 2 others cannot be used \(empty source: 3\)"):
        load_corpus(replace(config, error_on_dropped=True), "train", tokenizer)
    assert load_corpus(config, "train", tokenizer).dropped_rows.tolist() == [6, 7, 9]
