"""Interventions: computed by hand, by search and by teacher forcing, in every architecture and score."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from nmt.attention import AttentionConfig
from nmt.data import BOS, EOS, Tokenizer, collate
from nmt.evaluation.attention_diagnostics import head_importance
from nmt.inference.interventions import Intervention, rows_of_links
from nmt.inference.translator import Translator, cross_attention_modules
from nmt.models import MODELS, build_model
from nmt.search import Ensemble, SearchConfig
from nmt.search.device_search import searches_on_device
from tests.inference.test_scorer import CPU, TEXTS, model, small, tokenizer  # noqa: F401

TEXT, TARGET = "the dog sees a cat , and likes", "A CAT HEARS THE OLD DOG"
KINDS: dict[str, dict[str, Any]] = {
    **{f"transformer {score}": {"score": score} for score in ("scaled", "additive", "cosine", "location", "hybrid")},
    "transformer two scores": {"score": ["dot", "additive"]},
    "transformer coverage": {"score": "additive", "coverage": True},
    "transformer entmax15": {"normalizer": "entmax15"},
    "transformer local_p": {"window": "local_p", "window_size": 1},
    "transformer_rnn additive": {"score": "additive"},
    "rnn_transformer dot": {"score": "dot"},
    "rnn luong": {"score": "general"},
    "rnn input_feeding": {"score": "additive", "coverage": True},
    "rnn bahdanau": {"score": "scaled", "window": "local_m", "window_size": 1},
}


def made(tokenizer: Tokenizer, kind: str, seed: int = 0, **search: Any) -> Translator:  # noqa: F811
    name, _, more = kind.partition(" ")
    config = small(name)
    config.attention = AttentionConfig(**{"heads": 2, "dim": 16, **KINDS[kind]})
    if name == "rnn":
        config.decoder = more
    config.validate()
    options = {"beam_size": 4, "max_length_ratio": 0.5, "max_length_offset": 4, "n_best": 2, **search}
    return Translator(model(tokenizer, config, seed), tokenizer, SearchConfig(**options), CPU)


def attention(translator: Translator, source: str, target: str) -> Any:
    ((_, weights),) = translator.attention_weights(*translator.encode_pairs([(source, target)]))
    return weights


def own_and_random(translator: Translator, seed: int = 0) -> Any:
    """A matrix for TEXT: five rows, the third of which keeps the model's own."""
    num = len(translator.tokenizer.encode_source([TEXT])[0]) + 1
    rows = np.random.default_rng(seed).dirichlet(np.full(num, 0.3), 5)
    rows[2] = np.nan
    return rows


def interventions(translator: Translator) -> dict[str, list[Intervention]]:
    rows = own_and_random(translator)
    last = len(cross_attention_modules(translator.attention_model))
    return {
        "zero": [Intervention(0, 2, "zero")],
        "uniform": [Intervention(1, 1, "uniform")],
        "matrix": [Intervention(last, 2, rows)],
        "chain": [Intervention(0, 0, "uniform"), Intervention(1, 2, rows), Intervention(last, 1, "zero")],
    }


