"""The first day on a GPU: is it right, and how fast is it? Under nine minutes in all; see docs/dev/gpu.md.

usage: python scripts/gpu_day.py [--out DIR] [--device cuda|cuda:N|cpu] [--seconds N] [--only PART,PART] [--tiny]
           [--pretend]

What must be right comes first: losses and gradients of every score, kernels, recurrent layers, training curves and
translations, against the CPU or fp64. Then speed. Each part has a time of its own; one that fails is told, and the
rest goes on. DIR/gpu_day.json and DIR/gpu_day.md are written after every part. The exit status is 1 when something was
wrong.

Needs torch, numpy, sentencepiece, and triton for the project's kernels; nothing else. --tiny with --device cpu tries
the program; --tiny with --pretend also the places of tensors, on the pretended CUDA of tests/gpu.
"""

import argparse
import contextlib
import json
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), *([str(ROOT / "tests/gpu")] if "--pretend" in sys.argv else [])]
if "--pretend" in sys.argv:
    import pretended_cuda  # before torch

import nmt  # noqa: E402  # before torch: it decides how torch's threads wait

# isort: split
import gpu_day_checks as checks  # noqa: E402
import gpu_day_speed as speed  # noqa: E402
import torch  # noqa: E402
from gpu_day_common import Day  # noqa: E402

if "--pretend" in sys.argv:
    import kernels

    kernels.pretend(triton=True)


class Part(NamedTuple):
    """A function with its time in seconds; what kind of device it needs: any, cuda (also a pretended one) or gpu."""

    function: Callable[[Day], dict[str, Any]]
    seconds: float
    needs: str = "any"


PARTS = (
    Part(checks.gradients, 90),
    Part(checks.kernels, 30),
    Part(checks.recurrent_layers, 10, "cuda"),
    Part(checks.cells, 10),
    Part(checks.learning, 50),
    Part(checks.hypotheses, 50),
    Part(checks.waits, 15, "gpu"),
    Part(speed.training, 130),
    Part(speed.recurrent_training, 35),
    Part(speed.decoding, 50),
    Part(speed.kernel_times, 40),
)


def versions(day: Day) -> dict[str, Any]:
    """Return the circumstances of all numbers."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "nmt": nmt.__version__, "torch": torch.__version__,
        "python": platform.python_version(), "threads": torch.get_num_threads(), "device": str(day.device),
    }  # fmt: skip
    with contextlib.suppress(ImportError):
        import triton

        found["triton"] = triton.__version__
    if day.is_gpu:
        properties = torch.cuda.get_device_properties(day.device)
        found |= {
            "device": properties.name, "memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "capability": f"{properties.major}.{properties.minor}", "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    return found | ({"pretended": True} if day.pretended else {})


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"stopped after {seconds:g} s")

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def run_part(part: Part, day: Day, seconds: float) -> dict[str, Any]:
    """Run a part; return what it found, what was wrong, and how long it took. It never raises but for Ctrl-C."""
    begin, is_check = time.monotonic(), part.function.__module__ == checks.__name__
    day.end, day.failed = begin + seconds - 1, []
    result: dict[str, Any] = {}
    try:
        with time_limit(seconds):
            result["found"] = part.function(day)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        result["error"] = f"{message[:600]} at {Path(frame.filename).name}:{frame.lineno}"
        day.check(not is_check, result["error"])
    return result | {"wrong": day.failed, "seconds": round(time.monotonic() - begin, 1)}


def rows(name: str, tree: Any) -> Iterator[tuple[str, str]]:
    """Yield the leaves of what a part found, with the names that lead there."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from rows(f"{name}: {key}" if name else str(key), value)
    else:
        yield name, f"{tree:.3g}" if isinstance(tree, float) else str(tree)


def cells(*texts: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(' '.join(text.split()).replace('|', '/') for text in texts)} |"


def markdown(report: dict[str, Any]) -> str:
    """Return the report as a table for docs/results.md; of models only those that are not right."""
    lines = [f"`scripts/gpu_day.py`: {', '.join(f'{k} {v}' for k, v in report['circumstances'].items())}.", ""]
    lines += ["| part | what | result |", "|---|---|---|"]
    for name, part in report["parts"].items():
        title = name.replace("_", " ")
        verdict = f"{len(part['wrong'])} wrong" if part["wrong"] else part.get("error") or part.get("skipped") or "done"
        lines.append(cells(f"**{title}**", f"{part['seconds']:.0f} s", verdict))
        wrong = [(message.partition(": ")[0], f"WRONG: {message.partition(': ')[2]}") for message in part["wrong"]]
        found = {key: value for key, value in part.get("found", {}).items() if key != "models"}
        lines += [cells(title, what, value) for what, value in [*wrong, *rows("", found)]]
    return "\n".join(lines) + "\n"


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write both files, under temporary names first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("gpu_day.json", json.dumps(report, indent=1) + "\n"), ("gpu_day.md", markdown(report))):
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.rename(folder / name)


def main() -> None:
    """Run the parts in order, and exit with 1 when something was wrong."""
    names = {part.function.__name__: part for part in PARTS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_day"), help="folder of the report")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=500, help="of all parts together")
    parser.add_argument("--only", default="", help=f"some of {', '.join(names)}")
    parser.add_argument("--tiny", action="store_true", help="small models, to try the program")
    parser.add_argument("--pretend", action="store_true", help="on the pretended CUDA of tests/gpu")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(names)
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"--only={','.join(unknown)}: the parts are {', '.join(names)}")
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device={options.device}: torch finds no GPU; use --device=cpu --tiny to try the program")
    device = torch.device(options.device)
    day = Day(
        torch.device("cuda", device.index or 0) if device.type == "cuda" else device, options.tiny, options.pretend
    )
    report: dict[str, Any] = {"circumstances": versions(day), "parts": {}}
    print(json.dumps(report["circumstances"]), flush=True)
    kinds = {"any"} | ({"cuda"} if day.device.type == "cuda" else set()) | ({"gpu"} if day.is_gpu else set())
    end = time.monotonic() + options.seconds
    with pretended_cuda.device() if options.pretend else contextlib.nullcontext():
        for name in chosen:
            part, left = names[name], end - time.monotonic()
            if part.needs not in kinds or left < 5:
                reason = f"needs a {part.needs} device" if part.needs not in kinds else "no time was left"
                report["parts"][name] = {"skipped": reason, "wrong": [], "seconds": 0.0}
            else:
                report["parts"][name] = run_part(part, day, min(part.seconds, left))
            print(json.dumps({name: report["parts"][name]})[:4000], flush=True)
            write(options.out, report)
            if day.is_gpu:
                torch.cuda.empty_cache()
    wrong = [f"{name}: {message}" for name, part in report["parts"].items() for message in part["wrong"]]
    print("\n".join([f"{len(wrong)} wrong", *wrong]), flush=True)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
