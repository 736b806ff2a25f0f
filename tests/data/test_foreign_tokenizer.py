"""Models trained elsewhere, symbols, text that is split already, and models that are cut."""

import io
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from nmt.cli.configs import Config
from nmt.data import EOS, PAD, UNK, DataConfig, SentencePair, Tokenizer, TokenizerConfig, train_or_load_tokenizer
from nmt.data.sentencepiece_proto import cut_model
from nmt.data.subword_sampling import row_keys
from nmt.data.vocabulary import SPECIAL_TOKENS

PARTS = [
    "der",
    "die",
    "hund",
    "katze",
    "haus",
    "baum",
    "schläft",
    "läuft",
    "unter",
    "über",
    "klein",
    "groß",
    "und",
    "ﬁ",
]
RANDOM = random.Random(5)
TEXTS = [
    " ".join(
        RANDOM.choice(PARTS) + RANDOM.choice(["", "s", "en", RANDOM.choice(PARTS)]) for _ in range(RANDOM.randint(1, 9))
    )
    for _ in range(400)
]
SPECIALS = ["<s> </s>", "a▁b ▁", "<unk>", "<pad> x<pad>", "<0x41>", "<s>", "▅"]
LAYOUTS: dict[str, dict[str, Any]] = {
    "default": {},  # <unk>, <s>, </s>; no <pad>
    "ours": {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3},
    "others": {"pad_id": 5, "unk_id": 9, "bos_id": -1, "eos_id": 2, "eos_piece": "[END]", "unk_piece": "[?]"},
    "symbols": {"user_defined_symbols": ["<pad>", "<x>", "en"], "control_symbols": ["[MASK]", "[SEP]"]},
}


def spm(kind: str = "unigram", texts: Sequence[str] = TEXTS, **options: Any) -> bytes:
    model = io.BytesIO()
    options = {"vocab_size": 380, "byte_fallback": True, "minloglevel": 2} | options
    trainer = sentencepiece.SentencePieceTrainer
    trainer.train(sentence_iterator=iter(texts), model_writer=model, model_type=kind, **options)
    return model.getvalue()


def load(folder: Path, *models: bytes, **options: Any) -> Tokenizer:
    files = [folder / f"{number}.model" for number in range(len(models))]
    for file, model in zip(files, models, strict=True):
        file.write_bytes(model)
    config = TokenizerConfig(model=[str(file) for file in files], joint=len(models) == 1, **options)
    config.validate()
    return train_or_load_tokenizer(DataConfig(format="text", train="missing", tokenizer=config))


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.source_subwords(tokenizer.encode_source([text])[0])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_segments_as_its_own_library_does(tmp_path: Path, kind: str, layout: str) -> None:
    model = spm(kind, **LAYOUTS[layout], normalization_rule_name="nmt_nfkc")
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = load(tmp_path, model)
    assert tokenizer.type == kind
    assert tokenizer.joint
    texts = [*TEXTS, "ﬁ  x", "🙂 neu", "<x>hund<x>", *("[MASK]", "[SEP] der")]
    for text in texts:
        assert pieces(tokenizer, text) == library.encode(text, out_type=str)
        assert tokenizer.decode_source(tokenizer.encode_source([text])[0]) == library.decode(library.encode(text))
    names = tokenizer.source_subwords(range(tokenizer.source_size))
    assert names[:4] == [*SPECIAL_TOKENS]
    assert "[MASK]" not in names
    assert len(set(names)) == len(names)
    again = Tokenizer.from_state_dict(tokenizer.state_dict())
    assert again.encode_source(texts) == tokenizer.encode_source(texts)
    assert again.digest == tokenizer.digest
    assert again.files == tokenizer.files == tokenizer.state_dict()["files"]
    assert re.fullmatch(r"[0-9a-f]{64}", *tokenizer.files)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_special_symbols_are_text(tmp_path: Path, kind: str) -> None:
    options = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    for layout in LAYOUTS.values():
        tokenizer = load(tmp_path, spm(kind, **layout, **options))
        for text in [*SPECIALS, "  a  b "]:
            (ids,) = tokenizer.encode_source([text])
            assert tokenizer.decode_source([*ids, EOS, PAD]) == text
            assert min(ids) >= 4


