"""Standard input as the commands of exported folders read it."""

import io
import sys
from types import SimpleNamespace

import pytest

from nmt.export.scripts.text import translate_lines
from nmt.inference.line_translator import LineTranslator


@pytest.mark.parametrize("block_size", [1, 2, 100])
def test_marks_and_blank_lines_as_by_our_command(block_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["\ufeffa dog", "\t", "\u00a0", "\ufeffa dog", "", "\u200b", " a cat \r", "\u3000", "a\u200d", "\ufeff"]
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\n".join(lines).encode())))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=output))
    received: list[str] = []

    def encode(text: str) -> list[int]:
        received.append(text)
        return list(map(ord, text))

    translate_lines(encode, lambda sources: ["".join(map(chr, ids)).upper() for ids in sources], None, block_size)
    tokenizer = SimpleNamespace(prefixes=((), ()))
    splitter = SimpleNamespace(max_length=1000, translator=SimpleNamespace(tokenizer=tokenizer))
    lines[0] = lines[0].removeprefix("\ufeff")  # by the line reader
    expected = [LineTranslator._split(splitter, line.removesuffix("\r"))[0] for line in lines]  # type: ignore[arg-type]
    assert received == [text for text in expected if text] == ["a dog", "\ufeffa dog", "a cat", "a\u200d"]
    assert output.getvalue().decode() == "".join(f"{text.upper()}\n" for text in expected)
