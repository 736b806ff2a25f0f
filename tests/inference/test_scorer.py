"""Scores of given translations: against the loop over `step`, the search, validation, and numbers worked by hand."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nmt.attention import AttentionConfig
from nmt.data import BOS, EOS, UNK, Tokenizer, TokenizerConfig, collate
from nmt.evaluation.metrics import MetricsConfig
from nmt.inference.translator import ScoredPair, Translator
from nmt.models import MODELS, build_model
from nmt.search import Ensemble, SearchConfig
from nmt.search.scoring import length_norm
from nmt.training.validation import Validator

CPU = torch.device("cpu")
WORDS = ["the", "a", "dog", "cat", "sees", "likes", "hears", "and", "small", "old", ",", "."]
TEXTS = [" ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 3 + i % 11)) for i in range(60)]
PAIRS: list[ScoredPair] = [(text, TEXTS[(7 * i + 3) % 60].upper(), ()) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TokenizerConfig(type="bpe", vocab_size=300), [pair[:2] for pair in PAIRS])


def small(architecture: str) -> Any:
    config = MODELS[architecture].config()
    widths = {"d_model": 16, "ffn_dim": 24, "hidden_size": 16, "embedding_dim": 16}
    attentions = {
        field.name: dataclasses.replace(getattr(config, field.name), heads=2)
        for field in dataclasses.fields(config)
        if isinstance(getattr(config, field.name), AttentionConfig)
    }
    return dataclasses.replace(
        config, **{name: size for name, size in widths.items() if hasattr(config, name)}, **attentions
    )


def model(tokenizer: Tokenizer, config: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    made = build_model(config, tokenizer.source_size, tokenizer.target_size, joint=True).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return made


def translator(tokenizer: Tokenizer, name: str, **search: Any) -> Translator:
    """A translator of an architecture, or "ensemble" of several."""
    config = SearchConfig(**{"beam_size": 4, "max_length_ratio": 0.5, "max_length_offset": 4, **search})
    if name == "ensemble":
        members = [model(tokenizer, small(architecture), seed) for seed, architecture in enumerate(MODELS)]
        return Translator(Ensemble(members).eval(), tokenizer, config, CPU)
    return Translator(model(tokenizer, small(name)), tokenizer, config, CPU)


def by_steps(made: Translator, source: str, target: Sequence[int]) -> list[float]:
    """The log-probability of each token of one pair, computed token by token."""
    (ids,) = made.tokenizer.encode_source([source])
    tensor = torch.tensor([[*ids, EOS]])
    values = []
    with torch.no_grad():
        memory = made.model.encode(tensor, torch.ones_like(tensor, dtype=torch.bool))
        state = made.model.init_state(memory)
        for token, label in zip([BOS, *target], [*target, EOS], strict=True):
            logits, _, state = made.model.step(torch.tensor([token]), state, memory)
            values.append(float(torch.log_softmax(logits, -1)[0, label]))
    return values


@pytest.mark.parametrize("name", [*MODELS, "ensemble"])
def test_scores_are_those_of_the_loop_and_do_not_depend_on_the_batch(tokenizer: Tokenizer, name: str) -> None:
    made = translator(tokenizer, name, batch_size=64)
    scores = made.score(PAIRS)
    for (source, target, _), score in list(zip(PAIRS, scores, strict=True))[::7]:
        ids = tokenizer.encode_target([target])[0]
        assert score.token_log_probs == pytest.approx(by_steps(made, source, ids), abs=2e-5)
        assert score.log_prob == pytest.approx(sum(score.token_log_probs))
        assert list(score.subwords) == tokenizer.target_subwords(ids)
        assert score.num_tokens == len(ids) + 1
    for changes in ({"batch_size": 1}, {"batch_size": 5}, {"batch_tokens": 40}):
        made.config = dataclasses.replace(made.config, **changes)
        assert made.score(PAIRS) == scores, changes  # bit for bit
    assert [made.score([pair])[0] for pair in PAIRS[:3]] == scores[:3]


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_a_single_token_rounds_as_in_company(tokenizer: Tokenizer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without oneDNN, too, where products of one row are computed in another way."""
    monkeypatch.setattr("nmt.attention.linear.has_onednn", lambda: False)
    made = translator(tokenizer, name)
    pairs: list[ScoredPair] = [(text, "", ()) for text in TEXTS[:20]]
    assert [made.score([pair])[0] for pair in pairs] == made.score(pairs)


