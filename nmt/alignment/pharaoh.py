"""Word alignments and their files.

A link is a pair (source word, target word), both counted from 0. A gold file has one line for each sentence pair:
`i-j` is a sure link, `ipj` a possible one. A Pharaoh file, the output of an aligner, has `i-j` only.
"""

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nmt.runtime.compression import find_file, open_input
from nmt.runtime.files import write_text

Link = tuple[int, int]
_LINK = re.compile(r"([0-9]+)([-p])([0-9]+)")
_BLOCK = re.compile(r"(?:[0-9]{1,9}[-p][0-9]{1,9}[ \t\n]|[ \t\n])*")
_SPACES = re.compile(r"[ \t\r]+")
_T = TypeVar("_T")


class GoldAlignment(NamedTuple):
    """Manually annotated links of one sentence pair. Every sure link is possible too."""

    sure: frozenset[Link]
    possible: frozenset[Link]


def num_words(text: str) -> int:
    """Count words, which are separated by U+0020."""
    return sum(1 for word in text.split(" ") if word)


def parse_gold(line: str) -> GoldAlignment:
    """Parse one gold line, such as `0-0 1-2 1p3`. An empty line has no links.

    Raises:
        ValueError: an item is not a link.
    """
    links = list(_parse_links(line, "-p", "write i-j (sure) or ipj (possible)"))
    return GoldAlignment(frozenset(link for link, mark in links if mark == "-"), frozenset(link for link, _ in links))


def parse_pharaoh(line: str) -> list[Link]:
    """Parse one Pharaoh line, such as `0-0 1-2`, in the order written. An empty line has no links.

    Raises:
        ValueError: an item is not a link `i-j`.
    """
    return [link for link, _ in _parse_links(line, "-", "write i-j")]


def _parse_links(line: str, allowed_marks: str, advice: str) -> Iterator[tuple[Link, str]]:
    """Yield each link and its mark, "-" or "p"."""
    for item in filter(None, _SPACES.split(line.rstrip("\n"))):
        match = _LINK.fullmatch(item)
        if match is None or match[2] not in allowed_marks:
            hint = " (possible links belong in a gold file)" if match else ""
            raise ValueError(f"{item!r} is not a link{hint}: {advice}, words counted from 0")
        yield (int(match[1]), int(match[3])), match[2]


def parse_block(
    lines: Sequence[str], word_counts: NDArray[np.int64], path: Path, num_before: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Parse many gold lines at once, for training sets; as `parse_gold`, with numbers of up to 9 digits.

    Args:
        lines: consecutive lines of `path`.
        word_counts: (R, 2) number of source and target words of each line's sentence pair.
        path: named in errors.
        num_before: number of lines of `path` before these.

    Returns:
        For each of M links, in the order written: its row (M,), its source and target word (M, 2), and whether it is
        only possible (M,).

    Raises:
        ValueError: an item is not a link or points beyond its sentence; gives the file, the line and the item.
    """
    text = "\n".join(lines) + "\n"
    if not _BLOCK.fullmatch(text):
        items = ((row, item) for row, line in enumerate(lines) for item in line.replace("\t", " ").split(" "))
        row, item = next((row, item) for row, item in items if not _BLOCK.fullmatch(item + " "))
        raise ValueError(
            f"{path}: line {num_before + row + 1}: {item!r} is not a link: write i-j (or ipj for one that is only "
            "possible), words counted from 0"
        )
    marks = np.array(re.findall("[-p]", text), "U1")
    # For text of spaces alone, `fromstring` returns one number.
    numbers = text.replace("-", " ").replace("p", " ") if len(marks) else ""
    links = np.fromstring(numbers, np.int64, sep=" ").reshape(-1, 2)
    rows = np.repeat(np.arange(len(lines)), [line.count("-") + line.count("p") for line in lines])
    beyond = np.flatnonzero((links >= word_counts[rows]).any(1))
    if len(beyond):
        row = int(rows[beyond[0]])
        message = _beyond_sentence(links[beyond[0]].tolist(), word_counts[row].tolist())
        raise ValueError(f"{path}: line {num_before + row + 1}: {message}")
    return rows, links, marks == "p"


def read_gold(path: str | Path, pairs: Sequence[tuple[str, str]] | None = None) -> list[GoldAlignment]:
    """Read a gold file.

    Args:
        path: one line for each sentence pair.
        pairs: the sentences (source, target), of words separated by U+0020. If given, the file must have as many
            lines, and no link may point beyond a sentence.

    Raises:
        ValueError: a line cannot be parsed or does not fit its sentence; gives the file, the line and the item.
        OSError: the file cannot be opened.
    """
    return _read(Path(path), pairs, parse_gold, lambda gold: sorted(gold.possible))


def read_pharaoh(path: str | Path, pairs: Sequence[tuple[str, str]] | None = None) -> list[list[Link]]:
    """Read a Pharaoh file; arguments and errors as in `read_gold`."""
    return _read(Path(path), pairs, parse_pharaoh, lambda links: links)


def write_gold(path: str | Path, gold: Iterable[GoldAlignment]) -> None:
    """Write a gold file atomically, links sorted."""
    write_text(Path(path), "".join(f"{gold_line(*sentence)}\n" for sentence in gold))


def gold_line(sure: Collection[Link], possible: Collection[Link]) -> str:
    """Return the line of a gold file for some links, sorted; those both sure and possible are sure."""
    links = sorted({*sure, *possible})
    return " ".join(f"{i}{'-' if (i, j) in sure else 'p'}{j}" for i, j in links)


def write_pharaoh(path: str | Path, alignments: Iterable[Iterable[Link]]) -> None:
    """Write a Pharaoh file atomically, links in the given order."""
    write_text(Path(path), "".join(f"{pharaoh_line(links)}\n" for links in alignments))


def pharaoh_line(links: Iterable[Link]) -> str:
    """Return the line of a Pharaoh file for some links, in the given order."""
    return " ".join(f"{i}-{j}" for i, j in links)


def _read(
    path: Path,
    pairs: Sequence[tuple[str, str]] | None,
    parse: Callable[[str], _T],
    links_of: Callable[[_T], Iterable[Link]],
) -> list[_T]:
    # A line ends at "\n" and nowhere else, as in the text files that it belongs to.
    with open_input(find_file(path)) as file:
        lines = file.read().removeprefix(codecs.BOM_UTF8).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if pairs is not None and len(lines) != len(pairs):
        raise ValueError(f"{path}: {len(lines)} lines for {len(pairs)} sentence pairs: each pair needs one line")
    alignments: list[_T] = []
    for number, line in enumerate(lines, start=1):
        try:
            alignments.append(parse(line.decode("utf-8")))
            if pairs is not None:
                num_source, num_target = map(num_words, pairs[number - 1])
                for i, j in links_of(alignments[-1]):
                    if i >= num_source or j >= num_target:
                        raise ValueError(_beyond_sentence((i, j), (num_source, num_target)))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 text: an alignment file was expected") from error
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return alignments


def _beyond_sentence(link: Sequence[int], word_counts: Sequence[int]) -> str:
    return (
        f"link {link[0]}-{link[1]} points beyond a sentence of {word_counts[0]} source and {word_counts[1]} target "
        "words (words are counted from 0)"
    )
