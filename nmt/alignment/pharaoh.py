"""Word links and the files that hold them.

A link is a pair (source word, target word), both counted from 0. A gold file has one line for each sentence pair:
`i-j` is a sure link, `ipj` a possible one. A Pharaoh file, the output of an aligner, has `i-j` only.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nmt.runtime.files import write_text

Link = tuple[int, int]
_LINK = re.compile(r"([0-9]+)([-p])([0-9]+)")
_BLOCK = re.compile(r"(?:[0-9]{1,9}[-p][0-9]{1,9}[ \t\n]|[ \t\n])*")
_MARK = re.compile("[-p]")
_SPACES = re.compile(r"[ \t\r]+")
_T = TypeVar("_T")


class GoldAlignment(NamedTuple):
    """Links of one sentence pair set by people. Every sure link is possible too."""

    sure: frozenset[Link]
    possible: frozenset[Link]


def parse_gold(line: str) -> GoldAlignment:
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
    return GoldAlignment(frozenset(sure), frozenset(possible))


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


def parse_block(
    lines: Sequence[str], num_words: NDArray[np.int64], path: Path, num_before: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Parse many gold lines at once, for files of training text; as `parse_gold`, with numbers of up to 9 digits.

    Args:
        lines: some consecutive lines of `path`, after `num_before` others.
        num_words: (R, 2) words of the source and of the target sentence of each line.

    Returns:
        Of each link, in the order written: its row (M,), its source and target word (M, 2), and whether it is only
        possible (M,).

    Raises:
        ValueError: something is not a link or points beyond its sentence; says the file, the line and what was read.
    """
    text = "\n".join(lines) + "\n"
    if not _BLOCK.fullmatch(text):
        items = ((row, item) for row, line in enumerate(lines) for item in line.replace("\t", " ").split(" "))
        row, item = next((row, item) for row, item in items if not _BLOCK.fullmatch(item + " "))
        raise ValueError(
            f"{path}: line {num_before + row + 1}: {item!r} is not a link: write i-j (or ipj for one that is only "
            "possible), words counted from 0"
        )
    marks = np.array(_MARK.findall(text), "U1")
    # For text that is only spaces `fromstring` returns one number.
    numbers = text.replace("-", " ").replace("p", " ") if len(marks) else ""
    links = np.fromstring(numbers, np.int64, sep=" ").reshape(-1, 2)
    rows = np.repeat(np.arange(len(lines)), [line.count("-") + line.count("p") for line in lines])
    beyond = np.flatnonzero((links >= num_words[rows]).any(1))
    if len(beyond):
        row = int(rows[beyond[0]])
        message = _beyond(links[beyond[0]].tolist(), num_words[row].tolist())
        raise ValueError(f"{path}: line {num_before + row + 1}: {message}")
    return rows, links, marks == "p"


def read_gold(path: str | Path, pairs: Sequence[tuple[str, str]] | None = None) -> list[GoldAlignment]:
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


def write_gold(path: str | Path, gold: Iterable[GoldAlignment]) -> None:
    """Writes a gold file, links sorted. The file appears whole or not at all."""
    write_text(Path(path), "".join(f"{gold_line(*sentence)}\n" for sentence in gold))


def gold_line(sure: Collection[Link], possible: Collection[Link]) -> str:
    """Return the line of a gold file for some links, sorted; those that are both sure and possible are sure."""
    links = sorted({*sure, *possible})
    return " ".join(f"{i}{'-' if (i, j) in sure else 'p'}{j}" for i, j in links)


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
            raise ValueError(_beyond((i, j), (num_source, num_target)))


def _beyond(link: Sequence[int], num_words: Sequence[int]) -> str:
    return (
        f"link {link[0]}-{link[1]} points beyond a sentence of {num_words[0]} source and {num_words[1]} target words "
        "(words are counted from 0)"
    )
