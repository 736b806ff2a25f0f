"""python -m nmt.compare RUN RUN …: compare the results of runs, or with --diff their options and models."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nmt.cli.help import SUMMARIES
from nmt.compare.comparison import compare_runs
from nmt.compare.page import page
from nmt.compare.run_diff import RunSnapshot, diff_runs
from nmt.compare.run_results import find_reports, read_directions, read_run_result
from nmt.compare.sentences import NUM_SENTENCES
from nmt.compare.tables import FORMATS, SECTIONS, SUFFIXES
from nmt.evaluation.metrics import SIGNIFICANCE_TESTS
from nmt.evaluation.report.html import printable_line
from nmt.plugins import load_plugins
from nmt.runtime.errors import check_arguments, report_errors
from nmt.runtime.files import write_text
from nmt.runtime.terminal import escape_controls

HTML, ALL = "html", "all"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; python -m nmt.compare --help shows the options")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m nmt.compare",
        description=SUMMARIES["compare"],
        epilog="examples: python -m nmt.compare runs/study --baseline scaled --output study.md; "
        "python -m nmt.compare runs/study --output compare.html --output compare.csv; "
        "python -m nmt.compare --diff runs/additive runs/dot",
    )
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="run directory, folder of runs, or report folder")
    add("--baseline", metavar="GROUP", help="group to compare with: its label, option=value, or a run")
    add("--factors", metavar="OPTIONS", help="options varied on purpose, a,b; default: whatever differs")
    text = f"folder of a further test set in the reports, as test_long; {ALL}: every direction, and their mean"
    add("--test-set", default="", metavar="NAME", help=text)
    add("--target-bleu", type=float, metavar="X", help="show the minutes until validation BLEU reached X")
    add("--sections", metavar="SECTIONS", help=f"some of {','.join(SECTIONS)}")
    add("--significance-test", default="bootstrap", choices=SIGNIFICANCE_TESTS, help="paired test of two systems")
    add("--num-resamples", type=int, default=1000, metavar="N", help="of the paired test; 0 leaves it out")
    add("--num-sentences", type=int, default=NUM_SENTENCES, metavar="N", help="with attention, in a page")
    add("--format", choices=[*FORMATS, HTML], help="default: by the suffix of --output, else text")
    add("--plugins", default="", metavar="FILES", help="plugins that the runs were trained with, a.py,b.c")
    add("--output", action="append", default=[], metavar="FILE", help="file, format by suffix; may be repeated")
    text = "print differences in options, vocabularies, parameters, initialization, FLOPs and versions"
    add("--diff", action="store_true", help=text)
    return parser


def _compare(options: argparse.Namespace) -> list[str]:
    """Return the comparison in the format of each output file, or of standard output."""
    if not options.runs:
        raise ValueError("name the runs: python -m nmt.compare RUN RUN …, or a folder of runs")
    sections = options.sections.split(",") if options.sections else list(SECTIONS)
    if not set(sections) <= set(SECTIONS):
        raise ValueError(f"--sections {options.sections}: must be some of {','.join(SECTIONS)}")
    if options.num_resamples < 0 or options.num_resamples == 1:
        raise ValueError(f"--num-resamples {options.num_resamples}: must be 0 (no paired test) or at least 2")
    if options.num_sentences < 0:
        raise ValueError(f"--num-sentences {options.num_sentences}: must be 0 (none) or more")
    pools = options.test_set == ALL and not any((path / ALL).is_dir() for path in map(Path, options.runs))
    reports, left_out = find_reports(options.runs, "" if pools else options.test_set)
    if len(reports) < 2:
        raise ValueError("; ".join([*left_out, f"{len(reports)} evaluated run: two or more are needed to compare"]))
    comparison = compare_runs(
        [(read_directions if pools else read_run_result)(report) for report in reports],
        baseline=options.baseline,
        factors=options.factors.split(",") if options.factors else (),
        num_resamples=options.num_resamples,
        significance_test=options.significance_test,
        target_bleu=options.target_bleu,
    )
    comparison.warnings[:] = map(printable_line, [*left_out, *comparison.warnings])
    suffixes = {**SUFFIXES, ".html": HTML}
    formats = [options.format or suffixes.get(Path(file).suffix, "") for file in options.output or ["out.txt"]]
    for file, name in zip(options.output, formats, strict=False):
        if not name:
            raise ValueError(f"--output {file}: must end in one of {', '.join(suffixes)}, or beside --format")
    num_sentences = 0 if pools else options.num_sentences
    return [
        page(comparison, sections, num_sentences) if name == HTML else FORMATS[name](comparison, sections)
        for name in formats
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        SystemExit: 1 after an error, which is printed in one line; 130 when interrupted.
    """
    with report_errors():
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        check_arguments(arguments)
        # as the other commands have it
        arguments = [f"--{text}" if text.startswith("plugins=") else text for text in arguments]
        options = _parser().parse_args(arguments)
        load_plugins([name for name in options.plugins.strip("[]").split(",") if name])
        if options.diff and len(options.runs) < 2:
            raise ValueError(f"--diff {' '.join(options.runs)}: two or more runs are needed, as in --diff RUN RUN")
        if options.diff:
            texts = [diff_runs([RunSnapshot.read(path) for path in options.runs]) + "\n"] * max(len(options.output), 1)
        else:
            texts = _compare(options)
        for file, text in zip(options.output, texts, strict=False):
            write_text(Path(file), text)
        if not options.output:
            print(escape_controls(texts[0]), end="", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
