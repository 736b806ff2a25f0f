"""Glossaries: reading, finding terms, translations that have them, and what is said about it."""

import dataclasses
import json
import random
import re
from pathlib import Path

import pytest
import torch

import nmt
from nmt.data import Tokenizer, TokenizerConfig
from nmt.inference.glossary import Glossary, load_glossary
from nmt.inference.line_translator import LineTranslator
from nmt.inference.translator import Translator
from tests.inference.test_translate import run, saved, tokenizer, translator

__all__ = ["saved", "tokenizer"]  # fixtures

TEXTS = ["the a dog sees things .", "", "likes b things", "the cat hears", "x"]
PHRASES = [["THE C CAT"], ["DOG"], [], ["SEES", "SEES"], ["LIKES", "the a"]]


def read(tmp_path: Path, content: str) -> Glossary:
    (tmp_path / "terms.tsv").write_text(content, "utf-8")
    return Glossary.read(tmp_path / "terms.tsv")


def found(glossary: Glossary, text: str) -> list[tuple[str, str]]:
    """Return the terms of a text and their targets."""
    return [(text[start:end], target) for start, end, target in glossary.find(text)]


def test_terms_are_whole_words_and_the_longest_first(tmp_path: Path) -> None:
    glossary = read(
        tmp_path,
        "# source\ttarget\n\nNew York\tNeu-York\nyork\tYork\nIT\tEDV\nit\tes\nrow break\tUmbruch\nC++\tC plus\n"
        "日\tTag\n日本\tJapan\n.x\tX\n",
    )
    cases = {
        "New York, york and NEW YORK": [("New York", "Neu-York"), ("york", "York"), ("NEW YORK", "Neu-York")],
        "It, IT and it; its bit": [("It", "EDV"), ("IT", "EDV"), ("it", "es")],
        "a row break; row  breaks rowbreak": [("row break", "Umbruch")],
        "C++ or C++x": [("C++", "C plus"), ("C++", "C plus")],
        "row break row break": [("row break", "Umbruch")] * 2,
        "我在日本, 日": [("日本", "Japan"), ("日", "Tag")],
        "(.x)": [(".x", "X")],
        "": [],
    }
    for text, expected in cases.items():
        assert found(glossary, text) == expected, text


@pytest.mark.parametrize("seed", range(5))
def test_terms_are_those_of_a_search_at_every_place(seed: int) -> None:
    rng = random.Random(seed)
    words = ["a", "A", "b", "ab", "Ab", "c,"]
    entries = {" ".join(rng.choices(words, k=rng.randint(1, 3))): str(number) for number in range(8)}
    glossary = Glossary(entries)
    for _ in range(200):
        text, end, expected = " ".join(rng.choices(words, k=rng.randint(0, 8))), 0, []
        for start in range(len(text)):
            fits = [
                (len(source), text[start:].startswith(source), -rank, source)
                for rank, source in enumerate(entries)
                if re.match(rf"{re.escape(source)}(?!(?<=\w)\w)", text[start:], re.IGNORECASE)
                and not re.match(r"\w\w", text[max(start - 1, 0) :] * (start > 0))
            ]
            if fits and start >= end:
                length, *_, source = max(fits)
                expected.append((text[start : start + length], entries[source]))
                end = start + length
        assert found(glossary, text) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a\tb\nno tab here\n",
            "terms.tsv, line 2: must be a source term, one tab and its target term, not 'no tab here'",
        ),
        ("a\tb\tc\n", "terms.tsv, line 1: must be a source term, one tab"),
        ("# x\n\na\t \n", "terms.tsv, line 3: the target term is empty"),
        ("\tb\n", "terms.tsv, line 1: the source term is empty"),
        ("a\tb\nc\td\na\te\n", "terms.tsv, line 3: 'a' is 'e' here and 'b' in "),
        ("", "terms.tsv"),
    ],
)
def test_what_is_no_glossary_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, content)


def test_entries_that_the_model_cannot_write_are_refused(tokenizer: Tokenizer) -> None:
    model = translator(tokenizer)
    with pytest.raises(ValueError, match="glossary: 'x': the target term is empty"):
        load_glossary({"x": ""}, model)
    with pytest.raises(TypeError, match="glossary: 3 is no text; a dictionary has"):
        load_glossary({"x": 3}, model)
    with pytest.raises(FileNotFoundError):
        load_glossary("nowhere.tsv", model)
    sampling = Translator(model.model, tokenizer, dataclasses.replace(model.config, method="sample"), model.device)
    with pytest.raises(ValueError, match=r"search.method=sample: does not go with required phrases or a glossary"):
        load_glossary({"x": "y"}, sampling)
    for config in (TokenizerConfig(type="word", vocab_size=20), TokenizerConfig(vocab_size=311, lowercase=True)):
        words = Tokenizer.train(config, [("the dog", "Der Hund"), ("the cat", "Die Katze")] * 20)
        assert load_glossary({"dog": "der Hund".lower() if config.lowercase else "Hund"}, translator(words))
        with pytest.raises(ValueError, match="glossary: 'dog': the vocabulary cannot write 'Der HUND', only"):
            load_glossary({"dog": "Der HUND"}, translator(words))


