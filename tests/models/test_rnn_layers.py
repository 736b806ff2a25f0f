"""Recurrent layers written as loops, against torch's own."""

from typing import Any

import pytest
import torch
from torch import nn

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
