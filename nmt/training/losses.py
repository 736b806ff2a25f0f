"""Losses as sums over tokens, which an update divides by the number of all its tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from nmt.attention.linear import at_least_fp32, linear, weight_gradient

LOSS_CHUNK_ROWS = 64
"""Rows of logits that are cast to fp32 at a time."""
OUTPUT_CHUNK_ROWS = 512
"""Rows whose logits exist at a time where all are not needed."""
MIN_ATTENTION = 1e-30
"""Attention below this counts as 0: its logarithm would have no finite gradient in fp32."""


def _smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float, gradient: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the sums of `cross_entropy`, and write the gradient of the first, which needs the same exponentials.

    There are fp32 copies of one chunk of rows at a time, which fits in the cache; `gradient` may be `logits`.
    """
    chunks = (
        tensor.split(LOSS_CHUNK_ROWS)
        for tensor in (logits, labels.unsqueeze(1), logits if gradient is None else gradient)
    )
    losses, nlls = [], []
    for rows, label, out in zip(*chunks, strict=True):
        rows = at_least_fp32(rows)
        rows = rows - rows.amax(-1, keepdim=True)
        label_logit, mean = rows.gather(1, label), rows.mean(-1, keepdim=True)
        exponentials = rows.exp_()
        total = exponentials.sum(-1, keepdim=True)
        log_total = total.log()
        nlls.append((log_total - label_logit).sum())
        losses.append((1 - smoothing) * nlls[-1] + smoothing * (log_total - mean).sum())
        if gradient is not None:
            difference = exponentials.mul_(1 / total).sub_(smoothing / logits.size(1))
            out.copy_(difference.scatter_add_(1, label, torch.full_like(total, smoothing - 1)))
    if not losses:
        return logits.new_zeros((), dtype=torch.float32), logits.new_zeros((), dtype=torch.float32)
    return torch.stack(losses).sum(), torch.stack(nlls).sum()


