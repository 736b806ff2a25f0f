"""Losses as sums over tokens, label-smoothed cross-entropy and coverage; an update divides by all of its tokens."""

from typing import Any

import torch
from torch import Tensor

LOSS_CHUNK_ROWS = 64
"""Rows of logits that are brought to fp32 at a time."""


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Holds logits and gradient in the logits' precision: fp32 copies exist for one chunk of rows at a time, which the
    cache holds. The gradient is made with the value, because both need the same exponentials."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        wants_gradient: bool = ctx.needs_input_grad[0]
        result = torch.empty_like(logits) if wants_gradient else logits
        losses, nlls = [], []
        for rows, wanted, out in zip(
            logits.split(LOSS_CHUNK_ROWS), labels.split(LOSS_CHUNK_ROWS), result.split(LOSS_CHUNK_ROWS), strict=True
        ):
            rows = rows if rows.dtype == torch.float64 else rows.float()
            wanted = wanted.unsqueeze(1)
            highest = rows.amax(-1, keepdim=True)
            rows = rows - highest
            at_label, mean = rows.gather(1, wanted), rows.mean(-1, keepdim=True)
            shares = rows.exp_()
            total = shares.sum(-1, keepdim=True)
            normaliser = total.log()
            nlls.append((normaliser - at_label).sum())
            losses.append((1 - smoothing) * nlls[-1] + smoothing * (normaliser - mean).sum())
            if wants_gradient:
                shares = shares.mul_(1 / total).sub_(smoothing / logits.size(1))
                out.copy_(shares.scatter_add_(1, wanted, torch.full_like(total, smoothing - 1)))
        if wants_gradient:
            ctx.save_for_backward(result)
        nll_sum = torch.stack(nlls).sum()
        ctx.mark_non_differentiable(nll_sum)
        return torch.stack(losses).sum(), nll_sum

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None


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


class _Divergence(torch.autograd.Function):
    """Like the cross-entropy, in chunks of rows; the gradient is computed with the value, which needs the same."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        sums, gradient = [], torch.empty_like(logits)
        halves = zip(
            *(part.split(LOSS_CHUNK_ROWS) for part in logits.chunk(2)),
            *(part.split(LOSS_CHUNK_ROWS) for part in gradient.chunk(2)),
            strict=True,
        )
        for one, other, one_out, other_out in halves:
            one, other = (rows if rows.dtype == torch.float64 else rows.float() for rows in (one, other))
            one, other = one.log_softmax(-1), other.log_softmax(-1)
            apart, p, q = one - other, one.exp(), other.exp()
            forwards = (p * apart).sum(-1, keepdim=True)  # KL(p || q)
            backwards = -(q * apart).sum(-1, keepdim=True)  # KL(q || p)
            sums.append((forwards + backwards).sum())
            one_out.copy_(p * (apart - forwards + 1) - q)
            other_out.copy_(q * (1 - apart - backwards) - p)
        ctx.save_for_backward(gradient)
        return torch.stack(sums).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        gradient: Tensor = ctx.saved_tensors[0] * grads[0]
        return gradient


def symmetric_kl(logits: Tensor) -> Tensor:
    """KL(p || q) + KL(q || p), p and q being the predictions of row n and of row N + n: Liang et al. 2021, equation 2.

    Args:
        logits: (2N, V).

    Returns:
        the sum over n, in nats.
    """
    apart: Tensor = _Divergence.apply(logits)  # type: ignore[no-untyped-call]
    return apart


def coverage_loss(weights: Tensor, wanted: Tensor) -> Tensor:
    """How much attention goes where it has already been (See et al. 2017, equation 12).

    Σ_i min(a_i^t, c_i^t) with the coverage c^t = Σ_{t' < t} a^{t'} (equation 10); λ times it is the second term of
    equation 13. At one position it lies between 0, when no source token was looked at before, and 1.

    Args:
        weights: (B, L, H, T, S), attention of layers and heads as distributions over S.
        wanted: (B, T), True at target positions that count; the coverage takes in all earlier ones.

    Returns:
        the sum over wanted positions of the mean over layers and heads, in fp32 or fp64.
    """
    weights = weights if weights.dtype == torch.float64 else weights.float()
    # Shifted by one position before summing: a sum less its last term would not be exact.
    earlier = torch.nn.functional.pad(weights[..., :-1, :], (0, 0, 1, 0)).cumsum(-2)
    repeated = torch.minimum(weights, earlier).sum(-1).mean((1, 2))  # (B, T)
    return repeated.masked_fill(~wanted, 0.0).sum()  # no indexing by `wanted`, which would wait for the device


MIN_ATTENTION = 1e-30
"""Attention below this counts as none: its logarithm would have no finite gradient in fp32."""


def alignment_loss(weights: Tensor, indices: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy between a reference alignment p and attention a: -Σ_t Σ_s p(s | t) log a_t(s).

    Chen et al. 2016; Garg et al. 2019. Where attention is nothing the logarithm is none and no gradient could raise it:
    these terms are left out, and given back as a sum.

    Args:
        weights: (B, T, S), attention as distributions over S.
        indices: (3, K), places (b, t, s) where p is not 0.
        shares: (K,), p there.

    Returns:
        the sum over target positions, and the sum of p where attention is below `MIN_ATTENTION`; both in fp32 or fp64.
    """
    given = weights[indices[0], indices[1], indices[2]]
    given = given if given.dtype == torch.float64 else given.float()
    nothing = given.detach() < MIN_ATTENTION
    terms = shares * given.clamp_min(MIN_ATTENTION).log()
    return -terms.masked_fill(nothing, 0.0).sum(), (shares * nothing).sum().to(given.dtype)
