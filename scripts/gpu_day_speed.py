"""Parts of `gpu_day` that measure the speed of the GPU; none of their numbers is right or wrong."""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from gpu_day_common import CPU, RECURRENT, Day, Named, config, model, pinned, sentences, trainer
from torch import Tensor, nn

from nmt.attention import AttentionConfig
from nmt.attention.additive_kernel import additive_scores
from nmt.attention.linear import packed_weights
from nmt.data import EOS, Batch, collate
from nmt.models.flops import flops_per_token
from nmt.search import SearchConfig, decode
from nmt.training.losses import cross_entropy, output_cross_entropy

BACKWARD = 2
"""FLOPs of a backward pass, relative to a forward pass."""


def vocabulary(day: Day) -> int:
    return 500 if day.tiny else 32000


def transformer(day: Day, name: str, dropout: float = 0.1) -> Any:
    """Return Transformer base or big (Vaswani et al. 2017, table 3), with one matrix for all embeddings."""
    width, inner, heads, layers = (512, 2048, 8, 6) if name == "base" else (1024, 4096, 16, 6)
    width, inner, heads, layers = (64, 96, 4, 1) if day.tiny else (width, inner, heads, layers)
    places = {f"{place}attention": AttentionConfig(heads=heads) for place in ("", "encoder_self_", "decoder_self_")}
    sizes = {"d_model": width, "ffn_dim": inner, "encoder_layers": layers, "decoder_layers": layers}
    return config("transformer", **sizes, **places, dropout=dropout, tie_embeddings="all")


def batches(day: Day, tokens: int) -> list[Batch]:
    """Return batches of four lengths with about so many target tokens, as buckets give them."""
    made = []
    for number, length in enumerate((21, 27, 33, 45)):
        rows = max(tokens // length, 1)
        sides = [sentences([length - 1 - i % n for i in range(rows)], vocabulary(day), number) for n in (2, 3)]
        made.append(pinned(collate(*sides), day.device))
    return made


def matrix_rate(day: Day) -> float:
    """Return FLOPs per second of large products in bf16, the best of several: what utilization is a share of."""
    size = 8192 if day.is_gpu else 256
    a = torch.randn(size, size).to(day.device, torch.bfloat16)
    times = []
    for _ in range(12):
        begin = time.perf_counter()
        a @ a
        day.wait()
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times)


def updates(day: Day, configuration: Any, tokens: int, rate: float, *, compiled: bool = False) -> str:
    """Measure updates of the trainer in bf16, after one of every shape."""
    trained = trainer(model(configuration, vocabulary(day)), day.device, precision="bf16", compile=compiled)
    data = batches(day, tokens)
    begin = time.perf_counter()
    for batch in data:
        trained.step([batch])
    day.wait()
    ready = time.perf_counter() - begin
    if day.is_gpu:
        torch.cuda.reset_peak_memory_stats(day.device)
    number, seen, begin = (2 if day.tiny else 12), 0, time.perf_counter()
    for batch in itertools.islice(itertools.cycle(data), number):
        trained.step([batch])
        seen += batch.num_tokens
    given = time.perf_counter() - begin  # the processor is done; where that is close to the whole, it is the limit
    day.wait()
    seconds = time.perf_counter() - begin
    size = vocabulary(day)
    flops = (1 + BACKWARD) * flops_per_token(configuration, size, size, joint=True) * seen / seconds
    peak = torch.cuda.max_memory_allocated(day.device) / 2**30 if day.is_gpu else 0.0
    return (
        f"{seen / seconds:,.0f} tokens/s, {flops / 1e12:.1f} TFLOP/s = {flops / rate:.0%} of the matrix rate, "
        f"{1000 * seconds / number:.1f} ms an update of which the processor takes {1000 * given / number:.1f}, "
        f"{peak:.1f} GiB, ready after {ready:.0f} s"
    )


def training(day: Day) -> dict[str, Any]:
    """Transformer base and big in bf16, 25,000 target tokens a batch: eager and compiled."""
    rate, tokens = matrix_rate(day), 200 if day.tiny else 25000
    named: Named = []
    for compiled in (False, True) if day.is_gpu else (False,):
        for name in ("base", "big"):
            title, configuration = f"{name} {'compiled' if compiled else 'eager'}", transformer(day, name)

            def run(configuration: Any = configuration, compiled: bool = compiled) -> str:
                try:
                    return updates(day, configuration, tokens, rate, compiled=compiled)
                finally:
                    if compiled:
                        torch._dynamo.reset()
                    if day.is_gpu:
                        torch.cuda.empty_cache()

            named.append((title, run))
    return {"matrix rate, TFLOP/s": round(rate / 1e12, 3), **day.each(named, right=False, seconds=15.0)}


