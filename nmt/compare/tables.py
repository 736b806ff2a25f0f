"""Tables of a comparison, as text, Markdown, LaTeX, CSV and JSON."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nmt.cli.config_groups import format_override
from nmt.compare.comparison import GroupContrast, RunComparison
from nmt.compare.grouping import RunGroup
from nmt.compare.statistics import MIN_SEEDS, TOO_FEW, SampleSummary
from nmt.evaluation.report.html import printable_line

SCORES = {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++", "ter": "TER", "aer": "AER %", "entropy": "entropy"}
SCORES |= {"span_exact": "exact spans %", "span_f1": "span F1"}
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
_P_VALUES = ("sentences", "seeds", "adjusted_sentences", "adjusted_seeds")


class Table(NamedTuple):
    """A heading, column names and rows, whose first column is text. section: one of `SECTIONS`."""

    title: str
    header: list[str]
    rows: list[list[str]]
    section: str


def tables(comparison: RunComparison, sections: Sequence[str] = SECTIONS) -> list[Table]:
    """Return the tables of some sections, without empty ones."""
    cost = "cost, means over seeds; time and memory depend on machine and load"
    candidates = [
        _scores(comparison),
        _significance(comparison),
        *(_by_length(comparison, name) for name in ("bleu", "aer", "entropy")),
        _table(comparison, COSTS, cost, _cost, "cost"),
    ]
    return [table for table in candidates if table.section in sections and len(table.header) > 1 and table.rows]


def _table(
    comparison: RunComparison, names: dict[str, str], title: str, cell: Callable[[SampleSummary], str], section: str
) -> Table:
    """Return a row for each group and a column for each quantity that any group has."""
    columns = [name for name in names if any(name in group.summaries for group in comparison.groups)]
    rows = [
        [group.label, *(cell(group.summaries[name]) if name in group.summaries else UNKNOWN for name in columns)]
        for group in comparison.groups
    ]
    return Table(title, ["", *(names[name] for name in columns)], rows, section)


def _scores(comparison: RunComparison) -> Table:
    names = SCORES | {name: name for name in comparison.signatures if name not in SCORES}
    scores = [[s for name, s in group.summaries.items() if name in names] for group in comparison.groups]
    intervals = interval_methods([summary for summaries in scores for summary in summaries])
    title = f"scores on {comparison.num_sentences} sentences: mean ± standard deviation over seeds"
    title += f" [95 % interval: {intervals}]" if intervals else ""
    if parts := comparison.baseline.results[0].parts:
        title += f"; means over the directions {', '.join(parts)}"
    table = _table(comparison, names, title, _interval, "scores")
    for row, group, summaries in zip(table.rows, comparison.groups, scores, strict=True):
        has_interval = any(summary.interval for summary in summaries)
        row.append(f"{len(group.results)}" if has_interval else f"{len(group.results)} ({TOO_FEW})")
    table.header.append("seeds")
    return table


def interval_methods(summaries: Sequence[SampleSummary]) -> str:
    """Return how the intervals that are shown were computed; "" for none."""
    return "; ".join(sorted({summary.method for summary in summaries if summary.interval}))


def _by_length(comparison: RunComparison, metric: str) -> Table:
    names = dict.fromkeys(name for group in comparison.groups for name in group.summaries)
    buckets = {name: name.partition(" ")[2] for name in names if name.startswith(f"{metric} ")}
    ordered = dict(sorted(buckets.items(), key=lambda item: int(item[1].partition("-")[0])))
    title = f"{SCORES[metric]} by words of the source, means over seeds"
    digits = 3 if metric == "entropy" else 2
    return _table(comparison, ordered, title, lambda summary: f"{summary.mean:.{digits}f}", "length")


def _significance(comparison: RunComparison) -> Table:
    means = {(group.label, name): f"{s.mean:.2f}" for group in comparison.groups for name, s in group.summaries.items()}
    parts = comparison.baseline.results[0].parts
    titles = {f"{name}@{part}": f"{title} {part}" for name, title in SCORES.items() for part in parts}
    titles |= {name: f"{title}{' mean' * bool(parts)}" for name, title in SCORES.items()}
    shown = ["baseline", "score"] * bool(parts)
    rows = [
        [
            f"{titles.get(contrast.metric, contrast.metric)}: {contrast.group}",
            *(means[label, contrast.metric] for label in [comparison.baseline.label, contrast.group][: len(shown)]),
            _interval(contrast.difference, sign="+"),
            ", ".join(map(_p, contrast.per_seed)) or UNKNOWN,
            *(_p(getattr(contrast, name)) for name in _P_VALUES),
            verdict(contrast),
        ]
        for contrast in comparison.contrasts
    ]
    title = (
        f"against {comparison.baseline.label}. difference: mean ± standard deviation over pairs of runs; p by seed: "
        "sacrebleu's paired test of two models; sentences: those combined (Stouffer, dependent tests); seeds: "
        "paired t-test over seeds; Holm: corrected for the number of groups; differs: both below 0.05 (AER: only that "
        "over seeds)"
    )
    if not all(contrast.difference.interval for contrast in comparison.contrasts):
        title += f"; differences of fewer than {MIN_SEEDS} pairs: {TOO_FEW}"
    header = ["", *shown, "difference", "p by seed", "sentences", "seeds", "Holm sentences", "Holm seeds", ""]
    return Table(title, header, rows, "significance")


def verdict(contrast: GroupContrast) -> str:
    """Return the result of a contrast's tests in words."""
    untested = "one pair of models" if contrast.seeds is None else "not tested over sentences"
    return {None: untested, False: "not told apart", True: "differs"}[contrast.differs]


