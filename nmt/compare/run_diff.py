"""Differences between runs before they were trained: python -m nmt.compare --diff RUN RUN …"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor

from nmt import checkpoint, models
from nmt.cli.configs import Config
from nmt.config import differing, to_dict
from nmt.data import Tokenizer
from nmt.evaluation.report.html import printable_line
from nmt.models import Seq2Seq
from nmt.models.flops import FLOPS_SEQUENCE_LENGTH, flops_per_token, parameter_counts, parameter_groups
from nmt.models.loading import check_model

NAMES = ("name", "runs")  # options that differ between any two runs
MAX_STANDARD_ERRORS = 5.0
"""Standard errors within which two means or deviations count as equal."""
IDENTICAL, DIFFERENT_SAMPLE, ONLY_IN_ONE = "identical", "different sample", "in one run only"
_CONVENTION = (
    f"forward pass, {FLOPS_SEQUENCE_LENGTH} source and {FLOPS_SEQUENCE_LENGTH} target tokens, multiply-add = 2"
)


class RunSnapshot(NamedTuple):
    """The configuration, tokenizer and version of a checkpoint, and its model as it was before training."""

    label: str
    config: Config
    tokenizer: Tokenizer
    model: Seq2Seq
    flops: float
    version: str
    parent: dict[str, str]  # from whose weights it began: "checkpoint", "model" and "vocabulary", or nothing

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
        config = Config.from_checkpoint(content)
        with checkpoint.interpreting(content):
            tokenizer = Tokenizer.from_state_dict(content["tokenizer"])
            sizes = tokenizer.source_size, tokenizer.target_size
            check_model(config.model, content["model"], *sizes, joint=tokenizer.joint)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # as `nmt.train` does
            model = models.build_model(config.model, *sizes, joint=tokenizer.joint)
        flops = flops_per_token(config.model, *sizes, joint=tokenizer.joint)
        return cls(
            printable_line(path.rstrip("/")),
            config,
            tokenizer,
            model,
            flops,
            str(content["nmt"]),
            dict(content.get("parent", {})),
        )


def diff_runs(runs: Sequence[RunSnapshot]) -> str:
    """Return as text all that differs between two or more runs; each is compared with the first."""
    sections = [
        _options(runs),
        _vocabularies(runs),
        _parameters(runs),
        *(_initialization(runs[0], run) for run in runs[1:]),
        *([_parents(runs)] if any(run.parent for run in runs) else []),
        _same_or_table(f"FLOPs per target token ({_CONVENTION})", [f"{run.flops:,.0f}" for run in runs], runs),
        _same_or_table("nmt version", [run.version for run in runs], runs),
    ]
    return "\n\n".join("\n".join(section) for section in sections)


def _options(runs: Sequence[RunSnapshot]) -> list[str]:
    values = differing(*(to_dict(run.config) for run in runs))
    rows = [[path, *row] for path, row in values.items() if path not in NAMES]
    if not rows:
        return ["identical options"]
    return ["options that differ", *_table([["", *(run.label for run in runs)], *rows])]


def _vocabularies(runs: Sequence[RunSnapshot]) -> list[str]:
    rows = []
    for tokenizer in (run.tokenizer for run in runs):
        sizes = f"{tokenizer.source_size:,}"
        sizes += " for both languages" if tokenizer.joint else f" source, {tokenizer.target_size:,} target"
        rows.append((tokenizer.type, sizes, tokenizer.digest[:12]))
    if len({run.tokenizer.digest for run in runs}) == 1:
        kind, sizes, digest = rows[0]
        return [f"identical vocabulary: {kind}, {sizes} ({digest})"]
    columns = zip(("kind", "entries", "content"), *rows, strict=True)
    return ["vocabularies differ", *_table([["", *(run.label for run in runs)], *map(list, columns)])]


def _parameters(runs: Sequence[RunSnapshot]) -> list[str]:
    counts = [parameter_counts(run.model) for run in runs]
    if all(count == counts[0] for count in counts):
        details = ", ".join(f"{component} {count:,}" for component, count in counts[0].items())
        return [f"identical numbers of parameters: {sum(counts[0].values()):,} ({details})"]
    rows = [["", runs[0].label, *(cell for run in runs[1:] for cell in (run.label, ""))]]
    for component in [*dict.fromkeys(itertools.chain(*counts)), "total"]:
        first, *others = (sum(c.values()) if component == "total" else c.get(component, 0) for c in counts)
        rows.append([component, f"{first:,}"])
        for count in others:
            change = "" if count == first else f"{100 * (count / first - 1):+.2f} %" if first else "new"
            rows[-1] += [f"{count:,}", change]
    return ["parameters (tied ones count once)", *_table(rows, numbers=True)]


def _initialization(first: RunSnapshot, second: RunSnapshot) -> list[str]:
    """Compare the initial parameters of two runs."""
    tensors = [{name: p.detach() for name, p in run.model.named_parameters()} for run in (first, second)]
    component_of = parameter_groups(first.model) | parameter_groups(second.model)
    states = {name: _state(*(side.get(name) for side in tensors)) for name in {**tensors[0], **tensors[1]}}
    counts = Counter(states.values())
    common = len(states) - counts[ONLY_IN_ONE]
    seeds = " → ".join(str(seed) for seed in dict.fromkeys([first.config.seed, second.config.seed]))
    identical = f"all {common}" if counts[IDENTICAL] == common else f"{counts[IDENTICAL]} of {common}"
    head = f"initialization: {first.label} → {second.label} (seed {seeds}): "
    head += f"{identical} common parameters start bit-identical"
    if counts[IDENTICAL] == len(states):
        return [head]
    rows = []
    for component in dict.fromkeys(component_of[name] for name in states):
        counts = Counter(state for name, state in states.items() if component_of[name] == component)
        rows.append([component, ", ".join(f"{count} {state}" for state, count in counts.items())])
    changed = [name for name, state in states.items() if state not in (IDENTICAL, DIFFERENT_SAMPLE)]
    details = _changes(changed, tensors, [first.label, second.label])
    return [head, *_table(rows), *([""] if details else []), *_table(details)]


def _parents(runs: Sequence[RunSnapshot]) -> list[str]:
    """Return the trained models whose weights were loaded over the initial ones."""
    values = [f"{run.parent['checkpoint']} ({run.parent['model'][:12]})" if run.parent else "none" for run in runs]
    return _same_or_table("weights loaded at the start", values, runs)


def _state(first: Tensor | None, second: Tensor | None) -> str:
    """Compare the initial values of a parameter in two runs."""
    if first is None or second is None:
        return ONLY_IN_ONE
    if torch.equal(first, second):
        return IDENTICAL
    if first.shape != second.shape:
        return "different shape"
    return DIFFERENT_SAMPLE if _same_distribution(first, second) else "different distribution"


def _same_distribution(first: Tensor, second: Tensor) -> bool:
    """Return whether mean and standard deviation of two tensors of one shape agree within their standard errors."""
    (mean, deviation), (other_mean, other_deviation) = (
        (float(x.mean()), float(x.std(correction=0))) for x in (first, second)
    )
    error = max(deviation, other_deviation) * math.sqrt(2 / first.numel())
    difference = max(abs(mean - other_mean), abs(deviation - other_deviation))
    return error > 0 and difference <= MAX_STANDARD_ERRORS * error


def _changes(names: list[str], tensors: Sequence[Mapping[str, Tensor]], labels: Sequence[str]) -> list[list[str]]:
    """Return rows about parameters of different initialization; those alike in all layers share a row."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name in names:
        shapes = [side[name].shape if name in side else None for side in tensors]
        groups.setdefault((re.sub(r"\.\d+(?=\.)", ".*", name), *shapes), []).append(name)
    rows = []
    for (pattern, *shapes), members in groups.items():
        sides = [_describe([side[name] for name in members]) for side in tensors if members[0] in side]
        owner = "" if len(sides) == len(labels) else f"only in {labels[shapes[0] is None]}: "
        count = f" ({len(members)} of them)" if len(members) > 1 else ""
        rows.append([pattern, owner + " → ".join(sides) + count])
    return rows


def _describe(tensors: Sequence[Tensor]) -> str:
    """Return the shape of tensors of one shape, and the mean and deviation over all of them."""
    values = torch.cat([x.flatten() for x in tensors])
    return f"{tuple(tensors[0].shape)}, mean {values.mean():.2g}, deviation {values.std(correction=0):.2g}"


def _same_or_table(title: str, values: list[str], runs: Sequence[RunSnapshot]) -> list[str]:
    if len(set(values)) == 1:
        return [f"identical {title}: {values[0]}"]
    return [title, *_table([[run.label for run in runs], values], numbers=True)]


def _table(rows: list[list[str]], *, numbers: bool = False) -> list[str]:
    """Return aligned lines; with numbers, all but the first column are right-aligned."""
    if not rows:
        return []
    align = ["left", *["right" if numbers else "left"] * (len(rows[0]) - 1)]
    cells = [[printable_line(str(cell)) for cell in row] for row in rows]
    grid: str = tabulate(cells, tablefmt="plain", colalign=align, disable_numparse=True)
    return ["  " + line.rstrip() for line in grid.splitlines()]
