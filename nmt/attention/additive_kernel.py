"""The additive score without its largest tensor.

`tanh(q + k) @ v`, written down directly, holds a hidden layer for every pair of positions, (B, H, T, S, D), and
autograd keeps it until the backward pass. Here it exists one block at a time: a block is reduced to scores while it is
still in the cache, and computed again for the gradients. The memory is then that of an inner product.
"""

import itertools
import logging
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

log = logging.getLogger(__name__)

# Elements of a block, measured with 1 MiB of L2 per core and 32 MiB of L3: smaller blocks spend their time on
# starting operations and waking threads, larger ones leave the cache. A GPU has to be filled.
BLOCK_ELEMENTS = 1 << 21
CUDA_BLOCK_ELEMENTS = 1 << 24
# Up to this many elements the direct formula is faster: a step of decoding for a few sentences.
DIRECT_MAX_ELEMENTS = 1 << 16
# Queries of a sentence, the beams of a step, up to which its scores depend on nothing else in the batch.
STEP_MAX_QUERIES = 16
# Pairs per position from which exponentials pay; with a single query, say, there is one pair for every key.
EXP_MIN_PAIRS = 5
# Up to here exp(2x) and exp(-2x) are normal float32 numbers; a product of two may overflow, and is rightly infinite.
EXPONENTIAL_RANGE = 40.0


def additive_scores(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    """Compute vᵀ tanh(q + k) for every query and every key: Bahdanau et al. 2015, equation in appendix A.1.2.

    It holds blocks of about two million elements instead of the (B, H, *, T, S, D) tensor, forward and backward, and
    keeps nothing but its arguments for the backward pass, where the blocks are computed again. It differentiates once.

    Writing r = 1 / (1 + exp(2q) exp(2k)), tanh(q + k) = 1 - 2r and its derivative is 4r(1 - r): the exponentials are
    taken once per position instead of once per pair. Where that saves nothing (a single query), where their range does
    not suffice (an entry beyond ±40), and on a GPU, where the check would have to wait for it, r is sigmoid(-2(q + k)).
    Either way a float32 score is exact to about 1e-7 Σ|v|, also where it is itself far smaller than that sum.

    Args:
        query: (B, H, *, T, D), projected; `*` is any number of further batch dimensions.
        keys: (B, H, *, S, D), projected; the same leading dimensions.
        v: (H, D).

    Returns:
        (B, H, *, T, S): float64 for float64 arguments, else float32, whatever the arguments' dtype and under autocast
        too, because scores go into a softmax. Gradients have the dtype of their arguments.
    """
    assert query.shape[:-2] == keys.shape[:-2], (query.shape, keys.shape)
    assert query.shape[-1] == keys.shape[-1], (query.shape, keys.shape)
    assert v.shape == (query.shape[1], query.shape[-1]), (query.shape, v.shape)
    is_inference = query.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if query.numel() * keys.shape[-2] <= DIRECT_MAX_ELEMENTS and not is_inference:
        return _direct_scores(query, keys, v)
    function: Any = _AdditiveScores.apply
    if not query.is_cpu and torch.compiler.is_compiling():
        function = torch.compiler.disable(function)  # a trace would take the plain path, and fix the lengths in it
    # A search must not depend on what else is in the batch, neither by its size nor by its largest entry.
    scores: Tensor = function(query, keys, v, not (is_inference and query.shape[-2] <= STEP_MAX_QUERIES))
    return scores


def triton_works() -> bool:
    """Return whether Triton's kernels run on the GPU, which the first call tries: without a C compiler they do not.

    A warning then says why, once in a process. While torch.compile traces nothing can be tried: the answer is no.
    """
    return not torch.compiler.is_compiling() and _triton_ran()


@cache
def _triton_ran() -> bool:
    try:
        from nmt.attention import additive_kernel_triton

        additive_kernel_triton.try_kernel()
    except Exception as error:  # whatever a compiler, driver or package that is not as it should be raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        log.warning(
            "Triton's kernels, which need the package triton, a C compiler and Python's header files, do not run here; "
            "the additive score and the loss take the slower plain path (%s)",
            reason,
        )
        return False
    return True


def takes_triton(x: Tensor) -> bool:
    """Return whether Triton computes with x: on a GPU, in up to 32 bits, if it works there."""
    return x.is_cuda and x.dtype != torch.float64 and triton_works()


def _precision(query: Tensor) -> torch.dtype:
    """Return the dtype in which scores are computed."""
    return torch.float64 if query.dtype == torch.float64 else torch.float32