@pytest.mark.parametrize("name", [*MODELS, "ensemble"])
def test_scores_are_those_of_the_search(tokenizer: Tokenizer, name: str) -> None:
    """For each of the n-best translations, of which the subwords are given; they need not be those of the tokenizer."""
    for options in ({}, {"length_penalty": 0.6, "length_normalization": "gnmt"}, {"method": "sample"}):
        made = translator(tokenizer, name, n_best=3, **options)
        sources = [*TEXTS[:12], "\u200b"]
        found = made.n_best(sources)
        own = [(source, t) for source, best in zip(sources, found, strict=True) for t in best]
        scores = made.score([(source, t.text, tokenizer.target_subwords(t.tokens)) for source, t in own])
        assert len(scores) > 30
        for (_, translation), score in zip(own, scores, strict=True):
            assert score.log_prob == pytest.approx(translation.log_prob, abs=1e-4)
            assert score.score == pytest.approx(translation.score, abs=1e-4)
            assert score.num_tokens == (len(translation.tokens) + 1 if translation.log_prob else 0)


@pytest.mark.parametrize("kind", ["word", "char", "unigram"])
def test_scores_are_those_of_the_search_with_unknown_tokens(kind: str) -> None:
    options = TokenizerConfig(type=kind, vocab_size=40, byte_fallback=False)
    made = translator(Tokenizer.train(options, [pair[:2] for pair in PAIRS]), "transformer", n_best=4)
    made.model.output.bias.data[UNK] += 2  # type: ignore[union-attr]
    sources = [*TEXTS[:8], "the \u2603 dog"]
    own = [(source, t) for source, best in zip(sources, made.n_best(sources), strict=True) for t in best]
    assert any(UNK in t.tokens for _, t in own)
    scores = made.score([(source, t.text, made.tokenizer.target_subwords(t.tokens)) for source, t in own])
    for (_, translation), score in zip(own, scores, strict=True):
        assert score.log_prob == pytest.approx(translation.log_prob, abs=1e-4)


def test_given_subwords_must_make_up_the_text(tokenizer: Tokenizer) -> None:
    made = translator(tokenizer, "rnn")
    source, target, _ = PAIRS[4]
    (own,) = made.score([(source, target, ())])
    spelled = tokenizer.target_subwords([i for char in target for i in tokenizer.encode_target([char])[0]])
    for wrong in (list(own.subwords[:-1]), ["no subword"], [*own.subwords, "</s>", "x"]):
        assert made.score([(source, target, wrong)]) == [own]
    ids = [i for word in target.split() for i in tokenizer.encode_target([word])[0]]
    assert made.score([(source, target, tokenizer.target_subwords(ids))])[0].subwords == tokenizer.target_subwords(ids)
    assert made.score([(f"  {source} ", f" {target} ", spelled[:1])]) == [own]  # spaces at the ends are no text


def test_numbers(tokenizer: Tokenizer) -> None:
    made = translator(tokenizer, "rnn", length_penalty=0.7)
    back = translator(tokenizer, "transformer", length_penalty=0.7)
    source, target, _ = PAIRS[5]
    score, backward = (made.score(PAIRS[5:6])[0], back.score([(target, source, ())])[0])
    num = len(tokenizer.encode_target([target])[0]) + 1
    assert (score.reverse_log_prob, score.mean_score, score.dual, score.error) == (None, None, None, None)
    assert score.score == pytest.approx(score.log_prob / num**0.7)
    assert score.score == pytest.approx(score.log_prob / length_norm(made.config, num))
    assert score.per_token == pytest.approx(score.log_prob / num)
    assert score.per_word == pytest.approx(score.log_prob / (len(target.split()) + 1))
    assert score.perplexity == pytest.approx(math.exp(-score.log_prob / num))
    (both,) = made.score(PAIRS[5:6], back)
    assert both[:6] == score[:6]
    assert both[9:] == score[9:]
    assert both.reverse_log_prob == backward.log_prob
    assert both.mean_score == pytest.approx((score.score + backward.score) / 2)
    forward_entropy = -score.log_prob / num
    backward_entropy = -backward.log_prob / (len(tokenizer.encode_target([source])[0]) + 1)
    dual = abs(forward_entropy - backward_entropy) + 0.5 * (forward_entropy + backward_entropy)
    assert both.dual == pytest.approx(math.exp(-dual))


