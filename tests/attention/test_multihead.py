"""The public attention layer: torch's own as the authority, dense formulas, and masks of any shape."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nmt
from nmt.attention import CROSS, ENCODER_SELF, NORMALIZERS, SCORES, Attention, AttentionConfig, AttentionLayer
from nmt.attention.windows import QueryContext

B, T, S, D, H = 3, 5, 7, 16, 4
EXACT = {"rtol": 1e-10, "atol": 1e-10}
INFINITE = float("-inf")


def make(*, spread: float = 0.5, **options: Any) -> Attention:
    torch.manual_seed(0)
    layer = Attention(D, **{"heads": H, **options}).double()
    with torch.no_grad():  # far from uniform weights
        for parameter in layer.parameters():
            parameter.normal_(0, spread)
    return layer


def inputs(kdim: int = D, vdim: int = D) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, T, D).double(), torch.randn(B, S, kdim).double(), torch.randn(B, S, vdim).double()


def holes(*shape: int) -> Tensor:
    """A boolean mask in torch's meaning, True = not attended, with holes anywhere and a key left in every row."""
    torch.manual_seed(2)
    mask = torch.rand(shape) < 0.4
    return mask.scatter(-1, torch.randint(shape[-1], (*shape[:-1], 1)), False)


def torchs(ours: Attention, kdim: int = D, vdim: int = D) -> nn.MultiheadAttention:
    """torch's attention with our weights."""
    theirs = nn.MultiheadAttention(D, H, kdim=kdim, vdim=vdim, batch_first=True).double()
    matrices = (ours.query.weight, ours.key.weight, ours.value.weight)
    named = dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), matrices, strict=True))
    state = {"in_proj_weight": torch.cat(matrices)} if kdim == vdim == D else named
    state["in_proj_bias"] = torch.cat([ours.query.bias, ours.key.bias, ours.value.bias])
    theirs.load_state_dict({**state, "out_proj.weight": ours.output.weight, "out_proj.bias": ours.output.bias})
    return theirs


MASKS = {
    "none": {},
    "padding": {"key_padding_mask": holes(B, S)},
    "padding of numbers": {"key_padding_mask": torch.randn(B, S).double()},
    "of the batch": {"attn_mask": holes(T, S)},
    "of each head": {"attn_mask": holes(B * H, T, S)},
    "of numbers": {"attn_mask": torch.randn(T, S).double()},
    "of numbers for each head": {"attn_mask": torch.randn(B * H, T, S).double()},
    "both": {
        "key_padding_mask": torch.arange(S) >= torch.tensor([[S], [4], [1]]),
        "attn_mask": holes(T, S) & (torch.arange(S) > 0),
    },
}


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_it_is_torchs_multihead_attention(name: str, average: bool, need_weights: bool) -> None:
    ours, call = make(), {**MASKS[name], "need_weights": need_weights, "average_attn_weights": average}
    for found, expected in zip(ours(*inputs(), **call), torchs(ours)(*inputs(), **call), strict=True):
        if not need_weights and expected is None:
            assert found is None
        else:
            torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize(("kdim", "vdim"), [(10, 10), (10, D), (D, 12), (10, 12)])
def test_keys_and_values_may_have_other_widths(kdim: int, vdim: int) -> None:
    ours, mask = make(kdim=kdim, vdim=vdim), holes(B, S)
    expected = torchs(ours, kdim, vdim)(*inputs(kdim, vdim), key_padding_mask=mask)
    torch.testing.assert_close(ours(*inputs(kdim, vdim), key_padding_mask=mask), expected, **EXACT)


def test_a_causal_call_is_torchs_with_the_causal_mask_and_other_masks_add_to_it() -> None:
    ours, (_, states, _) = make(), inputs()
    future, padding = torch.ones(S, S, dtype=torch.bool).triu(1), torch.arange(S) >= torch.tensor([[S], [4], [1]])
    expected = torchs(ours)(states, states, states, attn_mask=future, is_causal=True)
    torch.testing.assert_close(ours(states, is_causal=True), expected, **EXACT)
    expected = torchs(ours)(states, states, states, attn_mask=future, key_padding_mask=padding)
    torch.testing.assert_close(ours(states, is_causal=True, key_padding_mask=padding), expected, **EXACT)
    near = torch.ones(S, S, dtype=torch.bool).tril(-2)
    expected = torchs(ours)(states, states, states, attn_mask=future | near)
    torch.testing.assert_close(ours(states, attn_mask=near, is_causal=True), expected, **EXACT)


def test_keys_are_the_queries_and_values_are_the_keys_unless_given() -> None:
    ours, (query, states, _) = make(), inputs()
    torch.testing.assert_close(ours(query), ours(query, query, query), rtol=0, atol=0)
    torch.testing.assert_close(ours(query, states), ours(query, states, states), rtol=0, atol=0)


