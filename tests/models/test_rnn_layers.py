"""Recurrent layers written as loops, against torch's own."""

from typing import Any

import pytest
import torch
from torch import nn

from nmt.models import rnn_layers
from nmt.models.rnn_layers import CELLS, next_state

TORCH: dict[str, Any] = {"gru": nn.GRU, "lstm": nn.LSTM}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("has_initial", [True, False])
def test_a_layer_equals_that_of_torch(cell: str, has_initial: bool) -> None:
    """Outputs, last states, and every gradient."""
    torch.manual_seed(1)
    own, other = CELLS[cell](5, 7, batch_first=True).double(), TORCH[cell](5, 7, batch_first=True).double()
    other.load_state_dict(own.state_dict())
    assert isinstance(own, type(other))
    data, start = torch.randn(3, 4, 5).double(), torch.randn(2, 1, 3, 7).double()
    results = []
    for layer in (own, other):
        x, initial = data.clone().requires_grad_(), start.clone().requires_grad_()
        given = None if not has_initial else tuple(initial) if cell == "lstm" else initial[0]
        outputs, last = layer(x, given)
        states = last if cell == "lstm" else (last,)
        loss = outputs.square().sum() + sum((number + 2) * state.sum() for number, state in enumerate(states))
        loss.backward()
        gradients = [parameter.grad for parameter in layer.parameters()]
        results.append([outputs, *states, x.grad, *gradients, *([initial.grad] if has_initial else [])])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.equal(own.eval()(data)[0], own.train()(data)[0])


