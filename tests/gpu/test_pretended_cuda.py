"""The package on pretended CUDA: right devices, no waits, budgets of launches; each part in a process of its own.

docs/dev/gpu.md says how the device is pretended, and what cannot be tested on it.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="pretended CUDA is compiled with g++, which is missing"
)


@functools.cache
def outcome(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of this folder; return what it reports."""
    command = [sys.executable, str(Path(__file__).parent / f"{script}.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    report: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return report


def failures(report: dict[str, Any], *kinds: str) -> dict[str, str]:
    """Return the failed checks whose names begin with one of these."""
    return {name: error for name, error in report["failed"].items() if name.startswith(kinds or ("",))}


def test_the_device_refuses_waits_and_computes_as_cuda() -> None:
    report = outcome("device_behavior")
    assert failures(report) == {}
    assert report["checks"] >= 11


def test_a_spread_of_models_is_as_on_the_cpu_and_waits_for_nothing() -> None:
    report = outcome("models_on_cuda", "--step", "61")
    assert failures(report) == {}
    assert report["checks"] >= 13


@pytest.mark.slow
def test_every_model_is_as_on_the_cpu_and_waits_for_nothing() -> None:
    report = outcome("models_on_cuda")
    assert failures(report) == {}
    assert report["checks"] > 800


def test_updates_are_as_on_the_cpu_within_their_budget_of_launches_and_wait_for_nothing() -> None:
    assert failures(outcome("updates_on_cuda", "--fast"), "update") == {}


def test_a_loss_takes_few_launches() -> None:
    assert failures(outcome("updates_on_cuda", "--fast"), "loss") == {}


def test_recurrent_layers_do_not_compute_in_fp16_under_bf16() -> None:
    assert failures(outcome("updates_on_cuda", "--fast"), "precision") == {}


@pytest.mark.slow
def test_updates_of_every_kind_of_model_and_whole_runs() -> None:
    assert failures(outcome("updates_on_cuda"), "update", "run") == {}


def test_a_spread_of_searches_is_as_on_the_cpu_within_their_budgets() -> None:
    assert failures(outcome("searches_on_cuda", "--step", "211", "--budgets", "5", "--ratio", "0.8")) == {}


@pytest.mark.slow
def test_searches_of_many_models_are_as_on_the_cpu() -> None:
    assert failures(outcome("searches_on_cuda", "--step", "7")) == {}
