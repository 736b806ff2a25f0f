"""Linear layers whose fp32 products run on oneDNN.

torch gives fp32 products on a CPU to MKL, which uses half of the vector width on processors other than Intel's; its
bf16 products run on oneDNN already. Results agree to the rounding of fp32.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@functools.cache
def has_onednn() -> bool:
    """Return whether torch was built with a oneDNN that computes linear layers."""
    try:
        with torch.no_grad():
            torch.ops.mkldnn._linear_pointwise(torch.ones(2, 2), torch.ones(2, 2), None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return True


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x Wᵀ + b without a gradient: (..., K), (N, K), (N,) -> (..., N)."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.numel() == 0 or not has_onednn():
        return nn.functional.linear(x, weight, bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Compute gᵀ x, (M, N), (M, K) -> (N, K); the smaller of the two is the one that oneDNN has to transpose."""
    if gradient.dtype != torch.float32:
        return gradient.t() @ x
    return linear(gradient.t(), x.t()) if gradient.size(1) <= x.size(1) else linear(x.t(), gradient.t()).t()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs, flat = ctx.needs_input_grad, gradient.reshape(-1, gradient.size(-1))
        return (
            linear(gradient, weight.t()) if needs[0] else None,
            weight_gradient(flat, x.reshape(-1, x.size(-1))) if needs[1] else None,
            flat.sum(0) if needs[2] else None,
        )


class Linear(nn.Linear):
    """`torch.nn.Linear`, in fp32 on a CPU computed by oneDNN."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        is_plain = x.dtype == self.weight.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
        if not is_plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or not has_onednn():
            return super().forward(x)
        result: Tensor = _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result
