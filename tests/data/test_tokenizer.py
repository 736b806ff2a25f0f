"""Encoding and decoding restores the text, whatever is in it."""

import random
import re
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from nmt.data import BOS, EOS, PAD, UNK, SentencePair, Tokenizer, TokenizerConfig
from nmt.data.subword_sampling import row_keys

WORDS = [
    "the",
    "a",
    "dog",
    "cat",
    "house",
    "tree",
    "sleeps",
    "runs",
    "under",
    "over",
    "small",
    "big",
    "and",
    "or",
    "der",
    "die",
    "Hund",
    "Katze",
    "Haus",
]
WORDS += [
    first + second for first in ["ba", "mor", "ti", "schul", "ven"] for second in ["lo", "gar", "nek", "tum", "isch"]
]
NASTY = [
    "",
    " ",
    "  x  y ",
    "▁",
    "a▁▁ b▁",
    "nul\0",
    "\0",
    "tab\tx",
    "a\rb",
    "\x85\u2028\x0b\x0c",
    "🙂🇩🇪👩‍👩‍👧",
    "שלום עולם",
    "???!…",
]
NASTY += [
    "\ufeffx",
    "<unk>",
    "</s> <s> <pad>",
    "<0x41>",
    "e\u0301 é ﬁ Å",
    "\u00a0x\u3000y",
    "▅ ⁇",
    "\U000f0000▁",
    "x" * 5000,
]
KINDS = ["unigram", "bpe", "word", "char", "pretokenized"]


def pairs(num: int = 300) -> list[SentencePair]:
    rng = random.Random(3)

    def line() -> str:
        return " ".join(rng.choice(WORDS) + rng.choice(["", "s", "en", "."]) for _ in range(rng.randint(1, 9)))

    return [SentencePair(line(), line()) for _ in range(num)]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: train(type=kind) for kind in KINDS}


