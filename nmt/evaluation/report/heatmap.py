"""Heat maps of attention as pictures: source across, target down, darker for more weight."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nmt.evaluation.report.html import printable, read_resource
from nmt.evaluation.report.weight_encoding import check_weights
from nmt.runtime.files import atomic_write, open_output

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Labels = Sequence[str]
MAX_POSITIONS = 100
"""Rows and columns drawn; longer sentences are truncated, with a note."""
MAX_LABEL = 28
EOS_LABEL = "</s>"
FAMILIES = [
    "DejaVu Sans",  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and many symbols
    *("Noto Sans CJK JP", "IPAGothic", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Hiragino Sans", "PingFang SC"),
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil"),
    *("Noto Sans Telugu", "Noto Sans Thai", "Nirmala UI", "Noto Emoji", "Symbola", "FreeSans", "Arial Unicode MS"),
]
"""Font families in the order in which glyphs are searched; those that are not installed are skipped."""
LABEL_ROTATION = float(re.findall(r"--label-rotation: (-?\d+)deg", read_resource("page.css"))[0])
"""Degrees by which the labels of columns are turned counterclockwise, those of the page's matrices too."""
_DPI = 110
_CELL, _AXIS_LABEL, _BAR, _MARGIN = 0.27, 0.4, 0.75, 0.12  # inches
_COLORS = "#ffffff #cfe1fc #a4c3f1 #7da4e0 #5d86c9 #4168ad #2c4c8d #1c3269 #111a45"
# Overrides the user's matplotlib settings.
_STYLE: dict[str, Any] = {
    "text.usetex": False,
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "font.family": FAMILIES,
    "figure.titleweight": "bold",
}


def save_heatmap(
    path: str | Path, matrix: npt.ArrayLike, source_labels: Labels, target_labels: Labels, *, title: str = ""
) -> list[str]:
    """Write a heat map of attention atomically as a PNG file.

    Args:
        path: of the file; its folder is created.
        matrix: (T, S) weights between 0 and 1.
        source_labels, target_labels: S labels on top and T labels on the left.
        title: a line above the picture.

    Returns:
        notes about missing glyphs and truncated labels or sentences; empty for a complete picture.

    Raises:
        ValueError: the labels do not fit the matrix, or a weight is negative or not a finite number.
    """
    picture, notes = _compose(matrix, source_labels, target_labels, title)
    with atomic_write(Path(path)) as temporary, open_output(temporary) as file:
        picture.savefig(file, format="png", dpi=_DPI)
    return notes


def plot_heatmap(matrix: npt.ArrayLike, source_labels: Labels, target_labels: Labels, *, title: str = "") -> Figure:
    """Return the picture of `draw` as a matplotlib figure that is not registered with pyplot, notes in its footer."""
    return _compose(matrix, source_labels, target_labels, title)[0]


