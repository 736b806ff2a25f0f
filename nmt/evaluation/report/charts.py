"""Curves over training, and the axes and lines of all charts, as inline SVG: colors come from the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from nmt.evaluation.report.html import macros

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 30
MAX_POINTS = 300
"""Points drawn of one line; more are averaged in groups of equal size, and the caption says so."""

TRAIN_LOSS = ("perplexity", "loss")
VALID_LOSS = ("valid_perplexity", "valid_loss")
VALID_BLEU = ("valid_bleu",)
VALID_CHRF = ("valid_chrf",)
VALID_AER = ("valid_aer",)
"""Names under which a row of metrics.jsonl may hold each value, beside its `update`; the first one present is taken.

A perplexity is drawn as its logarithm, the loss without label smoothing, so that training and validation compare.
"""
HEADS: dict[str, Callable[[list[float]], float]] = {
    "mean of all heads": lambda values: sum(values) / len(values),
    "lowest head": min,
    "highest head": max,
}
"""What is drawn of a measure that every layer and head has."""
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
"""Headings of what a validation measures of attention, over the same sentences each time."""
_DASHES = ("solid", "dashed", "dotted")


class Series(NamedTuple):
    """One curve: its name in the legend and (update, value) in order of updates."""

    name: str
    points: list[tuple[float, float]]


class Drawn(NamedTuple):
    """What is drawn in a chart for one curve or group, in units of the SVG's viewBox.

    Attributes:
        style: the class that gives it color and dash.
        line, band, whisker: paths; "" for none.
        marks: (x, y, title).
        shape: the path of a mark around its place; "" for a circle.
        label: (x, y, text); () for none.
        group: the number of its group.
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
    """Return loss (nats per token), scores and alignment error of the validation set, entropy and other measures of
    attention over updates, a chart each; "" when no row holds any."""
    wanted: list[tuple[list[Series], Any, str]] = [
        ([read_line("training loss", rows, TRAIN_LOSS), read_line("validation loss", rows, VALID_LOSS)], min, ""),
        ([read_line("validation BLEU", rows, VALID_BLEU), read_line("validation chrF", rows, VALID_CHRF)], max, ""),
        ([read_line("validation alignment error", rows, VALID_AER)], min, ""),
        (_of_heads([(row, row.get("entropy")) for row in rows]), None, "Entropy of attention (nats) over updates"),
    ]
    for measure, heading in ATTENTION.items():
        grids = [(row, row.get("attention", {}).get(measure)) for row in rows]
        wanted.append((_of_heads(grids), None, f"{heading} over updates"))
    figures = [_chart(lines, best, title) for lines, best, title in wanted if any(line.points for line in lines)]
    return Markup('<div class="charts">{}</div>').format(Markup("").join(figures)) if figures else ""


def figure(
    title: str, frame: Axes, lines: Sequence[Drawn], attributes: Mapping[str, str] | None = None, caption: str = ""
) -> Markup:
    """Return a chart as HTML."""
    drawn: Markup = macros("evaluation/report/templates/parts.html").figure(
        title, frame, lines, attributes or {}, caption
    )
    return drawn


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the SVG path through some points."""
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _of_heads(grids: Sequence[tuple[Mapping[str, Any], Any]]) -> list[Series]:
    """Return a line for each of `HEADS`; one line for a single head."""
    flat = [(row, [value for layer in grid or () for value in layer if value is not None]) for row, grid in grids]
    rows = [
        {"update": row.get("update"), **{name: of(values) for name, of in HEADS.items()}}
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
    group = max(math.ceil(len(points) / MAX_POINTS), 1)
    parts = [points[start : start + group] for start in range(0, len(points), group)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts], group


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, about `count` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float, beside: Sequence[float] = ()) -> str:
    """Return the text of a number on an axis, with as many digits as tell it from those beside it."""
    if value == int(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    if len(beside) > 1 and abs(value) < 1e7:
        step = beside[1] - beside[0]
        return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    return f"{value:.4g}"


class Axes:
    """The axes of a chart: a grid, the numbers beside it, and where a point stands. Sizes are of the SVG's viewBox.

    Args:
        points: all that is drawn, at least one.
        names: of places 0, 1, … on the x axis, in the place of numbers.
        margin: room on both sides of the x axis, as a share of its length.
    """

    width, height, left, right = _WIDTH, _HEIGHT, _LEFT, _WIDTH - _RIGHT

    def __init__(
        self, points: Iterable[tuple[float, float]], names: Sequence[str] = (), *, margin: float = 0.0
    ) -> None:
        xs, ys = zip(*points, strict=True)
        self.names = names
        low, high = (min(xs), max(xs)) if not names else (0.0, len(names) - 1.0)
        side = (high - low) * margin or margin * max(abs(high), 1.0)
        self.low_x, self.high_x = low - side, high + side
        self.is_wide = self.high_x > self.low_x
        self.high_x = self.high_x if self.is_wide else self.low_x + 1
        room = (max(ys) - min(ys)) * 0.06 or max(abs(max(ys)) * 0.05, 0.5)
        self.low_y = max(min(ys) - room, 0.0) if min(ys) >= 0 else min(ys) - room
        self.high_y = max(ys) + room

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point stands in the SVG."""
        return (
            round(_LEFT + (x - self.low_x) / (self.high_x - self.low_x) * (self.right - _LEFT), 1),
            round(_HEIGHT - _BOTTOM - (y - self.low_y) / (self.high_y - self.low_y) * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    def rows(self) -> list[tuple[float, str]]:
        """Return the height of each line of the grid, and its number."""
        values = ticks(self.low_y, self.high_y)
        return [(self.to_pixels(self.low_x, value)[1], tick_label(value, values)) for value in values]

    def columns(self) -> list[tuple[float, str]]:
        """Return the place of each name or number below the chart."""
        values = ticks(self.low_x, self.high_x) if self.is_wide else [self.low_x]
        named = {float(i): name for i, name in enumerate(self.names)} or {x: tick_label(x, values) for x in values}
        return [(self.to_pixels(x, self.low_y)[0], name) for x, name in named.items()]


def _chart(lines: list[Series], best: Any, title: str) -> Markup:
    lines = [line for line in lines if line.points]
    frame = Axes(point for line in lines for point in line.points)
    drawn, captions = [], []
    for line, style, dash in zip(lines, "abc", _DASHES, strict=False):
        points, group = _thin(line.points)
        places = [frame.to_pixels(*point) for point in points]
        marks = [
            (*place, f"{line.name} {value:.4g} at update {update:,.0f}")
            for place, (update, value) in zip(places, points, strict=True)
        ]
        drawn.append(Drawn(style, path(places) if len(places) > 1 else "", marks=marks if len(marks) <= 60 else ()))
        captions.append(_caption(line, style, dash, best, group))
    names = " and ".join(line.name for line in lines)
    heading = title or f"{names[0].upper()}{names[1:]} over updates"
    return figure(heading, frame, drawn, caption=Markup("<br>").join(captions))


def _caption(line: Series, style: str, dash: str, best: Any, group: int) -> Markup:
    """Return the legend of a line, with its best and its last value."""
    text = f" {line.name} ({dash}): "
    if best is not None:
        x, y = best(line.points, key=lambda point: point[1])
        text += f"{'lowest' if best is min else 'highest'} {y:.4g} at update {x:,.0f}, "
    averaged = f"; each point is the mean of {group} rows" if group > 1 else ""
    text += f"last {line.points[-1][1]:.4g} at update {line.points[-1][0]:,.0f}{averaged}"
    key: Markup = macros("evaluation/report/templates/parts.html").key(style)
    return key + text
