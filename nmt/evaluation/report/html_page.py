"""The frame of a self-contained page: head, navigation, sections, styles and script in one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files

from markupsafe import Markup

from nmt.evaluation.report.html import environment, printable


def html_document(
    title: str, name: str, about: str, sections: Mapping[str, tuple[str, str]], *, styles: str, script: str
) -> str:
    """Return the page as text.

    Args:
        title: its heading.
        name: what it is about, for the title of the window.
        about: HTML or text below the heading.
        sections: by heading its HTML (`Markup`) and a sentence above it; one without HTML is left out.
        styles: CSS.
        script: JavaScript.
    """
    # The template allows no script but this one to run and nothing to be fetched, whatever the sentences hold.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    filled = {heading: (body.strip(), intro) for heading, (body, intro) in sections.items() if body.strip()}
    page = environment.get_template("evaluation/report/templates/document.html").render(
        title=title,
        name=name,
        about=about,
        sections=filled,
        styles=Markup(styles),
        script=Markup(script),
        digest=digest,
    )
    return printable(page)


def read_resource(*names: str, package: str = "nmt.evaluation.report") -> str:
    """Return files that belong to a package, one after the other."""
    return "".join(files(package).joinpath(name).read_text(encoding="utf-8") for name in names)