def _interval(summary: SampleSummary, sign: str = "") -> str:
    text = f"{summary.mean:{sign}.2f}"
    text += f" ± {summary.deviation:.2f}" if summary.deviation is not None else ""
    return f"{text} [{summary.interval[0]:.2f}, {summary.interval[1]:.2f}]" if summary.interval else text


def _cost(summary: SampleSummary) -> str:
    return f"{summary.mean:,.0f}" if summary.mean >= 100 else f"{summary.mean:.2f}"


def _p(value: float | None) -> str:
    return UNKNOWN if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _varied(comparison: RunComparison) -> list[str]:
    """Return the options that differ between the groups with their values, one line for each."""
    lines = [f"{option}: {' | '.join(map(format_override, values))}" for option, values in comparison.varied.items()]
    return list(map(printable_line, lines)) or ["nothing but the seed"]


def signatures(comparison: RunComparison) -> list[str]:
    """Return the signatures of the scores and of the tests, one line for each metric."""
    return [
        printable_line(f"{SCORES.get(name, name)}{kind}: {signature}")
        for kind, by_metric in (("", comparison.signatures), (", paired", comparison.test_signatures))
        for name, signature in by_metric.items()
    ]


def to_text(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return a comparison for a terminal."""

    def block(heading: str, lines: Sequence[str]) -> str:
        return "\n".join([heading, *(f"  {line}" for line in lines)])

    parts = [block("varied", _varied(comparison))]
    parts += [f"{table.title}\n\n{_grid(table, 'simple')}" for table in tables(comparison, sections)]
    parts.append(block("signatures", signatures(comparison)))
    if comparison.warnings:
        parts.append(block("warnings", comparison.warnings))
    return "\n\n".join(parts) + "\n"


def to_markdown(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return a comparison for a Markdown document."""
    parts = ["Varied: `" + "`; `".join(line.replace("`", "'") for line in _varied(comparison)) + "`."]
    for table in tables(comparison, sections):
        table = table._replace(rows=[list(map(_escape_markdown, row)) for row in table.rows])
        title = _escape_markdown(table.title)
        parts.append(f"{title[:1].upper()}{title[1:]}:\n\n{_grid(table, 'github')}")
    parts.append("Signatures: `" + "`; `".join(line.replace("`", "'") for line in signatures(comparison)) + "`.")
    if comparison.warnings:
        parts.append("Warnings:\n\n" + "\n".join(f"* {_escape_markdown(line)}" for line in comparison.warnings))
    return "\n\n".join(parts) + "\n"


def _escape_markdown(text: str) -> str:
    return re.sub(r"[\\`*<|]|(?<!\w)_|_(?!\w)|\](?=\()", r"\\\g<0>", text)


def to_latex(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return a comparison for a paper that uses the package booktabs; all but the tables is in comments."""
    lines = [*(f"varied: {line}" for line in _varied(comparison)), *signatures(comparison)]
    lines += [f"warning: {line}" for line in comparison.warnings]
    parts = ["\n".join(f"% {line}" for line in lines)]
    parts += [f"% {table.title}\n{_grid(table, 'latex_booktabs')}" for table in tables(comparison, sections)]
    text = re.sub(r"(?<![\w.-])-(?=\d)", "$-$", "\n\n".join(parts))
    return text.replace("±", r"$\pm$").replace(UNKNOWN, "--").replace("\ufffd", "?") + "\n"


def to_csv(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return one line for each group and quantity, with every number in full."""
    contrasts = {(c.group, c.metric): c for c in comparison.contrasts if "significance" in sections}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fields = ("mean", "deviation", "low", "high")
    tests = ("difference", "p_sentences", "p_seeds", "holm_sentences", "holm_seeds", "differs")
    writer.writerow(["group", "quantity", "seeds", *fields, "interval", *tests])
    for group in comparison.groups:
        for name, summary in _quantities(group, sections).items():
            row = [group.label, name, len(summary.values), *(getattr(summary, field) for field in fields)]
            contrast = contrasts.get((group.label, name))
            p_values = [getattr(contrast, key, None) for key in _P_VALUES]
            difference = contrast and contrast.difference.mean
            row += [summary.method, difference, *p_values, contrast and contrast.differs]
            writer.writerow([_no_formula(cell) if isinstance(cell, str) else cell for cell in row])
    return file.getvalue()


def _no_formula(text: str) -> str:
    """Return the text of a cell, after an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if re.match(r"[=+@-](?![\d.]+(e[+-]?\d+)?$)", text) else text


def to_json(comparison: RunComparison, sections: Sequence[str]) -> str:
    """Return every number in full, with the reports that it comes from."""
    contrasts = comparison.contrasts if "significance" in sections else []
    content = {
        "varied": comparison.varied,
        "baseline": comparison.baseline.label,
        "num_sentences": comparison.num_sentences,
        "groups": [
            {
                "label": group.label,
                "options": group.options,
                "runs": [str(result.report) for result in group.results],
                "seeds": group.seeds,
                "quantities": {name: dataclasses.asdict(s) for name, s in _quantities(group, sections).items()},
            }
            for group in comparison.groups
        ],
        "contrasts": [dataclasses.asdict(contrast) for contrast in contrasts],
        "signatures": comparison.signatures,
        "test_signatures": comparison.test_signatures,
        "warnings": comparison.warnings,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[RunComparison, Sequence[str]], str]] = {
    "text": to_text,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": to_csv,
    "json": to_json,
}
SUFFIXES = {".txt": "text", ".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}


def _quantities(group: RunGroup, sections: Sequence[str]) -> dict[str, SampleSummary]:
    """Return the quantities that belong to the sections."""
    section_of = {name: "length" if " " in name else "cost" if name in COSTS else "scores" for name in group.summaries}
    return {name: summary for name, summary in group.summaries.items() if section_of[name] in sections}


def _grid(table: Table, form: str) -> str:
    from tabulate import tabulate

    align = ["left", *["right"] * (len(table.header) - 1)]
    grid: str = tabulate(table.rows, headers=table.header, tablefmt=form, colalign=align, disable_numparse=True)
    # after the end of a row LaTeX would take brackets for the space to leave, and a star for a row not to break after
    return re.sub(r"(?m)^( *)([\[*])", r"\1{}\2", grid) if form.startswith("latex") else grid
