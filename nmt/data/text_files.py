"""Lines of text files in bounded memory; a line ends at "\\n" and nowhere else.

Python's text mode and `str.splitlines` also end lines at a lone carriage return, the latter at U+0085, U+2028 and
others too. All of these occur inside sentences of real corpora, and one extra line misaligns the two sides.
"""

import codecs
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

from nmt.runtime.compression import find_file, open_input

BLOCK_LINES = 8192


def check_file(path: Path, hint: str) -> Path:
    """Return `path`, or its compressed form where only that exists; raise an error, which ends in `hint`, unless it is
    a file that is not empty."""
    path = find_file(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a directory, a file is needed{hint}")
    if not path.exists():
        relative = "" if path.is_absolute() else f" (relative to {Path.cwd()})"
        raise FileNotFoundError(f"{path}: no such file{relative}{hint}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty{hint}")
    return path


def read_lines(path: Path, repaired: Counter[str]) -> Iterator[list[str]]:
    """Yield the lines of a file, which may be compressed, `BLOCK_LINES` at a time (the last block may have fewer).

    Removed, and counted in `repaired`: a byte-order mark at the start, a carriage return at the end of a line, ASCII
    spaces at both ends of a line. Raises ValueError with line and byte (from 1) where the file is not UTF-8.
    """
    num_lines = 0
    with open_input(path) as file:
        first = file.readline()
        if first.startswith(codecs.BOM_UTF8):
            repaired["byte-order mark"] += 1
        content = chain(filter(None, [first.removeprefix(codecs.BOM_UTF8)]), file)
        while block := b"".join(islice(content, BLOCK_LINES)):
            lines = _decode(path, block.removesuffix(b"\n"), num_lines, repaired)
            num_lines += len(lines)
            yield lines


def read_parallel(source: Path, target: Path, repaired: Counter[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield blocks of as many source as target lines. Raises ValueError when the files differ in number of lines."""
    num_read = 0
    sides = read_lines(source, repaired), read_lines(target, repaired)
    for sources, targets in zip_longest(*sides, fillvalue=list[str]()):
        if len(sources) != len(targets):
            num_sources = num_read + len(sources) + sum(map(len, sides[0]))
            num_targets = num_read + len(targets) + sum(map(len, sides[1]))
            longer = source if num_sources > num_targets else target
            raise ValueError(
                f"{source} has {num_sources} lines and {target} has {num_targets}: both sides need the same number "
                f"(line {min(num_sources, num_targets) + 1} of {longer.name} has no partner)"
            )
        num_read += len(sources)
        yield sources, targets


def _decode(path: Path, block: bytes, num_before: int, repaired: Counter[str]) -> list[str]:
    try:
        lines = block.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        line = num_before + block.count(b"\n", 0, error.start) + 1
        byte = error.start - block.rfind(b"\n", 0, error.start)
        raise ValueError(
            f"{path}: line {line}, byte {byte} (0x{block[error.start]:02x}): the file is not UTF-8; convert it first"
        ) from None
    return strip_lines(lines, repaired)


def strip_lines(lines: list[str], repaired: Counter[str]) -> list[str]:
    """Strip a carriage return at the end and ASCII spaces at both ends of the lines, counted in `repaired`."""
    if num := sum(line.endswith("\r") for line in lines):
        repaired["carriage return at the end"] += num
        lines = [line.removesuffix("\r") for line in lines]
    trimmed = [line.strip(" ") for line in lines]
    if num := sum(len(before) != len(after) for before, after in zip(lines, trimmed, strict=True)):
        repaired["spaces at the ends"] += num
    return trimmed
