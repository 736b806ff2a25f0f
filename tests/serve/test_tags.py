"""A served model with several target languages and a tag: requests and the page's menus."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmt import checkpoint
from nmt.alignment import StoredAlignmentSource
from nmt.config import from_dict
from nmt.data import DataConfig, Tokenizer, TokenizerConfig
from nmt.data.tags import TERM_TAGS
from nmt.data.terms import annotate
from nmt.inference.translator import Translator
from nmt.serve.schemas import AttentionResponse, ModelsResponse, TranslateResponse
from tests.serve.conftest import CPU, Client, make_run, sentences, serving

TEXT = "the old man reads a long book"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    rows = [(row, row.upper()) for row in sentences(200, -1)]
    tokenizer = Tokenizer.train(TokenizerConfig(type="bpe", vocab_size=400), rows)
    make_run(folder / "plain", tokenizer, "transformer", StoredAlignmentSource())
    tags = ["<2de>", "<2fr>", "<2en>", "<web>"]
    make_run(folder / "many", tokenizer.with_tags(tags), "transformer", StoredAlignmentSource())
    make_run(folder / "terms", tokenizer.with_tags(TERM_TAGS), "transformer", StoredAlignmentSource())
    content = checkpoint.load(path := folder / "many" / "checkpoints" / "best.pt")
    corpora = {"news": {"path": "news"}, "web": {"path": "web", "tag": "web"}}
    content["config"]["data"] |= {"languages": ["en", "de", "fr"], "corpora": corpora, "tags": "decoder"}
    checkpoint.save(path, content)
    return folder


@pytest.fixture(scope="module")
def many(run: Path) -> Iterator[Client]:
    with serving(run, ["many", "plain"], lambda served: None) as client:
        yield client


def test_models_say_what_they_can_be_asked_for(many: Any) -> None:
    first, second = ModelsResponse.model_validate(many.get("/api/models").json).models
    assert (first.source_lang, first.target_lang) == ("en", "de")
    assert (first.target_langs, first.tags) == (["de", "fr", "en"], ["web"])
    assert ("fr", "de") in first.directions
    assert (second.target_langs, second.tags, second.directions) == (["de"], [], [("en", "de")])


@pytest.mark.parametrize("asked", [{}, {"target_lang": "fr"}, {"target_lang": "en", "tag": "web"}])
def test_every_address_respects_them(many: Any, run: Path, asked: dict[str, str]) -> None:
    content = checkpoint.load(run / "many" / "checkpoints" / "best.pt")
    base = Translator.from_checkpoint(content, None, CPU)
    data = from_dict(DataConfig, content["config"]["data"], "data.")
    view = base.into(data, asked.get("target_lang"), asked.get("tag"))
    view.config.beam_size, view.config.n_best = 3, 2
    forced = list(view.tokenizer.prefixes[1])
    assert (
        view.tokenizer.target_subwords(forced)
        == [f"<2{asked.get('target_lang', 'de')}>", "<web>"][: max(len(asked), 1)]
    )
    (ranked,) = view.n_best([TEXT])
    reply = many.post("/api/translate", {"text": TEXT, "beam_size": 3, "n_best": 2, **asked}).json
    (sentence,) = TranslateResponse.model_validate(reply).sentences
    hypotheses = sentence.details[0].hypotheses
    assert [h.tokens for h in hypotheses] == [t.tokens for t in ranked]
    assert [h.log_prob for h in hypotheses] == pytest.approx([t.log_prob for t in ranked], abs=1e-4)
    assert all(h.words[: len(forced)] == [-1] * len(forced) for h in hypotheses)
    lines = many.post("/api/stream", {"text": TEXT, "beam_size": 3, "n_best": 2, **asked}).body.splitlines()
    assert (
        lines[-1]
        == b'{"result":' + many.post("/api/translate", {"text": TEXT, "beam_size": 3, "n_best": 2, **asked}).body + b"}"
    )
    request = {"source": TEXT, "target": hypotheses[0].text, **asked}
    attention = AttentionResponse.model_validate(many.post("/api/attention", request).json)
    subwords = view.tokenizer.target_subwords(view.tokenizer.encode_target([hypotheses[0].text])[0])
    assert attention.target_subwords == [*subwords, "</s>"]
    assert len(attention.weights[0][0]) == len(subwords) + 1


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"target_lang": "cs"}, "target_lang=cs: the model translates into de, fr, en"),
        ({"tag": "bt"}, "tag=bt: must be one of web"),
        ({"model": "plain", "target_lang": "fr"}, "target_lang=fr: the model translates into de"),
        ({"model": "plain", "tag": "web"}, "tag=web: there are no tags"),
        ({"target_lang": "x" * 200}, "target_lang: string should have at most 100 characters"),
    ],
)
def test_what_a_model_does_not_have_is_one_sentence(many: Any, asked: dict[str, str], error: str) -> None:
    for path, content in (("translate", {"text": TEXT}), ("stream", {"text": TEXT}), ("attention", {"source": TEXT})):
        reply = many.post(f"/api/{path}", {**content, **asked})
        assert (reply.status, reply.error) == (422, error)


def test_the_glossary_of_the_server_is_of_one_language(run: Path, tmp_path: Path) -> None:
    (tmp_path / "terms.tsv").write_text("old\tHOUSES\n", "utf-8")
    with serving(run, ["many"], lambda served: None, glossary=str(tmp_path / "terms.tsv")) as client:
        own, french, given = (
            client.post("/api/translate", {"text": TEXT, **asked}).json["sentences"][0]
            for asked in ({}, {"target_lang": "fr"}, {"target_lang": "fr", "glossary": {"old": "HOUSES"}})
        )
    assert own["terms"][0]["target"] == given["terms"][0]["target"] == "HOUSES"
    assert "HOUSES" in own["translation"]
    assert "terms" not in french


def test_a_request_takes_the_glossary_of_the_server_as_hard_or_soft(run: Path, tmp_path: Path) -> None:
    (tmp_path / "terms.tsv").write_text("old\tHOUSES\n", "utf-8")
    tokenizer = Translator.from_checkpoint(checkpoint.load(run / "terms/checkpoints/best.pt"), None, CPU).tokenizer
    for own, other in (("hard", "soft"), ("soft", "hard")):
        options = {"glossary": str(tmp_path / "terms.tsv"), "glossary_mode": own}
        with serving(run, ["terms"], lambda served: None, **options) as client:
            modes = {own: None, other: other}
            found = {
                mode: client.post("/api/translate", {"text": TEXT, "glossary_mode": asked}).json["sentences"][0]
                for mode, asked in modes.items()
            }
        assert found["soft"]["details"][0]["tokens"] == annotate(tokenizer, TEXT, [(4, 7, "HOUSES")])
        assert found["hard"]["details"][0]["tokens"] == tokenizer.encode_source([TEXT])[0]
        assert "HOUSES" in found["hard"]["translation"]
        assert [one["terms"][0]["target"] for one in found.values()] == ["HOUSES", "HOUSES"]


def test_attention_is_to_the_source_with_its_soft_terms(run: Path, tmp_path: Path) -> None:
    (tmp_path / "terms.tsv").write_text("old\tHOUSES\n", "utf-8")
    model = Translator.from_checkpoint(checkpoint.load(run / "terms" / "checkpoints" / "best.pt"), None, CPU)
    num = len(model.tokenizer.encode_source([TEXT])[0])  # with its terms the text is longer than a piece may be
    options = {"glossary": str(tmp_path / "terms.tsv"), "glossary_mode": "soft", "max_length": num}
    source = annotate(model.tokenizer, TEXT, [(4, 7, "HOUSES")])
    with serving(run, ["terms"], lambda served: None, **options) as client:
        (part,) = client.post("/api/translate", {"text": TEXT}).json["sentences"][0]["details"]
        target = part["hypotheses"][0]["tokens"]
        request = {"source": TEXT, "source_tokens": part["tokens"], "tokens": target, "layer": 1, "head": 1}
        attention = AttentionResponse.model_validate(client.post("/api/attention", request).json)
        changed = client.post(
            "/api/attention", request | {"interventions": [{"layer": 1, "weights": attention.weights[0][0]}]}
        ).json
        wrong = client.post("/api/attention", request | {"source_tokens": [5, model.tokenizer.source_size]})
        long = client.post("/api/attention", request | {"source_tokens": source * 5})
    assert part["tokens"] == source
    assert f"source: has {5 * len(source)} tokens; at most {4 * num} go into the model" in long.error
    assert attention.source_subwords == [*model.tokenizer.source_subwords(source), "</s>"]
    assert attention.source_words == [*part["words"], -1]
    ((_, weights),) = model.attention_weights([source], [target])
    np.testing.assert_allclose(attention.weights[0][0], weights[0, 0], atol=6e-6)
    assert changed["weights"] == [[attention.weights[0][0]]]
    assert (
        wrong.error
        == f"source_tokens.1={model.tokenizer.source_size}: must be an id from 0 to {model.tokenizer.source_size - 1}"
    )
