"""The project's Triton kernels on pretended CUDA: one launch each, computed by the formula that they replace."""

import importlib
import sys
from types import ModuleType
from typing import Any

import pretended_cuda as cuda
import torch
from torch import Tensor

from nmt.attention import additive_kernel


def pretend(*, triton: bool) -> None:
    """Let the package find a Triton that works, or none; problems of a test's size then go the way of large ones."""
    additive_kernel.DIRECT_MAX_ELEMENTS = 0
    additive_kernel.triton_works = lambda: triton
    _replace(
        "nmt.attention.additive_kernel_triton",
        forward=cuda.one_launch("additive_scores", _scores),
        backward=cuda.one_launch("additive_scores_backward", _gradients),
    )
    _replace("nmt.training.losses_triton", cross_entropy=_cross_entropy, symmetric_kl=_symmetric_kl)


def _replace(name: str, **functions: Any) -> None:
    stand_in = ModuleType(name)
    vars(stand_in).update(functions)
    package, _, own = name.rpartition(".")
    sys.modules[name] = stand_in
    setattr(importlib.import_module(package), own, stand_in)


def _scores(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    return additive_kernel._forward(query, keys, v, False)


def _gradients(query: Tensor, keys: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    return additive_kernel._backward(query, keys, v, grad, False)


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, gradient: Tensor | None) -> Tensor:
    sums: Tensor = cuda.one_launch("cross_entropy", _cross_entropies)(logits, labels, smoothing, gradient)
    return sums


def _cross_entropies(logits: Tensor, labels: Tensor, smoothing: float, gradient: Tensor | None) -> Tensor:
    """Return the smoothed loss and the nll of every row, (2, N), and write the gradient of the former."""
    log_probs = logits.float().log_softmax(-1)
    nll = -log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)
    loss = (1 - smoothing) * nll - smoothing * log_probs.mean(-1)
    if gradient is not None:
        target = torch.full_like(log_probs, smoothing / logits.size(1))
        target.scatter_add_(1, labels.unsqueeze(1), torch.full_like(nll, 1 - smoothing).unsqueeze(1))
        gradient.copy_(log_probs.exp() - target)
    return torch.stack([loss, nll])


def _symmetric_kl(logits: Tensor, gradient: Tensor) -> Tensor:
    divergence: Tensor = cuda.one_launch("symmetric_kl", _divergences)(logits, gradient).sum()
    return divergence


def _divergences(logits: Tensor, gradient: Tensor) -> Tensor:
    """Return KL(p || q) + KL(q || p) of rows n and N + n, (N,), and write the gradient of their sum."""
    with torch.enable_grad():
        leaf = logits.detach().float().requires_grad_()
        log_p, log_q = leaf.log_softmax(-1).chunk(2)
        divergences = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)
        gradient.copy_(torch.autograd.grad(divergences.sum(), leaf)[0])
    return divergences.detach()