def recurrent_training(day: Day) -> dict[str, Any]:
    """RNNs of 1,024 with additive attention in bf16, 6,000 target tokens a batch: each kind of decoder."""
    rate, tokens = matrix_rate(day), 100 if day.tiny else 6000
    width = 32 if day.tiny else 1024
    sizes = {"embedding_dim": width // 2, "hidden_size": width, "dropout": 0.3, "tie_embeddings": "all"}
    cross = AttentionConfig(score="additive", dim=width // 2)
    named: Named = []
    for how in RECURRENT:
        made = config(**how, **sizes, attention=cross)
        named.append((" ".join(how.values()), lambda made=made: updates(day, made, tokens, rate)))
    return day.each(named, right=False, seconds=5.0)


def decoding(day: Day) -> dict[str, Any]:
    """Transformer base, beam 5, sources of 27 tokens and translations as long: sentences a second; one core beside."""
    configuration = transformer(day, "base", dropout=0.0)
    made = model(configuration, vocabulary(day)).eval()
    with torch.no_grad():
        made.get_submodule("output").bias[EOS] = -1e4  # translations end at their maximum length

    def speed(device: torch.device, precision: str, size: int, number: int) -> str:
        sources = sentences([27] * number, vocabulary(day))
        options = SearchConfig(beam_size=5, batch_size=size, batch_tokens=0, max_length_ratio=1.0, max_length_offset=0)
        made.to(device)
        with torch.no_grad(), packed_weights(made, precision):
            if device.type != "cpu":
                dict(decode(made, sources[:size], options, device))
            day.wait()
            begin = time.perf_counter()
            dict(decode(made, sources, options, device))
            day.wait()
        seconds = time.perf_counter() - begin
        steps = 28 * math.ceil(number / size)
        return f"{number / seconds:,.1f} sentences/s, {1000 * seconds / steps:.2f} ms a step"

    def one_core() -> str:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return speed(CPU, "fp32", 8, 4 if day.tiny else 16)
        finally:
            torch.set_num_threads(threads)

    named: Named = [("one core of the CPU, fp32, batch 8", one_core)]
    for precision, size in (("fp32", 4),) if not day.is_gpu else itertools.product(("fp32", "bf16"), (64, 512)):
        number = size if not day.is_gpu else max(4 * size, 512)
        title = f"{day.device.type}, {precision}, batch {size}"
        named.append((title, lambda p=precision, s=size, n=number: speed(day.device, p, s, n)))
    return day.each(named, right=False, seconds=4.0)


def kernel_times(day: Day) -> dict[str, Any]:
    """Milliseconds forward, and forward and backward: the project's kernels, the formulas, and these compiled."""
    shapes = {
        "training 200x32x32, 512 wide": ((200, 1), 32, 32, 512), "a step 200x1x32, 512 wide": ((200, 1), 1, 32, 512),
        "a beam 64x5x32, 512 wide": ((64, 1), 5, 32, 512), "8 heads 100x40x40, 64 wide": ((100, 8), 40, 40, 64),
    }  # fmt: skip

    def formula(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
        return (torch.tanh(query.unsqueeze(-2) + keys.unsqueeze(-3)) * v.view(len(v), 1, 1, -1)).sum(-1)

    def times(function: Callable[..., Tensor], arguments: list[Tensor]) -> str:
        upstream = torch.randn_like(function(*arguments))
        wanted = [x for x in arguments if x.requires_grad]
        forward = day.milliseconds(lambda: function(*arguments))
        both = day.milliseconds(lambda: torch.autograd.grad(function(*arguments), wanted, upstream))
        return f"{forward:.3f}, {both:.3f}"

    def additive(lead: tuple[int, ...], t: int, s: int, d: int, function: Callable[..., Tensor]) -> str:
        query, keys = (torch.randn(*lead, n, d).to(day.device, torch.bfloat16).requires_grad_() for n in (t, s))
        return times(function, [query, keys, torch.randn(lead[1], d).to(day.device).requires_grad_()])

    functions: dict[str, Callable[..., Tensor]] = {"ours": additive_scores, "formula": formula}
    if day.is_gpu:
        functions["formula compiled"] = torch.compile(formula, dynamic=False)
    named: Named = []
    for shape, sizes in list(shapes.items())[: 1 if day.tiny else None]:
        sizes = ((2, 1), 4, 4, 8) if day.tiny else sizes
        for name, function in functions.items():
            named.append((f"additive, {shape}: {name}", lambda z=sizes, f=function: additive(*z, f)))
    rows, size, width = (50, 500, 16) if day.tiny else (25000, 32000, 512)
    labels = torch.randint(size, (rows,)).to(day.device)
    options: dict[str, Any] = {"label_smoothing": 0.1, "reduction": "sum"}

    def torchs(logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.float(), labels, **options)

    losses: dict[str, Callable[..., Tensor]] = {
        "ours": lambda logits: cross_entropy(logits, labels, smoothing=0.1)[0],
        "torch's": torchs,
    }
    if day.is_gpu:
        losses["torch's compiled"] = torch.compile(torchs, dynamic=False)

    def loss(function: Callable[..., Tensor]) -> str:
        return times(function, [torch.randn(rows, size).to(day.device, torch.bfloat16).requires_grad_()])

    def output_loss(ours: bool) -> str:
        layer = nn.Linear(width, size).to(day.device)
        features = torch.randn(rows, width).to(day.device).requires_grad_()

        def whole(x: Tensor, *_: Tensor) -> Tensor:
            with torch.autocast(day.device.type, torch.bfloat16):
                return output_cross_entropy(layer, x, labels, smoothing=0.1)[0] if ours else torchs(layer(x))

        return times(whole, [features, *layer.parameters()])

    for name, function in losses.items():
        named.append((f"loss of {rows:,} x {size:,} logits: {name}", lambda f=function: loss(f)))
    for name, ours in (("ours", True), ("torch's", False)):
        named.append((f"loss with its output layer: {name}", lambda o=ours: output_loss(o)))
    return day.each(named, right=False, seconds=2.0)
