"""Linear layers on oneDNN: the numbers of torch's own, and rows that do not depend on those beside them."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from nmt.attention import linear as module
from nmt.attention.linear import Linear, linear, loop_over, packed_weights, weight_gradient


def pair(wide: int, narrow: int, *, bias: bool) -> tuple[Linear, nn.Linear]:
    """Return a layer and torch's own with the same parameters."""
    torch.manual_seed(1)
    own = Linear(wide, narrow, bias=bias)
    other = nn.Linear(wide, narrow, bias=bias)
    other.load_state_dict(own.state_dict())
    return own, other


@pytest.mark.parametrize(("wide", "narrow"), [(24, 40), (40, 24), (1, 7), (7, 1)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (1,), (0,), (2, 0)])
def test_equals_that_of_torch(wide: int, narrow: int, bias: bool, shape: tuple[int, ...]) -> None:
    own, other = pair(wide, narrow, bias=bias)
    x = torch.randn(*shape, wide)
    results = []
    for layer in (own, other):
        given = x.clone().requires_grad_()
        y = layer(given)
        (y * torch.arange(float(y.numel())).view(y.shape)).sum().backward()
        results.append((y.detach(), given.grad, *(parameter.grad for parameter in layer.parameters())))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_strides_and_what_needs_no_gradient() -> None:
    own, other = pair(12, 20, bias=True)
    x = torch.randn(12, 9).t()
    torch.testing.assert_close(own(x), other(x))
    own.weight.requires_grad_(requires_grad=False)
    own(x).sum().backward()
    assert own.weight.grad is None
    torch.testing.assert_close(own.bias.grad, torch.full((20,), 9.0))
    g, x = torch.randn(6, 9), torch.randn(6, 5)
    for a, b in ((g, x), (x, g)):
        torch.testing.assert_close(weight_gradient(a, b), a.t() @ b)
        torch.testing.assert_close(weight_gradient(a.double(), b.double()), (a.t() @ b).double(), atol=1e-5, rtol=1e-5)


def test_other_precisions_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = pair(12, 20, bias=True)
    x = torch.randn(5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(own(x), other(x))
    assert torch.equal(own.double()(x.double()), other.double()(x.double()))
    monkeypatch.setattr(module, "has_onednn", lambda: False)
    own, other = pair(12, 20, bias=True)
    assert torch.equal(own(x), other(x))
    assert torch.equal(linear(x, own.weight), nn.functional.linear(x, own.weight))


@pytest.mark.parametrize(("wide", "narrow"), [(64, 64), (256, 1024), (1024, 256), (300, 77), (256, 8000)])
def test_a_row_does_not_depend_on_the_others(wide: int, narrow: int) -> None:
    torch.manual_seed(2)
    x, weight, bias = torch.randn(330, wide), torch.randn(narrow, wide), torch.randn(narrow)
    expected = linear(x, weight, bias)
    for rows in (16, 17, 23, 32, 40, 64, 100, 160, 320):
        assert torch.equal(linear(x[:rows], weight, bias), expected[:rows])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_weight_of_a_loop_has_the_gradients_of_its_steps(bias: bool, dtype: torch.dtype) -> None:
    own, other = pair(6, 6, bias=bias)
    gradients = []
    for layer, is_loop in ((own.to(dtype), True), (other.to(dtype), False)):
        x = torch.linspace(-1, 1, 24, dtype=dtype).view(4, 6).requires_grad_()
        state = x
        with loop_over(layer) if is_loop else contextlib.nullcontext():
            for _ in range(3):
                state = layer(state.tanh())
        assert not is_loop or own.loop is None
        state.square().sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in layer.parameters())])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_loop_uses_the_precision_of_autocast() -> None:
    own, other = pair(16, 16, bias=True)
    x = torch.randn(5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        with loop_over(own):
            y = own(x)
        assert torch.equal(y, other(x))
    y.float().sum().backward()
    assert own.weight.grad is not None
    assert own.weight.grad.dtype == torch.float32


def test_without_gradients_there_is_no_loop() -> None:
    own, _ = pair(4, 4, bias=True)
    with torch.no_grad(), loop_over(own):
        assert own.loop is None


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.bf16)])
def test_packed_weights(precision: str) -> None:
    """Rows do not depend on those beside them, changed weights are packed again, and training knows nothing of it."""
    own, other = pair(48, 96, bias=True)
    x = torch.randn(70, 48)
    tolerance = 1e-5 if precision == "fp32" else 3e-2
    with torch.no_grad(), packed_weights(own, precision):
        y = own(x)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, other(x), rtol=tolerance, atol=tolerance)
        for rows in (16, 17, 40, 64):
            assert torch.equal(own(x[:rows]), y[:rows])
        with torch.enable_grad():
            torch.testing.assert_close(own(x), other(x))
    with torch.no_grad():
        torch.testing.assert_close(own(x), other(x))  # outside the block in fp32
        packs = dict(own.packs)
        with packed_weights(own, precision):
            assert own.packs == packs
        own.weight.mul_(2)
        other.weight.mul_(2)
        with packed_weights(own, precision):
            torch.testing.assert_close(own(x), other(x), rtol=tolerance, atol=2 * tolerance)
        assert not copy.deepcopy(own).packs
        assert own.train().packs == {}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_without_packing_the_precision_is_that_of_autocast(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA."""
    entered: list[tuple[str, str]] = []

    def recorded(name: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
        entered.append((name, device.type))
        return contextlib.nullcontext()

    monkeypatch.setattr(module, "autocast", recorded)
    monkeypatch.setattr(module, "has_onednn", lambda: False)
    with packed_weights(Linear(3, 4), precision):
        pass
    assert entered == [(precision, "cpu")]


def test_fp16_on_a_cpu_is_autocast() -> None:
    layer, other = pair(16, 8, bias=True)
    x = torch.randn(3, 16)
    with torch.no_grad(), packed_weights(layer, "fp16"):
        result = layer(x)
    assert result.dtype == torch.float16
    torch.testing.assert_close(result.float(), other(x), atol=5e-3, rtol=0)
