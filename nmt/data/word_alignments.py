"""Word alignments of the training text, from Pharaoh or gold files: read once, kept in the cache beside the corpus."""

import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.data.cache import cached_directory
from nmt.data.corpus import Corpus, Side, WordLinks, complete, memory_map
from nmt.data.fingerprints import file_digest
from nmt.data.preprocessing import META, counts
from nmt.data.sources import DataConfig, gold_beside, locations, names, read_location
from nmt.data.text_files import check_file, read_lines
from nmt.data.tokenizer import Tokenizer
from nmt.data.word_ids import WordMap
from nmt.runtime.files import write_text

logger = logging.getLogger(__name__)

_VERSION = 1
_BLOCK = re.compile(r"(?:[0-9]{1,9}[-p][0-9]{1,9}[ \t\n]|[ \t\n])*")
_LINK = re.compile(r"[0-9]{1,9}[-p][0-9]{1,9}")
_MARK = re.compile("[-p]")


def attach(config: DataConfig, corpus: Corpus, tokenizer: Tokenizer) -> Corpus:
    """The training corpus with its word alignment, from the cache when text and alignment are known.

    Of links that are only possible those are used whose target word has no sure one. Pairs whose words the tokenizer's
    normalisation changes lose their links; these are counted and logged. Memory does not grow with the corpus.

    Raises ValueError or FileNotFoundError for a missing file, another number of lines than pairs, a line that holds
    something other than links, or a link beyond its sentence, with file and line.
    """
    paths = alignment_files(config)
    key = hashlib.sha256(f"{_VERSION} {corpus.digest}".encode())
    for path in paths:
        key.update(file_digest(path, Path(config.cache)))
    digest = key.hexdigest()
    dtype = np.dtype(np.uint16 if config.max_length <= 1 << 16 else np.uint32)  # a word has a subword at least

    def build(folder: Path) -> None:
        _write(folder, config, corpus, tokenizer, paths, dtype)

    folder = cached_directory(Path(config.cache) / f"links-{digest[:16]}", complete, build)
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    logger.info("%s: %s", ", ".join(map(str, paths)), counts(meta["counts"]))
    pairs = memory_map(folder / "links.bin", dtype).reshape(-1, 2)
    offsets = memory_map(folder / "links_offsets.bin", np.int64)
    return replace(corpus, links=WordLinks(pairs, offsets), digest=digest)


def alignment_files(config: DataConfig) -> list[Path]:
    """The files of the training text's word alignment, one for each of its `locations`.

    Raises ValueError or FileNotFoundError when there are not as many, or one is missing or empty.
    """
    places = locations(config, "train")
    given = names("data.alignment", config.alignment)
    if not given and config.kind == "hub":
        raise ValueError("data.alignment: not given; data.kind=hub needs a file with one line of links for each pair")
    paths = [Path(name) for name in given] or [gold_beside(config, place) for place in places]
    if len(paths) != len(places):
        raise ValueError(
            f"data.alignment={config.alignment}: {len(paths)} files for the {len(places)} entries of data.train; give "
            "one for each"
        )
    hint = "" if given else "; word alignments of the training text are needed: data.alignment=FILE names them"
    for path in paths:
        check_file(path, hint)
    return paths


def _write(
    folder: Path, config: DataConfig, corpus: Corpus, tokenizer: Tokenizer, paths: list[Path], dtype: np.dtype[Any]
) -> None:
    started = time.monotonic()
    found: Counter[str] = Counter()
    num_read = num_kept = end = 0
    with (folder / "links.bin").open("wb") as links_file, (folder / "links_offsets.bin").open("wb") as offsets_file:
        offsets_file.write(np.zeros(1, np.int64).tobytes())
        for location, path in zip(locations(config, "train"), paths, strict=True):
            for block, row, pairs in _blocks(config, location, path):
                # Rows of the block that are in the corpus, and their numbers there.
                inside = np.searchsorted(corpus.dropped_rows, [num_read, num_read + len(block)])
                kept = np.ones(len(block), np.bool_)
                kept[corpus.dropped_rows[slice(*inside)] - num_read] = False
                number = np.cumsum(kept) - 1
                here = slice(num_kept, num_kept + int(kept.sum()))
                same = np.ones(len(block), np.bool_)
                for side, word_map, column in (
                    (corpus.source, tokenizer.source_word_map, 0),
                    (corpus.target, tokenizer.target_word_map, 1),
                ):
                    same[kept] &= _num_words(side, here, word_map) == block[kept, column]
                found["pairs whose words the tokenizer changes"] += int((kept & ~same).sum())
                pairs, row = pairs[(kept & same)[row]], row[(kept & same)[row]]
                num_links = np.bincount(number[row], minlength=here.stop - here.start)
                links_file.write(pairs.astype(dtype).tobytes())
                offsets_file.write((np.cumsum(num_links) + end).tobytes())
                found["links"] += len(pairs)
                found["pairs without links"] += int((num_links == 0).sum())
                num_read, num_kept, end = num_read + len(block), here.stop, end + len(pairs)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    ordered = {"links": found.pop("links"), **{reason: num for reason, num in found.items() if num}}
    write_text(folder / META, json.dumps({"files": sizes, "counts": ordered}, indent=1))
    seconds = max(time.monotonic() - started, 1e-9)
    logger.info("read word alignments of %d pairs in %.1f s (%.0f pairs/s)", num_read, seconds, num_read / seconds)


