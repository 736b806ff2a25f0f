"""python -m nmt.compare RUN RUN …: what came out of runs, and with --diff what was different about them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nmt.cli.help import SUMMARIES
from nmt.compare.comparison import compare_runs
from nmt.compare.page import page
from nmt.compare.run_diff import RunSnapshot, diff_runs
from nmt.compare.run_results import find_reports, read_run_result
from nmt.compare.sentences import NUM_SENTENCES
from nmt.compare.tables import FORMATS, SECTIONS, SUFFIXES
from nmt.evaluation.metrics import SIGNIFICANCE_TESTS
from nmt.runtime.errors import report_errors
from nmt.runtime.files import write_text

HTML = "html"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; python -m nmt.compare --help says more")


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
    add("--baseline", metavar="GROUP", help="what the others are compared with: its label, option=value, or a run")
    add("--factors", metavar="OPTIONS", help="options varied on purpose, a,b; without it, whatever differs")
    add(
        "--test-set",
        default="",
        metavar="NAME",
        help="a further test set, by its folder in the reports, such as test_long",
    )
    add("--target-bleu", type=float, metavar="X", help="tell the minutes until a validation had so much")
    add("--sections", metavar="SECTIONS", help=f"some of {','.join(SECTIONS)}")
    add(
        "--significance-test",
        default="bootstrap",
        choices=SIGNIFICANCE_TESTS,
        help="paired test: bootstrap, or approximate randomization",
    )
    add("--num-resamples", type=int, default=1000, metavar="N", help="of the paired test; 0 leaves it out")
    add(
        "--num-sentences",
        type=int,
        default=NUM_SENTENCES,
        metavar="N",
        help="shown in a page, with every group's attention",
    )
    add("--format", choices=[*FORMATS, HTML], help="default: what --output ends in, else text")
    add(
        "--output",
        action="append",
        default=[],
        metavar="FILE",
        help="file to write, in the form that it ends in; several --output make several; without, it is printed",
    )
    add(
        "--diff",
        action="store_true",
        help="print what differs: options, vocabularies, parameters, initialisation, FLOPs and versions",
    )
    return parser


def _forms(options: argparse.Namespace) -> list[str]:
    """The form of each file, or of what is printed."""
    known = {**SUFFIXES, ".html": HTML}
    return [options.format or known.get(Path(file).suffix, "text") for file in options.output or [""]]


def _compared(options: argparse.Namespace) -> list[str]:
    """The comparison in each form."""
    if len(options.runs) < 1:
        raise ValueError("name the runs: python -m nmt.compare RUN RUN …, or a folder of runs")
    sections = options.sections.split(",") if options.sections else list(SECTIONS)
    for section in sections:
        if section not in SECTIONS:
            raise ValueError(f"--sections {options.sections}: must be some of {','.join(SECTIONS)}")
    if options.num_resamples < 0 or options.num_resamples == 1:
        raise ValueError(f"--num-resamples {options.num_resamples}: must be 0 (no paired test) or at least 2")
    if options.num_sentences < 0:
        raise ValueError(f"--num-sentences {options.num_sentences}: must be 0 (none) or more")
    reports, left_out = find_reports(options.runs, options.test_set)
    if len(reports) < 2:
        raise ValueError("; ".join([*left_out, f"{len(reports)} evaluated run: two or more are needed to compare"]))
    comparison = compare_runs(
        [read_run_result(report) for report in reports],
        baseline=options.baseline,
        varied=options.factors.split(",") if options.factors else (),
        resamples=options.num_resamples,
        test=options.significance_test,
        target_bleu=options.target_bleu,
    )
    comparison.warnings[:0] = left_out
    return [
        page(comparison, sections, options.num_sentences) if form == HTML else FORMATS[form](comparison, sections)
        for form in _forms(options)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point.

    Raises:
        SystemExit: 1 after an error, told in one line; 130 when interrupted.
    """
    with report_errors():
        options = _parser().parse_args(arguments)
        if options.diff and len(options.runs) < 2:
            raise ValueError(f"--diff {' '.join(options.runs)}: two or more runs are needed, as in --diff RUN RUN")
        if options.diff:
            texts = [diff_runs([RunSnapshot.read(path) for path in options.runs]) + "\n"] * max(len(options.output), 1)
        else:
            texts = _compared(options)
        for file, text in zip(options.output, texts, strict=False):
            write_text(Path(file), text)
        if not options.output:
            print(texts[0], end="", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
