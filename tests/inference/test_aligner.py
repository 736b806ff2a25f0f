"""Word alignments of any texts, by any model, in any batch."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch

from nmt import search
from nmt.alignment import (
    AlignmentConfig,
    AlignmentSource,
    GoldAlignment,
    StoredAlignmentSource,
    alignment_error_rate,
    ibm1_alignments,
)
from nmt.attention import AttentionConfig
from nmt.data import Tokenizer, TokenizerConfig, source_batch
from nmt.inference.aligner import Aligner
from nmt.inference.translator import Translator
from nmt.models import MODELS, build_model
from nmt.search import SearchConfig

TEXTS = [
    ("The old man sleeps .", "Der alte Mann schläft ."),
    ("a\u00a0b c", "a b\u00a0c d"),
    ("東京\u3000都 です", "Tokyo\u2009is"),
    ("👩‍👩‍👧 🇩🇪 !? …", "« 🏠 » — ,"),
    ("  two  spaces ", "one"),
    ("", "nothing"),
    ("x", ""),
    ("\u0645\u0631\u062d\u0628\u0627 بالعالم", "hello world"),
    ("a_very_long_word_of_many_pieces " * 3, "q"),
]
KINDS = ["unigram", "bpe", "word", "char"]


def split(text: str) -> list[str]:
    return [word for word in text.split(" ") if word]


def plain_text() -> list[tuple[str, str]]:
    """Return sentence pairs to train tokenizers on."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(1, 6))) for _ in range(300)]
    return [(" ".join(rng.choices(words, k=6)) + " .", " ".join(rng.choices(words, k=6))) for _ in range(100)]


