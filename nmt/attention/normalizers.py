"""Normalizers: from the scores of one query to weights over the keys that are at least 0 and sum to 1.

Every row of the last dimension is one query; the leading dimensions and the strides are free. A score of -inf marks a
masked key: its weight and its gradient are exactly 0. A row needs at least one finite score.

softmax gives every key some weight. The others give exact zeros: the number follows from the scores in sparsemax
and entmax15, which solve a piecewise equation for a threshold τ; top_k keeps a fixed number.

Half types are computed in float32. The weights have the dtype that `torch.softmax` would give them: that of the
scores, except where autocast widens a softmax (on CUDA, to float32).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Normalizer = Callable[[Tensor, int], Tensor]

SIMD_WIDTH = 16
"""float32 numbers in a vector register. torch's softmax on a CPU is slow for rows that do not fill one: a few times
slower than the same in separate operations, which take all rows together."""

_HALF = (torch.bfloat16, torch.float16)


def softmax(scores: Tensor, top: int = 0) -> Tensor:
    """pᵢ = exp(zᵢ) / Σⱼ exp(zⱼ): Bahdanau et al. 2015, equation 6. (..., S) -> (..., S); `top` is not used."""
    length = scores.shape[-1]
    if scores.device.type == "cpu" and scores.dtype != torch.float64:
        if length < SIMD_WIDTH:
            return _apply(_ShortSoftmax, scores)
        if scores.dtype in _HALF and length < 2 * SIMD_WIDTH:
            return torch.softmax(scores.float(), dim=-1).to(scores.dtype)
    return torch.softmax(scores, dim=-1)


def sparsemax(scores: Tensor, top: int = 0) -> Tensor:
    """pᵢ = max(zᵢ - τ, 0), the point of the simplex nearest to z: Martins & Astudillo 2016, algorithm 1.

    Keys whose score is 1 or more below the best one always get 0. (..., S) -> (..., S); `top` is not used.
    """
    return _apply(_Sparsemax, scores)


def entmax15(scores: Tensor, top: int = 0) -> Tensor:
    """pᵢ = max(zᵢ/2 - τ, 0)²: α-entmax with α = 1.5, Peters et al. 2019, algorithm 2.

    Half-way between softmax (α = 1) and sparsemax (α = 2). Keys whose score is 2 or more below the best one always get
    0. (..., S) -> (..., S); `top` is not used.
    """
    return _apply(_Entmax15, scores)


def top_k(scores: Tensor, top: int) -> Tensor:
    """softmax over the `top` best scores of a row, exactly 0 for all others. (..., S) -> (..., S).

    Keys that tie with the last of them are kept too: equal scores get equal weights, and the result depends neither
    on the order of the keys nor on the device. A row with fewer than `top` keys keeps them all.

    Raises:
        ValueError: `top` is below 1.
    """
    if top < 1:
        raise ValueError(f"model.attention.top_k={top}: must be at least 1, so that top_k has a key to attend to")
    if top >= scores.shape[-1]:
        return torch.softmax(scores, dim=-1)
    last = _descending(scores)[..., top - 1 : top].to(scores.dtype)  # (..., 1), -inf where fewer keys are unmasked
    return torch.softmax(scores.masked_fill(scores < last, float("-inf")), dim=-1)


def _apply(function: type[torch.autograd.Function], scores: Tensor) -> Tensor:
    """Apply a function of float32 or float64 scores; the weights get the dtype that a softmax would have."""
    dtype = torch.softmax(scores.new_empty(0), dim=-1).dtype  # what autocast makes of it depends on the device
    weights: Tensor = function.apply(scores.float() if scores.dtype in _HALF else scores)
    return weights.to(dtype)


def _descending(scores: Tensor) -> Tensor:
    """Sort the scores of every row in descending order, without gradient; half types become float32 on a CPU.

    On a CPU torch moves indices along with the values; NumPy sorts values alone with vector instructions, which is
    more than ten times faster for rows of a sentence's length.
    """
    scores = scores.detach()
    if scores.device.type != "cpu" or torch.compiler.is_exporting():
        return scores.sort(dim=-1, descending=True).values
    values = scores.float() if scores.dtype in _HALF else scores
    return torch.from_numpy(np.sort(values.neg().numpy(), axis=-1)).neg_()


def _shifted(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores less their row's maximum, the same sorted, and 1 … S: (..., S), (..., S), (S,)."""
    ordered = _descending(scores)
    maximum = ordered[..., :1]
    counts = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype, device=scores.device)
    return scores - maximum, ordered - maximum, counts


class _ShortSoftmax(torch.autograd.Function):
    """softmax for rows of fewer numbers than a vector register holds."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        weights = (scores - scores.amax(dim=-1, keepdim=True)).exp_()
        weights.mul_(weights.sum(dim=-1, keepdim=True).reciprocal_())
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (weights,) = ctx.saved_tensors
        scaled: Tensor = gradient * weights
        return scaled.addcmul_(weights, scaled.sum(dim=-1, keepdim=True), value=-1)


class _Sparsemax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        shifted, ordered, counts = _shifted(scores)
        # If the k best keys had weight, τ would be (their sum - 1) / k. For a wrong k this is at most the true τ,
        # because Σ max(zᵢ - τ, 0) is at least the sum of any k of its terms without the max: so the true τ is the
        # largest. Masked keys make it -inf, which is never the largest: k = 1 gives -1.
        threshold = ordered.cumsum(dim=-1).sub_(1).div_(counts).amax(dim=-1, keepdim=True)
        weights = shifted.sub_(threshold).clamp_(min=0)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient less its mean over the support, and 0 outside it: τ moves by the mean of the scores
        there."""
        (weights,) = ctx.saved_tensors
        support = weights.sign()
        kept: Tensor = gradient * support
        mean: Tensor = kept.sum(dim=-1, keepdim=True) / support.sum(dim=-1, keepdim=True)
        return kept.addcmul_(support, mean, value=-1)


class _Entmax15(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        # x = z/2 less the maximum. τ is at least -1 (the best key alone would have (0 - τ)² = 1), so what lies below
        # -1 has no weight, and -1 in its place keeps the sums finite.
        shifted, ordered, counts = _shifted(scores / 2)
        ordered.clamp_(min=-1)
        # If the k best keys had weight, τ would be the smaller root of Σ (xᵢ - τ)² = kτ² - 2τ Σ xᵢ + Σ xᵢ² = 1. It
        # rises with k to the true τ as long as the k-th key is above it; every later key is below the true τ. Where
        # there is no root, a tiny one stands in for 0, of which torch's square root on a CPU is slow.
        total, squares = ordered.cumsum(dim=-1), ordered.square().cumsum_(dim=-1)
        root = torch.addcmul(total.square(), counts, squares.sub_(1), value=-1)
        root = root.clamp_(min=torch.finfo(root.dtype).tiny).sqrt_()
        threshold = torch.minimum(total.sub_(root).div_(counts), ordered).amax(dim=-1, keepdim=True)
        slope = shifted.sub_(threshold).clamp_(min=0)
        ctx.save_for_backward(slope)
        return slope.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient as for sparsemax, but in the mean every key counts with √p = dp/dz at fixed τ, and so
        does its difference."""
        (slope,) = ctx.saved_tensors
        scaled: Tensor = gradient * slope
        mean: Tensor = scaled.sum(dim=-1, keepdim=True) / slope.sum(dim=-1, keepdim=True)
        return scaled.addcmul_(slope, mean, value=-1)


NORMALIZERS: dict[str, Normalizer] = {"softmax": softmax, "sparsemax": sparsemax, "entmax15": entmax15, "top_k": top_k}
