"""Beam search compared with exhaustive search, a plain beam search, forced decoding, and itself in other batches."""

import dataclasses
import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nmt.attention import SCORES, AttentionConfig
from nmt.data import BOS, EOS, PAD, UNK, source_batch
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.models.rnn_decoder import DECODERS
from nmt.search import (
    BeamSearch,
    Ensemble,
    Hypothesis,
    SearchConfig,
    decode,
    decoder_state,
    make_decode_batches,
    translate_batch,
)
from nmt.search.beam_search import _assign_slots, _blocked_topk
from nmt.search.decoder_state import DecoderRows

CPU = torch.device("cpu")
KINDS = list(itertools.product(MODELS, [*SCORES, ["additive", "cosine"], "none"]))
SIZES = {"d_model": 8, "embedding_dim": 8, "hidden_size": 8, "ffn_dim": 12}
SEEDS = range(12)
SOURCES = [[4, 5, 4], [5], [4, 4, 5, 5, 4], []]

Scored = list[tuple[float, float, list[int]]]  # score, log p, tokens


def make(
    seed: int, vocab: int, kind: str = "rnn", score: Any = "additive", *, sharpness: float = 6.0, **changes: Any
) -> Seq2Seq:
    """Return a model in fp64 that is far from uniform: beams of an untrained one hardly ever cross."""
    torch.manual_seed(seed)
    base = MODELS[kind].config()
    names = {field.name for field in dataclasses.fields(base)}
    sizes = {key: value for key, value in SIZES.items() if key in names}
    for option in {"encoder_self_attention", "decoder_self_attention"} & names:
        changes.setdefault(option, AttentionConfig(heads=2))
    changes.setdefault("attention", AttentionConfig(score=score, heads=2, dim=4))
    config = dataclasses.replace(base, tie_embeddings="none", **{**sizes, **changes})
    model = build_model(config, vocab, vocab, joint=True).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(sharpness**0.5)
        model.output.weight.mul_(2.0)
        model.output.bias.normal_()
    return model


def next_log_probs(model: Seq2Seq, source: Tensor, mask: Tensor, prefixes: Sequence[Sequence[int]]) -> Tensor:
    """Return log-probabilities (N, V) of the token after each of N prefixes of one length, by teacher forcing."""
    inputs = torch.tensor([[BOS, *prefix] for prefix in prefixes])
    num = len(prefixes)
    logits, _ = model(source.expand(num, -1), mask.expand(num, -1), inputs)
    return torch.log_softmax(logits[:, -1], -1)


def log_prob(model: Seq2Seq, ids: Sequence[int], tokens: Sequence[int]) -> float:
    """Return the log-probability of tokens + EOS by teacher forcing."""
    source, mask = source_batch([ids])
    logits, _ = model(source, mask, torch.tensor([[BOS, *tokens]]))
    rows = torch.log_softmax(logits[0], -1)
    return rows[torch.arange(len(tokens) + 1), torch.tensor([*tokens, EOS])].sum().item()


def norm(config: SearchConfig, length: int) -> float:
    base = length if config.length_normalization == "power" else (5 + length) / 6
    return float(base**config.length_penalty)


def limits(config: SearchConfig, length: int) -> tuple[int, int]:
    """Return the minimum and maximum number of tokens of a translation."""
    max_length = math.ceil(config.max_length_ratio * length) + config.max_length_offset
    return min(math.ceil(config.min_length_ratio * length) + config.min_length_offset, max_length), max_length


def forbidden(config: SearchConfig) -> tuple[int, ...]:
    return (PAD, BOS, UNK) if config.replace_unknown == "forbid" else (PAD, BOS)


def plain_beam(model: Seq2Seq, ids: Sequence[int], config: SearchConfig) -> Scored:
    """Return the results of a straightforward beam search, best first; with beam_size=1 it is greedy search."""
    source, mask = source_batch([ids])
    min_length, max_length = limits(config, len(ids))
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: Scored = []
    ended = 0
    for length in range(max_length + 1):
        rows = next_log_probs(model, source, mask, [tokens for _, tokens in live])
        candidates = []
        for (total, tokens), row in zip(live, rows.tolist(), strict=True):
            for token, value in enumerate(row):
                if (
                    token in forbidden(config)
                    or (token == EOS and length < min_length)
                    or (token != EOS and length == max_length)
                ):
                    continue
                candidates.append((total + value, tokens, token))
        candidates.sort(key=lambda entry: -entry[0])
        candidates = candidates[: 2 * config.beam_size if config.beam_size > 1 else 1]
        finished += [(t / norm(config, length + 1), t, tokens) for t, tokens, token in candidates if token == EOS]
        live = [(t, [*tokens, token]) for t, tokens, token in candidates if token != EOS][: config.beam_size]
        if config.early_stopping != "never":
            ended += sum(token == EOS for _, _, token in candidates[: config.beam_size])
            best = sorted((score for score, _, _ in finished), reverse=True)[: config.n_best]
            threshold = best[-1] if len(best) == config.n_best else -math.inf
            longest = max_length + 1
            if config.early_stopping == "lookahead":  # the tokens that are left: these, one more, those ahead
                longest = min(longest, len([*live[0][1], EOS]) + config.lookahead) if live else longest
            live = [(t, tokens) for t, tokens in live if t / norm(config, longest) > threshold]
            live = live if ended < config.beam_size or config.early_stopping == "lookahead" else []
        if not live:
            break
    return sorted(finished, key=lambda entry: -entry[0])[: config.n_best]