@pytest.mark.parametrize("kind", ["unigram", "bpe", "word", "char", "pretokenized"])
def test_special_symbols_are_text_for_own_tokenizers(kind: str) -> None:
    """Every type keeps them, with words where they are in the training text."""
    texts = [*SPECIALS, *TEXTS]
    tokenizer = Tokenizer.train(TokenizerConfig(type=kind), [SentencePair(text, text) for text in texts])
    for text in texts:
        (ids,) = tokenizer.encode_target([text])
        assert tokenizer.decode_target([*ids, EOS]) == text
        assert min(ids) >= 4


def test_two_files_for_two_languages(tmp_path: Path) -> None:
    models = spm(vocab_size=350), spm(vocab_size=140, byte_fallback=False, texts=[text.upper() for text in TEXTS])
    tokenizer = load(tmp_path, *models)
    assert not tokenizer.joint
    assert (tokenizer.source_size, tokenizer.target_size) == (351, 141)  # <pad> is new
    assert UNK not in tokenizer.encode_source(["🙂"])[0]
    assert UNK in tokenizer.encode_target(["🙂"])[0]
    assert len(tokenizer.files) == 2
    lower = load(tmp_path, models[0], lowercase=True)
    assert lower.encode_source(["DER Hund"]) == lower.encode_source(["der hund"])


def test_a_model_without_a_space_in_front(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, spm(add_dummy_prefix=False, normalization_rule_name="identity"))
    assert [tokenizer.decode_source(ids) for ids in tokenizer.encode_source(TEXTS)] == TEXTS
    with pytest.raises(ValueError, match=r"0\.model: cannot be sampled from; set .*subword_regularization=0"):
        load(tmp_path, spm(add_dummy_prefix=False), subword_regularization=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "not a SentencePiece model"),
        (b"", "not a SentencePiece model"),
        (spm("word", vocab_size=60, byte_fallback=False), "not a SentencePiece model of type unigram or bpe"),
        (spm(treat_whitespace_as_suffix=True), "with U\\+2581 before words"),
        (spm()[:-500], "not a SentencePiece model|is damaged"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as info:
        load(tmp_path, content)
    assert str(info.value).startswith(str(tmp_path / "0.model"))
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(TokenizerConfig(model=[str(tmp_path / "none")]))


def test_a_model_may_have_unknown_tokens() -> None:
    """So that an option that replaces them is not without effect."""
    config = Config()
    config.search.replace_unknown = "copy"
    assert config.unused_options() == ["search.replace_unknown=copy"]
    config.data.tokenizer.model = ["a.model"]
    assert config.unused_options() == []


def test_two_kinds_of_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1\.model: a bpe model, the other is unigram"):
        load(tmp_path, spm(), spm("bpe"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ["a", "b"]}, r"model=\[a,b\]: must be one file for both languages, or with joint=false a list"),
        ({"model": ["a"], "joint": False}, r"model=\[a\]: must be with joint=false a list \[SOURCE,TARGET\]"),
        ({"model": ["a"], "type": "word"}, "model=.*needs data.tokenizer.type=unigram or bpe, not word"),
        ({"model": ["a"], "byte_fallback": False}, "byte_fallback=False: has no effect with data.tokenizer.model"),
        ({"model": ["a"], "normalization": "nfkc"}, "normalization=nfkc: has no effect with data.tokenizer.model"),
        ({"model": ["a"], "exact_size": True}, "exact_size=True: has no effect"),
        ({"exact_size": True, "type": "char"}, "exact_size=True: needs data.tokenizer.type=unigram or bpe, not char"),
        ({"symbols": ["<a>", "<a>"]}, "symbols=<a>: must be a text without spaces, given once"),
        ({"symbols": ["a b"]}, "symbols=a b: must be a text without spaces"),
        ({"symbols": [""]}, "symbols=: must be"),
        ({"symbols": ["</s>"]}, "symbols=</s>: must be .* none of <pad>, <unk>, <s>, </s>"),
        ({"symbols": list("abcdef"), "vocab_size": 13}, "vocab_size=13: must be at least 14"),
    ],
)
def test_options_that_exclude_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**options).validate()


