"""Every score × normalizer × window × attention type; new entries of the tables are included automatically."""

import dataclasses
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nmt.attention import (
    ATTENTION_TYPES,
    CROSS,
    DECODER_SELF,
    NORMALIZERS,
    SCORES,
    WINDOWS,
    AttentionConfig,
    AttentionLayer,
    KeyValueCache,
)
from nmt.attention.windows import QueryContext

B, T, S, D, H = 3, 9, 26, 6, 2
MIXED = ["additive", "dot", "scaled", "general"]
PLACES = [(window, attention_type) for window, kind in WINDOWS.items() for attention_type in kind.attention_types]
CASES = [(score, normalizer, *place) for score, normalizer, place in product(SCORES, NORMALIZERS, PLACES)]


def make(
    score: object = "scaled",
    normalizer: str = "softmax",
    window: str = "global",
    attention_type: str = CROSS,
    dtype: torch.dtype = torch.float64,
    **options: object,
) -> AttentionLayer:
    torch.manual_seed(0)
    heads = len(score) if isinstance(score, list) else H
    config = AttentionConfig(
        score=score, heads=heads, dim=4 * heads, normalizer=normalizer, top_k=3, window=window, window_size=2
    )
    config = dataclasses.replace(config, **options)
    config.validate_at("model.attention", attention_type)
    part = AttentionLayer(config, D, D, attention_type=attention_type, out_dim=4 * heads, bias=True)
    with torch.no_grad():  # away from the first values, some of which are zero
        for parameter in part.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return part.to(dtype)


def inputs(attention_type: str = CROSS, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor | None]:
    """Queries (B, T, D), states (B, S, D) and a mask: in self-attention the queries are the states."""
    torch.manual_seed(1)
    states = torch.randn(B, S, D, dtype=dtype)
    query = torch.randn(B, T, D, dtype=dtype) if attention_type == CROSS else states
    if attention_type == DECODER_SELF:
        return query, states, None
    mask = torch.ones(B, S, dtype=torch.bool)
    mask[1, 15:] = False
    mask[2, 1:] = False  # a single key may be attended
    return query, states, mask


def allowed(part: AttentionLayer, attention_type: str, mask: Tensor | None, num_queries: int) -> Tensor:
    """(B, T, S): which keys a query may attend as far as padding and the future go."""
    seen = torch.ones(B, num_queries, S, dtype=torch.bool) if mask is None else mask[:, None].expand(B, num_queries, S)
    return seen.tril() if attention_type == DECODER_SELF else seen


def real(attention_type: str, mask: Tensor | None, num_queries: int) -> Tensor:
    """(B, T): queries that are not padding themselves."""
    return torch.ones(B, num_queries, dtype=torch.bool) if attention_type == CROSS or mask is None else mask


@pytest.mark.parametrize(("score", "normalizer", "window", "attention_type"), CASES)
def test_weights_are_distributions_over_the_allowed_keys(
    score: str, normalizer: str, window: str, attention_type: str
) -> None:
    part, (query, states, mask) = make(score, normalizer, window, attention_type), inputs(attention_type)
    weights = part(query, part.precompute_keys(states), mask, need_weights=True).weights
    assert weights.shape == (B, H, query.size(1), S)
    rows = real(attention_type, mask, query.size(1))[:, None].expand(weights.shape[:3])
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3], dtype=torch.float64))
    hidden = ~allowed(part, attention_type, mask, query.size(1))[:, None].expand_as(weights)
    assert (weights[rows][hidden[rows]] == 0).all()
    assert (weights >= 0).all()
    if attention_type == CROSS:
        assert (weights[2, ..., 0] == 1).all()


