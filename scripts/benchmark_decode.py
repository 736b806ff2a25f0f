"""Speed of search, the floor that its matrix products set, and how the cost of a sentence grows with its length."""

import nmt  # noqa: F401  # isort: skip  # before torch: it decides how torch's threads wait

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nmt import checkpoint, search
from nmt.data import EOS
from nmt.evaluation.evaluator import versions
from nmt.inference.translator import Translator
from nmt.models.seq2seq import Seq2Seq
from nmt.runtime.process import setup_process

NAMES = ("checkpoint", "source", "threads", "lengths", "sentences", "limit")


class _Counter:
    """Multiplications and bytes of the matrix products with a model's weights, and the rows they had."""

    def __init__(self, model: nn.Module) -> None:
        self.flops = self.weight_bytes = self.calls = 0
        self.handles = [m.register_forward_hook(self._seen) for m in model.modules() if isinstance(m, nn.Linear)]

    def _seen(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        self.flops += 2 * output.numel() * module.in_features
        self.weight_bytes += module.weight.numel() * module.weight.element_size()
        self.calls += 1

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def matmul_rate(rows: int, dim: int) -> float:
    """FLOPs a second of processor time in products of this many rows with square matrices, the best of a few."""
    a, b, best = torch.randn(rows, dim), torch.randn(dim, dim), 0.0
    for _ in range(5):
        begin = time.process_time()
        for _ in range(50):
            nn.functional.linear(a, b)
        best = max(best, 50 * 2 * rows * dim * dim / (time.process_time() - begin))
    return best


def _forced(model: Seq2Seq, wanted: bool) -> None:
    """Makes translations end at the longest length allowed, or not."""
    output = model.get_submodule("output")
    assert isinstance(output, nn.Linear)
    bias = output.bias.data
    bias[EOS] += -1e4 if wanted else 1e4


def speed(translator: Translator, sources: list[list[int]]) -> dict[str, Any]:
    """Decoding of a text: sentences and target tokens a second, of wall clock and of processor time, and its floor."""
    model, config, device = translator.model, translator.config, translator.device
    dict(search.decode(model, sources[: config.batch_size], config, device))
    counter = _Counter(model)
    wall, cpu = time.perf_counter(), time.process_time()
    found = dict(search.decode(model, sources, config, device))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    counter.remove()
    num_tokens = sum(len(found[i][0].tokens) + 1 for i in range(len(sources)))
    rate = matmul_rate(config.batch_size * config.beam, 256)
    return {
        "sentences_per_second": round(len(sources) / wall, 1),
        "tokens_per_second": round(num_tokens / wall, 1),
        "sentences_per_cpu_second": round(len(sources) / cpu, 1),
        "floor": {
            "gigaflops_per_sentence": round(counter.flops / len(sources) / 1e9, 3),
            "megabytes_of_weights_per_sentence": round(counter.weight_bytes / len(sources) / 1e6, 2),
            "gigaflops_per_cpu_second": round(rate / 1e9, 1),
            "sentences_per_cpu_second": round(rate / (counter.flops / len(sources)), 1),
        },
    }


def growth(translator: Translator, lengths: list[int], num: int) -> list[dict[str, float]]:
    """Processor time of a sentence whose translation is as long as itself, for each length."""
    model, rows = translator.model, []
    config = dataclasses.replace(translator.config, max_ratio=1.0, max_extra=0)
    _forced(model, True)
    generator = torch.Generator().manual_seed(1)
    for length in lengths:
        ids = torch.randint(4, translator.tokenizer.source_size, (num, length), generator=generator).tolist()
        begin = time.process_time()
        dict(search.decode(model, ids, config, translator.device))
        seconds = (time.process_time() - begin) / num
        rows.append(
            {
                "length": length,
                "milliseconds_per_sentence": round(1000 * seconds, 2),
                "milliseconds_per_token": round(1000 * seconds / (length + 1), 3),
            }
        )
    _forced(model, False)
    return rows


def main(arguments: list[str]) -> None:
    """Reads `name=value` arguments and prints JSON."""
    print(json.dumps(measure(dict(argument.partition("=")[::2] for argument in arguments))))


def measure(given: dict[str, str]) -> dict[str, Any]:
    """Reads `name=value` arguments; options of search as `search.beam=5`. A table goes to standard error."""
    for name in given:
        if name not in NAMES and not hasattr(search.SearchConfig(), name.removeprefix("search.")):
            raise SystemExit(f"error: {name}: decode takes {', '.join(NAMES)} and options of search")
    if "checkpoint" not in given or "source" not in given:
        raise SystemExit("error: decode needs checkpoint=RUN and source=FILE")
    setup_process(int(given.get("threads", 1)))
    content = checkpoint.load(checkpoint.locate(given["checkpoint"]))
    changes = {
        name.removeprefix("search."): type(getattr(search.SearchConfig(), name.removeprefix("search.")))(value)
        for name, value in given.items()
        if name.startswith("search.")
    }
    config = dataclasses.replace(search.SearchConfig(), **changes)
    config.validate()
    translator = Translator.from_checkpoint(content, config, torch.device("cpu"))
    lines = Path(given["source"]).read_text(encoding="utf-8").split("\n")[: int(given.get("limit", 1000))]
    sources = translator.tokenizer.encode_source([line for line in lines if line])
    load = os.getloadavg()[0]
    lengths = [int(length) for length in given.get("lengths", "16-32-64-128-256-500").split("-")]
    result = {
        **speed(translator, sources),
        "sentences": len(sources),
        "growth": growth(translator, lengths, int(given.get("sentences", 16))),
        "threads": torch.get_num_threads(),
        "beam": config.beam,
        "batch_size": config.batch_size,
        "parameters": sum(parameter.numel() for parameter in translator.model.parameters()),
        "load_before": load,
        "versions": versions(),
    }
    floor = result["floor"]
    print(
        f"{result['sentences_per_second']} sentences/s, {result['tokens_per_second']} tokens/s; of processor time "
        f"{result['sentences_per_cpu_second']} sentences/s, products alone {floor['sentences_per_cpu_second']} "
        f"({floor['gigaflops_per_sentence']} GFLOP a sentence at {floor['gigaflops_per_cpu_second']} GFLOP/s)",
        file=sys.stderr,
    )
    for row in result["growth"]:
        print(
            f"{row['length']:5d} tokens: {row['milliseconds_per_sentence']:9.2f} ms a sentence, "
            f"{row['milliseconds_per_token']:7.3f} ms a token",
            file=sys.stderr,
        )
    return result
