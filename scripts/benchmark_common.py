"""Options, child processes, memory and messages of the benchmarks."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def parse(kind: str, arguments: Sequence[str], defaults: dict[str, Any]) -> dict[str, Any]:
    """Parse name=value arguments to the types of the defaults; a whole number may be 0 only if its default is 0."""
    options = dict(defaults)
    for name, _, value in (argument.partition("=") for argument in arguments):
        if name not in defaults:
            raise SystemExit(f"error: {name}: {kind} takes {', '.join(defaults)}")
        default = defaults[name]
        if isinstance(default, int) and not (value.isdigit() and int(value) >= min(default, 1)):
            raise SystemExit(f"error: {name}={value}: must be a whole number of at least {min(default, 1)}")
        try:
            options[name] = type(default)(value)
        except ValueError:
            raise SystemExit(f"error: {name}={value}: must be a number") from None
    return options


def lengths(text: str) -> list[int]:
    """Parse lengths such as 64-128-256."""
    return [int(length) for length in text.split("-")]


def in_subprocess(script: str, case: dict[str, Any]) -> dict[str, Any]:
    """Run a script on a case in a process of its own, whose peak memory is that of the case; return its JSON output."""
    command = [sys.executable, script, json.dumps({**case, "started": time.time()})]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"error: {case}: {(result.stderr.strip().splitlines() or ['no message'])[-1]}")
    row: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return row


def resident_mebibytes(name: str) -> float:
    """Return resident memory: current (VmRSS), peak (VmHWM), anonymous (RssAnon) or of mapped files (RssFile)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise SystemExit("error: memory is measured through /proc, which this system does not have")


def report(text: str) -> None:
    """Print to standard error, beside the JSON on standard output."""
    print(text, file=sys.stderr, flush=True)
