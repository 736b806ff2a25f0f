"""compare.html: a comparison as one self-contained page."""

from collections.abc import Sequence

from nmt.compare import plots, sentences
from nmt.compare.comparison import RunComparison
from nmt.compare.grouping import format_value
from nmt.compare.tables import SCORES, Table, signatures, tables, verdict
from nmt.evaluation.report.html import macros
from nmt.evaluation.report.html_page import html_document, read_resource


def page(comparison: RunComparison, sections: Sequence[str], num_sentences: int = sentences.NUM_SENTENCES) -> str:
    """Return the page as text.

    Args:
        comparison: what it shows.
        sections: keys of `nmt.compare.tables.SECTIONS`; curves, sentences and options are always there.
        num_sentences: shown with the attention of every group; 0 for none.

    Raises:
        ValueError: the alignments of a report are damaged.
    """
    groups: dict[str, list[Table]] = {name: [] for name in ("scores", "significance", "cost", "length")}
    for each in tables(comparison, sections):
        groups[each.section].append(each)
    made = macros("compare/templates/compare.html")
    bands = "Means over seeds; bands reach from the lowest to the highest seed. Point at a mark to read it."
    whiskers = "Marks are means over seeds, the lines through them reach from the lowest to the highest."
    cost = plots.score_vs_cost(comparison) + made.tables(groups["cost"]) if groups["cost"] else ""
    length = plots.by_length(comparison) + made.tables(groups["length"]) if groups["length"] else ""
    parts = {
        "Summary": (made.summary(comparison, _verdicts(comparison), plots.style), ""),
        "Scores": (made.tables(groups["scores"] + groups["significance"]), ""),
        "Training": (plots.curves(comparison), bands),
        "Cost": (cost, whiskers),
        "Length": (length, bands),
        "Sentences": (sentences.section(comparison, num_sentences), ""),
        "Options": (made.options(comparison, signatures(comparison), format_value), ""),
    }
    num_runs = sum(len(group.results) for group in comparison.groups)
    title = f"{num_runs} runs in {len(comparison.groups)} group{'s' * (len(comparison.groups) > 1)}"
    about = f"on {comparison.num_sentences:,} sentences; baseline: {comparison.baseline.label}"
    styles = read_resource("page.css") + read_resource("compare.css", package="nmt.compare")
    script = read_resource("matrix.js") + read_resource("compare.js", package="nmt.compare")
    return html_document(title, "comparison", about, parts, styles=styles, script=script)


def _verdicts(comparison: RunComparison) -> list[str]:
    """Return what the tests say of each metric, in a sentence."""
    lines = []
    for metric in dict.fromkeys(each.metric for each in comparison.contrasts):
        named: dict[str, list[str]] = {}
        for each in sorted(comparison.contrasts, key=lambda each: not each.differs):
            if each.metric == metric:
                named.setdefault(verdict(each), []).append(f"{each.group} ({each.difference.mean:+.2f})")
        lines.append(f"{SCORES[metric]}: " + "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items()))
    return lines
