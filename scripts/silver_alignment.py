"""Word alignments of parallel text by eflomal, an aligner of its own kind: a silver standard, or training data.

    python scripts/silver_alignment.py --languages en de --output DIR PREFIX [PREFIX ...]

reads PREFIX.en and PREFIX.de, aligns all the text given together in both directions, joins them, and writes
DIR/<name>.pharaoh for each prefix: one line of links i-j for each pair, words being what spaces separate. The files fit
`gold=` of `python -m nmt.align` and `data.alignment=` of a training with `train.guided_alignment`.

eflomal (Östling & Tiedemann 2016) is under the GPL and no part of this project; it is called as a program. Install it
where you like, in an environment of its own for example, with a C compiler at hand:

    python -m venv eflomal && eflomal/bin/pip install eflomal==2.0.0
    python scripts/silver_alignment.py --eflomal eflomal/bin/eflomal-align ...

The more text it is given the better it aligns: give the training text beside the test set.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nmt.alignment import METHODS, Link, read_pharaoh, symmetrize, write_pharaoh
from nmt.data.text_files import check_file, read_both

_EDGES = re.compile(r"^\W+|\W+$")


def plain(text: str) -> str:
    """As many words, in lower case and without punctuation at their ends, which only makes them rarer.

    A word of nothing else stays. White space inside a word, such as U+00A0, would part it for the aligner.
    """
    words = (word for word in text.split(" ") if word)
    return " ".join("_".join((_EDGES.sub("", word) or word).casefold().split()) or "_" for word in words)


def read(prefixes: Sequence[str], languages: Sequence[str]) -> list[list[tuple[str, str]]]:
    """The pairs of each prefix."""
    found = []
    for prefix in prefixes:
        source, target = (Path(f"{prefix}.{language}") for language in languages)
        for path in (source, target):
            check_file(path, "; a prefix is read from one file for each of --languages")
        blocks = read_both(source, target, Counter())
        found.append([pair for block in blocks for pair in zip(*block, strict=True)])
    return found


def align(pairs: Sequence[tuple[str, str]], program: str, method: str) -> list[list[Link]]:
    """Runs eflomal over all pairs and joins its two directions.

    Pairs with an empty side are not given to it and have no links.
    """
    full = [number for number, pair in enumerate(pairs) if all(plain(text) for text in pair)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, file in enumerate(("source", "target")):
            text = "".join(plain(pairs[number][side]) + "\n" for number in full)
            (folder / file).write_text(text, encoding="utf-8", newline="\n")
        names = {"-s": "source", "-t": "target", "-f": "forward", "-r": "reverse"}
        command = [program, *(part for flag, file in names.items() for part in (flag, str(folder / file)))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise ValueError(f"{program} failed with exit code {done.returncode}: {said[-1]}")
        directions = [read_pharaoh(folder / file) for file in ("forward", "reverse")]
    links: list[list[Link]] = [[] for _ in pairs]
    for number, *both in zip(full, *directions, strict=True):
        links[number] = symmetrize(*both, method)
    return links


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, epilog="The head of this file says more.")
    parser.add_argument("prefixes", nargs="+", metavar="PREFIX", help="text, read from PREFIX.<language>")
    parser.add_argument("--languages", nargs=2, required=True, metavar=("SOURCE", "TARGET"), help="suffixes of files")
    parser.add_argument("--output", required=True, help="folder for the files")
    parser.add_argument(
        "--method", default="grow-diag-final-and", choices=list(METHODS), help="how directions are joined"
    )
    parser.add_argument("--eflomal", default="eflomal-align", help="the program (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        if shutil.which(given.eflomal) is None:
            raise ValueError(
                f"--eflomal {given.eflomal}: no such program; pip install eflomal==2.0.0 in an environment of its own "
                "and give the path to its eflomal-align"
            )
        if len({Path(prefix).name for prefix in given.prefixes}) < len(given.prefixes):
            raise ValueError("two prefixes have the same name, and would write the same file")
        corpora = read(given.prefixes, given.languages)
        links = align([pair for pairs in corpora for pair in pairs], given.eflomal, given.method)
        begin = 0
        for prefix, pairs in zip(given.prefixes, corpora, strict=True):
            path = Path(given.output) / f"{Path(prefix).name}.pharaoh"
            own = links[begin : begin + len(pairs)]
            write_pharaoh(path, own)
            begin += len(pairs)
            print(f"{path}: {sum(map(len, own))} links of {len(pairs)} pairs")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
