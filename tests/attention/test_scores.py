"""Compatibility functions against their formulas, worked by hand and with plain sums."""

import math

import pytest
import torch
from torch import Tensor

from nmt.attention.scores import SCORES, Additive, Score

# q = (1, 2), k0 = (3, 1), k1 = (0, -1); one head
QUERY = torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64)
KEYS = torch.tensor([[[[3.0, 1.0], [0.0, -1.0]]]], dtype=torch.float64)


def scores_of(score: Score) -> list[float]:
    score = score.double()
    found: list[float] = score(QUERY, score.precompute(KEYS)).flatten().tolist()
    return found


def test_dot() -> None:
    assert scores_of(SCORES["dot"](1, 2, 2)) == [5.0, -2.0]


def test_scaled() -> None:
    assert scores_of(SCORES["scaled"](1, 2, 2)) == pytest.approx([5 / math.sqrt(2), -2 / math.sqrt(2)])
    assert scores_of(SCORES["scaled"](1, 2, 2, divisor="4")) == pytest.approx([1.25, -0.5])
    learned = SCORES["scaled"](1, 2, 2, divisor="learned")
    assert scores_of(learned) == pytest.approx([5 / math.sqrt(2), -2 / math.sqrt(2)], rel=1e-6)
    learned.learned.data.fill_(math.log(10.0))
    assert scores_of(learned) == pytest.approx([0.5, -0.2], rel=1e-6)


def test_general() -> None:
    general = SCORES["general"](1, 2, 2)
    assert scores_of(general) == [5.0, -2.0]  # begins as dot
    general.v.data = torch.tensor([[[-2.0, 2.0], [4.0, -2.0]]])  # W = I + V/2 = ((0, 1), (2, 0)): q0 k1 + 2 q1 k0
    assert scores_of(general) == [13.0, -1.0]


def test_cosine() -> None:
    cosine = SCORES["cosine"](1, 2, 2)
    lengths = (math.sqrt(5 * 10), math.sqrt(5 * 1))
    assert scores_of(cosine) == pytest.approx([10 * 5 / lengths[0], 10 * -2 / lengths[1]], rel=1e-6)
    cosine.log_scale.data.fill_(0.0)
    assert scores_of(cosine) == pytest.approx([5 / lengths[0], -2 / lengths[1]], rel=1e-6)


def test_location() -> None:
    location = SCORES["location"](1, 2, 2, positions=2)
    location.table.data = torch.tensor([[[1.0, 0.0], [0.5, -1.0]]])
    assert scores_of(location) == [1.0, -1.5]  # (W q)_0 = 1, (W q)_1 = 0.5 - 2
    prepared = location.precompute(torch.zeros(1, 1, 4, 2, dtype=torch.float64))
    assert location(QUERY, prepared).flatten().tolist() == [1.0, -1.5, -1.5, -1.5]  # later positions share the last
    shifted = location.precompute(torch.zeros(1, 1, 1, 2, dtype=torch.float64), start=1)
    assert location(QUERY, shifted).flatten().tolist() == [-1.5]


def test_additive() -> None:
    additive = SCORES["additive"](1, 2, 2)
    additive.v.data = torch.tensor([[1.0, -2.0]])
    expected = [math.tanh(4) - 2 * math.tanh(3), math.tanh(1) - 2 * math.tanh(1)]
    assert scores_of(additive) == pytest.approx(expected)


def test_hybrid() -> None:
    hybrid = SCORES["hybrid"](1, 2, 2)
    hybrid.v.data = torch.tensor([[1.0, -2.0]])
    additive = [math.tanh(4) - 2 * math.tanh(3), math.tanh(1) - 2 * math.tanh(1)]
    scaled = [5 / math.sqrt(2), -2 / math.sqrt(2)]
    for gate, share in ((0.0, 0.5), (math.log(3), 0.75)):
        hybrid.gate.data.fill_(gate)
        expected = [share * a + (1 - share) * s for a, s in zip(additive, scaled, strict=True)]
        assert scores_of(hybrid) == pytest.approx(expected, rel=1e-6)
        assert hybrid.learned_scalars()["gate"].item() == pytest.approx(share)


def by_hand(name: str, head: int, q: Tensor, k: Tensor, place: int, score: Score) -> float:
    """The papers' formulas for one query and one key of one head, written with plain sums."""
    dim = len(q)
    product = sum(float(q[i]) * float(k[i]) for i in range(dim))
    if name == "additive":
        return sum(score.v[head, i].item() * math.tanh(float(q[i] + k[i])) for i in range(dim))
    if name == "general":
        weight = score.weight()[head]
        return sum(float(q[i]) * weight[i, j].item() * float(k[j]) for i in range(dim) for j in range(dim))
    if name == "location":
        return sum(score.table[head, place, i].item() * float(q[i]) for i in range(dim))
    if name == "cosine":
        return math.exp(score.log_scale[head].item()) * product / math.sqrt(float(q @ q) * float(k @ k))
    if name == "hybrid":
        gate = 1 / (1 + math.exp(-score.gate[head].item()))
        return gate * by_hand("additive", head, q, k, place, score) + (1 - gate) * product / math.sqrt(dim)
    return {"dot": product, "scaled": product / math.sqrt(dim)}[name]


