"""The frame of a self-contained page: head, navigation, sections, styles and script in one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files

from nmt.evaluation.report.html import anchor, escape


def document(title: str, name: str, about: str, sections: Mapping[str, str], *, styles: str, script: str) -> str:
    """The page as text.

    Args:
        title: its heading. name: of what it is about, for the title of the window.
        about: HTML below the heading.
        sections: by heading what `nmt.evaluation.report.html.section` made; "" for one that is left out.
        styles, script: CSS and JavaScript.
    """
    links = "".join(f'<a href="#{anchor(heading)}">{heading}</a>' for heading, body in sections.items() if body)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing may be fetched, and no script but ours may run, whatever the sentences hold.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – {escape(name)}</title>\n<style>{styles}</style>\n</head>\n<body>\n"
        f'<header><h1 dir="auto">{escape(title)}</h1>{about}'
        f"<nav>{links}</nav></header>\n<main>\n{''.join(sections.values())}</main>\n<script>{script}</script>\n"
        "</body>\n</html>\n"
    )


def own(*names: str, package: str = "nmt.evaluation.report") -> str:
    """Files that belong to a package, one after the other."""
    return "".join(files(package).joinpath(name).read_text(encoding="utf-8") for name in names)
