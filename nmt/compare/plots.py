"""Charts of a comparison as inline SVG: groups over training, against what they cost, and over length.

Every group has a color, a dash and a mark, so that color is never needed to tell two of them apart. Charts
that stand for one another are all in the page; its script shows the one that is chosen.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nmt.compare.comparison import RunComparison
from nmt.compare.grouping import RunGroup
from nmt.compare.tables import COSTS, SCORES
from nmt.evaluation.report.charts import Axes, Drawn, figure, path, tick_label
from nmt.evaluation.report.html import macros

STYLES = 8
"""Groups that look different; those after them begin again."""
MAX_MARKS = 40
"""Points of a line that are marked; of more only the last."""
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
_MILLIONS = ("parameters", "flops")
_LETTER = 6.6  # width of a letter in units of the viewBox


class DataPoint(NamedTuple):
    """A point of a line: where, the lowest and highest value of the seeds there, and what is told of it."""

    x: float
    mean: float
    low: float
    high: float
    about: str


def style(group: int) -> tuple[str, str]:
    """Return the class of a group's lines and the shape of its marks."""
    return f"g{group % STYLES}", MARKS[group % STYLES]


def curves(comparison: RunComparison) -> str:
    """Return each quantity of the validations over updates and over time; "" when there is none."""
    figures = []
    for axis, unit in AXES.items():
        for name, title in CURVES.items():
            lines = [_over_training(group, name, axis) for group in comparison.groups]
            figures.append(_figure(f"{title} over {unit}", lines, {"data-curve": name, "data-axis": axis}))
    return _charts(figures, {"axis": ("Over", AXES)})


def _over_training(group: RunGroup, name: str, axis: str) -> list[DataPoint]:
    """Return a place for each update at which every seed was validated."""
    runs = [{each.update: each for each in outcome.validations if name in each.values} for outcome in group.results]
    places = []
    for update in sorted(set.intersection(*map(set, runs))):
        validations = [run[update] for run in runs]
        values = [each.values[name] for each in validations]
        at, when = float(update), f"update {update:,}"
        if axis == "minutes":
            seconds = [each.seconds for each in validations if each.seconds is not None]
            if len(seconds) < len(validations):
                continue
            at = statistics.fmean(seconds) / 60
            when = f"{at:.2f} minutes, {when}"
        places.append(_place(at, values, f"{group.label}: {statistics.fmean(values):.4g}", when))
    return places


def by_length(comparison: RunComparison) -> str:
    """Return BLEU and alignment error by words of the source; "" when there is none."""
    sizes = comparison.groups[0].results[0].buckets
    figures = []
    for name in ("bleu", "aer"):
        summaries = [
            {each.partition(" ")[2]: value for each, value in group.summaries.items() if each.startswith(f"{name} ")}
            for group in comparison.groups
        ]
        buckets = sorted(set().union(*summaries), key=lambda bucket: int(bucket.partition("-")[0]))
        lines = [
            [
                _place(i, own[bucket].values, f"{group.label}: {own[bucket].mean:.2f}", f"{bucket} words")
                for i, bucket in enumerate(buckets)
                if bucket in own
            ]
            for group, own in zip(comparison.groups, summaries, strict=True)
        ]
        about = ", ".join(f"{bucket}: {sizes[bucket]}" for bucket in buckets if bucket in sizes)
        title, caption = f"{SCORES[name]} by words of the source", f"Sentences: {about}." if about else ""
        figures.append(_figure(title, lines, {"data-length": name}, buckets, caption))
    return _charts(figures)


def score_vs_cost(comparison: RunComparison) -> str:
    """Return each score against each cost, a mark for each group; "" when no cost is known."""
    known = {name for group in comparison.groups for name in group.summaries}
    costs = {name: title for name, title in COSTS.items() if name in known}
    scores = {name: SCORES[name] for name in COST_METRICS if name in known}
    figures = [_scatter(comparison, score, cost) for cost in costs for score in scores]
    return _charts(figures, {"score": ("Score", scores), "cost": ("against", costs)}, "charts wide")


