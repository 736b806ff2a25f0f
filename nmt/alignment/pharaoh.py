"""Word links and the files that hold them.

A link is a pair (source word, target word), both counted from 0. A gold file has one line for each sentence pair:
`i-j` is a sure link, `ipj` a possible one. A Pharaoh file, the output of an aligner, has `i-j` only.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from nmt.runtime.files import write_text

Link = tuple[int, int]
_LINK = re.compile(r"([0-9]+)([-p])([0-9]+)")
_SPACES = re.compile(r"[ \t\r]+")
_T = TypeVar("_T")


class Gold(NamedTuple):
    """Links of one sentence pair set by people. Every sure link is possible too."""

    sure: frozenset[Link]
    possible: frozenset[Link]


def parse_gold(line: str) -> Gold:
    """Reads one gold line, such as `0-0 1-2 1p3`. An empty line has no links.

    Raises:
        ValueError: something in it is not a link.
    """
    sure: set[Link] = set()
    possible: set[Link] = set()
    for item in _items(line):
        match = _LINK.fullmatch(item)
        if match is None:
            raise ValueError(f"{item!r} is not a link: write i-j (sure) or ipj (possible), words counted from 0")
        link = int(match[1]), int(match[3])
        possible.add(link)
        if match[2] == "-":
            sure.add(link)
    return Gold(frozenset(sure), frozenset(possible))


def parse_pharaoh(line: str) -> list[Link]:
    """Reads one Pharaoh line, such as `0-0 1-2`, in the order written. An empty line has no links.

    Raises:
        ValueError: something in it is not a link `i-j`.
    """
    found: list[Link] = []
    for item in _items(line):
        match = _LINK.fullmatch(item)
        if match is None or match[2] != "-":
            hint = " (possible links belong in a gold file)" if match else ""
            raise ValueError(f"{item!r} is not a link{hint}: write i-j, words counted from 0")
        found.append((int(match[1]), int(match[3])))
    return found


def read_gold(path: str | Path, pairs: Sequence[tuple[str, str]] | None = None) -> list[Gold]:
    """Reads a gold file.

    Args:
        path: one line for each sentence pair.
        pairs: the sentences, (source, target); when given, there must be as many of them as lines, and no link may
            point beyond a sentence. Words are what stands between U+0020 spaces.

    Raises:
        ValueError: a line cannot be read or does not fit its sentence; says the file, the line and what was read.
        OSError: the file cannot be opened.
    """
    return _read(Path(path), pairs, parse_gold, lambda gold: sorted(gold.possible))


def read_pharaoh(path: str | Path, pairs: Sequence[tuple[str, str]] | None = None) -> list[list[Link]]:
    """Reads a Pharaoh file; arguments and errors as in `read_gold`."""
    return _read(Path(path), pairs, parse_pharaoh, lambda sentence: sentence)


def write_gold(path: str | Path, gold: Iterable[Gold]) -> None:
    """Writes a gold file, links sorted. The file appears whole or not at all."""
    lines = []
    for sentence in gold:
        marked = [(i, j, "-" if (i, j) in sentence.sure else "p") for i, j in sentence.sure | sentence.possible]
        lines.append(" ".join(f"{i}{mark}{j}" for i, j, mark in sorted(marked)))
    write_text(Path(path), "".join(f"{line}\n" for line in lines))


def write_pharaoh(path: str | Path, alignments: Iterable[Iterable[Link]]) -> None:
    """Writes a Pharaoh file, links in the order given. The file appears whole or not at all."""
    lines = (" ".join(f"{i}-{j}" for i, j in sentence) for sentence in alignments)
    write_text(Path(path), "".join(f"{line}\n" for line in lines))


def _items(line: str) -> list[str]:
    return [item for item in _SPACES.split(line.rstrip("\n")) if item]


def num_words(text: str) -> int:
    """Words are what U+0020 separates."""
    return sum(1 for word in text.split(" ") if word)


def _read(
    path: Path,
    pairs: Sequence[tuple[str, str]] | None,
    parse: Callable[[str], _T],
    links_of: Callable[[_T], Iterable[Link]],
) -> list[_T]:
    # A line ends at "\n" and nowhere else, as in the text beside it.
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if pairs is not None and len(lines) != len(pairs):
        raise ValueError(f"{path}: {len(lines)} lines for {len(pairs)} sentence pairs: each pair needs one line")
    result: list[_T] = []
    for number, line in enumerate(lines, start=1):
        try:
            parsed = parse(line.decode("utf-8"))
            if pairs is not None:
                _check_inside(links_of(parsed), *map(num_words, pairs[number - 1]))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 text: an alignment file was expected") from error
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        result.append(parsed)
    return result


def _check_inside(found: Iterable[Link], num_source: int, num_target: int) -> None:
    for i, j in found:
        if i >= num_source or j >= num_target:
            raise ValueError(
                f"link {i}-{j} points beyond a sentence of {num_source} source and {num_target} target words"
                " (words are counted from 0)"
            )
