"""The cross-entropy against torch's; the coverage loss by hand and against a loop."""

import pytest
import torch

from nmt.attention.linear import Linear
from nmt.training.losses import LOSS_CHUNK_ROWS, coverage_loss, cross_entropy, output_cross_entropy, symmetric_kl


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torch_in_value_and_gradient(smoothing: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(LOSS_CHUNK_ROWS + 30, 11, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 11, (LOSS_CHUNK_ROWS + 30,))
    loss, nll = cross_entropy(logits, labels, smoothing=smoothing)
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nll, torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    (gradient,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(gradient, 3 * torch.autograd.grad(expected, logits)[0])


def test_bf16_logits_are_summed_in_fp32() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2000, 50).to(torch.bfloat16).requires_grad_()
    labels = torch.randint(0, 50, (2000,))
    loss, _ = cross_entropy(logits, labels)
    expected = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_coverage_loss_by_hand() -> None:
    rows = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6], [0.9, 0.0, 0.1], [1.0, 0.0, 0.0]])
    # coverage before each row: nothing, (.5 .5 0), (.7 .7 .6), and (1.6 .7 .7)
    expected = [0.0, 0.2 + 0.2, 0.7 + 0.1, 1.0]
    for position, value in enumerate(expected):
        mask = torch.zeros(1, 4, dtype=torch.bool)
        mask[0, position] = True
        assert float(coverage_loss(rows[None, None, None], mask)) == pytest.approx(value), position


def attention(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype).softmax(-1)


def test_coverage_loss_of_a_batch_is_the_mean_over_layers_and_heads() -> None:
    torch.manual_seed(0)
    weights = attention(3, 2, 4, 5, 6)
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    expected = 0.0
    for sentence in range(3):
        for matrix in weights[sentence].flatten(0, 1):  # (T, S), each of 8 layers and heads
            coverage = torch.zeros(6, dtype=torch.float64)
            for row in matrix[mask[sentence]]:
                expected += float(torch.minimum(row, coverage).sum()) / 8
                coverage += row
    assert float(coverage_loss(weights, mask)) == pytest.approx(expected)


def test_coverage_loss_has_the_right_gradient() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(4) < torch.tensor([4, 2])[:, None]
    assert torch.autograd.gradcheck(lambda x: coverage_loss(x.softmax(-1), mask), scores)
    coverage_loss(scores.softmax(-1), mask).backward()
    assert scores.grad is not None
    assert (scores.grad[1, :, :, 2:] == 0).all()  # positions after the last one that counts have no influence
    assert (scores.grad[1, :, :, :2] != 0).all()


def test_coverage_loss_of_bf16_weights_is_summed_in_fp32() -> None:
    torch.manual_seed(0)
    weights = attention(4, 1, 2, 60, 20).to(torch.bfloat16)
    mask = torch.ones(4, 60, dtype=torch.bool)
    torch.testing.assert_close(coverage_loss(weights, mask), coverage_loss(weights.float(), mask), rtol=0, atol=0)


def test_coverage_loss_never_waits_for_the_device() -> None:
    """Tensors on the meta device have no values: an operation that reads one fails."""
    weights = torch.empty(2, 1, 3, 5, 4, device="meta")
    assert coverage_loss(weights, torch.empty(2, 5, dtype=torch.bool, device="meta")).shape == ()
    with pytest.raises((RuntimeError, NotImplementedError)):
        weights[weights > 0].sum().item()


def test_divergence_is_the_symmetric_kl() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2 * (LOSS_CHUNK_ROWS + 3), 7, dtype=torch.float64, requires_grad=True)
    p, q = logits.detach().softmax(-1).chunk(2)
    expected = torch.nn.functional.kl_div(q.log(), p, reduction="sum") + torch.nn.functional.kl_div(
        p.log(), q, reduction="sum"
    )
    torch.testing.assert_close(symmetric_kl(logits), expected)
    assert symmetric_kl(logits[:3].repeat(2, 1)).item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.gradcheck(symmetric_kl, (logits[:12].detach().requires_grad_(),))
    halves = [part.log_softmax(-1) for part in logits.chunk(2)]
    by_autograd = ((halves[0].exp() - halves[1].exp()) * (halves[0] - halves[1])).sum()
    (reference,) = torch.autograd.grad(by_autograd, logits)
    (chunked,) = torch.autograd.grad(symmetric_kl(logits) * 1.0, logits)
    torch.testing.assert_close(chunked, reference)


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_large_logits_are_finite(size: float) -> None:
    """Their exponentials would overflow; the loss of a certain prediction is 0, of the opposite the distance."""
    logits = (size * torch.eye(4)).requires_grad_()
    for labels, expected in ((torch.arange(4), 0.0), ((torch.arange(4) + 1) % 4, 4 * size)):
        loss, nll = cross_entropy(logits, labels)
        torch.testing.assert_close(torch.stack([loss, nll]), torch.full((2,), expected))
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()
    divergence = symmetric_kl(torch.cat([logits, logits.roll(1, 1)]))
    torch.testing.assert_close(divergence, torch.tensor(8 * size))


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("rows", [0, 3, 512, 700])
def test_the_loss_with_its_output_layer(precision: str, rows: int) -> None:
    """Equal to both one after the other; weighted, as the sums of an update are."""
    torch.manual_seed(1)
    dtype = torch.float64 if precision == "fp64" else torch.float32
    output = Linear(16, 90).to(dtype)
    features, labels = torch.randn(rows, 16, dtype=dtype) * 3, torch.randint(0, 90, (rows,))
    results = []
    for fused in (True, False):
        output.zero_grad()
        x = features.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            if fused:
                loss, nll = output_cross_entropy(output, x, labels, smoothing=0.1)
            else:
                loss, nll = cross_entropy(output(x), labels, smoothing=0.1)
        (0.01 * loss).backward()
        assert not nll.requires_grad
        results.append([loss.detach(), nll, x.grad, output.weight.grad, output.bias.grad])
        assert all(tensor.dtype == dtype for tensor in results[-1][2:])
    tolerance = {"fp64": 1e-10, "fp32": 1e-5, "bf16": 2e-2}[precision]
    for mine, both in zip(*results, strict=True):
        torch.testing.assert_close(mine.to(both.dtype), both, rtol=tolerance, atol=tolerance)


def test_the_loss_with_its_output_layer_needs_no_gradient() -> None:
    output, x, labels = Linear(8, 20), torch.randn(5, 8), torch.randint(0, 20, (5,))
    with torch.no_grad():
        values = output_cross_entropy(output, x, labels)
        torch.testing.assert_close(values, cross_entropy(output(x), labels))