def _num_words(side: Side, rows: slice, word_map: WordMap) -> NDArray[np.int64]:
    """(R,) words of some rows of one side."""
    offsets = side.offsets[rows.start : rows.stop + 1]
    ids = side.ids[offsets[0] : offsets[-1]]
    lengths = np.diff(offsets)
    starts = np.zeros(len(ids) + 1, np.bool_)
    starts[offsets[:-1] - offsets[0]] = True
    words = word_map(ids, starts[:-1])
    result = np.zeros(len(lengths), np.int64)
    filled = lengths > 0  # the training text has no empty rows, but nothing here should rest on that
    if filled.any():
        result[filled] = np.maximum.reduceat(words, (offsets[:-1] - offsets[0])[filled]) + 1
    return result


def _blocks(
    config: DataConfig, location: str, path: Path
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """For each block of pairs: the words of both sides (R, 2); the links as rows (M,) and words (M, 2), sorted."""
    lines = _Lines(path)
    num_read = 0
    for sources, targets in read_location(config, location, Counter()):
        taken = lines.take(len(sources))
        if len(taken) < len(sources):
            raise ValueError(_unequal(path, num_read + len(taken), num_read + len(sources), location, more=True))
        num_words = np.array(
            [[_count(source), _count(target)] for source, target in zip(sources, targets, strict=True)]
        )
        yield num_words, *_parsed(taken, num_words, path, num_read)
        num_read += len(sources)
    if rest := lines.rest():
        raise ValueError(_unequal(path, num_read + rest, num_read, location, more=False))


def _unequal(path: Path, num_lines: int, num_pairs: int, location: str, *, more: bool) -> str:
    pairs = f"{'at least ' if more else ''}{num_pairs} pairs"
    return f"{path} has {num_lines} lines and {location} has {pairs}: each pair needs one line of links, empty for none"


def _count(text: str) -> int:
    return sum(1 for word in text.split(" ") if word)


class _Lines:
    """The lines of a file, any number at a time."""

    def __init__(self, path: Path) -> None:
        self._blocks = read_lines(path, Counter())
        self._pending: list[str] = []

    def take(self, num: int) -> list[str]:
        """The next `num` lines, fewer at the end."""
        while len(self._pending) < num and (block := next(self._blocks, None)) is not None:
            self._pending += block
        taken, self._pending = self._pending[:num], self._pending[num:]
        return taken

    def rest(self) -> int:
        """How many lines are left."""
        return len(self._pending) + sum(map(len, self._blocks))


def _parsed(
    lines: list[str], num_words: NDArray[np.int64], path: Path, num_before: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (M,) and words (M, 2) of the links in some lines, sorted by row, target and source, each once.

    Raises ValueError with file and line for what is no link or lies beyond its sentence.
    """
    text = "\n".join(lines) + "\n"
    if not _BLOCK.fullmatch(text):
        items = ((row, item) for row, line in enumerate(lines) for item in re.split("[ \t]+", line) if item)
        row, item = next((row, item) for row, item in items if not _LINK.fullmatch(item))
        raise ValueError(
            f"{path}: line {num_before + row + 1}: {item!r} is not a link: write i-j (or ipj for one that is only "
            "possible), words counted from 0"
        )
    marks = _MARK.findall(text)
    # Of nothing but spaces the library makes one number.
    numbers = np.fromstring(text.replace("-", " ").replace("p", " ") if marks else "", np.int64, sep=" ").reshape(-1, 2)
    row_of = np.repeat(np.arange(len(lines)), [line.count("-") + line.count("p") for line in lines])
    beyond = np.flatnonzero((numbers >= num_words[row_of]).any(1))
    if len(beyond):
        at = row_of[beyond[0]]
        source, target = numbers[beyond[0]].tolist()
        raise ValueError(
            f"{path}: line {num_before + at + 1}: link {source}-{target} points beyond a sentence of "
            f"{num_words[at, 0]} source and {num_words[at, 1]} target words (words are counted from 0)"
        )
    num_source, num_target = (num_words.max(0) + 1).tolist()
    word = row_of * num_target + numbers[:, 1]  # which target word of which row
    possible = np.array(marks, "U1") == "p"
    if possible.any():
        used = ~possible | ~np.isin(word, word[~possible])
        word, numbers = word[used], numbers[used]
    key = np.unique(word * num_source + numbers[:, 0])
    word, source_word = np.divmod(key, num_source)
    rows, target_word = np.divmod(word, num_target)
    return rows, np.stack([source_word, target_word], 1)
