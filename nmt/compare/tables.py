"""A comparison as tables, and the tables as text, Markdown, LaTeX, CSV and JSON."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nmt.compare.comparison import GroupContrast, RunComparison
from nmt.compare.grouping import RunGroup, format_value
from nmt.compare.statistics import SampleSummary

SCORES = {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++", "ter": "TER", "aer": "AER %", "entropy": "entropy"}
COSTS = {
    "parameters": "parameters",
    "flops": "FLOPs/token",
    "tokens_per_second": "tokens/s",
    "peak_memory_mb": "peak MB",
    "minutes": "minutes",
    "minutes_to_bleu": "minutes to BLEU",
}
SECTIONS = ("scores", "significance", "length", "cost")
UNKNOWN = "–"


class Table(NamedTuple):
    """A heading, the names of the columns, and the rows, whose first column is text; one of `SECTIONS`."""

    title: str
    header: list[str]
    rows: list[list[str]]
    section: str = "scores"


def tables(comparison: RunComparison, sections: Sequence[str] = SECTIONS) -> list[Table]:
    """Return the tables of some sections, without empty ones."""
    cost = "cost, means over seeds; time and memory depend on machine and load"
    made = [
        _scores(comparison),
        _significance(comparison),
        *(_by_length(comparison, name) for name in ("bleu", "aer", "entropy")),
    ]
    made.append(_plain_table(comparison, COSTS, cost, _cost)._replace(section="cost"))
    return [table for table in made if table.section in sections and len(table.header) > 1 and table.rows]


def _scores(comparison: RunComparison) -> Table:
    methods = {each.method for group in comparison.groups for name, each in group.summaries.items() if name in SCORES}
    known = sorted(method for method in methods if not method.startswith("none"))
    title = f"scores on {comparison.num_sentences} sentences: mean ± standard deviation over seeds"
    title += f" [95 % interval: {'; '.join(known)}]" if known else ""
    table = _plain_table(comparison, SCORES, title, _interval)
    rows = [
        [row[0], str(len(group.results)), *row[1:]] for row, group in zip(table.rows, comparison.groups, strict=True)
    ]
    return table._replace(header=["", "seeds", *table.header[1:]], rows=rows)


def _plain_table(
    comparison: RunComparison, names: dict[str, str], title: str, cell: Callable[[SampleSummary], str]
) -> Table:
    there = [name for name in names if any(name in group.summaries for group in comparison.groups)]
    rows = [
        [group.label, *(cell(group.summaries[name]) if name in group.summaries else UNKNOWN for name in there)]
        for group in comparison.groups
    ]
    return Table(title, ["", *(names[name] for name in there)], rows)


def _by_length(comparison: RunComparison, name: str) -> Table:
    names = dict.fromkeys(
        each for group in comparison.groups for each in group.summaries if each.startswith(f"{name} ")
    )
    ordered = sorted(names, key=lambda each: int(each.split(" ")[1].partition("-")[0]))
    title = f"{SCORES[name]} by words of the source, means over seeds"
    digits = 3 if name == "entropy" else 2
    heads = {each: each.partition(" ")[2] for each in ordered}
    table = _plain_table(comparison, heads, title, lambda summary: f"{summary.mean:.{digits}f}")
    return table._replace(section="length")


def _significance(comparison: RunComparison) -> Table:
    rows = [
        [
            f"{SCORES[each.metric]}: {each.group}",
            _interval(each.difference, sign="+"),
            ", ".join(_p(p) for p in each.per_seed) or UNKNOWN,
            *(_p(p) for p in (each.sentences, each.seeds, each.adjusted_sentences, each.adjusted_seeds)),
            verdict(each),
        ]
        for each in comparison.contrasts
    ]
    title = (
        f"against {comparison.baseline.label}. p by seed: sacrebleu's paired test of two models; sentences: "
        "those combined (Stouffer, dependent tests); seeds: paired t-test over seeds; Holm: corrected for the number "
        "of groups; differs: both below 0.05 (AER: that over seeds, it has no other)"
    )
    header = ["", "difference", "p by seed", "sentences", "seeds", "Holm sentences", "Holm seeds", ""]
    return Table(title, header, rows, "significance")


def verdict(contrast: GroupContrast) -> str:
    """Return in words what its tests say."""
    untested = "one pair of models" if contrast.seeds is None else "not tested over sentences"
    return {None: untested, False: "not told apart", True: "differs"}[contrast.differs]


def _interval(summary: SampleSummary, sign: str = "") -> str:
    said = f"{summary.mean:{sign}.2f}"
    said += f" ± {summary.deviation:.2f}" if summary.deviation is not None else ""
    if summary.low is None or summary.high is None:
        return said
    return f"{said} [{summary.low:.2f}, {summary.high:.2f}]"


def _cost(summary: SampleSummary) -> str:
    return f"{summary.mean:,.0f}" if summary.mean >= 100 else f"{summary.mean:.2f}"


def _p(value: float | None) -> str:
    return UNKNOWN if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _varied(comparison: RunComparison) -> list[str]:
    """Return what differs between the groups, one line for each option."""
    lines = [f"{option}: {' | '.join(map(format_value, values))}" for option, values in comparison.varied.items()]
    return lines or ["nothing but the seed"]


def signatures(comparison: RunComparison) -> list[str]:
    """Return the signatures of the scores and of the tests, one line for each metric."""
    return [
        f"{SCORES.get(name, name)}{kind}: {signature}"
        for kind, by_metric in (("", comparison.signatures), (", paired", comparison.test_signatures))
        for name, signature in by_metric.items()
    ]


def text(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return a comparison for a terminal."""
    parts = ["\n".join(["varied", *(f"  {line}" for line in _varied(comparison))])]
    parts += [f"{table.title}\n\n{_grid(table, 'simple')}" for table in tables(comparison, sections)]
    parts.append("\n".join(["signatures", *(f"  {line}" for line in signatures(comparison))]))
    if comparison.warnings:
        parts.append("\n".join(["warnings", *(f"  {line}" for line in comparison.warnings)]))
    return "\n\n".join(parts) + "\n"


