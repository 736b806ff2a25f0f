"""Rotary position embedding."""

import torch
from torch import Tensor


def apply_rotary(x: Tensor, start: int, base: float = 10000.0) -> Tensor:
    """Rotate each pair of coordinates (i, i + D/2) of position p by p · base^(-2i/D): Su et al. 2021, equation 34.

    Inner products of rotated vectors depend on the distance of their positions only.

    Args:
        x: (B, H, T, D), D even.
        start: position of the first.
    """
    half = x.size(-1) // 2
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    speeds = base ** (-torch.arange(half, device=x.device, dtype=dtype) / half)
    angles = torch.arange(start, start + x.size(-2), device=x.device, dtype=dtype).unsqueeze(-1) * speeds  # (T, D/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
