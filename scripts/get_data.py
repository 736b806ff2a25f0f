"""Fetches public corpora and writes them as text files that training reads.

usage: python scripts/get_data.py NAME [NAME …] [--root data]
       python scripts/get_data.py --list
"""

import argparse
import difflib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # nmt, where it is not installed

from corpora.fetch import Shelf
from corpora.layout import RECORD, Recipe, Written, present, write
from corpora.progress import readable, say
from corpora.recipes import RECIPES


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done or nothing to do, 1 a corpus could not be had, 130 and 143 stopped by a signal."""
    options = parser().parse_args(arguments)
    if options.list:
        print("\n\n".join(described(recipe) for recipe in RECIPES.values()))
        return 0
    if not options.names:
        say("error: name a corpus, or see them with --list")
        return 1
    for name in options.names:
        if name not in RECIPES:
            near = difflib.get_close_matches(name, RECIPES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(RECIPES)}"
            say(f"error: {name}: no such corpus; {hint}")
            return 1
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        return max([_one(RECIPES[name], options) for name in options.names])
    except KeyboardInterrupt as stop:
        say("stopped; the same command continues")
        return int(stop.args[0]) if stop.args else 130
    finally:
        signal.signal(signal.SIGTERM, before)


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="get_data.py", description="Fetches public corpora and writes them as text files that training reads."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a corpus, see --list")
    parser.add_argument("--list", action="store_true", help="show every corpus: languages, size, licence, places")
    parser.add_argument("--root", type=Path, default=Path("data"), help="it goes to ROOT/NAME/ (default: data)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--timeout", type=_above_zero, default=60.0, help="seconds without a byte before trying again (default: 60)"
    )
    parser.add_argument(
        "--retries", type=_whole, default=5, help="further attempts in a row that bring nothing new (default: 5)"
    )
    return parser


def _one(recipe: Recipe, options: argparse.Namespace) -> int:
    """One corpus that cannot be had does not keep the others from coming."""
    try:
        _get(recipe, options)
    except (ValueError, OSError) as error:
        say(f"error: {recipe.name}: {_one_line(error)}")
        return 1
    return 0


def _get(recipe: Recipe, options: argparse.Namespace) -> None:
    folder = options.root / recipe.name
    if not options.force and (there := present(recipe, folder)):
        say(f"{recipe.name}: is there already, unchanged since it was fetched")
        print(table(recipe, there))
        return
    say(f"{recipe.name}: {recipe.title}; {recipe.size} to fetch\nterms of use: {recipe.licence}")
    if recipe.note:
        say(recipe.note)
    shelf = Shelf(folder / "downloads", timeout=options.timeout, retries=options.retries)
    written = write(recipe, folder, shelf)
    print(table(recipe, written))
    say(f"where it is from and what was changed: {folder / RECORD}; {shelf.folder} is not needed any more")


def table(recipe: Recipe, files: Sequence[Written]) -> str:
    """One line for each file: name, lines, bytes, and how far it was checked."""
    rows = []
    for file in files:
        prefix, _, language = file.path.name.rpartition(".")
        expected = recipe.expected[prefix]
        checks = ["lines as expected"] if expected.lines else ["lines: none recorded to compare with"]
        checks += ["digest as expected"] if expected.sha256.get(language) else []
        rows.append(f"{file.path}  {file.lines:,} lines  {readable(file.bytes)}  {', '.join(checks)}")
    return "\n".join(rows)


def described(recipe: Recipe) -> str:
    """What `--list` says of a corpus."""
    lines = ", ".join(
        f"{prefix} {expected.lines:,}" if expected.lines else f"{prefix} not recorded"
        for prefix, expected in recipe.expected.items()
    )
    every = dict.fromkeys(place for source in recipe.sources for place in source.places())
    places = "\n".join(f"    {place}" for place in every)
    note = f"\n  {recipe.note}" if recipe.note else ""
    return (
        f"{recipe.name}: {recipe.title}\n  languages: {' '.join(recipe.languages)}; download: {recipe.size}\n"
        f"  lines: {lines}\n  terms of use: {recipe.licence}{note}\n  from:\n{places}"
    )


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(128 + number)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    raise SystemExit(main())
