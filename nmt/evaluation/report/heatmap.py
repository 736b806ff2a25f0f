"""Attention drawn as a picture: source across, target down, darker for more weight."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nmt.evaluation.report import fonts
from nmt.runtime.files import whole

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MAX_POSITIONS = 100
"""Rows and columns drawn at most; longer sentences are cut, with a note."""
MAX_LABEL = 28
END = "</s>"

_DPI = 110
_CELL = 0.27  # inches
_STYLE = {"text.usetex": False, "axes.unicode_minus": False, "path.simplify": False}


class _Picture(NamedTuple):
    figure: Figure
    notes: list[str]


def draw(
    path: str | Path,
    matrix: npt.ArrayLike,
    source_labels: Sequence[str],
    target_labels: Sequence[str],
    *,
    title: str = "",
    families: Sequence[str] | None = None,
) -> list[str]:
    """Writes a heat map of attention as a PNG file, which appears whole or not at all.

    Args:
        path: where to; its folder is made.
        matrix: (T, S) weights between 0 and 1.
        source_labels: S labels, drawn on top.
        target_labels: T labels, drawn on the left.
        title: a line above the picture.
        families: the only font families to use beside DejaVu Sans; None for every installed one.

    Returns:
        What a reader should know about the picture: glyphs that no font has, parts cut off. Empty when it is complete.

    Raises:
        ValueError: the labels do not fit the matrix, or a weight is negative or not a finite number.
    """
    picture = _compose(matrix, source_labels, target_labels, title, families)
    with whole(Path(path)) as temporary, _style():
        picture.figure.savefig(temporary, format="png", dpi=_DPI, bbox_inches=None)
    return picture.notes


def figure(
    matrix: npt.ArrayLike,
    source_labels: Sequence[str],
    target_labels: Sequence[str],
    *,
    title: str = "",
    families: Sequence[str] | None = None,
) -> Figure:
    """The picture that `draw` writes, as a matplotlib figure, with its notes in the footer. Not known to pyplot."""
    return _compose(matrix, source_labels, target_labels, title, families).figure


def colour_map() -> Colormap:
    """White for 0 to deep blue for 1, lightness falling evenly: readable without colour vision and in print.

    The ramp is a curve in Oklab (Ottosson 2020), where equal steps look equal.
    """
    from matplotlib.colors import ListedColormap

    t = np.linspace(0.0, 1.0, 256)
    bump = 4 * t * (1 - t)
    oklab = np.stack([1 - 0.76 * t, -0.02 * bump, -0.08 * t - 0.07 * bump], axis=1)
    to_cone = [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    to_linear = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = np.clip((oklab @ np.transpose(to_cone)) ** 3 @ np.transpose(to_linear), 0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return ListedColormap(srgb, name="attention")


@contextmanager
def _style() -> Iterator[None]:
    """A reader's own matplotlib settings must not change the picture, nor font look-ups fill the log."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), fonts.quiet():
        yield


def _checked(matrix: npt.ArrayLike, num_source: int, num_target: int) -> npt.NDArray[np.float64]:
    weights = np.asarray(matrix, dtype=np.float64)
    if weights.shape != (num_target, num_source) or not weights.size:
        raise ValueError(
            f"attention of shape {weights.shape} does not fit {num_target} target and {num_source} source labels"
        )
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError("attention to draw holds values that are negative or not finite numbers")
    return weights


