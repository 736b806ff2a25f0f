"""Charts of a comparison as inline SVG: every seed's scores, learning curves, score against cost and by source length.

Every group has a color, a dash and a mark, so that groups can be distinguished without color. Alternative charts are
all in the page; its script shows the selected one.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nmt.compare.comparison import RunComparison
from nmt.compare.grouping import RunGroup
from nmt.compare.statistics import TOO_FEW
from nmt.compare.tables import COSTS, SCORES, interval_methods
from nmt.evaluation.report.charts import Axes, PlotElement, figure, path, tick_label
from nmt.evaluation.report.html import macros, typeset

STYLES = 8
"""Number of distinct styles; further groups reuse them."""
MAX_MARKS = 40
"""Points of a line that are marked; of a longer line only the last one is."""
MARKS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    "M-3.6 -3.6H3.6V3.6H-3.6Z",
    "M0 -5L4.8 3.6H-4.8Z",
    "M0 -5.2L5.2 0L0 5.2L-5.2 0Z",
    "M0 5L4.8 -3.6H-4.8Z",
    "M-1.5 -4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z",
    "M0 -5.2L1.4 -1.6H5L2.2 0.8L3.3 4.6L0 2.4L-3.3 4.6L-2.2 0.8L-5 -1.6H-1.4Z",
    "M-5 -2.5H5V2.5H-5Z",
)
CURVES = {"bleu": "validation BLEU", "perplexity": "validation perplexity", "aer": "validation AER %"}
AXES = {"updates": "updates", "minutes": "minutes of training"}
COST_METRICS = ("bleu", "chrf", "aer")
"""Scores that are drawn against costs."""
_BETTER = {**dict.fromkeys(("bleu", "chrf", "chrf++"), "higher"), **dict.fromkeys(("ter", "aer"), "lower")}
_MILLIONS = ("parameters", "flops")
_CHARACTER_WIDTH = 6.6  # in units of the viewBox


class DataPoint(NamedTuple):
    """A point of a line: x, mean, lowest and highest value over the seeds, and its description."""

    x: float
    mean: float
    low: float
    high: float
    description: str


_Lines = Sequence[list[DataPoint]]


def style(group: int) -> tuple[str, str]:
    """Return the class of a group's lines and the shape of its marks."""
    return f"g{group % STYLES}", MARKS[group % STYLES]


def dot_plots(comparison: RunComparison) -> str:
    """Return a chart of each score, the main one first: a row for each group with its mean, interval and seeds."""
    known = {name for group in comparison.groups for name in group.summaries}
    scores = {name: SCORES.get(name, name) for name in (*comparison.signatures, *SCORES) if name in known}
    return _charts(
        [_dot_plot(comparison, name, title) for name, title in scores.items()], {"metric": ("Score", scores)}
    )


def _dot_plot(comparison: RunComparison, metric: str, name: str) -> str:
    rows = [
        (i, group, group.summaries[metric]) for i, group in enumerate(comparison.groups) if metric in group.summaries
    ]
    summaries = [summary for *_, summary in rows]
    axes = Axes([(x, 0.0) for each in summaries for x in (*each.values, *(each.interval or ()))], margin=0.06)
    title, methods = name + f" ({_BETTER.get(metric)} is better)" * (metric in _BETTER), interval_methods(summaries)
    return macros("compare/templates/compare.html").dot_plot(metric, title, axes, rows, style, methods, TOO_FEW)


def curves(comparison: RunComparison) -> str:
    """Return charts of the validation results over updates and over time; "" when there are none."""
    figures = []
    for axis, unit in AXES.items():
        for name, title in CURVES.items():
            lines = [_learning_curve(group, name, axis) for group in comparison.groups]
            figures.append(_figure(f"{title} over {unit}", lines, {"data-curve": name, "data-axis": axis}))
    return _charts(figures, {"axis": ("Over", AXES)})


def _learning_curve(group: RunGroup, name: str, axis: str) -> list[DataPoint]:
    """Return a point for each update at which every seed was validated."""
    runs = [{v.update: v for v in result.validations if name in v.values} for result in group.results]
    points = []
    for update in sorted(set.intersection(*map(set, runs))):
        validations = [run[update] for run in runs]
        values = [validation.values[name] for validation in validations]
        x, position = float(update), f"update {update:,}"
        if axis == "minutes":
            seconds = [validation.seconds for validation in validations if validation.seconds is not None]
            if len(seconds) < len(validations):
                continue
            x = statistics.fmean(seconds) / 60
            position = f"{x:.2f} minutes, {position}"
        points.append(_point(x, values, f"{group.label}: {statistics.fmean(values):.4g}", position))
    return points


def by_length(comparison: RunComparison) -> str:
    """Return charts of BLEU and alignment error by words of the source; "" when there are none."""
    sizes = comparison.groups[0].results[0].buckets
    figures = []
    for metric in ("bleu", "aer"):
        summaries = [
            {name.partition(" ")[2]: value for name, value in group.summaries.items() if name.startswith(f"{metric} ")}
            for group in comparison.groups
        ]
        buckets = sorted(set().union(*summaries), key=lambda bucket: int(bucket.partition("-")[0]))
        names = {bucket: typeset(bucket) for bucket in buckets}
        lines = [
            [
                _point(i, by_bucket[bucket].values, f"{group.label}: {by_bucket[bucket].mean:.2f}", f"{name} words")
                for i, (bucket, name) in enumerate(names.items())
                if bucket in by_bucket
            ]
            for group, by_bucket in zip(comparison.groups, summaries, strict=True)
        ]
        counts = ", ".join(f"{name}: {sizes[bucket]}" for bucket, name in names.items() if bucket in sizes)
        title, caption = f"{SCORES[metric]} by words of the source", f"Sentences: {counts}." if counts else ""
        figures.append(_figure(title, lines, {"data-length": metric}, list(names.values()), caption))
    return _charts(figures)