@pytest.mark.parametrize("num_states", [1, 2])
def test_the_gradients_of_the_gates(num_states: int) -> None:
    torch.manual_seed(1)
    width = 3 * (2 + num_states)
    gates, recurrent = (torch.randn(4, width, dtype=torch.float64, requires_grad=True) for _ in range(2))
    state = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(num_states)]

    def run(gates: torch.Tensor, recurrent: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return next_state(gates, recurrent, state)

    assert torch.autograd.gradcheck(run, (gates, recurrent, *state))


@pytest.mark.parametrize("cell", CELLS)
def test_bf16_gates(cell: str) -> None:
    width = 6 * (3 if cell == "gru" else 4)
    gates, recurrent = (torch.randn(4, width).bfloat16().requires_grad_() for _ in range(2))
    state = (torch.randn(4, 6),) * (1 if cell == "gru" else 2)
    after = next_state(gates, recurrent, state)
    assert after[-1].dtype == torch.float32
    expected = next_state(gates.float(), recurrent.float(), state)
    tolerance = 1e-6 if cell == "gru" else 2e-2
    torch.testing.assert_close(after[0].float(), expected[0], rtol=tolerance, atol=tolerance)
    after[0].sum().backward()
    assert gates.grad is not None
    assert gates.grad.dtype == torch.bfloat16


class FakeKernels:
    """CUDA's cell kernels on a CPU: forward as our formula, backward as torch's own derivative of the operators."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        monkeypatch.setattr(rnn_layers, "_has_fused_cell", lambda gates: True)
        for name in ("lstm_cell", "gru_cell", "lstm_cell_backward_impl", "gru_cell_backward"):
            getattr(torch.ops.aten, f"_thnn_fused_{name}")  # which keeps it there
            monkeypatch.setattr(torch.ops.aten, f"_thnn_fused_{name}", getattr(self, name))

    def _check(self, name: str, *tensors: torch.Tensor) -> None:
        assert len({tensor.dtype for tensor in tensors}) == 1, "CUDA's kernels take one dtype"
        assert tensors[0].dtype in (torch.float32, torch.float64)
        assert not torch.is_autocast_enabled("cpu")
        self.calls.append(name)

    def lstm_cell(self, gates: torch.Tensor, recurrent: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self._check("lstm", gates, recurrent, cell)
        i, f, g, o = (gates + recurrent).chunk(4, 1)
        after = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * after.tanh(), after, torch.cat([gates, recurrent], 1)

    def gru_cell(self, gates: torch.Tensor, recurrent: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self._check("gru", gates, recurrent, hidden)
        (r, z, n), (hr, hz, hn) = gates.chunk(3, 1), recurrent.chunk(3, 1)
        new, update = (n + (r + hr).sigmoid() * hn).tanh(), (z + hz).sigmoid()
        return new + update * (hidden - new), torch.cat([gates, recurrent, hidden], 1)

    def lstm_cell_backward_impl(
        self,
        grad: torch.Tensor,
        grad_cell: torch.Tensor,
        before: torch.Tensor,
        after: torch.Tensor,
        kept: Any,
        bias: bool,
    ) -> tuple[torch.Tensor, ...]:
        assert not bias
        gates, recurrent = kept.chunk(2, 1)
        grads = torch.ops.aten._thnn_differentiable_lstm_cell_backward(
            grad, grad_cell, gates, recurrent, None, None, before, after
        )
        return grads[0], grads[2], torch.empty(0)

    def gru_cell_backward(self, grad: torch.Tensor, kept: torch.Tensor, bias: bool) -> tuple[torch.Tensor, ...]:
        assert not bias
        width = grad.size(1)
        parts = kept.split([3 * width, 3 * width, width], 1)
        return tuple(torch.ops.aten._thnn_differentiable_gru_cell_backward(grad, *parts, None, None))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_cuda_s_kernels_are_called_for_the_same_states_and_gradients(
    cell: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    width = 6 * rnn_layers.GATES[cell]
    gates, recurrent = (torch.randn(4, width, dtype=torch.bfloat16 if half else torch.float64) for _ in range(2))
    state = torch.randn(2 if cell == "lstm" else 1, 4, 6, dtype=torch.float32 if half else torch.float64)
    grads = torch.randn_like(state)

    def run() -> list[torch.Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in (gates, recurrent, *state)]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            after = next_state(leaves[0], leaves[1], tuple(leaves[2:]))
        assert [tensor.dtype for tensor in after] == [state.dtype] * len(state)
        torch.autograd.backward(after, list(grads))
        assert all(leaf.grad is None or leaf.grad.dtype == leaf.dtype for leaf in leaves)
        return [*after, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    plain, kernels = run(), FakeKernels(monkeypatch)
    fused = run()
    assert kernels.calls == [cell]
    for one, other in zip(fused, plain, strict=True):
        tolerance = {"rtol": 3e-2, "atol": 3e-2} if half else {}
        torch.testing.assert_close(one, other, **tolerance)


def test_no_kernel_is_called_where_there_is_none() -> None:
    assert not rnn_layers._has_fused_cell(torch.randn(4, 12))
    assert not rnn_layers._has_fused_cell(torch.empty(0, 12))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("has_initial", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_cudnn_s_layers_never_run_in_half_precision_for_bf16(
    cell: str, has_initial: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under bf16 autocast off a CPU they run in fp32, without autocast; under fp16 as torch runs them."""
    seen: list[Any] = []

    def forward(layer: Any, x: torch.Tensor, initial: Any = None) -> tuple[torch.Tensor, Any]:
        initial = (initial,) if isinstance(initial, torch.Tensor) else initial or ()
        seen.append([x.dtype, *(tensor.dtype for tensor in initial), torch.is_autocast_enabled("cuda")])
        return x, None

    widened = rnn_layers.fp32_in_place_of_half
    monkeypatch.setattr(rnn_layers, "fp32_in_place_of_half", lambda device: widened(torch.device("cuda")))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # no loop for the GRU, as off a CPU
    monkeypatch.setattr(TORCH[cell], "forward", forward)
    layer, x = CELLS[cell](5, 7, batch_first=True), torch.randn(3, 4, 5, dtype=dtype)
    state = torch.randn(1, 3, 7, dtype=dtype)
    usual = torch.get_autocast_dtype("cuda")
    try:
        torch.set_autocast_dtype("cuda", dtype)
        torch.set_autocast_enabled("cuda", True)
        layer(x, None if not has_initial else (state, state) if cell == "lstm" else state)
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", usual)
    is_wide = dtype == torch.bfloat16
    num = 1 + has_initial * (2 if cell == "lstm" else 1)
    assert seen == [[*[torch.float32 if is_wide else dtype] * num, not is_wide]]
    seen.clear()
    layer(x)
    assert seen == [[dtype, False]]


@pytest.mark.parametrize("cell", CELLS)
def test_under_bf16_a_cpu_without_it_computes_recurrent_layers_in_fp32(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rnn_layers, "cpu_has_bf16", lambda: False)
    layer, x = CELLS[cell](5, 7, batch_first=True), torch.randn(3, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = layer(x.bfloat16())
    expected, _ = TORCH[cell].forward(layer, x.bfloat16().float())
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, expected)
