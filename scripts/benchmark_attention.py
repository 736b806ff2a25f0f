"""Time and memory of attention, for `scripts/benchmark.py attention`. Each row is measured in a process of its own."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmt.attention import CROSS, ENCODER, NORMALISERS, SCORES, WINDOWS, Attention, AttentionConfig
from nmt.attention.scores import Additive, Score
from nmt.evaluation.evaluator import versions
from nmt.runtime.process import setup_process

CORE = {"batch": 64, "queries": 64, "keys": 64, "heads": 8, "width": 64}
"""4,096 queries against 64 keys, 8 heads of 64."""
LENGTHS = [64, 128, 256, 512]
GROWTH = {"batch": 4, "heads": 4, "dim": 128}


def main(arguments: list[str]) -> None:
    """Reads threads, dtype, lengths and repeats; prints JSON."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := set(given) - {"threads", "dtype", "lengths", "repeats"}:
        raise SystemExit(f"error: {', '.join(unknown)}: attention takes threads, dtype, lengths and repeats")
    print(json.dumps(measure(given)))


def measure(options: dict[str, str]) -> dict[str, Any]:
    """Both tables; `options` may hold threads, dtype (fp32, bf16), lengths (64-128-256) and repeats."""
    lengths = [int(length) for length in options["lengths"].split("-")] if "lengths" in options else LENGTHS
    common = {"threads": int(options.get("threads", "0")), "dtype": options.get("dtype", "fp32")}
    common["repeats"] = int(options.get("repeats", "5"))
    load = os.getloadavg()[0]
    core = [_apart({"what": "core", "name": name, **common}) for name in ("scaled", "naive additive", "additive")]
    _say(f"{'core, ' + str(CORE):<60} ms  MiB")
    for row in core:
        _say(f"  {row['name']:<20} {row['milliseconds']:>10.1f} {row['mebibytes']:>10.1f}")
    places = [(score, "global", CROSS) for score in SCORES]
    places += [("scaled", window, kind.sites[0]) for window, kind in WINDOWS.items() if window != "global"]
    places += [("additive", "sliding", ENCODER), ("scaled", "global", ENCODER)]
    growth = []
    _say(f"growth, {GROWTH}, forward and backward; ms and MiB at lengths {lengths}")
    for score, window, site in places:
        case = {"what": "growth", "score": score, "window": window, "site": site, **common}
        rows = [_apart({**case, "length": length}) for length in lengths]
        line = {"score": score, "window": window, "site": site, "lengths": lengths}
        for quantity in ("milliseconds", "mebibytes"):
            line[quantity] = [row[quantity] for row in rows]
            line[f"{quantity}_exponent"] = _exponent(lengths, line[quantity])
        growth.append(line)
        shown = "".join(f"{value:>9.1f}" for value in line["milliseconds"] + line["mebibytes"])
        exponents = f"{line['milliseconds_exponent']:.2f}, {line['mebibytes_exponent']:.2f}"
        _say(f"  {score:<9} {window:<8} {site:<13}{shown}   grows with length^{exponents}")
    ratios = {
        "additive_memory_to_scaled": round(core[2]["mebibytes"] / core[0]["mebibytes"], 2),
        "naive_memory_to_scaled": round(core[1]["mebibytes"] / core[0]["mebibytes"], 2),
        "naive_time_to_additive": round(core[1]["milliseconds"] / core[2]["milliseconds"], 2),
    }
    return {"core": core, **ratios, "growth": growth, **common, "load_before": load, "versions": versions()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _exponent(lengths: list[int], values: list[float]) -> float:
    """Slope of log value over log length between the last two lengths."""
    before, after = (max(value, 1e-3) for value in values[-2:])
    return round(math.log(after / before) / math.log(lengths[-1] / lengths[-2]), 2)


def _apart(case: dict[str, Any]) -> dict[str, Any]:
    """A row measured in a fresh process, whose peak memory is nobody else's."""
    result = subprocess.run(
        [sys.executable, str(Path(__file__)), json.dumps(case)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"error: {case}: {result.stderr.strip().splitlines()[-1]}")
    row: dict[str, Any] = json.loads(result.stdout)
    return row


def _core(case: dict[str, Any]) -> Callable[[], None]:
    """Projected queries, keys and values in; score, softmax and weighted sum; forward and backward."""
    heads, width = CORE["heads"], CORE["width"]
    dtype = torch.bfloat16 if case["dtype"] == "bf16" else torch.float32

    def leaf(length: int) -> Tensor:
        return torch.randn(CORE["batch"], heads, length, width, dtype=dtype, requires_grad=True)

    query, keys, values = leaf(CORE["queries"]), leaf(CORE["keys"]), leaf(CORE["keys"])
    score: Score = SCORES[case["name"].removeprefix("naive ")](heads, width, width)
    formula: Callable[[Tensor, Tensor], Tensor] = score
    if case["name"].startswith("naive"):
        assert isinstance(score, Additive)
        formula = score.plain

    def step() -> None:
        weights = NORMALISERS["softmax"](formula(query, score.prepare(keys)), 0)
        (weights.to(values.dtype) @ values).sum().backward()
        for leaf in (query, keys, values):
            leaf.grad = None

    return step


def _growth(case: dict[str, Any]) -> Callable[[], None]:
    """The whole module with its projections, T = S."""
    dim, length = GROWTH["dim"], case["length"]
    config = AttentionConfig(score=case["score"], heads=GROWTH["heads"], window=case["window"], width=10)
    part = Attention(config, dim, dim, site=case["site"], out_dim=dim, bias=True)
    states = torch.randn(GROWTH["batch"], length, dim, requires_grad=True)
    query = states if case["site"] != CROSS else torch.randn(GROWTH["batch"], length, dim, requires_grad=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=case["dtype"] == "bf16"):
            part(query, part.prepare(states), None).context.sum().backward()
        for tensor in (query, states, *part.parameters()):
            tensor.grad = None

    return step


def _one(case: dict[str, Any]) -> dict[str, Any]:
    """A row: the best time of several, and the highest resident memory of a step above that before the first."""
    torch.manual_seed(0)
    torch.set_num_threads(case["threads"] or torch.get_num_threads())
    tiny = torch.randn(64, 64, requires_grad=True)
    torch.softmax(tiny @ tiny, -1).sum().backward()  # libraries take their own memory at their first use
    step = {"core": _core, "growth": _growth}[case["what"]](case)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    step()
    mebibytes = (_resident("VmHWM") - before) / 1024
    setup_process(case["threads"])  # as in training: freed memory is kept
    best = math.inf
    for _ in range(1 + case["repeats"]):
        begin = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - begin)
    return {**case, "milliseconds": round(1000 * best, 2), "mebibytes": round(mebibytes, 1)}


def _resident(name: str) -> int:
    """Resident memory in KiB, now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise SystemExit("error: memory is measured through /proc, which this system does not have")


if __name__ == "__main__":
    print(json.dumps(_one(json.loads(sys.argv[1]))))
