"""Which installed fonts can draw a text, for pictures that must be readable in any script."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

BASE = "DejaVu Sans"
"""Comes with matplotlib; Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian and many symbols."""

PREFERRED = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Source Han Sans",
    "IPAGothic",
    "IPAexGothic",
    "TakaoGothic",
    "Hiragino Sans",
    "Yu Gothic",
    "MS Gothic",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "Droid Sans Fallback",
    "Noto Sans",
    "Noto Sans Symbols",
    "Noto Sans Symbols2",
    "Noto Emoji",
    "Symbola",
    "Arial Unicode MS",
    "FreeSans",
    "Unifont",
)
"""Families tried first, in this order, for what the base font lacks; then every other installed family by name."""

# They claim every character and draw none, or map letters to mathematical signs.
_UNUSABLE = ("Last Resort", ".LastResort", "Adobe Blank", "STIX", "cmb", "cmex", "cmmi", "cmr", "cmss", "cmsy", "cmtt")
_PACKAGES = (
    (("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH"), "fonts-noto-cjk"),
    (("emoji",), "fonts-symbola"),
)
_PLACEHOLDER = "\N{REPLACEMENT CHARACTER}"


class FontChoice(NamedTuple):
    """Families to draw with, in the order to try them, and the characters that none of them has."""

    families: list[str]
    missing: frozenset[str]

    def drawable(self, text: str) -> str:
        """`text` with a placeholder for what cannot be drawn and with control characters spelled out."""
        return "".join(self._drawable(character) for character in text)

    def _drawable(self, character: str) -> str:
        if character in self.missing:
            return _PLACEHOLDER
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            return character.encode("unicode_escape").decode("ascii")
        return _PLACEHOLDER if category == "Cs" else character

    def note(self) -> str | None:
        """One line that says which characters cannot be drawn and what to install; None when all can be."""
        if not self.missing:
            return None
        characters = sorted(self.missing)
        shown = "".join(characters[:12]) + ("…" if len(characters) > 12 else "")
        codes = ", ".join(f"U+{ord(character):04X}" for character in characters[:4])
        codes += ", …" if len(characters) > 4 else ""
        packages = " and ".join(dict.fromkeys(_package(character) for character in characters))
        return (
            f"no installed font has the glyphs {shown} ({codes}), shown as {_PLACEHOLDER}: "
            f"install {packages} (Debian and Ubuntu) or another font that has them"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps matplotlib from logging, for each font without the exact weight asked for, which one it took."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def choose(texts: Iterable[str], families: Sequence[str] | None = None) -> FontChoice:
    """Finds fonts for every character of `texts`.

    Args:
        texts: what will be drawn.
        families: the only families to use beside the base font; None for every installed one.
    """
    needed = {character for text in texts for character in text if _needs_glyph(character)}
    chosen: list[str] = []
    with quiet():
        for family in _candidates(families):
            covered = {character for character in needed if ord(character) in _characters(family)}
            if covered or family == BASE:
                chosen.append(family)
                needed -= covered
            if not needed:
                break
    return FontChoice(chosen, frozenset(needed))


def _needs_glyph(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")


def _package(character: str) -> str:
    name = unicodedata.name(character, "")
    if unicodedata.category(character) == "So" and ord(character) >= 0x1F000:
        name = "emoji"
    for prefixes, package in _PACKAGES:
        if name.startswith(prefixes):
            return package
    return "fonts-noto-core"


def _candidates(families: Sequence[str] | None) -> Iterator[str]:
    yield BASE
    if families is not None:
        yield from families
        return
    installed = _installed()
    yield from (family for family in PREFERRED if family in installed)
    yield from sorted(installed - {BASE, *PREFERRED})
    # matplotlib remembers the fonts of an earlier run: look once for those installed since.
    yield from sorted(_installed_since() - installed)


def _usable(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if not name.startswith(_UNUSABLE))


def _installed() -> frozenset[str]:
    from matplotlib.font_manager import fontManager

    return _usable(entry.name for entry in fontManager.ttflist)


@cache
def _installed_since() -> frozenset[str]:
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {str(entry.fname) for entry in fontManager.ttflist}
    before = _installed()
    for path in sorted(set(findSystemFonts()) - known):
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, NotImplementedError, ValueError):
            # Bitmap and damaged fonts, which matplotlib leaves out too.
            continue
    return _installed() - before


@cache
def _characters(family: str) -> frozenset[int]:
    """Code points of the face that matplotlib picks for `family`; none when there is no such family."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        path = findfont(FontProperties(family=family), fallback_to_default=False)
    except ValueError:
        return frozenset()
    return frozenset(get_font(path).get_charmap())
