"""Every way of searching on pretended CUDA: hypotheses as on the CPU; launches and waits of a step counted."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import pretended_cuda as cuda
import torch
from cases import attention, batch, config, configs, model
from kernels import pretend
from report import run_checks

from nmt.data import EOS, collate
from nmt.models import Seq2Seq
from nmt.search import Ensemble, Hypothesis, SearchConfig, translate_batch

SEARCHES: dict[str, dict[str, Any]] = {
    "beam": {"beam_size": 3},
    "n_best": {"beam_size": 3, "n_best": 2},
    "greedy": {"beam_size": 1},
    "groups": {"beam_size": 4, "diverse_groups": 2, "n_best": 3},
    "no_repeat": {"beam_size": 3, "no_repeat_ngram_size": 2},
    "minimum length": {"beam_size": 3, "min_length_ratio": 0.8, "min_length_offset": 1},
    "no unknown words": {"beam_size": 3, "replace_unknown": "forbid"},
    "gnmt, never": {"beam_size": 3, "length_normalization": "gnmt", "early_stopping": "never"},
    "early": {"beam_size": 3, "early_stopping": "beam"},
    "prefix": {"beam_size": 3},
    "attention": {"beam_size": 3},
    "coverage penalty": {"beam_size": 3, "coverage_penalty": 0.3},
    "sample": {"method": "sample", "n_best": 3, "temperature": 0.8},
    "sample, top_k": {"method": "sample", "n_best": 2, "top_k": 5},
    "sample, top_p": {"method": "sample", "n_best": 2, "top_p": 0.8},
    "mbr": {"method": "mbr", "mbr_samples": 4},
}
"""By name; "prefix" has prefixes, "attention" collects the weights."""
BUDGETS: dict[str, tuple[float, int]] = {
    "beam": (0.25, 123),
    "n_best": (1.0, 81),
    "greedy": (0.25, 125),
    "groups": (0.25, 140),
    "no_repeat": (0.25, 141),
    "minimum length": (0.25, 125),
    "no unknown words": (0.25, 123),
    "gnmt, never": (0.25, 120),
    "early": (0.25, 124),
    "prefix": (0.25, 134),
    "attention": (1.0, 107),
    "coverage penalty": (0.25, 159),
    "sample": (2.0, 87),
    "sample, top_k": (2.0, 87),
    "sample, top_p": (2.0, 91),
    "mbr": (2.0, 87),
}
"""Waits and launches of a step of a Transformer with two decoder layers, those inside a CUDA graph among them.

Launches were measured on 2026-11-29 and a tenth added; they are lowered as the code gets better. A wait every fourth
step asks whether the search is done.
"""
TRANSFORMER = config("transformer", decoder_layers=2, encoder_layers=1)


def found_by(made: Seq2Seq, pairs: Any, name: str, ratio: float = 2.0) -> list[list[Hypothesis]]:
    options = SearchConfig(**SEARCHES[name], max_length_ratio=ratio)
    options.validate()
    prefixes: Sequence[Sequence[int]] | None = [[5, 6], [], [7]] if name == "prefix" else None
    return translate_batch(
        made, pairs.source, pairs.source_mask, options, prefixes=prefixes, attention=name == "attention"
    )


SURE_TOKENS = 8
"""Tokens of a sample that rounding does not change: a number between two tokens decides, and the next depend on it."""


def compare(found: list[list[Hypothesis]], wanted: list[list[Hypothesis]], *, samples: bool) -> None:
    """Raise AssertionError unless both have the same hypotheses, with the same scores and attention."""
    for ours, others in zip(found, wanted, strict=True):
        if samples:
            starts = [sorted(one.tokens[:SURE_TOKENS] for one in some) for some in (ours, others)]
            assert starts[0] == starts[1], (ours, others)
            continue
        assert [one.tokens for one in ours] == [other.tokens for other in others], (ours, others)
        for one, other in zip(ours, others, strict=True):
            assert abs(one.score - other.score) < 1e-3, (one, other)
            assert one.truncated == other.truncated, (one, other)
            if other.weights is not None:
                torch.testing.assert_close(cuda.values(one.weights), other.weights, rtol=1e-3, atol=1e-4)


def check_searches(configuration: Any, names: Sequence[str], ratio: float, ensemble_with: Any = None) -> None:
    """Hold the hypotheses of a model on cuda:0, of `ratio` times the source's length, equal to those on the CPU."""
    members = [model(each, scale=2.0).eval() for each in (configuration, ensemble_with) if each is not None]
    made = members[0] if len(members) == 1 else Ensemble(members).eval()
    pairs = batch()
    wanted = {}
    for name in names:
        if name == "coverage penalty" and configuration.attention.score == "none":
            continue
        wanted[name] = found_by(made, pairs, name, ratio)
    with cuda.device():
        pretend(triton=True)
        made.to("cuda")
        moved = pairs._replace(source=pairs.source.cuda(), source_mask=pairs.source_mask.cuda())
        for name, hypotheses in wanted.items():
            try:
                samples = "method" in SEARCHES[name]
                compare(found_by(made, moved, name, ratio), hypotheses, samples=samples)
            except Exception as error:
                error.args = (f"{name}: {error}",)
                raise


