"""What a test set was worth: scores with signatures and intervals, comparisons, rates, and scores of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nmt.evaluation.report.charts import bars
from nmt.evaluation.report.html import escape, number, table

NAMES = {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++", "ter": "TER (lower is better)"}
PARTINGS = {
    "length": "BLEU by words of the source",
    "rare_words": "BLEU by how often the rarest source word was seen in training",
    "numbers": "BLEU by numbers in the source",
    "names": "BLEU by names in the source",
}
RATES = {
    "length_ratio": "tokens of all hypotheses over those of all references",
    "exact_match": "equal to the reference",
    "empty": "nothing, where the reference has something",
    "under_translated": "much shorter than the reference",
    "over_translated": "much longer than the reference",
    "repetition": "repeats itself more often than the reference",
}


def cards(scores: Mapping[str, Any]) -> str:
    """One card for each metric, for scores of other programs, and for the alignment of the references.

    Args:
        scores: what scores.json holds (`nmt.evaluation.results.Evaluation.primitive`).
    """
    shown = []
    intervals = scores.get("intervals", {})
    for name, result in metrics(scores).items():
        interval = intervals.get(name)
        between = ""
        if interval is not None:
            mean, half = interval["mean"], interval["half_width"]
            signature = escape(interval["signature"])
            between = (
                f'<span class="soft small" title="{signature}">95 % interval: {mean:.2f} ± {half:.2f}, '
                f"{mean - half:.2f} to {mean + half:.2f}</span>"
            )
        shown.append(_card(_metric(name), f"{result['score']:.2f}", between, result["signature"]))
    for name, result in scores.get("outside", {}).items():
        shown.append(_card(escape(name), f"{result['score']:.4f}", "", result["signature"] or "from a file"))
    found = scores.get("alignment")
    if found is not None:
        parts = f"precision {found['precision']:.3f}, recall {found['recall']:.3f}, F1 {found['f1']:.3f}"
        how = f"read from {found['read_from']}; chosen by {found['chosen_by']}" if "read_from" in found else ""
        below = f'<span class="soft small">lower is better; {parts}</span>'
        shown.append(_card("Alignment error rate of the references", f"{100 * found['aer']:.1f} %", below, how))
    return f'<div class="cards">{"".join(shown)}</div>' if shown else ""


def metrics(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of scores.json that are a metric's."""
    return {
        name: value
        for name, value in scores.items()
        if isinstance(value, Mapping) and isinstance(value.get("signature"), str)
    }


def comparisons(scores: Mapping[str, Any]) -> str:
    """Each system beside the baseline."""
    rows = []
    for name, found in scores.get("significance", {}).items():
        systems = list(found["systems"].items())
        first = systems[0][1]["score"]
        for system, row in systems:
            interval = "–" if row["mean"] is None else f"{row['mean']:.2f} ± {row['half_width']:.2f}"
            p_value = "baseline" if row["p_value"] is None else f"{row['p_value']:.4f}"
            rows.append(
                [
                    _metric(name),
                    escape(system),
                    f"{row['score']:.2f}",
                    interval,
                    "" if row["p_value"] is None else f"{row['score'] - first:+.2f}".replace("-", "−"),
                    p_value,
                    f"<code>{escape(found['signature'])}</code>",
                ]
            )
    heads = ["metric", "system", "score", "95 % interval", "difference", "p", "signature"]
    return f"<h3>Beside other systems</h3>{table('Beside other systems', heads, rows)}" if rows else ""


def rates(scores: Mapping[str, Any]) -> str:
    """Length ratio and rates of known faults."""
    found = scores.get("rates")
    if not found:
        return ""
    rows = []
    for name, value in found.items():
        shown = f"{value:.3f}" if name == "length_ratio" else f"{100 * value:.1f} %"
        rows.append([escape(name.replace("_", " ")), shown, escape(RATES.get(name, ""))])
    return f"<h3>Rates</h3>{table('Rates', ['of all sentences', '', 'what it is'], rows)}"


def buckets(scores: Mapping[str, Any]) -> str:
    """A chart of bars for each way of parting the test set."""
    drawn = []
    for parting, parts in scores.get("buckets", {}).items():
        rows = [
            (_bucket(name), part["bleu"], f"in {part['num_sentences']:,} sentence{'s' * (part['num_sentences'] != 1)}")
            for name, part in parts.items()
        ]
        drawn.append(bars(PARTINGS.get(parting, parting), rows))
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def quantities(history: Sequence[Mapping[str, Any]]) -> str:
    """Gates, temperatures and divisors at the last validation, one row for each attention that has some."""
    found = next((row["quantities"] for row in reversed(history) if row.get("quantities")), None)
    if found is None:
        return ""
    rows = [[escape(name), "  ".join(number(value) for value in values)] for name, values in found.items()]
    return table("Learned by the attention", ["quantity", "heads, at the last validation"], rows)


def _bucket(name: str) -> str:
    low, dash, high = name.partition("-")
    return f"{low} or more" if dash and not high else name.replace("-", "–")


def _metric(name: str) -> str:
    return escape(NAMES.get(name, name))


def _card(name: str, value: str, below: str, signature: str) -> str:
    return f'<div class="card">{name}<b>{value}</b>{below}<code>{escape(signature)}</code></div>'
