"""Any pair of lines survives the way into the cache and back, or is counted."""

import functools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nmt.data import DataConfig, EncodedCorpus, Tokenizer, TokenizerConfig, load_corpus, read_pairs
from nmt.runtime.text import is_blank

MAX_LENGTH = 40
TEXT = [(f"the {a} dog sees {b} things", f"DER {b} Hund {a}") for a in "abcdef" for b in "xyz"]
PIECES = [
    *("a", "dog", " ", "  ", "é", "e\u0301", "🙂", "שלום", "x" * 30, "\x0b", "\x1c", "\x85", "\u2028", "\0", "\u00a0"),
    *(
        "\r",
        "\u3000",
        "\u200b",
        "\u200d",
        "\ufeff",
        "\ufdfa",
        "▁",
        "▅",
        "<s>",
        "</s>",
        "<unk>",
        "<0x0A>",
        '"',
        "'",
        "\\",
        "\\n",
    ),
    *("\ufffd", "\uffff", "\U0010ffff", "null", "NA", "007", "2024-01-02"),
]
LINES = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.text(st.characters(exclude_characters="\n\t", exclude_categories=["Cs"]), max_size=20),
)


@functools.cache
def tokenizer(kind: str = "bpe") -> Tokenizer:
    return Tokenizer.train(TokenizerConfig(type=kind, vocab_size=285, subword_regularization=0.1), TEXT)


def write(folder: Path, kind: str, pairs: list[tuple[str, str]], *, mark: bool, ends: str) -> DataConfig:
    sides = [[pair[side] for pair in pairs] for side in (0, 1)]
    options = {"max_length": MAX_LENGTH, "cache_dir": str(folder / "cache")}
    files = {"a.en": sides[0], "a.de": sides[1]}
    if kind == "tsv":
        files = {"a": ["\t".join(pair) for pair in pairs]}
    elif kind == "jsonl":
        files = {"a": [json.dumps({"en": en, "de": de}, ensure_ascii=not mark) for en, de in pairs]}
    for name, lines in files.items():
        content = "\ufeff" * mark + "".join(line + ends for line in lines)
        (folder / name).write_bytes(content.encode())
    path = str(folder / "a")
    return DataConfig(format=kind, train=path, test=path, **options)  # type: ignore[arg-type]


def decoded(corpus: EncodedCorpus) -> list[tuple[str, str]]:
    source, target = (
        [decode(ids.tolist()) for ids in np.split(column.ids, column.offsets[1:-1])]
        for column, decode in ((corpus.source, tokenizer().decode_source), (corpus.target, tokenizer().decode_target))
    )
    return list(zip(source, target, strict=True))


def is_kept(pair: tuple[str, str], split: str) -> bool:
    is_short = max(map(len, tokenizer().encode_source(pair))) <= MAX_LENGTH
    return is_short and not (split == "train" and any(map(is_blank, pair)))


def check(kind: str, folder: Path, pairs: list[tuple[str, str]], *, mark: bool, ends: str) -> None:
    config = write(folder, kind, pairs, mark=mark, ends=ends)
    repaired: Counter[str] = Counter()
    read = [tuple(pair) for pair in read_pairs(config, "train", repaired)]
    # What was written is read, without what is counted.
    assert len(read) == len(pairs)
    num_changed = 0
    for number, (before, after) in enumerate(zip(pairs, read, strict=True)):
        for text, text_read in zip(before, after, strict=True):
            start, _, end = text.partition(text_read) if text_read else (text, "", "")
            assert start + text_read + end == text
            assert set(start + end) <= set(" \r" + "\ufeff" * (number == 0))
            num_changed += text != text_read
    assert num_changed <= sum(repaired.values())
    # What was read comes back from the cache, without what is counted.
    for split in ("train", "test"):
        kept = [pair for pair in read if is_kept(pair, split)]
        for _ in range(2):
            corpus = load_corpus(config, split, tokenizer())
            assert decoded(corpus) == kept
            assert corpus.num_read == len(pairs) == len(kept) + sum(corpus.dropped.values())
            assert corpus.repaired == repaired
        blank = sum(num for reason, num in corpus.dropped.items() if "empty" in reason)
        assert blank == (sum(any(map(is_blank, pair)) for pair in read) if split == "train" else 0)
        if split == "train":
            assert corpus.source_text is not None
            assert corpus.target_text is not None
            rows = np.arange(len(corpus))
            assert list(zip(corpus.source_text.rows(rows), corpus.target_text.rows(rows), strict=True)) == kept


PAIRS = st.lists(st.tuples(LINES, LINES), max_size=8).map(lambda pairs: [*pairs, ("the dog", "DER Hund")])
HARD = [("\ufeffa", "b"), ("a\r", " b "), ("\u200b", "x"), ("x" * 50, "é" * 50), ("the dog", "DER Hund")]


@pytest.mark.parametrize("kind", ["text", "tsv"])
@given(pairs=PAIRS, mark=st.booleans(), ends=st.sampled_from(["\n", "\r\n"]))
@example(pairs=HARD, mark=True, ends="\n")
def test_lines_survive_the_cache(
    kind: str, pairs: list[tuple[str, str]], mark: bool, ends: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(kind, tmp_path_factory.mktemp("pairs"), pairs, mark=mark, ends=ends)


@settings(max_examples=6)
@given(pairs=PAIRS, mark=st.booleans(), ends=st.sampled_from(["\n", "\r\n"]))
@example(pairs=HARD, mark=True, ends="\n")
def test_json_lines_survive_the_cache(
    pairs: list[tuple[str, str]], mark: bool, ends: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check("jsonl", tmp_path_factory.mktemp("pairs"), pairs, mark=mark, ends=ends)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@given(lines=st.lists(LINES, max_size=10))
def test_text_survives_the_tokenizer(kind: str, lines: list[str]) -> None:
    assert [tokenizer(kind).decode_source(ids) for ids in tokenizer(kind).encode_source(lines)] == lines
