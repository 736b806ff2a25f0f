"""compare.html: a comparison as one self-contained page."""

from collections.abc import Sequence

from nmt.compare import plots, sentences
from nmt.compare.comparison import Comparison
from nmt.compare.grouping import plain
from nmt.compare.tables import SCORES, Table, signatures, tables, verdict
from nmt.evaluation.report.html import escape, section, table
from nmt.evaluation.report.html_page import document, own


def page(found: Comparison, sections: Sequence[str], num_sentences: int = sentences.NUM) -> str:
    """The page as text.

    Args:
        sections: keys of `nmt.compare.tables.SECTIONS`; curves, sentences and options are always there.
        num_sentences: shown with the attention of every group; 0 for none.

    Raises:
        ValueError: the alignments of a report are damaged.
    """
    groups: dict[str, list[Table]] = {}
    for each in tables(found, sections):
        groups.setdefault(each.section, []).append(each)
    made = {name: _tables(own_tables) for name, own_tables in groups.items()}
    bands = "Means over seeds; bands reach from the lowest to the highest seed. Point at a mark to read it."
    whiskers = "Marks are means over seeds, the lines through them reach from the lowest to the highest."
    parts = {
        "Summary": section("Summary", _warnings(found) + _verdicts(found) + plots.legend(found)),
        "Scores": section("Scores", made.get("scores", "") + made.get("significance", "")),
        "Training": section("Training", plots.curves(found), bands),
        "Cost": section("Cost", plots.against_cost(found) + made["cost"], whiskers) if "cost" in made else "",
        "Length": section("Length", plots.by_length(found) + made["length"], bands) if "length" in made else "",
        "Sentences": section("Sentences", sentences.section(found, num_sentences)),
        "Options": section("Options", _options(found) + _runs(found)),
    }
    num_runs = sum(len(group.outcomes) for group in found.groups)
    title = f"{num_runs} runs in {len(found.groups)} group{'s' * (len(found.groups) > 1)}"
    about = f'<p class="soft">on {found.num_sentences:,} sentences; baseline: {escape(found.baseline.label)}</p>'
    styles = own("page.css") + own("compare.css", package="nmt.compare")
    script = own("matrix.js") + own("compare.js", package="nmt.compare")
    return document(title, "comparison", about, parts, styles=styles, script=script)


def _warnings(found: Comparison) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in found.warnings)
    return f'<div class="card warnings"><h3>Warnings</h3><ul>{items}</ul></div>' if items else ""


def _verdicts(found: Comparison) -> str:
    """What the tests say of each metric, in a sentence."""
    lines = []
    for metric in dict.fromkeys(each.metric for each in found.contrasts):
        named: dict[str, list[str]] = {}
        for each in sorted(found.contrasts, key=lambda each: not each.differs):
            if each.metric == metric:
                named.setdefault(verdict(each), []).append(f"{each.group} ({each.difference.mean:+.2f})")
        said = "; ".join(f"{what}: {', '.join(groups)}" for what, groups in named.items())
        lines.append(f"<li>{escape(SCORES[metric])}: {escape(said)}</li>")
    if not lines:
        return ""
    return f"<p>Against {escape(found.baseline.label)}:</p><ul>{''.join(lines)}</ul>"


def _tables(made: Sequence[Table]) -> str:
    return "".join(
        f'<p class="soft small">{escape(each.title)}</p>'
        + table(
            escape(each.title.partition(":")[0]),
            [escape(head) for head in each.header],
            [[escape(cell) for cell in row] for row in each.rows],
        )
        for each in made
    )


def _options(found: Comparison) -> str:
    """The options that differ, by group, and the signatures."""
    heads = ["option", *(escape(group.label) for group in found.groups)]
    rows = [
        [f"<code>{escape(option)}</code>", *(escape(plain(group.options[option])) for group in found.groups)]
        for option in found.varied
    ]
    shown = table("Options that differ", heads, rows) if rows else "<p>Only seeds.</p>"
    lines = "".join(f"<li><code>{escape(line)}</code></li>" for line in signatures(found))
    return f"{shown}<h3>Signatures</h3><ul>{lines}</ul>"


def _runs(found: Comparison) -> str:
    rows = [
        [escape(group.label), str(outcome.seed), f"<code>{escape(str(outcome.report))}</code>", escape(outcome.version)]
        for group in found.groups
        for outcome in group.outcomes
    ]
    shown = table("Runs", ["group", "seed", "report", "version"], rows)
    return f"<details><summary>{len(rows)} runs</summary>{shown}</details>"
