"""Losses as sums over tokens, which an update divides by the number of all its tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from nmt.attention.additive_kernel import takes_triton
from nmt.attention.linear import at_least_fp32, linear, weight_gradient

LOSS_CHUNK_ROWS = 64
"""Rows of logits that are cast to fp32 at a time, on a CPU."""
OUTPUT_CHUNK_ROWS = 512
"""Rows whose logits exist at a time where all are not needed, on a CPU."""
GPU_LOSS_CHUNK = 1 << 26
"""Logits that are cast to fp32 at a time on a GPU without Triton; the formula holds a few copies of 256 MiB."""
GPU_OUTPUT_CHUNK = 1 << 28
"""Logits that exist at a time on a GPU where all are not needed: 512 MiB in bf16, most batches in one piece."""
MIN_ATTENTION = 1e-30
"""Attention below this counts as 0: its logarithm would have no finite gradient in fp32."""


def _smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float, gradient: Tensor | None, by_token: Tensor | None
) -> Tensor:
    """Return the two sums of `cross_entropy`, and write the gradient of the first, which needs the same exponentials.

    There are fp32 copies of one chunk of rows at a time, which fits in the cache; `gradient` may be `logits`.
    """
    if takes_triton(logits):
        from nmt.training import losses_triton

        rows = losses_triton.cross_entropy(logits, labels, smoothing, gradient)
        if by_token is not None:
            by_token.copy_(rows[1])
        return rows.sum(1)
    chunks = (
        tensor.split(_chunk_rows(logits, LOSS_CHUNK_ROWS, GPU_LOSS_CHUNK))
        for tensor in (logits, labels.unsqueeze(1), logits if gradient is None else gradient)
    )
    losses, nlls, tokens = [], [], []
    for rows, label, out in zip(*chunks, strict=True):
        rows = at_least_fp32(rows)
        rows = rows - rows.amax(-1, keepdim=True)
        label_logit, mean = rows.gather(1, label), rows.mean(-1, keepdim=True)
        exponentials = rows.exp_()
        total = exponentials.sum(-1, keepdim=True)
        log_total = total.log()
        tokens.append(log_total - label_logit)
        nlls.append(tokens[-1].sum())
        losses.append((1 - smoothing) * nlls[-1] + smoothing * (log_total - mean).sum())
        if gradient is not None:
            difference = exponentials.mul_(1 / total).sub_(smoothing / logits.size(1))
            out.copy_(difference.scatter_add_(1, label, torch.full_like(total, smoothing - 1)))
    if by_token is not None:
        by_token.copy_(torch.cat(tokens)[:, 0])
    return torch.stack([torch.stack(losses).sum(), torch.stack(nlls).sum()])


def _chunk_rows(logits: Tensor, on_cpu: int, gpu_elements: int) -> int:
    return on_cpu if logits.is_cpu else max(1, gpu_elements // logits.size(-1))


class _SmoothedCrossEntropy(torch.autograd.Function):
    """A cross-entropy that stores logits and gradient in the logits' precision."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, smoothing: float, by_token: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        gradient = logits.new_empty(logits.shape) if ctx.needs_input_grad[0] else None
        loss, nll = _smoothed_cross_entropy(logits, labels, smoothing, gradient, by_token)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(nll)
        ctx.set_materialize_grads(False)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        return ctx.saved_tensors[0] * grads[0], None, None, None


