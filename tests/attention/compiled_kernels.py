"""Triton's kernels, compiled for GPUs as their callers launch them, without a GPU: a process of its own.

A driver stands for that of CUDA, on which a launch does nothing. Takes a compute capability (90: Hopper), prints the
number of kernels compiled.
"""

import sys
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from nmt.attention import additive_kernel_triton
from nmt.training import losses_triton

compiled: list[str] = []
SHARED_MEMORY = 48 << 10  # bytes that every GPU has for a program


class Utils:
    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[Any, ...]:
        return True, None, 0, 0, 1024  # module, function, registers, spilled ones, threads of a program at most

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_MEMORY, "multiprocessor_count": 1}


class Driver(DriverBase):
    """A GPU's driver that compiles, and launches nothing."""

    utils = Utils()

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        compiled.append(metadata.name)
        return lambda *_: None


def heads(length: int, num_heads: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(2, length, num_heads, width, dtype=dtype).transpose(1, 2)


def launch_additive(lengths: list[tuple[int, int]], num_heads: int, width: int, dtype: torch.dtype) -> None:
    v = torch.empty(num_heads, width)
    for length, source in lengths:
        query, keys = heads(length, num_heads, width, dtype), heads(source, num_heads, width, dtype)
        scores = additive_kernel_triton.forward(query, keys, v)
        additive_kernel_triton.backward(query, keys, v, scores)


def launch_losses(rows: list[int], vocabulary: int, dtype: torch.dtype) -> None:
    for num_rows in rows:
        logits, labels = torch.empty(num_rows, vocabulary, dtype=dtype), torch.zeros(num_rows, dtype=torch.int64)
        for smoothing in (0.0, 0.1):
            losses_triton.cross_entropy(logits, labels, smoothing, None)
            losses_triton.cross_entropy(logits, labels, smoothing, logits)
        losses_triton.symmetric_kl(logits, torch.empty_like(logits))


def main() -> None:
    triton.runtime.driver.set_active(Driver(int(sys.argv[1])))
    additive_kernel_triton.launch(additive_kernel_triton._one, (1,), 1, torch.empty(1))
    few = [(1, length) for length in (5, 32, 60, 200)] + [(5, 9), (7, 30), (2, 64), (8, 100)]
    launch_additive([*few, (20, 1), (20, 3), (60, 70)], 4, 64, torch.bfloat16)
    launch_losses([6], 1000, torch.bfloat16)
    known = list(compiled)
    few = [(1, length) for length in (16, 48)] + [(3, 65), (6, 17), (33, 16), (16, 1)]
    launch_additive([*few, (100, 100), (48, 500), (257, 33)], 4, 64, torch.bfloat16)
    launch_losses([1, 2, 16, 128, 130], 1000, torch.bfloat16)
    assert compiled == known, compiled[len(known) :]  # a batch of other lengths compiles nothing
    for dtype, num_heads, width, vocabulary in ((torch.float32, 1, 1, 1), (torch.float16, 3, 500, 32_001)):
        launch_additive([(1, 50), (40, 50)], num_heads, width, dtype)
        launch_losses([2], vocabulary, dtype)
    print(len(compiled))


if __name__ == "__main__":
    main()