def test_blank_texts(tokenizer: Tokenizer) -> None:
    made = translator(tokenizer, "rnn")
    both, source, target = made.score([("", "\t", ()), ("", "the dog", ()), ("the dog", " ", ())])
    assert (both.log_prob, both.score, both.num_tokens, both.perplexity) == (0, 0, 0, 1)
    assert source.token_log_probs == pytest.approx(
        by_steps(made, "", tokenizer.encode_target(["the dog"])[0]), abs=2e-5
    )
    assert target.token_log_probs == pytest.approx(by_steps(made, "the dog", []), abs=2e-5)
    assert made.score([]) == []


def test_perplexity_is_that_of_validation(tokenizer: Tokenizer) -> None:
    made = translator(tokenizer, "transformer")
    sources, targets = made.encode_pairs([pair[:2] for pair in PAIRS])
    batches = [collate(sources[i : i + 7], targets[i : i + 7]) for i in range(0, 60, 7)]
    corpus: Any = SimpleNamespace(epoch=lambda _: batches)
    loss = Validator(made, corpus, [], None, MetricsConfig()).loss(made.model, "fp32")
    scores = made.score(PAIRS)
    assert -sum(s.log_prob for s in scores) / sum(s.num_tokens for s in scores) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("side", [0, 1])
def test_a_pair_that_is_too_long_does_not_affect_others(tokenizer: Tokenizer, side: int) -> None:
    config = dataclasses.replace(small("transformer"), positions="learned", max_positions=30)
    made = Translator(model(tokenizer, config), tokenizer, SearchConfig(), CPU)
    fitting = [pair for pair in PAIRS if fits(made, pair, 29)]
    assert any(not fits(made, pair, 28) for pair in fitting)  # one that needs every position
    long = " ".join(TEXTS[:5])
    pairs: list[ScoredPair] = [*fitting[:5], (long, "A DOG", ()) if side == 0 else ("a dog", long, ()), *fitting[5:]]
    scores = made.score(pairs)
    assert [*scores[:5], *scores[6:]] == made.score(fitting)
    assert all(score.error is None for score in made.score(fitting))
    assert "longer than model.max_positions=30" in str(scores[5].error)
    assert scores[5].log_prob == -math.inf
    assert "max_positions=30" in str(translator(tokenizer, "rnn").score(pairs, made)[5].error)


def fits(made: Translator, pair: ScoredPair, most: int) -> bool:
    return all(len(ids) <= most for (ids,) in made.encode_pairs([pair[:2]]))


def test_batches_that_do_not_fit_are_halved(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("nmt").propagate = True
    made = translator(tokenizer, "transformer", batch_size=64)
    same: list[ScoredPair] = [("the dog", f"A {word}", ()) for word in ("DOG", "CAT", "OLD")] * 4
    whole, encode = made.score(same), made.model.encode

    def encode_few(most: int) -> Any:
        def run(source: torch.Tensor, mask: torch.Tensor) -> Any:
            if len(calls) < most:
                calls.append(1)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return encode(source, mask)

        calls: list[int] = []
        return run

    with caplog.at_level("WARNING"):
        monkeypatch.setattr(made.model, "encode", encode_few(3))
        assert made.score(same) == whole
    assert sum("pairs: computed in two halves" in record.getMessage() for record in caplog.records) == 3
    monkeypatch.setattr(made.model, "encode", encode_few(10**6))
    assert all("out of memory on one of the pairs alone" in str(score.error) for score in made.score(same[:3]))


@pytest.mark.bf16
def test_bf16_is_the_search_s_precision(tokenizer: Tokenizer) -> None:
    exact = translator(tokenizer, "transformer").score(PAIRS)
    coarse = translator(tokenizer, "transformer", precision="bf16").score(PAIRS)
    differences = [abs(a.per_token - b.per_token) for a, b in zip(exact, coarse, strict=True)]
    assert 0 < max(differences) < 0.2
