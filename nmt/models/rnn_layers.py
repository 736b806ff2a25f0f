"""Recurrent layers: a bidirectional encoder, and a cell for decoders with a recurrent input."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nmt.attention.dropout import ByteMaskDropout
from nmt.attention.linear import Linear, LoopWeight, at_least_fp32
from nmt.runtime.device import cpu_has_bf16

GATES = {"gru": 3, "lstm": 4}


class _GRUGates(torch.autograd.Function):
    """r, z = σ(a + b), n = tanh(a + r b), h' = n + z (h - n), in at least fp32."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, recurrent: Tensor, hidden: Tensor) -> Tensor:
        width, ctx.dtypes = hidden.size(-1), (gates.dtype, recurrent.dtype, hidden.dtype)
        gates, recurrent, hidden = map(at_least_fp32, (gates, recurrent, hidden))
        r, z = (gates[:, : 2 * width] + recurrent[:, : 2 * width]).sigmoid_().chunk(2, dim=-1)
        b = recurrent[:, 2 * width :]
        n = torch.addcmul(gates[:, 2 * width :], r, b).tanh_()
        ctx.save_for_backward(r, z, n, b, hidden)
        return torch.lerp(n, hidden, z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        r, z, n, b, hidden = ctx.saved_tensors
        grad_hidden = grad * z
        grad_n = (grad - grad_hidden) * (1 - n * n)
        grad_z = grad_hidden * (hidden - n) * (1 - z)
        grad_r = grad_n * b * r * (1 - r)
        grads = torch.cat([grad_r, grad_z, grad_n], -1), torch.cat([grad_r, grad_z, grad_n * r], -1), grad_hidden
        return tuple(tensor.to(dtype) for tensor, dtype in zip(grads, ctx.dtypes, strict=True))


class _FusedCell(torch.autograd.Function):
    """`next_state` and its gradient by one CUDA kernel each, in at least fp32.

    torch's own formula of the gradient would keep the gates as well, for a second derivative.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, recurrent: Tensor, last: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = gates.dtype, recurrent.dtype, last.dtype
        gates, recurrent, last = map(at_least_fp32, (gates, recurrent, last))
        is_lstm, aten = gates.size(1) == GATES["lstm"] * last.size(1), torch.ops.aten
        with torch.autocast(gates.device.type, enabled=False):  # which would narrow the arguments
            if not is_lstm:
                hidden, workspace = aten._thnn_fused_gru_cell(gates, recurrent, last)
                ctx.save_for_backward(workspace)
                return (hidden,)
            hidden, cell, workspace = aten._thnn_fused_lstm_cell(gates, recurrent, last)
        ctx.save_for_backward(workspace, last, cell)
        return hidden, cell

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (workspace, *cells), aten = ctx.saved_tensors, torch.ops.aten
        if cells:
            both, grad_last, _ = aten._thnn_fused_lstm_cell_backward_impl(*grads, *cells, workspace, False)
            results = both, both, grad_last
        else:
            results = aten._thnn_fused_gru_cell_backward(*grads, workspace, False)[:3]
        return tuple(tensor.to(dtype) for tensor, dtype in zip(results, ctx.dtypes, strict=True))


def _has_fused_cell(gates: Tensor) -> bool:
    """Return whether CUDA has a kernel for this; a compiler makes its own."""
    return gates.is_cuda and gates.numel() > 0 and not torch.compiler.is_compiling()


def next_state(gates: Tensor, recurrent: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the next state of a GRU, (hidden,), or LSTM, (hidden, cell), of (B, D).

    Args:
        gates: (B, 3 or 4 · D), W x + b. recurrent: as wide, U h + b; in the order of torch's own layers.
    """
    if _has_fused_cell(gates):
        after: tuple[Tensor, ...] = _FusedCell.apply(gates, recurrent, state[-1])  # type: ignore[no-untyped-call]
        return after
    if len(state) == 1:
        return (_GRUGates.apply(gates, recurrent, state[0]),)  # type: ignore[no-untyped-call]
    i, f, g, o = (gates + recurrent).chunk(4, dim=-1)
    cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


@contextlib.contextmanager
def fp32_in_place_of_half(device: torch.device) -> Iterator[Callable[[Tensor], Tensor]]:
    """Turn autocast off where torch's recurrent layers do not have its dtype; yield what widens their arguments then.

    cuDNN has no bf16: torch would run it in fp16, and nothing keeps the gradients in that range. oneDNN has no fp16,
    and bf16 on some CPUs only.
    """
    kind = device.type
    missing = {torch.float16} if kind == "cpu" else {torch.bfloat16}
    if kind == "cpu" and not cpu_has_bf16():
        missing.add(torch.bfloat16)
    is_on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if not is_on or torch.get_autocast_dtype(kind) not in missing:
        yield lambda x: x
        return
    with torch.autocast(kind, enabled=False):
        yield at_least_fp32


class LSTM(nn.LSTM):
    """`torch.nn.LSTM`, in fp32 where it has no half precision: see `fp32_in_place_of_half`."""

    def forward(self, x: Tensor, initial: Any = None) -> Any:  # type: ignore[override]
        """(B, T, E), initial states, two of (1, B, D) -> (B, T, D), the last states."""
        with fp32_in_place_of_half(x.device) as widen:
            return super().forward(widen(x), initial and tuple(map(widen, initial)))


class GRU(nn.GRU):
    """`torch.nn.GRU` of one layer, batch first. In fp32 on a CPU it is a loop: torch's own has slow products there (see
    `nmt.attention.linear`), and computes the gradients of its weights at every step; not so its LSTM."""

    def forward(self, x: Tensor, initial: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(B, T, E), initial state (1, B, D) -> (B, T, D), last state (1, B, D)."""
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            with fp32_in_place_of_half(x.device) as widen:
                outputs, last = super().forward(widen(x), None if initial is None else widen(initial))
            return outputs, last
        weights: dict[str, Tensor] = dict(self.named_parameters())
        gates = LoopWeight(weights["weight_ih_l0"], weights["bias_ih_l0"])(x)
        recurrent = LoopWeight(weights["weight_hh_l0"], weights["bias_hh_l0"])
        state = x.new_zeros(x.size(0), self.hidden_size) if initial is None else initial.squeeze(0)
        states = []
        for step in gates.unbind(1):
            (state,) = next_state(step, recurrent(state), (state,))
            states.append(state)
        return torch.stack(states, dim=1), state.unsqueeze(0)


CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": GRU, "lstm": LSTM}


class RNNEncoder(nn.Module):
    """Stacked recurrent layers, each optionally in both directions.

    The backward direction runs over sentences that are reversed within their own length, so that padding always comes
    last and never affects a real position, and no sequence has to be packed.

    Args:
        cell: a key of `CELLS`.
        width: of the embedded source.
        hidden: width of the outputs; each of two directions has half of it.
        layers: number of stacked layers.
        bidirectional: whether each layer runs in both directions.
        dropout: on the embedded source and between layers.
    """

    max_length: int | None = None

    def __init__(self, cell: str, width: int, hidden: int, layers: int, *, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.input_dim, self.dim = width, hidden
        self.layers = nn.ModuleList()
        for _ in range(layers):
            cells = [CELLS[cell](width, hidden // directions, batch_first=True) for _ in range(directions)]
            self.layers.append(nn.ModuleList(cells))
            width = hidden
        self.dropout = ByteMaskDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the embedded source (B, S, D) with mask (B, S) -> outputs (B, S, hidden), last states (B, hidden)."""
        lengths = mask.sum(1, keepdim=True)  # (B, 1)
        steps = torch.arange(mask.size(1), device=mask.device)
        reverse = torch.where(mask, lengths - 1 - steps, steps).unsqueeze(-1)  # (B, S, 1); its own inverse
        last = (lengths - 1).unsqueeze(-1)  # (B, 1, 1)
        for directions in self.layers:
            assert isinstance(directions, nn.ModuleList)
            x = self.dropout(x)
            forwards, _ = directions[0](x)
            ends = [_select(forwards, last)]
            outputs = [forwards]
            if len(directions) == 2:
                backwards, _ = directions[1](_select(x, reverse))
                ends.append(_select(backwards, last))
                outputs.append(_select(backwards, reverse))
            x = torch.cat(outputs, dim=-1)
        return x, torch.cat(ends, dim=-1).squeeze(1)


def _select(x: Tensor, index: Tensor) -> Tensor:
    """Select x (B, S, D) at positions index (B, N, 1) -> (B, N, D)."""
    return x.gather(1, index.expand(-1, -1, x.size(-1)))


class StackedRNNCell(nn.Module):
    """A GRU or LSTM cell for loops: `feed` is computed inside the loop, `token_gates` in one product before it."""

    def __init__(self, cell: str, feed_dim: int, hidden: int) -> None:
        super().__init__()
        self.gates = GATES[cell]
        self.feed = Linear(feed_dim, self.gates * hidden)
        self.hidden = Linear(hidden, self.gates * hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)  # as torch's own recurrent layers

    def forward(self, feed: Tensor, state: tuple[Tensor, ...], token_gates: Tensor | None = None) -> tuple[Tensor, ...]:
        """feed (B, F), state (hidden,) or (hidden, cell) of (B, D), token_gates (B, gates * D) -> the next state."""
        gates, recurrent = self.feed(feed), self.hidden(state[0])
        gates = gates if token_gates is None else gates + token_gates
        return next_state(gates, recurrent, state)
