"""Every score of the table, in the attention that all of them share."""

import math

import pytest
import torch

from nmt.attention import SCORES, Attention, AttentionConfig

B, T, S, D = 3, 4, 5, 6


def attention(score: str, dtype: torch.dtype = torch.float64) -> Attention:
    torch.manual_seed(0)
    return Attention(AttentionConfig(score=score, dim=D), query_dim=7, key_dim=8).to(dtype)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(B, S, dtype=torch.bool)
    mask[1, 3:] = False
    mask[2, 1:] = False  # a single key may be attended
    return torch.randn(B, T, 7, dtype=dtype), torch.randn(B, S, 8, dtype=dtype), mask


def test_general_begins_as_dot() -> None:
    query, keys, mask = inputs()
    general, dot = attention("general"), attention("dot")
    dot.load_state_dict({name: tensor for name, tensor in general.state_dict().items() if "score" not in name})
    found = [part(query, part.prepare(keys), keys, mask)[1] for part in (general, dot)]
    torch.testing.assert_close(*found)


def by_hand(name: str, q: torch.Tensor, k: torch.Tensor, score: torch.nn.Module) -> float:
    """The papers' formulas for one query and one key, written with plain sums."""
    dim = len(q)
    if name == "additive":
        return sum(score.v[i].item() * math.tanh(float(q[i] + k[i])) for i in range(dim))
    if name == "general":
        return sum(float(q[i]) * score.matrix()[i, j].item() * float(k[j]) for i in range(dim) for j in range(dim))
    product = sum(float(q[i]) * float(k[i]) for i in range(dim))
    return {"dot": product, "scaled": product / math.sqrt(dim)}[name]


@pytest.mark.parametrize("name", SCORES)
def test_score_follows_its_formula(name: str) -> None:
    torch.manual_seed(0)
    score = SCORES[name](2, 2).double()
    for parameter in score.parameters():
        torch.nn.init.normal_(parameter)
    query = torch.tensor([[[1.0, 2.0], [0.5, -1.0]]], dtype=torch.float64)
    keys = torch.tensor([[[0.0, 1.0], [-2.0, 0.5]]], dtype=torch.float64)
    found = score(query, score.prepare(keys)).detach()
    for t in range(2):
        for s in range(2):
            assert float(found[0, t, s]) == pytest.approx(by_hand(name, query[0, t], keys[0, s], score), abs=1e-12)


def test_hand_worked_numbers() -> None:
    query, keys = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 1.0], [0.0, -1.0]]])
    assert SCORES["dot"](2, 2)(query, keys).tolist() == [[[5.0, -2.0]]]
    scaled = SCORES["scaled"](2, 2)
    assert scaled(query, scaled.prepare(keys)).tolist() == [[pytest.approx([5 / 2**0.5, -2 / 2**0.5])]]
    general = SCORES["general"](2, 2)
    general.v.data = torch.tensor([[-2.0, 2.0], [4.0, -2.0]])  # W = I + V/2, so qᵀWk = q0 k1 + 2 q1 k0
    assert general(query, general.prepare(keys)).tolist() == [[[13.0, -1.0]]]
    additive = SCORES["additive"](2, 2)
    additive.v.data = torch.tensor([1.0, -2.0])
    expected = [math.tanh(4) - 2 * math.tanh(3), math.tanh(1) - 2 * math.tanh(1)]
    assert additive(query, keys).tolist() == [[pytest.approx(expected)]]


@pytest.mark.parametrize("name", SCORES)
def test_weights_are_distributions_over_the_allowed_keys(name: str) -> None:
    part, (query, keys, mask) = attention(name), inputs()
    _, weights = part(query, part.prepare(keys), keys, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T, dtype=torch.float64))
    assert (weights[~mask.unsqueeze(1).expand_as(weights)] == 0).all()
    assert (weights[2, :, 0] == 1).all()


@pytest.mark.parametrize("name", SCORES)
def test_permuting_keys_permutes_weights(name: str) -> None:
    part, (query, keys, mask) = attention(name), inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    context, weights = part(query, part.prepare(keys), keys, mask)
    permuted = part(query, part.prepare(keys[:, order]), keys[:, order], mask[:, order])
    torch.testing.assert_close(permuted[1], weights[:, :, order])
    torch.testing.assert_close(permuted[0], context)


@pytest.mark.parametrize("name", SCORES)
def test_all_queries_at_once_equal_one_at_a_time(name: str) -> None:
    part, (query, keys, mask) = attention(name), inputs()
    together = part(query, part.prepare(keys), keys, mask)
    single = [part(query[:, t : t + 1], part.prepare(keys), keys, mask) for t in range(T)]
    torch.testing.assert_close(together[0], torch.cat([context for context, _ in single], 1))
    torch.testing.assert_close(together[1], torch.cat([weights for _, weights in single], 1))


@pytest.mark.parametrize("name", SCORES)
def test_gradients(name: str) -> None:
    part, (query, keys, mask) = attention(name), inputs()
    query.requires_grad_()
    keys.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: part(q, part.prepare(k), k, mask), (query, keys))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
def test_no_nan_with_extreme_or_identical_scores(name: str, size: float) -> None:
    part, (query, keys, mask) = attention(name, torch.float32), inputs(torch.float32)
    query, keys = torch.full_like(query, size).requires_grad_(), torch.full_like(keys, 1.0)
    context, weights = part(query, part.prepare(keys), keys, mask)
    context.sum().backward()
    assert torch.isfinite(weights).all()
    assert torch.isfinite(query.grad).all()


def test_scores_differ() -> None:
    query, keys, mask = inputs()
    parts = [attention(name) for name in SCORES]
    for part in parts:
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter)
    found = [part(query, part.prepare(keys), keys, mask)[1] for part in parts]
    assert all(not torch.allclose(a, b) for i, a in enumerate(found) for b in found[:i])


def test_without_projections_the_score_sees_the_states() -> None:
    part = Attention(AttentionConfig(score="dot", project=False), query_dim=D, key_dim=D)
    assert list(part.parameters()) == []
    query, keys = torch.randn(1, 2, D), torch.randn(1, 3, D)
    _, weights = part(query, part.prepare(keys), keys, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.softmax(query @ keys.transpose(1, 2), -1))


def test_general_joins_different_widths() -> None:
    part = Attention(AttentionConfig(score="general", project=False), query_dim=4, key_dim=6)
    keys = torch.randn(2, 3, 6)
    assert part(torch.randn(2, 5, 4), part.prepare(keys), keys, torch.ones(2, 3, dtype=torch.bool))[1].shape == (
        2,
        5,
        3,
    )


@pytest.mark.parametrize("name", ["dot", "scaled"])
def test_different_widths_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"model.attention.score={name} .*4 and 6.*model.attention.project=true"):
        Attention(AttentionConfig(score=name, project=False), query_dim=4, key_dim=6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            AttentionConfig(score="cubic"),
            "model.attention.score=cubic: must be one of additive, dot, scaled, general, none",
        ),
        (AttentionConfig(score="additive", project=False), "model.attention.project=false: the additive score needs"),
        (AttentionConfig(dim=0), "model.attention.dim=0: must be at least 1"),
    ],
)
def test_impossible_configurations(config: AttentionConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.validate()
