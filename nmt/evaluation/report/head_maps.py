"""Maps of layers × heads: alignment error and what else is measured of each, as tables that are shaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nmt.evaluation.report.html import escape, number, shaded, table

MAX_HEADS = 64
"""With more heads than this in all layers together, the map of agreement shows layers."""

_Grid = Sequence[Sequence[float | None]]


def alignment_error(scores: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The alignment error of every layer and head, for each shift; what was chosen is marked.

    Args:
        scores: what scores.json holds. rows: what readings.json holds.
    """
    if not rows or "alignment" not in scores:
        return ""
    chosen = scores["alignment"]["reading"]
    layers, heads = sorted({row["layer"] for row in rows}), sorted({row["head"] for row in rows})
    maps = []
    for shift in sorted({row["shift"] for row in rows}):
        found = {
            (row["layer"], row["head"]): row["aer"]
            for row in rows
            if row["shift"] == shift and row["null"] == chosen["null"]
        }
        if not found:
            continue
        grid = [[_percent(found.get((layer, head))) for head in heads] for layer in layers]
        mark = (chosen["layer"], chosen["head"]) if shift == chosen["shift"] else None
        name = "read one step later" if shift else "read where a word is predicted"
        lowest = min(found.values())
        about = f"lowest {100 * lowest:.1f} %"
        maps.append(_map(name, about, grid, layers, heads, digits=1, mark=mark, shift=shift, most=100.0))
    counted = "has no link" if chosen["null"] else "is linked to the best of the other words"
    text = (
        "Per cent, lower is better; each word is linked to the one it attends to most. Outlined: what links are read "
        f"from, chosen by {scores['alignment']['chosen_by']}; nothing was chosen on this test set. A word whose "
        f"attention is on the end of the sentence {counted}."
    )
    return f'<p class="soft small">{escape(text)}</p><div class="maps">{"".join(maps)}</div>'


def diagnostics(found: Mapping[str, Any]) -> str:
    """Every measure of every layer and head, over length, along the target, and agreement between heads.

    Args:
        found: what diagnostics.json holds (`Diagnostics.primitive`); {} for nothing.
    """
    if not found:
        return ""
    measures: dict[str, Any] = dict(found["measures"])
    about = dict(found["about"])
    if found["importance"] is not None:
        measures["importance"] = found["importance"]
        about["importance"] = (
            f"what the loss rises by, in nats per token, when the head is silenced (on {found['num_importance']} "
            "sentences)"
        )
    if "punctuation" in about:
        share = found["uniform_punctuation"]
        about["punctuation"] += f" (a head that attends everywhere alike gives it {share:.3f})"
    layers, heads = range(1, found["layers"] + 1), range(1, found["heads"] + 1)
    maps = [_map(name, about.get(name, ""), grid, layers, heads) for name, grid in measures.items()]
    parts = [f'<div class="maps">{"".join(maps)}</div>', _by_length(found), _along(found), _agreement(found)]
    return "".join(parts)


def _map(
    name: str,
    about: str,
    grid: _Grid,
    layers: Sequence[int],
    heads: Sequence[int],
    *,
    digits: int = 2,
    mark: tuple[int, int] | None = None,
    shift: int | None = None,
    most: float | None = None,
) -> str:
    """A grid whose cells are shaded by the size of their number. Rows and columns numbered 0 are means."""
    sizes = [abs(value) for row in grid for value in row if value is not None and not math.isnan(value)]
    largest = most or max(sizes, default=0.0) or 1.0
    columns = "".join(f'<th scope="col">{_name(head)}</th>' for head in heads)
    step = "" if shift is None else f' data-shift="{shift}"'
    rows = []
    for layer, values in zip(layers, grid, strict=True):
        cells = "".join(
            "<td></td>"
            if value is None and not (layer and head)
            else shaded(
                number(value, digits),
                abs(value or 0.0) / largest,
                f' tabindex="-1" data-layer="{layer}" data-head="{head}"{step}'
                + " data-chosen" * (mark == (layer, head)),
            )
            for head, value in zip(heads, values, strict=True)
        )
        rows.append(f'<tr><th scope="row">{_name(layer)}</th>{cells}</tr>')
    return (
        f'<figure class="of"><p class="small soft"><b>{escape(name)}</b> {escape(about)}</p>'
        f'<div class="scroll"><table class="map" dir="ltr" aria-label="{escape(name)}"><thead><tr>'
        f'<th scope="col" class="corner">layer \\ head</th>{columns}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></figure>"
    )


def _name(layer_or_head: int) -> str:
    return str(layer_or_head) if layer_or_head else "mean"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _mean(grid: Any) -> float | None:
    """Of every number in nested lists; None when there is none."""
    numbers = _numbers(grid)
    return sum(numbers) / len(numbers) if numbers else None


def _numbers(grid: Any) -> list[float]:
    if isinstance(grid, list | tuple):
        return [value for part in grid for value in _numbers(part)]
    return [] if grid is None else [float(grid)]


def _by_length(found: Mapping[str, Any]) -> str:
    names = list(found["measures"])
    rows = [
        [escape(bucket.replace("-", "–")), f"{values['num_sentences']:,}"] + [number(_mean(values[m])) for m in names]
        for bucket, values in found["by_length"].items()
    ]
    heads = ["words of the source", "sentences", *map(escape, names)]
    return f"<h3>Over length, mean of all heads</h3>{table('Over length', heads, rows)}" if rows else ""


def _along(found: Mapping[str, Any]) -> str:
    """Entropy from the first to the last part of a target, by layer."""
    along = found["entropy_along_target"]
    if not _numbers(along):
        return ""
    grid = [[_mean(part[layer]) for part in along] for layer in range(found["layers"])]
    largest = max(_numbers(grid), default=0.0) or 1.0
    rows = [
        f'<tr><th scope="row">layer {number_}</th>'
        + "".join(shaded(number(value, 2), (value or 0.0) / largest) for value in values)
        + "</tr>"
        for number_, values in enumerate(grid, start=1)
    ]
    columns = "".join(f'<th scope="col">part {part + 1}</th>' for part in range(len(along)))
    return (
        "<h3>Entropy along the target, mean of each layer’s heads</h3>"
        '<p class="soft small">In nats, from the beginning of a target (part 1) to its end: does attention tire?</p>'
        f'<div class="scroll"><table class="map plain" dir="ltr"><thead><tr><td></td>{columns}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _agreement(found: Mapping[str, Any]) -> str:
    agreement, num_heads = found["agreement"], found["heads"]
    if len(agreement) < 2:
        return ""
    names = [f"{layer + 1}.{head + 1}" for layer in range(found["layers"]) for head in range(num_heads)]
    unit = "layer.head"
    if len(agreement) > MAX_HEADS:
        blocks = range(0, len(agreement), num_heads)
        agreement = [
            [_mean([row[c : c + num_heads] for row in agreement[r : r + num_heads]]) for c in blocks] for r in blocks
        ]
        names, unit = [str(layer + 1) for layer in range(found["layers"])], "layer"
    rows = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(
            shaded(f"{100 * value:.0f}", value, f' title="{name} and {other}"')
            for other, value in zip(names, row, strict=True)
        )
        + "</tr>"
        for name, row in zip(names, agreement, strict=True)
    )
    columns = "".join(f'<th scope="col">{name}</th>' for name in names)
    many = " many" * (len(names) > 24)
    return (
        "<h3>Agreement between heads</h3>"
        f'<p class="soft small">Per cent of rows in which two of them ({unit}) attend most to the same subword.</p>'
        f'<div class="scroll"><table class="map plain small{many}" dir="ltr"><thead><tr><td></td>{columns}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