@pytest.mark.parametrize("name", ["zero", "uniform", "matrix", "chain"])
@pytest.mark.parametrize("kind", KINDS)
def test_search_and_teacher_forcing_agree(tokenizer: Tokenizer, kind: str, name: str) -> None:  # noqa: F811
    plain = made(tokenizer, kind)
    before = plain.n_best([TEXT, TEXT]), plain.score([(TEXT, TARGET, ())]), attention(plain, TEXT, TARGET)
    changed = plain.intervene(interventions(plain)[name])
    (found, again) = changed.n_best([TEXT, TEXT])
    assert found == again
    for translation in found:
        subwords = tokenizer.target_subwords(translation.tokens)
        (score,) = changed.score([(TEXT, translation.text, subwords)])
        assert list(score.subwords) == subwords
        assert score.log_prob == pytest.approx(translation.log_prob, abs=2e-5)
    for streamed in changed.stream_n_best(TEXT):
        last = streamed
    assert [t.tokens for t in last] == [t.tokens for t in found]
    assert abs(changed.score([(TEXT, TARGET, ())])[0].log_prob - before[1][0].log_prob) > 1e-4  # it has an effect
    after = plain.n_best([TEXT, TEXT]), plain.score([(TEXT, TARGET, ())]), attention(plain, TEXT, TARGET)
    assert before[:2] == after[:2]  # the model itself stays as it was
    assert np.array_equal(before[2], after[2])


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_acted_are_returned_in_both_ways(tokenizer: Tokenizer, kind: str) -> None:  # noqa: F811
    plain = made(tokenizer, kind)
    rows, own = own_and_random(plain), attention(plain, TEXT, TARGET)
    chain = interventions(plain)["chain"]
    changed = plain.intervene(chain)
    weights = attention(changed, TEXT, TARGET)
    uniform = np.full(own.shape[2:], 1 / own.shape[3])
    last, num = len(weights), len(rows)
    expected = {(layer, head): uniform for layer in range(last) for head in (0, 1)}
    expected[last - 1, 0] = np.zeros_like(uniform)
    expected[0, 1] = np.where(np.isnan(rows).any(1, keepdims=True), 0, rows)
    for (layer, head), matrix in expected.items():
        shown = weights[layer, head][: len(matrix)]
        if (layer, head) == (0, 1):  # the third row and those beyond the matrix are the model's own: distributions
            np.testing.assert_allclose(weights[layer, head].sum(-1), 1, atol=1e-5)
            np.testing.assert_array_less(1e-3, np.abs(weights[layer, head][[2, num]] - uniform[0]).max(-1))
            shown = np.where(np.isnan(rows).any(1, keepdims=True), 0, shown)
        np.testing.assert_allclose(shown, matrix, atol=1e-6)
    source, target = (ids[0] for ids in plain.encode_pairs([(TEXT, TARGET)]))
    ids, steps = torch.tensor([[*source, EOS]]), []
    with torch.no_grad():  # a step at a time
        memory = changed.model.encode(ids, torch.ones_like(ids, dtype=torch.bool))
        state = changed.model.init_state(memory)
        for token in [BOS, *target]:
            _, step, state = changed.model.step(torch.tensor([token]), state, memory, attention=True)
            steps.append(step.cross[0, :, :, 0].numpy())
    np.testing.assert_allclose(np.stack(steps, 2), weights, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_own_weights_change_nothing(tokenizer: Tokenizer, kind: str) -> None:  # noqa: F811
    plain = made(tokenizer, kind, beam_size=1, n_best=1)  # of a wider beam other hypotheses would attend as these do
    ((best,),) = plain.n_best([TEXT])
    weights = attention(plain, TEXT, TARGET)
    given = [Intervention(i + 1, j + 1, weights[i, j]) for i, j in np.ndindex(weights.shape[:2])]
    same = plain.intervene(given)
    np.testing.assert_allclose(attention(same, TEXT, TARGET), weights, atol=2e-6)
    before, after = (one.score([(TEXT, TARGET, ())])[0].token_log_probs for one in (plain, same))
    np.testing.assert_allclose(after, before, atol=2e-5)
    ids = [plain.tokenizer.encode_source([TEXT])[0]]
    ((_, weights),) = plain.attention_weights(ids, [best.tokens])
    given = [Intervention(i + 1, j + 1, weights[i, j]) for i, j in np.ndindex(weights.shape[:2])]
    ((found,),) = plain.intervene(given).n_best([TEXT])
    assert found.tokens == best.tokens
    assert found.log_prob == pytest.approx(best.log_prob, abs=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_uniform_context_is_the_mean_of_the_values(tokenizer: Tokenizer, kind: str) -> None:  # noqa: F811
    plain = made(tokenizer, kind)
    changed = plain.intervene([Intervention(1, 2, "uniform")])
    sources, targets = plain.encode_pairs([(TEXT, TARGET), ("a dog", "A DOG SEES")])
    batch = collate(sources, targets)
    layer, seen, values = cross_attention_modules(changed.model)[0], [], []
    hooks = [layer.output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))]
    hooks.append(layer.value.register_forward_hook(lambda _, inputs, output: values.append(output)))
    with torch.no_grad():
        changed.model(batch.source, batch.source_mask, batch.inputs)
    for hook in hooks:
        hook.remove()
    contexts = torch.cat(seen, 1)[..., seen[0].size(-1) // 2 :]  # of the second head, (B, T, D)
    for sentence, ids in enumerate(sources):
        mean = values[0][sentence, : len(ids) + 1, values[0].size(-1) // 2 :].mean(0)
        torch.testing.assert_close(
            contexts[sentence, : len(targets[sentence])], mean.expand(len(targets[sentence]), -1)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_zero_raises_the_loss_by_the_importance(tokenizer: Tokenizer, kind: str) -> None:  # noqa: F811
    plain = made(tokenizer, kind)
    pairs = [(text, TEXTS[(3 * i + 1) % 60].upper()) for i, text in enumerate(TEXTS[:9])]
    importance = head_importance(plain, pairs)
    assert importance is not None
    scored = [(*pair, ()) for pair in pairs]

    def loss(translator: Translator) -> float:
        scores = translator.score(scored)
        return -sum(score.log_prob for score in scores) / sum(score.num_tokens for score in scores)

    for layer, head in np.ndindex(importance.shape):
        rise = loss(plain.intervene([Intervention(layer + 1, head + 1, "zero")])) - loss(plain)
        assert rise == pytest.approx(importance[layer, head], abs=2e-6)
    assert np.abs(importance).max() > 1e-3


def test_an_ensemble_acts_in_the_member_whose_attention_is_used(tokenizer: Tokenizer) -> None:  # noqa: F811
    config = small("rnn")
    config.attention = AttentionConfig(score="none")
    members = [model(tokenizer, config), made(tokenizer, "rnn luong", 1).model]
    search = SearchConfig(beam_size=3, max_length_ratio=0.5, max_length_offset=4)
    plain = Translator(Ensemble(members).eval(), tokenizer, search, CPU, member=2)
    rows = own_and_random(plain)
    changed = plain.intervene([Intervention(1, 1, rows), Intervention(1, 2, "zero")])
    alone = Translator(members[1], tokenizer, search, CPU).intervene(
        [Intervention(1, 1, rows), Intervention(1, 2, "zero")]
    )
    assert np.array_equal(attention(changed, TEXT, TARGET), attention(alone, TEXT, TARGET))
    (score,), (one,), (other,) = (
        made.score([(TEXT, TARGET, ())]) for made in (changed, alone, Translator(members[0], tokenizer, search, CPU))
    )
    mean = np.logaddexp(one.token_log_probs, other.token_log_probs) - np.log(2)
    np.testing.assert_allclose(score.token_log_probs, mean, atol=1e-5)
    ((found,),) = changed.n_best([TEXT])
    (score,) = changed.score([(TEXT, found.text, tokenizer.target_subwords(found.tokens))])
    assert score.log_prob == pytest.approx(found.log_prob, abs=2e-5)


def test_the_device_does_not_search_by_itself(tokenizer: Tokenizer) -> None:  # noqa: F811
    plain = made(tokenizer, "transformer scaled", n_best=1)
    assert searches_on_device(plain.model, 8, plain.config)
    changed = plain.intervene([Intervention(0, 0, "uniform")])
    assert not searches_on_device(changed.model, 8, changed.config)
    assert searches_on_device(plain.model, 8, plain.config)


def test_all_but_the_attention_is_shared(tokenizer: Tokenizer) -> None:  # noqa: F811
    plain = made(tokenizer, "transformer scaled")
    changed = plain.intervene([Intervention(1, 1, "zero")])
    pairs = zip(plain.model.named_parameters(), changed.model.named_parameters(), strict=True)
    assert all(a[0] == b[0] and a[1] is b[1] for a, b in pairs)
    assert changed.model.encoder is plain.model.encoder
    assert changed.model.decoder.layers[0].cross.overrides == {0: None}
    assert plain.model.decoder.layers[0].cross.overrides is None


def test_links_are_shared_over_subwords() -> None:
    rows = rows_of_links([(0, 1), (2, 1), (1, 0)], [0, 0, 1, 2, -1], [0, 1, 1, 2, -1])
    third = [1 / 3, 1 / 3, 0, 1 / 3, 0]
    np.testing.assert_allclose(rows, [[0, 0, 1, 0, 0], third, third, [np.nan] * 5, [np.nan] * 5])
    with pytest.raises(ValueError, match="alignment: link 3-0: the source has 3 words"):
        rows_of_links([(3, 0)], [0, 0, 1, 2, -1], [0, -1])
    with pytest.raises(ValueError, match="alignment: link 0--1: the target has 1 words"):
        rows_of_links([(0, -1)], [0, -1], [0, -1])


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        ((3, 1, "zero"), "layer=3: attention to the source has layers 1 to 2; 0 is all"),
        ((-1, 1, "zero"), "layer=-1: attention to the source has layers 1 to 2; 0 is all"),
        ((1, 3, "zero"), "head=3: attention to the source has heads 1 to 2; 0 is all"),
        ((1, "2", "zero"), "head=2: attention"),
        ((1, 1, "none"), "weights=none: must be zero, uniform, from_alignment, or a matrix"),
        ((1, 1, 0.5), r"weights=0\.5: must be zero"),
        ((1, 1, [0.5, 0.5]), "weights: must be zero"),
        ((1, 1, []), "weights: must be zero"),
        ((1, 1, [None]), "weights: must be zero"),
        ((1, 1, [["a", "b"]]), "weights: must be zero"),
        ((1, 1, [[]]), "weights: must be zero"),
        ((1, 1, [[0.5, 0.5], [1.0]]), r"weights\[1\]: has 1 columns, and other rows have 2"),
        ((1, 1, [[0.5, 0.5], [1.5, -0.5]]), r"weights\[1\]: holds -0\.5; weights are 0 or more"),
        ((1, 1, [[0.5, 0.4]]), r"weights\[0\]: sums to 0\.9; a row sums to 1"),
        ((1, 1, [[0.5, np.nan]]), r"weights\[0\]: holds nan"),
        ((1, 1, [[np.inf, 0.5]]), r"weights\[0\]: sums to inf"),
    ],
)
def test_what_is_not_allowed_is_named(tokenizer: Tokenizer, intervention: Any, message: str) -> None:  # noqa: F811
    with pytest.raises(ValueError, match=message):
        made(tokenizer, "transformer scaled").intervene([Intervention(*intervention)])


def test_a_source_of_another_length_is_named(tokenizer: Tokenizer) -> None:  # noqa: F811
    plain = made(tokenizer, "transformer scaled")
    changed = plain.intervene([Intervention(1, 1, [[0.5, 0.5]])])
    num = len(tokenizer.encode_source([TEXT])[0]) + 1
    message = f"weights have 2 columns, and the source has {num} subwords, </s> included"
    with pytest.raises(ValueError, match=message):
        changed.n_best([TEXT])
    with pytest.raises(ValueError, match=message):
        attention(changed, TEXT, TARGET)
    assert changed.score([(TEXT, TARGET, ())])[0].error == message


@pytest.mark.parametrize("name", MODELS)
def test_a_model_without_attention_and_another_engine_are_named(tokenizer: Tokenizer, name: str) -> None:  # noqa: F811
    config = dataclasses.replace(small(name), attention=AttentionConfig(score="none"))
    none = build_model(config, tokenizer.source_size, tokenizer.target_size, joint=True)
    with pytest.raises(ValueError, match=r"the model has no attention to the source \(model.attention.score=none\)"):
        Translator(none, tokenizer, SearchConfig(), CPU).intervene([Intervention(0, 0, "zero")])

    class Engine:
        name = "ctranslate2"

    plain = made(tokenizer, "rnn luong")
    plain.engine = Engine()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"engine=ctranslate2: only torch can intervene"):
        plain.intervene([Intervention(0, 0, "zero")])
    Engine.name = "auto"
    assert plain.intervene([Intervention(0, 0, "zero")]).engine is None
