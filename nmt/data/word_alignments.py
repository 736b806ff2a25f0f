"""Word alignments of the training text, from Pharaoh or gold files: read once, cached beside the corpus."""

import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.alignment.ibm_model1 import ibm1_alignments
from nmt.alignment.pharaoh import num_words, parse_block
from nmt.alignment.symmetrization import symmetrize
from nmt.data.cache import cached_directory
from nmt.data.config import DataConfig
from nmt.data.corpora import training_corpora
from nmt.data.corpus import AlignmentColumn, EncodedCorpus, TokenColumn, memory_map
from nmt.data.fingerprints import check_unchanged, file_fingerprint
from nmt.data.preprocessing import META, format_counts
from nmt.data.sources import (
    as_name_list,
    dataset_fingerprint,
    default_alignment_path,
    read_blocks,
    read_location,
    resolve_split,
)
from nmt.data.text_files import check_file, read_lines
from nmt.data.tokenizer import Tokenizer
from nmt.data.word_ids import WordIds
from nmt.runtime.files import open_output, write_text

logger = logging.getLogger(__name__)

_VERSION = 2
LEXICAL_PAIRS = 100_000
"""Pairs that IBM model 1 is trained on at a time, which bounds its memory."""
_Links = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # word counts (R, 2), rows (M,), links (M, 2)


def attach_alignments(
    config: DataConfig, corpus: EncodedCorpus, tokenizer: Tokenizer, *, files: bool = True
) -> EncodedCorpus:
    """Return the training corpus with its word alignments, from the cache where text and alignments are unchanged.

    Without `files` all but very frequent words are aligned by IBM model 1, `LEXICAL_PAIRS` pairs at a time.

    Possible links are used only for target words without a sure link. Pairs whose words the tokenizer's normalization
    changes lose their links; these are counted and logged. Memory does not grow with the corpus.

    Raises ValueError or FileNotFoundError for a missing file, another number of lines than pairs, a line that holds
    something other than links, or a link beyond its sentence, with file and line.
    """
    paths = training_alignment_paths(config) if files else []
    fingerprints = list(map(file_fingerprint, paths))
    contents = [_VERSION, corpus.digest, *(file.sha256 for file in fingerprints), *[LEXICAL_PAIRS] * (not files)]
    digest = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    dtype = np.dtype(np.uint16 if config.max_length <= 1 << 16 else np.uint32)  # a word has at least one subword

    def build(folder: Path) -> None:
        texts = [part.config for part in training_corpora(config)] or [config]
        locations = [(text, location) for text in texts for location in resolve_split(text, "train")]
        read = chain.from_iterable(_read_blocks(*place, path) for place, path in zip(locations, paths, strict=True))
        _write_links(folder, corpus, tokenizer, read if files else _lexical_blocks(config), dtype)
        check_unchanged(fingerprints, map(file_fingerprint, paths))
        check_unchanged(corpus.files, dataset_fingerprint(config, "train").files)

    folder = cached_directory(Path(config.cache_dir) / f"links-{digest[:16]}", build)
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    logger.info("%s: %s", ", ".join(map(str, paths)) or "lexical alignments", format_counts(meta["counts"]))
    pairs = memory_map(folder / "links.bin", dtype).reshape(-1, 2)
    offsets = memory_map(folder / "links_offsets.bin", np.int64)
    return replace(corpus, links=AlignmentColumn(pairs, offsets), digest=digest)


def training_alignment_paths(config: DataConfig) -> list[Path]:
    """Return the files of the training text's word alignments, one for each of its locations.

    Raises ValueError or FileNotFoundError when there are not as many, or one is missing or empty.
    """
    if config.languages:
        raise ValueError(
            "data.languages: word alignments are of one direction; give each its own entry in data.corpora, with "
            "source_lang, target_lang and train_alignments"
        )
    if parts := training_corpora(config):
        return [path for part in parts for path in training_alignment_paths(part.config)]
    locations = resolve_split(config, "train")
    names = as_name_list("data.train_alignments", config.train_alignments)
    if not names and config.format == "hub":
        raise ValueError(
            "data.train_alignments: not given; data.format=hub needs a file with one line of links for each pair"
        )
    paths = [Path(name) for name in names] or [default_alignment_path(config, location) for location in locations]
    if len(paths) != len(locations):
        raise ValueError(
            f"data.train_alignments={config.train_alignments}: {len(paths)} files for the {len(locations)} entries of "
            "data.train; give one for each"
        )
    hint = "" if names else "; word alignments of the training text are needed: data.train_alignments=FILE names them"
    return [check_file(path, hint) for path in paths]


