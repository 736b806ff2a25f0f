"""What was different about runs before they were trained: python -m nmt.compare --diff RUN RUN …"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nmt import checkpoint, models
from nmt.cli.configs import Config
from nmt.data import Tokenizer
from nmt.models import Seq2Seq
from nmt.models.flops import LENGTH, flops_per_token, parameters, parts
from nmt.options import flatten, from_primitive, to_primitive

NAMES = ("name", "runs")  # options that differ between any two runs
ERRORS = 5.0  # standard errors within which two means or deviations count as one


class Run(NamedTuple):
    """What a checkpoint tells of a run, and its model as it was before training."""

    label: str
    config: Config
    tokenizer: Tokenizer
    model: Seq2Seq
    version: str

    @classmethod
    def read(cls, path: str) -> "Run":
        """From a run directory or a checkpoint file.

        Raises:
            FileNotFoundError: there is none. ValueError: it cannot be read.
        """
        try:
            file = checkpoint.locate(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error).removeprefix("checkpoint=")) from None
        content = checkpoint.load(file)
        try:
            config = from_primitive(Config, content["config"])
            tokenizer = Tokenizer.from_state(content["tokenizer"])
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # as `nmt.train` does
            model = models.build(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
        return cls(path.rstrip("/"), config, tokenizer, model, str(content["nmt"]))

    def flops(self) -> float:
        """See `nmt.models.flops.flops_per_token`."""
        sizes = (self.tokenizer.source_size, self.tokenizer.target_size)
        return flops_per_token(self.config.model, *sizes, joint=self.tokenizer.joint)


def difference(runs: Sequence[Run]) -> str:
    """Everything that differs between two or more runs, as text; the first is what the others are compared with."""
    sections = [
        _options(runs),
        _vocabularies(runs),
        _parameters(runs),
        *(_beginnings(runs[0], run) for run in runs[1:]),
        _same_or_table("FLOPs per target token", [f"{run.flops():,.0f}" for run in runs], runs, _CONVENTION),
        _same_or_table("nmt version", [run.version for run in runs], runs),
    ]
    return "\n\n".join("\n".join(section) for section in sections)


_CONVENTION = f"forward pass, {LENGTH} source and {LENGTH} target tokens, multiply-add = 2"


def _options(runs: Sequence[Run]) -> list[str]:
    flat = [flatten(to_primitive(run.config)) for run in runs]
    paths = [path for path in dict.fromkeys(path for each in flat for path in each) if path not in NAMES]
    absent = object()

    def show(value: Any) -> str:
        return "(none)" if value is absent else "null" if value is None else str(value)

    rows = [
        [path, *(show(each.get(path, absent)) for each in flat)]
        for path in paths
        if any(each.get(path, absent) != flat[0].get(path, absent) for each in flat)
    ]
    return ["options that differ", *_table([["", *_labels(runs)], *rows])] if rows else ["identical options"]


def _vocabularies(runs: Sequence[Run]) -> list[str]:
    def rows(tokenizer: Tokenizer) -> list[str]:
        sizes = f"{tokenizer.source_size:,}"
        sizes += " for both languages" if tokenizer.joint else f" source, {tokenizer.target_size:,} target"
        return [tokenizer.kind, sizes, tokenizer.digest[:12]]

    all_rows = [rows(run.tokenizer) for run in runs]
    if len({run.tokenizer.digest for run in runs}) == 1:
        kind, sizes, digest = all_rows[0]
        return [f"identical vocabulary: {kind}, {sizes} ({digest})"]
    named = zip(("kind", "entries", "content"), zip(*all_rows, strict=True), strict=True)
    return ["vocabularies differ", *_table([["", *_labels(runs)], *([name, *values] for name, values in named)])]


def _parameters(runs: Sequence[Run]) -> list[str]:
    counts = [parameters(run.model) for run in runs]
    if all(each == counts[0] for each in counts):
        inside = ", ".join(f"{part} {count:,}" for part, count in counts[0].items())
        return [f"identical numbers of parameters: {sum(counts[0].values()):,} ({inside})"]
    totals = [{**each, "total": sum(each.values())} for each in counts]
    names = [part for part in dict.fromkeys(part for each in totals for part in each) if part != "total"]
    rows = []
    for part in [*names, "total"]:
        first = totals[0].get(part, 0)
        row = [part, f"{first:,}"]
        for each in totals[1:]:
            other = each.get(part, 0)
            row += [f"{other:,}", "" if other == first else f"{100 * (other / first - 1):+.2f} %" if first else "new"]
        rows.append(row)
    head = ["", runs[0].label, *(cell for run in runs[1:] for cell in (run.label, ""))]
    return ["parameters (tied ones count once)", *_table([head, *rows], numbers=True)]


IDENTICAL, ANOTHER_DRAW, ANOTHER_DISTRIBUTION, ANOTHER_SHAPE, ONE_RUN = (
    "identical",
    "another draw",
    "another distribution",
    "another shape",
    "in one run only",
)


def _beginning(first: Tensor | None, other: Tensor | None) -> str:
    """What became of a parameter as it was before training, from one run to another."""
    if first is None or other is None:
        return ONE_RUN
    if torch.equal(first, other):
        return IDENTICAL
    if first.shape != other.shape:
        return ANOTHER_SHAPE
    return ANOTHER_DRAW if _alike(first, other) else ANOTHER_DISTRIBUTION


def _described(tensors: Sequence[Tensor]) -> str:
    """Tensors of one shape; mean and deviation are those of all together."""
    values = torch.cat([x.flatten() for x in tensors])
    return f"{tuple(tensors[0].shape)}, mean {values.mean():.2g}, deviation {values.std(correction=0):.2g}"


def _alike(first: Tensor, other: Tensor) -> bool:
    """Whether mean and standard deviation of two tensors of one shape agree as well as their size lets one expect."""
    (mean, deviation), (other_mean, other_deviation) = (
        (float(x.mean()), float(x.std(correction=0))) for x in (first, other)
    )
    error = max(deviation, other_deviation) * math.sqrt(2 / first.numel())
    off = max(abs(mean - other_mean), abs(deviation - other_deviation))
    return error > 0 and off <= ERRORS * error


def _beginnings(first: Run, other: Run) -> list[str]:
    """How the parameters of a run began, beside those of the first."""
    before, after = ({name: p.detach() for name, p in run.model.named_parameters()} for run in (first, other))
    part_of = parts(first.model) | parts(other.model)
    found = {name: _beginning(before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])}
    states = Counter(found.values())
    common = len(found) - states[ONE_RUN]
    seeds = f"seed {first.config.seed}"
    seeds += "" if other.config.seed == first.config.seed else f" → {other.config.seed}"
    head = f"initialisation: {first.label} → {other.label} ({seeds}): "
    if states[IDENTICAL] == common:
        head += f"all {common} common parameters start bit-identical"
    else:
        head += f"{states[IDENTICAL]} of {common} common parameters start bit-identical"
    if states[IDENTICAL] == len(found):
        return [head]
    rows = []
    for part in dict.fromkeys(part_of[name] for name in found):
        here = Counter(state for name, state in found.items() if part_of[name] == part)
        rows.append([part, ", ".join(f"{number} {state}" for state, number in here.items())])
    changed = [name for name, state in found.items() if state in (ANOTHER_DISTRIBUTION, ANOTHER_SHAPE, ONE_RUN)]
    lines = _changes(changed, [before, after], [first.label, other.label])
    return [head, *_table(rows), *([""] if lines else []), *_table(lines)]


def _changes(names: list[str], tensors: Sequence[dict[str, Tensor]], labels: Sequence[str]) -> list[list[str]]:
    """Lines of a table about parameters that began differently; one line for those that are alike in all layers."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name in names:
        shapes = [None if name not in each else each[name].shape for each in tensors]
        groups.setdefault((re.sub(r"\.\d+(?=\.)", ".*", name), *shapes), []).append(name)
    lines = []
    for (pattern, *shapes), members in groups.items():
        sides = [
            _described([each[name] for name in members])
            for each, shape in zip(tensors, shapes, strict=True)
            if shape is not None
        ]
        owner = "" if len(sides) == len(labels) else f"only in {labels[shapes[0] is None]}: "
        count = f" ({len(members)} of them)" if len(members) > 1 else ""
        lines.append([pattern, owner + " → ".join(sides) + count])
    return lines


def _same_or_table(what: str, values: list[str], runs: Sequence[Run], note: str = "") -> list[str]:
    note = f" ({note})" if note else ""
    if len(set(values)) == 1:
        return [f"identical {what}: {values[0]}{note}"]
    return [what + note, *_table([_labels(runs), values], numbers=True)]


def _labels(runs: Sequence[Run]) -> list[str]:
    return [run.label for run in runs]


def _table(rows: list[list[str]], *, numbers: bool = False) -> list[str]:
    """Aligned lines; with numbers, all but the first column end below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    align: list[Callable[[str, int], str]] = [str.ljust, *([str.rjust if numbers else str.ljust] * len(widths))]
    return ["  " + "  ".join(align[min(i, 1)](cell, widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