def score_vs_cost(comparison: RunComparison) -> str:
    """Return charts of each score against each cost, a mark for each group; "" when no cost is known."""
    known = {name for group in comparison.groups for name in group.summaries}
    costs = {name: title for name, title in COSTS.items() if name in known}
    scores = {name: SCORES[name] for name in COST_METRICS if name in known}
    figures = [_scatter(comparison, score, cost) for cost in costs for score in scores]
    return _charts(figures, {"score": ("Score", scores), "cost": ("against", costs)}, "charts wide")


def _scatter(comparison: RunComparison, score: str, cost: str) -> str:
    scale = 1e6 if cost in _MILLIONS else 1.0
    unit = f"{COSTS[cost]} (millions)" if scale > 1 else COSTS[cost]
    groups = [(i, group) for i, group in enumerate(comparison.groups) if {score, cost} <= group.summaries.keys()]
    if not groups:
        return ""
    xs = [[value / scale for value in group.summaries[cost].values] for _, group in groups]
    ys = [group.summaries[score].values for _, group in groups]
    means = [(group.summaries[cost].mean / scale, group.summaries[score].mean) for _, group in groups]
    axes = Axes([point for pair in zip(xs, ys, strict=True) for point in itertools.product(*pair)], margin=0.08)
    occupied = [(*axes.to_pixels(*mean), 8.0, 8.0) for mean in means]
    elements = []
    for (i, group), costs, scores, (x, y) in zip(groups, xs, ys, means, strict=True):
        center, (color, shape) = axes.to_pixels(x, y), style(i)
        whisker = path(axes.to_pixels(end, y) for end in (min(costs), max(costs)))
        whisker += path(axes.to_pixels(x, end) for end in (min(scores), max(scores)))
        marks = [(*center, f"{group.label}: {SCORES[score]} {y:.2f}, {unit} {tick_label(x)}")]
        label = _place_label(group.label, center, occupied)
        elements.append(PlotElement(color, whisker=whisker, marks=marks, shape=shape, label=label, group=i))
    return figure(f"{SCORES[score]} against {unit}", axes, elements, {"data-score": score, "data-cost": cost})


def _place_label(
    text: str, center: tuple[float, float], occupied: list[tuple[float, float, float, float]]
) -> tuple[float, float, str] | tuple[()]:
    """Place the label of a mark right, left, above or below of it without overlap; () where there is no room."""
    width, height = len(text) * _CHARACTER_WIDTH, 12.0
    for dx, dy in ((9 + width / 2, 0), (-9 - width / 2, 0), (0, -13), (0, 13)):
        x, y = center[0] + dx, center[1] + dy
        inside = width / 2 < x < Axes.width - width / 2 and height < y < Axes.height - 34
        if inside and all(abs(x - x2) > (width + w) / 2 or abs(y - y2) > (height + h) / 2 for x2, y2, w, h in occupied):
            occupied.append((x, y, width, height))
            return x, y, text
    return ()


def _point(x: float, values: Sequence[float], text: str, position: str) -> DataPoint:
    low, high = min(values), max(values)
    between = f" ({low:.4g} to {high:.4g} of {len(values)} seeds)" if len(values) > 1 else ""
    return DataPoint(x, statistics.fmean(values), low, high, f"{text}{between} at {position}")


def _figure(
    title: str, lines: _Lines, attributes: Mapping[str, str], names: Sequence[str] = (), caption: str = ""
) -> str:
    """Return a chart of lines with their bands; "" when there is no point."""
    ends = [(point.x, value) for line in lines for point in line for value in (point.low, point.high)]
    if not ends:
        return ""
    axes = Axes(ends, names, margin=0.07 if names else 0.0)
    return figure(title, axes, [_line(i, line, axes) for i, line in enumerate(lines) if line], attributes, caption)


def _line(group: int, line: list[DataPoint], axes: Axes) -> PlotElement:
    means, upper, lower = (
        [axes.to_pixels(point.x, getattr(point, name)) for point in line] for name in ("mean", "high", "low")
    )
    marks = [(*mean, point.description) for mean, point in zip(means, line, strict=True)]
    color, shape = style(group)
    is_band = len(line) > 1 and any(point.high > point.low for point in line)
    return PlotElement(
        color,
        line=path(means) if len(line) > 1 else "",
        band=f"{path(upper + lower[::-1])}Z" if is_band else "",
        marks=marks if len(marks) <= MAX_MARKS else marks[-1:],
        shape=shape,
        group=group,
    )


def _charts(
    figures: Sequence[str], choices: Mapping[str, tuple[str, Mapping[str, str]]] | None = None, classes: str = "charts"
) -> str:
    return macros("compare/templates/compare.html").charts(list(filter(None, figures)), choices or {}, classes)