def all_translations(model: Seq2Seq, ids: Sequence[int], vocab: int, config: SearchConfig) -> Scored:
    """Return all translations that the limits allow, best first."""
    min_length, max_length = limits(config, len(ids))
    allowed = [token for token in range(vocab) if token not in (*forbidden(config), EOS)]
    translations = []
    for length in range(min_length, max_length + 1):
        for tokens in itertools.product(allowed, repeat=length):
            value = log_prob(model, ids, tokens)
            translations.append((value / norm(config, length + 1), value, list(tokens)))
    return sorted(translations, key=lambda entry: -entry[0])


CONFIGS = [
    SearchConfig(beam_size=2, n_best=2, length_penalty=0.0, max_length_ratio=0.0, max_length_offset=5),
    SearchConfig(beam_size=3, n_best=1, length_penalty=1.0, max_length_ratio=1.0, max_length_offset=3),
    SearchConfig(
        beam_size=3,
        n_best=3,
        length_penalty=0.8,
        length_normalization="gnmt",
        max_length_ratio=0.0,
        max_length_offset=6,
    ),
    SearchConfig(
        beam_size=4,
        n_best=2,
        length_penalty=2.0,
        max_length_ratio=0.0,
        max_length_offset=6,
        min_length_ratio=0.5,
        min_length_offset=1,
    ),
    SearchConfig(beam_size=1, max_length_ratio=1.0, max_length_offset=3),
    SearchConfig(beam_size=3, n_best=2, early_stopping="beam", max_length_ratio=1.0, max_length_offset=6),
    SearchConfig(beam_size=3, n_best=2, early_stopping="lookahead", lookahead=0, max_length_offset=6),
    SearchConfig(beam_size=4, early_stopping="lookahead", lookahead=1, max_length_ratio=1.0, max_length_offset=6),
    SearchConfig(beam_size=3, n_best=3, replace_unknown="forbid", max_length_ratio=1.0, max_length_offset=4),
]


def check_plain(seed: int, kind: str, score: Any, config: SearchConfig) -> None:
    """Check that batching, caches, shared memory and pruning give the results of the plain search."""
    model = make(seed, 9, kind, score)
    source, mask = source_batch(SOURCES)
    for ids, decoded in zip(SOURCES, translate_batch(model, source, mask, config), strict=True):
        expected = plain_beam(model, ids, config)
        assert [h.tokens for h in decoded] == [tokens for _, _, tokens in expected]
        np.testing.assert_allclose([h.score for h in decoded], [value for value, _, _ in expected], atol=1e-9)
        for h in decoded:
            assert h.log_prob == pytest.approx(log_prob(model, ids, h.tokens), abs=1e-9)