def _scatter(comparison: RunComparison, score: str, cost: str) -> str:
    scale = 1e6 if cost in _MILLIONS else 1.0
    unit = f"{COSTS[cost]} (millions)" if scale > 1 else COSTS[cost]
    points = []
    for i, group in enumerate(comparison.groups):
        if score in group.summaries and cost in group.summaries:
            paid, got = group.summaries[cost], group.summaries[score]
            xs = [value / scale for value in (min(paid.values), max(paid.values))]
            points.append((i, group.label, xs, [min(got.values), max(got.values)], paid.mean / scale, got.mean))
    if not points:
        return ""
    frame = Axes([(x, y) for _, _, xs, ys, *_ in points for x in xs for y in ys], margin=0.08)
    taken = [(*frame.to_pixels(x, y), 8.0, 8.0) for *_, x, y in points]
    drawn = []
    for i, label, xs, ys, x, y in points:
        at, (color, shape) = frame.to_pixels(x, y), style(i)
        whisker = path([frame.to_pixels(end, y) for end in xs]) + path([frame.to_pixels(x, end) for end in ys])
        about = f"{label}: {SCORES[score]} {y:.2f}, {unit} {tick_label(x)}"
        name = _label(label, at, taken)
        drawn.append(Drawn(color, whisker=whisker, marks=[(*at, about)], shape=shape, label=name, group=i))
    return figure(f"{SCORES[score]} against {unit}", frame, drawn, {"data-score": score, "data-cost": cost})


def _label(
    text: str, at: tuple[float, float], taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, str] | tuple[()]:
    """Return the name of a mark where nothing else is, right, left, above or below of it; () where it has no room."""
    width, height = len(text) * _LETTER, 12.0
    for dx, dy in ((9 + width / 2, 0), (-9 - width / 2, 0), (0, -13), (0, 13)):
        x, y = at[0] + dx, at[1] + dy
        inside = width / 2 < x < Axes.width - width / 2 and height < y < Axes.height - 34
        if inside and all(
            abs(x - other[0]) > (width + other[2]) / 2 or abs(y - other[1]) > (height + other[3]) / 2 for other in taken
        ):
            taken.append((x, y, width, height))
            return x, y, text
    return ()


def _place(x: float, values: Sequence[float], what: str, where: str) -> DataPoint:
    low, high = min(values), max(values)
    between = f" ({low:.4g} to {high:.4g} of {len(values)} seeds)" if len(values) > 1 else ""
    return DataPoint(x, statistics.fmean(values), low, high, f"{what}{between} at {where}")


def _figure(
    title: str,
    lines: Sequence[list[DataPoint]],
    attributes: Mapping[str, str],
    names: Sequence[str] = (),
    caption: str = "",
) -> str:
    """Return lines with their bands; "" when there is no point."""
    ends = [(place.x, value) for line in lines for place in line for value in (place.low, place.high)]
    if not ends:
        return ""
    frame = Axes(ends, names, margin=0.07 if names else 0.0)
    drawn = [_line(i, line, frame) for i, line in enumerate(lines) if line]
    return figure(title, frame, drawn, attributes, caption)


def _line(group: int, line: list[DataPoint], frame: Axes) -> Drawn:
    means = [frame.to_pixels(each.x, each.mean) for each in line]
    edge = [frame.to_pixels(each.x, each.high) for each in line] + [
        frame.to_pixels(each.x, each.low) for each in line[::-1]
    ]
    marks = [(*place, each.about) for place, each in zip(means, line, strict=True)]
    color, shape = style(group)
    return Drawn(
        color,
        line=path(means) if len(line) > 1 else "",
        band=f"{path(edge)}Z" if len(line) > 1 and any(each.high > each.low for each in line) else "",
        marks=marks if len(marks) <= MAX_MARKS else marks[-1:],
        shape=shape,
        group=group,
    )


def _charts(
    figures: Sequence[str], choices: Mapping[str, tuple[str, Mapping[str, str]]] | None = None, classes: str = "charts"
) -> str:
    made: str = macros("compare/templates/compare.html").charts(
        [each for each in figures if each], choices or {}, classes
    )
    return made
