"""The additive score as Triton kernels for CUDA: forward and backward without the (B, H, *, T, S, D) tensor.

Imported only where there is a GPU. So far the kernels have been compiled for GPUs, and tested in Triton's interpreter
only: values and gradients, not speed. A batch of another length compiles nothing: lengths are not specialized.
"""

# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, misc, no-untyped-call"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nmt.attention.additive_kernel import merge_batch_dims

ROWS = 32
"""Queries, or keys, of a tile, where there are many."""


@triton.jit
def _start(n, inner, heads, batch_stride, head_stride, inner_stride):
    """Compute where matrix n = (b · heads + h) · inner + m of a tensor (B, heads, inner, rows, D) begins."""
    return n // inner // heads * batch_stride + n // inner % heads * head_stride + n % inner * inner_stride


@triton.jit(do_not_specialize=["inner", "T", "S", *(f"{x}{i}" for x in "qk" for i in range(4))])
def _scores(
    query, keys, v, scores, inner, heads, T, S, D, v_stride, q0, q1, q2, q3, k0, k1, k2, k3,  # noqa: N803
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Compute one tile (rows, columns) of scores per program, summed over the width in registers.

    query (B, heads, inner, T, D) has the strides q0 to q3 and 1, keys (B, heads, inner, S, D) k0 to k3 and 1, v
    (heads, D) v_stride and 1; scores (N, T, S) are contiguous, n = (b · heads + h) · inner + m.
    """
    n = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * rows + tl.arange(0, rows)
    s = tl.program_id(2) * columns + tl.arange(0, columns)
    query_row = query + _start(n, inner, heads, q0, q1, q2) + t.to(tl.int64) * q3
    key_row = keys + _start(n, inner, heads, k0, k1, k2) + s.to(tl.int64) * k3
    v_row = v + n // inner % heads * v_stride
    total = tl.zeros((rows, columns), tl.float32)
    for d in range(D):
        q = tl.load(query_row + d, mask=t < T, other=0.0).to(tl.float32)
        k = tl.load(key_row + d, mask=s < S, other=0.0).to(tl.float32)
        r = 1 / (1 + tl.exp(2 * (q[:, None] + k[None, :])))
        total += tl.load(v_row + d).to(tl.float32) * (1 - 2 * r)
    offset = scores + (n * T + t[:, None]) * S + s[None, :]
    tl.store(offset, total, mask=(t[:, None] < T) & (s[None, :] < S))


@triton.jit(do_not_specialize=["inner", "R", "C", "g0", "g1", *(x + i for x in "rco" for i in "012")])
def _gradient(
    inputs, columns, v, grad, grad_inputs, grad_v, inner, heads, R, C, D, v_stride, g0, g1,  # noqa: N803
    r0, r1, r2, r3, c0, c1, c2, c3, o0, o1, o2, o3,
    with_v: tl.constexpr, rows: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Compute one tile (rows, width) of ∂inputs = 4v Σ_columns g r(1 - r) per program, and its part of ∂v; no atomics.

    inputs (B, heads, inner, R, D) are the queries and columns (B, heads, inner, C, D) the keys, or vice versa: only
    the strides of grad differ, whose entry is at n · R · C + r · g0 + c · g1. r0 to r3 are strides of inputs, c0 to c3
    of columns, o0 to o3 of grad_inputs. grad_v (N, row tiles, D) is summed by the caller.
    """
    n = tl.program_id(0).to(tl.int64)
    r = tl.program_id(1) * rows + tl.arange(0, rows)
    d = tl.program_id(2) * width + tl.arange(0, width)
    inside = (r[:, None] < R) & (d[None, :] < D)
    row = inputs + _start(n, inner, heads, r0, r1, r2) + r[:, None].to(tl.int64) * r3 + d[None, :]
    row_tile = tl.load(row, mask=inside, other=0.0).to(tl.float32)
    column = columns + _start(n, inner, heads, c0, c1, c2) + d
    grad_row = grad + n * R * C + r.to(tl.int64) * g0
    total = tl.zeros((rows, width), tl.float32)
    total_v = tl.zeros((rows, width), tl.float32)
    for _ in range(C):
        column_tile = tl.load(column, mask=d < D, other=0.0).to(tl.float32)
        g = tl.load(grad_row, mask=r < R, other=0.0).to(tl.float32)
        gate = 1 / (1 + tl.exp(2 * (row_tile + column_tile[None, :])))
        total += g[:, None] * (gate * (1 - gate))
        if with_v:
            total_v += g[:, None] * (1 - 2 * gate)
        column += c3
        grad_row += g1
    weight = tl.load(v + n // inner % heads * v_stride + d, mask=d < D, other=0.0).to(tl.float32)
    out = grad_inputs + _start(n, inner, heads, o0, o1, o2) + r[:, None].to(tl.int64) * o3 + d[None, :]
    tl.store(out, (4 * weight[None, :] * total).to(grad_inputs.dtype.element_ty), mask=inside)
    if with_v:
        tile = n * tl.num_programs(1) + tl.program_id(1)
        tl.store(grad_v + tile * D + d, tl.sum(total_v, 0), mask=d < D)


@triton.jit
def _one(x):
    tl.store(x, 1.0)


def launch(kernel: Any, grid: tuple[int, ...], elements: int, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel, with tiles of so many elements, on the device of its first argument: not always the current."""
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants, num_warps=max(1, min(8, elements // 256)))


def try_kernel() -> None:
    """Compile and launch a kernel, or raise what keeps it from running."""
    launch(_one, (1,), 1, torch.empty(1, device="cuda"))


def with_adjacent_columns(x: Tensor) -> Tensor:
    """Return x with a last stride of 1, as kernels expect it: a copy if it has another one."""
    return x if x.stride(-1) == 1 else x.contiguous()


def forward(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    """Compute scores in float32: (B, H, *, T, D), (B, H, *, S, D), (H, D) -> (B, H, *, T, S)."""
    scores = torch.empty((*query.shape[:-1], keys.size(-2)), dtype=torch.float32, device=query.device)
    query, keys, v = (with_adjacent_columns(x) for x in (merge_batch_dims(query), merge_batch_dims(keys), v))
    (_, heads, inner, length, width), source = query.shape, keys.size(-2)
    rows = _rows(length)
    columns = max(16, min(triton.next_power_of_2(source), 1024 // rows, 128))
    launch(
        _scores, (query[..., 0, 0].numel(), triton.cdiv(length, rows), triton.cdiv(source, columns)), rows * columns,
        query, keys, v, scores, inner, heads, length, source, width, v.stride(0), *query.stride()[:4],
        *keys.stride()[:4], rows=rows, columns=columns,
    )  # fmt: skip
    return scores


def backward(query: Tensor, keys: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of query, keys and v, each in its argument's dtype, from that of the scores, (B, H, *, T,
    S)."""
    shapes, grad = (query.shape, keys.shape), grad.contiguous()
    query, keys, v = (with_adjacent_columns(x) for x in (merge_batch_dims(query), merge_batch_dims(keys), v))
    (batch, heads, inner, length, width), source = query.shape, keys.size(-2)
    grad_query, grad_keys = torch.empty_like(query), torch.empty_like(keys)
    tiles = triton.cdiv(length, _rows(length))
    grad_v = torch.empty((batch, heads, inner * tiles, width), dtype=torch.float32, device=query.device)
    for inputs, columns, out, *strides in ((query, keys, grad_query, source, 1), (keys, query, grad_keys, 1, source)):
        rows, across = _rows(inputs.size(-2)), min(triton.next_power_of_2(width), 64)
        launch(
            _gradient, (batch * heads * inner, triton.cdiv(inputs.size(-2), rows), triton.cdiv(width, across)),
            rows * across, inputs, columns, v, grad, out, grad_v, inner, heads, inputs.size(-2), columns.size(-2),
            width, v.stride(0), *strides, *inputs.stride()[:4], *columns.stride()[:4], *out.stride()[:4],
            with_v=out is grad_query, rows=rows, width=across,
        )  # fmt: skip
    return grad_query.view(shapes[0]), grad_keys.view(shapes[1]), grad_v.sum((0, 2)).to(v.dtype)


def _rows(length: int) -> int:
    """Return the rows of a tile, a power of two; there are few sizes, because each is compiled once."""
    return 1 if length == 1 else 8 if length <= 8 else ROWS
