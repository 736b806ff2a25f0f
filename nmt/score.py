"""python -m nmt.score: score given translations with a trained model, and rerank them."""

import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from nmt import checkpoint
from nmt.cli.compose import merge_with_checkpoint, run_command
from nmt.cli.configs import Config, ScoreConfig
from nmt.data import DataConfig
from nmt.data.text_files import check_file, read_parallel
from nmt.inference.aligner import check_directions
from nmt.inference.line_reader import LineReader
from nmt.inference.line_translator import json_line
from nmt.inference.scorer import PairScore
from nmt.inference.translator import ScoredPair, Translator
from nmt.runtime.device import resolve_device
from nmt.runtime.files import atomic_write, open_output
from nmt.runtime.process import setup_process
from nmt.runtime.progress import show_stage
from nmt.runtime.terminal import escape_controls

log = logging.getLogger(__name__ if __name__ != "__main__" else "nmt.score")

LINES_AT_ONCE = 2048
"""Lines whose pairs are sorted by length and scored together, if so many are available."""

Line = list[ScoredPair]
"""A source with each of its targets."""


def main(config: ScoreConfig, overrides: list[str]) -> None:
    """Score every pair and write the numbers, in order; the perplexity of all is logged."""
    setup_process(config.num_threads)
    device, num_lines, number, num_tokens, log_prob = resolve_device(config.device), 0, 0, 0, 0.0
    if config.target is not None:  # read twice: errors come before any output
        for path in map(Path, (str(config.source), config.target)):
            check_file(path, "; a pipe of pairs is read from standard input" if path.is_fifo() else "")
        num_lines = sum(map(len, _read(config)))
    translator, data = _load(config.checkpoint, config, overrides, device)
    reverse = None
    if config.reverse is not None:
        reverse, reverse_data = _load(config.reverse, config, overrides, device)
        check_directions(config.checkpoint, data, config.reverse, reverse_data)
    with ExitStack() as stack:
        output: Any = sys.stdout.buffer
        if config.output is not None:
            output = stack.enter_context(open_output(stack.enter_context(atomic_write(Path(config.output)))))
        show = stack.enter_context(show_stage("scoring", num_lines, announce=False))
        for lines in _read(config):
            scores = iter(translator.score([pair for line in lines for pair in line], reverse))
            for line in lines:
                number, records = number + 1, list[dict[str, Any]]()
                for i, (source, target, _) in enumerate(line, 1):
                    values = {name: value for name, value in next(scores)._asdict().items() if value is not None}
                    if error := values.get("error"):
                        values = {"log_prob": None, "error": f"not scored: {error}"}
                        print(escape_controls(f"line {number}: not scored: {error}"), file=sys.stderr)
                    num_tokens += values.get("num_tokens", 0)
                    log_prob += values["log_prob"] or 0.0
                    records.append({"line": number, "number": i, "source": source, "target": target, **values})
                if config.rerank:
                    key = "score" if reverse is None else "mean_score"
                    records.sort(key=lambda record: record.get(key, -math.inf), reverse=True)
                rows = (json_line(row) if config.format == "jsonl" else _columns(row, config) for row in records)
                output.write("".join(f"{row}\n" for row in rows).encode(errors="replace"))
            output.flush()
            show(number)
    perplexity = math.exp(min(-log_prob / max(num_tokens, 1), 100.0))
    log.info("%d lines, %d tokens with the end tokens: perplexity %.6g", number, num_tokens, perplexity)


def _load(paths: Any, config: ScoreConfig, overrides: list[str], device: Any) -> tuple[Translator, DataConfig]:
    paths = paths if isinstance(paths, list) else [paths]
    contents = [checkpoint.load(checkpoint.resolve(path), device) for path in paths]
    trained = Config.from_checkpoint(contents[0])
    search = merge_with_checkpoint(trained, config, overrides).search
    search = replace(search, coverage_penalty=0.0, replace_unknown="none")  # which may need attention
    return Translator.from_checkpoints(contents, search, device), trained.data


def _read(config: ScoreConfig) -> Iterator[list[Line]]:
    """Yield the lines that are available, at most `LINES_AT_ONCE`; raise ValueError naming one that is wrong."""
    if config.target is not None:
        for block in read_parallel(Path(str(config.source)), Path(config.target), Counter()):
            lines: list[Line] = [[(*pair, ())] for pair in zip(*block, strict=True)]
            yield from (lines[start : start + LINES_AT_ONCE] for start in range(0, len(lines), LINES_AT_ONCE))
        return
    reader, number, is_json = LineReader(sys.stdin.fileno()), 0, False
    while read := reader.read_batch(LINES_AT_ONCE):
        is_json = is_json if number else (read[0] or b"").lstrip().startswith(b"{")
        yield [_parse(line, f"standard input, line {i}", is_json) for i, line in enumerate(read, number + 1)]
        number += len(read)


def _parse(line: bytes | None, where: str, is_json: bool) -> Line:
    try:
        if line is None:
            raise ValueError("longer than a line may be")
        source, *texts = line.decode().removesuffix("\r").split("\t")
        record = json.loads(line) if is_json else {"source": source, "targets": texts}
    except ValueError as error:
        reason = str(error).replace("line 1 ", "")  # of JSON
        raise ValueError(f"{where}: cannot be read ({reason}); mend the line or remove it") from None
    record = record if isinstance(record, dict) else {}
    found: Any = next((record[name] for name in ("targets", "n_best", "target", "translation") if name in record), [])
    pairs = list[Any]()
    for item in found if isinstance(found, list) else [found]:
        values = item if isinstance(item, dict) else {**record, "text": item}
        subwords = values.get("subwords", values.get("target_subwords"))
        known = isinstance(subwords, list) and all(isinstance(name, str) for name in subwords)
        pairs.append((record.get("source"), values.get("text", values.get("target")), subwords if known else []))
    if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair[:2]):
        raise ValueError(
            f"{where}: needs a source and a target: source TAB target [TAB target …], or JSON with the texts "
            '"source" and "target", or with "targets", a list'
        )
    return pairs


def _columns(record: dict[str, Any], config: ScoreConfig) -> str:
    """Return the numbers of a pair, "" without a score, and its texts if they are wanted."""
    values = [record.get(name) for name in PairScore._fields[: 6 if config.reverse is None else 9]]
    columns = [f"{value:.6f}" if isinstance(value, float) else str(value or "") for value in values]
    names = ["source", "target"] if config.format == "tsv" else ["target"] * config.rerank
    columns += [re.sub(r"[\t\r\n]", " ", record[name]) for name in names]
    return "\t".join(columns) if any(columns) else ""


if __name__ == "__main__":
    run_command(main, ScoreConfig, "score")