def train(data: list[SentencePair] | None = None, **options: object) -> Tokenizer:
    config = TokenizerConfig(**{"vocab_size": 340, **options})
    config.validate()
    return Tokenizer.train(config, iter(pairs() if data is None else data))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_nothing_is_lost(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    rng = random.Random(0)
    alphabet = "ab dog ▁\0\t\ré🙂\u0301\u2028\u200f\U000f0000𐍈漢<>/0x"
    texts = NASTY + ["".join(rng.choice(alphabet) for _ in range(rng.randint(0, 30))) for _ in range(2000)]
    for text, ids in zip(texts, tokenizer.encode_source(texts), strict=True):
        assert tokenizer.decode_source(ids) == text
        assert tokenizer.decode_target([BOS, *ids, EOS, PAD]) == text
        assert UNK not in ids


@pytest.mark.parametrize("kind", KINDS)
def test_flat_and_listed_encoding_agree(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    texts = [*NASTY, *(pair.source for pair in pairs(50))]
    flat, lengths = tokenizer.encode_source_flat(texts)
    listed = tokenizer.encode_source(texts)
    assert lengths.tolist() == list(map(len, listed))
    assert flat.tolist() == list(chain.from_iterable(listed))
    assert listed == [tokenizer.encode_source([text])[0] for text in texts]
    assert tokenizer.encode_source([]) == []
    assert tokenizer.encode_source_flat([])[0].size == 0


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_decoding_agrees_with_the_library(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    import sentencepiece

    tokenizer = tokenizers[kind]
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.state_dict()["source"]["model"])
    rng = random.Random(1)
    for _ in range(300):
        ids = [rng.randrange(260, tokenizer.source_size) for _ in range(8)] + [UNK]
        assert tokenizer.decode_source(ids) == library.decode(ids)
    for text in (pair.source for pair in pairs(100)):
        assert tokenizer.encode_source([text])[0] == library.encode(text)
    assert (library.pad_id(), library.unk_id(), library.bos_id(), library.eos_id()) == (PAD, UNK, BOS, EOS)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_those_of_the_decoded_text(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    """The subwords of word k, decoded on their own, give the k-th run of characters other than spaces."""
    tokenizer = tokenizers[kind]
    # The character vocabulary knows no others, and an unknown word is one word but many unknown characters.
    texts = NASTY if kind in ("unigram", "bpe") else []
    texts = texts + [pair.source for pair in pairs(100)] + ["dog  the   cat", " dog", "dog "]
    for ids in tokenizer.encode_source(texts):
        indices = tokenizer.source_word_ids([BOS, *ids, EOS, PAD])[1:-2]
        assert tokenizer.source_word_ids([BOS, *ids, EOS, PAD])[-2:] == [-1, -1]
        words = [word for word in tokenizer.decode_source(ids).split(" ") if word]
        for number, word in enumerate(words):
            word_ids = [index for index, owner in zip(ids, indices, strict=True) if owner == number]
            assert tokenizer.decode_source(word_ids).strip(" ") == word
        assert max(indices, default=-1) == len(words) - 1


def test_words_of_any_output_match_its_text(tokenizers: dict[str, Tokenizer]) -> None:
    """Also for ids that no text is encoded to: broken characters, line breaks spelled in bytes."""
    rng = random.Random(2)
    for kind in KINDS:
        tokenizer = tokenizers[kind]
        for _ in range(500):
            ids = [rng.randrange(tokenizer.target_size) for _ in range(rng.randint(0, 12))]
            text = tokenizer.decode_target(ids)
            assert "\n" not in text
            assert max(tokenizer.target_word_ids(ids), default=-1) + 1 == len(
                [word for word in text.split(" ") if word]
            )


@pytest.mark.parametrize("kind", KINDS)
def test_subwords_are_printable(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    subwords = tokenizer.target_subwords(range(tokenizer.target_size))
    assert subwords[:4] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert len(set(subwords)) == len(subwords)
    assert all(subword.isprintable() and " " not in subword for subword in subwords)
    assert train([SentencePair("a\tb\0", "c")], type="char").source_subwords(range(4, 9)) == [
        "\\x00",
        "\\t",
        "a",
        "b",
        "c",
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("joint", [True, False])
def test_state_round_trip(kind: str, joint: bool) -> None:
    tokenizer = train(type=kind, joint=joint, vocab_size=330)
    again = Tokenizer.from_state_dict(tokenizer.state_dict())
    assert again.digest == tokenizer.digest
    assert again.joint == joint == (tokenizer.source is tokenizer.target)
    texts = [*NASTY, *WORDS]
    assert again.encode_source(texts) == tokenizer.encode_source(texts)
    assert again.encode_target(texts) == tokenizer.encode_target(texts)
    assert train(type=kind, joint=joint, vocab_size=330).digest == tokenizer.digest  # training is deterministic


def test_separate_models_are_trained_on_one_side() -> None:
    data = [SentencePair("aaa aba", "xxx xyx")] * 20
    tokenizer = train(data, type="char", joint=False)
    assert UNK not in tokenizer.encode_source(["ab a"])[0]
    assert UNK not in tokenizer.encode_target(["xy x"])[0]
    assert UNK in tokenizer.encode_target(["ab a"])[0]
    assert train(data, type="char").encode_source(["ab xy"]) == train(data, type="char").encode_target(["ab xy"])


def test_state_survives_a_checkpoint(tmp_path: Path) -> None:
    import torch

    for kind in ("bpe", "word"):
        tokenizer = train(type=kind)
        torch.save(tokenizer.state_dict(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        assert Tokenizer.from_state_dict(state).digest == tokenizer.digest


@pytest.mark.parametrize("change", [{"version": 0}, {"kind": "syllable"}, {"source": {}}, {"source": {"model": b"x"}}])
def test_foreign_state(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"state|format version|damaged"):
        Tokenizer.from_state_dict({**train(type="bpe").state_dict(), **change})


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("joint", [True, False])
def test_vocabulary_size_out_of_reach(kind: str, joint: bool) -> None:
    with pytest.raises(ValueError, match=r"data\.tokenizer\.vocab_size=8000: .*vocab_size=(\d+) at most$") as info:
        train(type=kind, joint=joint, vocab_size=8000, exact_size=True)
    assert "\n" not in str(info.value)
    assert ("source side" in str(info.value)) == (not joint)
    largest = int(re.findall(r"\d+", str(info.value))[-1])
    most = train(type=kind, joint=joint, vocab_size=8000)
    assert most.source_size == largest
    if joint:
        exact = train(type=kind, vocab_size=largest, exact_size=True)
        assert exact.digest == most.digest == train(type=kind, vocab_size=largest + 1).digest
        with pytest.raises(ValueError, match="at most"):
            train(type=kind, vocab_size=largest + 1, exact_size=True)
    with pytest.raises(ValueError, match=r"data\.tokenizer\.vocab_size=20: too small .* at least \d+") as info:
        train(type=kind, vocab_size=20)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text(kind: str) -> None:
    for data in ([], [SentencePair("", "")]):
        with pytest.raises(ValueError, match="the training text is empty"):
            train(data, type=kind)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("line", ["漢\0x", "漢\tx", "漢▁x", "漢▅x", "漢 " * 10_000])
def test_training_uses_every_line(kind: str, line: str) -> None:
    """Also lines that the trainer would drop silently: reserved characters, great length."""
    tokenizer = train([*pairs(), SentencePair(line, "x")], type=kind, character_coverage=1.0)
    assert "漢" in tokenizer.source_subwords(tokenizer.encode_source(["漢"])[0])[-1]


def test_character_coverage_and_byte_fallback() -> None:
    data = [*pairs(400), SentencePair("漢", "字")]
    rare = train(data, character_coverage=0.999).encode_source(["漢"])[0]
    assert train(data).decode_source(rare) != ""
    assert len(rare) > len(train(data, character_coverage=1.0).encode_source(["漢"])[0])
    plain = {"byte_fallback": False, "vocab_size": 120}
    assert UNK in train(data, **plain, character_coverage=0.999).encode_source(["漢"])[0]
    assert UNK not in train(data, **plain).encode_source(["漢"])[0]  # all characters by default
    tokenizer = train(data, **plain)
    assert tokenizer.decode_source(tokenizer.encode_source(["dog 🙂▁"])[0]) == "dog <unk>"


def test_normalization() -> None:
    for name, text in (("identity", "ﬁve  dogs"), ("nfkc", "five dogs"), ("nmt_nfkc", "five dogs")):
        tokenizer = train(normalization=name)
        assert tokenizer.decode_source(tokenizer.encode_source(["ﬁve  dogs"])[0]) == text


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase(kind: str) -> None:
    """The ids and the vocabulary are those of the lowercased text."""
    data = [SentencePair(f"The DOG {row % 7}", f"Der ÄRGER {row % 5}") for row in range(60)]
    size = {"vocab_size": 278 if kind in ("unigram", "bpe") else 100, "type": kind}
    lower = train([SentencePair(source.lower(), target.lower()) for source, target in data], **size)
    tokenizer = train(data, lowercase=True, **size)
    assert tokenizer.source.state() == lower.source.state()
    assert tokenizer.digest != lower.digest
    texts = ["The DOG", "ÄRGER der"]
    expected = lower.encode_source([text.lower() for text in texts])
    assert tokenizer.encode_source(texts) == tokenizer.encode_target(texts) == expected
    assert tokenizer.encode_source_flat(texts)[0].tolist() == [index for row in expected for index in row]
    assert tokenizer.encode_target_flat(texts)[1].tolist() == list(map(len, expected))
    assert tokenizer.decode_target(expected[0]) == "the dog"
    again = Tokenizer.from_state_dict(tokenizer.state_dict())
    assert again.encode_source(texts) == expected
    assert again.digest == tokenizer.digest
    if kind in ("unigram", "bpe"):
        sampling = train(data, lowercase=True, subword_regularization=0.3, **size)
        assert tokenizer.decode_source(sample(sampling, ["The DOG"])[0]) == "the dog"


def test_sample_of_the_pairs() -> None:
    data = [SentencePair(f"w{row}", f"w{row}") for row in range(1000)]
    tokenizer = train(data, type="word", vocab_size=5000, max_training_pairs=100)
    known = [pair for pair in data if UNK not in tokenizer.encode_source([pair.source])[0]]
    assert len(known) == 100 == tokenizer.source_size - 4
    assert 300 < sum(int(pair.source[1:]) for pair in known) / 100 < 700  # from everywhere, not from the start
    assert train(data, type="word", vocab_size=5000, max_training_pairs=100).digest == tokenizer.digest
    assert train(data, type="word", vocab_size=5000, max_training_pairs=0).source_size == 1004


def test_word_vocabulary() -> None:
    tokenizer = train([SentencePair("b b a", "c c b")], type="word", vocab_size=10)
    assert tokenizer.source_subwords(range(4, 7)) == ["b", "c", "a"]
    assert train([SentencePair("b b a", "c c b")], type="word", vocab_size=8).source_size == 7
    assert train([SentencePair("b b a", "c d e f")], type="word", vocab_size=8).source_size == 8
    ids = tokenizer.encode_source(["a  b zz c"])[0]
    assert ids == [6, 4, UNK, 5]
    assert tokenizer.decode_source(ids) == "a b <unk> c"


def sample(tokenizer: Tokenizer, texts: list[str], seed: int = 1, rows: list[int] | None = None) -> list[list[int]]:
    """Return random segmentations of source texts, by default of the first rows."""
    numbers = np.arange(len(texts)) if rows is None else np.array(rows)
    ids, lengths = tokenizer.encode_source_sampled(texts, row_keys([seed], numbers))
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_depends_on_text_seed_and_row_alone(kind: str) -> None:
    """Not on the other texts, their order, or earlier samples."""
    tokenizer = train(type=kind, subword_regularization=0.3 if kind in ("unigram", "bpe") else 0)
    texts = [*NASTY, *(pair.source for pair in pairs(60))]
    first = sample(tokenizer, texts, 7)
    assert [sample(tokenizer, [text], 7, [row])[0] for row, text in enumerate(texts)] == first
    backwards = list(range(len(texts)))[::-1]
    assert sample(tokenizer, texts[::-1], 7, backwards) == first[::-1]
    if kind in ("unigram", "bpe"):
        assert [tokenizer.decode_source(ids) for ids in first] == texts
        assert first != tokenizer.encode_source(texts)
        assert sample(tokenizer, texts, 8) != first
        assert sample(tokenizer, texts, 7, backwards) != first
        again = Tokenizer.from_state_dict(tokenizer.state_dict())
        assert sample(again, texts, 7) == first
    else:
        assert first == tokenizer.encode_source(texts)
    assert tokenizer.encode_source_sampled([], row_keys([1], np.arange(0)))[0].tolist() == []


def test_strength_of_sampling() -> None:
    """More dropout gives more subwords; a probability of 1 leaves single characters."""
    lengths = []
    for strength in (0.0, 0.1, 0.5, 1.0):
        tokenizer = train(type="bpe", subword_regularization=strength)
        lengths.append(sum(map(len, sample(tokenizer, [pair.source for pair in pairs()]))))
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == sum(len(pair.source) + 1 for pair in pairs())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "spm"}, "data.tokenizer.type=spm: must be one of unigram, bpe, word, char"),
        ({"vocab_size": -3}, "data.tokenizer.vocab_size=-3: must be at least 8"),
        ({"character_coverage": 2.0}, "data.tokenizer.character_coverage=2.0"),
        ({"normalization": "nfd"}, "data.tokenizer.normalization=nfd"),
        ({"max_training_pairs": -1}, "data.tokenizer.max_training_pairs=-1"),
        ({"subword_regularization": 1.5}, "data.tokenizer.subword_regularization=1.5"),
        ({"subword_regularization": 0.1, "type": "char"}, "data.tokenizer.subword_regularization=0.1: needs"),
        ({"normalization": "nfkc", "type": "word"}, "data.tokenizer.normalization=nfkc: needs"),
    ],
)
def test_validate(options: dict[str, object], message: str) -> None:
    TokenizerConfig().validate()
    with pytest.raises(ValueError, match=r"data\.tokenizer") as info:
        TokenizerConfig(**options).validate()
    assert message in str(info.value)
