"""BPE looked up word by word is BPE as SentencePiece computes it over whole sentences."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nmt.data import Tokenizer, TokenizerConfig, bpe_cache
from nmt.data.sentencepiece_model import SentencePiece

WORDS = ["the", "house", "houses", "houseboat", "thehouse", "a", "..", "(x)", "über", "Straße", "12", "123", "🙂"]
ODD = [
    "",
    " ",
    "  ",
    "日本語",
    "\t",
    "\0",
    "\u3000",
    "\u00a0",
    "\u0301",
    "x" * 40,
    "ﬁ①",
    "▁",
    "<s>",
    "<0x41>",
    "\U000f0000",
]


def texts(num: int, seed: int, odd: float) -> list[str]:
    rng = random.Random(seed)
    lines = []
    for _ in range(num):
        words = [rng.choice(ODD if rng.random() < odd else WORDS) for _ in range(rng.randint(0, 9))]
        lines.append((" " if rng.random() < 0.8 else "").join(words))
    return lines


def model(**options: object) -> SentencePiece:
    config = TokenizerConfig(**{"kind": "bpe", "vocab_size": 340, "character_coverage": 1.0, **options})
    train = [(" ".join(words), " ".join(words)) for words in (WORDS, WORDS[::-1])]
    tokenizer = Tokenizer.train(config, train * 20)
    assert isinstance(tokenizer.source, SentencePiece)
    return tokenizer.source


def directly(subwords: SentencePiece, lines: list[str]) -> list[list[int]]:
    return subwords.encode(lines)  # sentence by sentence, without a table


def by_table(subwords: SentencePiece, lines: list[str]) -> list[list[int]]:
    ids, lengths = subwords.encode_flat(lines)
    assert ids.dtype == np.int32
    assert lengths.sum() == len(ids)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if lines else []


@pytest.mark.parametrize("odd", [0.0, 0.3])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_table_is_the_library(odd: float, byte_fallback: bool) -> None:
    subwords = model(byte_fallback=byte_fallback, vocab_size=340 if byte_fallback else 80)
    assert subwords._table is not None
    for seed in range(40):
        lines = texts(50, seed, odd)
        assert by_table(subwords, lines) == directly(subwords, lines)
    assert by_table(subwords, []) == []
    assert by_table(subwords, [""]) == [[]]


def test_table_begins_anew_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    subwords = model()
    assert subwords._table is not None
    monkeypatch.setattr(bpe_cache, "MAX_WORDS", 20)
    for seed in range(30):
        lines = texts(20, seed, 0.4)
        assert by_table(subwords, lines) == directly(subwords, lines)
        assert len(subwords._table._numbers) <= 20
    monkeypatch.setattr(bpe_cache, "MAX_WORDS", 10**6)
    monkeypatch.setattr(bpe_cache, "MAX_IDS", 100)
    for seed in range(30):
        lines = [line + " " + "y" * seed for line in texts(20, seed, 0.4)]
        assert by_table(subwords, lines) == directly(subwords, lines)
        assert subwords._table._num_ids <= 100


def test_table_serves_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe_cache, "MAX_WORDS", 300)
    subwords = model()
    blocks = [[f"{line} {seed}{row}" for row, line in enumerate(texts(40, seed, 0.0))] for seed in range(60)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda lines: by_table(subwords, lines), blocks))
    assert results == [directly(subwords, lines) for lines in blocks]


def test_a_failure_leaves_a_table_that_works() -> None:
    subwords = model()
    assert subwords._table is not None
    encode = subwords._table._encode

    def fail(words: list[str]) -> list[np.ndarray]:
        raise MemoryError

    subwords._table._encode = fail
    with pytest.raises(MemoryError):
        subwords.encode_flat(["the house"])
    subwords._table._encode = encode
    assert by_table(subwords, ["the house"]) == directly(subwords, ["the house"])


@pytest.mark.parametrize(
    "options", [{"kind": "unigram", "vocab_size": 285}, {"normalization": "nfkc"}, {"normalization": "nmt_nfkc"}]
)
def test_no_table_where_words_do_not_stand_alone(options: dict[str, object]) -> None:
    subwords = model(**options)
    assert subwords._table is None
    lines = texts(100, 1, 0.3)
    assert by_table(subwords, lines) == directly(subwords, lines)
