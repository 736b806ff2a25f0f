"""Blank text, held against the properties of Unicode."""

import pytest

from nmt.export.scripts import text as exported
from nmt.runtime import text
from nmt.runtime.text import is_blank


def test_blank_characters_are_those_that_unicode_says_are_not_displayed() -> None:
    """And four that it counts as symbols or formats, and are not displayed either."""
    regex = pytest.importorskip("regex")
    characters = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)
    invisible = set(regex.findall(r"[\p{White_Space}\p{Cc}\p{Default_Ignorable_Code_Point}]", characters))
    assert {character for character in characters if is_blank(character)} == invisible | set("\u2800\ufff9\ufffa\ufffb")


@pytest.mark.parametrize(
    "line", ["", " ", "\t", "\u00a0", "\u200b", "\u3000", "\ufeff", " \t\u200d\u2003 ", "\r", "\0", "\ufe0f"]
)
def test_blank_lines(line: str) -> None:
    assert is_blank(line)
    for visible in ("a", ".", "字", "\u0301", "\u06dd", "\ufffd", "🙂", "\ue000"):
        assert not is_blank(line + visible)
        assert not is_blank(visible + line)


def test_exported_models_take_the_same_lines_for_blank() -> None:
    assert exported._INVISIBLE == text._INVISIBLE
