"""What was different about runs before they were trained: python -m nmt.compare --diff RUN RUN …"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor

from nmt import checkpoint, models
from nmt.cli.configs import Config
from nmt.config import differing, to_dict
from nmt.data import Tokenizer
from nmt.models import Seq2Seq
from nmt.models.flops import FLOPS_SEQUENCE_LENGTH, flops_per_token, parameter_counts, parameter_groups

NAMES = ("name", "runs")  # options that differ between any two runs
ERRORS = 5.0  # standard errors within which two means or deviations count as one


class RunSnapshot(NamedTuple):
    """What a checkpoint tells of a run, and its model as it was before training."""

    label: str
    config: Config
    tokenizer: Tokenizer
    model: Seq2Seq
    version: str

    @classmethod
    def read(cls, path: str) -> "RunSnapshot":
        """Read a run directory or a checkpoint file.

        Raises:
            FileNotFoundError: there is none. ValueError: it cannot be read.
        """
        try:
            file = checkpoint.resolve(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error).removeprefix("checkpoint=")) from None
        content = checkpoint.load(file)
        try:
            config = Config.from_dict(content["config"])
            tokenizer = Tokenizer.from_state_dict(content["tokenizer"])
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # as `nmt.train` does
            model = models.build_model(
                config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint
            )
        return cls(path.rstrip("/"), config, tokenizer, model, str(content["nmt"]))

    def flops(self) -> float:
        """See `nmt.models.flops.flops_per_token`."""
        sizes = (self.tokenizer.source_size, self.tokenizer.target_size)
        return flops_per_token(self.config.model, *sizes, joint=self.tokenizer.joint)


def diff_runs(runs: Sequence[RunSnapshot]) -> str:
    """Return as text all that differs between two or more runs; the others are compared with the first."""
    sections = [
        _options(runs),
        _vocabularies(runs),
        _parameters(runs),
        *(_beginnings(runs[0], run) for run in runs[1:]),
        _same_or_table("FLOPs per target token", [f"{run.flops():,.0f}" for run in runs], runs, _CONVENTION),
        _same_or_table("nmt version", [run.version for run in runs], runs),
    ]
    return "\n\n".join("\n".join(section) for section in sections)


_CONVENTION = (
    f"forward pass, {FLOPS_SEQUENCE_LENGTH} source and {FLOPS_SEQUENCE_LENGTH} target tokens, multiply-add = 2"
)


def _options(runs: Sequence[RunSnapshot]) -> list[str]:
    values = differing(*(to_dict(run.config) for run in runs))
    rows = [[path, *row] for path, row in values.items() if path not in NAMES]
    return (
        ["options that differ", *_table([["", *(run.label for run in runs)], *rows])] if rows else ["identical options"]
    )


def _vocabularies(runs: Sequence[RunSnapshot]) -> list[str]:
    columns = [["", "kind", "entries", "content"]]
    for run in runs:
        tokenizer = run.tokenizer
        sizes = f"{tokenizer.source_size:,}"
        sizes += " for both languages" if tokenizer.joint else f" source, {tokenizer.target_size:,} target"
        columns.append([run.label, tokenizer.kind, sizes, tokenizer.digest[:12]])
    if len({run.tokenizer.digest for run in runs}) == 1:
        _, kind, sizes, digest = columns[1]
        return [f"identical vocabulary: {kind}, {sizes} ({digest})"]
    return ["vocabularies differ", *_table(list(map(list, zip(*columns, strict=True))))]


def _parameters(runs: Sequence[RunSnapshot]) -> list[str]:
    counts = [parameter_counts(run.model) for run in runs]
    if all(each == counts[0] for each in counts):
        inside = ", ".join(f"{part} {count:,}" for part, count in counts[0].items())
        return [f"identical numbers of parameters: {sum(counts[0].values()):,} ({inside})"]
    rows = []
    for part in [*dict.fromkeys(itertools.chain(*counts)), "total"]:
        first, *others = (sum(each.values()) if part == "total" else each.get(part, 0) for each in counts)
        row = [part, f"{first:,}"]
        for other in others:
            row += [f"{other:,}", "" if other == first else f"{100 * (other / first - 1):+.2f} %" if first else "new"]
        rows.append(row)
    head = ["", runs[0].label, *(cell for run in runs[1:] for cell in (run.label, ""))]
    return ["parameters (tied ones count once)", *_table([head, *rows], numbers=True)]


IDENTICAL, ANOTHER_DRAW, ONE_RUN = "identical", "another draw", "in one run only"


def _beginning(first: Tensor | None, other: Tensor | None) -> str:
    """Compare the initial values of a parameter in two runs."""
    if first is None or other is None:
        return ONE_RUN
    if torch.equal(first, other):
        return IDENTICAL
    if first.shape != other.shape:
        return "another shape"
    return ANOTHER_DRAW if _alike(first, other) else "another distribution"


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


def _beginnings(first: RunSnapshot, other: RunSnapshot) -> list[str]:
    """How the parameters of a run began, beside those of the first."""
    before, after = ({name: p.detach() for name, p in run.model.named_parameters()} for run in (first, other))
    part_of = parameter_groups(first.model) | parameter_groups(other.model)
    state_of = {name: _beginning(before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])}
    states = Counter(state_of.values())
    common = len(state_of) - states[ONE_RUN]
    seeds = " → ".join(str(seed) for seed in dict.fromkeys([first.config.seed, other.config.seed]))
    identical = f"all {common}" if states[IDENTICAL] == common else f"{states[IDENTICAL]} of {common}"
    head = f"initialisation: {first.label} → {other.label} (seed {seeds}): "
    head += f"{identical} common parameters start bit-identical"
    if states[IDENTICAL] == len(state_of):
        return [head]
    rows = []
    for part in dict.fromkeys(part_of[name] for name in state_of):
        counts = Counter(state for name, state in state_of.items() if part_of[name] == part)
        rows.append([part, ", ".join(f"{number} {state}" for state, number in counts.items())])
    changed = [name for name, state in state_of.items() if state not in (IDENTICAL, ANOTHER_DRAW)]
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


def _same_or_table(what: str, values: list[str], runs: Sequence[RunSnapshot], note: str = "") -> list[str]:
    note = f" ({note})" if note else ""
    if len(set(values)) == 1:
        return [f"identical {what}: {values[0]}{note}"]
    return [what + note, *_table([[run.label for run in runs], values], numbers=True)]


def _table(rows: list[list[str]], *, numbers: bool = False) -> list[str]:
    """Return aligned lines; with numbers, all but the first column are aligned at their right ends."""
    if not rows:
        return []
    align = ["left", *["right" if numbers else "left"] * (len(rows[0]) - 1)]
    grid: str = tabulate(rows, tablefmt="plain", colalign=align, disable_numparse=True)
    return ["  " + line.rstrip() for line in grid.splitlines()]
