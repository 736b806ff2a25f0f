"""Pretended CUDA: tensors that say cuda:0, refuse what CUDA refuses, and compute on the CPU.

A test on them finds tensors that were left on the wrong device, waits for the device, and the number of kernels that an
update or a search step launches. docs/dev/gpu.md says what it cannot find.

    import pretended_cuda as cuda  # before torch, in a process of its own
    with cuda.device(), cuda.counted() as counts:
        model.to("cuda")
        ...

Three parts. A library in C++, compiled once and kept in the folder of temporary files, gives a CPU build of torch what
autograd asks of a CUDA build: a device guard and hooks. `CudaTensor` wraps a CPU tensor; every operator on one arrives
in its `__torch_dispatch__`, after autograd and autocast have done what they do for CUDA. `device` is the mode in which
tensors can be made on cuda:0.

Where CUDA has one kernel and a CPU many, one launch is counted: attention of torch, layers of cuDNN (in fp16 under any
autocast, as cuDNN is called there), fused cells, and what `one_launch` wraps. A CUDA graph computes what it captured
again, into the same memory; while it captures, a wait is an error.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, Self

LIBRARY = """
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using c10::Device, c10::DeviceIndex, c10::DeviceType, c10::Stream;

// One device, one stream: nothing is ever switched.
struct OneDevice final : c10::impl::DeviceGuardImplInterface {
  Device only() const { return Device(DeviceType::CUDA, 0); }
  Stream queue() const { return Stream(Stream::DEFAULT, only()); }
  DeviceType type() const override { return DeviceType::CUDA; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  Device getDevice() const override { return only(); }
  Device exchangeDevice(Device) const override { return only(); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return queue(); }
  Stream getDefaultStream(Device) const override { return queue(); }
  Stream getNewStream(Device, int) const override { return queue(); }
  Stream exchangeStream(Stream) const override { return queue(); }
};
C10_REGISTER_GUARD_IMPL(CUDA, OneDevice)

namespace at {  // where torch's registry wants it
struct PretendedHooks final : CUDAHooksInterface {
  PretendedHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, PretendedHooks)
}
"""


def missing_tools() -> str:
    """Return why the library cannot be compiled here, or nothing when it can."""
    return "" if shutil.which("g++") else "g++ is not installed, with which pretended CUDA is compiled"


def _load_library() -> None:
    """Compile the library for this torch, unless it has been, and load it beside torch's own."""
    if "torch" in sys.modules:
        raise RuntimeError("pretended_cuda must be imported before torch, which asks for its devices once")
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    key = hashlib.sha256((LIBRARY + str(root) + (root / "version.py").read_text()).encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"nmt-pretended-cuda-{os.getuid()}-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as folder:
            source, built = Path(folder, "device.cpp"), Path(folder, "device.so")
            source.write_text(LIBRARY)
            include = [f"-I{root / 'include'}", f"-I{sysconfig.get_paths()['include']}"]
            link = [f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu"]
            flags = ["-std=c++20", "-O0", "-w", "-shared", "-fPIC"]
            subprocess.run(["g++", *flags, *include, str(source), "-o", str(built), *link], check=True)
            partial = library.with_suffix(f".{os.getpid()}")
            shutil.copyfile(built, partial)
            partial.rename(library)  # two processes may compile at the same time
    for path in (root / "lib/libc10.so", root / "lib/libtorch_cpu.so", library):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


_load_library()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing  # noqa: E402

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

WAITS: dict[Any, str] = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.repeat_interleave.Tensor: "repeat_interleave without output_size",
    aten.equal.default: "equal",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.bincount.default: "bincount",
}
"""Operators whose result the processor needs: the size of a tensor, or a number."""

COPIES = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
"""Operators of tensors on different devices."""

INDEXING = {
    getattr(getattr(aten, name), overload)
    for name, overload in (
        ("index", "Tensor"), ("_unsafe_index", "Tensor"), ("index_put", "default"), ("index_put_", "default"),
        ("_index_put_impl_", "default"), ("_unsafe_index_put", "default"),
    )
}  # fmt: skip

TAKES_CPU_SCALARS = {
    aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.fill.Tensor, aten.fill_.Tensor, aten.where.self,
    aten._foreach_mul.Tensor, aten._foreach_mul_.Tensor, aten._foreach_div.Tensor, aten._foreach_div_.Tensor,
    aten._foreach_add.Tensor, aten._foreach_add_.Tensor,
}  # fmt: skip
"""Beside the pointwise operators, which take a CPU tensor without dimensions too."""

NO_LAUNCH = {
    "view", "_unsafe_view", "_reshape_alias", "as_strided", "t", "transpose", "permute", "expand", "slice", "select",
    "unsqueeze", "squeeze", "unfold", "diagonal", "alias", "detach", "lift_fresh", "unbind", "split", "set_", "resize_",
    "split_with_sizes", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "is_same_size",
    "_local_scalar_dense",
}  # fmt: skip
"""Views, memory without values, and what is counted as a wait."""


@dataclass
class Counts:
    """Kernels launched, by operator; waits, by kind and the innermost line of the package under test.

    replayed: kernels inside graphs, the replay of which is one launch.
    """

    launches: Counter[str] = field(default_factory=Counter)
    replayed: int = 0
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """Return the sums, and waits as {"item at nmt/…:12": 3}, for JSON."""
        waits = {f"{kind} at {place}": num for (kind, place), num in self.waits.most_common()}
        return {"launches": self.launches.total() + self.replayed, "waits": self.waits.total(), "where": waits}


_counts = Counts()


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count the launches and waits of the block, which may not be nested."""
    global _counts
    former, _counts = _counts, Counts()
    try:
        yield _counts
    finally:
        _counts = former


def _launch(name: str) -> None:
    if _capturing is None:
        _counts.launches[name] += 1
    else:
        _capturing.kernels += 1


def _wait(kind: str) -> None:
    if _capturing is not None:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({kind})")
    frame: FrameType | None = sys._getframe(1)
    place = "the test"
    while frame is not None:
        _, found, path = frame.f_code.co_filename.rpartition("/nmt/")
        if found:
            place = f"nmt/{path}:{frame.f_lineno}"
            break
        frame = frame.f_back
    _counts.waits[kind, place] += 1


class CudaGraph:
    """The operators of a block, computed again into the same memory at every replay.

    kernels: launches among them.
    """

    def __init__(self) -> None:
        self.operations: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = []
        self.kernels = 0
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # memory, and what was in it
        self._made: dict[int, torch.UntypedStorage] = {}

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Compute an operator while it is captured; `end` undoes it."""
        for tensor in _tensors((args, kwargs)):
            memory = tensor.untyped_storage()
            if memory.data_ptr() not in self._before and memory.data_ptr() not in self._made:
                self._before[memory.data_ptr()] = memory, memory.clone()
        out = function(*args, **kwargs)
        results = _tensors(out)
        for result in results:
            memory = result.untyped_storage()
            if memory.data_ptr() not in self._before:
                self._made[memory.data_ptr()] = memory
        self.operations.append((function, args, kwargs, results))
        return out

    def end(self) -> None:
        """Undo what was computed, since a GPU computes nothing while it captures; new memory has no meaning yet."""
        for memory, content in self._before.values():
            memory.copy_(content)
        for memory in self._made.values():
            memory.fill_(255)  # NaN
        self._before.clear()

    def replay(self) -> None:
        """Compute everything again."""
        _counts.launches["graph"] += 1
        _counts.replayed += self.kernels
        for function, args, kwargs, results in self.operations:
            for old, new in zip(results, _tensors(function(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new.detach())


_capturing: CudaGraph | None = None


@contextlib.contextmanager
def _capture(graph: CudaGraph, *_: Any, **__: Any) -> Iterator[None]:
    """Capture the block, as torch.cuda.graph does, which waits for the device first."""
    global _capturing
    _wait("synchronize")
    _capturing = graph
    try:
        yield
    finally:
        _capturing = None
        graph.end()


def _execute(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Compute a function of CPU tensors."""
    return function(*args, **kwargs) if _capturing is None else _capturing.run(function, args, kwargs)


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor)]


class CudaTensor(Tensor):
    """A tensor of cuda:0 whose values are those of a CPU tensor.

    values: shape, strides and dtype are the same.
    """

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Self:
        tensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=CUDA,
        )
        tensor.values = values
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # torch's own would wait
        return f"CudaTensor({self.values})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "CudaTensor":
        if id(self) not in memo:
            copied = CudaTensor(self.values.detach().clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                copied._is_param = True
            memo[id(self)] = copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be stored as a CPU tensor, as which checkpoints are loaded."""
        _wait("copy to the processor")
        return self.values.detach().__reduce_ex__(protocol)

    def tolist(self) -> Any:
        _wait("tolist")
        return self.values.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")


class MixedDevicesError(RuntimeError):
    """Tensors of two devices met in an operator that does not take them."""


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _check_devices(func: Any, on_cpu: Sequence[Tensor]) -> None:
    """Raise what CUDA would for the CPU tensors among the arguments of an operator on cuda:0; count what they cost."""
    for tensor in on_cpu:
        if func in INDEXING and tensor.dtype in (torch.int64, torch.int32, torch.bool, torch.uint8):
            _wait("index sent to the device")
        elif tensor.dim() or not (torch.Tag.pointwise in func.tags or func in TAKES_CPU_SCALARS or func in INDEXING):
            raise MixedDevicesError(
                f"{func}: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                f"cpu, of shape {tuple(tensor.shape)}"
            )


def _count_waits(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Count the waits of an operator that has a tensor of cuda:0 among its arguments or as its result."""
    target = kwargs.get("device")
    if func in WAITS:
        if func is not aten.repeat_interleave.Tensor or kwargs.get("output_size") is None:
            _wait(WAITS[func])
    elif func in INDEXING:
        value = args[2] if len(args) > 2 else None
        becomes_masked_fill = value is not None and value.numel() == 1 and not isinstance(value, CudaTensor)
        masks = [x for x in args[1] if isinstance(x, CudaTensor) and x.dtype in (torch.bool, torch.uint8)]
        if masks and not becomes_masked_fill:
            _wait("boolean index")
    elif func is aten._to_copy.default and isinstance(args[0], CudaTensor):
        if target is not None and not _is_cuda(target):
            _wait("copy to the processor")
    elif func is aten._to_copy.default:
        _count_upload(args[0], bool(kwargs.get("non_blocking")))
    elif func is aten.copy_.default:
        _count_copy(args[0], args[1], bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2])))
    elif func is aten._foreach_copy_.default:
        for to, source in zip(args[0], args[1], strict=True):
            _count_copy(to, source, non_blocking=False)


def _count_copy(to: Tensor, source: Tensor, non_blocking: bool) -> None:
    if not isinstance(to, CudaTensor):
        _wait("copy to the processor")
    elif not isinstance(source, CudaTensor) and source.dim():  # a single number travels with the kernel
        _count_upload(source, non_blocking)


def _count_upload(source: Tensor, non_blocking: bool) -> None:
    if not non_blocking:
        _wait("copy to the device")
    elif not source.is_pinned():
        _wait("copy to the device from pageable memory")


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator that has a tensor of cuda:0 among its arguments or as its result."""
    if func is aten.is_pinned.default:
        return False
    flat, structure = pytree.tree_flatten((args, kwargs))
    ours = [x for x in flat if isinstance(x, CudaTensor)]
    if ours and func not in COPIES:
        _check_devices(func, [x for x in flat if isinstance(x, Tensor) and not isinstance(x, CudaTensor)])
    _count_waits(func, args, kwargs)
    plain = [x.values if isinstance(x, CudaTensor) else x for x in flat]
    plain = [CPU if isinstance(x, torch.device) and x.type == "cuda" else x for x in plain]
    plain_args, plain_kwargs = pytree.tree_unflatten(plain, structure)
    out = _execute(ONLY_ON_CUDA.get(func, func), plain_args, plain_kwargs)
    name, results = func.overloadpacket.__name__, _tensors(out)
    if name not in NO_LAUNCH and (not results or any(result.numel() for result in results)):
        _launch(name)
    target = kwargs.get("device")
    if target is not None and not _is_cuda(target):
        return out
    if func is aten.copy_.default and not isinstance(args[0], CudaTensor):
        return args[0]
    wrapped = pytree.tree_map(lambda x: CudaTensor(x) if isinstance(x, Tensor) else x, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if ours else wrapped


class _Device(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat = pytree.tree_leaves((args, kwargs))
        if any(isinstance(x, CudaTensor) or (isinstance(x, torch.device) and x.type == "cuda") for x in flat):
            return _dispatch(func, args, kwargs)
        return func(*args, **kwargs)


def device() -> contextlib.AbstractContextManager[Any]:
    """Return the mode of this thread in which tensors can be made on cuda:0 and sent there."""
    return _Device()


def values(tree: Any) -> Any:
    """Return a tensor, or a tree of them, on the CPU; this is no wait of the code under test."""
    return pytree.tree_map(lambda x: x.values.detach() if isinstance(x, CudaTensor) else x, tree)


def one_launch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors as a kernel: computed on their values, and counted as one launch."""

    @functools.wraps(function)
    def kernel(*args: Any, **kwargs: Any) -> Any:
        flat, structure = pytree.tree_flatten((args, kwargs))
        if wrong := [x for x in flat if isinstance(x, Tensor) and not isinstance(x, CudaTensor)]:
            raise MixedDevicesError(f"{name}: an argument of shape {tuple(wrong[0].shape)} is not on cuda:0")
        _launch(name)
        args, kwargs = pytree.tree_unflatten([x.values if isinstance(x, CudaTensor) else x for x in flat], structure)
        out = _execute(function, args, kwargs)
        return pytree.tree_map(lambda x: CudaTensor(x) if isinstance(x, Tensor) else x, out)

    return kernel


# ------------------------------------------------------------------ cells as one kernel each way
def _lstm_cell(
    inputs: Tensor, hidden: Tensor, cell: Tensor, input_bias: Any = None, hidden_bias: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    _check_dtypes("_thnn_fused_lstm_cell", inputs, hidden, cell, input_bias, hidden_bias)
    gates = sum((x for x in (hidden, input_bias, hidden_bias) if x is not None), inputs)
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    after = f * cell + i * g
    return o * after.tanh(), after, torch.cat([i, f, g, o], 1)


def _lstm_cell_backward(
    grad_hidden: Any, grad_cell: Any, before: Tensor, after: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Any, ...]:
    i, f, g, o = gates.chunk(4, 1)
    squashed = after.tanh()
    grad_hidden = torch.zeros_like(after) if grad_hidden is None else grad_hidden
    grad = grad_hidden * o * (1 - squashed**2) + (0 if grad_cell is None else grad_cell)
    parts = [grad * g * i * (1 - i), grad * before * f * (1 - f), grad * i * (1 - g**2)]
    grad_gates = torch.cat([*parts, grad_hidden * squashed * o * (1 - o)], 1)
    return grad_gates, grad * f, grad_gates.sum(0) if has_bias else grad_gates.new_zeros(0)


def _gru_cell(
    inputs: Tensor, hidden: Tensor, before: Tensor, input_bias: Any = None, hidden_bias: Any = None
) -> tuple[Tensor, Tensor]:
    _check_dtypes("_thnn_fused_gru_cell", inputs, hidden, before, input_bias, hidden_bias)
    inputs = inputs if input_bias is None else inputs + input_bias
    hidden = hidden if hidden_bias is None else hidden + hidden_bias
    (r, z, n), (hidden_r, hidden_z, hidden_n) = inputs.chunk(3, 1), hidden.chunk(3, 1)
    r, z = (r + hidden_r).sigmoid(), (z + hidden_z).sigmoid()
    n = (n + r * hidden_n).tanh()
    return n + z * (before - n), torch.cat([r, z, n, before, hidden_n], 1)


def _gru_cell_backward(grad: Tensor, workspace: Tensor, has_bias: bool) -> tuple[Any, ...]:
    r, z, n, before, hidden_n = workspace.chunk(5, 1)
    grad_n = grad * (1 - z) * (1 - n**2)
    parts = [grad_n * hidden_n * r * (1 - r), grad * (before - n) * z * (1 - z)]
    grads = torch.cat([*parts, grad_n], 1), torch.cat([*parts, grad_n * r], 1)
    return *grads, grad * z, *(x.sum(0) if has_bias else x.new_zeros(0) for x in grads)


def _check_dtypes(name: str, *tensors: Any) -> None:
    dtypes = {x.dtype for x in tensors if x is not None}
    if len(dtypes) > 1:
        raise RuntimeError(f"{name}: expected tensors of one dtype, found {sorted(map(str, dtypes))}")


def _widening(softmax: Any) -> Callable[..., Tensor]:
    """Return a softmax that may give fp32 for fp16."""
    return lambda x, dim, to_float: softmax(x.float() if to_float else x, dim, False)


def _narrowing(backward: Any) -> Callable[..., Tensor]:
    """Return its backward pass, with a gradient in the dtype of the scores."""
    return lambda grad, weights, dim, dtype: backward(grad, weights, dim, grad.dtype).to(dtype)


ONLY_ON_CUDA: dict[Any, Callable[..., Any]] = {
    aten._thnn_fused_lstm_cell.default: _lstm_cell,
    aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_backward,
    aten._thnn_fused_gru_cell.default: _gru_cell,
    aten._thnn_fused_gru_cell_backward.default: _gru_cell_backward,
    aten._softmax.default: _widening(aten._softmax.default),
    aten._log_softmax.default: _widening(aten._log_softmax.default),
    aten._softmax_backward_data.default: _narrowing(aten._softmax_backward_data.default),
    aten._log_softmax_backward_data.default: _narrowing(aten._log_softmax_backward_data.default),
}
"""Operators, or options of them, without an implementation for the CPU."""


# ------------------------------------------------------------------ libraries of CUDA as one kernel each way
class _Library(torch.autograd.Function):
    """A function with a graph of its own on the CPU, in fp32; its results have the dtype of its first argument."""

    @staticmethod
    def forward(ctx: Any, name: str, function: Callable[..., Any], *tensors: Any) -> Any:
        _launch(name)
        ctx.name, ctx.dtypes = name, [x if x is None else x.dtype for x in tensors]

        def compute(*values: Tensor | None) -> tuple[Any, ...]:
            own = [
                x.detach().float().requires_grad_() if x is not None and x.is_floating_point() else x for x in values
            ]
            with torch.enable_grad():
                results = function(*own)
            return own, results, [x.detach().to(ctx.dtypes[0]) for x in results]

        ctx.own, ctx.results, out = _execute(compute, [x if x is None else x.values for x in tensors], {})
        return tuple(CudaTensor(x) for x in out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        _launch(f"backward of {ctx.name}")
        pairs = [(x, grad.values.float()) for x, grad in zip(ctx.results, grads, strict=True) if grad is not None]
        wanted = [x for x in ctx.own if x is not None and x.requires_grad]
        found = torch.autograd.grad([x for x, _ in pairs], wanted, [grad for _, grad in pairs], allow_unused=True)
        of = {id(x): grad for x, grad in zip(wanted, found, strict=True)}
        in_order = [(of.get(id(x)), dtype) for x, dtype in zip(ctx.own, ctx.dtypes, strict=True)]
        return None, None, *(None if grad is None else CudaTensor(grad.to(dtype)) for grad, dtype in in_order)


def _cudnn(kind: str) -> Callable[..., Any]:
    """Return torch's "lstm" or "gru" with cuDNN's in the place of its own for tensors on cuda:0."""
    original = getattr(torch._C._VariableFunctions, kind)

    def layer(x: Any, initial: Any, weights: Any, *options: Any) -> Any:
        if not isinstance(x, CudaTensor):
            return original(x, initial, weights, *options)
        is_lstm = kind == "lstm"
        initial = tuple(initial) if is_lstm else (initial,)
        tensors = [x, *initial, *weights]
        if not all(isinstance(tensor, CudaTensor) for tensor in tensors):
            raise MixedDevicesError(f"cuDNN: Input, hidden and parameter tensors of {kind} are not at the same device")
        if torch.is_autocast_enabled("cuda"):
            tensors = [tensor.half() for tensor in tensors]  # torch casts to fp16 whatever the dtype of autocast is
        _check_dtypes(f"cuDNN {kind}", *tensors)

        def call(x: Tensor, *rest: Tensor) -> Any:
            states, own = rest[: len(initial)], list(rest[len(initial) :])
            return original(x, states if is_lstm else states[0], own, *options)

        name = f"cudnn_{kind} {str(tensors[0].dtype).removeprefix('torch.')}"
        return _Library.apply(name, call, *tensors)  # type: ignore[no-untyped-call]

    return layer


_attention = nn.functional.scaled_dot_product_attention


def _fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **options: Any
) -> Tensor:
    """Torch's attention as the one kernel that CUDA has, whatever its backend."""
    if not isinstance(query, CudaTensor):
        return _attention(query, key, value, attn_mask, dropout_p, **options)
    tensors: list[Any] = [query, key, value]
    if torch.is_autocast_enabled("cuda"):
        lower = torch.get_autocast_dtype("cuda")
        tensors = [x.to(lower) for x in tensors]
        attn_mask = attn_mask.to(lower) if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
    floats = [attn_mask] if attn_mask is not None and attn_mask.is_floating_point() else []
    _check_dtypes("scaled_dot_product_attention", *tensors, *floats)
    if not all(x is None or isinstance(x, CudaTensor) for x in (*tensors, attn_mask)):
        raise MixedDevicesError("scaled_dot_product_attention: an argument is not on cuda:0")

    def call(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor]:
        mask = mask.detach() if mask is not None else None
        return (_attention(query, key, value, mask, dropout_p, **options),)

    (out,) = _Library.apply("attention", call, *tensors, attn_mask)  # type: ignore[no-untyped-call]
    return out


# ------------------------------------------------------------------ what torch says of the device
def _pin_memory(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    pinned = tensor.clone()
    pinned.untyped_storage().is_pretended_pinned = True  # type: ignore[attr-defined]
    return pinned


def _is_pinned(tensor: Tensor, *_: Any, **__: Any) -> bool:
    return not isinstance(tensor, CudaTensor) and getattr(tensor.untyped_storage(), "is_pretended_pinned", False)


_torch_load = torch.load


def _load(*args: Any, map_location: Any = None, **options: Any) -> Any:
    if not isinstance(map_location, str | torch.device) or not _is_cuda(map_location):
        return _torch_load(*args, map_location=map_location, **options)
    loaded = _torch_load(*args, map_location="cpu", **options)
    return pytree.tree_map(lambda x: CudaTensor(x) if isinstance(x, Tensor) else x, loaded)


class _CurrentDevice(contextlib.nullcontext[None]):
    """The context in which a device is the current one."""


_apply_to_module = nn.Module._apply


def _apply_by_swapping(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Keep the parameters of a module that is moved, as CUDA does; their class changes with the device."""
    former = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return _apply_to_module(module, *args, **kwargs)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(former)


def _install() -> None:
    """Let torch find one device, an imaginary one of 80 GiB."""
    properties = SimpleNamespace(name="pretended", total_memory=80 << 30, multi_processor_count=100, major=9, minor=0)
    answers = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0,
        "is_bf16_supported": True, "is_current_stream_capturing": False, "get_device_name": "pretended",
        "get_device_capability": (9, 0), "get_device_properties": properties, "memory_allocated": 0,
        "memory_reserved": 0, "max_memory_allocated": 0, "mem_get_info": (60 << 30, 80 << 30), "_lazy_init": None,
        "set_device": None, "empty_cache": None, "reset_peak_memory_stats": None, "manual_seed": None,
        "manual_seed_all": None, "set_per_process_memory_fraction": None,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, _answer=answer, **__: _answer)
    torch.cuda.synchronize = lambda *_: _wait("synchronize")  # type: ignore[assignment]
    torch.cuda.device = torch.cuda.device_of = _CurrentDevice  # type: ignore[misc,assignment]
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.backends.cudnn.is_acceptable = lambda _: False  # else weights would be put into one block
    torch._VF.lstm, torch._VF.gru = _cudnn("lstm"), _cudnn("gru")  # type: ignore[attr-defined]
    nn.functional.scaled_dot_product_attention = _fused_attention  # type: ignore[assignment]
    Tensor.pin_memory, Tensor.is_pinned = _pin_memory, _is_pinned  # type: ignore[method-assign,assignment]
    torch.load = _load
    torch.cuda.CUDAGraph, torch.cuda.graph = CudaGraph, _capture  # type: ignore[misc,assignment]
    nn.Module._apply = _apply_by_swapping  # type: ignore[method-assign]
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made here and sent there


_install()
