"""compare.html: a comparison as one self-contained page."""

from collections.abc import Sequence

from nmt.cli.config_groups import format_override
from nmt.compare import plots, sentences
from nmt.compare.comparison import RunComparison
from nmt.compare.tables import SCORES, SECTIONS, Table, signatures, tables, verdict
from nmt.evaluation.report.html import html_document, macros, printable_line, read_resource, typeset

MAX_OPTIONS, MAX_CHARS = 2, 80
"""Varied options in the title, and characters of the values of each; longer ones are only counted."""


def page(comparison: RunComparison, sections: Sequence[str], num_sentences: int = sentences.NUM_SENTENCES) -> str:
    """Return the page as HTML.

    Args:
        comparison: its content.
        sections: keys of `nmt.compare.tables.SECTIONS`; curves, sentences and options are always there.
        num_sentences: shown with the attention of every group; 0 for none.

    Raises:
        ValueError: the alignments of a report are damaged.
    """
    groups: dict[str, list[Table]] = {name: [] for name in SECTIONS}
    for table in tables(comparison, sections):
        header, rows = list(map(typeset, table.header)), [[row[0], *map(typeset, row[1:])] for row in table.rows]
        groups[table.section].append(table._replace(header=header, rows=rows))
    html = macros("compare/templates/compare.html")
    bands = "Means over seeds; bands reach from the lowest to the highest seed. Point at a mark to read it."
    whiskers = "Marks are means over seeds, the lines through them reach from the lowest to the highest."
    cost = plots.score_vs_cost(comparison) + html.tables(groups["cost"]) if groups["cost"] else ""
    length = plots.by_length(comparison) + html.tables(groups["length"]) if groups["length"] else ""
    parts = {
        "Summary": (html.summary(comparison, _verdicts(comparison), plots.style, plots.dot_plots(comparison)), ""),
        "Scores": (html.tables(groups["scores"]) + html.p_values(groups["significance"]), ""),
        "Sentences": (sentences.section(comparison, num_sentences), ""),
        "Length": (length, bands),
        "Training": (plots.curves(comparison), bands),
        "Cost": (cost, whiskers),
        "Options": (html.options(comparison, signatures(comparison), format_override), ""),
    }
    about = f"on {comparison.num_sentences:,} sentences; baseline: {comparison.baseline.label}"
    styles, script = (read_resource(name, "nmt.compare") for name in ("compare.css", "compare.js"))
    return html_document(_title(comparison), "comparison", about, parts, styles=styles, script=script)


def _title(comparison: RunComparison) -> str:
    """Return what was varied, and the number of runs and of seeds in a group."""
    parts = []
    for option, values in list(comparison.varied.items())[:MAX_OPTIONS]:
        listed = ", ".join(values)
        parts.append(f"{option}: {listed if len(listed) <= MAX_CHARS else f'{len(values)} values'}")
    if further := len(comparison.varied) - len(parts):
        parts.append(f"{further} more option{'s' * (further > 1)}")
    sizes = sorted({len(group.results) for group in comparison.groups})
    num_runs = sum(len(group.results) for group in comparison.groups)
    seeds = f"{' to '.join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))} seed{'s' * (sizes[-1] > 1)}"
    return printable_line(f"{'; '.join(parts) or 'only seeds'} — {num_runs} runs, {seeds}")


def _verdicts(comparison: RunComparison) -> list[str]:
    """Return a summary of the tests for each metric, significant differences first."""
    contrasts = [contrast for contrast in comparison.contrasts if "@" not in contrast.metric]
    lines: dict[str, dict[str, list[str]]] = {contrast.metric: {} for contrast in contrasts}
    for contrast in sorted(contrasts, key=lambda contrast: not contrast.differs):
        text = f"{contrast.group} ({typeset(f'{contrast.difference.mean:+.2f}')})"
        lines[contrast.metric].setdefault(verdict(contrast), []).append(text)
    return [
        f"{SCORES.get(metric, metric)}: "
        + "; ".join(f"{result}: {', '.join(groups)}" for result, groups in by_verdict.items())
        for metric, by_verdict in lines.items()
    ]
