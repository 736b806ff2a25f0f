"""Triton's kernels, run in its interpreter, against the formulas in fp64; a process of its own (TRITON_INTERPRET=1).

What the project calls is called, with tensors on a CPU, as if they were on a GPU. Prints "agreed".
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nmt.attention import additive_kernel, additive_kernel_triton
from nmt.training import losses, losses_triton

TOLERANCE = {torch.float32: 4e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}  # relative: of fp32 sums, of a rounding
guarded: list[Tensor] = []


class DeviceOf:
    """Stands for `torch.cuda.device_of`, and keeps whose device is current."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __enter__(self) -> None:
        guarded.append(self.tensor)

    def __exit__(self, *_: object) -> None:
        guarded.pop()


class Guarded:
    """A kernel that may be launched only while the device of its first argument is current."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            assert guarded[-1] is arguments[0]
            tile = [options[name] for name in ("rows", "columns", "width", "block") if name in options]
            assert all(size & (size - 1) == 0 for size in tile), tile  # powers of two, which the interpreter ignores
            self.kernel[grid](*arguments, **options)

        return launch


def close(found: Tensor, exact: Tensor, size: float = 1.0) -> None:
    """Hold a result equal to the exact one, which is a sum of terms of this size in all."""
    tolerance = TOLERANCE[found.dtype]
    torch.testing.assert_close(found.double(), exact.detach(), atol=TOLERANCE[torch.float32] * size, rtol=tolerance)


def heads(*shape: int) -> Tensor:
    """Queries or keys (B, H, *, T, D) as layers have them: heads split from (B, *, T, H · D), in place."""
    batch, num_heads, *more, length, width = shape
    return torch.randn(batch, *more, length, num_heads, width).movedim(-2, 1)


def additive_formula(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    hidden = torch.tanh(query.unsqueeze(-2) + keys.unsqueeze(-3))
    return torch.stack([hidden[:, head] @ v[head] for head in range(len(v))], dim=1)


def check_additive(query: Tensor, keys: Tensor, dtype: torch.dtype, scale: float) -> None:
    if scale:  # entries that cancel, and whose exponentials overflow
        offset = torch.zeros(query.size(-2), 1)
        offset[0] = scale
        query, keys = query + offset, keys - scale
    v = torch.randn(1, query.size(-1)).expand(query.size(1), -1)
    inputs = [x.to(dtype).requires_grad_() for x in (query, keys)] + [v.clone().requires_grad_()]
    scores = additive_kernel.additive_scores(*inputs)
    assert scores.dtype == torch.float32
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = additive_formula(*exact)
    size = float(v.abs().sum(-1).max())
    close(scores, expected, size)
    upstream = torch.randn(scores.shape)
    largest, terms = v.abs().max(), upstream.abs()
    sizes = terms.sum(-1).max() * largest, terms.sum(-2).max() * largest, terms.sum()
    found = torch.autograd.grad(scores, inputs, upstream)
    truths = torch.autograd.grad(expected, exact, upstream.double())
    for mine, truth, total in zip(found, truths, sizes, strict=True):
        close(mine, truth, float(total))


def check_losses(logits: Tensor, smoothing: float) -> None:
    logits = logits.detach().requires_grad_()
    num_rows, vocabulary = logits.shape
    labels = torch.randint(0, vocabulary, (2 * num_rows,))[::2]
    labels[:1] = vocabulary - 1
    exact = logits.detach().double().requires_grad_()
    expected = functional.cross_entropy(exact, labels, label_smoothing=smoothing, reduction="sum")
    loss, nll = losses.cross_entropy(logits, labels, smoothing=smoothing)
    close(loss, expected, num_rows)
    close(nll, functional.cross_entropy(exact, labels, reduction="sum"), num_rows)
    (gradient,) = torch.autograd.grad(loss, logits)
    close(gradient, torch.autograd.grad(expected, exact)[0])
    assert gradient.dtype == logits.dtype
    with torch.no_grad():
        assert losses.cross_entropy(logits, labels, smoothing=smoothing)[0] == loss
    place = logits.detach().clone(memory_format=torch.contiguous_format)
    losses_triton.cross_entropy(place, labels, smoothing, place)
    assert torch.equal(place, gradient)  # in place of the logits
    if num_rows % 2 == 0:
        divergence = losses.symmetric_kl(logits)
        p, q = exact.log_softmax(-1).chunk(2)
        expected = ((p.exp() - q.exp()) * (p - q)).sum()
        size = 1 + float(expected.detach())
        close(divergence, expected, size)
        close(torch.autograd.grad(divergence, logits)[0], torch.autograd.grad(expected, exact)[0], size)


def main() -> None:
    np.seterr(all="ignore")  # of numbers that are masked
    torch.manual_seed(0)
    torch.cuda.device_of = DeviceOf  # type: ignore[assignment, misc]
    kernels = {additive_kernel_triton: ("_scores", "_gradient"), losses_triton: ("_cross_entropy", "_symmetric_kl")}
    for module, name in ((module, name) for module, names in kernels.items() for name in names):
        setattr(module, name, Guarded(getattr(module, name)))
    additive_kernel.DIRECT_MAX_ELEMENTS = 0
    additive_kernel.takes_triton = losses.takes_triton = lambda x: x.dtype in TOLERANCE
    additive_kernel._forward = losses.at_least_fp32 = None  # type: ignore[assignment]  # the plain path is not taken

    windows = heads(2, 2, 8, 6).unfold(2, 5, 1).transpose(-1, -2)  # (B, H, 4, 5, D), overlapping
    cases = [
        (heads(2, 3, 5, 4), heads(2, 3, 7, 4)),
        (heads(1, 2, 33, 3), heads(1, 2, 35, 3)),  # one more than a tile
        (heads(1, 2, 1, 70), heads(1, 2, 140, 70)),  # a step of decoding, wider than a tile
        (heads(1, 1, 1, 1), heads(1, 1, 1, 1)),
        (heads(2, 2, 4, 1, 6), windows),
        (torch.randn(1, 2, 5, 3).transpose(2, 3), heads(1, 2, 40, 5)),  # columns apart
        (heads(1, 2, 3, 2, 9, 4), torch.randn(1, 2, 3, 2, 2, 4)),
        (torch.randn(2, 1, 1, 4).expand(2, 3, 3, 4), torch.randn(1, 3, 6, 4).expand(2, 3, 6, 4)),
    ]
    for (query, keys), dtype in itertools.product(cases, TOLERANCE):
        check_additive(query, keys, dtype, 0.0)
    for dtype in TOLERANCE:
        check_additive(*cases[0], dtype, 1e4)
    for x in (cases[0][0], windows):
        taken = additive_kernel_triton.with_adjacent_columns(additive_kernel.merge_batch_dims(x))
        assert taken.data_ptr() == x.data_ptr()  # no copy

    block = losses_triton.BLOCK
    logits = {
        "a row": torch.randn(1, 11),
        "one entry": torch.randn(3, 1),
        "a column more than a block": 5 * torch.randn(2, block + 1),
        "no rows": torch.randn(0, 5),
        "rows apart": torch.randn(4, 30)[:, 3:24],
        "columns apart": torch.randn(4, 34)[:, ::2],
        "transposed": torch.randn(13, 4).t(),
        "large": 1e4 * torch.eye(4, 9),
        "far from 0": torch.randn(4, 9) - 3e4,
    }
    for (name, rows), dtype in itertools.product(logits.items(), TOLERANCE):
        for smoothing in (0.1,) if len(rows) > 3 else (0.0, 0.1):
            try:
                check_losses(rows.to(dtype), smoothing)
            except AssertionError as error:
                raise AssertionError(f"{name}, {dtype}, smoothing {smoothing}: {error}") from None
    print("agreed")


if __name__ == "__main__":
    main()