def test_gradients_are_torchs_also_of_a_mask_that_is_learned() -> None:
    ours, bias = make(), torch.randn(T, S).double()
    theirs, direction, grads = torchs(ours), torch.randn(B, T, D).double(), []
    for layer in (ours, theirs):
        learned = bias.clone().requires_grad_()
        (layer(*inputs(), attn_mask=learned, need_weights=False)[0] * direction).sum().backward()
        grads.append(learned.grad)
    torch.testing.assert_close(*grads, **EXACT)
    joined = torch.cat([ours.query.weight.grad, ours.key.weight.grad, ours.value.weight.grad])
    torch.testing.assert_close(joined, theirs.in_proj_weight.grad, **EXACT)


def dense(layer: Attention, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The formula as it stands, one query and one head at a time, over the keys that are left only."""
    queries, keys, values = (
        part(x).view(*x.shape[:2], H, -1) for part, x in ((layer.query, query), (layer.key, key), (layer.value, value))
    )
    prepared = layer.scores[0].precompute(keys.transpose(1, 2))
    scores = getattr(layer.scores[0], "reference", layer.scores[0])(queries.transpose(1, 2), prepared)
    weights = torch.zeros(B, H, T, S).double()
    for b in range(B):
        for head in range(H):
            for t in range(T):
                left = allowed[b, t].nonzero().squeeze(1)
                weights[b, head, t, left] = NORMALIZERS[layer.normalizer](scores[b, head, t, left], layer.top_k)
    context = torch.einsum("bhts,bshd->bthd", weights, values).flatten(2)
    return layer.output(context), weights


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("score", SCORES)
def test_every_score_and_normalizer_is_the_dense_formula_with_any_mask(score: str, normalizer: str) -> None:
    layer, (query, key, value), mask = make(score=score, normalizer=normalizer, top_k=2), inputs(), holes(B, T, S)
    expected, expected_weights = dense(layer, query, key, value, ~mask)
    query, key, value = (states.requires_grad_() for states in (query, key, value))
    output, weights = layer(query, key, value, attn_mask=mask, average_attn_weights=False)
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(weights, expected_weights, **EXACT)
    assert (weights.masked_select(mask[:, None]) == 0).all()
    torch.testing.assert_close(layer(query, key, value, attn_mask=mask, need_weights=False)[0], expected, **EXACT)
    output.square().sum().backward()
    for tensor in (query, key, value, *layer.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_a_query_without_any_key_has_no_weight_and_the_bias_as_output(normalizer: str, need_weights: bool) -> None:
    layer, mask, padding = make(normalizer=normalizer), holes(B, T, S), torch.zeros(B, S, dtype=torch.bool)
    padding[0], mask[1, 2] = True, True
    query, key, value = (states.requires_grad_() for states in inputs())
    output, weights = layer(query, key, value, padding, need_weights, mask)
    for row in (output[0], output[1, 2][None]):
        torch.testing.assert_close(row, layer.output.bias.expand_as(row), rtol=0, atol=0)
    if need_weights:
        assert (weights[0] == 0).all()
        assert (weights[1, 2] == 0).all()
        torch.testing.assert_close(weights[1:].sum(-1).sum(), torch.tensor(2.0 * T - 1).double())
    output.square().sum().backward()
    assert all(states.grad.isfinite().all() for states in (query, key, value))
    assert (query.grad[0] == 0).all()
    assert (query.grad[1, 2] == 0).all()
    assert query.grad[2].abs().max() > 0


WINDOWED = [("local_m", CROSS), ("local_p", CROSS), ("sliding", ENCODER_SELF)]


@pytest.mark.parametrize(("window", "attention_type"), WINDOWED)
def test_windows_with_padding_are_those_inside_models(window: str, attention_type: str) -> None:
    """Without a mask the way that touches the window only is taken, with padding the dense one."""
    layer, (query, key, _) = make(window=window, window_size=1), inputs()
    config = AttentionConfig(heads=H, window=window, window_size=1)
    inside = AttentionLayer(config, D, D, attention_type=attention_type, out_dim=D, bias=True).double()
    inside.load_state_dict(layer.state_dict())
    real = torch.arange(S) < torch.tensor([[S], [4], [2]])
    query = key if attention_type == ENCODER_SELF else query
    cache = inside.precompute_keys(key)
    expected = inside(query, cache, real, need_weights=True)
    output, weights = layer(query, key, key_padding_mask=~real, average_attn_weights=False)
    rows = real if attention_type == ENCODER_SELF else torch.ones(B, T, dtype=torch.bool)
    torch.testing.assert_close(output[rows], expected.context[rows], **EXACT)
    torch.testing.assert_close(weights.transpose(1, 2)[rows], expected.weights.transpose(1, 2)[rows], **EXACT)
    torch.testing.assert_close(layer(query, key, need_weights=False)[0], inside(query, cache, None).context, **EXACT)


@pytest.mark.parametrize(("window", "attention_type"), WINDOWED)
def test_windows_with_holes_leave_the_other_keys_in_their_places(window: str, attention_type: str) -> None:
    layer, (query, key, value) = make(window=window, window_size=1), inputs()
    query = key if attention_type == ENCODER_SELF else query
    padding = torch.tensor([[0, 1, 0, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    ends = torch.tensor([[7], [7], [6]])  # of the source: after the last key that is left
    _, weights = layer(query, key, value, padding, average_attn_weights=False)
    window_bias = layer.window.attention_bias(QueryContext(query, torch.arange(S) < ends, 0), S)
    scores = layer.scores[0](
        layer._split_heads(layer.query(query)), layer.scores[0].precompute(layer._split_heads(layer.key(key)))
    )
    expected = torch.softmax((scores + window_bias).masked_fill(padding[:, None, None], INFINITE), -1)
    torch.testing.assert_close(weights, expected.nan_to_num(0.0), **EXACT)
    assert (weights.masked_select(padding[:, None, None]) == 0).all()
    without = (weights.sum(-1) == 0).any(1).sum()
    assert 0 < int(without) < B * query.size(1) - 3  # some have no key in their windows


def test_projections_may_be_without_bias() -> None:
    layer = nmt.Attention(D, heads=H, score="additive", vdim=12, bias=False)
    assert [name for name, _ in layer.named_parameters() if "bias" in name] == []
    assert layer(*(states.float() for states in inputs(vdim=12)))[0].shape == (B, T, D)


def test_scores_may_differ_by_head_and_dropout_is_of_training() -> None:
    layer, (query, key, value) = make(score=["additive", "dot", "scaled", "dot"], dropout=0.5), inputs()
    layer.eval()
    output, weights = layer(query, key, value, attn_mask=holes(T, S), average_attn_weights=False)
    assert weights.shape == (B, H, T, S)
    torch.testing.assert_close(layer(query, key, value, attn_mask=holes(T, S))[0], output, rtol=0, atol=0)
    layer.train()
    assert (layer(query, key, value, attn_mask=holes(T, S))[0] - output).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"normalizer": "entmax16"}, ValueError, "normalizer=entmax16: must be one of .*; did you mean entmax15"),
        ({"score": "aditive"}, ValueError, "score=aditive: must be one of"),
        ({"heads": 3}, ValueError, "heads=3: queries are 16 wide, which is no multiple"),
        ({"heads": 0}, ValueError, "heads=0: must be"),
        ({"score": "additive", "project_qk": False}, ValueError, "project_qk=false"),
        ({"window": "slidng"}, ValueError, "window=slidng: must be one of .*; did you mean sliding"),
        ({"score": "none"}, ValueError, "options of whole models"),
        ({"score": "additive", "coverage": True}, ValueError, "options of whole models"),
        ({"kdim": 2.5}, TypeError, "whole numbers"),
        ({"head": 2}, TypeError, "head"),
    ],
)
def test_a_wrong_option_is_noticed_when_the_layer_is_made(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nmt.Attention(D, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"key_padding_mask": torch.zeros(B, S, dtype=torch.long)}, TypeError, "key_padding_mask: .* not torch.int64"),
        ({"attn_mask": [[True]]}, TypeError, "attn_mask: a tensor .* not list"),
        ({"key_padding_mask": holes(B, T)}, ValueError, r"key_padding_mask of shape \(3, 5\): \(3, 7\) is needed"),
        ({"attn_mask": holes(B, S)}, ValueError, r"\(5, 7\) or \(3, 5, 7\) or \(12, 5, 7\) is needed"),
        ({"key": torch.zeros(B * 2, S, D).double()}, ValueError, "batch, positions, width"),
        ({"key": torch.zeros(B, S, D + 1).double()}, ValueError, "batch, positions, width"),
        ({"value": torch.zeros(B, S + 1, D).double()}, ValueError, "batch, positions, width"),
    ],
)
def test_wrong_inputs_are_errors_in_words(call: dict[str, Any], error: type[Exception], message: str) -> None:
    query, key, value = inputs()
    with pytest.raises(error, match=message):
        make()(**{"query": query, "key": key, "value": value, **call})


def test_a_sliding_window_needs_queries_and_keys_of_one_sequence() -> None:
    query, key, _ = inputs()
    with pytest.raises(ValueError, match="window=sliding"):
        make(window="sliding")(query, key)
