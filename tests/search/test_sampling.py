"""Sampling compared with the model's probabilities, seeds, and minimum Bayes risk."""

import dataclasses
import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from nmt.attention import AttentionConfig
from nmt.data import BOS, EOS, PAD, UNK, source_batch
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.search import SearchConfig, decode, expected_utilities, sample, translate_batch

CPU = torch.device("cpu")
VOCAB, LONGEST = 7, 2


def make(seed: int, kind: str = "rnn", vocab: int = VOCAB) -> Seq2Seq:
    torch.manual_seed(seed)
    base = MODELS[kind].config()
    names = {field.name for field in dataclasses.fields(base)}
    sizes = {key: 8 for key in ("d_model", "embedding_dim", "hidden_size", "ffn_dim") if key in names}
    config = dataclasses.replace(base, tie_embeddings="none", attention=AttentionConfig(heads=2, dim=4), **sizes)
    for option in {"encoder_self_attention", "decoder_self_attention"} & names:
        setattr(config, option, AttentionConfig(heads=2))
    model = build_model(config, vocab, vocab, joint=True).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.4)
    return model


def distribution(row: torch.Tensor, config: SearchConfig) -> dict[int, float]:
    """Return the distribution that a token is sampled from, computed in a straightforward way."""
    forbidden = (PAD, BOS, UNK) if config.replace_unknown == "forbid" else (PAD, BOS)
    allowed = [token for token in range(len(row)) if token not in forbidden]
    best = sorted(allowed, key=lambda token: -row[token].item())[: config.top_k or len(allowed)]
    weights = {token: math.exp(row[token].item() / config.temperature) for token in best}
    total, cumulative, kept = sum(weights.values()), 0.0, {}
    for token in best:
        if cumulative < config.top_p:
            kept[token] = weights[token] / total
        cumulative += weights[token] / total
    return {token: weight / sum(kept.values()) for token, weight in kept.items()}


def probabilities(model: Seq2Seq, ids: list[int], config: SearchConfig) -> dict[tuple[int, ...], float]:
    """Return the probability of every translation that can be sampled."""
    source, mask = source_batch([ids])
    finished: dict[tuple[int, ...], float] = {}
    live: dict[tuple[int, ...], float] = {(): 1.0}
    for length in range(LONGEST + 1):
        following: dict[tuple[int, ...], float] = {}
        for tokens, probability in live.items():
            if length == LONGEST:
                finished[tokens] = probability
                continue
            logits, _ = model(source, mask, torch.tensor([[BOS, *tokens]]))
            for token, token_probability in distribution(torch.log_softmax(logits[0, -1], -1), config).items():
                if token == EOS:
                    finished[tokens] = probability * token_probability
                else:
                    following[*tokens, token] = probability * token_probability
        live = following
    return finished


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.7},
        {"temperature": 2.0, "top_k": 4, "top_p": 0.8},
        {"replace_unknown": "forbid", "top_p": 0.9},
    ],
)
def test_frequencies_are_the_models_probabilities(seed: int, changes: dict[str, Any]) -> None:
    """Pearson's chi-square test at one in a million."""
    num = 3000
    model = make(seed, list(MODELS)[seed % 4])
    config = SearchConfig(
        method="sample", n_best=num, max_length_ratio=0.0, max_length_offset=LONGEST, seed=seed, **changes
    )
    config.validate()
    source, mask = source_batch([[4, 5, 6]])
    (decoded,) = translate_batch(model, source, mask, config)
    counts = Counter(tuple(h.tokens) for h in decoded)
    expected = probabilities(model, [4, 5, 6], config)
    assert sum(expected.values()) == pytest.approx(1.0)
    assert set(counts) <= set(expected)
    common = [tokens for tokens, value in expected.items() if num * value >= 5]
    rest = num - sum(counts[tokens] for tokens in common)
    cells = [(counts[tokens], num * expected[tokens]) for tokens in common]
    rare = num * (1 - sum(expected[tokens] for tokens in common))
    cells += [(rest, rare)] if rare > 1 else []
    statistic = sum((count - expectation) ** 2 / expectation for count, expectation in cells)
    freedom = max(len(cells) - 1, 1)
    tail = torch.special.gammaincc(torch.tensor(freedom / 2), torch.tensor(statistic / 2)).item()
    assert tail > 1e-6, (statistic, freedom)
    assert len(cells) > 1


