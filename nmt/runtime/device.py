"""Device, precision and compilation."""

import functools
import re
import timeit
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16")


def resolve_device(name: str) -> torch.device:
    """Return the device for a value of the option `device`; "auto" is the GPU if there is one.

    Raises:
        ValueError: the name is unknown or the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda)(:\d{1,2})?", name):
        raise ValueError(f"device={name}: must be auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices; use device=cpu or auto"
        )
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16; "auto" is bf16 where it is faster: on GPUs that support it, on CPUs by a measurement."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _matmul_seconds(torch.bfloat16) < 0.8 * _matmul_seconds(torch.float32) else "fp32"


@functools.cache
def _matmul_seconds(dtype: torch.dtype) -> float:
    """Return the time of the fastest of a few matrix products, measured once, so that a process decides once."""
    a = torch.ones(512, 512, dtype=dtype)
    return min(timeit.repeat(lambda: a @ a, number=1, repeat=8))


def compile_modules(model: nn.Module) -> None:
    """Compile the methods that modules name in `compiles`: Transformer layers, the loop body of a recurrent decoder.

    They are compiled at their first call, with dynamic shapes. Names and values of the parameters do not change.
    """
    for module in model.modules():
        if name := getattr(module, "compiles", None):
            setattr(module, name, TrainOnlyCompiled(module, getattr(module, name)))


class TrainOnlyCompiled:
    """A method of a module, compiled in training mode only: each step of a search would be compiled for its shape."""

    def __init__(self, module: nn.Module, method: Callable[..., Any]) -> None:
        self.module, self.method, self.compiled = module, method, torch.compile(method, dynamic=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self.compiled if self.module.training else self.method)(*args, **kwargs)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the autocast context of a precision; parameters and optimizer stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
