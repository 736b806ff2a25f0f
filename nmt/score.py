"""python -m nmt.score: score given translations with a trained model, and rerank them."""

import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nmt.cli.compose import run_command
from nmt.cli.configs import ScoreConfig
from nmt.cli.loading import load_reverse, load_translator
from nmt.data.text_files import check_file, read_parallel
from nmt.inference.line_reader import LineReader
from nmt.inference.line_translator import json_line
from nmt.inference.scorer import PairScore
from nmt.inference.translator import ScoredPair
from nmt.runtime.compression import atomic_output, find_file
from nmt.runtime.process import setup_process
from nmt.runtime.progress import show_stage
from nmt.runtime.terminal import escape_controls

log = logging.getLogger(__name__ if __name__ != "__main__" else "nmt.score")

LINES_AT_ONCE, MAX_LINE_BYTES = 2048, 1 << 26
"""Lines whose pairs are sorted by length and scored together, if available; length above which a line is not read."""


def main(config: ScoreConfig, overrides: list[str]) -> None:
    """Score every pair and write the numbers, in order; the perplexity of all is logged."""
    setup_process(config.num_threads)
    reverse, number, num_lines, num_tokens, log_prob = None, 0, 0, 0, 0.0
    if config.target is None and sys.stdin is None:  # closed by whoever started the command
        raise ValueError("standard input is closed; open it, as in < pairs.tsv, or give source and target")
    if config.target is not None:  # read twice: errors come before any output
        for path in map(find_file, map(Path, (str(config.source), config.target))):
            check_file(path, "; a pipe of pairs is read from standard input" if path.is_fifo() else "")
        num_lines = sum(map(len, _read(config)))
    config.search.coverage_penalty, config.search.replace_unknown = 0.0, "none"  # which may need attention
    overrides = [*overrides, "search.coverage_penalty=0", "search.replace_unknown=none"]
    translator, options = load_translator(config.checkpoint, config, overrides)
    translator = translator.into(options.data, config.target_lang, config.tag)
    if config.reverse is not None:
        reverse, _ = load_reverse(config, options.data, overrides)
    with ExitStack() as stack:
        output: Any = sys.stdout.buffer
        if config.output is not None:
            output = stack.enter_context(atomic_output(Path(config.output)))
        show = stack.enter_context(show_stage("scoring", num_lines, announce=False))
        for lines in _read(config):
            scores = iter(translator.score([pair for line in lines for pair in line], reverse))
            for line in lines:
                number, scored = number + 1, [(i, pair, next(scores)) for i, pair in enumerate(line, 1)]
                if config.rerank:
                    field = "score" if reverse is None else "mean_score"
                    scored.sort(key=lambda item: getattr(item[2], field), reverse=True)
                for i, (source, target, _), score in scored:
                    values = {name: value for name, value in score._asdict().items() if value is not None}
                    if score.error is not None:
                        values = {"log_prob": None, "error": f"not scored: {score.error}"}
                        print(escape_controls(f"line {number}: not scored: {score.error}"), file=sys.stderr)
                    else:
                        num_tokens, log_prob = num_tokens + score.num_tokens, log_prob + score.log_prob
                    record = {"line": number, "number": i, "source": source, "target": target, **values}
                    row = json_line(record) if config.format == "jsonl" else _columns(record, config)
                    output.write(f"{row}\n".encode(errors="replace"))
            output.flush()
            show(number)
    perplexity = math.exp(min(-log_prob / max(num_tokens, 1), 100.0))
    log.info("%d lines, %d tokens with the end tokens: perplexity %.6g", number, num_tokens, perplexity)


def _read(config: ScoreConfig) -> Iterator[list[list[ScoredPair]]]:
    """Yield lines, each with its pairs, as many as are available; raise ValueError naming a line that is wrong."""
    if config.target is not None:
        for block in read_parallel(find_file(Path(str(config.source))), find_file(Path(config.target)), Counter()):
            lines: list[list[ScoredPair]] = [[(*pair, ())] for pair in zip(*block, strict=True)]
            yield from (lines[start : start + LINES_AT_ONCE] for start in range(0, len(lines), LINES_AT_ONCE))
        return
    reader, number, is_json = LineReader(sys.stdin.fileno(), MAX_LINE_BYTES), 0, False
    while read := reader.read_batch(LINES_AT_ONCE):
        is_json = is_json if number else (read[0] or b"").lstrip().startswith(b"{")
        yield [_parse(line, f"standard input, line {i}", is_json) for i, line in enumerate(read, number + 1)]
        number += len(read)


def _parse(line: bytes | None, where: str, is_json: bool) -> list[ScoredPair]:
    try:
        source, *texts = (line or b"").decode().removesuffix("\r").split("\t")
        record = json.loads(line or b"") if is_json else {"source": source, "targets": texts}
    except ValueError as error:
        reason = str(error).replace("line 1 ", "")  # of JSON
        raise ValueError(f"{where}: cannot be read ({reason}); mend the line or remove it") from None
    record = record if isinstance(record, dict) else {}
    found: Any = next((record[name] for name in ("targets", "n_best", "target", "translation") if name in record), [])
    pairs = list[Any]()
    for item in found if isinstance(found, list) else [found]:
        values = item if isinstance(item, dict) else {**record, "text": item}
        subwords = values.get("subwords", values.get("target_subwords"))
        pairs.append((record.get("source"), values.get("text"), subwords if isinstance(subwords, list) else ()))
    if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair[:2]):
        forms = 'source TAB target [TAB target …], or JSON with "source" and "target", or "targets", a list'
        raise ValueError(f"{where}: needs a source and a target: {forms}")
    return pairs


def _columns(record: dict[str, Any], config: ScoreConfig) -> str:
    """Return the numbers of a pair, "" without a score, and its texts if they are wanted."""
    values = [record.get(name) for name in PairScore._fields[: 6 if config.reverse is None else 9]]
    columns = ["" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value) for value in values]
    names = ["source", "target"] if config.format == "tsv" else ["target"] * config.rerank
    columns += [re.sub(r"[\t\r\n]", " ", record[name]) for name in names]
    return "\t".join(columns) if any(columns) else ""


if __name__ == "__main__":
    run_command(main, ScoreConfig, "score")