class _OutputCrossEntropy(torch.autograd.Function):
    """The output layer and the cross-entropy, a chunk of rows after the other: all logits are never held at once."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        smoothing: float,
        dtype: torch.dtype,
        by_token: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        needs_gradient = any(ctx.needs_input_grad)
        with torch.autocast(features.device.type, enabled=False):
            x, w, b = _cast([features, weight, bias], dtype)
            wide = torch.promote_types(dtype, torch.float32)
            grad_x, sums = torch.empty_like(x), list[Tensor]()
            totals: list[Any] = [torch.zeros_like(t, dtype=wide) if x.is_cpu else None for t in (w, b)]
            grad_weight, grad_bias = totals
            num_rows = _chunk_rows(w.t(), OUTPUT_CHUNK_ROWS, GPU_OUTPUT_CHUNK)
            for rows, label, out in zip(*(t.split(num_rows) for t in (x, labels, grad_x)), strict=True):
                logits = linear(rows, w, b)
                gradient = logits if needs_gradient else None
                tokens = None if by_token is None else by_token[len(sums) * num_rows :][: len(rows)]
                sums.append(_smoothed_cross_entropy(logits, label, smoothing, gradient, tokens))
                if needs_gradient and x.is_cpu:
                    out.copy_(linear(logits, w.t()))
                    grad_weight += weight_gradient(logits, rows)
                    grad_bias += logits.sum(0, dtype=wide)
                elif needs_gradient:
                    torch.mm(logits, w, out=out)
                    grad_weight = _add_product(grad_weight, logits, rows)
                    summed = logits.sum(0, dtype=wide)
                    grad_bias = summed if grad_bias is None else grad_bias.add_(summed)
        loss, nll = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)
        ctx.save_for_backward(grad_x, grad_weight, grad_bias)
        ctx.dtypes = features.dtype, weight.dtype, bias.dtype
        ctx.mark_non_differentiable(nll)
        ctx.set_materialize_grads(False)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        if ctx.saved_tensors[0].is_cpu:
            return *((t * grads[0]).to(d) for t, d in pairs), None, None, None, None
        scale = grads[0].reshape(1)  # in contrast to a scalar it takes part in the choice of the dtype: one rounding
        return *(torch.mul(t, scale, out=torch.empty_like(t, dtype=d)) for t, d in pairs), None, None, None, None


def _cast(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return the tensors in a dtype; on a GPU all that have another one are cast in one launch."""
    others = [] if tensors[0].is_cpu else [t for t in tensors if t.dtype != dtype]
    if not others:
        return [t.to(dtype) for t in tensors]
    casts = [torch.empty_like(t, dtype=dtype) for t in others]
    torch._foreach_copy_(casts, others)
    return [t if t.dtype == dtype else casts.pop(0) for t in tensors]


def _add_product(total: Tensor | None, gradient: Tensor, x: Tensor) -> Tensor:
    """Return total + gᵀ x, (V, D), in at least fp32; the first product is returned in the dtype it is computed in."""
    if total is None:
        return gradient.t() @ x
    if total.dtype == gradient.dtype == at_least_fp32(total).dtype:
        return total.addmm_(gradient.t(), x)
    return at_least_fp32(total).add_(gradient.t() @ x)


def cross_entropy(
    logits: Tensor, labels: Tensor, *, smoothing: float = 0.0, by_token: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the label-smoothed cross-entropy, summed over tokens.

    It is (1 - ε) · nll + ε · mean over the vocabulary of -log p (Szegedy et al. 2016, section 7).

    Args:
        logits: (N, V).
        labels: (N,), without padding.
        smoothing: ε.
        by_token: (N,), into which the negative log-likelihood of each token is written.

    Returns:
        the smoothed loss, to be differentiated, and the plain negative log-likelihood in nats, for perplexity.
    """
    loss, nll = _SmoothedCrossEntropy.apply(logits, labels, smoothing, by_token)  # type: ignore[no-untyped-call]
    return loss, nll


def output_cross_entropy(
    output: nn.Linear, features: Tensor, labels: Tensor, *, smoothing: float = 0.0, by_token: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute `cross_entropy(output(features), labels)` in the precision of autocast, without holding all logits.

    The gradients are computed with the value, those of the weights added up in fp32.

    Args:
        output: to the vocabulary, V.
        features: (N, D).
        labels: (N,), without padding.
        by_token: as of `cross_entropy`.
    """
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else output.weight.dtype
    arguments = features, output.weight, output.bias, labels, smoothing, dtype, by_token
    loss, nll = _OutputCrossEntropy.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss, nll


class _SymmetricKL(torch.autograd.Function):
    """The symmetric KL divergence, like the cross-entropy computed in chunks of rows and with its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        sums, gradient = [], logits.new_empty(logits.shape)
        ctx.save_for_backward(gradient)
        if takes_triton(logits):
            from nmt.training import losses_triton

            return losses_triton.symmetric_kl(logits, gradient)
        num_rows = _chunk_rows(logits, LOSS_CHUNK_ROWS, GPU_LOSS_CHUNK)
        chunks = (half.split(num_rows) for tensor in (logits, gradient) for half in tensor.chunk(2))
        for p_logits, q_logits, p_gradient, q_gradient in zip(*chunks, strict=True):
            log_p, log_q = (at_least_fp32(rows).log_softmax(-1) for rows in (p_logits, q_logits))
            log_ratio, p, q = log_p - log_q, log_p.exp(), log_q.exp()
            forward_kl = (p * log_ratio).sum(-1, keepdim=True)  # KL(p || q)
            reverse_kl = -(q * log_ratio).sum(-1, keepdim=True)  # KL(q || p)
            sums.append((forward_kl + reverse_kl).sum())
            p_gradient.copy_(p * (log_ratio - forward_kl + 1) - q)
            q_gradient.copy_(q * (1 - log_ratio - reverse_kl) - p)
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
