"""Beam search against exhaustive search, against forced decoding, and against itself in other batches."""

import dataclasses
import itertools
import math

import pytest
import torch

from nmt.attention import SCORES, AttentionConfig
from nmt.data import BOS, EOS, PAD, source_batch
from nmt.models import Seq2Seq, build
from nmt.models.rnn import WIRINGS, RNNConfig
from nmt.search import SearchConfig, decode, search

SEEDS = range(12)
CPU = torch.device("cpu")


def make(
    seed: int, vocab: int, *, wiring: str = "input_feeding", score: str = "additive", sharpness: float = 6.0
) -> Seq2Seq:
    torch.manual_seed(seed)
    config = RNNConfig(
        cell="gru", wiring=wiring, embedding=6, hidden=8, attention=AttentionConfig(score=score, dim=5), tie="none"
    )
    model = build(config, vocab, vocab, joint=True).double().eval()
    with torch.no_grad():  # an untrained model is nearly uniform: its beams hardly ever cross
        for parameter in model.parameters():
            parameter.mul_(sharpness**0.5)
    return model


def log_prob(model: Seq2Seq, source: torch.Tensor, mask: torch.Tensor, tokens: list[int]) -> float:
    """Natural logarithm of the probability of tokens + EOS by teacher forcing."""
    logits, _ = model(source, mask, torch.tensor([[BOS, *tokens]]))
    rows = torch.log_softmax(logits[0], -1)
    return rows[torch.arange(len(tokens) + 1), torch.tensor([*tokens, EOS])].sum().item()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_wide_beam_is_exhaustive_search(seed: int, penalty: float) -> None:
    vocab, longest = 6, 3
    model = make(seed, vocab, wiring=list(WIRINGS)[seed % 3])
    sources = [[4, 5, 4], [5]]
    source, mask = source_batch(sources)
    config = SearchConfig(beam=200, num_best=10, length_penalty=penalty, max_ratio=0.0, max_extra=longest)
    found = search(model, source, mask, config)
    allowed = [token for token in range(vocab) if token not in (PAD, BOS, EOS)]
    for row, ids in enumerate(sources):
        alone, alone_mask = source_batch([ids])
        everything = []
        for length in range(longest + 1):
            for tokens in itertools.product(allowed, repeat=length):
                score = log_prob(model, alone, alone_mask, list(tokens)) / (length + 1) ** penalty
                everything.append((score, list(tokens)))
        everything.sort(key=lambda pair: -pair[0])
        assert [h.tokens for h in found[row]] == [tokens for _, tokens in everything[:10]]
        assert [h.score for h in found[row]] == pytest.approx([score for score, _ in everything[:10]], abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_scores_and_weights_are_those_of_forced_decoding(seed: int, wiring: str) -> None:
    model = make(seed, 15, wiring=wiring, score=list(SCORES)[seed % len(SCORES)])
    sources = [[4, 9, 6, 7, 5], [8, 14], [11, 12, 4]]
    source, mask = source_batch(sources)
    config = SearchConfig(beam=4, num_best=3, length_penalty=0.7)
    for row, hypotheses in enumerate(search(model, source, mask, config, attention=True)):
        alone, alone_mask = source_batch([sources[row]])
        assert len(hypotheses) == 3
        for hypothesis in hypotheses:
            forced = log_prob(model, alone, alone_mask, hypothesis.tokens)
            assert hypothesis.log_prob == pytest.approx(forced, abs=1e-4)
            assert hypothesis.score == pytest.approx(forced / (len(hypothesis.tokens) + 1) ** 0.7, abs=1e-4)
            _, record = model(alone, alone_mask, torch.tensor([[BOS, *hypothesis.tokens]]), attention=True)
            assert hypothesis.weights is not None
            torch.testing.assert_close(hypothesis.weights[..., : len(sources[row]) + 1], record.cross[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_one_beam_is_greedy(seed: int) -> None:
    model = make(seed, 12)
    source, mask = source_batch([[4, 9, 6], [8]])
    config = SearchConfig(beam=1, max_ratio=1.0, max_extra=3)
    for row, (hypothesis,) in enumerate(search(model, source, mask, config)):
        memory = model.encode(source[row : row + 1], mask[row : row + 1])
        state, token, tokens = model.start(memory), torch.tensor([BOS]), []
        limit = int(mask[row].sum()) - 1 + 3
        while len(tokens) < limit:
            logits, _, state = model.step(token, state, memory)
            logits[:, [PAD, BOS]] = -math.inf
            token = logits.argmax(-1)
            if token.item() == EOS:
                break
            tokens.append(int(token))
        assert hypothesis.tokens == tokens


@pytest.mark.parametrize("seed", SEEDS)
def test_batches_do_not_matter(seed: int) -> None:
    model = make(seed, 20).float()
    torch.manual_seed(seed)
    sources = [torch.randint(4, 20, (length,)).tolist() for length in [5, 1, 9, 3, 7, 7, 2, 0, 12, 4]]
    config = SearchConfig(beam=3)
    results = []
    for size in (1, 4, 64):
        found = dict(decode(model, sources, dataclasses.replace(config, batch_size=size), CPU))
        results.append([found[i][0].tokens for i in range(len(sources))])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("seed", SEEDS)
def test_wider_beams_are_not_worse_when_exhaustive_stopping_holds(seed: int) -> None:
    """The stopping bound is sound: decoding on to the longest length finds nothing better."""
    model = make(seed, 10)
    source, mask = source_batch([[4, 9, 6, 7]])
    config = SearchConfig(beam=4, length_penalty=1.0, max_ratio=0.0, max_extra=12)
    best = search(model, source, mask, config)[0][0]
    unstopped = search(model, source, mask, dataclasses.replace(config, num_best=4))[0][0]
    assert unstopped.tokens == best.tokens


def test_length_limits() -> None:
    model = make(0, 10)
    model.output.bias.data[EOS] = -1e4  # it never wants to end
    source, mask = source_batch([[4, 5, 6], [4]])
    for beam in (1, 3):
        config = SearchConfig(beam=beam, max_ratio=1.5, max_extra=2)
        found = [h[0] for h in search(model, source, mask, config)]
        assert [len(h.tokens) for h in found] == [7, 4]
        assert all(h.cut for h in found)
    model.output.bias.data[EOS] = 1e4  # it ends at once
    assert not any(h[0].cut for h in search(model, source, mask, config))


def test_length_penalty_prefers_longer() -> None:
    lengths = []
    for penalty in (0.0, 1.0, 3.0):
        total = 0
        for seed in SEEDS:
            source, mask = source_batch([[4, 9, 6, 7]])
            config = SearchConfig(beam=20, length_penalty=penalty, max_ratio=0.0, max_extra=6)
            total += len(search(make(seed, 10, sharpness=3.0), source, mask, config)[0][0].tokens)
        lengths.append(total)
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("beam", 0, "search.beam=0: must be at least 1"),
        ("num_best", 6, "search.num_best=6: cannot be more than search.beam=5"),
        ("length_penalty", -1.0, "search.length_penalty=-1.0: must be a number of at least 0"),
        ("max_ratio", math.inf, "search.max_ratio=inf: must be a number"),
    ],
)
def test_impossible_configurations(option: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SearchConfig(), **{option: value}).validate()