@pytest.mark.parametrize(("score", "normalizer", "window", "attention_type"), CASES)
def test_fast_path_equals_plain_in_value_and_gradient(
    score: str, normalizer: str, window: str, attention_type: str
) -> None:
    """Without a need_weights fused calls and sparse windows are taken, with one the dense definition."""
    found = []
    for need_weights in (False, True):
        part, (query, states, mask) = make(score, normalizer, window, attention_type), inputs(attention_type)
        query, states = query.clone().requires_grad_(), states.clone().requires_grad_()
        context = part(query, part.precompute_keys(states), mask, need_weights=need_weights).context
        context = context * real(attention_type, mask, query.size(1)).unsqueeze(-1)
        context.square().sum().backward()
        zeros = torch.zeros(1, dtype=torch.float64)
        found.append(
            [context, query.grad, states.grad] + [zeros if p.grad is None else p.grad for p in part.parameters()]
        )
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize(("score", "normalizer", "window", "attention_type"), CASES)
def test_padding_and_neighbours_change_nothing(score: str, normalizer: str, window: str, attention_type: str) -> None:
    part, (query, states, mask) = make(score, normalizer, window, attention_type), inputs(attention_type)
    together = part(query, part.precompute_keys(states), mask).context
    for row in range(B):
        length = S if mask is None else int(mask[row].sum())
        own = query[row : row + 1] if attention_type == CROSS else query[row : row + 1, :length]
        alone = part(own, part.precompute_keys(states[row : row + 1, :length]), None).context
        torch.testing.assert_close(alone[0], together[row, : own.size(1)])


@pytest.mark.parametrize(("score", "normalizer", "window", "attention_type"), CASES)
def test_one_query_at_a_time_equals_all_at_once(score: str, normalizer: str, window: str, attention_type: str) -> None:
    """As a decoder does it: earlier keys are kept, the new one is prepared at its position."""
    part, (query, states, mask) = make(score, normalizer, window, attention_type), inputs(attention_type)
    if attention_type not in (CROSS, DECODER_SELF):
        return
    together = part(query, part.precompute_keys(states), mask, need_weights=True)
    kept: KeyValueCache = {}
    for t in range(query.size(1)):
        if attention_type == CROSS:
            kept = part.precompute_keys(states)
        else:
            new = part.precompute_keys(states[:, t : t + 1], t)
            kept = {name: torch.cat([kept[name], tensor], 2) if kept else tensor for name, tensor in new.items()}
        for need_weights in (False, True):
            starts = (t, torch.full((B,), t)) if attention_type == CROSS else (t,)
            for start in starts:
                one = part(query[:, t : t + 1], kept, mask, start=start, need_weights=need_weights)
                torch.testing.assert_close(one.context, together.context[:, t : t + 1])
        torch.testing.assert_close(one.weights[:, :, 0], together.weights[:, :, t, : one.weights.size(-1)])


@pytest.mark.parametrize(("score", "normalizer"), list(product(SCORES, NORMALIZERS)))
def test_permuting_keys_permutes_weights(score: str, normalizer: str) -> None:
    if SCORES[score].positional:
        return
    part, (query, states, _) = make(score, normalizer), inputs()
    order = torch.randperm(S)
    before = part(query, part.precompute_keys(states), None, need_weights=True)
    after = part(query, part.precompute_keys(states[:, order]), None, need_weights=True)
    torch.testing.assert_close(after.weights, before.weights[..., order])
    torch.testing.assert_close(after.context, before.context)


@pytest.mark.parametrize(("score", "normalizer", "window"), [case[:3] for case in CASES if case[3] == DECODER_SELF])
def test_the_future_is_hidden(score: str, normalizer: str, window: str) -> None:
    part, (_, states, _) = make(score, normalizer, window, DECODER_SELF), inputs(DECODER_SELF)
    changed = states.clone()
    changed[:, 12:] += 1.0
    before, after = (part(x, part.precompute_keys(x), None).context for x in (states, changed))
    torch.testing.assert_close(after[:, :12], before[:, :12], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, 12:], before[:, 12:])


