"""Linear layers whose fp32 products run on oneDNN.

torch gives fp32 products on a CPU to MKL, which uses half of the vector width on processors other than Intel's; its
bf16 products run on oneDNN already. Results agree to the rounding of fp32.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nmt.runtime.device import autocast, cpu_has_bf16

PACKED_FOR_ROWS = 320
"""Rows for which oneDNN chooses the order of a packed weight; any number can be multiplied with it."""


@functools.cache
def has_onednn() -> bool:
    """Return whether torch was built with a oneDNN that computes linear layers."""
    try:
        with torch.no_grad():
            torch.ops.mkldnn._linear_pointwise(torch.ones(2, 2), torch.ones(2, 2), None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return True


def at_least_fp32(x: Tensor) -> Tensor:
    """Return x in fp32, or as it is in fp64."""
    return x if x.dtype == torch.float64 else x.float()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x Wᵀ + b without a gradient: (..., K), (N, K), (N,) -> (..., N)."""
    is_plain = x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    if not is_plain or torch.compiler.is_compiling() or not has_onednn():
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


class _LoopStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, loop: "LoopWeight") -> Tensor:
        ctx.dtype, x = x.dtype, x.to(loop.weight.dtype)
        ctx.save_for_backward(x)
        ctx.loop = loop
        return linear(x, loop.weight, loop.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (x,), loop = ctx.saved_tensors, ctx.loop
        loop.inputs.append(x.reshape(-1, x.size(-1)))
        loop.gradients.append(gradient.reshape(-1, gradient.size(-1)))
        grad_x = linear(gradient, loop.weight.t()).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return grad_x, gradient.new_zeros(0, dtype=torch.float32), None


class _LoopEnd(torch.autograd.Function):
    """Its backward pass comes after that of all steps, each of which reads the token."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, loop: "LoopWeight") -> Tensor:
        ctx.loop, ctx.dtype = loop, weight.dtype
        return weight.new_zeros(0, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients, inputs = torch.cat(ctx.loop.gradients), torch.cat(ctx.loop.inputs)
        ctx.loop.gradients, ctx.loop.inputs = [], []
        grad_bias = gradients.sum(0, dtype=ctx.dtype) if ctx.needs_input_grad[1] else None
        return weight_gradient(gradients, inputs).to(ctx.dtype), grad_bias, None


class LoopWeight:
    """A weight and bias for every step of a loop, whose gradients are computed in one product after the last step."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        self.weight, self.bias = weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.token: Tensor = _LoopEnd.apply(weight, bias, self)  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N), in the precision of autocast."""
        result: Tensor = _LoopStep.apply(x, self.token, self)  # type: ignore[no-untyped-call]
        return result


class Packed(NamedTuple):
    """A weight in oneDNN's own order; `version` is that of the parameter it was made from, which a change raises."""

    weight: Tensor
    bias: Tensor | None
    version: int


class Linear(nn.Linear):
    """`torch.nn.Linear`; on a CPU oneDNN computes it in fp32, and within `packed_weights` also in bf16."""

    loop: LoopWeight | None = None
    packed: Packed | None = None  # the one in use, of:
    packs: Mapping[torch.dtype, Packed] = MappingProxyType({})

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if self.loop is not None:
            return self.loop(x)
        is_plain = x.dtype == self.weight.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
        if not is_plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or not has_onednn():
            return super().forward(x)
        packed = self.packed
        if packed is None or torch.is_grad_enabled() or packed.version != self.weight._version:
            result: Tensor = _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return result
        x = x.to(packed.weight.dtype)
        result = torch.ops.mkldnn._linear_pointwise(x, packed.weight, packed.bias, "none", [], "")
        return result.float()

    def pack(self, dtype: torch.dtype) -> Packed:
        """Return the packed weight, which is kept until the weights change or the layer is trained."""
        packed = self.packs.get(dtype)
        if packed is None or packed.version != self.weight._version:
            with torch.no_grad():
                weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.to(dtype).contiguous(), PACKED_FOR_ROWS)
                packed = Packed(weight, None if self.bias is None else self.bias.to(dtype), self.weight._version)
            self.packs = {**self.packs, dtype: packed}
        return packed

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as every module; packed weights are let go for training."""
        if mode:
            self.packs = {}
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("loop", "packed", "packs")}


@contextlib.contextmanager
def loop_over(module: nn.Module) -> Iterator[None]:
    """Let the linear layers of a module use `LoopWeight` in the block, if gradients are computed."""
    layers = [layer for layer in module.modules() if isinstance(layer, Linear) and layer.weight.requires_grad]
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        layers = []
    try:
        for layer in layers:
            layer.loop = LoopWeight(layer.weight, layer.bias)
        yield
    finally:
        for layer in layers:
            layer.loop = None


@contextlib.contextmanager
def packed_weights(model: nn.Module, precision: str) -> Iterator[None]:
    """Pack the weights of a model's linear layers for the block, where they do not change and gradients are off.

    In bf16 the products are computed in bf16 and everything else stays fp32, in which a CPU computes the attention of
    few queries faster. On a GPU, in fp16, and on a CPU without bf16, nothing is packed and `autocast` decides.
    """
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    device, dtype = next(model.parameters()).device, torch.bfloat16 if precision == "bf16" else torch.float32
    packs = device.type == "cpu" and has_onednn() and precision != "fp16" and (precision != "bf16" or cpu_has_bf16())
    for layer in layers:
        layer.packed = layer.pack(dtype) if packs and layer.weight.dtype == torch.float32 else None
    try:
        with autocast("fp32" if packs else precision, device):
            yield
    finally:
        for layer in layers:
            layer.packed = None