@pytest.mark.parametrize("name", SCORES)
def test_every_head_follows_the_formula_with_its_own_parameters(name: str) -> None:
    torch.manual_seed(0)
    score = SCORES[name](3, 4, 4).double()
    for parameter in score.parameters():
        torch.nn.init.normal_(parameter)
    query, keys = (torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (2, 5))
    found = score(query, score.precompute(keys)).detach()
    assert found.shape == (2, 3, 2, 5)
    for b, h, t, s in torch.cartesian_prod(*(torch.arange(n) for n in found.shape)).tolist():
        assert float(found[b, h, t, s]) == pytest.approx(by_hand(name, h, query[b, h, t], keys[b, h, s], s, score))


@pytest.mark.parametrize("name", SCORES)
def test_blocks_are_scored_as_if_alone(name: str) -> None:
    """Dimensions between heads and positions, which windowed attention brings, change nothing."""
    torch.manual_seed(0)
    score = SCORES[name](3, 4, 4).double()
    query, keys = (torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (2, 5))
    prepared = score.precompute(keys)
    expected = score(query, prepared)
    blocks = score(query.unsqueeze(2).expand(-1, -1, 4, -1, -1), prepared.unsqueeze(2).expand(-1, -1, 4, -1, -1))
    torch.testing.assert_close(blocks, expected.unsqueeze(2).expand(-1, -1, 4, -1, -1))


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.same_width])
def test_different_widths_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"score={name} .*4 and 6.*project_qk=true"):
        SCORES[name](1, 4, 6)


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if not score.same_width])
def test_different_widths_are_joined(name: str) -> None:
    score = SCORES[name](2, 4, 6)
    assert score(torch.randn(1, 2, 3, 4), score.precompute(torch.randn(1, 2, 5, 6))).shape == (1, 2, 3, 5)


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.has_coverage])
def test_coverage_enters_the_formula(name: str) -> None:
    torch.manual_seed(0)
    score = SCORES[name](1, 2, 2).double()
    assert isinstance(score, Additive)
    score.add_coverage()
    score = score.double()
    covered = torch.tensor([[[[0.0, 1.5]]]], dtype=torch.float64)
    found = score(QUERY, KEYS, covered).flatten().tolist()
    without = scores_of(score)
    assert found[0] == pytest.approx(without[0])
    hidden = [float(QUERY[0, 0, 0, i] + KEYS[0, 0, 1, i]) + 1.5 * score.coverage[0, i].item() for i in range(2)]
    additive = sum(score.v[0, i].item() * math.tanh(hidden[i]) for i in range(2))
    share = 1.0 if name == "additive" else 0.5
    assert found[1] == pytest.approx(share * additive + (1 - share) * -2 / math.sqrt(2))


def test_scores_differ() -> None:
    torch.manual_seed(0)
    parts = [SCORES[name](1, 2, 2) for name in SCORES]
    for part in parts:
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter)
    found = [scores_of(part) for part in parts]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if score.has_coverage])
def test_vectors_begin_uniform_with_the_inverse_root_of_the_width_as_their_bound(name: str) -> None:
    """A sum over d dimensions then has one size for every width; coverage begins as large as v."""
    torch.manual_seed(0)
    score = SCORES[name](2, 2500, 2500)
    score.add_coverage()
    for vector in (score.v.detach(), score.coverage.detach()):
        assert float(vector.abs().max()) == pytest.approx(1 / 50, rel=0.01)
        assert float(vector.min()) < 0 < float(vector.max())
        assert float(vector.std()) == pytest.approx(1 / 50 / math.sqrt(3), rel=0.05)
    assert not torch.equal(score.v, score.coverage)


def test_first_values() -> None:
    """Those that the docstrings state: scores begin as plain ones, with the scale of a usual sentence."""
    torch.manual_seed(0)
    cosine, general, hybrid = (SCORES[name](3, 16, 16) for name in ("cosine", "general", "hybrid"))
    assert cosine.learned_scalars()["scale"].tolist() == pytest.approx([math.log2(30**2 - 30)] * 3, rel=0.03)
    assert torch.equal(general.weight(), torch.eye(16).expand(3, -1, -1))
    assert hybrid.learned_scalars()["gate"].tolist() == [0.5] * 3
    assert SCORES["scaled"](3, 16, 16, divisor="learned").learned_scalars()["divisor"].tolist() == pytest.approx(
        [4] * 3
    )
    table = SCORES["location"](2, 2500, 3, positions=5).table.detach()
    assert table.shape == (2, 5, 2500)
    assert float(table.abs().max()) == pytest.approx(1 / 50, rel=0.01)
    assert float(table.std()) == pytest.approx(1 / 50 / math.sqrt(3), rel=0.05)
