"""Terms in the sources of translations: annotated ids reach the model, links and reports keep their words."""

from dataclasses import replace

import pytest
import torch

from nmt.alignment import StoredAlignmentSource
from nmt.data import Tokenizer, TokenizerConfig
from nmt.data.tags import TERM_TAGS
from nmt.data.terms import annotate
from nmt.inference.glossary import load_glossary
from nmt.inference.line_request import LineRequest
from nmt.inference.line_translator import LineTranslator
from nmt.inference.translator import Translator
from nmt.models import MODELS, build_model
from nmt.search import SearchConfig

PAIRS = [("a b", "b a"), ("c a b", "b a c"), ("b", "b"), ("a c c a", "c a a c")]


def made(tags: tuple[str, ...] = TERM_TAGS, positions: str = "sinusoidal") -> Translator:
    tokenizer = Tokenizer.train(TokenizerConfig(type="word", vocab_size=7), PAIRS).with_tags(tags)
    config = MODELS["transformer"].config()
    config.d_model = config.ffn_dim = 16
    config.positions, config.max_positions = positions, 12
    torch.manual_seed(2)
    model = build_model(config, tokenizer.source_size, tokenizer.target_size, joint=True).eval()
    options = SearchConfig(max_length_ratio=0.0, max_length_offset=4, n_best=2, beam_size=4)
    return Translator(model, tokenizer, options, torch.device("cpu"), carried=StoredAlignmentSource())


def test_the_model_reads_the_annotated_source() -> None:
    translator = made()
    texts: list[str] = ["a b", "c a b", "c a b"]
    terms: list[list[tuple[int, int, str]]] = [[(0, 1, "c")], [], [(0, 1, "b a"), (4, 5, "c")]]
    sources = translator.encode_sources(texts, terms)
    assert sources == [annotate(translator.tokenizer, *pair) for pair in zip(texts, terms, strict=True)]
    assert translator.tokenizer.source_subwords(sources[2]) == [
        *("<term>", "c", "<is>", "b", "a", "</term>", "a", "<term>", "b", "<is>", "c", "</term>")
    ]
    plain, soft = translator.n_best(texts), translator.n_best(texts, terms=terms)
    assert plain[1] == soft[1]
    for i in (0, 2):
        expected = [best.log_prob for best in soft[i]]
        assert expected != [best.log_prob for best in plain[i]]
        weights = dict(translator.attention_weights([sources[i]], [soft[i][0].tokens]))
        assert weights[0].shape[-1] == len(sources[i]) + 1


def test_a_source_that_the_model_cannot_take_stays_as_it_is() -> None:
    translator, text = made(positions="learned"), "a b c a b"
    assert len(annotate(translator.tokenizer, text, places := [(0, 1, "b c"), (6, 7, "b c")])) == 15
    assert translator.encode_sources([text, "a"], [places, places[:1]]) == [
        translator.tokenizer.encode_source([text])[0],
        annotate(translator.tokenizer, "a", places[:1]),
    ]


def lines(translator: Translator, mode: str = "soft", **options: bool) -> LineTranslator:
    glossary = load_glossary({"c a": "b b"}, translator, mode)
    return LineTranslator(translator, 100, LineRequest(**options), glossary=glossary)


def test_lines_have_links_and_markup_on_the_words_of_the_text() -> None:
    soft = lines(made())
    (result,) = soft.translate_lines([b"b c a b"])
    record = soft.to_json(1, result)
    assert record["source_subwords"] == ["b", "<term>", "c", "a", "<is>", "b", "b", "</term>", "b"]
    assert {source for source, _ in record["links"]} <= {0, 1, 2, 3}
    assert [(term["source"], term["target"]) for term in record["terms"]] == [("c a", "b b")]
    assert soft.counts["terms"] == 1
    (tagged,) = lines(made(), markup=True).translate_lines([b"b <i>c a</i> b"])
    assert tagged.error is None
    assert tagged.text.count("<i>") == tagged.text.count("</i>") == 1
    assert tagged.best == lines(made()).translate_lines([b"b c a b"])[0].best


def test_one_mode_requires_terms_and_the_other_annotates_sources() -> None:
    translator = made()
    (hard,), (soft,) = (lines(translator, mode).translate_lines([b"c a c"]) for mode in ("hard", "soft"))
    assert hard.best == translator.n_best(["c a c"], phrases=[["b b"]])
    assert soft.best == translator.n_best(["c a c"], terms=[[(0, 3, "b b")]])
    assert hard.best != soft.best


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"glossary_mode=soft: this model was trained without terms"):
        lines(made(()))
    with pytest.raises(ValueError, match=r"glossary_mode=soft"):
        made(()).n_best(["a"], terms=[[]])
    with pytest.raises(ValueError, match=r"glossary_mode=soft: there is no glossary; give one"):
        load_glossary(None, made(), "soft")
    with pytest.raises(ValueError, match=r"glossary_mode=firm: must be one of hard, soft"):
        load_glossary({"a": "b"}, made(), "firm")
    sampling = made()
    sampling.config = replace(sampling.config, method="sample", n_best=1)
    assert lines(sampling).translate_lines([b"c a"])[0].error is None
    with pytest.raises(ValueError, match=r"search\.method=sample: does not go with"):
        lines(sampling, "hard")