def _direct_scores(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    """Compute the formula directly, for problems whose hidden layer is small."""
    dtype = _precision(query)
    hidden = torch.tanh(query.to(dtype).unsqueeze(-2) + keys.to(dtype).unsqueeze(-3))  # (B, H, *, T, S, D)
    width = v.to(dtype).view(v.shape[0], *[1] * (hidden.dim() - 3), v.shape[1])
    return (hidden * width).sum(-1)


class _AdditiveScores(Function):
    """The additive score in blocks, or in Triton where it works."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, v: Tensor, may_use_exponentials: bool = True) -> Tensor:
        ctx.save_for_backward(query, keys, v)
        ctx.triton = takes_triton(query)
        with torch.autocast(query.device.type, enabled=False):
            if ctx.triton:
                from nmt.attention import additive_kernel_triton

                return additive_kernel_triton.forward(query, keys, v)
            pays = query.is_cpu and may_use_exponentials and _many_pairs(query, keys)
            ctx.exponential = pays and _within_range(query) and _within_range(keys)
            return _forward(query, keys, v, ctx.exponential)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, v = ctx.saved_tensors
        with torch.autocast(query.device.type, enabled=False):
            if ctx.triton:
                from nmt.attention import additive_kernel_triton

                return *additive_kernel_triton.backward(query, keys, v, grad), None
            return *_backward(query, keys, v, grad, ctx.exponential), None


def _many_pairs(query: Tensor, keys: Tensor) -> bool:
    """Return whether exponentials per position cost less than a sigmoid per pair."""
    length, source = query.shape[-2], keys.shape[-2]
    return length * source >= EXP_MIN_PAIRS * (length + source)


def _within_range(x: Tensor) -> bool:
    """Return whether the exponentials of all entries can be computed; not when one is NaN."""
    low, high = torch.aminmax(x)
    return low.item() >= -EXPONENTIAL_RANGE and high.item() <= EXPONENTIAL_RANGE


def merge_batch_dims(x: Tensor) -> Tensor:
    """Merge extra batch dimensions: (B, H, *, T, D) -> (B, H, M, T, D)."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:-2]), *x.shape[-2:])


def _blocks(query: Tensor, keys: Tensor) -> Iterator[tuple[slice, ...]]:
    """Split (B, H, M, T) into blocks whose hidden layers, (…, S, D), hold about `BLOCK_ELEMENTS`; at least one query.

    An outer dimension is split only if all inner ones are whole, so a block of the scores is contiguous.
    """
    sizes = query.shape[:4]
    rows = max(1, (BLOCK_ELEMENTS if query.is_cpu else CUDA_BLOCK_ELEMENTS) // (keys.shape[-2] * keys.shape[-1]))
    cuts: list[list[slice]] = []
    for size in reversed(sizes):
        step = max(1, min(size, rows))
        cuts.append([slice(start, min(start + step, size)) for start in range(0, size, step)])
        rows //= size
    yield from itertools.product(*reversed(cuts))


class _Hidden:
    """Computes r = (1 - tanh(q + k)) / 2 for a block, always in the same buffer."""

    def __init__(self, query: Tensor, keys: Tensor, exponential: bool) -> None:
        self.query, self.keys, self.exponential = query, keys, exponential
        self.dtype = _precision(query)
        self.one = torch.ones((), dtype=self.dtype, device=query.device)
        self.buffer = torch.empty(0, dtype=self.dtype, device=query.device)

    def __call__(self, block: tuple[slice, ...]) -> Tensor:
        """Return r (b, h, m, t, S, D), valid until the next call; it may be overwritten."""
        query = self.query[block].to(self.dtype).unsqueeze(-2)
        keys = self.keys[block[:3]].to(self.dtype).unsqueeze(-3)
        shape = (*query.shape[:4], *keys.shape[-2:])
        size = math.prod(shape)
        if size > self.buffer.numel():  # the first block is the largest
            self.buffer = self.buffer.new_empty(size)
        r = self.buffer[:size].view(shape)
        if self.exponential:
            torch.addcmul(self.one, (2 * query).exp_(), (2 * keys).exp_(), out=r)
            return r.reciprocal_()
        torch.add(query, keys, out=r)
        return r.mul_(-2).sigmoid_()


def _forward(query: Tensor, keys: Tensor, v: Tensor, exponential: bool) -> Tensor:
    """Compute the scores: Σ v tanh(q + k) = Σ v - 2 Σ v r."""
    dtype = _precision(query)
    scores = torch.empty((*query.shape[:-1], keys.shape[-2]), dtype=dtype, device=query.device)
    query, keys, v = merge_batch_dims(query), merge_batch_dims(keys), v.to(dtype)
    flat = scores.view(*query.shape[:4], keys.shape[-2])
    hidden = _Hidden(query, keys, exponential)
    for block in _blocks(query, keys):
        r = hidden(block).mul_(v[block[1], None, None, None])
        torch.sum(r, -1, out=flat[block])
    flat.mul_(-2).add_(v.sum(-1)[:, None, None, None])
    return scores


def _backward(query: Tensor, keys: Tensor, v: Tensor, grad: Tensor, exponential: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Compute gradients from g = ∂L/∂score: ∂q = 4v Σ_s g r(1 - r), ∂k = 4v Σ_t g r(1 - r), ∂v = Σ g (1 - 2r)."""
    dtype = _precision(query)
    weight = v.to(dtype)
    flat_query, flat_keys = merge_batch_dims(query), merge_batch_dims(keys)
    grad = grad.reshape(*flat_query.shape[:4], keys.shape[-2])
    grad_query = torch.empty(flat_query.shape, dtype=query.dtype, device=query.device)
    grad_keys = torch.zeros(flat_keys.shape, dtype=dtype, device=query.device)
    grad_v = grad.sum((0, 2, 3, 4), dtype=torch.float64).unsqueeze(-1).repeat(1, v.shape[1])
    hidden = _Hidden(flat_query, flat_keys, exponential)
    for block in _blocks(flat_query, flat_keys):
        r, g = hidden(block), grad[block]
        # One sum per query: behind a softmax g sums to 0 there, so the 1 of 1 - 2r does not eat the digits of ∂v.
        products = torch.bmm(g.reshape(-1, 1, g.shape[-1]), r.view(-1, *r.shape[-2:])).view(*r.shape[:4], -1)
        grad_v[block[1]].sub_(products.sum((0, 2, 3), dtype=torch.float64), alpha=2)
        r.addcmul_(r, r, value=-1).mul_(g.unsqueeze(-1))
        torch.mul(r.sum(-2), 4 * weight[block[1], None, None], out=grad_query[block])
        grad_keys[block[:3]].add_(r.sum(-3))
    grad_keys.mul_(4 * weight[:, None, None])
    return grad_query.view(query.shape), grad_keys.view(keys.shape).to(keys.dtype), grad_v.to(v.dtype)