def _write_links(
    folder: Path, corpus: EncodedCorpus, tokenizer: Tokenizer, blocks: Iterable[_Links], dtype: np.dtype[Any]
) -> None:
    started = time.monotonic()
    counts = {"links": 0, "pairs whose words the tokenizer changes": 0, "pairs without links": 0}
    sides = (corpus.source, tokenizer.source_word_id_map), (corpus.target, tokenizer.target_word_id_map)
    num_read = num_kept = 0
    with open_output(folder / "links.bin") as links_file, open_output(folder / "links_offsets.bin") as offsets_file:
        offsets_file.write(np.zeros(1, np.int64).tobytes())
        for sizes, row, links in blocks:
            # Rows of the block that are in the corpus, and their indices there.
            dropped = np.searchsorted(corpus.dropped_rows, [num_read, num_read + len(sizes)])
            kept = np.ones(len(sizes), np.bool_)
            kept[corpus.dropped_rows[slice(*dropped)] - num_read] = False
            corpus_rows = slice(num_kept, num_kept + int(kept.sum()))
            unchanged = np.ones(len(sizes), np.bool_)
            for column, (side, word_map) in enumerate(sides):
                unchanged[kept] &= _num_words(side, corpus_rows, word_map) == sizes[kept, column]
            used = (kept & unchanged)[row]
            links, row = links[used], row[used]
            num_links = np.bincount((np.cumsum(kept) - 1)[row], minlength=corpus_rows.stop - corpus_rows.start)
            links_file.write(links.astype(dtype).tobytes())
            offsets_file.write((np.cumsum(num_links) + counts["links"]).tobytes())
            counts["links"] += len(links)
            counts["pairs whose words the tokenizer changes"] += int((kept & ~unchanged).sum())
            counts["pairs without links"] += int((num_links == 0).sum())
            num_read, num_kept = num_read + len(sizes), corpus_rows.stop
    counts = {reason: num for reason, num in counts.items() if num or reason == "links"}
    write_text(folder / META, json.dumps({"counts": counts}, indent=1))
    seconds = max(time.monotonic() - started, 1e-9)
    logger.info("read word alignments of %d pairs in %.1f s (%.0f pairs/s)", num_read, seconds, num_read / seconds)


def _num_words(side: TokenColumn, rows: slice, word_map: WordIds) -> NDArray[np.int64]:
    """Count the words (R,) of some rows of one side of the training text, which has no empty rows."""
    offsets = side.offsets[rows.start : rows.stop + 1]
    ids = side.ids[offsets[0] : offsets[-1]]
    firsts = offsets[:-1] - offsets[0]
    starts = np.zeros(len(ids), np.bool_)
    starts[firsts] = True
    return np.maximum.reduceat(word_map(ids, starts), firsts) + 1


def _read_blocks(config: DataConfig, location: str, path: Path) -> Iterator[_Links]:
    """Yield for each block of pairs the number of words of both sides (R, 2), and the links as `_used_links` does."""
    links = read_lines(path, Counter())
    num_read = 0
    for block, lines in zip_longest(read_location(config, location, Counter()), links):  # blocks of as many lines
        (sources, targets), lines = block or ([], []), lines or []
        num_pairs = num_read + len(sources)
        if len(lines) != len(sources):
            at_least = "at least " if len(lines) < len(sources) else ""
            num_lines = num_read + len(lines) + sum(map(len, links))
            raise ValueError(
                f"{path} has {num_lines} lines and {location} has {at_least}{num_pairs} pairs: each pair needs one "
                "line of links, empty for none"
            )
        sizes = np.array([[num_words(text) for text in pair] for pair in zip(sources, targets, strict=True)])
        yield sizes, *_used_links(*parse_block(lines, sizes, path, num_read))
        num_read = num_pairs


def _lexical_blocks(config: DataConfig) -> Iterator[_Links]:
    """Yield as `_read_blocks`, with words that are not too frequent for terms aligned by IBM model 1."""
    blocks = (zip(*block, strict=True) for block in read_blocks(config, "train", Counter()))
    pairs = ([[w for w in text.split(" ") if w] for text in pair] for pair in chain.from_iterable(blocks))
    while chunk := list(islice(pairs, LEXICAL_PAIRS)):
        sides, places = list[list[list[str]]](), list[list[list[int]]]()
        for texts in zip(*chunk, strict=True):
            core = {word: re.sub(r"^\W+|\W+$", "", word).lower() for word in set(chain.from_iterable(texts))}
            counts = Counter(core[word] for words in texts for word in words)
            most = counts.total() * max(1 / 200, 10 / max(len(counts), 1))
            content = {word for word, key in core.items() if key and counts[key] <= most}
            places.append([[i for i, word in enumerate(words) if word in content] for words in texts])
            sides.append([[core[words[i]] for i in own] for words, own in zip(texts, places[-1], strict=True)])
        aligned = ibm1_alignments(list(zip(*sides, strict=True)))
        links = [
            (row, places[0][row][i], places[1][row][j])
            for row, (sure, possible) in enumerate(aligned)
            for i, j in symmetrize(sure, possible, "grow-diag")
        ]
        array = np.array(links, np.int64).reshape(-1, 3)
        yield np.array([list(map(len, pair)) for pair in chunk]), array[:, 0], array[:, 1:]


def _used_links(
    rows: NDArray[np.int64], links: NDArray[np.int64], possible: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows (M,) and words (M, 2) of the links that are used, sorted by row, target and source, each once."""
    num_source, num_target = (links.max(0, initial=0) + 1).tolist()
    word = rows * num_target + links[:, 1]  # one number for each target word of each row
    if possible.any():
        is_used = ~possible | ~np.isin(word, word[~possible])
        word, links = word[is_used], links[is_used]
    word, source_word = np.divmod(np.unique(word * num_source + links[:, 0]), num_source)
    rows, target_word = np.divmod(word, num_target)
    return rows, np.stack([source_word, target_word], 1)
