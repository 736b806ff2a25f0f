"""Components that several architectures share."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nmt.attention.dropout import ByteMaskDropout
from nmt.attention.linear import Linear
from nmt.attention.rotary import MAX_FIXED_POSITIONS

TIES = ("none", "output", "all")
POSITIONS = ("sinusoidal", "learned", "rotary")
NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "rms": lambda width: nn.RMSNorm(width, eps=1e-6)}
"""Ba et al. 2016; Zhang & Sennrich 2019."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "swiglu": nn.functional.silu,
}
"""Of a feed-forward layer; "swiglu" multiplies it by a second projection (Shazeer 2020, equation 6)."""


def make_embedding(num: int, dim: int, pad: int) -> nn.Embedding:
    """Return an embedding table N(0, 1/dim) whose padding row is zero, which can be the output matrix as well."""
    table = nn.Embedding(num, dim, padding_idx=pad)
    with torch.no_grad():
        table.weight.normal_(0, dim**-0.5)
        table.weight[pad].zero_()
    return table


def to_autocast_dtype(x: Tensor) -> Tensor:
    """Return x in the dtype of autocast, where that is on: projections of the same x then share one copy of it."""
    device = x.device.type
    is_on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if is_on else x


class FeedForward(nn.Module):
    """W₂ f(W₁ x): Vaswani et al. 2017, equation 2; with "swiglu" W₂ (silu(W₁ x) * W₃ x).

    Args:
        width: of x and of the result.
        hidden: of W₁ x.
        activation: a key of `ACTIVATIONS`.
        dropout: after the activation.
    """

    def __init__(self, width: int, hidden: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.is_gated = activation == "swiglu"
        self.activation = ACTIVATIONS[activation]
        self.inner = Linear(width, 2 * hidden if self.is_gated else hidden)
        self.outer = Linear(hidden, width)
        self.dropout = ByteMaskDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        x = self.inner(x)
        if self.is_gated:
            x, gate = x.chunk(2, dim=-1)
            x = self.activation(x) * gate
        else:
            x = self.activation(x)
        outer: Tensor = self.outer(self.dropout(x))
        return outer


def sinusoidal_embedding(start: int, num: int, width: int, like: Tensor) -> Tensor:
    """Return rows [sin | cos] of p · 10000^(-2i/width) for `num` positions p from `start` on, (num, width).

    Vaswani et al. 2017, section 3.5, sines and cosines not interleaved.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    speeds = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=dtype) * (-math.log(10000.0) / width))
    angles = torch.arange(start, start + num, device=like.device, dtype=dtype).unsqueeze(-1) * speeds
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@functools.lru_cache(maxsize=16)
def _sinusoids(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return sinusoidal_embedding(0, MAX_FIXED_POSITIONS, width, torch.empty(0, dtype=dtype, device=device))


class PositionalEmbedding(nn.Module):
    """Embeddings times √width plus their positions (Vaswani et al. 2017, 3.4 and 3.5).

    Args:
        kind: sinusoidal, learned (a table of `max_positions` rows), or rotary (nothing is added here: attention rotates
            its queries and keys).
        width: even.
        max_positions: rows of the learned table.
    """

    def __init__(self, kind: str, width: int, max_positions: int) -> None:
        super().__init__()
        self.kind = kind
        self.table = nn.Parameter(torch.randn(max_positions, width) * 0.02) if kind == "learned" else None

    def forward(self, x: Tensor, start: Tensor | int = 0) -> Tensor:
        """Add positions to x (B, T, width), the first of which is `start` -> (B, T, width). For T = 1 it may be a
        tensor (), below `MAX_FIXED_POSITIONS` and not checked.

        Raises:
            ValueError: a sentence is longer than the learned table.
        """
        num, width = x.shape[1:]
        x = x * math.sqrt(width)
        if isinstance(start, Tensor):
            if self.kind == "rotary":
                return x
            table = _sinusoids(width, x.dtype, x.device) if self.table is None else self.table
            return x + table.index_select(0, start.view(1))
        if self.table is None:
            return x + sinusoidal_embedding(start, num, width, x) if self.kind == "sinusoidal" else x
        if start + num > self.table.size(0):
            raise ValueError(
                f"a sentence of {start + num} tokens is longer than model.max_positions={self.table.size(0)}, the "
                "learned positions: train with a larger table, or with model.positions=sinusoidal or rotary"
            )
        return x + self.table[start : start + num]
