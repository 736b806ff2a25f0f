"""The share of outputs in a wrong language, and what tells languages apart."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nmt.data import DataConfig, SentencePair, language_id
from nmt.data.language_id import Identifier
from nmt.evaluation.breakdown import OutputLanguages
from nmt.evaluation.output_language import make_identifier, output_languages
from nmt.evaluation.results import EvaluationSet

TEXTS = {
    "en": ["the dog and the cat sleep in the old house", "she reads a book with her children", "they walk through it"],
    "de": ["der Hund und die Katze schlafen im alten Haus", "sie liest ein Buch mit ihren Kindern", "sie gehen durch"],
    "fr": [
        "le chien et le chat dorment dans la vieille maison",
        "elle lit un livre avec ses enfants",
        "ils y marchent",
    ],
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Return the options of a model with six directions, where no package that identifies languages is installed."""
    monkeypatch.setitem(sys.modules, "lingua", None)
    monkeypatch.setitem(sys.modules, "py3langid", None)
    for language, lines in TEXTS.items():
        (tmp_path / f"train.{language}").write_text("".join(f"{line}\n" for line in lines * 20), encoding="utf-8")
    return DataConfig(format="text", train=str(tmp_path / "train"), languages=list(TEXTS))


def parallel(source: str, target: str) -> EvaluationSet:
    pairs = [SentencePair(*pair) for pair in zip(TEXTS[source], TEXTS[target], strict=True)]
    return EvaluationSet("", "", pairs, None, {}, [], f"test@{source}-{target}", target, source)


@pytest.mark.parametrize("has_training_text", [True, False])
def test_the_training_text_tells_languages_apart_or_else_the_test_sets(
    has_training_text: bool, data: DataConfig, caplog: pytest.LogCaptureFixture
) -> None:
    if not has_training_text:
        data.train += ".gone"
    with caplog.at_level(logging.INFO, "nmt"):
        identifier = make_identifier(data, [parallel("en", "de"), parallel("de", "fr")])
    assert identifier is not None
    assert identifier.name == f"character trigrams of the {'training text' if has_training_text else 'test sets'}"
    assert ("languages cannot be told apart by the training text" in caplog.text) != has_training_text
    for language, lines in TEXTS.items():
        found = output_languages(identifier, [(line, "x") for line in lines[:2]], language)
        assert (found.shares, found.wrong, found.undecided) == ({language: 1.0}, 0.0, 0.0)


def test_nothing_is_measured_where_there_is_nothing_to_confuse_or_to_learn_from(data: DataConfig) -> None:
    assert make_identifier(DataConfig(format="text", train=data.train), []) is None  # one direction
    many = {"a": {"path": data.train, "source_lang": "de"}, "b": {"path": data.train, "source_lang": "fr"}}
    assert make_identifier(DataConfig(format="text", target_lang="en", corpora=many), []) is None  # one target language
    data.train += ".gone"
    assert make_identifier(data, [parallel("en", "de")]) is None  # there is no French


def test_shares_by_hand(data: DataConfig) -> None:
    """Short outputs and those without letters are undecided; what equals its reference is right in any case."""
    identifier = make_identifier(data, [])
    assert identifier is not None
    hypotheses = [*TEXTS["de"][:2], TEXTS["en"][0], TEXTS["fr"][1], TEXTS["en"][1], "OK", "1984 1984 1984 1984", ""]
    references = [*["x"] * 4, f"{TEXTS['en'][1]} ", "x", "x", ""]
    found = output_languages(identifier, list(zip(hypotheses, references, strict=True)), "de")
    expected = OutputLanguages("de", {"de": 3 / 8, "en": 1 / 8, "fr": 1 / 8}, 2 / 8, 3 / 8, identifier.name)
    assert found == expected
    pairs = [(text, "x") for text in TEXTS["en"]]
    unsure = Identifier("", ["en", "de"], lambda block: np.array([[4.9, 0.0]]), 5.0)
    assert output_languages(unsure, pairs, "de").undecided == 1.0
    assert output_languages(unsure._replace(margin=4.9), pairs, "de").wrong == 1.0


def test_installed_packages_are_asked_about_the_languages_of_the_model_only(
    data: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_id.metadata, "version", lambda name: "9.1")
    asked: list[Any] = []

    def rank(text: str) -> list[tuple[str, float]]:
        return sorted(((code, -abs(ord(text[0]) - ord(code[0]))) for code in asked[-1]), key=lambda x: -x[1])

    monkeypatch.setitem(sys.modules, "py3langid", SimpleNamespace(set_languages=asked.append, rank=rank))
    identifier = make_identifier(data, [])
    assert identifier is not None
    assert (identifier.name, asked) == ("py3langid 9.1", [["en", "de", "fr"]])
    assert identifier.identify("d") == ("de", 1.0)

    languages = [SimpleNamespace(iso_code_639_1=SimpleNamespace(name=name)) for name in ("EN", "DE", "FR", "CS")]
    members = [_Hashable(language) for language in languages]
    values = [SimpleNamespace(language=members[i], value=value) for i, value in ((2, 0.5), (0, 0.25), (1, 0.0))]

    class Builder:
        @classmethod
        def from_languages(cls, *chosen: Any) -> "Builder":
            asked.append([language.iso_code_639_1.name for language in chosen])
            return cls()

        def build(self) -> Any:
            return SimpleNamespace(compute_language_confidence_values=lambda text: values)

    module = SimpleNamespace(Language=SimpleNamespace(all=lambda: members), LanguageDetectorBuilder=Builder)
    monkeypatch.setitem(sys.modules, "lingua", module)
    identifier = make_identifier(data, [])
    assert identifier is not None
    assert (identifier.name, asked[-1]) == ("lingua 9.1", ["EN", "DE", "FR"])
    assert identifier.identify("x") == ("fr", pytest.approx(0.6931, abs=1e-4))  # log 2
    del members[1]  # it does not know German, and the other package is asked
    identifier = make_identifier(data, [])
    assert identifier is not None
    assert identifier.name == "py3langid 9.1"


class _Hashable:
    def __init__(self, language: Any) -> None:
        self.iso_code_639_1 = language.iso_code_639_1
