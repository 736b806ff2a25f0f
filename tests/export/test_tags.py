"""Exports of models with tags: every target language gives the translations of torch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt.config import to_dict
from nmt.data import BOS, PAD
from nmt.data.corpora import tag_names
from nmt.export import export, verification
from nmt.export.ctranslate2_engine import make_engine
from nmt.export.scripts.text import TextCodec
from nmt.inference.translator import Translator
from nmt.models import build_model
from nmt.search import SearchConfig
from tests.export.test_export import isolated

LANGUAGES = ("de", "fr", "en")
TEXTS = ["the old man reads", "two children <2fr> play", "a dog"]
Made = tuple[Translator, Any]


@pytest.fixture
def tagged(make: Any, tmp_path: Path) -> Any:
    """Return a function that makes a random model of three languages and a corpus with a tag, which gives tags large
    probabilities or none."""

    def made(place: str, joint: bool, likes_tags: bool = True) -> Made:
        base, config = make(joint=joint, tie_embeddings="all" if joint else "none")
        corpora = {"news": {"path": "news"}, "web": {"path": "web", "tag": "web"}}
        config.data = replace(config.data, corpora=corpora, languages=["en", "de", "fr"], tags=place, format="text")
        config.data.cache_dir = str(tmp_path / "cache")
        tokenizer = base.tokenizer.with_tags(tag_names(config.data))
        assert tokenizer.tags == ("<2de>", "<2fr>", "<2en>", "<web>")
        torch.manual_seed(1)
        model = build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=joint).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
            model.output.bias[[PAD, BOS]] = -30.0
            model.output.bias[-4:] = 3.0 if likes_tags else -30.0
        search = SearchConfig(beam_size=1, early_stopping="beam", max_length_ratio=0.0, max_length_offset=9)
        translator = Translator(model, tokenizer, search, torch.device("cpu"))
        return translator.into(config.data, None), config

    return made


def translations(model: Made, language: str | None, tag: str | None = None) -> list[str]:
    return [translation.text for translation in model[0].into(model[1].data, language, tag).translate(TEXTS)]


@pytest.mark.parametrize(("place", "joint"), [("source", True), ("decoder", False)])
@pytest.mark.parametrize("name", ["ctranslate2", "onnx"])
def test_the_program_translates_into_every_language(
    name: str, place: str, joint: bool, tagged: Any, tmp_path: Path
) -> None:
    pytest.importorskip("ctranslate2" if name == "ctranslate2" else "onnxruntime")
    model, folder, data = tagged(place, joint), tmp_path / "out", "\n".join(TEXTS).encode()
    export(*model, name, folder, 64)
    manifest = json.loads((folder / "export.json").read_text())
    assert manifest["target languages"] == list(LANGUAGES)
    assert manifest["directions"] == ["en-de", "en-fr", "de-en", "de-fr", "fr-en", "fr-de"]
    side = {"source": "source", "decoder": "target"}[place]
    assert manifest["tags"] == {"side": side, "names": ["<2de>", "<2fr>", "<2en>", "<web>"], "corpora": ["web"]}
    assert "## Languages and tags" in (folder / "README.md").read_text()
    expected = [translations(model, language, tag) for language, tag in (("de", None), ("fr", "web"))]
    assert expected[0] != expected[1]
    assert isolated(folder / "translate.py", data)[0] == expected[0]
    assert isolated(folder / "translate.py", data, "--target-lang", "fr", "--tag", "web")[0] == expected[1]
    codec, tokenizer = TextCodec(folder, side, "en"), model[0].into(model[1].data, "en").tokenizer
    encode = tokenizer.encode_source if place == "source" else tokenizer.encode_target
    assert [codec.encode(text) for text in TEXTS] == encode(TEXTS)
    assert codec.decode(codec.encode(TEXTS[1])) == TEXTS[1]
    with pytest.raises(ValueError, match="target_lang=cs: must be one of de, fr, en"):
        TextCodec(folder, side, "cs")


@pytest.mark.parametrize("name", ["ctranslate2", "huggingface"])
def test_another_language_is_verified(name: str, tagged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2" if name == "ctranslate2" else "transformers")
    if name == "ctranslate2":
        monkeypatch.setattr(verification, "TextCodec", lambda folder, side, language: TextCodec(folder, side))
    else:
        monkeypatch.setattr("nmt.export.to_huggingface.tag_ids", lambda manifest, side, *_: [334] * (side == "source"))
    with pytest.raises(ValueError, match="the exported tokenizer is not ours"):
        export(*tagged("source", True), name, tmp_path / "out", 64)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("place", "joint"), [("source", False), ("decoder", True), ("decoder", False)])
def test_the_engine_translates_into_every_language(place: str, joint: bool, tagged: Any, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    model = tagged(place, joint, likes_tags=False)  # or torch would translate all of it
    for beam_size in (1, 3):
        base = model[0]
        base.config = replace(base.config, beam_size=beam_size)
        for language in LANGUAGES:
            ours, engine = (base.into(model[1].data, language, "web") for _ in range(2))
            engine.engine = make_engine(engine, model[1], "ctranslate2")
            assert engine.engine_used
            for a, b in zip(ours.translate(TEXTS), engine.translate(TEXTS), strict=True):
                assert (a.text, a.tokens) == (b.text, b.tokens)
                assert a.log_prob == pytest.approx(b.log_prob, abs=1e-4)
    assert len(list((tmp_path / "cache").glob("ctranslate2-*"))) == 1


@pytest.mark.parametrize(
    ("place", "joint"), [("source", True), ("source", False), ("decoder", True), ("decoder", False)]
)
def test_transformers_translates_into_every_language(place: str, joint: bool, tagged: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = tagged(place, joint)
    export(*model, "huggingface", tmp_path / "out", 64)
    generator = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for language in LANGUAGES:
        translator = model[0].into(model[1].data, language)
        for text, ours in zip(TEXTS, translator.translate(TEXTS), strict=True):
            ids, options = tokenizer(text)["input_ids"], {}
            untagged = model[0].tokenizer.tagged().encode_source([text])[0]
            assert ids == [*untagged, 3]  # a tag that a text spells out is text
            if place == "source":
                ids = [tokenizer.convert_tokens_to_ids(f"<2{language}>"), *ids]
            elif language != "de":  # the default
                options = {"forced_bos_token_id": generator.generation_config.lang_to_id[language]}
            (output,) = generator.generate(torch.tensor([ids]), max_length=len(ours.tokens) + 1, **options).tolist()
            assert output[1 : len(ours.tokens)] == ours.tokens[:-1]  # the last is forced to be the end there
            decoded = tokenizer.decode(output[: len(ours.tokens)], skip_special_tokens=True)
            assert decoded == translator.tokenizer.decode_target(ours.tokens[:-1]).strip()
            assert "<2" not in decoded


def test_untagged_models_are_described_as_before(make: Any, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    translator, config = make()
    export(translator, config, "ctranslate2", tmp_path / "out", 64)
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    assert not {"tags", "target languages", "directions"} & set(manifest)
    assert manifest["target language"] == "de"
    assert "tags" not in (tmp_path / "out" / "README.md").read_text()
    assert manifest["model"] == to_dict(config.model)
