"""Training curves, and axes and lines of all charts, as inline SVG; the page's style sheet sets the colors."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from markupsafe import Markup

from nmt.evaluation.report.html import macros

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 30
_STYLES = "abcdef"
MAX_POINTS = 300
"""Points drawn of one line; more are averaged in groups of equal size, and the caption says so."""

TRAIN_LOSS = ("perplexity", "loss")
"""Keys of metrics.jsonl that may hold the value beside `update`; the first one present is taken.

A perplexity is drawn as its logarithm, the loss without label smoothing, so that training and validation compare.
"""
HEADS: dict[str, Callable[[list[float]], float]] = {
    "mean of all heads": lambda values: sum(values) / len(values),
    "lowest head": min,
    "highest head": max,
}
"""Lines drawn for a measure that every layer and head has."""
ATTENTION = {
    "effective": "Source subwords attended to",
    "under_attended": "Share of source subwords attended to too little",
    "over_attended": "Share of source subwords attended to too much",
    "monotonic": "Share of steps that do not go back",
    "jump_length": "Length of jumps, in subwords",
    "eos_weight": "Weight on the end of the sentence",
    "punctuation": "Weight on punctuation",
    "agreement": "Agreement with the other heads",
}
"""Headings of the attention measures of a validation, over the same sentences each time."""


class Series(NamedTuple):
    """One curve: its name in the legend and (update, value) in order of updates."""

    name: str
    points: list[tuple[float, float]]


class PlotElement(NamedTuple):
    """One curve or group of a chart, in units of the SVG's viewBox.

    style: the class that sets color and dash. line, band, whisker: paths; "" for none. marks: (x, y, title). shape: the
    path of a mark around its center; "" for a circle. label: (x, y, text); () for none. group: number of its group.
    """

    style: str
    line: str = ""
    band: str = ""
    whisker: str = ""
    marks: Sequence[tuple[float, float, str]] = ()
    shape: str = ""
    label: tuple[float, float, str] | tuple[()] = ()
    group: int | None = None


def read_line(name: str, rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> Series:
    """Return the rows that have an update and a finite value under one of `keys`."""
    points = [(_number(row, ("update",)), _number(row, keys)) for row in rows]
    return Series(name, sorted((x, y) for x, y in points if x is not None and y is not None))


def training_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return charts over updates of loss (nats per token), BLEU or chrF, learning rate, alignment error or entropy of
    attention, and loss by corpus, and folded the rest; "" when no row holds any."""

    keys = dict.fromkeys(key.removeprefix("valid_") for row in rows for key in row if key.startswith("valid_"))
    sets = dict.fromkeys(key.partition("/")[0] for key in keys if "/" in key)  # further validation sets

    def valid(name: str, *metrics: str) -> list[Series]:
        further = [read_line(f"{part} {name}", rows, [f"valid_{part}/{metric}" for metric in metrics]) for part in sets]
        return [read_line(f"validation {name}", rows, [f"valid_{metric}" for metric in metrics]), *further]

    losses = [read_line("training loss", rows, TRAIN_LOSS), *valid("loss", "perplexity", "loss")]
    entropies = _over_heads([(row, row.get("entropy")) for row in rows])
    charts: list[tuple[str, list[Series], Any, str]] = [
        ("loss", losses, min, ""),
        ("score", valid("BLEU", "bleu"), max, ""),
        ("score", valid("chrF", "chrf"), max, ""),
        ("rate", [read_line("learning rate", rows, ("learning_rate",))], None, ""),
        ("attention", valid("alignment error", "aer"), min, ""),
        ("attention", entropies, None, "Entropy of attention (nats) over updates"),
    ]
    corpora = list(dict.fromkeys(key[len("loss/") :] for row in rows for key in row if key.startswith("loss/")))
    for start in range(0, len(corpora), len(_STYLES)):  # each has a style of its own
        lines = [read_line(name, rows, (f"loss/{name}",)) for name in corpora[start : start + len(_STYLES)]]
        charts.append(("corpora", lines, min, "Training loss by corpus over updates"))
    for measure, heading in ATTENTION.items():
        grids = [(row, row.get("attention", {}).get(measure)) for row in rows]
        charts.append(("", _over_heads(grids), None, f"{heading} over updates"))
    drawn = [(kind, _chart(*chart)) for kind, *chart in charts if any(line.points for line in chart[0])]
    first = {kind: chart for kind, chart in reversed(drawn) if kind}  # of each kind the first one drawn
    others = [chart for kind, chart in drawn if first.get(kind) is not chart]
    return macros("evaluation/report/templates/report.html").curves([*reversed(first.values())], others).strip()


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the SVG path through some points."""
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _over_heads(grids: Sequence[tuple[Mapping[str, Any], Any]]) -> list[Series]:
    """Return a line for each of `HEADS`; one line for a single head."""
    flat = [(row, [value for layer in grid or () for value in layer if value is not None]) for row, grid in grids]
    rows = [
        {"update": row.get("update"), **{name: reduce(values) for name, reduce in HEADS.items()}}
        for row, values in flat
        if values and all(map(math.isfinite, values))
    ]
    if max((len(values) for _, values in flat), default=0) == 1:
        return [read_line("the only head", rows, ("mean of all heads",))]
    return [read_line(name, rows, (name,)) for name in HEADS]


def _number(row: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    for key in keys:
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            return math.log(value) if key.endswith("perplexity") and value > 0 else float(value)
    return None


def _thin(points: list[tuple[float, float]]) -> tuple[list[tuple[float, float]], int]:
    """Return at most `MAX_POINTS` points, and how many were averaged for each."""
    size = max(math.ceil(len(points) / MAX_POINTS), 1)
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(chunk[-1][0], sum(value for _, value in chunk) / len(chunk)) for chunk in chunks], size


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, about `count` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _extent(low: float, high: float) -> float:
    """Return `high - low`, 0 for values that differ by rounding only: ticks between them would be equal numbers."""
    return high - low if high - low > max(1e-9 * max(abs(low), abs(high)), 1e-12) else 0.0


def tick_label(value: float, values: Sequence[float] = ()) -> str:
    """Return the text of a number on an axis, with enough digits to distinguish the `values` of all ticks."""
    if abs(value) < 1e7 and value == int(value):
        return f"{value:,.0f}"
    if abs(value) < 1e7 and len(values) > 1:
        return f"{value:,.{max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))}f}"
    return f"{value:.4g}"


class Axes:
    """The axes of a chart: grid, tick labels, and the position of a point. Sizes are in units of the SVG's viewBox.

    Args:
        points: all that is drawn, at least one.
        names: of positions 0, 1, … on the x axis, in the place of numbers.
        margin: room on both sides of the x axis, as a share of its length.
    """

    width, height, left, right = _WIDTH, _HEIGHT, _LEFT, _WIDTH - _RIGHT

    def __init__(
        self, points: Iterable[tuple[float, float]], names: Sequence[str] = (), *, margin: float = 0.0
    ) -> None:
        xs, ys = zip(*points, strict=True)
        self.names = names
        low, high = (min(xs), max(xs)) if not names else (0.0, len(names) - 1.0)
        side = _extent(low, high) * margin or margin * max(abs(high), 1.0)
        self.is_wide = _extent(low, high) + side > 0
        self.low_x, self.high_x = low - side, high + side if self.is_wide else low + max(abs(low), 1.0)
        room = _extent(min(ys), max(ys)) * 0.06 or max(abs(max(ys)) * 0.05, abs(min(ys)) * 0.05, 0.5)
        self.low_y = max(min(ys) - room, 0.0) if min(ys) >= 0 else min(ys) - room
        self.high_y = max(ys) + room

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point in the SVG."""
        return (
            round(_LEFT + (x - self.low_x) / (self.high_x - self.low_x) * (self.right - _LEFT), 1),
            round(_HEIGHT - _BOTTOM - (y - self.low_y) / (self.high_y - self.low_y) * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    def rows(self) -> list[tuple[float, str]]:
        """Return the height of each grid line, and its label."""
        values = ticks(self.low_y, self.high_y)
        return [(self.to_pixels(self.low_x, value)[1], tick_label(value, values)) for value in values]

    def columns(self) -> list[tuple[float, str]]:
        """Return the position of each name or number below the chart."""
        values = ticks(self.low_x, self.high_x) if self.is_wide else [self.low_x]
        labels = {float(i): name for i, name in enumerate(self.names)} or {x: tick_label(x, values) for x in values}
        return [(self.to_pixels(x, self.low_y)[0], label) for x, label in labels.items()]


def figure(
    title: str,
    axes: Axes,
    elements: Sequence[PlotElement],
    attributes: Mapping[str, str] | None = None,
    caption: str = "",
) -> Markup:
    """Return a chart as HTML."""
    return macros("evaluation/report/templates/parts.html").figure(title, axes, elements, attributes or {}, caption)


def _chart(lines: list[Series], best: Any, title: str) -> Markup:
    lines = [line for line in lines if line.points]
    axes = Axes(point for line in lines for point in line.points)
    elements, captions = [], []
    for line, style, dash in zip(lines, cycle(_STYLES), cycle(("solid", "dashed", "dotted")), strict=False):
        points, group_size = _thin(line.points)
        positions = [axes.to_pixels(*point) for point in points]
        marks = [
            (*position, f"{line.name} {value:.4g} at update {update:,.0f}")
            for position, (update, value) in zip(positions, points, strict=True)
        ]
        drawn = path(positions) if len(positions) > 1 else ""
        elements.append(PlotElement(style, drawn, marks=marks if len(marks) <= 60 else ()))
        captions.append(_caption(line, style, dash, best, group_size))
    names = " and ".join(line.name for line in lines)
    heading = title or f"{names[0].upper()}{names[1:]} over updates"
    return figure(heading, axes, elements, caption=Markup("<br>").join(captions))


def _caption(line: Series, style: str, dash: str, best: Any, group_size: int) -> Markup:
    """Return the legend of a line, with its best and its last value."""
    text = f" {line.name} ({dash}): "
    if best is not None:
        x, y = best(line.points, key=lambda point: point[1])
        text += f"{'lowest' if best is min else 'highest'} {y:.4g} at update {x:,.0f}, "
    text += f"last {line.points[-1][1]:.4g} at update {line.points[-1][0]:,.0f}"
    text += f"; each point is the mean of {group_size} rows" if group_size > 1 else ""
    return macros("evaluation/report/templates/parts.html").key(style) + text
