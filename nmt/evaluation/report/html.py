"""Self-contained HTML pages: templates, resources, and the formatting of texts and numbers."""

import base64
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Return `text` with a replacement character for what HTML does not allow."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def printable_line(text: str) -> str:
    """Return `printable` text with spaces for what ends a line or reverses its direction."""
    return printable(re.sub("[\t\n\u2028-\u202e\u2066-\u2069]", " ", text))


def typeset(text: str) -> str:
    """Return numbers and ranges of numbers with minus signs and dashes; "61-" is "61 or more"."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", re.sub(r"(?<=\d)-(?=\d)", "–", re.sub(r"(\d)-$", r"\1 or more", text)))


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


class Macros(Protocol):
    """The macros of a template as functions."""

    def __getattr__(self, name: str) -> Callable[..., Markup]: ...


def macros(template: str) -> Macros:
    """Return the macros of a template."""
    module: Any = environment.get_template(template).module
    return module  # type: ignore[no-any-return]


def html_document(
    title: str, name: str, about: str, sections: Mapping[str, tuple[str, str]], *, styles: str = "", script: str = ""
) -> str:
    """Return the page as HTML.

    Args:
        title: its heading.
        name: its subject, for the title of the window.
        about: HTML or text below the heading.
        sections: by heading its HTML (`Markup`) and an introduction; one without HTML is left out.
        styles, script: CSS and JavaScript after that of all pages, page.css and matrix.js.
    """
    styles, script = read_resource("page.css") + styles, read_resource("matrix.js") + script
    # The Content-Security-Policy allows only this script and no requests, whatever the sentences contain.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    nonempty = {heading: (body.strip(), intro) for heading, (body, intro) in sections.items() if body.strip()}
    template = environment.get_template("evaluation/report/templates/document.html")
    content = {"title": title, "name": name, "about": about, "sections": nonempty, "digest": digest}
    return printable(template.render(content, styles=Markup(styles), script=Markup(script)))


def read_resource(name: str, package: str = "nmt.evaluation.report") -> str:
    """Return the text of a file in a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")
