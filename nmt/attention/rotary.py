"""Rotary position embedding."""

import functools

import torch
from torch import Tensor

MAX_FIXED_POSITIONS = 4096
"""Rows of the tables for positions that are known on the device only."""


def apply_rotary(x: Tensor, start: Tensor | int, base: float = 10000.0) -> Tensor:
    """Rotate each pair of coordinates (i, i + D/2) of position p by p · base^(-2i/D): Su et al. 2021, equation 34.

    Inner products of rotated vectors depend on the distance of their positions only.

    Args:
        x: (B, H, T, D), D even.
        start: position of the first: a number, or a tensor () for T = 1, below `MAX_FIXED_POSITIONS`.
    """
    half = x.size(-1) // 2
    if isinstance(start, int):
        cos, sin = _turns(start, start + x.size(-2), half, x.dtype, x.device, base)
    else:
        table = _turn_table(half, x.dtype, x.device, base)
        cos, sin = (rows.index_select(0, start.view(1)) for rows in table)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _turns(
    start: int, stop: int, half: int, dtype: torch.dtype, device: torch.device, base: float
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles of positions from `start` to `stop`, (T, half) each."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    speeds = base ** (-torch.arange(half, device=device, dtype=wide) / half)
    angles = torch.arange(start, stop, device=device, dtype=wide).unsqueeze(-1) * speeds
    return angles.cos().to(dtype), angles.sin().to(dtype)


@functools.lru_cache(maxsize=16)
def _turn_table(half: int, dtype: torch.dtype, device: torch.device, base: float) -> tuple[Tensor, Tensor]:
    return _turns(0, MAX_FIXED_POSITIONS, half, dtype, device, base)
