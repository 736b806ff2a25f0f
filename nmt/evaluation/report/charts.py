"""Curves over training and bars, as inline SVG: text stays text, colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nmt.evaluation.report.html import escape

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 30
_BAR, _NAMES = 26, 92
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
    "under": "Share of source subwords attended to too little",
    "over": "Share of source subwords attended to too much",
    "forward": "Share of steps that do not go back",
    "jump": "Length of jumps, in subwords",
    "end": "Weight on the end of the sentence",
    "punctuation": "Weight on punctuation",
    "agreement": "Agreement with the other heads",
}
"""Headings of what a validation measures of attention, over the same sentences each time."""
_DASHES = ("solid", "dashed", "dotted")


class Line(NamedTuple):
    """One curve: its name in the legend and (update, value) in order of updates."""

    name: str
    points: list[tuple[float, float]]


def read_line(name: str, rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> Line:
    """The rows that have an update and a finite value under one of `keys`."""
    return _line(name, rows, lambda row: _number(row, keys))


def charts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss (nats per token), scores and alignment error of the validation set, entropy and other measures of attention
    over updates, a chart each; empty when no row holds any."""
    wanted: list[tuple[list[Line], Any, str]] = [
        ([read_line("training loss", rows, TRAIN_LOSS), read_line("validation loss", rows, VALID_LOSS)], min, ""),
        ([read_line("validation BLEU", rows, VALID_BLEU), read_line("validation chrF", rows, VALID_CHRF)], max, ""),
        ([read_line("validation alignment error", rows, VALID_AER)], min, ""),
        (_of_heads(rows, lambda row: row.get("entropy")), None, "Entropy of attention (nats) over updates"),
    ]
    for measure, heading in ATTENTION.items():
        lines = _of_heads(rows, lambda row, measure=measure: row.get("attention", {}).get(measure))  # type: ignore[misc]
        wanted.append((lines, None, f"{heading} over updates"))
    drawn = [_chart(lines, best, title) for lines, best, title in wanted if any(line.points for line in lines)]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars from zero.

    Args:
        title: above them. rows: name, value, and what stands behind the value.
    """
    most = max((value for _, value, _ in rows), default=0) or 1.0
    room = _WIDTH - _NAMES - 150
    parts = []
    for number, (name, value, behind) in enumerate(rows):
        y = number * _BAR
        width = max(value, 0.0) / most * room
        parts.append(
            f'<text x="{_NAMES - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="bar" x="{_NAMES}" y="{y + 4}" width="{width:.1f}" height="{_BAR - 8}"/>'
            f'<text x="{_NAMES + width + 6:.1f}" y="{y + 17}"><tspan class="value">{value:.1f}</tspan>'
            f" {escape(behind)}</text>"
        )
    label = escape(f"{title}: " + ", ".join(f"{name} {value:.1f}, {behind}" for name, value, behind in rows))
    return (
        f'<figure class="card"><h3>{escape(title)}</h3><svg viewBox="0 0 {_WIDTH} {len(rows) * _BAR}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg></figure>'
    )


def _line(name: str, rows: Iterable[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], float | None]) -> Line:
    points = []
    for row in rows:
        update, value = _number(row, ("update",)), of(row)
        if update is not None and value is not None:
            points.append((update, value))
    return Line(name, sorted(points))


def _of_heads(rows: Iterable[Mapping[str, Any]], grid: Callable[[Mapping[str, Any]], Any]) -> list[Line]:
    """A line for each of `HEADS`; of a single head one line."""
    grids = [(row, [value for layer in grid(row) or () for value in layer if value is not None]) for row in rows]
    found = [
        {"update": row.get("update"), **{name: of(values) for name, of in HEADS.items()}}
        for row, values in grids
        if values and all(math.isfinite(value) for value in values)
    ]
    if max((len(values) for _, values in grids), default=0) == 1:
        return [read_line("the only head", found, ("mean of all heads",))]
    return [read_line(name, found, (name,)) for name in HEADS]


def _number(row: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    for key in keys:
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            return math.log(value) if key.endswith("perplexity") and value > 0 else float(value)
    return None


def _thin(points: list[tuple[float, float]]) -> tuple[list[tuple[float, float]], int]:
    group = math.ceil(len(points) / MAX_POINTS)
    if group <= 1:
        return points, 1
    parts = [points[start : start + group] for start in range(0, len(points), group)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts], group


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float, beside: Sequence[float] = ()) -> str:
    """A number on an axis, with as many digits as tell it from those beside it."""
    if value == int(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    if len(beside) > 1 and abs(value) < 1e7:
        step = beside[1] - beside[0]
        return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    return f"{value:.4g}"


class Frame:
    """The axes of a chart: a grid, the numbers beside it, and where a point stands. Sizes are of the SVG's viewBox.

    Args:
        points: all that is drawn, at least one.
        names: of places 0, 1, … on the x axis, in the place of numbers.
        margin: room on both sides of the x axis, as a share of its length.
    """

    width, height = _WIDTH, _HEIGHT

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

    def place(self, x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - self.low_x) / (self.high_x - self.low_x) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (y - self.low_y) / (self.high_y - self.low_y) * (_HEIGHT - _TOP - _BOTTOM),
        )

    def __str__(self) -> str:
        parts = []
        values = ticks(self.low_y, self.high_y)
        for value in values:
            y = self.place(self.low_x, value)[1]
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick_label(value, values)}</text>')
        values = ticks(self.low_x, self.high_x) if self.is_wide else [self.low_x]
        named = [(float(i), escape(name)) for i, name in enumerate(self.names)]
        for value, name in named or [(value, tick_label(value, values)) for value in values]:
            x = self.place(value, self.low_y)[0]
            anchor = "end" if x > _WIDTH - _RIGHT - 20 else "middle"
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{name}</text>')
        return "".join(parts)


def _chart(lines: list[Line], best: Any, title: str) -> str:
    lines = [line for line in lines if line.points]
    frame = Frame(point for line in lines for point in line.points)
    parts = [str(frame)]
    parts += [_draw(line, "abc"[index], frame.place) for index, line in enumerate(lines)]
    captions = [_caption(line, _DASHES[index], best) for index, line in enumerate(lines)]
    names = " and ".join(line.name for line in lines)
    heading = escape(title or f"{names[0].upper()}{names[1:]} over updates")
    return (
        f'<figure class="card"><h3>{heading}</h3>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{heading}">{"".join(parts)}</svg>'
        f"<figcaption>{'<br>'.join(captions)}</figcaption></figure>"
    )


def _caption(line: Line, dash: str, best: Any) -> str:
    """The legend of a line, with its best and its last value."""
    style = "abc"[_DASHES.index(dash)]
    key = f'<svg class="key" viewBox="0 0 30 8" aria-hidden="true"><path class="{style}" d="M0 4H30"/></svg>'
    text = f"{key} {escape(line.name)} ({dash}): "
    if best is not None:
        x, y = best(line.points, key=lambda point: point[1])
        text += f"{'lowest' if best is min else 'highest'} {y:.4g} at update {x:,.0f}, "
    group = _thin(line.points)[1]
    averaged = f"; each point is the mean of {group} rows" if group > 1 else ""
    return f"{text}last {line.points[-1][1]:.4g} at update {line.points[-1][0]:,.0f}{averaged}"


def _draw(line: Line, style: str, place: Any) -> str:
    points, _ = _thin(line.points)
    placed = [place(x, y) for x, y in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    drawn = f'<path class="{style}" d="{path}"/>' if len(placed) > 1 else ""
    if len(points) <= 60:
        for (x, y), (update, value) in zip(placed, points, strict=True):
            title = escape(f"{line.name} {value:.4g} at update {update:,.0f}")
            drawn += f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{title}</title></circle>'
    return drawn
