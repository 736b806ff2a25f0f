"""The additive score as Triton kernels for CUDA: forward and backward without the (B, H, *, T, S, D) tensor.

Imported only where there is a GPU and Triton, which torch's CUDA wheels include. So far the kernels have been tested in
Triton's interpreter only: values and gradients, not speed, and not on a GPU.
"""

# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, misc, no-untyped-call"

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32
"""Queries, and keys, of a tile."""
WIDTH = 64
"""Columns of a tile of gradients, at most."""


@triton.jit
def _scores(query, keys, v, scores, inner, heads, T, S, D, rows: tl.constexpr):  # noqa: N803
    """Compute one tile (rows, rows) of scores per program, summed over the width in registers.

    query (N, T, D), keys (N, S, D), v (heads, D) and scores (N, T, S) are contiguous; n = (b · heads + h) · inner + m.
    """
    n = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * rows + tl.arange(0, rows)
    s = tl.program_id(2) * rows + tl.arange(0, rows)
    query_row = query + (n * T + t) * D
    key_row = keys + (n * S + s) * D
    v_row = v + (n // inner) % heads * D
    total = tl.zeros((rows, rows), tl.float32)
    for d in range(D):
        q = tl.load(query_row + d, mask=t < T, other=0.0).to(tl.float32)
        k = tl.load(key_row + d, mask=s < S, other=0.0).to(tl.float32)
        r = 1 / (1 + tl.exp(2 * (q[:, None] + k[None, :])))
        total += tl.load(v_row + d).to(tl.float32) * (1 - 2 * r)
    offset = scores + (n * T + t[:, None]) * S + s[None, :]
    tl.store(offset, total, mask=(t[:, None] < T) & (s[None, :] < S))


@triton.jit
def _gradient(
    inputs, columns, v, grad, grad_inputs, grad_v, inner, heads, R, C, D, row_stride, column_stride,  # noqa: N803
    with_v: tl.constexpr, rows: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Compute one tile (rows, width) of ∂inputs = 4v Σ_columns g r(1 - r) per program, and its part of ∂v; no atomics.

    inputs (N, R, D) are the queries and columns (N, C, D) the keys, or vice versa: only the strides of grad differ,
    whose entry is at n · R · C + r · row_stride + c · column_stride. grad_v (N, row tiles, D) is summed by the caller.
    """
    n = tl.program_id(0).to(tl.int64)
    r = tl.program_id(1) * rows + tl.arange(0, rows)
    d = tl.program_id(2) * width + tl.arange(0, width)
    inside = (r[:, None] < R) & (d[None, :] < D)
    offset = (n * R + r[:, None]) * D + d[None, :]
    row_tile = tl.load(inputs + offset, mask=inside, other=0.0).to(tl.float32)
    grad_row = grad + n * R * C + r * row_stride
    total = tl.zeros((rows, width), tl.float32)
    total_v = tl.zeros((rows, width), tl.float32)
    for c in range(C):
        column_tile = tl.load(columns + (n * C + c) * D + d, mask=d < D, other=0.0).to(tl.float32)
        g = tl.load(grad_row + c * column_stride, mask=r < R, other=0.0).to(tl.float32)
        gate = 1 / (1 + tl.exp(2 * (row_tile + column_tile[None, :])))
        total += g[:, None] * (gate * (1 - gate))
        if with_v:
            total_v += g[:, None] * (1 - 2 * gate)
    weight = tl.load(v + (n // inner) % heads * D + d, mask=d < D, other=0.0).to(tl.float32)
    tl.store(grad_inputs + offset, (4 * weight[None, :] * total).to(grad_inputs.dtype.element_ty), mask=inside)
    if with_v:
        tile = n * tl.num_programs(1) + tl.program_id(1)
        tl.store(grad_v + tile * D + d, tl.sum(total_v, 0), mask=d < D)


def forward(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    """Compute scores in float32: (B, H, *, T, D), (B, H, *, S, D), (H, D) -> (B, H, *, T, S)."""
    query, keys, v = query.contiguous(), keys.contiguous(), v.contiguous()
    (length, width), source = query.shape[-2:], keys.shape[-2]
    scores = torch.empty((*query.shape[:-1], source), dtype=torch.float32, device=query.device)
    grid = (math.prod(query.shape[:-2]), triton.cdiv(length, ROWS), triton.cdiv(source, ROWS))
    inner = math.prod(query.shape[2:-2])
    _scores[grid](query, keys, v, scores, inner, len(v), length, source, width, rows=ROWS)
    return scores


def backward(query: Tensor, keys: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of query, keys and v, each in its argument's dtype, from that of the scores, (B, H, *, T,
    S)."""
    query, keys, v, grad = query.contiguous(), keys.contiguous(), v.contiguous(), grad.contiguous()
    (length, width), source = query.shape[-2:], keys.shape[-2]
    batch, heads, inner = query.shape[0], query.shape[1], math.prod(query.shape[2:-2])
    grad_query, grad_keys = torch.empty_like(query), torch.empty_like(keys)
    tiles = triton.cdiv(length, ROWS)
    grad_v_parts = torch.empty((batch, heads, inner * tiles, width), dtype=torch.float32, device=query.device)
    tile_width = min(WIDTH, triton.next_power_of_2(width))
    across = batch * heads * inner, triton.cdiv(width, tile_width)
    _gradient[across[0], tiles, across[1]](
        query, keys, v, grad, grad_query, grad_v_parts, inner, heads, length, source, width, source, 1,
        with_v=True, rows=ROWS, width=tile_width,
    )  # fmt: skip
    _gradient[across[0], triton.cdiv(source, ROWS), across[1]](
        keys, query, v, grad, grad_keys, grad_v_parts, inner, heads, source, length, width, 1, source,
        with_v=False, rows=ROWS, width=tile_width,
    )  # fmt: skip
    return grad_query, grad_keys, grad_v_parts.sum((0, 2)).to(v.dtype)