@pytest.mark.parametrize(("score", "normalizer", "window", "attention_type"), CASES)
def test_gradients(score: str, normalizer: str, window: str, attention_type: str) -> None:
    part = make(score, normalizer, window, attention_type, dim=4, window_size=1)
    torch.manual_seed(2)
    states = torch.randn(1, 8, D, dtype=torch.float64, requires_grad=True)
    query = torch.randn(1, 3, D, dtype=torch.float64, requires_grad=True) if attention_type == CROSS else states
    attend = lambda q, s: part(q, part.precompute_keys(s), None).context  # noqa: E731
    assert torch.autograd.gradcheck(attend, (query, states), fast_mode=True)


@pytest.mark.parametrize(("score", "normalizer", "window", "attention_type"), CASES)
def test_bf16_stays_near_fp32(score: str, normalizer: str, window: str, attention_type: str) -> None:
    part, (query, states, mask) = (
        make(score, normalizer, window, attention_type, torch.float32),
        inputs(attention_type, torch.float32),
    )
    exact = part(query, part.precompute_keys(states), mask, need_weights=True)
    rows = real(attention_type, mask, query.size(1))
    for need_weights in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            half = part(query, part.precompute_keys(states), mask, need_weights=need_weights)
        assert torch.isfinite(half.context).all()
        if normalizer == "softmax":  # a small change of a score may move a key in or out of a sparse support
            assert (half.context.float() - exact.context)[rows].abs().mean() < 0.03 * exact.context.abs().mean() + 0.01
    torch.testing.assert_close(half.weights.float().sum(-1), torch.ones(half.weights.shape[:3]), atol=0.02, rtol=0)


@pytest.mark.parametrize(("score", "normalizer", "window", "attention_type"), CASES)
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
def test_no_nan_with_extreme_or_identical_scores(
    score: str, normalizer: str, window: str, attention_type: str, size: float
) -> None:
    part, (query, states, mask) = (
        make(score, normalizer, window, attention_type, torch.float32),
        inputs(attention_type, torch.float32),
    )
    for need_weights in (False, True):
        states = (torch.ones_like(states) if size == 0 else states * size).requires_grad_()
        own = torch.full_like(query, size).requires_grad_() if attention_type == CROSS else states
        attended = part(own, part.precompute_keys(states), mask, need_weights=need_weights)
        attended.context.sum().backward()
        assert torch.isfinite(attended.context).all()
        assert torch.isfinite(states.grad).all()
        assert torch.isfinite(own.grad).all()
        states = states.detach()


@pytest.mark.parametrize(("window", "attention_type"), PLACES)
def test_a_list_gives_every_head_its_own_score(window: str, attention_type: str) -> None:
    """Head h of the mix is head h of an attention whose heads all have that score and the same parameters."""
    mixed, (query, states, mask) = make(MIXED, window=window, attention_type=attention_type), inputs(attention_type)
    found = mixed(query, mixed.precompute_keys(states), mask, need_weights=True).weights
    for head, name in enumerate(MIXED):
        single = make([name] * len(MIXED), window=window, attention_type=attention_type)
        common = {key: value for key, value in mixed.state_dict().items() if not key.startswith("scores")}
        single.load_state_dict(common, strict=False)
        own = dict(mixed.scores[mixed.names.index(name)].named_parameters())
        for key, parameter in single.scores[0].named_parameters():
            parameter.data[head] = own[key].data[0]
        expected = single(query, single.precompute_keys(states), mask, need_weights=True).weights
        torch.testing.assert_close(found[:, head], expected[:, head])


def test_heads_of_one_score_need_not_be_adjacent() -> None:
    part, (query, states, mask) = make(["dot", "additive", "dot"], window="local_p"), inputs()
    fast, plain = (
        part(query, part.precompute_keys(states), mask, need_weights=need_weights) for need_weights in (False, True)
    )
    torch.testing.assert_close(fast.context, plain.context)
    changed = part.precompute_keys(states)
    changed["keys.1"] = changed["keys.1"] + 1  # the keys of the additive head only
    moved = (part(query, changed, mask, need_weights=True).weights - plain.weights).abs().amax((0, 2, 3)) > 1e-6
    assert moved.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"divisor": "3"},
        {"divisor": "learned"},
        {"dim": 16},
        {"dim": 0},
        {"heads": 4},
        {"normalizer": "sparsemax"},
        {"normalizer": "top_k"},
        {"window": "local_m"},
        {"score": "cosine"},
    ],
)
def test_every_option_changes_the_weights(change: dict[str, object]) -> None:
    query, states, mask = inputs()
    weights = []
    for options in ({}, change):
        part = make(**options)
        weights.append(part(query, part.precompute_keys(states), mask, need_weights=True).weights)
    assert weights[0].shape != weights[1].shape or not torch.allclose(*weights)


