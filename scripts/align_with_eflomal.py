"""Align the words of parallel text with eflomal, as a silver standard or for training.

    python scripts/align_with_eflomal.py --languages en de --output DIR PREFIX [PREFIX ...]

reads PREFIX.en and PREFIX.de, aligns all text together in both directions, symmetrizes the alignments, and writes
DIR/<name>.pharaoh for each prefix: one line of links i-j for each pair, where words are separated by spaces. The files
fit `gold=` of `python -m nmt.align` and `data.train_alignments=` with `train.guided_alignment_weight`.

eflomal (Östling & Tiedemann 2016) is licensed under the GPL and no part of this project; it is called as a program. It
needs a C compiler and can be installed in an environment of its own:

    python -m venv eflomal && eflomal/bin/pip install eflomal==2.0.0
    python scripts/align_with_eflomal.py --eflomal eflomal/bin/eflomal-align ...

It aligns better with more text: give the training text along with the test set.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from nmt.alignment import METHODS, Link, read_pharaoh, symmetrize, write_pharaoh
from nmt.data.text_files import check_file, read_parallel
from nmt.runtime.errors import report_errors

_EDGES = re.compile(r"^\W+|\W+$")


def normalize(text: str) -> str:
    """Return the same number of words, in lower case and without punctuation at their ends, so that fewer are rare.

    A word of punctuation alone stays. White space inside a word, such as U+00A0, becomes an underscore.
    """
    words = (word for word in text.split(" ") if word)
    return " ".join("_".join((_EDGES.sub("", word) or word).casefold().split()) or "_" for word in words)


def read(prefixes: Sequence[str], languages: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Return the pairs of each prefix."""
    corpora = []
    for prefix in prefixes:
        source, target = (Path(f"{prefix}.{language}") for language in languages)
        for path in (source, target):
            check_file(path, "; a prefix is read from one file for each of --languages")
        blocks = read_parallel(source, target, Counter())
        corpora.append([pair for block in blocks for pair in zip(*block, strict=True)])
    return corpora


def align(pairs: Sequence[tuple[str, str]], program: str, method: str) -> list[list[Link]]:
    """Run eflomal on all pairs and symmetrize; pairs with an empty side have no links.

    Raise ValueError where the program is not there, or fails.
    """
    if shutil.which(program) is None:
        raise ValueError(
            f"--eflomal {program}: no such program; pip install eflomal==2.0.0 in an environment of its own and give "
            "the path to its eflomal-align"
        )
    numbers = [number for number, pair in enumerate(pairs) if all(normalize(text) for text in pair)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, file in enumerate(("source", "target")):
            text = "".join(normalize(pairs[number][side]) + "\n" for number in numbers)
            (folder / file).write_text(text, encoding="utf-8", newline="\n")
        names = {"-s": "source", "-t": "target", "-f": "forward", "-r": "reverse"}
        command = [program, *(part for flag, file in names.items() for part in (flag, str(folder / file)))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            output = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise ValueError(f"{program} failed with exit code {done.returncode}: {output[-1]}")
        directions = [read_pharaoh(folder / file) for file in ("forward", "reverse")]
    links: list[list[Link]] = [[] for _ in pairs]
    for number, *both in zip(numbers, *directions, strict=True):
        links[number] = symmetrize(*both, method)
    return links


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, epilog="More at the head of this file.")
    parser.add_argument("prefixes", nargs="+", metavar="PREFIX", help="text, read from PREFIX.<language>")
    parser.add_argument("--languages", nargs=2, required=True, metavar=("SOURCE", "TARGET"), help="suffixes of files")
    parser.add_argument("--output", required=True, help="folder for the files")
    parser.add_argument("--method", default="grow-diag-final-and", choices=METHODS, help="symmetrization of directions")
    parser.add_argument("--eflomal", default="eflomal-align", help="the program (default: %(default)s)")
    options = parser.parse_args(arguments)
    with report_errors():
        if len({Path(prefix).name for prefix in options.prefixes}) < len(options.prefixes):
            raise ValueError("two prefixes have the same name, and would write the same file")
        corpora = read(options.prefixes, options.languages)
        links = iter(align([pair for pairs in corpora for pair in pairs], options.eflomal, options.method))
        for prefix, pairs in zip(options.prefixes, corpora, strict=True):
            path = Path(options.output) / f"{Path(prefix).name}.pharaoh"
            corpus_links = list(islice(links, len(pairs)))
            write_pharaoh(path, corpus_links)
            print(f"{path}: {sum(map(len, corpus_links))} links of {len(pairs)} pairs")


if __name__ == "__main__":
    main()