def check_wide(seed: int, kind: str, score: Any, config: SearchConfig) -> None:
    """Check that a beam that holds all hypotheses finds the best of all."""
    model, vocab = make(seed, 6, kind, score), 6
    limits = {"max_length_ratio": 0.0, "max_length_offset": 2, "min_length_ratio": 0.0, "min_length_offset": 0}
    config = dataclasses.replace(config, beam_size=16, n_best=8, early_stopping="never", **limits)
    source, mask = source_batch(SOURCES[:2])
    for ids, decoded in zip(SOURCES[:2], translate_batch(model, source, mask, config), strict=True):
        expected = all_translations(model, ids, vocab, config)[:8]
        assert [h.tokens for h in decoded] == [tokens for _, _, tokens in expected]
        np.testing.assert_allclose([h.score for h in decoded], [value for value, _, _ in expected], atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@torch.no_grad()
def test_the_best_hypothesis_of_each_text(seed: int) -> None:
    """Of hypotheses with one text the best is kept, and others take the places; a text is a length here."""
    model, vocab = make(seed, 6), 6
    config = SearchConfig(beam_size=16, n_best=3, max_length_ratio=0.0, max_length_offset=3)
    source, mask = source_batch(SOURCES)
    for ids, decoded in zip(SOURCES, translate_batch(model, source, mask, config, text=len), strict=True):
        best: dict[int, list[int]] = {}
        for _, _, tokens in all_translations(model, ids, vocab, config):
            best.setdefault(len(tokens), tokens)
        assert [h.tokens for h in decoded] == list(best.values())[:3]
        assert len(decoded) == 3


def check_twice(seed: int, kind: str, score: Any, config: SearchConfig) -> None:
    """Check that an ensemble of one model twice is that model."""
    model = make(seed, 9, kind, score)
    source, mask = source_batch(SOURCES)
    once, twice = (translate_batch(m, source, mask, config) for m in (model, Ensemble([model, model])))
    assert [[h.tokens for h in decoded] for decoded in once] == [[h.tokens for h in decoded] for decoded in twice]
    for expected, decoded in zip(once, twice, strict=True):
        np.testing.assert_allclose([h.score for h in decoded], [h.score for h in expected], atol=1e-9)


def check_prefix(seed: int, kind: str, score: Any, config: SearchConfig) -> None:
    """Check that a forced prefix appears and that its probability counts."""
    model = make(seed, 9, kind, score)
    source, mask = source_batch(SOURCES)
    prefixes = [[7, 1], [], [4, 6, 8, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5], [8]]
    decoded = translate_batch(model, source, mask, config, prefixes=prefixes)
    free = translate_batch(model, source, mask, config)
    assert [h.tokens for h in decoded[1]] == [h.tokens for h in free[1]]
    for ids, prefix, hypotheses in zip(SOURCES, prefixes, decoded, strict=True):
        assert hypotheses
        for h in hypotheses:
            assert h.tokens[: len(prefix)] == prefix
            assert h.log_prob == pytest.approx(log_prob(model, ids, h.tokens), abs=1e-9)


CHECKS = [check_plain, check_wide, check_twice, check_prefix]


@pytest.mark.parametrize(("kind", "score"), KINDS)
def test_every_model(kind: str, score: Any) -> None:
    number = KINDS.index((kind, score))
    for offset, check in enumerate(CHECKS):
        check(number, kind, score, CONFIGS[(number + offset) % len(CONFIGS)])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "score"), KINDS)
@pytest.mark.parametrize("check", CHECKS)
def test_every_model_with_many_seeds(check: Any, kind: str, score: Any) -> None:
    for seed in range(100, 110):
        check(seed, kind, score, CONFIGS[seed % len(CONFIGS)])


