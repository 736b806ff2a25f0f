"""Attention against torch's own and against the entmax package, all in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nmt.attention import CROSS, DECODER_SELF, ENCODER_SELF, AttentionConfig, AttentionLayer, AttentionOutput

B, T, S, WIDTH, HEADS = 3, 5, 7, 16, 4
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def make(
    score: str = "scaled",
    *,
    key_dim: int = WIDTH,
    attention_type: str = CROSS,
    heads: int = HEADS,
    normalizer: str = "softmax",
) -> AttentionLayer:
    torch.manual_seed(0)
    config = AttentionConfig(score=score, heads=heads, normalizer=normalizer)
    attention = AttentionLayer(config, WIDTH, key_dim, attention_type=attention_type, out_dim=WIDTH, bias=True).double()
    with torch.no_grad():  # far from uniform weights
        for parameter in attention.parameters():
            parameter.normal_(0, 0.5)
    return attention


def sequences(key_dim: int = WIDTH) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, T, WIDTH), states (B, S, key_dim), and a mask (B, S) with a full, a shorter and a one-key row."""
    torch.manual_seed(1)
    mask = torch.arange(S) < torch.tensor([[S], [4], [1]])
    return torch.randn(B, T, WIDTH).double(), torch.randn(B, S, key_dim).double(), mask


def attend(
    ours: AttentionLayer, query: Tensor, states: Tensor, mask: Tensor | None, need_weights: bool = False
) -> AttentionOutput:
    return ours(query, ours.precompute_keys(states), mask, need_weights=need_weights)


def multihead(ours: AttentionLayer, key_dim: int = WIDTH) -> nn.MultiheadAttention:
    """torch's attention with our weights; it keeps the three projections in one matrix if all widths are equal."""
    theirs = nn.MultiheadAttention(WIDTH, HEADS, kdim=key_dim, vdim=key_dim, batch_first=True).double()
    matrices = (ours.query.weight, ours.key.weight, ours.value.weight)
    named = dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), matrices, strict=True))
    theirs.load_state_dict(
        {
            **({"in_proj_weight": torch.cat(matrices)} if key_dim == WIDTH else named),
            "in_proj_bias": torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]),
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    return theirs


def hidden_future(num: int) -> Tensor:
    """(num, num), True where torch must not look."""
    return torch.ones(num, num, dtype=torch.bool).triu(1)


@pytest.mark.parametrize("key_dim", [WIDTH, 10])
def test_cross_attention_is_torchs_multihead_attention(key_dim: int) -> None:
    ours, (query, states, mask) = make(key_dim=key_dim), sequences(key_dim)
    theirs = multihead(ours, key_dim)
    expected, per_head = theirs(query, states, states, key_padding_mask=~mask, average_attn_weights=False)
    _, averaged = theirs(query, states, states, key_padding_mask=~mask)
    found = attend(ours, query, states, mask, need_weights=True)
    torch.testing.assert_close(found.context, expected, **EXACT)
    torch.testing.assert_close(found.weights, per_head, **EXACT)
    torch.testing.assert_close(found.weights.mean(1), averaged, **EXACT)
    torch.testing.assert_close(attend(ours, query, states, mask).context, expected, **EXACT)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("attention_type", [ENCODER_SELF, DECODER_SELF])
def test_self_attention_is_torchs_multihead_attention(attention_type: str, padded: bool, need_weights: bool) -> None:
    ours, (_, states, mask) = make(attention_type=attention_type), sequences()
    expected, per_head = multihead(ours)(
        states,
        states,
        states,
        key_padding_mask=~mask if padded else None,
        attn_mask=hidden_future(S) if attention_type == DECODER_SELF else None,
        average_attn_weights=False,
    )
    found = attend(ours, states, states, mask if padded else None, need_weights)
    torch.testing.assert_close(found.context, expected, **EXACT)
    if need_weights:
        torch.testing.assert_close(found.weights, per_head, **EXACT)


def test_self_attention_by_steps_is_torchs_with_a_causal_mask() -> None:
    ours, (_, states, _) = make(attention_type=DECODER_SELF), sequences()
    expected, _ = multihead(ours)(states, states, states, attn_mask=hidden_future(S))
    for step in range(S):
        seen = states[:, : step + 1]
        found = ours(states[:, step : step + 1], ours.precompute_keys(seen), None, start=step)
        torch.testing.assert_close(found.context[:, 0], expected[:, step], **EXACT)


