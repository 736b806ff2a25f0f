"""Device, precision and compilation."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16")


def resolve_device(name: str) -> torch.device:
    """The device that `device=` names; "auto" is the GPU when there is one.

    Raises:
        ValueError: the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name}: must be auto, cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name}: must be auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices; use device=cpu or auto"
        )
    return chosen


def resolve_precision(name: str, on: torch.device) -> str:
    """fp32 or bf16; "auto" takes bf16 where it is faster: on GPUs that have it, on CPUs by a short measurement."""
    if name != "auto":
        return name
    if on.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32) else "fp32"


def _seconds(dtype: torch.dtype) -> float:
    """The best of a few matrix products."""
    a = torch.ones(512, 512, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return best


def compile_modules(model: nn.Module) -> None:
    """Compiles, when they are first called, the methods that modules name in `compiles`: a Transformer's layers, the
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
    """The context in which a model computes in this precision; parameters and optimizer stay fp32."""
    return torch.autocast(on.type, torch.bfloat16, enabled=precision == "bf16")
