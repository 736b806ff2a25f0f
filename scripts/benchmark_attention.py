"""Time and memory of attention, for `scripts/benchmark.py attention`. Each row is measured in a process of its own."""

import json
import math
import os
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmark_common import in_subprocess, lengths, parse, report, resident_mebibytes
from torch import Tensor

from nmt.attention import CROSS, ENCODER_SELF, NORMALIZERS, SCORES, WINDOWS, AttentionConfig, AttentionLayer
from nmt.attention.scores import Additive, Score
from nmt.evaluation.report_writer import package_versions
from nmt.runtime.process import setup_process

CORE = {"batch": 64, "queries": 64, "keys": 64, "heads": 8, "width": 64}
"""4,096 queries, each with 64 keys; 8 heads of 64 dimensions."""
GROWTH = {"batch": 4, "heads": 4, "dim": 128}
DEFAULTS = {"num_threads": 0, "dtype": "fp32", "lengths": "64-128-256-512", "repeats": 5}


def measure(arguments: list[str]) -> dict[str, Any]:
    """Return both tables. Options: num_threads (0 = torch's choice), dtype (fp32, bf16), lengths, repeats."""
    common = parse("attention", arguments, DEFAULTS)
    sizes = lengths(common.pop("lengths"))
    load = os.getloadavg()[0]
    names = ("scaled", "naive additive", "additive")
    core = [in_subprocess(__file__, {"table": "core", "name": name, **common}) for name in names]
    report(f"{'core, ' + str(CORE):<60} ms  MiB")
    for row in core:
        report(f"  {row['name']:<20} {row['milliseconds']:>10.1f} {row['mebibytes']:>10.1f}")
    variants = [(score, "global", CROSS) for score in SCORES]
    variants += [("scaled", window, spec.attention_types[0]) for window, spec in WINDOWS.items() if window != "global"]
    variants += [("additive", "sliding", ENCODER_SELF), ("scaled", "global", ENCODER_SELF)]
    growth = []
    report(f"growth, {GROWTH}, forward and backward; ms and MiB at lengths {sizes}")
    for score, window, attention_type in variants:
        variant = {"score": score, "window": window, "attention_type": attention_type}
        case = {"table": "growth", **variant, **common}
        rows = [in_subprocess(__file__, {**case, "length": length}) for length in sizes]
        line: dict[str, Any] = {**variant, "lengths": sizes}
        for quantity in ("milliseconds", "mebibytes"):
            line[quantity] = [row[quantity] for row in rows]
            line[f"{quantity}_exponent"] = _exponent(sizes, line[quantity])
        growth.append(line)
        shown = "".join(f"{value:>9.1f}" for value in line["milliseconds"] + line["mebibytes"])
        exponents = f"{line['milliseconds_exponent']:.2f}, {line['mebibytes_exponent']:.2f}"
        report(f"  {score:<9} {window:<8} {attention_type:<13}{shown}   grows with length^{exponents}")
    ratios = {
        "additive_memory_to_scaled": round(core[2]["mebibytes"] / core[0]["mebibytes"], 2),
        "naive_memory_to_scaled": round(core[1]["mebibytes"] / core[0]["mebibytes"], 2),
        "naive_time_to_additive": round(core[1]["milliseconds"] / core[2]["milliseconds"], 2),
    }
    return {"core": core, **ratios, "growth": growth, **common, "load_before": load, "versions": package_versions()}


def _exponent(lengths: list[int], values: list[float]) -> float:
    """Return the slope of log value over log length between the last two lengths."""
    before, after = (max(value, 1e-3) for value in values[-2:])
    return round(math.log(after / before) / math.log(lengths[-1] / lengths[-2]), 2)


def _core(case: dict[str, Any]) -> Callable[[], None]:
    """Return a step of score, softmax and weighted sum on projected queries, keys and values, forward and backward."""
    heads, width = CORE["heads"], CORE["width"]
    dtype = torch.bfloat16 if case["dtype"] == "bf16" else torch.float32

    def leaf(length: int) -> Tensor:
        return torch.randn(CORE["batch"], heads, length, width, dtype=dtype, requires_grad=True)

    query, keys, values = leaf(CORE["queries"]), leaf(CORE["keys"]), leaf(CORE["keys"])
    score: Score = SCORES[case["name"].removeprefix("naive ")](heads, width, width)
    is_naive = case["name"].startswith("naive")
    formula = score.reference if is_naive and isinstance(score, Additive) else score

    def step() -> None:
        weights = NORMALIZERS["softmax"](formula(query, score.precompute(keys)), 0)
        (weights.to(values.dtype) @ values).sum().backward()
        for tensor in (query, keys, values):
            tensor.grad = None

    return step


def _growth(case: dict[str, Any]) -> Callable[[], None]:
    """Return a step of the whole module with its projections, with as many queries as keys."""
    dim, length = GROWTH["dim"], case["length"]
    config = AttentionConfig(score=case["score"], heads=GROWTH["heads"], window=case["window"], window_size=10)
    attention_type = case["attention_type"]
    attention = AttentionLayer(config, dim, dim, attention_type=attention_type, out_dim=dim, bias=True)
    states = torch.randn(GROWTH["batch"], length, dim, requires_grad=True)
    query = torch.randn_like(states, requires_grad=True) if attention_type == CROSS else states

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=case["dtype"] == "bf16"):
            attention(query, attention.precompute_keys(states), None).context.sum().backward()
        for tensor in (query, states, *attention.parameters()):
            tensor.grad = None

    return step


def _row(case: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a table: the shortest time of several steps, and the peak memory of a step above that before."""
    torch.manual_seed(0)
    torch.set_num_threads(case["num_threads"] or torch.get_num_threads())
    tiny = torch.randn(64, 64, requires_grad=True)
    torch.softmax(tiny @ tiny, -1).sum().backward()  # libraries allocate memory at their first use
    step = {"core": _core, "growth": _growth}[case["table"]](case)
    before = resident_mebibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    step()
    mebibytes = resident_mebibytes("VmHWM") - before
    setup_process(case["num_threads"])  # as in training, freed memory is kept
    best = min(timeit.repeat(step, number=1, repeat=1 + case["repeats"]))
    del case["started"]
    return {**case, "milliseconds": round(1000 * best, 2), "mebibytes": round(mebibytes, 1)}


if __name__ == "__main__":
    print(json.dumps(_row(json.loads(sys.argv[1]))))
