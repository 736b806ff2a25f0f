"""Heat maps of attention as pictures: source across, target down, darker for more weight."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
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
_CELL = 0.27  # inches
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
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager

    source, target = sides
    installed = {font.name for font in fontManager.ttflist}  # the others would be looked for again for every label
    families = [name for name in _STYLE["font.family"] if name in installed]
    with matplotlib.rc_context({**_STYLE, "font.family": families}):
        picture = Figure(dpi=_DPI, facecolor="white", layout="constrained")
        canvas: Any = FigureCanvasAgg(picture)
        axes = picture.add_subplot()
        image = axes.imshow(weights, cmap=colormap(), vmin=0.0, vmax=1.0, interpolation="nearest")
        _label(axes, source, target)
        axes.set_anchor("NW")
        # cells have the same size in all pictures, so the room for labels must be measured
        renderer = canvas.get_renderer()
        left = max(text.get_window_extent(renderer).width for text in axes.get_yticklabels()) / _DPI + 0.45
        top = max(text.get_window_extent(renderer).height for text in axes.get_xticklabels()) / _DPI + 0.45
        room = max(len(target) * _CELL, 1.3)
        width, height = max(left + len(source) * _CELL + 0.8, 4.2), top + room
        # without `pad` the distance is a share of the width, and pushes the labels out of a wide picture
        sizes: Any = {"shrink": min(2.2 / room, 1.0), "aspect": 15, "fraction": 0.1 / width, "pad": 0.15 / width}
        bar = picture.colorbar(image, ticks=[0, 0.25, 0.5, 0.75, 1], anchor=(0.0, 1.0), **sizes)
        bar.outline.set(color="0.6", linewidth=0.8)
        bar.ax.tick_params(labelsize=8, length=2, color="0.6")
        picture.set_size_inches(width, height)
        for add, text, size in ((picture.suptitle, title, 11.5), (picture.supxlabel, "; ".join(notes), 7.5)):
            if text:
                line = add(text, x=0.12 / width, ha="left", size=size, wrap=True)
                height += line.get_window_extent(renderer).height / _DPI + 0.12
        picture.set_size_inches(width, height)
        canvas.draw()
    return picture


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
    for label, name in zip([*axes.get_xticklabels(), *axes.get_yticklabels()], source + target, strict=True):
        if name == EOS_LABEL:
            label.set(color="0.45", style="italic")
    # faint lines between the cells, a dark one before the end token
    for line, names in ((axes.axvline, source), (axes.axhline, target)):
        for position in range(1, len(names)):
            last = position == len(names) - 1 and names[position] == EOS_LABEL
            line(position - 0.5, color="0.45" if last else "0.9", linewidth=1.0 if last else 0.6)
    for spine in axes.spines.values():
        spine.set(color="0.6", linewidth=0.8)
