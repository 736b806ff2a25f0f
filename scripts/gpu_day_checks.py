"""Is the GPU right? Parts of `gpu_day` that hold it against the CPU or against fp64."""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_day_common import (
    CPU,
    RECURRENT,
    TRANSFORMER,
    Day,
    Named,
    cases,
    config,
    distance,
    model,
    pinned,
    reversal,
    sentences,
    trainer,
)
from torch import Tensor, nn

from nmt.attention import additive_kernel
from nmt.attention.additive_kernel import additive_scores
from nmt.attention.linear import packed_weights
from nmt.data import Batch, batch_to_device, collate
from nmt.models import Seq2Seq
from nmt.models.rnn_layers import CELLS, GATES, next_state
from nmt.runtime.device import autocast
from nmt.search import BeamSearch, SearchConfig, decode
from nmt.training.losses import cross_entropy, output_cross_entropy, symmetric_kl
from nmt.training.objective import LossConfig, TrainingObjective

MAX_FP32 = 2e-3
"""Largest distance of gradients in fp32 from those of the CPU, relative to their norm."""
MAX_BF16 = 0.1
"""The same of bf16."""
KERNEL_SHAPES = (
    ((2, 3), 5, 7, 4), ((4, 1), 1, 33, 512), ((3, 8), 40, 37, 64), ((2, 2, 5), 1, 21, 96), ((1, 1), 1, 1, 1),
    ((2, 1), 200, 130, 200),
)  # fmt: skip
"""(B, H, *), T, S, D of the additive score."""


def loss_and_gradients(made: Seq2Seq, batch: Batch, precision: str) -> tuple[float, list[Tensor | None]]:
    """Return the mean loss of a token and the gradients of all parameters."""
    torch.manual_seed(1)
    total, _ = TrainingObjective(LossConfig(), fused=True)(made, batch, precision)
    loss = total / batch.num_tokens
    return float(loss.detach()), list(torch.autograd.grad(loss, list(made.parameters()), allow_unused=True))


def gradients(day: Day) -> dict[str, Any]:
    """Loss and gradients of every score, normalizer and window: fp32 against the CPU, bf16 near it."""
    batch = collate(sentences((11, 7, 3, 9), 60), sentences((9, 10, 2, 12), 60, 1))
    apart: dict[str, list[float]] = {"fp32": [], "bf16": []}
    additive_kernel.DIRECT_MAX_ELEMENTS, former = 0, additive_kernel.DIRECT_MAX_ELEMENTS  # as for large problems

    def compare(configuration: Any) -> str:
        here = model(configuration, 60).train()
        loss, expected = loss_and_gradients(here, batch, "fp32")
        there, moved = copy.deepcopy(here).to(day.device), batch_to_device(batch, day.device)
        told = []
        for precision, most in (("fp32", MAX_FP32), ("bf16", MAX_BF16)):
            loss_there, found = loss_and_gradients(there, moved, precision)
            apart[precision].append(max(abs(loss_there - loss) / loss, distance(found, expected)))
            told.append(f"{apart[precision][-1]:.1e} in {precision}")
            assert apart[precision][-1] <= most, f"loss and gradients are {told[-1]} apart from the CPU's"
        return ", ".join(told)

    every = list(cases())[:: 9 if day.tiny else 1]
    named: Named = [(name, lambda c=c: compare(c)) for name, c in every]
    try:
        found = day.each(named, right=True, seconds=1.0)
    finally:
        additive_kernel.DIRECT_MAX_ELEMENTS = former
    largest = {f"farthest of {len(found)} models in {name}": max(all_, default=0.0) for name, all_ in apart.items()}
    return {**largest, "models": found}


def with_gradients(
    function: Callable[..., Tensor], arguments: Sequence[Tensor], upstream: Tensor | None
) -> list[Tensor]:
    """Return a value and the gradients of the arguments, where `upstream` is that of the value."""
    leaves = [x.detach().requires_grad_() for x in arguments]
    value = function(*leaves)
    return [
        value.detach(),
        *torch.autograd.grad(value, leaves, None if upstream is None else upstream.to(value), allow_unused=True),
    ]


