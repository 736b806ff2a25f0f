"""scripts/gpu_day.py, to be run first on a GPU: on the CPU with few packages, on pretended CUDA, with failing parts."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "scripts/gpu_day.py"


def run(folder: Path, *command: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (folder / "out/gpu_day.json").exists(), result.stdout[-1000:] + result.stderr[-2000:]
    return result, json.loads((folder / "out/gpu_day.json").read_text(encoding="utf-8"))


def test_the_dry_run_needs_few_packages_and_finds_nothing_wrong(tmp_path: Path) -> None:
    alone = str(Path(__file__).parent / "few_packages.py")
    options = "--tiny", "--device", "cpu", "--out", "out"
    result, report = run(tmp_path, sys.executable, alone, str(SCRIPT), *options)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    parts = report["parts"]
    assert [name for name, part in parts.items() if "skipped" in part] == ["recurrent_layers", "waits"]
    assert [part.get("error") for part in parts.values()] == [None] * len(parts)
    assert "No module named" not in json.dumps(report)
    assert len(parts["gradients"]["found"]["models"]) >= 8
    assert "sentences/s" in parts["decoding"]["found"]["one core of the CPU, fp32, batch 8"]
    assert "tokens/s" in parts["training"]["found"]["base eager"]
    assert torch.__version__ in report["circumstances"]["torch"]
    table = (tmp_path / "out/gpu_day.md").read_text(encoding="utf-8").splitlines()
    assert table[2:4] == ["| part | what | result |", "|---|---|---|"]
    assert all(line.count("|") == 4 for line in table[2:]), table
    assert any(line.startswith("| training | base eager | ") for line in table)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++, which compiles pretended CUDA, is missing")
def test_the_dry_run_on_pretended_cuda(tmp_path: Path) -> None:
    result, report = run(tmp_path, sys.executable, str(SCRIPT), "--tiny", "--pretend", "--out", "out")
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert [name for name, part in report["parts"].items() if "skipped" in part] == ["waits"]
    assert [part["wrong"] for part in report["parts"].values()] == [[]] * len(report["parts"])
    assert report["circumstances"]["pretended"] is True


@pytest.fixture
def gpu_day(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the script as a module; what it imports from scripts/ is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "argv", ["gpu_day.py"])
    before = set(sys.modules)
    yield importlib.import_module("gpu_day")
    for name in set(sys.modules) - before:
        if name.startswith("gpu_day"):
            del sys.modules[name]


def test_a_part_that_fails_or_hangs_is_told_and_the_rest_goes_on(
    gpu_day: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(day: Any) -> dict[str, Any]:
        raise RuntimeError("no | such\nkernel")

    def endless(day: Any) -> dict[str, Any]:
        return day.each([("spins", lambda: time.sleep(20))], right=False)

    def mistaken(day: Any) -> dict[str, Any]:
        return day.each([("good", lambda: 1.0), ("bad", lambda: [][0]), ("better", lambda: {"x": 2})], right=True)

    def tired(day: Any) -> dict[str, Any]:
        return day.each([("first", lambda: "done"), ("last", lambda: "done")], right=True, seconds=100.0)

    def absent(day: Any) -> dict[str, Any]:
        raise AssertionError("needs a GPU")

    for function in (broken, mistaken, tired):
        function.__module__ = "gpu_day_checks"
    parts = [gpu_day.Part(broken, 5), gpu_day.Part(endless, 1.5), gpu_day.Part(mistaken, 5), gpu_day.Part(tired, 5)]
    monkeypatch.setattr(gpu_day, "PARTS", (*parts, gpu_day.Part(absent, 5, "gpu")))
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", "--device", "cpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu_day.main()
    assert ended.value.code == 1
    report = json.loads((tmp_path / "gpu_day.json").read_text(encoding="utf-8"))["parts"]
    assert report["absent"]["skipped"] == "needs a gpu device"
    assert report["broken"]["wrong"] == [report["broken"]["error"]]
    assert report["endless"]["error"].startswith("TimeoutError: stopped after 1.5 s")
    assert report["endless"]["wrong"] == []  # speed is never wrong
    error = "IndexError: list index out of range"
    assert report["mistaken"]["found"] == {"good": 1.0, "bad": error, "better": {"x": 2}}
    assert report["mistaken"]["wrong"] == [f"bad: {error}"]
    assert report["tired"]["found"] == {"first": "left out: no time", "last": "left out: no time"}
    table = (tmp_path / "gpu_day.md").read_text(encoding="utf-8")
    assert f"| mistaken | bad | WRONG: {error} |" in table
    assert "| mistaken | better: x | 2 |" in table
    assert all(line.count("|") == 4 for line in table.splitlines()[2:]), table
    *_, number, broken_line, mistaken_line = capsys.readouterr().out.splitlines()
    assert number == "2 wrong"
    assert broken_line.startswith("broken: RuntimeError: no | such kernel at test_gpu_day.py")
    assert mistaken_line == f"mistaken: bad: {error}"


def test_a_mistake_in_the_options_is_a_sentence(
    gpu_day: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for options, sentence in (
        (["--only", "gradient"], "--only=gradient: the parts are gradients, "),
        ([], "--device=cuda: torch finds no GPU; use --device=cpu --tiny"),
    ):
        monkeypatch.setattr(sys, "argv", ["gpu_day.py", "--out", str(tmp_path), *options])
        with pytest.raises(SystemExit) as ended:
            gpu_day.main()
        assert ended.value.code == 2
        assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_shell_script_keeps_report_log_and_exit_status(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [str(ROOT / "scripts/gpu_day.sh"), str(tmp_path), "--device", "cpu", "--tiny", "--only", "cells,waits"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 wrong" in (tmp_path / "gpu_day.log").read_text(encoding="utf-8")
    assert "| cells | lstm | " in (tmp_path / "gpu_day.md").read_text(encoding="utf-8")