def test_gradients_are_those_of_torchs_multihead_attention() -> None:
    ours, (query, states, mask) = make(), sequences()
    theirs, direction = multihead(ours), torch.randn(B, T, WIDTH).double()
    (attend(ours, query, states, mask).context * direction).sum().backward()
    (theirs(query, states, states, key_padding_mask=~mask)[0] * direction).sum().backward()
    joined = torch.cat([ours.query.weight.grad, ours.key.weight.grad, ours.value.weight.grad])
    torch.testing.assert_close(joined, theirs.in_proj_weight.grad, **EXACT)
    torch.testing.assert_close(ours.output.weight.grad, theirs.out_proj.weight.grad, **EXACT)


def split(x: Tensor, heads: int = HEADS) -> Tensor:
    """(B, S, WIDTH) -> (B, H, S, D)."""
    return x.view(x.size(0), x.size(1), heads, -1).transpose(1, 2)


def projected(ours: AttentionLayer, query: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return split(ours.query(query)), split(ours.key(states)), split(ours.value(states))


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(("score", "scale"), [("scaled", None), ("dot", 1.0)])
def test_product_scores_are_torchs_scaled_dot_product(score: str, scale: float | None, need_weights: bool) -> None:
    ours, (query, states, mask) = make(score), sequences()
    expected = functional.scaled_dot_product_attention(
        *projected(ours, query, states), attn_mask=mask[:, None, None], scale=scale
    )
    found = attend(ours, query, states, mask, need_weights)
    torch.testing.assert_close(found.context, ours.output(expected.transpose(1, 2).flatten(2)), **EXACT)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(("score", "scale"), [("scaled", None), ("dot", 1.0)])
def test_causal_product_scores_are_torchs(score: str, scale: float | None, need_weights: bool) -> None:
    ours, (_, states, _) = make(score, attention_type=DECODER_SELF), sequences()
    expected = functional.scaled_dot_product_attention(*projected(ours, states, states), is_causal=True, scale=scale)
    found = attend(ours, states, states, None, need_weights)
    torch.testing.assert_close(found.context, ours.output(expected.transpose(1, 2).flatten(2)), **EXACT)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dot_of_unprojected_states_is_torchs_without_a_scale(need_weights: bool) -> None:
    ours, (query, states, mask) = AttentionLayer(AttentionConfig("dot", project_qk=False), WIDTH, WIDTH), sequences()
    expected = functional.scaled_dot_product_attention(query, states, states, attn_mask=mask[:, None], scale=1.0)
    torch.testing.assert_close(attend(ours, query, states, mask, need_weights).context, expected, **EXACT)


@pytest.mark.parametrize("attention_type", [CROSS, DECODER_SELF])
@pytest.mark.parametrize("score", ["scaled", "dot"])
@pytest.mark.parametrize("normalizer", ["sparsemax", "entmax15"])
def test_sparse_weights_are_those_of_the_entmax_package(normalizer: str, score: str, attention_type: str) -> None:
    entmax = pytest.importorskip("entmax")
    ours, (query, states, mask) = make(score, attention_type=attention_type, normalizer=normalizer), sequences()
    query = states if attention_type == DECODER_SELF else query
    queries, keys, values = projected(ours, query, states)
    scores = queries @ keys.transpose(-2, -1) / (keys.size(-1) ** 0.5 if score == "scaled" else 1.0)
    hidden = hidden_future(S) if attention_type == DECODER_SELF else ~mask[:, None, None]
    # A large finite number, because the package's sums would make NaN of -inf.
    weights = getattr(entmax, normalizer)(scores.masked_fill(hidden, -1e4), dim=-1)
    found = attend(ours, query, states, None if attention_type == DECODER_SELF else mask, need_weights=True)
    assert 0.2 < float((found.weights == 0).double().mean()) < 0.9  # neither softmax nor one key each
    torch.testing.assert_close(found.weights, weights, rtol=1e-8, atol=1e-10)
    expected = ours.output((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found.context, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        attend(ours, query, states, None if attention_type == DECODER_SELF else mask).context, found.context, **EXACT
    )
