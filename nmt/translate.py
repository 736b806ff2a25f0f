"""python -m nmt.translate: standard input to standard output, one line for each line, in order."""

import sys
from collections.abc import Iterator
from itertools import islice

from nmt import checkpoint, runtime
from nmt.config import command, overlay
from nmt.options import from_primitive
from nmt.schema import Config, TranslateConfig
from nmt.translator import Translator

BATCHES_AT_ONCE = 16
"""Batches of lines read before they are sorted by length and translated; a terminal is answered line by line."""


def main(config: TranslateConfig, overrides: list[str]) -> None:
    """Translates until the input ends. Bytes that are not UTF-8 become U+FFFD, counted on standard error."""
    runtime.prepare(config.threads)
    device = runtime.device(config.device)
    content = checkpoint.load(checkpoint.locate(config.checkpoint), device)
    merged = overlay(from_primitive(Config, content["config"]), config, overrides)
    translator = Translator.from_checkpoint(content, merged.search, device)
    lines = _lines()
    at_once = 1 if sys.stdin.isatty() else BATCHES_AT_ONCE * merged.search.batch_size
    num_cut = 0
    while block := list(islice(lines, at_once)):
        for translation in translator.translate(block):
            num_cut += translation.cut
            sys.stdout.buffer.write(translation.text.encode("utf-8", errors="replace") + b"\n")
        sys.stdout.buffer.flush()
    if num_cut:
        limits = "search.max_ratio and search.max_extra"
        print(f"{num_cut} translations reached the longest length that {limits} allow, and end there", file=sys.stderr)


def _lines() -> Iterator[str]:
    r"""Lines of standard input; they end at "\n" only, a "\r" before it is removed."""
    repaired = 0
    for raw in sys.stdin.buffer:
        text = raw.removesuffix(b"\n").removesuffix(b"\r")
        try:
            yield text.decode("utf-8").strip(" ")
        except UnicodeDecodeError:
            repaired += 1
            yield text.decode("utf-8", errors="replace").strip(" ")
    if repaired:
        print(f"{repaired} lines were not valid UTF-8: the bytes in question became U+FFFD", file=sys.stderr)


if __name__ == "__main__":
    command(main, TranslateConfig, "translate")
