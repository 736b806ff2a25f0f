"""Word alignment read off attention, and its error against a gold standard.

A link is a pair (source word, target word), both counted from 0. A gold file has one line for each sentence pair:
`i-j` is a sure link, `ipj` a possible one. A Pharaoh file, the output of an aligner, has `i-j` only.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from nmt.files import write_text

Link = tuple[int, int]
_LINK = re.compile(r"([0-9]+)([-p])([0-9]+)")
_SPACES = re.compile(r"[ \t\r]+")
_T = TypeVar("_T")


class Gold(NamedTuple):
    """Links of one sentence pair set by people. Every sure link is possible too."""

    sure: frozenset[Link]
    possible: frozenset[Link]


class AlignmentScore(NamedTuple):
    """Corpus scores between 0 and 1; `aer` is better when lower, the others when higher."""

    aer: float
    precision: float
    recall: float
    f1: float


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


def words(matrix: npt.ArrayLike, target_words: Sequence[int], source_words: Sequence[int]) -> npt.NDArray[np.float64]:
    """Turns attention between subwords into attention between words.

    A source word receives the sum of its pieces, a target word the mean over its pieces (Zenkel et al. 2019), so a
    row that summed to one still does.

    Args:
        matrix: (T, S) weights, each row a target piece.
        target_words: T indices: the word each target piece belongs to, -1 for none (the end token).
        source_words: S indices, likewise.

    Returns:
        (Tw, Sw + 1) weights; the last column is what went to source pieces of no word. A word index that no piece
        has gets zeros.

    Raises:
        ValueError: the shapes do not fit together.
    """
    weights = np.asarray(matrix, dtype=np.float64)
    if weights.shape != (len(target_words), len(source_words)):
        raise ValueError(
            f"attention of shape {weights.shape} does not fit {len(target_words)} target pieces"
            f" and {len(source_words)} source pieces"
        )
    target_index = np.asarray(target_words, dtype=np.int64)
    source_index = np.asarray(source_words, dtype=np.int64)
    num_target = int(target_index.max(initial=-1)) + 1
    num_source = int(source_index.max(initial=-1)) + 1
    by_source = np.zeros((len(target_words), num_source + 1))
    np.add.at(by_source.T, np.where(source_index < 0, num_source, source_index), weights.T)
    kept = target_index >= 0
    result = np.zeros((num_target, num_source + 1))
    np.add.at(result, target_index[kept], by_source[kept])
    counts = np.bincount(target_index[kept], minlength=num_target)
    result /= np.maximum(counts, 1)[:, None]
    return result


def links(word_matrix: npt.ArrayLike) -> list[Link]:
    """Links each target word to the source word it attends to most.

    Args:
        word_matrix: (Tw, Sw + 1) as `words` returns it.

    Returns:
        At most one (source word, target word) for each target word, in target order: none where the last column
        exceeds every word or the row is all zeros. The first of equal source words is taken.

    Raises:
        ValueError: not a matrix, or a weight is not a number.
    """
    weights = np.asarray(word_matrix, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] == 0:
        raise ValueError(f"word attention of shape {weights.shape}: must be (target words, source words + 1)")
    if not np.isfinite(weights).all():
        raise ValueError("word attention holds values that are not finite numbers")
    best = weights.argmax(axis=1)
    none = weights.shape[1] - 1
    return [(int(i), j) for j, i in enumerate(best) if i != none and weights[j, i] > 0]


def score(predicted: Sequence[Iterable[Link]], gold: Sequence[Gold]) -> AlignmentScore:
    """Alignment error rate over a whole test set (Och & Ney 2003, section 6.1).

    With A the predicted, S the sure and P the possible links of all sentences together:
    precision = |A∩P| / |A|, recall = |A∩S| / |S|, AER = 1 - (|A∩S| + |A∩P|) / (|A| + |S|), and f1 is the harmonic
    mean of precision and recall. When there is no sure link, recall is 1. When nothing is predicted, precision is 0,
    or 1 if there was nothing to find; AER is then 1 or 0.

    Raises:
        ValueError: another number of predictions than of gold lines, or none at all.
    """
    if len(predicted) != len(gold):
        raise ValueError(f"{len(predicted)} predicted alignments but {len(gold)} gold ones: each sentence needs both")
    if not gold:
        raise ValueError("no sentences to score: 0 predicted and 0 gold alignments")
    num_predicted = num_sure = num_hit_sure = num_hit_possible = 0
    for sentence, (sure, possible) in zip(predicted, gold, strict=True):
        found = set(sentence)
        num_predicted += len(found)
        num_sure += len(sure)
        num_hit_sure += len(found & sure)
        num_hit_possible += len(found & (possible | sure))
    recall = num_hit_sure / num_sure if num_sure else 1.0
    precision = num_hit_possible / num_predicted if num_predicted else float(not num_sure)
    total = num_predicted + num_sure
    return AlignmentScore(
        aer=1.0 - (num_hit_sure + num_hit_possible) / total if total else 0.0,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    )


def _items(line: str) -> list[str]:
    return [item for item in _SPACES.split(line.rstrip("\n")) if item]


def _num_words(text: str) -> int:
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
                _check_inside(links_of(parsed), *map(_num_words, pairs[number - 1]))
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