def colormap() -> Colormap:
    """Return a perceptually uniform map from white for 0 to deep blue for 1, a curve in Oklab."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("attention", _COLORS.split())


def _compose(
    matrix: npt.ArrayLike, source_labels: Labels, target_labels: Labels, title: str
) -> tuple[Figure, list[str]]:
    """Return the picture and its notes. Glyphs that no font has are found by drawing once, then replaced."""
    weights = np.asarray(matrix, dtype=np.float64)
    check_weights(weights, (len(target_labels), len(source_labels)), leading=0, unit="labels")
    weights = weights[:MAX_POSITIONS, :MAX_POSITIONS]
    notes = [
        f"only the first {MAX_POSITIONS} of {len(side)} {name} positions are drawn"
        for name, side in (("source", source_labels), ("target", target_labels))
        if len(side) > MAX_POSITIONS
    ]
    sides = [[printable(label) for label in side[:MAX_POSITIONS]] for side in (source_labels, target_labels)]
    num_long = sum(len(label) > MAX_LABEL for side in sides for label in side)
    if num_long:
        notes.append(f"{num_long} {'label is' if num_long == 1 else 'labels are'} truncated to {MAX_LABEL} characters")
    # matplotlib warns of every family that is not installed, and of every font without the exact weight
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = _render(weights, sides, printable(title), notes)
    missing = sorted({int(code) for warning in caught for code in re.findall(r"^Glyph (\d+)", str(warning.message))})
    if not missing:
        return picture, notes
    characters = "".join(map(chr, missing[:12])) + "…" * (len(missing) > 12)
    codes = ", ".join([*(f"U+{code:04X}" for code in missing[:4]), *["…"] * (len(missing) > 4)])
    notes.append(
        f"no installed font has the glyphs {characters} ({codes}), shown as \N{REPLACEMENT CHARACTER}: install "
        "fonts-noto-cjk, fonts-noto-core, fonts-symbola (Debian and Ubuntu) or another font that has them"
    )
    placeholders = dict.fromkeys(missing, "\N{REPLACEMENT CHARACTER}")
    sides = [[label.translate(placeholders) for label in side] for side in sides]
    footer = [note.translate(placeholders) for note in notes]
    return _render(weights, sides, printable(title).translate(placeholders), footer), notes


def _render(weights: npt.NDArray[np.float64], sides: list[list[str]], title: str, notes: list[str]) -> Figure:
    """Return the picture. Every text is measured, which warns of missing glyphs, and all places are set: matplotlib's
    own layout takes twice as long."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}  # the others would be looked for again for every label
    families = [name for name in _STYLE["font.family"] if name in installed]
    with matplotlib.rc_context({**_STYLE, "font.family": families}):
        picture = Figure(dpi=_DPI, facecolor="white")
        canvas: Any = FigureCanvasAgg(picture)
        axes, bar_axes = picture.add_axes((0, 0, 1, 1)), picture.add_axes((0, 0, 1, 1))
        image = axes.imshow(weights, cmap=colormap(), vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
        _label(axes, *sides)
        bar = picture.colorbar(image, cax=bar_axes, ticks=[0, 0.25, 0.5, 0.75, 1])
        bar.outline.set(color="0.6", linewidth=0.8)
        bar_axes.tick_params(labelsize=8, length=2, color="0.6")
        columns, rows = ([text.get_window_extent(canvas.get_renderer()) for text in labels] for labels in _texts(axes))
        left = max(box.width for box in rows) / _DPI + _AXIS_LABEL
        top = max(box.height for box in columns) / _DPI + _AXIS_LABEL
        cells = len(sides[0]) * _CELL, len(sides[1]) * _CELL
        width, room = max(left + cells[0] + _BAR, 4.2), max(cells[1], 1.3)
        picture.set_size_inches(width, room)  # lines are wrapped at this width
        lines, heights = dict[str, Any](), {"top": 0.0, "bottom": 0.0}
        for place, add, text, size in (
            ("top", picture.suptitle, title, 11.5),
            ("bottom", picture.supxlabel, "; ".join(notes), 7.5),
        ):
            if text:
                lines[place] = add(text, x=_MARGIN / width, size=size, ha="left", va=place, wrap=True)
                heights[place] = lines[place].get_window_extent(canvas.get_renderer()).height / _DPI + _MARGIN
        top += heights["top"]
        height = top + room + _MARGIN + heights["bottom"]
        picture.set_size_inches(width, height)
        for place, line in lines.items():
            line.set_y((height - _MARGIN if place == "top" else _MARGIN) / height)
        for part, x, area in ((axes, left, cells), (bar_axes, left + cells[0] + 0.15, (0.1, min(2.2, room)))):
            part.set_position((x / width, 1 - (top + area[1]) / height, area[0] / width, area[1] / height))
    return picture


def _texts(axes: Any) -> tuple[list[Any], list[Any]]:
    return axes.get_xticklabels(), axes.get_yticklabels()


def _label(axes: Any, source: list[str], target: list[str]) -> None:
    columns, rows = (
        [x if len(x) <= MAX_LABEL else x[: MAX_LABEL - 1] + "…" for x in side] for side in (source, target)
    )
    axes.set_xticks(range(len(source)), columns, rotation=LABEL_ROTATION, size=10)
    axes.set_yticks(range(len(target)), rows, size=10)
    axes.set_xlabel("source", size=8.5, color="0.35")
    axes.set_ylabel("target", size=8.5, color="0.35")
    axes.xaxis.set_label_position("top")
    axes.tick_params(which="both", length=0, pad=4, top=True, bottom=False, labeltop=True, labelbottom=False)
    for label, name in zip(chain(*_texts(axes)), source + target, strict=True):
        if name == EOS_LABEL:
            label.set(color="0.45", style="italic")
    # faint lines between the cells, a dark one before the end token
    for draw, names, others in ((axes.vlines, source, target), (axes.hlines, target, source)):
        faint, dark = list(range(1, len(names))), list[int]()
        if faint and names[-1] == EOS_LABEL:
            dark = [faint.pop()]
        for positions, color, line_width in ((faint, "0.9", 0.6), (dark, "0.45", 1.0)):
            places = np.array(positions) - 0.5
            draw(places, -0.5, len(others) - 0.5, colors=color, linewidth=line_width)
    axes.set(xlim=(-0.5, len(source) - 0.5), ylim=(len(target) - 0.5, -0.5))
    for spine in axes.spines.values():
        spine.set(color="0.6", linewidth=0.8)