SYMBOLS = ["<b>", "<br/>", "@", "<b>x", "<A,B>"]
MARKED = ["der <b> hund", "<b>der<br/>hund", "a@b", "<b>x", "<b><b>", "@", " @ ", "der<A,B>"]


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("lowercase", [False, True])
def test_symbols_are_one_token(tmp_path: Path, kind: str, foreign: bool, lowercase: bool) -> None:
    if foreign and kind == "char":
        pytest.skip("there are no such models")
    options = {"symbols": SYMBOLS, "lowercase": lowercase}
    if kind != "char":
        options["subword_regularization"] = 0.3
    if foreign:
        model = spm(kind, normalization_rule_name="identity", remove_extra_whitespaces=False)
        tokenizer = load(tmp_path, model, **options)
    else:
        pairs = [SentencePair(text, text) for text in TEXTS]
        tokenizer = Tokenizer.train(TokenizerConfig(type=kind, vocab_size=380, **options), pairs)
    pattern = re.compile("|".join(map(re.escape, sorted(SYMBOLS, key=len, reverse=True))))
    keys = row_keys([1], np.arange(len(MARKED)))
    flat, lengths = tokenizer.encode_source_sampled(MARKED, keys)
    sampled = [row.tolist() for row in np.split(flat, np.cumsum(lengths)[:-1])]
    for text, *encoded in zip(MARKED, tokenizer.encode_source(MARKED), sampled, strict=True):
        for ids in encoded:
            assert tokenizer.decode_source(ids) == (text if tokenizer.type != "char" or UNK not in ids else None)
            assert pattern.findall(text) == [name for name in tokenizer.source_subwords(ids) if name in SYMBOLS]
    again = Tokenizer.from_state_dict(tokenizer.state_dict())
    assert again.encode_source([*MARKED, "DER"]) == tokenizer.encode_source([*MARKED, "der" if lowercase else "DER"])
    copies = tokenizer.words_to_copy("a@b <b>", tokenizer.encode_source(["a@b <b>"])[0])
    assert copies == (["a", "@", "b", "", "<b>"] if kind == "char" else copies)


def test_symbols_are_not_normalized(tmp_path: Path) -> None:
    options = {"symbols": ["<ﬁ>"], "vocab_size": 380}
    pairs = [SentencePair(text, text) for text in TEXTS]
    trained = Tokenizer.train(TokenizerConfig(normalization="nmt_nfkc", **options), pairs)
    for tokenizer in (trained, load(tmp_path, spm(normalization_rule_name="nmt_nfkc"), **options)):
        assert tokenizer.decode_source(tokenizer.encode_source(["ﬁ <ﬁ>"])[0]) == "fi <ﬁ>"


@pytest.mark.parametrize("kind", ["word", "pretokenized"])
def test_symbols_are_words(kind: str) -> None:
    options = TokenizerConfig(type=kind, symbols=["<T>", "der"], vocab_size=12, lowercase=True)
    tokenizer = Tokenizer.train(options, [SentencePair(text, text) for text in TEXTS])
    assert tokenizer.source_size == 12
    assert tokenizer.source_subwords(tokenizer.encode_source(["<T> DER <t>"])[0]) == ["<T>", "der", "<unk>"]


def test_pretokenized_text_is_kept() -> None:
    lines = ["a@@ b  c", "▁a b", "c   a@@", "<s> </s>"]
    tokenizer = Tokenizer.train(TokenizerConfig(type="pretokenized"), [SentencePair(line, line) for line in lines])
    for text in [*lines, " a@@ b", "b ", "", "b   ▁a"]:
        (ids,) = tokenizer.encode_source([text])
        assert tokenizer.decode_source([*ids, EOS]) == text
    assert tokenizer.encode_source([""]) == [[]]
    words = [word for word in lines[0].split(" ") if word]
    (ids,) = tokenizer.encode_source([lines[0]])
    numbers = tokenizer.source_word_ids(ids)
    assert max(numbers) + 1 == len(words)
    assert tokenizer.decode_source(tokenizer.encode_source(["b neu c"])[0]) == "b <unk> c"