class _SmoothedCrossEntropy(torch.autograd.Function):
    """A cross-entropy that stores logits and gradient in the logits' precision."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        loss, nll = _smoothed_cross_entropy(logits, labels, smoothing, gradient)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * grads[0], None, None


class _OutputCrossEntropy(torch.autograd.Function):
    """The output layer and the cross-entropy, a chunk of rows after the other: all logits are never held at once."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        needs_gradient = any(ctx.needs_input_grad)
        with torch.autocast(features.device.type, enabled=False):
            x, w, b = features.to(dtype), weight.to(dtype), bias.to(dtype)
            wide = torch.promote_types(dtype, torch.float32)
            grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(w, dtype=wide)
            grad_bias, sums = torch.zeros_like(b, dtype=wide), []
            for rows, label, out in zip(*(t.split(OUTPUT_CHUNK_ROWS) for t in (x, labels, grad_x)), strict=True):
                logits = linear(rows, w, b)
                sums.append(
                    torch.stack(_smoothed_cross_entropy(logits, label, smoothing, logits if needs_gradient else None))
                )
                if needs_gradient:
                    out.copy_(linear(logits, w.t()))
                    grad_weight += weight_gradient(logits, rows)
                    grad_bias += logits.sum(0, dtype=wide)
        loss, nll = torch.stack(sums).sum(0) if sums else features.new_zeros(2)
        ctx.save_for_backward(grad_x, grad_weight, grad_bias)
        ctx.dtypes = features.dtype, weight.dtype, bias.dtype
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        scaled = [(t * grads[0]).to(d) for t, d in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return *scaled, None, None, None


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Compute the label-smoothed cross-entropy, summed over tokens.

    It is (1 - ε) · nll + ε · mean over the vocabulary of -log p (Szegedy et al. 2016, section 7).

    Args:
        logits: (N, V).
        labels: (N,), without padding.
        smoothing: ε.

    Returns:
        the smoothed loss, to be differentiated, and the plain negative log-likelihood in nats, for perplexity.
    """
    loss, nll = _SmoothedCrossEntropy.apply(logits, labels, smoothing)  # type: ignore[no-untyped-call]
    return loss, nll


def output_cross_entropy(
    output: nn.Linear, features: Tensor, labels: Tensor, *, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compute `cross_entropy(output(features), labels)` in the precision of autocast, without holding all logits.

    The gradients are computed with the value, those of the weights added up in fp32.

    Args:
        output: to the vocabulary, V.
        features: (N, D).
        labels: (N,), without padding.
    """
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else output.weight.dtype
    arguments = features, output.weight, output.bias, labels, smoothing, dtype
    loss, nll = _OutputCrossEntropy.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss, nll


class _SymmetricKL(torch.autograd.Function):
    """The symmetric KL divergence, like the cross-entropy computed in chunks of rows and with its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        sums, gradient = [], torch.empty_like(logits)
        chunks = (half.split(LOSS_CHUNK_ROWS) for tensor in (logits, gradient) for half in tensor.chunk(2))
        for p_logits, q_logits, p_gradient, q_gradient in zip(*chunks, strict=True):
            log_p, log_q = (at_least_fp32(rows).log_softmax(-1) for rows in (p_logits, q_logits))
            log_ratio, p, q = log_p - log_q, log_p.exp(), log_q.exp()
            forward_kl = (p * log_ratio).sum(-1, keepdim=True)  # KL(p || q)
            reverse_kl = -(q * log_ratio).sum(-1, keepdim=True)  # KL(q || p)
            sums.append((forward_kl + reverse_kl).sum())
            p_gradient.copy_(p * (log_ratio - forward_kl + 1) - q)
            q_gradient.copy_(q * (1 - log_ratio - reverse_kl) - p)
        ctx.save_for_backward(gradient)
        return torch.stack(sums).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.saved_tensors[0] * grads[0]


def symmetric_kl(logits: Tensor) -> Tensor:
    """Compute KL(p || q) + KL(q || p) of the predictions p of row n and q of row N + n (Liang et al. 2021, equation 2).

    Args:
        logits: (2N, V).

    Returns:
        the sum over n, in nats.
    """
    divergence: Tensor = _SymmetricKL.apply(logits)  # type: ignore[no-untyped-call]
    return divergence


def coverage_loss(weights: Tensor, mask: Tensor) -> Tensor:
    """Compute how much attention falls on source tokens that were attended before (See et al. 2017, equation 12).

    Σ_i min(a_i^t, c_i^t) with the coverage c^t = Σ_{t' < t} a^{t'} (equation 10); λ times it is the second term of
    equation 13. At one position it lies between 0, when no source token was attended before, and 1.

    Args:
        weights: (B, L, H, T, S), attention of layers and heads as distributions over S.
        mask: (B, T), True at target positions that count; the coverage includes all earlier ones.

    Returns:
        the sum over these positions of the mean over layers and heads, in fp32 or fp64.
    """
    weights = at_least_fp32(weights)
    # Shifted by one position before summing: a sum less its last term would not be exact.
    coverage = torch.nn.functional.pad(weights[..., :-1, :], (0, 0, 1, 0)).cumsum(-2)
    repeated = torch.minimum(weights, coverage).sum(-1).mean((1, 2))  # (B, T)
    return repeated.masked_fill(~mask, 0.0).sum()  # no indexing by the mask, which would wait for the device


def alignment_loss(weights: Tensor, indices: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy between a reference alignment p and attention a: -Σ_t Σ_s p(s | t) log a_t(s).

    Chen et al. 2016; Garg et al. 2019. Where attention is 0 the logarithm is infinite and no gradient could raise it:
    these terms are left out, and their p is returned as a sum.

    Args:
        weights: (B, T, S), attention as distributions over S.
        indices: (3, K), positions (b, t, s) where p is not 0.
        shares: (K,), p there.

    Returns:
        the sum over target positions, and the sum of p where attention is below `MIN_ATTENTION`; both in fp32 or fp64.
    """
    attention = at_least_fp32(weights[indices[0], indices[1], indices[2]])
    missed = attention.detach() < MIN_ATTENTION
    terms = shares * attention.clamp_min(MIN_ATTENTION).log()
    return -terms.masked_fill(missed, 0.0).sum(), (shares * missed).sum().to(attention.dtype)
