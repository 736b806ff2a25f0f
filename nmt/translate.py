"""python -m nmt.translate: standard input to standard output, one line for each line, in order."""

import sys
import time

from nmt import checkpoint
from nmt.cli.compose import merge_with_checkpoint, run_command
from nmt.cli.configs import Config, TranslateConfig
from nmt.inference.line_reader import MAX_LINE_BYTES, LineReader
from nmt.inference.line_translator import LineTranslator, json_line
from nmt.inference.translator import Translator
from nmt.runtime.device import resolve_device
from nmt.runtime.process import setup_process

BATCHES_AT_ONCE = 16
"""Batches of lines that are sorted by length and translated together, where so many are there."""


def main(config: TranslateConfig, overrides: list[str]) -> None:
    """Translates until the input ends. Whatever is in a line, there is one line for it; what was odd is told at the
    end on standard error."""
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None:  # closed by whoever started the command
            raise ValueError(f"standard {name} is closed; open both, as in < source.txt > target.txt")
    setup_process(config.num_threads)
    device = resolve_device(config.device)
    named = config.checkpoint if isinstance(config.checkpoint, list) else [config.checkpoint]
    contents = [checkpoint.load(checkpoint.resolve(path), device) for path in named]
    merged = merge_with_checkpoint(Config.from_dict(contents[0]["config"]), config, overrides)
    translator = Translator.from_checkpoints(contents, merged.search, device)
    del contents
    answers = LineTranslator(translator, config.max_length or merged.data.max_length)
    _translate(answers, config.format == "jsonl", BATCHES_AT_ONCE * merged.search.batch_size)


def _translate(answers: LineTranslator, as_json: bool, at_once: int) -> None:
    lines, number, started = LineReader(sys.stdin.fileno()), 0, time.monotonic()
    odd = {"repaired": 0, "failed": 0}
    shows = sys.stderr.isatty() and not sys.stdin.isatty() and not sys.stdout.isatty()
    while block := lines.read_batch(at_once):
        for line, answer in zip(block, answers.translate_lines(block), strict=True):
            number += 1
            odd["repaired"] += line is not None and _is_repaired(line)
            if answer.error is not None:
                odd["failed"] += 1
                print(f"line {number}: {answer.error}", file=sys.stderr)
            text = json_line(answers.to_json(number, answer)) if as_json else answer.n_best()[0].text
            sys.stdout.buffer.write(text.encode("utf-8", errors="replace") + b"\n")
        sys.stdout.buffer.flush()
        if shows:
            rate = number / (time.monotonic() - started)
            print(f"\r{number:,} lines, {rate:.1f} a second", end="", file=sys.stderr, flush=True)
    if shows and number:
        print(file=sys.stderr)
    _tell(answers, odd)


def _is_repaired(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _tell(answers: LineTranslator, odd: dict[str, int]) -> None:
    limits = "search.max_length_ratio and search.max_length_offset"
    told = {
        f"lines had no translation and are empty (a line has at most {MAX_LINE_BYTES:,} bytes)": odd["failed"],
        "lines were not valid UTF-8: the bytes in question became U+FFFD": odd["repaired"],
        f"lines have more than {answers.longest} tokens and were translated in parts (max_length)": answers.counts[
            "split"
        ],
        f"translations reached the longest length that {limits} allow, and end there": answers.counts["truncated"],
    }
    for text, num in told.items():
        if num:
            print(f"{num} {text}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main, TranslateConfig, "translate")