def _compose(
    matrix: npt.ArrayLike,
    source_labels: Sequence[str],
    target_labels: Sequence[str],
    title: str,
    families: Sequence[str] | None,
) -> _Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    weights = _checked(matrix, len(source_labels), len(target_labels))
    notes = _cut_notes(source_labels, target_labels)
    weights = weights[:MAX_POSITIONS, :MAX_POSITIONS]
    choice = fonts.choose([*source_labels, *target_labels, title], families)
    notes += [note for note in (choice.note(), _order_note([*source_labels, *target_labels, title])) if note]
    labels = [
        [_short(choice.drawable(label)) for label in side[:MAX_POSITIONS]] for side in (source_labels, target_labels)
    ]
    with _style():
        result = Figure(dpi=_DPI, facecolor="white")
        FigureCanvasAgg(result)
        axes = result.add_axes((0.0, 0.0, 1.0, 1.0))
        image = axes.imshow(weights, cmap=colour_map(), vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
        _label(axes, labels[0], labels[1], choice.families)
        _arrange(result, image, weights.shape, choice.drawable(title), choice.drawable("; ".join(notes)), choice)
    return _Picture(result, notes)


def _cut_notes(source_labels: Sequence[str], target_labels: Sequence[str]) -> list[str]:
    notes = [
        f"only the first {MAX_POSITIONS} of {len(side)} {name} positions are drawn"
        for name, side in (("source", source_labels), ("target", target_labels))
        if len(side) > MAX_POSITIONS
    ]
    drawn = [*source_labels[:MAX_POSITIONS], *target_labels[:MAX_POSITIONS]]
    num_long = sum(len(label) > MAX_LABEL for label in drawn)
    if num_long:
        notes.append(f"{num_long} {'label is' if num_long == 1 else 'labels are'} cut to {MAX_LABEL} characters")
    return notes


def _order_note(texts: list[str]) -> str | None:
    import matplotlib

    if matplotlib.__version_info__ >= (3, 11):
        return None
    if not any(unicodedata.bidirectional(character) in ("R", "AL") for text in texts for character in text):
        return None
    return f"matplotlib {matplotlib.__version__} draws right-to-left text in the wrong order: upgrade it to 3.11"


def _short(label: str) -> str:
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"


def _label(axes: Any, source: list[str], target: list[str], families: list[str]) -> None:
    style = {"family": families, "size": 10, "parse_math": False}
    axes.set_xticks(range(len(source)), source, rotation=90, **style)
    axes.set_yticks(range(len(target)), target, **style)
    axes.tick_params(which="both", length=0, pad=4, top=True, bottom=False, labeltop=True, labelbottom=False)
    for position, text in enumerate([*axes.get_xticklabels(), *axes.get_yticklabels()]):
        if (source + target)[position] == END:
            text.set(color="0.45", style="italic")
    # Faint lines part the cells; a dark one sets the end token apart.
    for axis, names in ((axes.axvline, source), (axes.axhline, target)):
        for position in range(1, len(names)):
            last = position == len(names) - 1 and names[position] == END
            axis(position - 0.5, color="0.45" if last else "0.9", linewidth=1.0 if last else 0.6)
    for spine in axes.spines.values():
        spine.set(color="0.6", linewidth=0.8)


def _arrange(
    figure: Figure, image: Any, shape: tuple[int, ...], title: str, footer: str, choice: fonts.FontChoice
) -> None:
    """Gives every part its place in inches, from the measured size of the labels, so that nothing overlaps."""
    axes = image.axes
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    left = max(text.get_window_extent(renderer).width for text in axes.get_yticklabels()) / _DPI + 0.42
    top = max(text.get_window_extent(renderer).height for text in axes.get_xticklabels()) / _DPI + 0.42
    height, width = shape[0] * _CELL, shape[1] * _CELL
    total_width = max(left + width + 0.95, 4.2)
    title_lines = _wrap(title, int(total_width * 9.5))
    footer_lines = _wrap(footer, int(total_width * 13))
    head = 0.24 * len(title_lines) + (0.12 if title_lines else 0.0)
    foot = 0.16 * len(footer_lines) + 0.15
    total_height = head + top + max(height, 1.3) + foot
    figure.set_size_inches(total_width, total_height)

    def place(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return x / total_width, 1 - (y + h) / total_height, w / total_width, h / total_height

    def text(x: float, y: float, words: str, size: float, colour: str) -> Any:
        position = x / total_width, 1 - y / total_height
        return figure.text(
            *position, words, va="top", size=size, color=colour, family=choice.families, parse_math=False
        )

    axes.set_position(place(left, head + top, width, height))
    bar = figure.add_axes(place(left + width + 0.15, head + top, 0.12, min(max(height, 1.2), 2.2)))
    colour_bar = figure.colorbar(image, cax=bar, ticks=[0, 0.25, 0.5, 0.75, 1])
    colour_bar.outline.set(color="0.6", linewidth=0.8)
    bar.tick_params(labelsize=8, length=2, color="0.6")
    text(0.12, 0.12, "\n".join(title_lines), 11.5, "black").set(weight="bold", linespacing=1.25)
    text(left + width / 2, head + 0.1, "source", 8.5, "0.35").set(ha="center")
    text(0.12, head + top + height / 2, "target", 8.5, "0.35").set(rotation=90, va="center")
    text(0.12, total_height - foot + 0.08, "\n".join(footer_lines), 7.5, "0.3").set(linespacing=1.2)


def _wrap(text: str, columns: int) -> list[str]:
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in text)
    return textwrap.wrap(text, columns // 2 if wide else columns, break_on_hyphens=False)
