"""Heat maps of layers × heads: alignment error and attention measures, as tables with shaded cells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt.evaluation.report.html import format_number

MAX_HEADS = 64
"""With more heads than this in all layers together, the map of agreement shows layers."""


_Grid = Sequence[Sequence[float | None]]
_Cell = tuple[str, Mapping[str, Any]]  # text and attributes
_CellOf = Callable[[int, int, float], _Cell]  # by row, column and number


class Map(NamedTuple):
    """A grid of cells, each (text, attributes, intensity of its shade from 0 to 1).

    scale: the number with the darkest shade, the lowest and the highest one, as in the cells; () without numbers.
    """

    name: str | None
    about: str
    heads: list[str]
    rows: list[tuple[str, list[tuple[str, Mapping[str, Any], float]]]]
    scale: Sequence[str] = ()


def alignment_error(scores: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Map]:
    """Return the alignment error of every layer and head, for each shift; the alignment source is marked.

    Args:
        scores: content of scores.json.
        rows: content of head_alignment_scores.json.
    """
    if not rows or "alignment" not in scores:
        return []
    chosen = scores["alignment"]["alignment_source"]
    layers, heads = sorted({row["layer"] for row in rows}), sorted({row["head"] for row in rows})
    rows = [row for row in rows if row["null"] == chosen["null"]]
    maps = []
    for shift in sorted({row["shift"] for row in rows}):
        errors = {(row["layer"], row["head"]): 100 * row["aer"] for row in rows if row["shift"] == shift}
        grid = [[errors.get((layer, head)) for head in heads] for layer in layers]
        mark = (chosen["layer"], chosen["head"]) if shift == chosen["shift"] else None
        name = "read one step later" if shift else "read where a word is predicted"
        about = f"lowest {min(errors.values()):.1f} %"
        maps.append(_head_map(name, about, grid, layers, heads, digits=1, mark=mark, shift=shift, maximum=100.0))
    return maps


def diagnostics(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return every measure of every layer and head, over length, along the target, and agreement between heads.

    Args:
        content: of diagnostics.json (`nmt.evaluation.attention_diagnostics.AttentionDiagnostics.to_dict`); {} for
            nothing.
    """
    if not content:
        return {}
    measures, about = dict(content["measures"]), dict(content["about"])
    if content["importance"] is not None:
        measures["importance"] = content["importance"]
        about["importance"] = (
            "increase of the loss, in nats per token, when the head is silenced "
            f"(on {content['num_importance']} sentences)"
        )
    if "punctuation" in about:
        about["punctuation"] += f" (uniform attention gives it {content['uniform_punctuation']:.3f})"
    layers, heads = range(1, content["layers"] + 1), range(1, content["heads"] + 1)
    return {
        "maps": [_head_map(name, about.get(name, ""), grid, layers, heads) for name, grid in measures.items()],
        "measures": list(content["measures"]),
        "by_length": [
            [bucket.replace("-", "–"), f"{values['num_sentences']:,}"]
            + [format_number(_mean(values[name])) for name in content["measures"]]
            for bucket, values in content["by_length"].items()
        ],
        "along": _along(content),
        "agreement": _agreement(content),
    }


def _head_map(
    name: str,
    about: str,
    grid: _Grid,
    layers: Sequence[int],
    heads: Sequence[int],
    *,
    digits: int = 2,
    mark: tuple[int, int] | None = None,
    shift: int | None = None,
    maximum: float = 0.0,
) -> Map:
    """Return a map of layers × heads. Rows and columns numbered 0 are means, and empty where there is none."""

    def cell(row: int, column: int, value: float) -> _Cell:
        layer, head = layers[row], heads[column]
        if np.isnan(value) and not (layer and head):
            return "", {}
        attributes = {"tabindex": "-1", "data-layer": layer, "data-head": head, "data-shift": shift}
        return format_number(value, digits), attributes | ({"data-chosen": ""} if mark == (layer, head) else {})

    row_names, column_names = ([str(number) if number else "mean" for number in side] for side in (layers, heads))
    return _map(about, row_names, column_names, grid, cell, name, maximum)


def _map(
    about: str, rows: Sequence[str], heads: list[str], grid: _Grid, cell: _CellOf, name: str = "", maximum: float = 0.0
) -> Map:
    """Return a grid shaded by the size of its numbers relative to `maximum`, by default the largest of them."""
    values = np.array(grid, dtype=float)
    sizes = np.nan_to_num(np.abs(values))
    darkest = maximum or sizes.max() or 1.0
    shades = np.minimum(sizes / darkest, 1.0)
    cells = [[(*cell(i, j, value), float(shades[i, j])) for j, value in enumerate(values[i])] for i in range(len(rows))]
    ends = () if np.isnan(values).all() else (darkest, np.nanmin(values), np.nanmax(values))
    scale = [cell(0, 0, float(end))[0] for end in ends]
    return Map(name or None, about, heads, list(zip(rows, cells, strict=True)), scale)


def _mean(grid: Any) -> float:
    """Return the mean of every number in nested lists; NaN when there is none."""
    values = np.array(grid, dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else np.nan


def _along(content: Mapping[str, Any]) -> Map | None:
    """Return the entropy from the first to the last segment of a target, by layer."""
    segments, layers = content["entropy_along_target"], range(content["layers"])
    grid = [[_mean(segment[layer]) for segment in segments] for layer in layers]
    if np.isnan(grid).all():
        return None
    rows, heads = [f"layer {layer + 1}" for layer in layers], [f"part {i + 1}" for i in range(len(segments))]
    return _map("", rows, heads, grid, lambda row, column, value: (format_number(value, 2), {}))


def _agreement(content: Mapping[str, Any]) -> Map | None:
    """Return the agreement of every two heads, or of every two layers when there are many heads."""
    grid, layers, num_heads = content["agreement"], range(1, content["layers"] + 1), content["heads"]
    if len(grid) < 2:
        return None
    names, unit = [f"{layer}.{head + 1}" for layer in layers for head in range(num_heads)], "layer.head"
    if len(grid) > MAX_HEADS:
        grid = np.reshape(np.array(grid, dtype=float), (len(layers), num_heads, len(layers), num_heads)).mean((1, 3))
        names, unit = [str(layer) for layer in layers], "layer"

    def cell(row: int, column: int, value: float) -> _Cell:
        return format_number(100 * value, 0), {"title": f"{names[row]} and {names[column]}"}

    return _map(unit, names, names, grid, cell, maximum=1.0)
