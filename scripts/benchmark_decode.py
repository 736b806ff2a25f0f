"""Speed of search, a lower bound from its matrix products, and how the cost of a sentence grows with its length."""

import dataclasses
import os
import time
import timeit
from pathlib import Path
from typing import Any

import torch
from benchmark_common import lengths, parse, report
from torch import Tensor, nn

from nmt import checkpoint, search
from nmt.attention.linear import Linear, packed_weights
from nmt.data import EOS
from nmt.evaluation.report_writer import package_versions
from nmt.inference.translator import Translator
from nmt.runtime.process import setup_process

DEFAULTS = {
    "checkpoint": "",
    "source": "",
    "num_threads": 1,
    "lengths": "16-32-64-128-256-500",
    "sentences": 16,
    "limit": 1000,
    **{f"search.{name}": value for name, value in dataclasses.asdict(search.SearchConfig()).items()},
}


def matmul_rate(rows: int, dim: int, precision: str) -> float:
    """Return FLOPs per second of processor time in products of `rows` vectors with square matrices, the best of 5."""
    layer, a = Linear(dim, dim), torch.randn(rows, dim)
    with torch.no_grad(), packed_weights(layer, precision):
        seconds = timeit.repeat(lambda: layer(a), timer=time.process_time, number=50, repeat=5)
    return 50 * 2 * rows * dim * dim / min(seconds)


def speed(translator: Translator, sources: list[list[int]]) -> dict[str, Any]:
    """Return sentences and target tokens per second of wall clock and processor time, and the lower bound."""
    model, config, device = translator.model, translator.config, translator.device
    with translator.decoding():  # packs the weights, too
        dict(search.decode(model, sources[: config.batch_size], config, device))
    flops = weight_bytes = 0

    def count(module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal flops, weight_bytes
        flops += 2 * output.numel() * module.in_features
        weight_bytes += module.weight.numel() * module.weight.element_size()

    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.Linear)]
    wall, cpu = time.perf_counter(), time.process_time()
    with translator.decoding():
        translations = dict(search.decode(model, sources, config, device))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for hook in hooks:
        hook.remove()
    num_tokens = sum(len(hypotheses[0].tokens) + 1 for hypotheses in translations.values())
    rate = matmul_rate(config.batch_size * config.beam_size, 256, translator.precision)
    return {
        "sentences_per_second": round(len(sources) / wall, 1),
        "tokens_per_second": round(num_tokens / wall, 1),
        "sentences_per_cpu_second": round(len(sources) / cpu, 1),
        "lower_bound": {
            "gigaflops_per_sentence": round(flops / len(sources) / 1e9, 3),
            "megabytes_of_weights_per_sentence": round(weight_bytes / len(sources) / 1e6, 2),
            "gigaflops_per_cpu_second": round(rate / 1e9, 1),
            "sentences_per_cpu_second": round(rate / (flops / len(sources)), 1),
        },
    }


def growth(translator: Translator, sizes: list[int], num: int) -> list[dict[str, float]]:
    """Return the processor time of a sentence whose translation has the same length, for each length.

    The model is changed: its translations do not end earlier.
    """
    model, rows = translator.model, []
    config = dataclasses.replace(translator.config, max_length_ratio=1.0, max_length_offset=0)
    output = model.get_submodule("output")
    assert isinstance(output, nn.Linear)
    output.bias.data[EOS] -= 1e4  # translations end at the maximum length only
    generator = torch.Generator().manual_seed(1)
    for length in sizes:
        ids = torch.randint(4, translator.tokenizer.source_size, (num, length), generator=generator).tolist()
        begin = time.process_time()
        with translator.decoding():
            dict(search.decode(model, ids, config, translator.device))
        seconds = (time.process_time() - begin) / num
        rows.append(
            {
                "length": length,
                "milliseconds_per_sentence": round(1000 * seconds, 2),
                "milliseconds_per_token": round(1000 * seconds / (length + 1), 3),
            }
        )
    return rows


def measure(arguments: list[str]) -> dict[str, Any]:
    """Return the measurements; a table goes to standard error.

    Options: checkpoint; source, a file, and the limit of its lines; num_threads; lengths and the number of sentences of
    each for the growth; those of search, such as search.beam_size=5.
    """
    options = parse("decode", arguments, DEFAULTS)
    if not (options["checkpoint"] and options["source"]):
        raise SystemExit("error: decode needs checkpoint=RUN and source=FILE")
    setup_process(options["num_threads"])
    content = checkpoint.load(checkpoint.resolve(options["checkpoint"]))
    config = search.SearchConfig(
        **{name.removeprefix("search."): value for name, value in options.items() if name.startswith("search.")}
    )
    config.validate()
    translator = Translator.from_checkpoint(content, config, torch.device("cpu"))
    lines = Path(options["source"]).read_text(encoding="utf-8").split("\n")[: options["limit"]]
    sources = translator.tokenizer.encode_source([line for line in lines if line])
    load = os.getloadavg()[0]
    result = {
        **speed(translator, sources),
        "sentences": len(sources),
        "growth": growth(translator, lengths(options["lengths"]), options["sentences"]),
        "num_threads": torch.get_num_threads(),
        "beam_size": config.beam_size,
        "batch_size": config.batch_size,
        "parameters": sum(parameter.numel() for parameter in translator.model.parameters()),
        "load_before": load,
        "versions": package_versions(),
    }
    bound = result["lower_bound"]
    report(
        f"{result['sentences_per_second']} sentences/s, {result['tokens_per_second']} tokens/s; by processor time "
        f"{result['sentences_per_cpu_second']} sentences/s, products alone {bound['sentences_per_cpu_second']} "
        f"({bound['gigaflops_per_sentence']} GFLOP a sentence at {bound['gigaflops_per_cpu_second']} GFLOP/s)"
    )
    for row in result["growth"]:
        report(
            f"{row['length']:5d} tokens: {row['milliseconds_per_sentence']:9.2f} ms a sentence, "
            f"{row['milliseconds_per_token']:7.3f} ms a token"
        )
    return result