@pytest.mark.parametrize("kind", ["unigram", "bpe", "word", "char", "pretokenized"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_cut_model_segments_as_before(kind: str, byte_fallback: bool) -> None:
    """For many texts that the pieces of a few suffice for; what is lost is spelled in bytes, or unknown."""
    if kind not in ("unigram", "bpe") and not byte_fallback:
        pytest.skip("they have no bytes")
    options = TokenizerConfig(type=kind, vocab_size=390, byte_fallback=byte_fallback, symbols=["<b>"])
    tokenizer = Tokenizer.train(options, [SentencePair(text, text) for text in TEXTS[:200]])
    model = tokenizer.source
    rng = random.Random(6)
    for number in range(40):
        some = [*rng.sample(TEXTS, rng.randint(1, 12)), *([] if number % 3 else ["漢 der漢 <b>Qhund"])]
        encoded = model.encode(some)
        cut, kept = model.cut({index for ids in encoded for index in ids})
        assert kept == sorted({*range(4), *kept})
        assert [[kept[index] for index in ids] for ids in cut.encode(some)] == encoded
        assert [cut.surfaces[index] for index in range(cut.size)] == [model.surfaces[index] for index in kept]
        assert {model.surfaces.index(b"<b>" if kind not in ("word", "pretokenized") else b" <b>")} <= {*kept}
        assert cut.size == len(kept) <= model.size - (kind != "char")
        everything = cut.encode(TEXTS)
        if byte_fallback and kind in ("unigram", "bpe"):
            assert not any(UNK in ids for ids in everything)
    whole, kept = model.cut(set(range(model.size)))
    assert kept == list(range(model.size))
    assert whole.encode(TEXTS) == model.encode(TEXTS)


def test_a_cut_model_samples_too() -> None:
    options = TokenizerConfig(type="bpe", vocab_size=390, subword_regularization=0.2)
    tokenizer = Tokenizer.train(options, [SentencePair(text, text) for text in TEXTS])
    cut, _ = tokenizer.source.cut({index for ids in tokenizer.encode_source(TEXTS[:9]) for index in ids})
    smaller = Tokenizer("bpe", cut, cut, sampling=0.2)
    flat, lengths = smaller.encode_source_sampled(TEXTS[:9], row_keys([1], np.arange(9)))
    assert [smaller.decode_source(row.tolist()) for row in np.split(flat, np.cumsum(lengths)[:-1])] == TEXTS[:9]


def test_bpe_keeps_what_is_merged_on_the_way() -> None:
    model = Tokenizer.train(
        TokenizerConfig(type="bpe", vocab_size=390), [SentencePair(text, "") for text in TEXTS]
    ).source
    names = [model.subword(index) for index in range(model.size)]
    longest = max(range(260, model.size), key=lambda index: len(names[index]))
    _, kept = cut_model(model.state()["model"], {longest})
    merged = {names[index] for index in kept if index >= 260}
    assert names[longest] in merged
    assert {*names[longest]} <= merged
    assert len(merged) == len({*names[longest]}) + sum(len(name) > 1 for name in merged)
    assert 0 < sum(len(name) > 1 for name in merged) <= len(names[longest]) - 1


def test_unigram_keeps_the_scores_of_what_is_unknown() -> None:
    """SentencePiece derives them from those of the least and the most probable piece."""
    model = Tokenizer.train(TokenizerConfig(vocab_size=390), [SentencePair(text, "") for text in TEXTS]).source
    library = sentencepiece.SentencePieceProcessor(model_proto=model.state()["model"])
    scores = {index: library.get_score(index) for index in range(260, model.size)}
    _, kept = model.cut({300})
    assert kept[260:] == sorted({min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__), 300})


def test_the_options_are_those_of_the_run(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, spm(), subword_regularization=0.25)
    assert tokenizer.subword_regularization == 0.25
    assert replace(TokenizerConfig(), model=["x"]).vocab_size == 8000  # which has no effect then
