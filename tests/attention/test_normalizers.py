"""Every normalizer of the table: what all share, where they differ, and the entmax package as an outside authority."""

import math
from collections.abc import Callable

import entmax
import pytest
import torch
from torch import Tensor

from nmt.attention.normalizers import NORMALIZERS, entmax15, softmax, sparsemax, top_k

TOP = 3
INFINITY = float("inf")
PACKAGE = {"sparsemax": entmax.sparsemax, "entmax15": entmax.entmax15}
SPARSE = [name for name in NORMALIZERS if name != "softmax"]
every = pytest.mark.parametrize("name", NORMALIZERS)
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])


def rows(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random scores; in every second row some keys, but never the first, are masked."""
    torch.manual_seed(sum(shape))
    scores = torch.randn(shape, dtype=torch.float64) * scale
    masked = torch.rand(shape) < 0.4
    masked[..., 0] = False
    masked.flatten(0, -2)[::2] = False
    return scores.masked_fill(masked, -INFINITY).to(dtype)


def with_gradient(function: Callable[[Tensor], Tensor], scores: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """The weights, and the gradient of their product with `upstream`."""
    scores = scores.clone().requires_grad_()
    weights = function(scores)
    weights.backward(upstream.to(weights.dtype))
    assert scores.grad is not None
    return weights.detach(), scores.grad


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (2, 3, 5, 17), (3, 64), (5, 257), (2, 3000)])
@pytest.mark.parametrize("name", PACKAGE)
def test_values_and_gradients_are_the_packages(name: str, shape: tuple[int, ...], scale: float) -> None:
    scores = rows(*shape, scale=scale)
    upstream = torch.randn(shape, dtype=torch.float64)
    ours = with_gradient(lambda z: NORMALIZERS[name](z, 0), scores, upstream)
    theirs = with_gradient(lambda z: PACKAGE[name](z, dim=-1), scores, upstream)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", PACKAGE)
def test_is_the_nearest_point_under_its_entropy(name: str) -> None:
    """The weights maximize p·z plus the entropy: no other point of the simplex does better."""

    def objective(p: Tensor, z: Tensor) -> Tensor:
        alpha = {"sparsemax": 2.0, "entmax15": 1.5}[name]
        return (p * z).sum(-1) + (p - p**alpha).sum(-1) / (alpha * (alpha - 1))

    torch.manual_seed(0)
    scores = torch.randn(50, 6, dtype=torch.float64)
    weights = NORMALIZERS[name](scores, 0)
    for spread in (0.0, 0.9, 0.999):
        others = torch.distributions.Dirichlet(torch.ones(6, dtype=torch.float64)).sample((200, 50))
        moved = spread * weights + (1 - spread) * others
        assert (objective(moved, scores) < objective(weights, scores)).all()


@every
def test_gradcheck(name: str) -> None:
    scores = rows(6, 7).requires_grad_()
    masked = scores.isinf()

    def function(z: Tensor) -> Tensor:
        return NORMALIZERS[name](z.masked_fill(masked, -INFINITY), TOP)

    finite = scores.detach().masked_fill(masked, 0.5).requires_grad_()  # -inf has no neighbors to take differences
    assert torch.autograd.gradcheck(function, (finite,))


def test_sparsemax_by_hand() -> None:
    # z = (1, 0.5, -1), best first. With 1, 2, 3 keys τ would be (1 - 1)/1 = 0, (1.5 - 1)/2 = 0.25, (0.5 - 1)/3 = -1/6.
    # The second key is above its τ (0.5 > 0.25), the third is not (-1 < -1/6): so τ = 0.25 and p = (0.75, 0.25, 0).
    # Gradient (1, 2, 5): the mean over the two keys is 1.5, so (-0.5, 0.5, 0).
    scores, upstream = torch.tensor([1.0, 0.5, -1.0]), torch.tensor([1.0, 2.0, 5.0])
    weights, gradient = with_gradient(lambda z: sparsemax(z, 0), scores, upstream)
    assert weights.tolist() == [0.75, 0.25, 0.0]
    assert gradient.tolist() == [-0.5, 0.5, 0.0]


@pytest.mark.parametrize("d", [0.0, 0.3, -1.0, 1.7, 1.999, 2.0, -2.5])
def test_entmax15_of_two_keys_by_hand(d: float) -> None:
    # z = (d, 0) with 0 ≤ d ≤ 2. Centre the threshold: p = ((u + d/4)², (u - d/4)²). They sum to 2u² + d²/8 = 1, so
    # u = √(8 - d²)/4 and p₁ = u² + ud/2 + d²/16 = 1/2 + d√(8 - d²)/8. Its slope is (4 - d²) / (4√(8 - d²)). At d = 2,
    # u = d/4: the second key is gone from there on.
    a = max(-2.0, min(2.0, d))
    weight, slope = 0.5 + a * math.sqrt(8 - a * a) / 8, (4 - a * a) / (4 * math.sqrt(8 - a * a))
    scores, upstream = torch.tensor([d, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.0])
    weights, gradient = with_gradient(lambda z: entmax15(z, 0), scores, upstream)
    assert weights.tolist() == pytest.approx([weight, 1 - weight], abs=1e-12)
    assert gradient.tolist() == pytest.approx([slope, -slope], abs=1e-7)


def test_top_k_by_hand() -> None:
    scores = torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64).log()
    assert top_k(scores, 2).tolist() == pytest.approx([0, 3 / 5, 0, 2 / 5], abs=1e-12)
    assert top_k(scores, 3).tolist() == pytest.approx([1 / 6, 3 / 6, 0, 2 / 6], abs=1e-12)


def test_top_k_is_softmax_over_the_keys_it_keeps() -> None:
    torch.manual_seed(0)
    scores, upstream = torch.randn(2, 50, 9, dtype=torch.float64).unbind()
    weights, gradient = with_gradient(lambda z: top_k(z, 4), scores, upstream)
    best = scores.topk(4, dim=-1).indices
    expected = with_gradient(lambda z: softmax(z, 0), scores.gather(-1, best), upstream.gather(-1, best))
    torch.testing.assert_close((weights.gather(-1, best), gradient.gather(-1, best)), expected)
    assert ((weights > 0).sum(-1) == 4).all()
    assert gradient.scatter(-1, best, 0.0).eq(0).all()


@pytest.mark.parametrize("top", [8, 9, 100])
def test_top_k_with_room_for_all_keys_is_softmax(top: int) -> None:
    scores = rows(4, 8)
    assert torch.equal(top_k(scores, top), torch.softmax(scores, -1))


def test_top_k_with_room_for_all_unmasked_keys_is_softmax() -> None:
    scores = rows(4, 8)
    scores[..., 5:] = -INFINITY
    assert torch.equal(top_k(scores, 5), torch.softmax(scores, -1))


def test_top_1_is_one_hot() -> None:
    scores = rows(40, 8)
    assert torch.equal(top_k(scores, 1), torch.nn.functional.one_hot(scores.argmax(-1), 8).double())


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    scores = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0])
    weights = top_k(scores, 2)
    torch.testing.assert_close(weights[[0, 1, 2, 4]], torch.softmax(scores[[0, 1, 2, 4]], -1))
    assert weights[3] == 0


@pytest.mark.parametrize("top", [0, -1])
def test_top_k_needs_a_key(top: int) -> None:
    with pytest.raises(ValueError, match=rf"attention\.top_k={top}: must be at least 1"):
        top_k(torch.zeros(3), top)


@every
@dtypes
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_is_a_distribution_over_unmasked_keys(name: str, dtype: torch.dtype, scale: float) -> None:
    scores = rows(3, 4, 10, 23, scale=scale, dtype=dtype)
    upstream = torch.randn(scores.shape)
    weights, gradient = with_gradient(lambda z: NORMALIZERS[name](z, TOP), scores, upstream)
    assert weights.dtype == dtype
    assert (weights >= 0).all()
    tolerance = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2}[dtype]
    assert (weights.double().sum(-1) - 1).abs().max() < tolerance
    assert gradient.isfinite().all()
    masked = scores.isinf()
    assert masked.any()
    assert weights[masked].eq(0).all()
    assert gradient[masked].eq(0).all()


@every
def test_ignores_a_constant(name: str) -> None:
    scores = rows(20, 9)
    for constant in (-7.0, 0.25, 1e4):
        shifted = NORMALIZERS[name](scores + constant, TOP)
        torch.testing.assert_close(shifted, NORMALIZERS[name](scores, TOP), rtol=0, atol=1e-10)


@every
@dtypes
def test_single_key_gets_everything(name: str, dtype: torch.dtype) -> None:
    for score in (-1e4, -3.0, 0.0, 1e4):
        scores = torch.full((4, 6), -INFINITY, dtype=dtype)
        scores[:, 2] = score
        for single in (scores, scores[:, 2:3]):
            weights, gradient = with_gradient(lambda z: NORMALIZERS[name](z, TOP), single, torch.randn(single.shape))
            assert torch.equal(weights, single.isfinite().to(dtype))
            assert gradient.eq(0).all()


@every
@dtypes
def test_identical_keys_share_equally(name: str, dtype: torch.dtype) -> None:
    for size in (2, 5, 64):
        for score in (-1e4, 0.0, 1e4):
            scores = torch.full((3, size), score, dtype=dtype)
            torch.testing.assert_close(NORMALIZERS[name](scores, TOP), torch.full_like(scores, 1 / size))
    pairs = torch.tensor([[0.3, 0.1, 0.3, -0.2, 0.1]], dtype=dtype)
    weights = NORMALIZERS[name](pairs, TOP)[0]
    assert weights[0] == weights[2] > weights[1] == weights[4]


@every
def test_better_keys_get_no_less(name: str) -> None:
    scores = rows(200, 12)
    weights = NORMALIZERS[name](scores, TOP)
    ordered = weights.gather(-1, scores.argsort(dim=-1, descending=True))
    assert (ordered.diff(dim=-1) <= 0).all()


@every
def test_follows_the_order_of_the_keys(name: str) -> None:
    scores = (rows(50, 12) * 2).round()  # many ties
    order = torch.randperm(12)
    torch.testing.assert_close(NORMALIZERS[name](scores[:, order], TOP), NORMALIZERS[name](scores, TOP)[:, order])


@every
@dtypes
def test_extreme_scores(name: str, dtype: torch.dtype) -> None:
    extremes = [[1e4, -1e4, 0, 0, 0], [1e4, 1e4, -1e4, -1e4, -1e4], [-1e4] * 5, [1e4, 1e4, 1e4, 1e4, -INFINITY]]
    scores = torch.tensor(extremes, dtype=dtype)
    weights, gradient = with_gradient(lambda z: NORMALIZERS[name](z, 2), scores, torch.randn(scores.shape))
    fifth, quarter = 1 / 5, 1 / 4
    expected = [[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [fifth] * 5, [quarter] * 4 + [0]]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=dtype))
    assert gradient.isfinite().all()


@every
def test_nan_stays_in_its_row(name: str) -> None:
    scores = rows(3, 6)
    expected = NORMALIZERS[name](scores, TOP)
    scores[1, 4] = float("nan")
    weights, gradient = with_gradient(lambda z: NORMALIZERS[name](z, TOP), scores, torch.randn(3, 6))
    assert weights[1].isnan().any()  # a diverged model is seen, not hidden
    assert gradient[1].isnan().any()
    assert torch.equal(weights[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("name", SPARSE)
def test_gives_exact_zeros_where_softmax_does_not(name: str) -> None:
    scores = torch.tensor([0.0, -0.1, -0.2, -2.5, -3.0])
    assert (softmax(scores, 0) > 0).all()
    assert NORMALIZERS[name](scores, TOP)[3:].tolist() == [0.0, 0.0]
    assert (NORMALIZERS[name](scores, TOP)[:3] > 0).all()


def test_entmax15_is_sparser_than_softmax_and_denser_than_sparsemax() -> None:
    scores = torch.randn(100, 30, generator=torch.Generator().manual_seed(0))
    sizes = [(NORMALIZERS[name](scores, 0) > 0).sum().item() for name in ("sparsemax", "entmax15", "softmax")]
    assert sizes == sorted(set(sizes))


@every
def test_strides_do_not_matter_and_scores_stay_as_they_are(name: str) -> None:
    scores = rows(4, 5, 6)
    before = scores.clone()
    expected = NORMALIZERS[name](scores, TOP)
    transposed = scores.transpose(-1, -2).contiguous().transpose(-1, -2)
    upstream = torch.randn(4, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(
        with_gradient(lambda z: NORMALIZERS[name](z, TOP), transposed, upstream),
        with_gradient(lambda z: NORMALIZERS[name](z, TOP), scores, upstream),
    )
    torch.testing.assert_close(NORMALIZERS[name](scores[1:2].expand(3, 5, 6), TOP), expected[1:2].expand(3, 5, 6))
    torch.testing.assert_close(NORMALIZERS[name](scores[2, 3], TOP), expected[2, 3])
    assert torch.equal(scores, before)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes_are_those_of_softmax(name: str, dtype: torch.dtype, autocast: bool) -> None:
    scores = rows(5, 601, scale=1e-3, dtype=dtype).requires_grad_()  # half types cannot count that far
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        weights, expected = NORMALIZERS[name](scores, TOP), torch.softmax(scores, -1)
    assert weights.dtype == expected.dtype
    wide = scores.detach() if dtype == torch.float64 else scores.detach().float()
    assert torch.equal(weights, NORMALIZERS[name](wide, TOP).to(weights.dtype))
    weights.square().sum().backward()
    assert scores.grad is not None
    assert scores.grad.dtype == dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every
@dtypes
def test_gpu_agrees_with_cpu(name: str, dtype: torch.dtype) -> None:
    scores, upstream = rows(4, 5, 33, dtype=dtype), torch.randn(4, 5, 33)
    here = with_gradient(lambda z: NORMALIZERS[name](z, TOP), scores, upstream)
    there = with_gradient(lambda z: NORMALIZERS[name](z, TOP), scores.cuda(), upstream.cuda())
    torch.testing.assert_close([part.cpu() for part in there], list(here))
    with torch.autocast("cuda", torch.bfloat16):
        assert NORMALIZERS[name](scores.cuda(), TOP).dtype == torch.softmax(scores.cuda(), -1).dtype


@pytest.mark.parametrize("length", [1, 2, 7, 15, 16, 23, 31, 32, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_is_torchs_at_every_length(length: int, dtype: torch.dtype) -> None:
    """Short rows have ways of their own on a CPU."""
    torch.manual_seed(length)
    scores = (3 * torch.randn(5, 4, 6, length)).to(dtype)
    scores[..., length // 2 + 1 :] = float("-inf")
    gradient = torch.randn(scores.shape).to(dtype)
    found = []
    for function in (lambda x: NORMALIZERS["softmax"](x, 0), lambda x: torch.softmax(x, -1)):
        leaf = scores.clone().requires_grad_()
        weights = function(leaf)
        weights.backward(gradient)
        found.append((weights.detach(), leaf.grad))
    assert found[0][0].dtype == dtype
    # torch's own gradient starts from rounded weights, ours from exact ones
    tolerance = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(found[0], found[1], **tolerance)
    assert (found[0][0][..., length // 2 + 1 :] == 0).all()
