"""Templates of the pages, and the formatting of texts and numbers in them."""

from __future__ import annotations

import math
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Return `text` with a replacement character for what HTML does not allow."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def format_number(value: float | None, digits: int = 3) -> str:
    """Return a number for a table: with a minus sign, a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return "0" + text[2:] if text.strip("-0.") == "" and text[0] == "-" else text.replace("-", "−")


environment = Environment(
    loader=PackageLoader("nmt", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}


def macros(template: str) -> Any:
    """Return the macros of a template as functions that return HTML."""
    return environment.get_template(template).module