@pytest.mark.parametrize("kind", MODELS)
def test_samples_have_the_models_probability_and_do_not_depend_on_the_batch(kind: str) -> None:
    model = make(1, kind, 20).float()
    rng = random.Random(2)
    sources = [[rng.randrange(4, 20) for _ in range(length)] for length in [5, 1, 9, 3, 7, 7, 2, 0, 12, 4]]
    config = SearchConfig(method="sample", n_best=3, max_length_ratio=1.0, top_p=0.9)
    results = []
    for size in (1, 4, 64):
        order = list(range(len(sources)))
        rng.shuffle(order)
        chosen = dataclasses.replace(config, batch_size=size)
        decoded = dict(decode(model, [sources[i] for i in order], chosen, CPU))
        results.append({order[i]: [(h.tokens, h.log_prob) for h in hypotheses] for i, hypotheses in decoded.items()})
    assert results[0] == results[1] == results[2]
    reseeded = dict(decode(model, sources, dataclasses.replace(config, seed=2), CPU))
    assert any([h.tokens for h in reseeded[i]] != [tokens for tokens, _ in results[0][i]] for i in reseeded)
    for i, samples in results[0].items():
        source, mask = source_batch([sources[i]])
        for tokens, log_prob in samples:
            logits, _ = model(source, mask, torch.tensor([[BOS, *tokens]]))
            rows = torch.log_softmax(logits[0], -1)
            forced = rows[torch.arange(len(tokens) + 1), torch.tensor([*tokens, EOS])].sum().item()
            assert log_prob == pytest.approx(forced, abs=1e-4)


@pytest.mark.parametrize("seed", range(10))
@torch.no_grad()
def test_a_sample_does_not_depend_on_how_many_others_there_are(seed: int) -> None:
    model = make(seed, list(MODELS)[seed % 4], 20)
    source, mask = source_batch([[4, 9, 6], [8]])
    few = SearchConfig(method="sample", n_best=1, max_length_ratio=0.0, max_length_offset=3, seed=seed)
    decoded = [[h.tokens for h in samples] for samples in sample(model, source, mask, few)]
    for changes in ({"n_best": 3}, {"method": "mbr", "mbr_samples": 40}, {"n_best": 2, "max_length_offset": 9}):
        longer = sample(model, source, mask, dataclasses.replace(few, **changes))
        assert [[h.tokens[:3] for h in samples[:1]] for samples in longer] == decoded
    many = sample(model, source, mask, dataclasses.replace(few, n_best=40))
    assert all(len({tuple(h.tokens) for h in samples}) > 5 for samples in many)


def test_samples_at_low_temperature_are_greedy_and_prefixes_appear() -> None:
    for seed in range(10):
        model = make(seed, vocab=20)
        source, mask = source_batch([[4, 9, 6], [8]])
        limits = {"max_length_ratio": 1.0, "max_length_offset": 3}
        cold = translate_batch(model, source, mask, SearchConfig(method="sample", temperature=1e-7, n_best=2, **limits))
        greedy = translate_batch(model, source, mask, SearchConfig(beam_size=1, **limits))
        for samples, (best,) in zip(cold, greedy, strict=True):
            assert [h.tokens for h in samples] == [best.tokens] * 2
        config = SearchConfig(method="sample", n_best=4, **limits)
        for decoded in translate_batch(model, source, mask, config, prefixes=[[7, 7], [5, 6]]):
            assert {tuple(h.tokens[:2]) for h in decoded} in ({(7, 7)}, {(5, 6)})


@pytest.mark.parametrize("utility", ["chrf", "bleu"])
def test_expected_utilities_are_those_of_sacrebleu(utility: str) -> None:
    import sacrebleu

    samples = ["a dog runs", "a dog ran", "a dog runs", "two cats", ""]
    score = {
        "chrf": lambda h, r: sacrebleu.sentence_chrf(h, [r]).score,
        "bleu": lambda h, r: sacrebleu.sentence_bleu(h, [r]).score,
    }[utility]
    utilities = expected_utilities(samples, utility)
    expected = [np.mean([score(h, r) for r in samples]) for h in samples]
    np.testing.assert_allclose(utilities, expected)
    assert utilities.argmax() in (0, 2)
