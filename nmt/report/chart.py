"""The training curve as inline SVG: text stays text, colours come from the page."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 30
MAX_POINTS = 300
"""Points drawn of one line; more are averaged in groups of equal size, and the caption says so."""

TRAIN_LOSS = ("perplexity", "loss")
VALID_LOSS = ("valid_perplexity", "valid_loss")
VALID_BLEU = ("valid_bleu",)
"""Names under which a row of metrics.jsonl may hold each value, beside its `update`; the first one present is taken.

A perplexity is drawn as its logarithm, the loss without label smoothing, so that training and validation compare.
"""


class Line(NamedTuple):
    """One curve: its name in the legend and (update, value) in order of updates."""

    name: str
    points: list[tuple[float, float]]


def read_line(name: str, rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> Line:
    """The rows that have an update and a finite value under one of `keys`."""
    points = []
    for row in rows:
        update, value = _number(row, ("update",)), _number(row, keys)
        if update is not None and value is not None:
            points.append((update, value))
    return Line(name, sorted(points))


def charts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss (nats per token) and validation BLEU over updates, a chart each; empty when no row holds either."""
    loss = [read_line("training loss", rows, TRAIN_LOSS), read_line("validation loss", rows, VALID_LOSS)]
    bleu = [read_line("validation BLEU", rows, VALID_BLEU)]
    drawn = [_chart(lines, best) for lines, best in ((loss, min), (bleu, max)) if any(line.points for line in lines)]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


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


def _label(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:.4g}"


def _chart(lines: list[Line], best: Any) -> str:
    lines = [line for line in lines if line.points]
    every = [point for line in lines for point in line.points]
    low_x, high_x = min(x for x, _ in every), max(x for x, _ in every)
    low_y, high_y = min(y for _, y in every), max(y for _, y in every)
    high_x = high_x if high_x > low_x else low_x + 1
    room = (high_y - low_y) * 0.06 or max(abs(high_y) * 0.05, 0.5)
    low_y, high_y = (max(low_y - room, 0.0) if low_y >= 0 else low_y - room), high_y + room

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (y - low_y) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts, captions = [], []
    for value in ticks(low_y, high_y):
        y = place(low_x, value)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_label(value)}</text>')
    for value in ticks(low_x, high_x):
        x = place(value, low_y)[0]
        anchor = "end" if x > _WIDTH - _RIGHT - 20 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{_label(value)}</text>')
    for index, line in enumerate(lines):
        style = "ab"[index]
        parts.append(_draw(line, style, place))
        x, y = best(line.points, key=lambda point: point[1])
        last = line.points[-1]
        group = _thin(line.points)[1]
        averaged = f"; each point is the mean of {group} rows" if group > 1 else ""
        dash = "dashed" if style == "b" else "solid"
        name = html.escape(line.name)
        captions.append(
            f"{name} ({dash}): {'lowest' if best is min else 'highest'} {y:.4g} at update {x:,.0f},"
            f" last {last[1]:.4g} at update {last[0]:,.0f}{averaged}"
        )
    names = html.escape(" and ".join(line.name for line in lines))
    return (
        f'<figure class="card"><h3>{names[0].upper()}{names[1:]} over updates</h3>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{names} over updates">{"".join(parts)}</svg>'
        f"<figcaption>{'<br>'.join(captions)}</figcaption></figure>"
    )


def _draw(line: Line, style: str, place: Any) -> str:
    points, _ = _thin(line.points)
    placed = [place(x, y) for x, y in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    drawn = f'<path class="{style}" d="{path}"/>' if len(placed) > 1 else ""
    if len(points) <= 60:
        for (x, y), (update, value) in zip(placed, points, strict=True):
            title = html.escape(f"{line.name} {value:.4g} at update {update:,.0f}")
            drawn += f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{title}</title></circle>'
    return drawn