def markdown(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return a comparison for a document."""
    parts = ["Varied: " + "; ".join(f"`{line}`" for line in _varied(comparison)) + "."]
    parts += [f"{_capital(table.title)}:\n\n{_grid(table, 'github')}" for table in tables(comparison, sections)]
    parts.append("Signatures: " + "; ".join(f"`{line}`" for line in signatures(comparison)) + ".")
    if comparison.warnings:
        parts.append("Warnings:\n\n" + "\n".join(f"* {line}" for line in comparison.warnings))
    return "\n\n".join(parts) + "\n"


def latex(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return a comparison for a paper that uses the package booktabs; all but the tables is in comments."""
    lines = [*(f"varied: {line}" for line in _varied(comparison)), *signatures(comparison)]
    lines += [f"warning: {line}" for line in comparison.warnings]
    parts = ["\n".join(f"% {line}" for line in lines)]
    parts += [f"% {table.title}\n{_grid(table, 'latex_booktabs')}" for table in tables(comparison, sections)]
    return "\n\n".join(parts).replace("±", r"$\pm$").replace(UNKNOWN, "--") + "\n"


def to_csv(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return one line for each group and quantity, with every number in full."""
    tested = {(each.group, each.metric): each for each in comparison.contrasts if "significance" in sections}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("group", "quantity", "seeds", "mean", "deviation", "low", "high", "interval"),
            *("difference", "p_sentences", "p_seeds", "holm_sentences", "holm_seeds", "differs"),
        ]
    )
    for group in comparison.groups:
        for name, each in _quantities(group, sections).items():
            row = [group.label, name, len(each.values), each.mean, each.deviation, each.low, each.high, each.method]
            test = tested.get((group.label, name))
            p_values = [
                getattr(test, key, None) for key in ("sentences", "seeds", "adjusted_sentences", "adjusted_seeds")
            ]
            writer.writerow([*row, test and test.difference.mean, *p_values, test and test.differs])
    return file.getvalue()


def as_json(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return every number, and where it is from."""
    content = {
        "varied": comparison.varied,
        "baseline": comparison.baseline.label,
        "num_sentences": comparison.num_sentences,
        "groups": [
            {
                "label": group.label,
                "options": group.options,
                "runs": [str(outcome.report) for outcome in group.results],
                "seeds": group.seeds,
                "quantities": {name: dataclasses.asdict(each) for name, each in _quantities(group, sections).items()},
            }
            for group in comparison.groups
        ],
        "contrasts": [dataclasses.asdict(each) for each in comparison.contrasts] if "significance" in sections else [],
        "signatures": comparison.signatures,
        "test_signatures": comparison.test_signatures,
        "warnings": comparison.warnings,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[RunComparison, Sequence[str]], str]] = {
    "text": text,
    "markdown": markdown,
    "latex": latex,
    "csv": to_csv,
    "json": as_json,
}
SUFFIXES = {".txt": "text", ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}


def _quantities(group: RunGroup, sections: Sequence[str]) -> dict[str, SampleSummary]:
    """Return the quantities that belong to the sections."""
    section_of = {name: "length" if " " in name else "cost" if name in COSTS else "scores" for name in group.summaries}
    return {name: each for name, each in group.summaries.items() if section_of[name] in sections}


def _grid(table: Table, form: str) -> str:
    from tabulate import tabulate

    align = ["left", *["right"] * (len(table.header) - 1)]
    grid: str = tabulate(table.rows, headers=table.header, tablefmt=form, colalign=align, disable_numparse=True)
    # after the end of a row LaTeX would take brackets for the space to leave
    return re.sub(r"(?m)^( *)\[", r"\1{}[", grid) if form.startswith("latex") else grid


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
