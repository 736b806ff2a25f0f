"""python -m nmt.translate: translate a file or standard input, line by line, in order."""

import contextlib
import io
import sys
import time
from pathlib import Path

from nmt.cli.compose import run_command
from nmt.cli.configs import TranslateConfig
from nmt.cli.loading import load_reverse, load_translator
from nmt.data.text_files import check_file
from nmt.export.ctranslate2_engine import make_engine
from nmt.inference.aligner import WORDS_CHANGED
from nmt.inference.glossary import load_glossary
from nmt.inference.line_reader import MAX_LINE_BYTES, LineReader
from nmt.inference.line_request import LineRequest
from nmt.inference.line_translator import LineTranslator, json_line
from nmt.runtime.compression import atomic_output, open_input
from nmt.runtime.logs import is_quiet
from nmt.runtime.process import setup_process
from nmt.runtime.terminal import escape_controls

BATCHES_AT_ONCE = 16
"""Batches of lines that are sorted by length and translated together, if so many lines are available."""


def main(config: TranslateConfig, overrides: list[str]) -> None:
    """Translate until the input ends, with one output line for each; problems are summarized on standard error."""
    for name, stream in (("input", sys.stdin), ("output", sys.__stdout__)):
        if stream is None and getattr(config, name) is None:  # closed by whoever started the command
            raise ValueError(f"standard {name} is closed; open both, as in < source.txt > target.txt")
    text = None if config.input is None else check_file(Path(config.input), "")
    setup_process(config.num_threads)
    translator, options = load_translator(config.checkpoint, config, overrides)
    if config.search.n_best > 1 and config.format == "text":
        print(
            f"search.n_best={config.search.n_best}: lines of text hold the best one; format=jsonl has all",
            file=sys.stderr,
        )
    translator = translator.into(options.data, config.target_lang, config.tag)
    translator.engine = make_engine(translator, options, config.engine)
    defaults = LineRequest(markup=config.markup, placeholders=config.placeholders)
    max_length, is_json = config.max_length or options.data.max_length, config.input_format == "jsonl"
    glossary = load_glossary(config.glossary, translator, config.glossary_mode)
    reverse = load_reverse(config, options.data, overrides)[0] if config.reverse is not None else None
    line_translator = LineTranslator(translator, max_length, defaults, is_json, glossary, reverse)
    with contextlib.ExitStack() as stack:
        reader = LineReader(sys.stdin.fileno() if text is None else stack.enter_context(open_input(text)))
        if config.output is not None:
            file = stack.enter_context(atomic_output(Path(config.output)))
            stack.enter_context(contextlib.redirect_stdout(io.TextIOWrapper(file)))
        _translate(line_translator, reader, config.format == "jsonl", BATCHES_AT_ONCE * options.search.batch_size)


def _translate(translator: LineTranslator, reader: LineReader, as_json: bool, max_lines: int) -> None:
    num_lines, started = 0, time.monotonic()
    num_failed = num_kept = num_repaired = 0
    is_typed = reader.source == 0 and sys.stdin.isatty()
    shows_progress = sys.stderr.isatty() and not (is_quiet() or is_typed or sys.stdout.isatty())
    while lines := reader.read_batch(max_lines):
        for line, result in zip(lines, translator.translate_lines(lines), strict=True):
            num_lines += 1
            num_repaired += line is not None and line.decode(errors="replace") != line.decode(errors="ignore")
            if result.error is not None:
                num_failed += result.written is None
                num_kept += result.written is not None
                print(escape_controls(f"line {num_lines}: {result.error}"), file=sys.stderr)
            text = json_line(translator.to_json(num_lines, result)) if as_json else result.text
            sys.stdout.buffer.write(text.encode("utf-8", errors="replace") + b"\n")
        sys.stdout.buffer.flush()
        if shows_progress:
            rate = num_lines / (time.monotonic() - started)
            print(f"\r{num_lines:,} lines, {rate:.1f} a second", end="", file=sys.stderr, flush=True)
    if shows_progress and num_lines:
        print(file=sys.stderr)
    counts, max_length = translator.counts, translator.max_length
    limits = "search.max_length_ratio and search.max_length_offset"
    for count, problem in (
        (int(reader.had_byte_order_mark or False), "byte-order mark at the start was removed"),
        (num_failed, f"lines had no translation and are empty (a line has at most {MAX_LINE_BYTES:,} bytes)"),
        (num_kept, "lines with markup had no translation and are as they were"),
        (num_repaired, "lines were not valid UTF-8: the bytes in question became U+FFFD"),
        (counts["unknown words"], f"lines have no links: {WORDS_CHANGED}"),
        (counts["split"], f"lines have more than {max_length} tokens and were translated in parts (max_length)"),
        (counts["placeholders"], "placeholders were lost in translation and put back where attention points"),
        (counts["truncated"], f"translations reached the longest length that {limits} allow, and end there"),
    ):
        if count:
            print(f"{count} {problem}", file=sys.stderr)
    if translator.glossary is not None:
        num, used = counts["terms"], counts["terms used"]
        share = f" ({100 * used / num:.1f} %)" if num else ""
        print(f"glossary: {num} terms in the text, {used} of them in the translations{share}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main, TranslateConfig, "translate")