@pytest.mark.parametrize("n_best", [1, 2])
def test_translations_contain_their_phrases(tokenizer: Tokenizer, n_best: int) -> None:
    model = translator(tokenizer, n_best=n_best)
    found, plain = model.n_best(TEXTS, phrases=PHRASES), model.n_best(TEXTS)
    for text, phrases, translations, others in zip(TEXTS, PHRASES, found, plain, strict=True):
        for translation in translations if text else ():
            assert all(f" {translation.text}".count(f" {phrase}") >= phrases.count(phrase) for phrase in phrases)
        if not phrases or not text:
            assert translations == others
    for phrases in ([[] for _ in TEXTS], None):
        assert model.n_best(TEXTS, phrases=phrases) == plain
    begun = model.n_best(TEXTS, prefixes=["TH"] * len(TEXTS), phrases=PHRASES)
    assert all(best[0].text.startswith("TH") for best in begun)
    assert "E DOG" not in begun[0][0].text
    assert all(" SEES SEES" in f" {t.text}" or t.text.count("SEES") > 1 for t in begun[3])


def test_phrases_are_encoded_as_inside_a_sentence() -> None:
    text = [("a", "wir lesen die Zeitung und das Buch , 我们看报纸 。"), ("b", "das Buch lesen wir , 看书 。")] * 9
    for kind in ("unigram", "bpe", "char", "word"):
        model = translator(tokenizer := Tokenizer.train(TokenizerConfig(type=kind, vocab_size=330), text))
        inside, chinese = model.encode_phrases(["das Buch", "报纸"])
        whole = tokenizer.encode_target(["wir lesen das Buch", "我们看报纸 。"])
        assert whole[0][-len(inside) :] == inside
        if kind != "word":
            assert not tokenizer.decode_target([*tokenizer.encode_target(["x"])[0], *chinese]).endswith(" 报纸")


def test_the_rate_is_counted_and_written(tokenizer: Tokenizer, saved: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "terms.tsv").write_text("dog\tDOG\nthings\tC THINGS\n", "utf-8")
    lines = b"the a dog sees things .\nx\nDog dog\n"
    rows = run(saved["scaled"], f"glossary={tmp_path / 'terms.tsv'}", "format=jsonl", text=lines)
    assert rows.returncode == 0
    records = [json.loads(line) for line in rows.stdout.splitlines()]
    assert [[(t["source"], t["target"]) for t in record["terms"]] for record in records] == [
        [("dog", "DOG"), ("things", "C THINGS")],
        [],
        [("Dog", "DOG"), ("dog", "DOG")],
    ]
    used = sum(term["used"] for record in records for term in record["terms"])
    assert (
        f"glossary: 4 terms in the text, {used} of them in the translations ({25 * used:.1f} %)" in rows.stderr.decode()
    )
    for record, expected in ((records[0], ["DOG", "C THINGS"]), (records[2], ["DOG", "DOG"])):
        assert all(record["translation"].count(term) >= expected.count(term) for term in expected)
    model = nmt.load(saved["scaled"], device="cpu")
    python = model.translate("the a dog sees things .", glossary={"dog": "DOG", "things": "C THINGS"})
    assert python.text == records[0]["translation"]
    assert model.translate("Dog dog", glossary=tmp_path / "terms.tsv").text == records[2]["translation"]
    for option, message in (
        ("search.no_repeat_ngram_size=2", "search.no_repeat_ngram_size=2: does not go with required phrases or a"),
        ("glossary_mode=soft", "glossary_mode=soft: this model was trained without terms"),
    ):
        wrong = run(saved["scaled"], f"glossary={tmp_path / 'terms.tsv'}", option, text=lines)
        assert wrong.returncode != 0
        assert message in wrong.stderr.decode()
        assert "Traceback" not in wrong.stderr.decode()
    with pytest.raises(ValueError, match=r"glossary_mode=soft: this model was trained without terms"):
        model.translate("dog", glossary={"dog": "DOG"}, glossary_mode="soft")


def test_terms_are_used_as_whole_words_and_as_often() -> None:
    glossary = Glossary({"dog": "Hund", "cat": "Katze", "plus": "++", "paper": "报"})
    terms = glossary.used(["dog and Dog", "cat plus paper"], "Ein Hund, Hundert Hunde, Katzen ++ 看报纸")
    assert [tuple(term) for term in terms] == [
        ("dog", "Hund", True),
        ("Dog", "Hund", False),
        ("cat", "Katze", False),
        ("plus", "++", True),
        ("paper", "报", True),
    ]


def test_long_lines_have_the_terms_of_their_parts(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = translator(tokenizer)
    lines = LineTranslator(model, 12, glossary=load_glossary({"dog": "DOG", "cat": "C CAT"}, model))
    (result,) = lines.translate_lines([b"the a dog sees things . the b cat likes y things ."])
    assert len(result.segments) > 1
    assert "DOG" in result.n_best()[0].text
    assert "C CAT" in result.n_best()[0].text
    assert lines.counts["terms"] == 2