@pytest.mark.parametrize("kind", MODELS)
def test_long_translations(kind: str) -> None:
    """Translations longer than the initial cache."""
    config = SearchConfig(beam_size=2, max_length_ratio=0.0, max_length_offset=45)
    for seed in range(2):
        model = make(seed, 9, kind, "scaled")
        model.output.bias.data[EOS] = -1e4
        source, mask = source_batch(SOURCES[:2])
        for ids, decoded in zip(SOURCES, translate_batch(model, source, mask, config), strict=False):
            assert [h.tokens for h in decoded] == [tokens for _, _, tokens in plain_beam(model, ids, config)]
            assert len(decoded[0].tokens) == 45


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("config", CONFIGS)
def test_results_are_those_of_the_plain_search(seed: int, config: SearchConfig) -> None:
    kind, score = KINDS[seed * 3 % len(KINDS)]
    check_plain(seed, kind, score, config)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *(("rnn", {"decoder": decoder, "cell": cell}) for decoder in DECODERS for cell in ("gru", "lstm")),
        ("transformer", {"positions": "rotary", "norm_position": "post"}),
        (
            "transformer",
            {
                "positions": "learned",
                "decoder_self_attention": AttentionConfig(heads=2, window="sliding", window_size=1),
            },
        ),
        ("transformer", {"attention": AttentionConfig(score="additive", heads=2, coverage=True)}),
        ("rnn", {"attention": AttentionConfig(score="hybrid", heads=2, dim=4, coverage=True, normalizer="sparsemax")}),
        ("transformer", {"attention": AttentionConfig(score="dot", heads=2, window="local_m", window_size=1)}),
        ("rnn", {"attention": AttentionConfig(score="dot", heads=2, dim=4, window="local_m", window_size=1)}),
        ("rnn_transformer", {"attention": AttentionConfig(heads=2, window="local_p", window_size=1)}),
    ],
)
def test_decoders_windows_and_coverage(kind: str, changes: dict[str, Any]) -> None:
    """Memory is shared by the hypotheses of a sentence, with any kind of attention."""
    for seed in range(4):
        torch.manual_seed(seed)
        model = make(seed, 9, kind, **changes)
        source, mask = source_batch(SOURCES)
        config = CONFIGS[seed % len(CONFIGS)]
        for ids, decoded in zip(SOURCES, translate_batch(model, source, mask, config), strict=True):
            assert [h.tokens for h in decoded] == [tokens for _, _, tokens in plain_beam(model, ids, config)]


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_weights_are_those_of_forced_decoding(seed: int) -> None:
    kind, score = [case for case in KINDS if case[1] != "none"][seed * 5 % 32]
    model = make(seed, 15, kind, score)
    source, mask = source_batch(SOURCES)
    config = SearchConfig(beam_size=4, n_best=3, length_penalty=0.7, max_length_ratio=1.0, max_length_offset=4)
    for ids, hypotheses in zip(SOURCES, translate_batch(model, source, mask, config, attention=True), strict=True):
        alone, alone_mask = source_batch([ids])
        assert len(hypotheses) == 3
        for hypothesis in hypotheses:
            _, weights = model(alone, alone_mask, torch.tensor([[BOS, *hypothesis.tokens]]), attention=True)
            assert hypothesis.weights is not None
            torch.testing.assert_close(hypothesis.weights[..., : len(ids) + 1], weights.cross[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_coverage_penalty(seed: int) -> None:
    """The option adds β Σ log min(Σ a, 1) of the weights of forced decoding."""
    model = make(seed, 9, "transformer", "scaled")
    source, mask = source_batch(SOURCES)
    config = SearchConfig(beam_size=16, n_best=16, max_length_ratio=0.0, max_length_offset=3, coverage_penalty=0.4)
    for ids, decoded in zip(SOURCES, translate_batch(model, source, mask, config), strict=True):
        alone, alone_mask = source_batch([ids])
        for h in decoded:
            _, weights = model(alone, alone_mask, torch.tensor([[BOS, *h.tokens]]), attention=True)
            coverage = weights.cross[0].mean((0, 1)).sum(0).clamp(max=1.0)
            forced = log_prob(model, ids, h.tokens) / (len(h.tokens) + 1) + 0.4 * coverage.log().sum().item()
            assert h.score == pytest.approx(forced, abs=1e-9)
        assert [h.score for h in decoded] == sorted((h.score for h in decoded), reverse=True)
    with pytest.raises(ValueError, match=r"search.coverage_penalty=0.4: the model has no attention"):
        translate_batch(make(seed, 9, "rnn", "none"), source, mask, config)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_ngram_occurs_twice(seed: int) -> None:
    model = make(seed, 7, sharpness=12.0)
    source, mask = source_batch(SOURCES)
    limits = {"max_length_ratio": 0.0, "max_length_offset": 14, "min_length_offset": 12, "beam_size": 3, "n_best": 3}
    repeated = 0
    for size in (1, 2, 3):
        free = translate_batch(model, source, mask, SearchConfig(**limits))
        for h in (
            h
            for decoded in translate_batch(model, source, mask, SearchConfig(**limits, no_repeat_ngram_size=size))
            for h in decoded
        ):
            grams = [tuple(h.tokens[i : i + size]) for i in range(len(h.tokens) - size + 1)]
            assert len(grams) == len(set(grams))
        for h in (h for decoded in free for h in decoded):
            grams = [tuple(h.tokens[i : i + size]) for i in range(len(h.tokens) - size + 1)]
            repeated += len(grams) > len(set(grams))
    assert repeated, "without the option some n-gram occurs twice"


def test_a_hypothesis_ends_where_no_other_ngram_is_left() -> None:
    model = make(0, 6)  # three tokens besides PAD, BOS and EOS
    source, mask = source_batch([[4]])
    config = SearchConfig(beam_size=3, no_repeat_ngram_size=1, min_length_offset=9, max_length_offset=12)
    (decoded,) = translate_batch(model, source, mask, config)
    assert decoded
    assert len(decoded[0].tokens) <= 3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("early_stopping", ["never", "lookahead", "beam"])
def test_diverse_groups(early_stopping: str, seed: int) -> None:
    model = make(seed, 9, sharpness=3.0)
    source, mask = source_batch([[4, 7, 6], [8]])
    base = SearchConfig(
        beam_size=6,
        n_best=2,
        early_stopping=early_stopping,
        length_penalty=2.0,
        min_length_offset=1,
        max_length_ratio=1.0,
        max_length_offset=12,
    )
    single = translate_batch(model, source, mask, dataclasses.replace(base, beam_size=2))
    groups = translate_batch(model, source, mask, dataclasses.replace(base, diverse_groups=3, diversity_penalty=0.0))
    # without a penalty every group is the beam of its own size
    assert [[h.tokens for h in decoded] for decoded in groups] == [[h.tokens for h in decoded] for decoded in single]

    def num_first_tokens(diversity: float) -> int:
        decoded = translate_batch(
            model, source, mask, dataclasses.replace(base, diverse_groups=6, n_best=6, diversity_penalty=diversity)
        )
        assert all(len({tuple(h.tokens) for h in hypotheses}) == len(hypotheses) for hypotheses in decoded)
        return sum(len({tuple(h.tokens[:1]) for h in hypotheses}) for hypotheses in decoded)

    assert num_first_tokens(100.0) > num_first_tokens(0.0)


@pytest.mark.parametrize(
    ("finished", "lists"),
    [
        # two of three groups agree on the best, in different ranks
        (["aj", "ca", "b"], ["a", "ab", "abc", "abcj"]),
        (["ae", "ad", "bf"], ["a", "ab", "abd", "abde", "abdef"]),
        (["c", "b", "a"], ["a", "ab", "abc", "abc"]),
        # the best of every group comes before a better one that is second in its group
        (["abc", "de", "f"], ["a", "ad", "adf", "abdf", "abdef", "abcdef"]),
    ],
)
def test_n_best_lists_of_groups(finished: list[str], lists: list[str]) -> None:
    source, mask = source_batch([[4]])
    for n_best, expected in enumerate(lists, 1):
        config = SearchConfig(beam_size=6, diverse_groups=3, n_best=n_best)
        beam = BeamSearch(make(0, 9), source, mask, config)
        beam.finished = [[Hypothesis([ord(name)], -float(ord(name)), 0.0) for name in names] for names in finished]
        (decoded,) = beam.results()
        assert "".join(chr(h.tokens[0]) for h in decoded) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("early_stopping", ["never", "lookahead", "beam"])
@pytest.mark.parametrize(("groups", "diversity", "sharpness"), [(3, 0.5, 3.0), (6, 2.0, 9.0)])
@torch.no_grad()
def test_n_best_lists_of_groups_only_get_longer(
    groups: int, diversity: float, sharpness: float, early_stopping: str, seed: int
) -> None:
    model = make(seed, 12, sharpness=sharpness)
    source, mask = source_batch([[4, 7, 6], [8], [9, 10, 4, 5]])
    base = SearchConfig(
        beam_size=6,
        diverse_groups=groups,
        diversity_penalty=diversity,
        early_stopping=early_stopping,
        max_length_ratio=1.0,
        max_length_offset=8,
    )
    lists = []  # by number of hypotheses, then by sentence
    for n_best in range(1, 7):
        beam = BeamSearch(model, source, mask, dataclasses.replace(base, n_best=n_best))
        while not beam.done:
            beam.step()
        lists.append(beam.results())
        for row, hypotheses in enumerate(lists[-1]):
            scores = [hypothesis.score for hypothesis in hypotheses]
            assert scores == sorted(scores, reverse=True)
            tops = [finished[0] for finished in beam.finished[groups * row : groups * (row + 1)]]
            assert hypotheses[0].tokens in [top.tokens for top in tops]
            assert hypotheses[0].score == pytest.approx(max(top.score for top in tops), abs=1e-9)
            if n_best >= groups:
                _assert_contains(hypotheses, tops)
    for n_best, (shorter, longer) in enumerate(itertools.pairwise(lists), 1):
        for few, many, longest in zip(shorter, longer, lists[-1], strict=True):
            assert len(few) == min(n_best, len(longest))
            assert few[0].tokens == many[0].tokens
            _assert_contains(many, few)


def _assert_contains(hypotheses: Sequence[Hypothesis], subset: Sequence[Hypothesis]) -> None:
    """Check that `hypotheses` contain `subset`, with the same scores but for the rounding of another row."""
    scores = {tuple(hypothesis.tokens): hypothesis.score for hypothesis in hypotheses}
    for hypothesis in subset:
        assert scores[tuple(hypothesis.tokens)] == pytest.approx(hypothesis.score, abs=1e-9)


def test_dead_hypotheses_do_not_penalize_later_groups() -> None:
    source, mask = source_batch([[4]])
    chosen = {}
    for diversity in (0.0, 5.0):
        config = SearchConfig(beam_size=6, diverse_groups=3, diversity_penalty=diversity)
        beam = BeamSearch(make(0, 12), source, mask, config)
        beam.log_probs[::3] = -np.inf  # the first groups are finished
        num, width = len(beam.rows.tokens), 8
        rng = np.random.default_rng(0)
        values = -np.sort(rng.random((num, width)))
        tokens = np.stack([rng.permutation(np.arange(4, 12)) for _ in range(num)])
        candidates = beam._select_candidates(values, tokens)
        chosen[diversity] = candidates.tokens.reshape(-1, 3, 4)
    np.testing.assert_array_equal(chosen[0.0][:, 1], chosen[5.0][:, 1])
    assert (chosen[0.0][:, 2] != chosen[5.0][:, 2]).any(), "the tokens of the second group are penalized"


@pytest.mark.parametrize("seed", SEEDS)
def test_beam_size_1_is_greedy_search(seed: int) -> None:
    model = make(seed, 12)
    source, mask = source_batch([[4, 9, 6], [8]])
    config = SearchConfig(beam_size=1, max_length_ratio=1.0, max_length_offset=3)
    for row, (hypothesis,) in enumerate(translate_batch(model, source, mask, config)):
        memory = model.encode(source[row : row + 1], mask[row : row + 1])
        state, token, tokens = model.init_state(memory), torch.tensor([BOS]), []
        limit = int(mask[row].sum()) - 1 + 3
        while len(tokens) < limit:
            logits, _, state = model.step(token, state, memory)
            logits[:, [PAD, BOS]] = -math.inf
            token = logits.argmax(-1)
            if token.item() == EOS:
                break
            tokens.append(int(token))
        assert hypothesis.tokens == tokens


@pytest.mark.parametrize("case", range(0, len(KINDS), 5))
def test_results_do_not_depend_on_batches(case: int) -> None:
    """In fp32, results are the same bit for bit in any batch and order."""
    model = make(case, 20, *KINDS[case]).float()
    rng = random.Random(case)
    sources = [[rng.randrange(4, 20) for _ in range(length)] for length in [5, 1, 9, 3, 7, 7, 2, 0, 12, 17]]
    config = SearchConfig(beam_size=3, n_best=2, max_length_ratio=0.5, max_length_offset=3)
    results = []
    for changes in ({"batch_size": 1}, {"batch_size": 4}, {}, {"batch_tokens": 16}, {"batch_tokens": 0}):
        order = list(range(len(sources)))
        rng.shuffle(order)
        chosen = dataclasses.replace(config, **changes)
        decoded = dict(decode(model, [sources[i] for i in order], chosen, CPU))
        results.append({order[i]: [(h.tokens, h.score) for h in hypotheses] for i, hypotheses in decoded.items()})
    assert all(result == results[0] for result in results)


def test_batches_keep_their_limits() -> None:
    rng = random.Random(0)
    lengths = [rng.randrange(60) for _ in range(500)] + [9000]
    for config in (
        SearchConfig(batch_size=7),
        SearchConfig(batch_tokens=300),
        SearchConfig(method="mbr", mbr_samples=80),
    ):
        batches = list(make_decode_batches(lengths, config))
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            padded = {-(-(lengths[i] + 1) // 4) for i in batch}
            assert len(padded) == 1
            assert len(batch) <= config.batch_size
            assert len(batch) == 1 or len(batch) * 4 * padded.pop() <= config.batch_tokens
            assert config.method == "beam" or len(batch) * config.mbr_samples <= config.batch_size * config.beam_size
        longest = [max(lengths[i] for i in batch) // 4 for batch in batches]
        assert longest == sorted(longest, reverse=True)


def test_the_batch_is_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of finished sentences are removed, and memory has one row per sentence."""
    model = make(3, 12)
    seen = []
    step = DecoderRows.step

    def recording_step(rows: DecoderRows) -> Any:
        seen.append((len(rows.tokens), {tensor.size(0) for tensor in rows.memory.values()}))
        return step(rows)

    monkeypatch.setattr(DecoderRows, "step", recording_step)
    rng = random.Random(0)
    sources = [[rng.randrange(4, 12) for _ in range(1 + i % 30)] for i in range(60)]
    source, mask = source_batch(sources)
    translate_batch(model, source, mask, SearchConfig(beam_size=3, max_length_ratio=1.0, max_length_offset=0))
    assert seen[0] == (180, {60})
    sizes = [rows for rows, _ in seen]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 60
    assert all(memory == {rows // 3} for rows, memory in seen)


@pytest.mark.parametrize("size", [9, 2048, 6000, 7919, 8000])
def test_blocked_topk(size: int) -> None:
    rows = torch.randn(50, size)
    rows[::3, ::2] = -math.inf
    rows[1, 1:] = -math.inf  # fewer tokens are allowed than requested
    for num in (1, 2, 9):
        values, ids = _blocked_topk(rows, num)
        torch.testing.assert_close(values, rows.topk(num).values, rtol=0, atol=0)
        torch.testing.assert_close(rows.gather(1, ids), values, rtol=0, atol=0)
        assert all(len(set(row)) == num for row in ids.tolist())


def test_slots_are_a_permutation_and_copied_slots_are_not_overwritten() -> None:
    rng = np.random.default_rng(0)
    parents, live = rng.integers(0, 5, (500, 5)), rng.random((500, 5)) < 0.8
    slots, copied = _assign_slots(parents, live)
    assert (np.sort(slots, 1) == np.arange(5)).all()
    for group in range(500):
        targets = {int(slots[group, i]) for i in range(5) if copied[group, i]}
        sources = {int(parents[group, i]) for i in range(5) if copied[group, i]}
        assert not targets & sources
        for i in range(5):
            assert not live[group, i] or copied[group, i] or slots[group, i] == parents[group, i]
        assert live[group].sum() - copied[group].sum() == len(set(parents[group][live[group]].tolist()))


def test_length_limits() -> None:
    model = make(0, 10)
    model.output.bias.data[EOS] = -1e4  # hypotheses never end by themselves
    source, mask = source_batch([[4, 5, 6], [4]])
    for beam in (1, 3):
        config = SearchConfig(beam_size=beam, max_length_ratio=1.5, max_length_offset=2)
        decoded = [h[0] for h in translate_batch(model, source, mask, config)]
        assert [len(h.tokens) for h in decoded] == [7, 4]
        assert all(h.truncated for h in decoded)
    model.output.bias.data[EOS] = 1e4  # hypotheses end at once
    assert not any(h[0].truncated for h in translate_batch(model, source, mask, config))
    with_minimum = dataclasses.replace(config, min_length_ratio=1.0, min_length_offset=1)
    assert [len(h[0].tokens) for h in translate_batch(model, source, mask, with_minimum)] == [4, 2]


def test_learned_positions_limit_the_length() -> None:
    model = make(0, 10, "transformer", "scaled", positions="learned", max_positions=6)
    model.output.bias.data[EOS] = -1e4
    source, mask = source_batch([[4, 5, 6]])
    (decoded,) = translate_batch(model, source, mask, SearchConfig(beam_size=2, max_length_ratio=3.0))
    assert (len(decoded[0].tokens), decoded[0].truncated) == (5, True)


def test_length_penalty_prefers_longer() -> None:
    for name in ("power", "gnmt"):
        lengths = []
        for penalty in (0.0, 0.7, 1.0, 3.0):
            total = 0
            for seed in range(6):
                source, mask = source_batch([[4, 9, 6, 7]])
                config = SearchConfig(
                    beam_size=20,
                    length_penalty=penalty,
                    length_normalization=name,
                    max_length_ratio=0.0,
                    max_length_offset=6,
                )
                model = make(seed, 10, sharpness=3.0)
                model.output.bias.data.zero_()
                model.output.weight.data.mul_(0.25)
                total += len(translate_batch(model, source, mask, config)[0][0].tokens)
            lengths.append(total)
        assert lengths == sorted(lengths)
        assert lengths[0] < lengths[-1]


def test_ensembles_of_different_architectures_average_probabilities() -> None:
    members = [make(seed, 9, kind, score) for seed, (kind, score) in enumerate(KINDS[::7])]
    ensemble = Ensemble(members)
    source, mask = source_batch(SOURCES)
    config = SearchConfig(beam_size=3, max_length_ratio=1.0, max_length_offset=3)
    inputs = torch.randint(4, 9, (len(SOURCES), 5))
    inputs[:, 0] = BOS
    logits, weights = ensemble(source, mask, inputs, attention=True)
    mean = torch.stack([torch.softmax(member(source, mask, inputs)[0], -1) for member in members]).mean(0)
    torch.testing.assert_close(torch.softmax(logits, -1), mean)
    torch.testing.assert_close(weights.cross.sum(-1), torch.ones_like(weights.cross.sum(-1)))
    for ids, decoded in zip(SOURCES, translate_batch(ensemble, source, mask, config), strict=True):
        assert decoded[0].tokens == plain_beam(ensemble, ids, config)[0][2]


@pytest.mark.parametrize("token", [PAD, BOS, EOS, -3])
def test_prefixes_with_special_tokens_are_errors(token: int) -> None:
    source, mask = source_batch([[4]])
    with pytest.raises(ValueError, match=f"a prefix holds the id {token}"):
        translate_batch(make(0, 9), source, mask, SearchConfig(), prefixes=[[token]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_size": 0}, "search.beam_size=0: must be at least 1"),
        ({"n_best": 6}, "search.n_best=6: cannot be more than search.beam_size=5"),
        ({"length_penalty": -1.0}, "search.length_penalty=-1.0: must be at least 0 and below inf"),
        ({"max_length_ratio": math.inf}, "search.max_length_ratio=inf: must be at least 0 and below inf"),
        ({"method": "beams"}, "search.method=beams: must be one of beam, sample, mbr"),
        ({"length_normalization": "mean"}, "search.length_normalization=mean: must be one of power, gnmt"),
        ({"mbr_utility": "ter"}, "search.mbr_utility=ter: must be one of chrf, bleu"),
        ({"early_stopping": "first"}, "search.early_stopping=first: must be one of never, lookahead, beam"),
        ({"diverse_groups": 2}, "search.diverse_groups=2: search.beam_size=5 is no multiple of it"),
        ({"temperature": 0.0}, "search.temperature=0.0: must be above 0"),
        ({"top_p": 0.0}, "search.top_p=0.0: must be above 0 and at most 1"),
        ({"min_length_ratio": 3.0}, "search.min_length_ratio=3.0, search.min_length_offset=0: cannot be more than"),
        ({"method": "mbr", "n_best": 33}, "search.n_best=33: cannot be more than search.mbr_samples=32"),
        ({"batch_tokens": -1}, "search.batch_tokens=-1: must be at least 0"),
        ({"no_repeat_ngram_size": -1}, "search.no_repeat_ngram_size=-1: must be at least 0"),
        ({"coverage_penalty": -0.1}, "search.coverage_penalty=-0.1: must be at least 0 and below inf"),
    ],
)
def test_invalid_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SearchConfig(), **changes).validate()


@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        (kind, AttentionConfig(heads=2, dim=4, window=window, window_size=1))
        for kind, window in itertools.product(("rnn", "transformer", "rnn_transformer"), ("local_m", "local_p"))
    ],
)
def test_attention_weights_through_a_window_are_those_of_forced_decoding(kind: str, attention: AttentionConfig) -> None:
    """Sources are long enough for the attention that computes the window only, which has no weights to give."""
    ids = [4, 5, 6, 7, 8, 9, 4, 5, 6, 7, 8]
    model = make(0, 15, kind, attention=attention)
    source, mask = source_batch([ids, ids[:3]])
    config = SearchConfig(beam_size=4, n_best=3, length_penalty=0.7, max_length_ratio=1.0)
    found = translate_batch(model, source, mask, config, attention=True)
    plain = translate_batch(model, source, mask, config)
    for sentence, hypotheses, others in zip((ids, ids[:3]), found, plain, strict=True):
        alone, alone_mask = source_batch([sentence])
        assert [h.tokens for h in hypotheses] == [h.tokens for h in others]
        for hypothesis in hypotheses:
            _, weights = model(alone, alone_mask, torch.tensor([[BOS, *hypothesis.tokens]]), attention=True)
            assert hypothesis.weights is not None
            torch.testing.assert_close(hypothesis.weights[..., : len(sentence) + 1], weights.cross[0])
            assert int((hypothesis.weights > 0).sum(-1).max()) <= 3


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_compacting_keeps_coverage_and_weights_with_their_sentences(
    seed: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentences that are done leave the batch early; those that stay are scored as if nothing had happened."""
    model = make(seed, 9, "transformer", "scaled")
    sources = [[4, 5, 4, 5], [5], [4, 4, 5, 5, 4, 5, 4, 4], [], [5, 5, 4, 4, 5, 4]] * 3
    source, mask = source_batch(sources)
    config = SearchConfig(beam_size=3, n_best=3, max_length_ratio=1.0, max_length_offset=1, coverage_penalty=0.4)
    config.beam_size, config.diverse_groups = 2 + groups, groups
    monkeypatch.setattr(decoder_state, "COMPACT_BELOW", 0.0)
    whole = translate_batch(model, source, mask, config, attention=True)
    sizes = []
    monkeypatch.setattr(decoder_state, "COMPACT_BELOW", 1.0)
    compact = DecoderRows.compact
    monkeypatch.setattr(DecoderRows, "compact", lambda rows, *a: (compact(rows, *a), sizes.append(len(rows.tokens)))[0])
    found = translate_batch(model, source, mask, config, attention=True)
    assert len(set(sizes)) > 1
    for hypotheses, expected in zip(found, whole, strict=True):
        assert [h.tokens for h in hypotheses] == [h.tokens for h in expected]
        for hypothesis, other in zip(hypotheses, expected, strict=True):
            assert hypothesis.score == pytest.approx(other.score, abs=1e-9)
            torch.testing.assert_close(hypothesis.weights, other.weights)
