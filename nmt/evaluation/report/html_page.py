"""Skeleton of a self-contained page: head, navigation, sections, styles and script in one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files

from markupsafe import Markup

from nmt.evaluation.report.html import environment, printable


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