def kernels(day: Day) -> dict[str, Any]:
    """The additive score and the losses against their formulas in fp64: values and gradients, by size and dtype."""

    def score(query: Tensor, keys: Tensor, v: Tensor) -> Tensor:
        return (
            torch.tanh(query.unsqueeze(-2) + keys.unsqueeze(-3)) * v.view(len(v), *[1] * (query.dim() - 2), -1)
        ).sum(-1)

    def compare_scores(lead: tuple[int, ...], t: int, s: int, d: int, dtype: torch.dtype) -> float:
        torch.manual_seed(0)
        flat = [torch.randn(lead[0], n, *lead[2:], lead[1], d) for n in (t, s)]  # heads beside the width, as layers do
        query, keys = (x.movedim(1, -2).movedim(-3, 1) for x in flat) if len(lead) == 2 else (
            torch.randn(*lead, n, d) for n in (t, s))  # fmt: skip
        tensors = [x.to(day.device, dtype) for x in (query, keys)] + [torch.randn(lead[1], d).to(day.device)]
        upstream = torch.randn(*lead, t, s).to(day.device)
        found = with_gradients(additive_scores, tensors, upstream)
        exact = with_gradients(score, [x.double() for x in tensors], upstream)
        return checked(found, exact, dtype)

    def checked(found: list[Tensor], exact: list[Tensor], dtype: torch.dtype) -> float:
        apart = max(distance([f], [e]) for f, e in zip(found, exact, strict=True))
        most = {torch.float32: 2e-5, torch.float16: 2e-3}.get(dtype, 1.5e-2)
        assert apart <= most, f"{apart:.1e} apart from fp64, {most:g} is allowed"
        return float(f"{apart:.1e}")

    def compare_losses(rows: int, size: int, dtype: torch.dtype) -> dict[str, float]:
        torch.manual_seed(0)
        logits, labels = (
            (3 * torch.randn(rows, size)).to(day.device, dtype),
            torch.randint(size, (rows,)).to(day.device),
        )
        output, x = nn.Linear(32, size).to(day.device), torch.randn(rows, 32).to(day.device)
        formula = nn.functional.cross_entropy
        options: dict[str, Any] = {"label_smoothing": 0.1, "reduction": "sum"}

        def divergence(z: Tensor) -> Tensor:
            p, q = z.log_softmax(-1).chunk(2)
            return ((p.exp() - q.exp()) * (p - q)).sum()

        def whole(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            layer = copy.copy(output)
            layer._parameters = {"weight": w, "bias": b}  # type: ignore[assignment]
            return output_cross_entropy(layer, x, labels, smoothing=0.1)[0]

        wide, apart = logits.double(), {}
        found = with_gradients(lambda z: cross_entropy(z, labels, smoothing=0.1)[0], [logits], None)
        apart["cross_entropy"] = checked(
            found, with_gradients(lambda z: formula(z, labels, **options), [wide], None), dtype
        )
        found = with_gradients(symmetric_kl, [logits], None)
        apart["symmetric_kl"] = checked(found, with_gradients(divergence, [wide], None), dtype)
        tensors = [x, output.weight, output.bias]
        with torch.autocast(day.device.type, dtype, enabled=dtype != torch.float32):
            found = with_gradients(whole, tensors, None)
        exact = [t.double() for t in tensors]
        expected = with_gradients(lambda x, w, b: formula(x @ w.t() + b, labels, **options), exact, None)
        apart["output_cross_entropy"] = checked(found, expected, dtype)
        return apart

    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    named: Named = []
    for shape in KERNEL_SHAPES[:: 3 if day.tiny else 1]:
        for dtype in dtypes:
            named.append((f"additive {shape} {dtype}", lambda s=shape, d=dtype: compare_scores(*s, d)))
    for rows, size in ((6, 100),) if day.tiny else ((6, 100), (1000, 32000), (333 * 2, 12345)):
        for dtype in dtypes[: 2 if day.device.type == "cpu" else 3]:
            named.append((f"losses {rows} x {size} {dtype}", lambda r=rows, v=size, d=dtype: compare_losses(r, v, d)))
    additive_kernel.DIRECT_MAX_ELEMENTS, former = 0, additive_kernel.DIRECT_MAX_ELEMENTS
    try:
        return day.each(named, right=True, seconds=1.0)
    finally:
        additive_kernel.DIRECT_MAX_ELEMENTS = former


def recurrent_layers(day: Day) -> dict[str, Any]:
    """LSTM and GRU under bf16: their gradients when the loss is 1e-7 of what it is, as one token of a large batch."""

    def compare(cell: str) -> dict[str, Any]:
        torch.manual_seed(0)
        layer = CELLS[cell](64, 64, batch_first=True).to(day.device)
        x = torch.randn(32, 20, 64).to(day.device).requires_grad_()
        leaves, expected, found = [x, *layer.parameters()], [], {}
        for precision, scale in (("fp32", 1.0), ("bf16", 1.0), ("bf16", 1e-7)):
            with autocast(precision, day.device):
                out, _ = layer(x)
            grads = [g.float() / scale for g in torch.autograd.grad((out.float() * scale).sum(), leaves)]
            expected = expected or grads
            found[f"{precision} at a loss of {scale:g}"] = f"{out.dtype}, {distance(grads, expected):.1e} apart"
            assert distance(grads, expected) <= 0.05, f"gradients in {precision} at a loss of {scale:g}: {found}"
        return found

    return day.each([(cell, lambda c=cell: compare(c)) for cell in CELLS], right=True)


def cells(day: Day) -> dict[str, Any]:
    """A step of GRU and LSTM in decoders, which a GPU computes in one kernel, against the formula in fp64."""

    def compare(cell: str) -> str:
        torch.manual_seed(0)
        gates, states = GATES[cell], 1 if cell == "gru" else 2
        shapes = [(33, gates * 48)] * 2 + [(33, 48)] * states
        tensors = [torch.randn(shape) for shape in shapes]

        def step(*x: Tensor) -> Tensor:
            return torch.cat(next_state(x[0], x[1], tuple(x[2:])), -1)

        upstream = torch.randn(33, 48 * states)
        moved = [x.to(day.device) for x in tensors]
        found = with_gradients(step, moved, upstream.to(day.device))
        apart = distance(found, with_gradients(step, [x.double() for x in tensors], upstream))
        assert apart <= 1e-5, f"{apart:.1e} apart from fp64"
        return f"{apart:.1e} apart"

    return day.each([(cell, lambda c=cell: compare(c)) for cell in GATES], right=True)


def learning(day: Day) -> dict[str, Any]:
    """Losses of 50 updates of the trainer: in fp32 and bf16 against the CPU; whether a second time gives the same."""

    def curve(how: dict[str, str], device: torch.device, precision: str) -> list[float]:
        configuration = config(**how, d_model=128, ffn_dim=256, hidden_size=128, embedding_dim=64)
        trained = trainer(model(configuration, 200), device, precision=precision)
        losses = []
        for number in range(3 if day.tiny else 50):
            batch = pinned(reversal(number, rows=16 if day.tiny else 64), device)
            losses.append(trained.step([batch])[0][1] / batch.num_tokens)
        return torch.stack(losses).cpu().tolist()

    def compare(how: dict[str, str]) -> dict[str, Any]:
        here = curve(how, CPU, "fp32")
        there, again, low = (curve(how, day.device, precision) for precision in ("fp32", "fp32", "bf16"))
        told = {name: f"{losses[0]:.4f}, {losses[-1]:.4f}" for name, losses in
                (("CPU", here), ("fp32", there), ("bf16", low))}  # fmt: skip
        for name, losses, most in (("fp32", there, 0.05), ("bf16", low, 0.15)):
            apart = abs(losses[-1] - here[-1]) / here[-1]
            assert apart <= most, f"the last loss in {name} is {apart:.0%} from the CPU's: {told}"
        return {**told, "the same twice": there == again}

    chosen = (TRANSFORMER, *RECURRENT[: 1 if day.tiny else 2])
    return day.each([(" ".join(how.values()), lambda h=how: compare(h)) for how in chosen], right=True, seconds=5.0)


SEARCHES: dict[str, dict[str, Any]] = {
    "beam": {"beam_size": 5}, "greedy": {"beam_size": 1}, "groups": {"beam_size": 4, "diverse_groups": 2, "n_best": 2},
    "no_repeat": {"beam_size": 3, "no_repeat_ngram_size": 2}, "minimum": {"beam_size": 3, "min_length_ratio": 0.7},
    "coverage penalty": {"beam_size": 3, "coverage_penalty": 0.2}, "n_best": {"beam_size": 4, "n_best": 3},
    "sample": {"method": "sample", "n_best": 2, "top_k": 10},
}  # fmt: skip


def hypotheses(day: Day) -> dict[str, Any]:
    """Translations in fp32: of the GPU against those of the CPU, and in batches of 3 against those in one batch."""
    lengths = torch.randint(
        2, 6 if day.tiny else 20, (6 if day.tiny else 32,), generator=torch.Generator().manual_seed(0)
    ).tolist()
    sources = sentences(lengths, 300)

    def decoded(made: Seq2Seq, options: SearchConfig, device: torch.device) -> dict[int, list[int]]:
        with packed_weights(made, "fp32"):
            return {number: each[0].tokens for number, each in decode(made, sources, options, device)}

    def compare(how: dict[str, str], name: str) -> str:
        here = model(config(**how, d_model=64, hidden_size=64), 300, scale=2.0).eval()
        there, options = copy.deepcopy(here).to(day.device), SearchConfig(**SEARCHES[name])
        few = dataclasses.replace(options, batch_size=3)
        runs = (here, options, CPU), (there, options, day.device), (there, few, day.device)
        expected, found, alone = (decoded(made, each_options, device) for made, each_options, device in runs)
        same = sum(found[number] == tokens for number, tokens in expected.items())
        stable = sum(alone[number] == tokens for number, tokens in found.items())
        told = f"{same} of {len(sources)} as on the CPU, {stable} the same in batches of 3"
        assert min(same, stable) >= 0.95 * len(sources), told
        return told

    named: Named = []
    for how in (TRANSFORMER, *RECURRENT[:2]):
        for name in SEARCHES if how is TRANSFORMER else ("beam", "sample"):
            named.append((f"{' '.join(how.values())} {name}", lambda h=how, n=name: compare(h, n)))
    return day.each(named, right=True, seconds=3.0)


def waits(day: Day) -> dict[str, Any]:
    """Count where an update waits for the GPU, which it should not, and how often ten steps of the search do."""
    trained = trainer(model(config(**TRANSFORMER), 200), day.device, precision="bf16")
    batch = pinned(reversal(0), day.device)
    for _ in range(2):
        trained.step([batch])
    day.wait()
    torch.cuda.set_sync_debug_mode("error")
    try:
        update = day.each([("an update", lambda: trained.step([batch]) and "does not wait")], right=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    moved = batch_to_device(batch, day.device)
    search = BeamSearch(trained.model.eval(), moved.source, moved.source_mask, SearchConfig(beam_size=5, n_best=5))
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.step()
        torch.cuda.set_sync_debug_mode("warn")
        for _ in range(10):
            search.step()
        torch.cuda.set_sync_debug_mode("default")
    places = sorted({f"{Path(warning.filename).name}:{warning.lineno}" for warning in caught})
    return {**update, "ten steps of a search with texts": f"{len(caught)} waits, at {', '.join(places)}"}
