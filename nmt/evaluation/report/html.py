"""Pieces of HTML that all sections of the page are made of."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

Cell = str | tuple[str, str]
"""Text that is HTML already, or (its HTML, a class)."""


def printable(text: str) -> str:
    """`text` with a placeholder for what HTML cannot hold."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def escape(text: str) -> str:
    """`text` safe in HTML content and in quoted attributes, with a placeholder for what HTML cannot hold."""
    return html.escape(printable(text), quote=True)


def section(title: str, body: str, about: str = "") -> str:
    """A part of the page under its own heading and address; nothing when there is no body."""
    if not body:
        return ""
    intro = f'<p class="soft small">{about}</p>\n' if about else ""
    return f'<section id="{anchor(title)}">\n<h2>{title}</h2>\n{intro}{body}\n</section>\n'


def anchor(title: str) -> str:
    """The address of a section."""
    return title.lower().replace(" ", "-")


def table(name: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, caption: str = "") -> str:
    """A table that scrolls by itself; the first cell of a row is its heading.

    Args:
        name: for those who do not see it.
        heads, rows: HTML. caption: HTML above the table.
    """
    body = "".join(f'<tr><th scope="row">{row[0]}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in rows)
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    above = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table class="data">{above}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    return f"<td>{cell}</td>" if isinstance(cell, str) else f'<td class="{cell[1]}">{cell[0]}</td>'


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table: a true minus sign, a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return "0" + text[2:] if text.strip("-0.") == "" and text[0] == "-" else text.replace("-", "−")


def shaded(text: str, share: float, attributes: str = "") -> str:
    """A cell shaded by `share`, from 0 to 1, whose text stays readable on it."""
    share = min(max(share, 0.0), 1.0)
    style = f' style="--w:{share:.3g}"' if share >= 0.0005 else ""
    return f"<td{style}{contrast(share)}{attributes}>{text}</td>"


def contrast(share: float) -> str:
    """The class of a cell whose text must be light in a light page (hi), or dark in a dark one already (mid)."""
    return ' class="hi"' if share >= 0.64 else ' class="mid"' if share >= 0.5 else ""