@pytest.mark.parametrize("window", [window for window in WINDOWS if window != "global"])
def test_width_is_the_reach_of_a_window(window: str) -> None:
    attention_type = WINDOWS[window].attention_types[0]
    query, states, _ = inputs(attention_type)
    for width in (1, 4):
        part = make(window=window, attention_type=attention_type, window_size=width)
        weights = part(query, part.precompute_keys(states), None, need_weights=True).weights
        assert int((weights[:, :, 4] > 0).sum(-1).max()) == 2 * width + 1


def test_top_is_the_number_of_keys_kept() -> None:
    query, states, _ = inputs()
    for top in (1, 5):
        part = make(normalizer="top_k", top_k=top)
        assert ((part(query, part.precompute_keys(states), None, need_weights=True).weights > 0).sum(-1) == top).all()


class Elements(TorchDispatchMode):
    """Counts the elements that all operations write, an exact measure of work and memory traffic."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.num += sum(x.numel() for x in pytree.tree_leaves(result) if isinstance(x, Tensor))
        return result


@pytest.mark.parametrize(("window", "attention_type"), PLACES)
@pytest.mark.parametrize("score", ["dot", "additive", MIXED])
def test_work_grows_with_the_window_and_not_with_the_square_of_the_length(
    score: object, window: str, attention_type: str
) -> None:
    part = make(score, window=window, attention_type=attention_type)
    work, dense = [], window == "global"  # torch's fused attention hides what it writes
    for length in (128, 256, 512):
        states = torch.randn(1, length, D, dtype=torch.float64, requires_grad=True)
        query = (
            torch.randn(1, length, D, dtype=torch.float64, requires_grad=True) if attention_type == CROSS else states
        )
        with Elements() as elements:
            part(query, part.precompute_keys(states), None, need_weights=dense).context.sum().backward()
        work.append(elements.num)
    growth = (work[2] - work[1]) / (work[1] - work[0])  # 2 for linear, 4 for quadratic
    assert (growth > 3.5) if dense else (growth < 2.1)


def test_local_m_follows_the_query_and_local_p_its_prediction() -> None:
    query, states, _ = inputs()
    part = make(window="local_m")
    weights = part(query, part.precompute_keys(states), None, need_weights=True).weights
    for t in range(T):
        assert weights[0, 0, t].nonzero().flatten().tolist() == list(range(max(0, t - 2), t + 3))
    part = make(window="local_p")
    weights = part(query, part.precompute_keys(states), None, need_weights=True).weights
    centers = part.window.window_centers(QueryContext(query, None, 0), S)  # (B, H, T)
    hidden = torch.tanh(part.window.hidden(query))
    by_hand = S * torch.sigmoid(part.window.place(hidden)).transpose(1, 2)
    torch.testing.assert_close(centers, by_hand.clamp(max=S - 1))
    places = torch.arange(S)
    assert (((places - centers.round().unsqueeze(-1)).abs() <= 2) == (weights > 0)).all()


def test_local_p_weighs_by_its_gaussian() -> None:
    part, (query, states, _) = make("scaled", window="local_p"), inputs()
    for module in (part.query, part.key):
        for parameter in module.parameters():
            torch.nn.init.zeros_(parameter)  # all scores equal: the Gaussian alone remains
    weights = part(query, part.precompute_keys(states), None, need_weights=True).weights
    centers = part.window.window_centers(QueryContext(query, None, 0), S).unsqueeze(-1)
    places = torch.arange(S)
    gaussian = torch.exp(-((places - centers) ** 2) / (2 * 1.0**2))  # width 2, so σ = 1
    gaussian = gaussian * ((places - centers.round()).abs() <= 2)
    torch.testing.assert_close(weights, gaussian / gaussian.sum(-1, keepdim=True))


def test_recorded_weights_are_those_before_dropout() -> None:
    part, (query, states, mask) = make(dropout=0.5), inputs()
    part.eval()
    expected = part(query, part.precompute_keys(states), mask, need_weights=True)
    part.train()
    torch.manual_seed(0)
    dropped = part(query, part.precompute_keys(states), mask, need_weights=True)
    torch.testing.assert_close(dropped.weights, expected.weights)
    assert not torch.allclose(dropped.context, expected.context)


@pytest.mark.parametrize("score", [name for name, score in SCORES.items() if score.has_coverage])
def test_coverage_is_the_sum_of_earlier_weights(score: str) -> None:
    part, (query, states, mask) = make(score, coverage=True), inputs()
    memory = part.precompute_keys(states)
    together = part(query, memory, mask, need_weights=True)
    torch.testing.assert_close(together.coverage, together.weights.sum(2))
    covered, rows = None, []
    for t in range(T):
        one = part(query[:, t : t + 1], memory, mask, start=t, coverage=covered, need_weights=True)
        covered = one.coverage
        rows.append(one.weights)
    torch.testing.assert_close(torch.cat(rows, 2), together.weights)
    part.coverage = False  # the same parameters without it
    without = part(query, memory, mask, need_weights=True)
    torch.testing.assert_close(without.weights[:, :, 0], together.weights[:, :, 0])  # nothing is covered yet
    assert not torch.allclose(without.weights[:2, :, 1:], together.weights[:2, :, 1:])


def test_coverage_can_prevent_attending_twice() -> None:
    part, (query, states, _) = make("additive", coverage=True), inputs()
    with torch.no_grad():
        score = part.scores[0]
        score.coverage.copy_(-50 * score.v.sign())  # what is covered gets the lowest score there can be
    memory, query = part.precompute_keys(states), query[:, :1]
    first = part(query, memory, None, need_weights=True).weights.squeeze(2).argmax(-1)  # (B, H)
    covered = torch.nn.functional.one_hot(first, S).double()
    again = part(query, memory, None, coverage=covered, need_weights=True).weights.squeeze(2)
    assert (again.argmax(-1) != first).all()
    assert torch.equal(again.argmin(-1), first)


def test_without_projections_the_score_compares_the_states() -> None:
    part = AttentionLayer(AttentionConfig(score="dot", project_qk=False), D, D)
    assert list(part.parameters()) == []
    query, states, _ = inputs()
    attended = part(query, part.precompute_keys(states), None, need_weights=True)
    expected = torch.softmax(query @ states.transpose(1, 2), -1)
    torch.testing.assert_close(attended.weights[:, 0], expected)
    torch.testing.assert_close(attended.context, expected @ states)


def test_general_joins_different_widths() -> None:
    part = AttentionLayer(AttentionConfig(score="general", project_qk=False), 4, 6)
    keys = torch.randn(2, 3, 6)
    assert part(torch.randn(2, 5, 4), part.precompute_keys(keys), None, need_weights=True).weights.shape == (2, 1, 5, 3)


@pytest.mark.parametrize(
    "attention_type", [attention_type for attention_type in ATTENTION_TYPES if attention_type != CROSS]
)
@pytest.mark.parametrize("score", ["dot", "scaled", "cosine"])
def test_rotary_scores_depend_on_distance_only(attention_type: str, score: str) -> None:
    torch.manual_seed(0)
    config = AttentionConfig(score=score, heads=1, dim=8)
    part = AttentionLayer(config, D, D, attention_type=attention_type, out_dim=8, rotary=True).double()
    one = torch.randn(1, 1, D, dtype=torch.float64).expand(1, 12, D)  # the same word everywhere
    weights = part(one, part.precompute_keys(one), None, need_weights=True).weights[0, 0]
    ratios = weights.diagonal(-3) / weights.diagonal()[3:]
    torch.testing.assert_close(ratios, ratios[0].expand_as(ratios))
    assert not torch.allclose(weights.diagonal(-3)[5:], weights.diagonal()[3:][5:])


@pytest.mark.parametrize(
    ("options", "attention_type", "message"),
    [
        ({"score": "cubic"}, CROSS, r"model.attention.score=cubic: must be one of additive, .*none"),
        ({"score": ["dot", "x"], "heads": 2}, CROSS, r"model.attention.score=x: must be one of"),
        ({"score": ["dot", "none"], "heads": 2}, CROSS, r"score=none: must be one of"),
        ({"score": ["dot"] * 3, "heads": 2}, CROSS, r"3 scores for model.attention.heads=2; give one a head"),
        ({"score": "none"}, DECODER_SELF, r"score=none: only cross-attention can be left out"),
        (
            {"score": "additive", "project_qk": False},
            CROSS,
            r"project_qk=false: the additive score needs its projections",
        ),
        ({"score": "hybrid", "project_qk": False}, CROSS, r"project_qk=false: the hybrid score needs its projections"),
        ({"dim": -1}, CROSS, r"dim=-1: must be a whole number of at least 0"),
        ({"heads": 0}, CROSS, r"heads=0: must be a whole number of at least 1"),
        ({"heads": 3, "dim": 8}, CROSS, r"dim=8: must be a multiple of model.attention.heads=3"),
        ({"normalizer": "hard"}, CROSS, r"normalizer=hard: must be one of softmax, sparsemax"),
        ({"window": "round"}, CROSS, r"window=round: must be one of global, local_m, local_p, sliding"),
        (
            {"window": "local_p"},
            DECODER_SELF,
            r"window=local_p does not work in self-attention: it looks .*use sliding",
        ),
        ({"window": "local_m"}, "encoder_self", r"window=local_m does not work in self-attention: .*use sliding"),
        ({"window": "sliding"}, CROSS, r"window=sliding does not work in cross-attention: .*use local_m or local_p"),
        ({"divisor": "zero"}, CROSS, r"divisor=zero: must be sqrt, learned or a number above 0"),
        ({"divisor": "-2"}, CROSS, r"divisor=-2: must be sqrt, learned or a number above 0"),
        ({"divisor": "inf"}, CROSS, r"divisor=inf: must be sqrt, learned or a number above 0"),
        ({"dropout": 1.0}, CROSS, r"dropout=1.0: must be at least 0 and below 1"),
        ({"score": "dot", "coverage": True}, CROSS, r"coverage=true does not work with .*score=dot: .*coverage_loss"),
        ({"score": "additive", "coverage": True}, DECODER_SELF, r"coverage=true does not work with self-attention"),
        ({"per_layer": [{"score": "dot"}]}, CROSS, r"per_layer has 1 entries: 2 layers attend here"),
        ({"per_layer": [{}, {"heads": 2}]}, CROSS, r"per_layer: heads cannot differ by layer"),
        ({"per_layer": [{}, {"scores": "dot"}]}, CROSS, r"per_layer: scores cannot differ by layer \(no option"),
        ({"per_layer": [{}, {"score": "cubic"}]}, CROSS, r"model.attention.per_layer\[1\].score=cubic: must be one of"),
        ({"per_layer": [{}, {"window_size": "x"}]}, CROSS, r"per_layer\[1\].window_size=x: must be a whole number"),
        ({"per_layer": [{"dropout": None}, {}]}, CROSS, r"per_layer\[0\].dropout=None: must be at least 0 and below 1"),
        ({"per_layer": [{"dropout": [1]}, {}]}, CROSS, r"per_layer\[0\].dropout=\[1\]: must be at least 0 and below 1"),
        (
            {"per_layer": [{"dropout": False}, {}]},
            CROSS,
            r"per_layer\[0\].dropout=False: must be at least 0 and below 1",
        ),
        (
            {"per_layer": [{"normalizer": ["a"]}, {}]},
            CROSS,
            r"per_layer\[0\].normalizer=\['a'\]: must be one of softmax",
        ),
        ({"per_layer": [{"window": {}}, {}]}, CROSS, r"per_layer\[0\].window={}: must be one of global"),
        (
            {"per_layer": [{"divisor": True}, {}]},
            CROSS,
            r"per_layer\[0\].divisor=True: must be sqrt, learned or a number",
        ),
        (
            {"per_layer": [{"divisor": 10**400}, {}]},
            CROSS,
            r"per_layer\[0\].divisor=10+: must be sqrt, learned or a number",
        ),
        (
            {"per_layer": [{"score": [["a"], "dot"]}, {}], "heads": 2},
            CROSS,
            r"per_layer\[0\].score=\['a'\]: must be one of",
        ),
    ],
)
def test_impossible_configurations(options: dict[str, object], attention_type: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionConfig(**options).validate_at("model.attention", attention_type, num_layers=2)


def test_layers_change_what_they_name() -> None:
    config = AttentionConfig(score="dot", heads=2, per_layer=[{"score": "additive", "dropout": 0.1}, {}])
    config.validate_at("model.attention", CROSS, num_layers=2)
    assert [config.for_layer(n).score for n in (0, 1)] == ["additive", "dot"]
    assert [config.for_layer(n).dropout for n in (0, 1)] == [0.1, 0.0]
    assert config.for_layer(0).heads == 2


def test_widths_that_heads_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"heads=4: values are 6 wide"):
        AttentionLayer(AttentionConfig(score="dot", heads=4, dim=8), D, D)
    with pytest.raises(ValueError, match=r"rotary positions need heads of even width, they have 3"):
        AttentionLayer(AttentionConfig(score="dot", heads=2, dim=6), D, D, out_dim=6, rotary=True)


@pytest.mark.parametrize(("window", "attention_type"), PLACES)
def test_weights_are_given_only_where_they_are_needed(window: str, attention_type: str) -> None:
    """They cost memory that grows with the product of the lengths; the context is the same with and without them."""
    part, (query, states, mask) = make(window=window, attention_type=attention_type), inputs(attention_type)
    memory = part.precompute_keys(states)
    plain, recorded = part(query, memory, mask), part(query, memory, mask, need_weights=True)
    assert plain.weights is None
    assert recorded.weights.shape == (B, H, query.size(1), S)
    torch.testing.assert_close(plain.context, recorded.context)


@pytest.mark.parametrize(("score", "normalizer", "window", "attention_type"), CASES)
def test_everything_is_on_the_device_of_the_queries(
    score: str, normalizer: str, window: str, attention_type: str
) -> None:
    """A device without data stands for any: a tensor made elsewhere cannot be combined with one of it."""
    part = make(score, normalizer, window, attention_type).to("meta")
    query, states, mask = (None if x is None else x.to("meta") for x in inputs(attention_type))
    memory = part.precompute_keys(states)
    for need_weights in (False, True):
        assert part(query, memory, mask, need_weights=need_weights).context.device.type == "meta"


@pytest.mark.parametrize(("window", "attention_type"), PLACES)
def test_dropout_keeps_the_expected_context(window: str, attention_type: str) -> None:
    """Through a window too: every draw differs, and their mean is the context without dropout."""
    part, (query, states, mask) = (
        make(window=window, attention_type=attention_type, dropout=0.5),
        inputs(attention_type),
    )
    with torch.no_grad():
        memory = part.precompute_keys(states)
        expected = part.eval()(query, memory, mask).context
        part.train()
        drawn = torch.stack([part(query, memory, mask).context for _ in range(400)])
    assert all(not torch.allclose(draw, expected) for draw in drawn[:20])
    error = (drawn.mean(0) - expected).abs() / (drawn.std(0) / 20 + 1e-12)
    assert float(error.max()) < 6  # of its own standard deviation
