"""The additive score in blocks against the formula as it stands."""

import importlib.util
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import nmt.attention
from nmt.attention import additive_kernel
from nmt.attention.additive_kernel import additive_scores

Case = tuple[Tensor, Tensor, Tensor]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

SHAPES = {
    # (B, H, *), T, S, D
    "ordinary": ((3, 2), 5, 7, 4),
    "one head": ((4, 1), 3, 6, 8),
    "one query": ((5, 3), 1, 7, 4),
    "one key": ((5, 3), 7, 1, 4),
    "one of everything": ((1, 1), 1, 1, 1),
    "odd width": ((2, 3), 4, 5, 9),
    "windows": ((2, 3, 4), 1, 5, 6),
    "more batch dimensions": ((2, 3, 4, 2), 3, 5, 2),
}


def case(lead: tuple[int, ...], t: int, s: int, d: int, dtype: torch.dtype = torch.float64) -> Case:
    torch.manual_seed(0)
    query, keys = torch.randn(*lead, t, d, dtype=dtype), torch.randn(*lead, s, d, dtype=dtype)
    return query, keys, torch.randn(lead[1], d, dtype=torch.promote_types(dtype, torch.float32))


def naive(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    hidden = torch.tanh(query.unsqueeze(-2) + keys.unsqueeze(-3))  # (B, H, *, T, S, D)
    return torch.stack([hidden[:, head] @ v[head] for head in range(len(v))], dim=1)


def with_gradients(function: Any, arguments: Case) -> list[Tensor]:
    """The scores, and the gradients of a loss that weighs them unevenly."""
    inputs = [x.detach().requires_grad_() for x in arguments]
    scores = function(*inputs)
    upstream = torch.linspace(-1, 1, scores.numel(), dtype=torch.float64).view(scores.shape).to(scores.dtype)
    return [scores.detach(), *torch.autograd.grad(scores, inputs, upstream)]


@pytest.fixture(autouse=True)
def always_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Problems of a test's size would take the plain formula, and fit into one block."""
    monkeypatch.setattr(additive_kernel, "DIRECT_MAX_ELEMENTS", 0)
    monkeypatch.setattr(additive_kernel, "EXP_MIN_PAIRS", 0)
    monkeypatch.setattr(additive_kernel, "BLOCK_ELEMENTS", 64)


@pytest.mark.parametrize("chunk", [20, 64, 150, 500, 1 << 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(shape: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive_kernel, "BLOCK_ELEMENTS", chunk)
    arguments = case(*SHAPES[shape])
    torch.testing.assert_close(with_gradients(additive_scores, arguments), with_gradients(naive, arguments))


def test_blocks_cut_every_dimension_and_cover_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    query, keys = torch.zeros(3, 4, 5, 6, 2), torch.zeros(3, 4, 5, 7, 2)
    cut = set()
    for rows in range(1, 3 * 4 * 5 * 6 + 2):
        monkeypatch.setattr(additive_kernel, "BLOCK_ELEMENTS", rows * 7 * 2)
        seen = torch.zeros(3, 4, 5, 6)
        for block in additive_kernel._blocks(query, keys):
            seen[block] += 1
            assert seen[block].numel() <= rows
            assert seen[block].is_contiguous()
            cut |= {dim for dim, (part, size) in enumerate(zip(block, seen.shape, strict=True)) if part.stop < size}
        assert (seen == 1).all()
    assert cut == {0, 1, 2, 3}


def test_plain_formula_of_small_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in SHAPES.values():
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            arguments = case(*shape, dtype)
            blocks = with_gradients(additive_scores, arguments)
            with monkeypatch.context() as patch:
                patch.setattr(additive_kernel, "DIRECT_MAX_ELEMENTS", 1 << 30)
                patch.setattr(additive_kernel, "_forward", None)
                plain = with_gradients(additive_scores, arguments)
            for found, expected in zip(plain, blocks, strict=True):
                assert found.dtype == expected.dtype
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("scale", [1.0, 60.0])  # beyond the range of the exponentials too
def test_gradcheck(scale: float) -> None:
    query, keys, v = case((2, 2), 3, 4, 3)
    query[0, 0, 0, 0], keys[0, 0, :, 0] = scale, -scale
    inputs = [x.requires_grad_() for x in (query, keys, v)]
    assert torch.autograd.gradcheck(additive_scores, inputs)


def test_float32_is_as_exact_as_the_formula() -> None:
    """Errors of both against float64, from almost linear to saturated, measured by the size of what is summed."""
    for scale in (0.01, 0.3, 1.0, 3.0, 10.0):
        query, keys, v = case((4, 2), 20, 30, 64, torch.float32)
        arguments = (query * scale, keys * scale, v / 8)
        found, formula = with_gradients(additive_scores, arguments), with_gradients(naive, arguments)
        exact = with_gradients(naive, tuple(x.double() for x in arguments))
        upstream = torch.linspace(-1, 1, found[0].numel()).view(found[0].shape).abs()
        largest = arguments[2].abs().max()
        sizes = [arguments[2].abs().sum(-1), upstream.sum(-1) * largest, upstream.sum(-2) * largest, upstream.sum()]
        for x, y, truth, size in zip(found, formula, exact, sizes, strict=True):
            assert (x - truth).abs().max() <= 4 * (y - truth).abs().max() + 2e-7 * size.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_entries(dtype: torch.dtype) -> None:
    """Sums of huge entries that cancel, where the product of two exponentials would be wrong or not a number."""
    query, keys, v = case((2, 2), 6, 8, 5, dtype)
    sizes = torch.tensor([0.0, 1.0, 39.0, 41.0, 1e4, 3e38], dtype=dtype)
    query += sizes.view(6, 1)
    keys -= sizes[[0, 1, 2, 3, 4, 5, 4, 1]].view(8, 1)
    for arguments in ((query, keys, v), (-query, -keys, v), (query[..., :3, :], keys[..., :3, :], v)):
        found, expected = with_gradients(additive_scores, arguments), with_gradients(naive, arguments)
        assert all(x.isfinite().all() for x in found)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_few_pairs_take_the_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive_kernel, "EXP_MIN_PAIRS", 5)
    monkeypatch.setattr(additive_kernel, "_within_range", None)  # would be called for the exponentials
    arguments = case((3, 2), 1, 70, 4)
    torch.testing.assert_close(with_gradients(additive_scores, arguments), with_gradients(naive, arguments))


def test_not_a_number_stays_one() -> None:
    query, keys, v = case((1, 1), 2, 3, 4)
    query[0, 0, 1, 2] = float("nan")
    assert additive_scores(query, keys, v).isnan().tolist() == [[[[False] * 3, [True] * 3]]]


def test_both_forms_of_the_blocks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = case((3, 2), 5, 7, 4)
    exponential = with_gradients(additive_scores, arguments)
    monkeypatch.setattr(additive_kernel, "EXPONENTIAL_RANGE", 0.0)
    sigmoid = with_gradients(additive_scores, arguments)
    assert not all(torch.equal(x, y) for x, y in zip(exponential, sigmoid, strict=True))  # really two computations
    torch.testing.assert_close(exponential, sigmoid)


@pytest.mark.parametrize("chunk", [40, 1 << 20])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", ["ordinary", "windows"])
def test_bfloat16(shape: str, autocast: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the arguments are coarse: the scores are those of a float32 computation, with autocast or without."""
    monkeypatch.setattr(additive_kernel, "BLOCK_ELEMENTS", chunk)
    arguments = case(*SHAPES[shape], torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = with_gradients(additive_scores, arguments)
    assert [x.dtype for x in found] == [torch.float32, torch.bfloat16, torch.bfloat16, torch.float32]
    query, keys, v = arguments
    expected = with_gradients(naive, (query.float(), keys.float(), v))
    for index in (0, 3):
        torch.testing.assert_close(found[index], expected[index], atol=1e-5, rtol=1e-5)
    for index in (1, 2):  # rounded once
        torch.testing.assert_close(found[index].float(), expected[index], atol=1e-5, rtol=2**-8)


def test_float32_under_autocast_is_left_alone() -> None:
    arguments = case((3, 2), 5, 7, 4, torch.float32)
    expected = with_gradients(additive_scores, arguments)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(additive_scores, arguments)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_views_and_expanded_arguments() -> None:
    """Heads split by a transpose, windows cut by unfold (their memory overlaps), one v for all heads, as layers do."""
    torch.manual_seed(0)
    states, source, v = torch.randn(2, 5, 3, 4), torch.randn(2, 9, 3, 4), torch.randn(4)
    states, source, v = states.double(), source.double(), v.double()

    def windowed(score: Any) -> Any:
        def function(states: Tensor, source: Tensor, v: Tensor) -> Tensor:
            query = states.transpose(1, 2).unsqueeze(-2)  # (B, H, T, 1, D)
            keys = source.transpose(1, 2).unfold(2, 5, 1).transpose(-1, -2)  # (B, H, T, window, D)
            return score(query, keys, v.expand(3, 4))

        return function

    arguments = (states, source, v)
    torch.testing.assert_close(
        with_gradients(windowed(additive_scores), arguments), with_gradients(windowed(naive), arguments)
    )


def test_not_every_argument_needs_a_gradient() -> None:
    arguments = case((3, 2), 5, 7, 4)
    expected = with_gradients(naive, arguments)[1:]
    for index, argument in enumerate(arguments):
        inputs = [x.detach() for x in arguments]
        inputs[index] = argument.detach().requires_grad_()
        scores = additive_scores(*inputs)
        upstream = torch.linspace(-1, 1, scores.numel(), dtype=torch.float64).view(scores.shape)
        torch.testing.assert_close(torch.autograd.grad(scores, inputs[index], upstream)[0], expected[index])


class Largest(TorchDispatchMode):
    """The largest storage, in bytes, that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_no_tensor_of_all_pairs_times_width(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, heads, length, source, width = 4, 2, 16, 12, 16
    monkeypatch.setattr(additive_kernel, "BLOCK_ELEMENTS", 2 * source * width)
    query, keys, v = case((batch, heads), length, source, width, torch.float32)
    arguments = (scale * query, keys, v)
    whole = 4 * batch * heads * length * source * width
    sizes = {}
    for function in (additive_scores, naive):
        with Largest() as largest:
            with_gradients(function, arguments)
        sizes[function] = largest.size
    assert sizes[naive] >= whole  # the measure sees what it should
    assert sizes[additive_scores] * 8 <= whole


def test_saves_its_arguments_only() -> None:
    saved: list[Tensor] = []
    inputs = [x.requires_grad_() for x in case((3, 2), 5, 7, 4)]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        additive_scores(*inputs)
        assert [x.data_ptr() for x in saved] == [x.data_ptr() for x in inputs]
        saved.clear()
        with torch.no_grad():
            assert additive_scores(*inputs).grad_fn is None
    assert saved == []


class OnGpu(Tensor):
    """A tensor that says it is on a GPU; on a CPU it is computed."""

    is_cuda = True
    is_cpu = False


@pytest.fixture
def fresh_trial() -> Iterator[None]:
    additive_kernel._triton_ran.cache_clear()
    yield
    additive_kernel._triton_ran.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, try_kernel: Any) -> None:
    """Let this stand for the trial of Triton, which need not be installed."""
    name = "additive_kernel_triton"
    module = SimpleNamespace(try_kernel=try_kernel)
    monkeypatch.setitem(sys.modules, f"nmt.attention.{name}", module)  # type: ignore[misc]
    monkeypatch.setattr(nmt.attention, name, module, raising=False)


@pytest.mark.usefixtures("fresh_trial")
def test_triton_that_does_not_run_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trials: list[int] = []

    def without_compiler() -> None:
        trials.append(1)
        raise RuntimeError("Failed to find C compiler.\nPlease specify one.")

    install(monkeypatch, without_compiler)
    arguments = case((3, 2), 5, 7, 4, torch.float32)
    expected = with_gradients(additive_scores, arguments)
    assert not trials
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = with_gradients(lambda *x: additive_scores(*(y.as_subclass(OnGpu) for y in x)), arguments)
            for mine, plain in zip(found, expected, strict=True):
                torch.testing.assert_close(mine.as_subclass(Tensor), plain)
        assert not additive_kernel.triton_works()
    assert len(trials) == len(caplog.records) == 1
    message = caplog.messages[0]
    assert "RuntimeError: Failed to find C compiler. Please specify one." in message
    assert "slower plain path" in message


@pytest.mark.usefixtures("fresh_trial")
def test_triton_is_tried_for_what_it_can_compute_only(monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[int] = []
    install(monkeypatch, lambda: trials.append(1))
    tensors = [torch.zeros(1, dtype=dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)]
    assert not any(additive_kernel.takes_triton(x) for x in tensors)
    assert not trials
    on_gpu = [x.as_subclass(OnGpu) for x in tensors]
    assert [additive_kernel.takes_triton(x) for x in on_gpu] == [False, True, True, True]
    assert len(trials) == 1


@pytest.mark.usefixtures("fresh_trial")
def test_a_trace_of_torch_compile_neither_tries_nor_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The score runs outside of the trace, whose other parts are compiled, and for each length without a new trace."""
    install(monkeypatch, None)  # a trial would fail
    asked: list[bool] = []

    class Score(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Tensor, keys: Tensor, v: Tensor, _: bool) -> Tensor:
            asked.append(torch.compiler.is_compiling())
            return query.new_empty(*query.shape[:-1], keys.size(-2))

    monkeypatch.setattr(additive_kernel, "_AdditiveScores", Score)
    traces: list[str] = []

    def backend(graph: Any, _: Any) -> Any:
        traces.append(graph.code)
        return graph.forward

    def layer(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            assert not additive_kernel.triton_works()
        return additive_scores(query + 1, keys, v).softmax(-1)

    compiled = torch.compile(layer, backend=backend, dynamic=True)
    num_traces = []
    for length in (5, 6, 9):
        query, keys, v = (x.to("meta") for x in case((3, 2), length, 7, 4, torch.float32))  # a device, not a CPU
        assert compiled(query, keys, v).shape == (3, 2, length, 7)
        num_traces.append(len(traces))
    assert asked == [False] * 3
    assert len(set(num_traces)) == 1
    assert "+ 1" in traces[0]  # before the score
    assert "softmax" in traces[-1]  # and after it


def run_script(name: str, *arguments: str, **environment: str) -> str:
    """Run a script beside this file in a process of its own, and return what it prints."""
    root = str(Path(additive_kernel.__file__).parents[2])
    path = os.pathsep.join([root, *(entry for entry in sys.path if entry)])
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(name)), *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.strip()


@needs_triton
def test_triton_kernels_in_the_interpreter() -> None:
    assert run_script("interpreted_kernels.py", TRITON_INTERPRET="1") == "agreed"


@needs_triton
@pytest.mark.skipif(platform.machine() != "x86_64", reason="Triton's assembler is that of another processor")
@pytest.mark.parametrize("capability", ["90", *(pytest.param(x, marks=pytest.mark.slow) for x in ("75", "80", "120"))])
def test_triton_kernels_compile_for_gpus(capability: str, tmp_path: Path) -> None:
    assert int(run_script("compiled_kernels.py", capability, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")) > 0


@needs_triton
@pytest.mark.parametrize(("length", "rows"), [(1, 1), (2, 8), (8, 8), (9, 32), (500, 32)])
def test_a_tile_has_rows_for_few_queries(length: int, rows: int) -> None:
    from nmt.attention import additive_kernel_triton

    assert additive_kernel_triton._rows(length) == rows


@pytest.mark.parametrize("queries", [1, 5, 16])
def test_scores_of_a_search_do_not_depend_on_the_batch(queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on its size, which decides between formulas in training, nor on its largest entry."""
    monkeypatch.setattr(additive_kernel, "DIRECT_MAX_ELEMENTS", 1 << 16)
    monkeypatch.setattr(additive_kernel, "EXP_MIN_PAIRS", 5)
    monkeypatch.setattr(additive_kernel, "BLOCK_ELEMENTS", 1 << 12)
    query, keys, v = case((64, 1), queries, 20, 256, torch.float32)
    query[-1, 0, 0, 0] = 100.0
    with torch.no_grad():
        whole = additive_scores(query, keys, v)
        for start, num in ((0, 1), (7, 1), (3, 16)):
            part = slice(start, start + num)
            assert torch.equal(additive_scores(query[part], keys[part], v), whole[part])
    torch.testing.assert_close(whole, naive(query, keys, v), rtol=1e-4, atol=1e-4)
