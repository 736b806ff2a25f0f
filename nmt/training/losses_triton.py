"""The cross-entropy and the symmetric KL divergence as Triton kernels: all rows in one launch, with their gradient.

Imported only where there is a GPU. So far the kernels have been compiled for GPUs, and tested in Triton's interpreter
only: values and gradients, not speed.
"""

# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, misc, no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor

from nmt.attention.additive_kernel_triton import launch, with_adjacent_columns

BLOCK = 4096
"""Columns that a program reads at a time, at most: sixteen for each thread of eight warps."""


@triton.jit
def _statistics(row, V, block: tl.constexpr):  # noqa: N803
    """Compute m = max x, Σ exp(x - m) and Σ (x - m) of a row x (V,), reading it once."""
    largest = tl.load(row).to(tl.float32)
    exponentials = 0.0
    distances = 0.0
    for start in range(0, V, block):
        column = start + tl.arange(0, block)
        x = tl.load(row + column, mask=column < V, other=-float("inf")).to(tl.float32)
        before, largest = largest, tl.maximum(largest, tl.max(x, 0))
        exponentials = exponentials * tl.exp(before - largest) + tl.sum(tl.exp(x - largest), 0)
        distances += start * (before - largest) + tl.sum(tl.where(column < V, x - largest, 0.0), 0)
    return largest, exponentials, distances


@triton.jit(do_not_specialize=["N"])
def _cross_entropy(
    logits, labels, sums, gradient, N, V, row_stride, gradient_stride, smoothing,  # noqa: N803
    with_gradient: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Compute the smoothed loss and the nll of one row per program, into sums (2, N), and the gradient of the loss.

    logits (N, V) and gradient, which may be logits, have the strides row_stride and gradient_stride of rows, else 1.
    """
    n = tl.program_id(0).to(tl.int64)
    row = logits + n * row_stride
    label = tl.load(labels + n)
    label_logit = tl.load(row + label).to(tl.float32)
    largest, total, distances = _statistics(row, V, block)
    log_total = tl.log(total)
    nll = log_total - (label_logit - largest)
    tl.store(sums + n, (1 - smoothing) * nll + smoothing * (log_total - distances / V))
    tl.store(sums + N + n, nll)
    if with_gradient:
        for start in range(0, V, block):
            column = start + tl.arange(0, block)
            x = tl.load(row + column, mask=column < V, other=0.0).to(tl.float32)
            target = smoothing / V + tl.where(column == label, 1 - smoothing, 0.0)
            value = (tl.exp(x - largest) / total - target).to(gradient.dtype.element_ty)
            tl.store(gradient + n * gradient_stride + column, value, mask=column < V)


@triton.jit(do_not_specialize=["N"])
def _symmetric_kl(logits, sums, gradient, N, V, row_stride, gradient_stride, block: tl.constexpr):  # noqa: N803
    """Compute KL(p || q) + KL(q || p) of rows n and N + n of logits (2N, V) per program, and its gradient."""
    n = tl.program_id(0).to(tl.int64)
    p_row, q_row = logits + n * row_stride, logits + (N + n) * row_stride
    p_largest, p_total, _ = _statistics(p_row, V, block)
    q_largest, q_total, _ = _statistics(q_row, V, block)
    p_log_total, q_log_total = tl.log(p_total), tl.log(q_total)
    forward_kl = 0.0
    reverse_kl = 0.0
    for start in range(0, V, block):
        column = start + tl.arange(0, block)
        log_p = tl.load(p_row + column, mask=column < V, other=0.0).to(tl.float32) - p_largest - p_log_total
        log_q = tl.load(q_row + column, mask=column < V, other=0.0).to(tl.float32) - q_largest - q_log_total
        forward_kl += tl.sum(tl.where(column < V, tl.exp(log_p) * (log_p - log_q), 0.0), 0)
        reverse_kl += tl.sum(tl.where(column < V, tl.exp(log_q) * (log_q - log_p), 0.0), 0)
    tl.store(sums + n, forward_kl + reverse_kl)
    for start in range(0, V, block):
        column = start + tl.arange(0, block)
        log_p = tl.load(p_row + column, mask=column < V, other=0.0).to(tl.float32) - p_largest - p_log_total
        log_q = tl.load(q_row + column, mask=column < V, other=0.0).to(tl.float32) - q_largest - q_log_total
        p, q, log_ratio = tl.exp(log_p), tl.exp(log_q), log_p - log_q
        p_gradient = (p * (log_ratio - forward_kl + 1) - q).to(gradient.dtype.element_ty)
        q_gradient = (q * (1 - log_ratio - reverse_kl) - p).to(gradient.dtype.element_ty)
        tl.store(gradient + n * gradient_stride + column, p_gradient, mask=column < V)
        tl.store(gradient + (N + n) * gradient_stride + column, q_gradient, mask=column < V)


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, gradient: Tensor | None) -> Tensor:
    """Compute the smoothed loss and the nll of each row, (2, N) in fp32: logits (N, V), labels (N,).

    The gradient of the first's sum goes into `gradient` (N, V), with rows of adjacent numbers, which may be `logits`,
    or nowhere (None).
    """
    logits, block = with_adjacent_columns(logits), min(BLOCK, triton.next_power_of_2(logits.size(1)))
    out = logits if gradient is None else gradient
    sums = torch.empty((2, len(logits)), dtype=torch.float32, device=logits.device)
    shape = *logits.shape, logits.stride(0), out.stride(0)
    arguments = logits, labels.contiguous(), sums, out, *shape, smoothing
    launch(_cross_entropy, (len(logits),), block, *arguments, with_gradient=gradient is not None, block=block)
    return sums


def symmetric_kl(logits: Tensor, gradient: Tensor) -> Tensor:
    """Compute the sum over n of the divergence of rows n and N + n in fp32, and its gradient: both (2N, V)."""
    logits, block = with_adjacent_columns(logits), min(BLOCK, triton.next_power_of_2(logits.size(1)))
    num_pairs = len(logits) // 2
    sums = torch.empty(num_pairs, dtype=torch.float32, device=logits.device)
    arguments = logits, sums, gradient, num_pairs, logits.size(1), logits.stride(0), gradient.stride(0)
    launch(_symmetric_kl, (num_pairs,), block, *arguments, block=block)
    return sums.sum()