def check_budget(name: str, counted: dict[str, Any]) -> None:
    """Count what 12 more steps of a search add, and hold a step to the budget."""
    made = model(TRANSFORMER).eval()
    with torch.no_grad():
        made.get_submodule("output").bias[EOS] = -1e4  # no hypothesis ends by itself
    pairs = collate([[5 + i % 7 for i in range(12)]] * 8, [[5]] * 8)
    prefixes = [[5, 6]] * 8 if name == "prefix" else None
    found: list[cuda.Counts] = []
    with cuda.device():
        pretend(triton=True)
        made.to("cuda")
        source, mask = pairs.source.cuda(), pairs.source_mask.cuda()
        for ratio in (1.0, 2.0):
            options = SearchConfig(**SEARCHES[name], max_length_ratio=ratio, max_length_offset=0)
            with cuda.counted() as counts:
                every = translate_batch(made, source, mask, options, prefixes=prefixes, attention=name == "attention")
            assert all(len(one.tokens) == 12 * ratio for hypotheses in every for one in hypotheses), every
            found.append(counts)
    waits, launches = found[1].waits - found[0].waits, found[1].launches - found[0].launches
    num_launches = launches.total() + found[1].replayed - found[0].replayed
    where = {f"{kind} at {place}": num / 12 for (kind, place), num in waits.most_common()}
    counted[name] = {
        "waits": waits.total() / 12,
        "launches": num_launches / 12,
        "graphs": launches["graph"] / 12,
        "where": where,
    }
    counted[name]["before the steps"] = found[0].waits.total() - 13 * waits.total() / 12
    most_waits, most_launches = BUDGETS[name]
    assert waits.total() <= 12 * most_waits, f"{waits.total()} waits in 12 steps, {most_waits} a step: {where}"
    assert num_launches <= 12 * most_launches, f"{num_launches} launches in 12 steps, {most_launches} a step"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=7, help="try every step-th configuration")
    parser.add_argument("--ratio", type=float, default=2.0, help="longest translation, as a multiple of the source")
    parser.add_argument("--budgets", type=int, default=1, help="hold every so many-th way of searching to its budget")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counted: dict[str, Any] = {}
    checks: dict[str, Callable[[], None]] = {}
    names = list(SEARCHES)
    for number, (name, configuration) in enumerate(list(configs())[:: options.step]):
        some = names if number % 31 == 30 else names[number % 5 :: 5]
        checks[name] = lambda c=configuration, s=some: check_searches(c, s, options.ratio)
    other = config("rnn", decoder="luong", attention=attention("additive"))
    for_both = ["beam", "coverage penalty", "attention", "sample"]
    checks["ensemble"] = lambda: check_searches(TRANSFORMER, for_both, options.ratio, other)
    for name in names[:: options.budgets]:
        checks[f"budget {name}"] = lambda n=name: check_budget(n, counted)
    run_checks(checks, steps=lambda: counted)


if __name__ == "__main__":
    main()
