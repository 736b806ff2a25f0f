"""A comparison as tables, and the tables as text, Markdown, LaTeX, CSV and JSON."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nmt.compare.comparison import Comparison, Contrast
from nmt.compare.grouping import plain
from nmt.compare.statistics import Summary

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


def tables(found: Comparison, sections: Sequence[str] = SECTIONS) -> list[Table]:
    """The tables of the sections wanted, those that have anything."""
    made: list[Table] = []
    if "scores" in sections:
        made.append(_scores(found))
    if "significance" in sections and found.contrasts:
        made.append(_significance(found))
    if "length" in sections:
        made += [_by_length(found, name)._replace(section="length") for name in ("bleu", "aer", "entropy")]
    if "cost" in sections:
        title = "cost, means over seeds; time and memory depend on machine and load"
        made.append(_plain_table(found, COSTS, title, _cost)._replace(section="cost"))
    return [table for table in made if len(table.header) > 1 and table.rows]


def _scores(found: Comparison) -> Table:
    methods = {each.method for group in found.groups for name, each in group.summaries.items() if name in SCORES}
    known = sorted(method for method in methods if not method.startswith("none"))
    title = f"scores on {found.num_sentences} sentences: mean ± standard deviation over seeds"
    title += f" [95 % interval: {'; '.join(known)}]" if known else ""
    table = _plain_table(found, SCORES, title, _interval)
    rows = [[row[0], str(len(group.outcomes)), *row[1:]] for row, group in zip(table.rows, found.groups, strict=True)]
    return table._replace(header=["", "seeds", *table.header[1:]], rows=rows)


def _plain_table(found: Comparison, names: dict[str, str], title: str, cell: Callable[[Summary], str]) -> Table:
    there = [name for name in names if any(name in group.summaries for group in found.groups)]
    rows = [
        [group.label, *(cell(group.summaries[name]) if name in group.summaries else UNKNOWN for name in there)]
        for group in found.groups
    ]
    return Table(title, ["", *(names[name] for name in there)], rows)


def _by_length(found: Comparison, name: str) -> Table:
    names = dict.fromkeys(each for group in found.groups for each in group.summaries if each.startswith(f"{name} "))
    ordered = sorted(names, key=lambda each: int(each.split(" ")[1].partition("-")[0]))
    title = f"{SCORES[name]} by words of the source, means over seeds"
    digits = 3 if name == "entropy" else 2
    return _plain_table(
        found, {each: each.partition(" ")[2] for each in ordered}, title, lambda summary: f"{summary.mean:.{digits}f}"
    )


def _significance(found: Comparison) -> Table:
    rows = []
    for each in found.contrasts:
        rows.append(
            [
                f"{SCORES[each.metric]}: {each.group}",
                _interval(each.difference, sign="+"),
                ", ".join(_p(p) for p in each.per_seed) or UNKNOWN,
                *(_p(p) for p in (each.sentences, each.seeds, each.adjusted_sentences, each.adjusted_seeds)),
                verdict(each),
            ]
        )
    title = (
        f"against {found.baseline.label}. p by seed: sacrebleu's paired test of two models; sentences: those combined "
        "(Stouffer, dependent tests); seeds: paired t-test over seeds; Holm: corrected for the number of groups; "
        "differs: both below 0.05 (AER: that over seeds, it has no other)"
    )
    header = ["", "difference", "p by seed", "sentences", "seeds", "Holm sentences", "Holm seeds", ""]
    return Table(title, header, rows, "significance")


def verdict(contrast: Contrast) -> str:
    """What its tests say, in words."""
    untested = "one pair of models" if contrast.seeds is None else "not tested over sentences"
    return {None: untested, False: "not told apart", True: "differs"}[contrast.differs]


def _interval(summary: Summary, sign: str = "") -> str:
    said = f"{summary.mean:{sign}.2f}"
    said += f" ± {summary.deviation:.2f}" if summary.deviation is not None else ""
    if summary.low is None or summary.high is None:
        return said
    return f"{said} [{summary.low:.2f}, {summary.high:.2f}]"


def _cost(summary: Summary) -> str:
    return f"{summary.mean:,.0f}" if summary.mean >= 100 else f"{summary.mean:.2f}"


def _p(value: float | None) -> str:
    return UNKNOWN if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _varied(found: Comparison) -> list[str]:
    """What differs between the groups, one line for each option."""
    lines = [f"{option}: {' | '.join(map(plain, values))}" for option, values in found.varied.items()]
    return lines or ["nothing but the seed"]


def signatures(found: Comparison) -> list[str]:
    """Of the scores and of the tests, one line for each metric."""
    return [f"{SCORES.get(name, name)}: {signature}" for name, signature in found.signatures.items()] + [
        f"{SCORES.get(name, name)}, paired: {signature}" for name, signature in found.test_signatures.items()
    ]


def text(found: Comparison, sections: Sequence[str]) -> str:
    """For a terminal."""
    parts = ["\n".join(["varied", *(f"  {line}" for line in _varied(found))])]
    parts += [f"{table.title}\n\n{_grid(table, 'simple')}" for table in tables(found, sections)]
    parts.append("\n".join(["signatures", *(f"  {line}" for line in signatures(found))]))
    if found.warnings:
        parts.append("\n".join(["warnings", *(f"  {line}" for line in found.warnings)]))
    return "\n\n".join(parts) + "\n"


def markdown(found: Comparison, sections: Sequence[str]) -> str:
    """For a document."""
    parts = ["Varied: " + "; ".join(f"`{line}`" for line in _varied(found)) + "."]
    parts += [f"{_capital(table.title)}:\n\n{_grid(table, 'github')}" for table in tables(found, sections)]
    parts.append("Signatures: " + "; ".join(f"`{line}`" for line in signatures(found)) + ".")
    if found.warnings:
        parts.append("Warnings:\n\n" + "\n".join(f"* {line}" for line in found.warnings))
    return "\n\n".join(parts) + "\n"


def latex(found: Comparison, sections: Sequence[str]) -> str:
    """For a paper that uses the package booktabs; what surrounds the tables stands in comments."""
    lines = [*(f"varied: {line}" for line in _varied(found)), *signatures(found)]
    lines += [f"warning: {line}" for line in found.warnings]
    parts = ["\n".join(f"% {line}" for line in lines)]
    parts += [f"% {table.title}\n{_grid(table, 'latex_booktabs')}" for table in tables(found, sections)]
    return "\n\n".join(parts).replace("±", r"$\pm$").replace(UNKNOWN, "--") + "\n"


def comma_separated(found: Comparison, sections: Sequence[str]) -> str:
    """One line for each group and quantity, with every number in full."""
    contrasts = {(each.group, each.metric): each for each in found.contrasts}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("group", "quantity", "seeds", "mean", "deviation", "low", "high", "interval"),
            *("difference", "p_sentences", "p_seeds", "holm_sentences", "holm_seeds", "differs"),
        ]
    )
    for group in found.groups:
        for name, own in group.summaries.items():
            if not _wanted(name, sections):
                continue
            each = contrasts.get((group.label, name)) if "significance" in sections else None
            tested: list[Any] = [""] * 6
            if each is not None:
                tested = [each.difference.mean, each.sentences, each.seeds]
                tested += [each.adjusted_sentences, each.adjusted_seeds, each.differs]
            row = [group.label, name, len(own.values), own.mean, own.deviation, own.low, own.high, own.method, *tested]
            writer.writerow(["" if value is None else value for value in row])
    return file.getvalue()


def as_json(found: Comparison, sections: Sequence[str]) -> str:
    """Every number, and where it is from."""
    content = {
        "varied": found.varied,
        "baseline": found.baseline.label,
        "num_sentences": found.num_sentences,
        "groups": [
            {
                "label": group.label,
                "options": group.options,
                "runs": [str(outcome.report) for outcome in group.outcomes],
                "seeds": group.seeds,
                "quantities": {
                    name: dataclasses.asdict(own) for name, own in group.summaries.items() if _wanted(name, sections)
                },
            }
            for group in found.groups
        ],
        "contrasts": [dataclasses.asdict(each) for each in found.contrasts] if "significance" in sections else [],
        "signatures": found.signatures,
        "test_signatures": found.test_signatures,
        "warnings": found.warnings,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Comparison, Sequence[str]], str]] = {
    "text": text,
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "json": as_json,
}
SUFFIXES = {".txt": "text", ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}


def _wanted(name: str, sections: Sequence[str]) -> bool:
    section = "length" if " " in name else "cost" if name in COSTS else "scores"
    return section in sections


def _grid(table: Table, form: str) -> str:
    from tabulate import tabulate

    align = ["left", *["right"] * (len(table.header) - 1)]
    grid: str = tabulate(table.rows, headers=table.header, tablefmt=form, colalign=align, disable_numparse=True)
    # after the end of a row LaTeX would take brackets for the space to leave
    return re.sub(r"(?m)^( *)\[", r"\1{}[", grid) if form.startswith("latex") else grid


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