def translator(
    architecture: str = "transformer", kind: str = "unigram", *, dropout: float = 0.0, score: Any = "scaled"
) -> Translator:
    config = MODELS[architecture].config()
    sizes = {"d_model": 16, "embedding_dim": 16, "hidden_size": 16, "ffn_dim": 16, "dropout": 0.0}
    names = {field.name for field in dataclasses.fields(config)}
    config = dataclasses.replace(config, **{name: size for name, size in sizes.items() if name in names})
    config = dataclasses.replace(config, attention=AttentionConfig(score=score, heads=2, dim=8, dropout=dropout))
    if score == "none":
        config = dataclasses.replace(config, attention=AttentionConfig(score="none"))
    tokenizer = Tokenizer.train(TokenizerConfig(type=kind, vocab_size=300), plain_text())
    torch.manual_seed(1)
    model = build_model(config, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return Translator(model, tokenizer, SearchConfig(beam_size=3, max_length_offset=5), torch.device("cpu"))


def aligner(model: Translator, reading: AlignmentSource | None = None) -> Aligner:
    return Aligner(model, AlignmentConfig(), reading or AlignmentSource())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", MODELS)
def test_word_matrices_have_the_words_of_the_texts(architecture: str, kind: str) -> None:
    model = translator(architecture, kind)
    ((aligned),) = aligner(model).align(TEXTS)
    for (source, target), pair in zip(TEXTS, aligned, strict=True):
        assert (pair.source, pair.target) == (source, target)
        assert pair.source_subwords[-1] == pair.target_subwords[-1] == "</s>"
        assert pair.source_words[-1] == pair.target_words[-1] == -1
        assert pair.weights.shape[2:] == (len(pair.target_subwords), len(pair.source_subwords))
        assert pair.matrix.shape == (len(split(target)), len(split(source)) + 1)
        np.testing.assert_allclose(pair.weights.sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(pair.matrix.sum(-1), 1, atol=1e-5)
        for i, j in pair.links:
            assert pair.matrix[j].argmax() == i < len(split(source))
        # the last column holds what is no word of the text
        no_word = [s for s, word in enumerate(pair.source_words) if word < 0]
        rows = [t for t, word in enumerate(pair.target_words) if word == 0]
        if rows:
            assert pair.matrix[0, -1] == pytest.approx(
                pair.weights.mean((0, 1))[rows][:, no_word].sum(1).mean(), abs=1e-5
            )


@pytest.mark.parametrize("architecture", MODELS)
def test_padding_does_not_matter(architecture: str) -> None:
    model = translator(architecture)
    (together,) = aligner(model).align(TEXTS)
    for text, pair in zip(TEXTS, together, strict=True):
        ((alone,),) = aligner(model).align([text])
        np.testing.assert_allclose(pair.weights, alone.weights, atol=1e-5)
        assert pair.links == alone.links


@pytest.mark.parametrize("architecture", MODELS)
def test_weights_of_a_translation_are_those_collected_along_the_beam(architecture: str) -> None:
    model = translator(architecture)
    texts = [source for source, _ in TEXTS if source.strip()]
    sources = model.tokenizer.encode_source(texts)
    for text, ids in zip(texts, sources, strict=True):
        source, mask = source_batch([ids])
        (best, *_) = search.translate_batch(model.model, source, mask, model.config, attention=True)[0]
        (forced,) = aligner(model).align_ids([(text, "")], [ids], [best.tokens])
        assert best.weights is not None
        np.testing.assert_allclose(forced.weights, best.weights[..., : len(ids) + 1].numpy(), atol=1e-4)


@pytest.mark.parametrize("architecture", MODELS)
def test_weights_are_those_before_dropout(architecture: str) -> None:
    plain, dropping = (translator(architecture, dropout=rate) for rate in (0.0, 0.9))
    dropping.model.load_state_dict(plain.model.state_dict())
    source, mask = source_batch([[5, 6, 7, 8, 9, 10]])
    inputs = torch.tensor([[2]])  # later rows would depend on the dropped weights
    dropping.model.train()
    weights = dropping.model(source, mask, inputs, attention=True)[1].cross
    expected = plain.model(source, mask, inputs, attention=True)[1].cross
    torch.testing.assert_close(weights[:, 0], expected[:, 0])
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_pairs_whose_words_the_tokenizer_changes_have_no_links(caplog: pytest.LogCaptureFixture) -> None:
    model = translator()
    """As characters do that have none for the space."""
    model.tokenizer = Tokenizer.train(TokenizerConfig(type="char"), [("abcd", "efgh")])
    model.model = build_model(
        MODELS["rnn"].config(), model.tokenizer.source_size, model.tokenizer.target_size, joint=True
    )
    texts = [("ab", "c"), ("a b", "c"), ("ab", "c d"), ("\u00fc", "d")]
    with caplog.at_level("WARNING"):
        ((kept, *changed, unknown),) = aligner(model, AlignmentSource(null=False)).align(texts)
    assert kept.links == unknown.links == [(0, 0)]
    assert [pair.links for pair in changed] == [[], []]
    assert "2 of 4 pairs have no links" in caplog.text
    model.stored_source = StoredAlignmentSource(AlignmentSource(null=False))
    assert model.links(texts) == [[(0, 0)], [], [], [(0, 0)]]


@pytest.mark.parametrize("normalization", ["nfkc", "nmt_nfkc", "lowercase"])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_links_count_the_words_of_the_text_as_given(
    kind: str, normalization: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are those of the normalized text, whose words are numbered by hand here."""
    options = {"lowercase": True} if normalization == "lowercase" else {"normalization": normalization}
    model = translator()
    model.tokenizer = Tokenizer.train(TokenizerConfig(type=kind, vocab_size=300, **options), plain_text())
    torch.manual_seed(2)
    model.model = build_model(
        MODELS["transformer"].config(), model.tokenizer.source_size, model.tokenizer.target_size, joint=True
    )
    text, words, normalized = "ab\u00a0c  de f\u3000\u00bd l\u00b4x", [0, 0, 1, 2, 2, 3, 3], "ab c de f 1⁄2 l \u0301x"
    if normalization == "nmt_nfkc":  # which leaves nothing of U+200B
        text, words, normalized = "ab\u00a0c  \u200b de \u200b\u200b f\u00a0g", [0, 0, 2, 4, 4], "ab c de f g"
    if normalization == "lowercase":
        text, words, normalized = "Ab\u00a0C  De \u0130", [0, 1, 2], "ab\u00a0c  de i\u0307"
    ((given, plain),) = aligner(model, AlignmentSource(null=False)).align([(text, text), (normalized, normalized)])
    assert caplog.text == ""
    assert max(plain.source_words) + 1 == len(split(normalized)) == len(words)
    numbers = [words[word] if word >= 0 else -1 for word in plain.source_words]
    assert given.source_words == given.target_words == numbers
    np.testing.assert_allclose(given.weights, plain.weights, atol=1e-6)
    weights, num = plain.weights.mean((0, 1)), len(split(text))
    rows = {j: weights[[t for t, word in enumerate(numbers) if word == j]].mean(0) for j in set(words)}
    columns = [[s for s, word in enumerate(numbers) if word == i] for i in range(num)]
    assert given.links == [(int(np.argmax([row[s].sum() for s in columns])), j) for j, row in rows.items()]
    assert model.links([(text, text)]) == [
        aligner(model, AlignmentSource()).source.links(given.weights, numbers, numbers)
    ]


def test_a_blank_side_has_no_links(caplog: pytest.LogCaptureFixture) -> None:
    model = translator()
    texts = [("a b", "\u200b"), ("\t", "a b"), ("\u00a0 \u3000", "\ufeff"), ("a", "b")]
    with caplog.at_level("WARNING"):
        (aligned,) = aligner(model, AlignmentSource(null=False)).align(texts)
    assert [len(pair.links) for pair in aligned] == [0, 0, 0, 1]
    assert caplog.text == ""


def test_pairs_whose_words_the_tokenizer_changes_are_not_compared_with_gold(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = translator()
    config = TokenizerConfig(type="unigram", vocab_size=300, normalization="nfkc")
    model.tokenizer = Tokenizer.train(config, plain_text())
    torch.manual_seed(2)
    model.model = build_model(
        MODELS["transformer"].config(), model.tokenizer.source_size, model.tokenizer.target_size, joint=True
    )
    kept = [("a b c", "c d"), ("d e f", "b c a")]
    changed = ("a\u00a0b c", "x y")
    real = Tokenizer.source_words

    def source_words(tokenizer: Tokenizer, text: str, ids: list[int]) -> list[int]:
        return [-1] * len(ids) if text == changed[0] else real(tokenizer, text, ids)

    monkeypatch.setattr(Tokenizer, "source_words", source_words)
    gold = [GoldAlignment(frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (1, 1)}))] * 3
    first, second = (Aligner(model, AlignmentConfig()) for _ in range(2))
    expected = first.select_head(kept, gold[:2], "these")
    with caplog.at_level("WARNING"):
        assert second.select_head([kept[0], changed, kept[1]], gold, "these") == expected
    assert "1 of 3 pairs are not compared with their links" in caplog.text
    evaluation = second.evaluate([kept[0], changed, kept[1]], gold)
    assert evaluation is not None
    assert expected is not None
    assert evaluation.links[1] == []
    assert evaluation.head_scores == {
        source: score for source, score in expected.scores.items() if not source.threshold
    }
    nothing = Aligner(model, AlignmentConfig()).select_head([changed], gold[:1], "these")
    assert nothing is not None
    assert nothing.selected_by.startswith("nothing")
    (aligned,) = second.align_ids([changed], model.tokenizer.encode_source([changed[0]]), [[5, 6]])
    assert aligned.links == []


def test_the_selected_head_is_the_best_of_all_candidates() -> None:
    model = translator()
    pairs = TEXTS[:4]
    gold = [GoldAlignment(frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (1, 1)}))] * 4
    fresh = Aligner(model, AlignmentConfig())
    choice = fresh.select_head(pairs, gold, "these")
    assert choice is not None
    assert fresh.source == choice.source
    assert choice.selected_by == "AER on these"
    for reading, expected in choice.scores.items():
        (aligned,) = aligner(model, reading).align(pairs)
        assert alignment_error_rate([pair.links for pair in aligned], gold) == pytest.approx(expected)
        assert expected.aer >= choice.scores[choice.source].aer
    evaluation = fresh.evaluate(pairs, gold)
    assert evaluation is not None
    assert evaluation.score == pytest.approx(choice.scores[choice.source])
    assert evaluation.head_scores == {source: score for source, score in choice.scores.items() if not source.threshold}
    lexical = fresh.select_head(pairs, None, "these")
    assert lexical is not None
    assert lexical.selected_by == "agreement with a lexical aligner on these"
    assert (
        lexical.scores
        == fresh.select_head(pairs, ibm1_alignments([(split(s), split(t)) for s, t in pairs]), "x").scores
    )  # type: ignore[union-attr]


def test_options_fix_the_alignment_source() -> None:
    model = translator()
    fixed = AlignmentConfig(layer="2", head="1", shift="1", allow_null="false", decision="threshold", threshold=0.05)
    fresh = Aligner(model, fixed)
    choice = fresh.select_head(TEXTS, None, "these")
    assert choice is not None
    assert (choice.source, choice.selected_by) == (AlignmentSource(2, 1, 1, threshold=0.05), "the options")
    (aligned,) = fresh.align(TEXTS)
    for pair in aligned:
        # computed directly: the rows after those of each word, the columns of each word
        rows = pair.weights[1, 0, 1:]
        for j in range(len(split(pair.target))):
            of_word = rows[[t for t, word in enumerate(pair.target_words[:-1]) if word == j]].mean(0)
            for i in range(len(split(pair.source))):
                weight = of_word[[s for s, word in enumerate(pair.source_words) if word == i]].sum()
                assert ((i, j) in pair.links) == (weight >= 0.05)


def test_a_model_without_attention_has_no_alignment() -> None:
    fresh = Aligner(translator(score="none"), AlignmentConfig())
    assert fresh.select_head(TEXTS, None, "these") is None


def test_many_pairs_are_aligned_in_order_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = translator()
    (whole,) = aligner(model).align(TEXTS)
    monkeypatch.setattr("nmt.inference.aligner.ALIGN_CHUNK_PAIRS", 2)
    chunks = list(aligner(model).align(TEXTS))
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 2, 1]
    assert [pair.links for chunk in chunks for pair in chunk] == [pair.links for pair in whole]
