"""The cross-entropy against torch's; the coverage loss by hand and against a loop."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import nmt.training
from nmt.attention.linear import Linear
from nmt.training import losses
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


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU, where Triton is told not to run; on a CPU it is computed."""

    is_cpu = False


def losses_of(kind: type[torch.Tensor], rows: int, precision: str, features: str = "fp32") -> list[torch.Tensor]:
    """Every loss and its gradients, of tensors of this kind."""
    torch.manual_seed(1)
    dtype = torch.float64 if precision == "fp64" else torch.float32
    layer = Linear(16, 30).to(dtype)
    output: Any = SimpleNamespace(**{name: p.detach().as_subclass(kind) for name, p in layer.named_parameters()})
    x = (3 * torch.randn(rows, 16, dtype=dtype)).to(torch.bfloat16 if features == "bf16" else dtype).as_subclass(kind)
    logits, labels = torch.randn(rows, 30, dtype=dtype).as_subclass(kind), torch.randint(0, 30, (rows,))
    if precision == "bf16":
        logits = logits.to(torch.bfloat16)
    for tensor in (x, output.weight, output.bias, logits):
        tensor.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        first, nll = output_cross_entropy(output, x, labels, smoothing=0.1)
        results = [first, nll, *torch.autograd.grad(0.01 * first, (x, output.weight, output.bias))]
        second, nll = cross_entropy(logits, labels, smoothing=0.1)
        results += [second, nll, *torch.autograd.grad(0.01 * second, logits)]
        third = symmetric_kl(logits)
        results += [third, *torch.autograd.grad(0.01 * third, logits)]
    return [result.detach().as_subclass(torch.Tensor) for result in results]


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("rows_of_a_chunk", [3, 1000])
@pytest.mark.parametrize("rows", [0, 10])
def test_a_gpu_without_triton_computes_the_same(
    precision: str, rows_of_a_chunk: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = losses_of(torch.Tensor, rows, precision)
    monkeypatch.setattr(losses, "GPU_LOSS_CHUNK", rows_of_a_chunk * 30 + 1)
    monkeypatch.setattr(losses, "GPU_OUTPUT_CHUNK", rows_of_a_chunk * 30 + 1)
    found = losses_of(OnGpu, rows, precision)
    for mine, plain in zip(found, expected, strict=True):
        assert mine.dtype == plain.dtype
        tolerance = {"fp64": 1e-10, "fp32": 1e-5, "bf16": 1e-2}[precision]
        torch.testing.assert_close(mine, plain, rtol=tolerance, atol=tolerance / 10)


def test_a_chunk_on_a_gpu_holds_at_most_so_many_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = losses._smoothed_cross_entropy
    monkeypatch.setattr(
        losses, "_smoothed_cross_entropy", lambda logits, *rest: (sizes.append(logits.size(0)), real(logits, *rest))[1]
    )
    monkeypatch.setattr(losses, "GPU_OUTPUT_CHUNK", 100)
    losses_of(OnGpu, 8, "fp32")
    assert sizes == [3, 3, 2, 8]  # rows of 30; `cross_entropy` is given all logits
    sizes.clear()
    monkeypatch.setattr(losses, "GPU_OUTPUT_CHUNK", 29)
    losses_of(OnGpu, 2, "fp32")
    assert sizes == [1, 1, 2]


class Launches(TorchDispatchMode):
    """The operations that would be launched on a GPU: all but those that give views and empty tensors."""

    FREE = (
        "empty",
        "view",
        "t.",
        "split",
        "detach",
        "unbind",
        "promote_types",
        "reshape",
        "alias",
        "expand",
        "unsqueeze",
        "chunk",
        "slice",
    )

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if not name.startswith(("new_empty", *self.FREE)):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("features", ["fp32", "bf16"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_few_launches_on_a_gpu(precision: str, features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the losses in Triton, where a kernel is one; nothing reads a value, for which a GPU would be waited for."""
    kernels = SimpleNamespace(
        cross_entropy=lambda logits, labels, smoothing, gradient: logits.new_empty(2, 4, dtype=torch.float32).zero_(),
        symmetric_kl=lambda logits, gradient: logits.new_empty(4, dtype=torch.float32).zero_().sum(),
    )
    monkeypatch.setitem(sys.modules, "nmt.training.losses_triton", kernels)  # type: ignore[misc]
    monkeypatch.setattr(nmt.training, "losses_triton", kernels, raising=False)
    monkeypatch.setattr(losses, "takes_triton", lambda x: True)
    torch.manual_seed(0)
    weight, bias = torch.randn(20, 8), torch.randn(20)
    output: Any = SimpleNamespace(weight=weight.as_subclass(OnGpu), bias=bias.as_subclass(OnGpu))
    x = torch.randn(6, 8, dtype=torch.bfloat16 if features == "bf16" else torch.float32).as_subclass(OnGpu)
    logits, labels = torch.randn(6, 20).as_subclass(OnGpu), torch.randint(0, 20, (6,))
    inputs = [tensor.requires_grad_() for tensor in (x, output.weight, output.bias)]
    upstream = torch.ones(())

    def both(function: Any, inputs: Any) -> list[str]:
        with Launches() as launches, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            result = function()
            torch.autograd.grad(result, inputs, upstream)
        assert "_local_scalar_dense.default" not in launches.names
        return launches.names

    fused = both(lambda: output_cross_entropy(output, x, labels, smoothing=0.1)[0], inputs)
    assert len(fused) <= 10, fused
    assert len(both(lambda: cross_entropy(logits, labels, smoothing=0.1)[0], logits.requires_grad_())) == 3
    assert len(both(lambda: symmetric_kl(logits), logits)) == 3


def test_logits_of_any_strides() -> None:
    torch.manual_seed(0)
    for logits in (torch.randn(7, 4).t(), torch.randn(1, 7).expand(4, 7), torch.randn(4, 14)[:, ::2]):
        labels, copy = torch.randint(0, 7, (4,)), logits.clone(memory_format=torch.contiguous_format)
        for loss in (lambda x: cross_entropy(x, labels, smoothing=0.1)[0], symmetric_kl):  # noqa: B023
            found, expected = (
                torch.autograd.grad(loss(x), x) for x in (y.detach().requires_grad_() for y in (logits, copy))
            )
            torch.testing.assert_close(found, expected)
            assert found[0].is_contiguous()  # as the kernels write it
