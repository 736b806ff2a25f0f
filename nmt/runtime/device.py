"""Device, precision and compilation."""

import re
import timeit
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16")


def resolve_device(name: str) -> torch.device:
    """Return the device that `device=` names; "auto" is the GPU when there is one.

    Raises:
        ValueError: the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda)(:\d{1,2})?", name):
        raise ValueError(f"device={name}: must be auto, cpu, cuda or cuda:N")
    chosen = torch.device(name)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices; use device=cpu or auto"
        )
    return chosen


def resolve_precision(name: str, on: torch.device) -> str:
    """Return fp32 or bf16; "auto" takes bf16 where it is faster: on GPUs that have it, on CPUs by a measurement."""
    if name != "auto":
        return name
    if on.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32) else "fp32"


def _seconds(dtype: torch.dtype) -> float:
    """Return the time of the fastest of a few matrix products."""
    a = torch.ones(512, 512, dtype=dtype)
    return min(timeit.repeat(lambda: a @ a, number=1, repeat=8))


def compile_modules(model: nn.Module) -> None:
    """Compile, when they are first called, the methods that modules name in `compiles`: layers of a Transformer, the
    body of a recurrent decoder's loop. They are compiled for any batch size and length at once.

    The model's names and numbers stay as they are. Without training mode (validation, search) the methods run as they
    were, since single steps have shapes that would all be compiled again.
    """
    for module in model.modules():
        if name := getattr(module, "compiles", None):
            plain = getattr(module, name)
            setattr(module, name, TrainOnlyCompiled(module, plain))


class TrainOnlyCompiled:
    def __init__(self, module: nn.Module, plain: Callable[..., Any]) -> None:
        self.module, self.plain, self.fast = module, plain, torch.compile(plain, dynamic=True)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return (self.fast if self.module.training else self.plain)(*arguments, **named)


def autocast(precision: str, on: torch.device) -> torch.autocast:
    """Return the context in which a model computes in this precision; parameters and optimizer stay fp32."""
    return torch.autocast(on.type, torch.bfloat16, enabled=precision == "bf16")
