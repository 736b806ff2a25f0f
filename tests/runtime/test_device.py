"""Precision, determinism and memory of a device. What CUDA would compute is not tested here; what it is told is."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from nmt.runtime import device as device_module
from nmt.runtime.device import AUTOCAST_DTYPES, PRECISIONS, autocast, deterministic_algorithms, resolve_precision
from nmt.runtime.memory import reset_peak_memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


def fp32_precisions() -> tuple[str, ...]:
    backends: Any = torch.backends
    return tuple(b.fp32_precision for b in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn))


@pytest.fixture(autouse=True)
def usual_backends() -> Iterator[None]:
    backends: Any = torch.backends
    usual = fp32_precisions()
    yield
    for backend, value in zip((backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn), usual, strict=True):
        backend.fp32_precision = value


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("name", PRECISIONS[1:])
def test_each_precision_sets_matrix_products_and_cudnn_alike(name: str) -> None:
    """It also holds after the context, in the backward pass, and until the next one, whatever came before."""
    on_cpu = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    for before in PRECISIONS[1:]:
        autocast(before, CUDA)
        with autocast(name, CUDA):
            pass
        assert fp32_precisions() == (("ieee",) if name == "fp32" else ("tf32",)) * 3
    assert torch.backends.mkldnn.matmul.fp32_precision == on_cpu  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_autocast_on_a_cpu(name: str) -> None:
    usual, x = fp32_precisions(), torch.ones(2, 2)
    with autocast(name, CPU):
        assert (x @ x).dtype == AUTOCAST_DTYPES.get(name, torch.float32)
    assert fp32_precisions() == usual


def test_precisions_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(resolve_precision(name, CUDA) == name for name in PRECISIONS[1:])
    assert all(resolve_precision(name, CPU) == name for name in ("fp32", "fp16"))
    with pytest.raises(ValueError, match=r"^train\.precision=tf32: a CPU has no TF32; use fp32, bf16 or auto"):
        resolve_precision("tf32", CPU, "train.precision")
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(asked.append(device)))
    for supported in (True, False):
        answers = {True: True, False: supported}  # with and without emulation
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, a=answers: a[including_emulation]
        )
        assert resolve_precision("auto", CUDA) == ("bf16" if supported else "fp32")
    assert asked == [CUDA, CUDA]


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_is_fp32_on_a_cpu_without_it(
    has_bf16: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once; a GPU has it, and auto does not choose what a CPU only emulates, however fast it seems."""
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: has_bf16)
    monkeypatch.setattr(device_module, "_matmul_seconds", {torch.bfloat16: 1, torch.float32: 2}.get)
    device_module.warn_once.cache_clear()
    names = [
        resolve_precision(*asked) for asked in 2 * [("bf16", CPU, "train.precision"), ("auto", CPU), ("bf16", CUDA)]
    ]
    assert names == 2 * (["bf16", "bf16", "bf16"] if has_bf16 else ["fp32", "fp32", "bf16"])
    message = "train.precision=bf16: this CPU has no instructions for it, and computes in fp32"
    assert [record.getMessage() for record in caplog.records] == [message] * (not has_bf16)


def packed() -> None:
    torch.ops.mkldnn._reorder_linear_weight(torch.ones(32, 32, dtype=torch.bfloat16), 8)


def recurrent() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        torch.nn.LSTM(4, 4)(torch.ones(2, 1, 4))


@pytest.mark.parametrize("compute", [packed, recurrent])
def test_what_is_said_of_this_cpu_is_so(compute: Callable[[], None]) -> None:
    """oneDNN packs a weight in bf16, and computes an LSTM, exactly where `cpu_has_bf16` says so."""
    with contextlib.nullcontext() if device_module.cpu_has_bf16() else pytest.raises(RuntimeError):
        compute()


def settings() -> tuple[bool, bool, str | None]:
    enabled = torch.are_deterministic_algorithms_enabled()
    return enabled, torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")


def test_determinism_ends_with_the_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with deterministic_algorithms(False):
        assert settings() == (False, True, None)
    for error in (None, ValueError("another"), RuntimeError("a defect")):
        with contextlib.suppress(ValueError, RuntimeError), deterministic_algorithms(True):
            assert settings() == (True, False, ":4096:8")
            if error:
                raise error
        assert settings() == (False, True, None)
    assert not caplog.records
    with monkeypatch.context() as context:
        context.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        with deterministic_algorithms(True):
            assert settings() == (True, False, ":16:8")
        assert settings() == (False, True, ":16:8")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with deterministic_algorithms(True):
        pass
    assert "CUDA was in use before this run: for train.deterministic set CUBLAS_WORKSPACE_CONFIG=:4096:8" in caplog.text


def test_an_operation_without_a_deterministic_algorithm_is_named() -> None:
    with (
        pytest.raises(ValueError, match=r"^train\.deterministic=true: .*put_.* does not have a deterministic") as error,
        deterministic_algorithms(True),
    ):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    assert str(error.value).endswith("; change the options that need it, or leave this one out")
    with pytest.raises(RuntimeError, match="a defect"), deterministic_algorithms(True):
        raise RuntimeError("a defect")


def test_the_peak_of_the_run_s_own_device_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", devices.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for device in (CPU, CUDA):
        reset_peak_memory(device)
    assert devices == [CUDA]
