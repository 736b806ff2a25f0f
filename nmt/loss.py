"""Label-smoothed cross-entropy as a sum over tokens; whoever updates divides by the tokens of the whole update."""

from typing import Any

import torch
from torch import Tensor

CHUNK = 512
"""Rows of logits that are brought to fp32 at a time."""


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Holds the logits once, in their own precision: fp32 copies exist for one chunk of rows at a time."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        losses, nlls, normalisers = [], [], []
        for rows, wanted in zip(logits.split(CHUNK), labels.split(CHUNK), strict=True):
            rows = rows if rows.dtype == torch.float64 else rows.float()
            normaliser = rows.logsumexp(-1)
            nll = normaliser - rows.gather(1, wanted.unsqueeze(1)).squeeze(1)
            nlls.append(nll.sum())
            losses.append((1 - smoothing) * nlls[-1] + smoothing * (normaliser - rows.mean(-1)).sum())
            normalisers.append(normaliser)
        ctx.save_for_backward(logits, labels, torch.cat(normalisers))
        ctx.smoothing = smoothing
        nll_sum = torch.stack(nlls).sum()
        ctx.mark_non_differentiable(nll_sum)
        return torch.stack(losses).sum(), nll_sum

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        logits, labels, normalisers = ctx.saved_tensors
        smoothing: float = ctx.smoothing
        result = torch.empty_like(logits)
        parts = zip(
            logits.split(CHUNK), labels.split(CHUNK), normalisers.split(CHUNK), result.split(CHUNK), strict=True
        )
        for rows, wanted, normaliser, out in parts:
            gradient = (rows.to(normaliser.dtype) - normaliser.unsqueeze(1)).exp_()
            gradient -= smoothing / logits.size(1)
            gradient.scatter_add_(1, wanted.unsqueeze(1), torch.full_like(normaliser, smoothing - 1).unsqueeze(1))
            out.copy_(gradient.mul_(grads[0]))
        return result, None, None


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sums over tokens.

    The smoothed loss is (1 - ε) · nll + ε · mean over the vocabulary of -log p (Szegedy et al. 2016, section 7).

    Args:
        logits: (N, V).
        labels: (N,), no padding among them.
        smoothing: ε.

    Returns:
        the smoothed loss, to be differentiated, and the plain negative log-likelihood in nats, for perplexity.
    """
    loss, nll = _SmoothedCrossEntropy.apply(logits, labels, smoothing)  # type: ignore[no-untyped-call]
    return loss, nll
