"""Terms in the sources of translations: annotated ids reach the model, links and reports keep their words."""

import pytest
import torch

from nmt.alignment import StoredAlignmentSource
from nmt.data import Tokenizer, TokenizerConfig
from nmt.data.tags import TERM_TAGS
from nmt.data.terms import annotate
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
    translator, terms = made(), [[("a", "c")], [], [("c", "b a"), ("b", "c")]]
    texts = ["a b", "c a b", "c a b"]
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
    translator = made(positions="learned")
    text, terms = "a b c a b", [("a", "b c")]
    assert len(annotate(translator.tokenizer, text, terms)) == 15
    assert translator.encode_sources([text, "a"], [terms, terms])[0] == translator.tokenizer.encode_source([text])[0]
    assert len(translator.encode_sources([text, "a"], [terms, terms])[1]) == 6


def test_lines_have_links_between_the_words_of_the_text() -> None:
    lines = LineTranslator(made(), 100, lambda text: [("c a", "b b")])
    (result,) = lines.translate_lines([b"b c a b"])
    record = lines.to_json(1, result)
    assert record["source_subwords"] == ["b", "<term>", "c", "a", "<is>", "b", "b", "</term>", "b"]
    assert {source for source, _ in record["links"]} <= {0, 1, 2, 3}
    ids = annotate(lines.translator.tokenizer, "b c a b", [("c a", "b b")])
    assert lines.translator.tokenizer.source_words("b c a b", ids) == [0, -1, 1, 2, -1, 2, 2, -1, 3]


def test_a_model_without_terms_refuses_them() -> None:
    with pytest.raises(ValueError, match=r"glossary_mode=soft: this model was trained without terms"):
        LineTranslator(made(()), 100, lambda text: [])
    with pytest.raises(ValueError, match=r"glossary_mode=soft"):
        made(()).n_best(["a"], terms=[[]])
