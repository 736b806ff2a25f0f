"""Data sources of sentence pairs: text files, tables, the `datasets` library, or the built-in synthetic language pair.

Every source is read in blocks, so memory does not grow with the corpus.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nmt.config import check_choice
from nmt.data import table_files
from nmt.data.corpora import default_direction, directions, join, of_split, training_corpora
from nmt.data.fingerprints import FileFingerprint, file_fingerprint
from nmt.data.synthetic import dataset
from nmt.data.test_set_names import distinct_names
from nmt.data.text_files import check_file, read_lines, read_parallel
from nmt.plugins import OWNERS
from nmt.runtime.compression import find_file, plain_path
from nmt.runtime.text import is_blank

if TYPE_CHECKING:
    from nmt.data.config import DataConfig


def __getattr__(name: str) -> Any:
    """Return `DataConfig`, which plugins written before version 0.10 import from here."""
    if name == "DataConfig":
        return importlib.import_module("nmt.data.config").DataConfig
    raise AttributeError(f"module {__name__} has no attribute {name}")


class SentencePair(NamedTuple):
    """A source sentence and its translation."""

    source: str
    target: str


Block = tuple[list[str], list[str]]  # as many sources as targets
HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
SPLITS = tuple(HUB_SPLITS)


def read_pairs(config: DataConfig, split: str, repaired: Counter[str] | None = None) -> Iterator[SentencePair]:
    """Yield all pairs, blank ones too, of a split (train, valid, test) or of a location (as in `extra_tests`).

    Repairs are counted in `repaired`. Raises ValueError or FileNotFoundError naming file and line.
    """
    for sources, targets in read_blocks(config, split, Counter() if repaired is None else repaired):
        yield from map(SentencePair, sources, targets)


def read_blocks(config: DataConfig, split: str, repaired: Counter[str]) -> Iterator[Block]:
    """Yield the pairs of a split in blocks; of the training split each corpus after the other."""
    parts = training_corpora(config) if split == "train" else []
    for part in parts:
        yield from read_blocks(part.config, "train", repaired)
    options, _ = of_split(config, split)
    left = options.max_pairs if split == "train" and options.max_pairs else None
    for location in () if parts else resolve_split(config, split):
        for sources, targets in read_location(options, location, repaired):
            yield sources[:left], targets[:left]
            left = None if left is None else max(left - len(sources), 0)
            if left == 0:
                return


def read_location(config: DataConfig, location: str, repaired: Counter[str]) -> Iterator[Block]:
    """Yield the blocks of one of the locations of `resolve_split`."""
    yield from data_source(config).read(config, location, repaired)


def validation_splits(config: DataConfig, first: str | None = None) -> list[str]:
    """Return the split of each validation set: "valid", of several "valid:NAME", that of the set `first` first, or with
    several directions "valid@en-de", that of `default_direction` first."""
    if len(splits := _by_direction(config, "valid")) > 1:
        return splits
    names = list(config.valid) if isinstance(config.valid, dict) else []
    return [f"valid:{name}" for name in sorted(names, key=lambda name: name != first)] or ["valid"]


def _by_direction(config: DataConfig, split: str) -> list[str]:
    own = default_direction(config)
    return [f"{split}@{join(pair)}" for pair in sorted(directions(config), key=lambda pair: pair != own)]


def resolve_split(config: DataConfig, split: str) -> list[str]:
    """Return the locations of a split (train, valid, test, those of `validation_splits`, or a named location):
    prefixes, files or split names. Of several validation sets, "valid" is the first."""
    if split == "train" and (parts := training_corpora(config)):
        return [location for part in parts for location in resolve_split(part.config, "train")]
    config, split = of_split(config, split)
    value = getattr(config, split) if split in SPLITS else split
    if isinstance(value, dict) and split == "test":
        value = value[join((config.source_lang, config.target_lang))]
    elif isinstance(config.valid, dict) and split in ("valid", *validation_splits(config)):
        name = split.partition(":")[2] or join((config.source_lang, config.target_lang))
        value = config.valid.get(name) or next(iter(config.valid.values()))
    if names := as_name_list(f"data.{split}", value):
        return names
    if config.format == "builtin":
        return [str(_builtin_folder(config) / split)]
    if config.format == "hub":
        return [HUB_SPLITS[split]]
    raise ValueError(f"data.{split}: not given; data.format={config.format} needs {data_source(config).needs}")


def further_splits(config: DataConfig, split: str) -> list[str]:
    """Return a split of a model with several directions in each of them for which there are texts, "test@en-de" and so
    on, that of `default_direction` first; of one direction the split itself."""
    if len(names := _by_direction(config, split)) == 1:
        return [split]
    found = list[str]()
    for name in names:
        part, _ = of_split(config, name)
        with contextlib.suppress(FileNotFoundError):
            for location in resolve_split(config, name):
                data_source(part).files(part, location)
            found.append(name)
    return found or names[:1]


def extra_test_sets(config: DataConfig) -> dict[str, str]:
    """Return the name of each further test set by its location; by default there is one, the built-in pair's sentences
    longer than any of its training text. Raise ValueError for a location that is given twice."""
    if config.format == "builtin" and not config.extra_tests and not config.test:
        return distinct_names([str(_builtin_folder(config) / "test_long")])
    places = Counter(map(os.path.normpath, config.extra_tests))
    if repeated := [place for place, num in places.items() if num > 1]:
        raise ValueError(f"data.extra_tests: {repeated[0]} is given {places[repeated[0]]} times: name each set once")
    return distinct_names(config.extra_tests)


def _builtin_folder(config: DataConfig) -> Path:
    config.validate_builtin()
    reverse = config.source_lang != dataset.LANGUAGES[0]
    return dataset.dataset_directory(Path(config.cache_dir), config.synthetic, reverse=reverse)


def alignment_path(config: DataConfig, split: str) -> Path | None:
    """Return the gold alignments beside a text (PREFIX.gold; for one file, its name with .gold), if there are any.

    None for joined texts too: their alignments are in several files.
    """
    locations = resolve_split(config, split)
    config, _ = of_split(config, split)
    if config.format == "hub" or len(locations) != 1:
        return None
    path = find_file(default_alignment_path(config, locations[0]))
    return path if path.is_file() else None


def default_alignment_path(config: DataConfig, location: str) -> Path:
    """Return the path of the word alignments that belong to a location, whether the file exists or not."""
    is_prefix = data_source(config) is _TEXT
    return Path(f"{location}.gold") if is_prefix else plain_path(Path(location)).with_suffix(".gold")


def reference_files(config: DataConfig, location: str) -> list[Path]:
    """Return the files of a location's references, PREFIX.<target_lang> and PREFIX.<target_lang>.1, .2 and so on, or
    the latter only; [] for formats that have one reference. Raise an error where a number is left out."""
    if data_source(config) is not _TEXT:
        return []
    whole = Path(f"{location}.{config.target_lang}")
    numbered = re.compile(re.escape(whole.name) + r"\.[1-9]\d*").fullmatch
    num = len({plain_path(path) for path in whole.parent.iterdir() if numbered(plain_path(path).name)})
    hint = "; references are numbered from 1 on, without a gap"
    paths = [check_file(Path(f"{whole}.{number}"), hint) for number in range(1, num + 1)]
    whole = find_file(whole)
    return [whole, *paths] if whole.is_file() else paths


def read_further_references(config: DataConfig, split: str, repaired: Counter[str]) -> list[list[str]]:
    """Return the references of a split beyond the first, which its pairs have: R - 1 lists of N sentences. Raise
    ValueError, naming files and line, where one is missing."""
    options, _ = of_split(config, split)
    parts = [reference_files(options, location) for location in resolve_split(config, split)]
    if len({len(paths) for paths in parts}) > 1:
        numbers = ", ".join(f"{len(paths)} of {paths[0]}" for paths in parts)
        raise ValueError(f"texts that are joined need as many references each, and there are {numbers}")
    joined: list[list[str]] = [[] for _ in parts[0][1:]]
    for first, *paths in parts if joined else ():
        expected = [line for block in read_lines(first, Counter()) for line in block]
        for texts, path in zip(joined, paths, strict=True):
            lines = [line for block in read_lines(path, repaired) for line in block]
            for number, pair in enumerate(zip_longest(lines, expected), start=1):
                if None in pair or is_blank(pair[0]) != is_blank(pair[1]):
                    counts = f"{path} has {len(lines)} lines and {first} has {len(expected)}"
                    raise ValueError(f"{counts}: line {number} has text in one of them only; a reference is missing")
            texts += lines
    return joined


class DatasetFingerprint(NamedTuple):
    """The text of a split: a digest of it and of the options that determine how it is read, and its files."""

    digest: str
    files: list[FileFingerprint]  # of a hub's data set: itself


def dataset_fingerprint(config: DataConfig, split: str) -> DatasetFingerprint:
    """Return the fingerprint of the text of a split."""
    if split == "train" and (parts := training_corpora(config)):
        texts = [dataset_fingerprint(part.config, "train") for part in parts]
        names = [[part.name, text.digest] for part, text in zip(parts, texts, strict=True)]
        joined = {file: None for text in texts for file in text.files}
        return DatasetFingerprint(hashlib.sha256(json.dumps(names).encode()).hexdigest(), [*joined])
    locations = resolve_split(config, split)
    config, split = of_split(config, split)
    source, files = data_source(config), list[FileFingerprint]()
    digest = hashlib.sha256()
    options: list[Any] = [source.name, config.source_lang, config.target_lang, config.column, config.columns]
    plugin = OWNERS.get(("data.sources.SOURCES", config.format))
    options += [config.max_pairs] if split == "train" and config.max_pairs else []
    digest.update(json.dumps([*options, plugin.digest] if plugin else options).encode())
    for location in locations:
        paths = source.files(config, location)
        for path in paths:
            files.append(file_fingerprint(path))
            digest.update(bytes.fromhex(files[-1].sha256))
        if config.streaming and split == "train":
            stream = table_files.hub_files(str(config.hf_dataset), config.hf_config, location)
            digest.update(json.dumps(stream).encode())
        elif not paths:
            for block in source.read(config, location, Counter()):
                digest.update(json.dumps(block).encode())
    if not files:
        files = [FileFingerprint(f"{config.hf_dataset or config.format} ({', '.join(locations)})", digest.hexdigest())]
    return DatasetFingerprint(digest.hexdigest(), files)


def as_name_list(option: str, value: Any) -> list[str]:
    """Return an option's value (a name, a list of names, or None) as a list. Raises ValueError for anything else."""
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{option}={value!r}: must be a name or a list of names")
    return names


class DataSource(NamedTuple):
    """A data format and its reader; `needs` describes the value of the options train, valid and test."""

    name: str
    read: Callable[[DataConfig, str, Counter[str]], Iterator[Block]]
    files: Callable[[DataConfig, str], list[Path]]  # to fingerprint; none: the text itself is
    needs: str


def _text_files(config: DataConfig, prefix: str) -> list[Path]:
    paths = [Path(f"{prefix}.{language}") for language in (config.source_lang, config.target_lang)]
    reference = find_file(Path(f"{paths[1]}.1"))
    if reference.is_file() and not find_file(paths[1]).exists():
        paths[1] = reference
    return [check_file(path, "" if path.is_file() else f"; {_suffix_hint(prefix, path)}") for path in paths]


def _suffix_hint(prefix: str, path: Path) -> str:
    hint = f"{prefix} is read from one file for each language, set by data.source_lang and data.target_lang"
    if Path(prefix).is_file():
        name = str(plain_path(Path(prefix)))
        is_side = name.endswith(path.suffix)
        return (
            f"{hint}; write {name.removesuffix(path.suffix)}"
            if is_side
            else f"{hint}; one file is data=tsv, jsonl or parquet"
        )
    start = f"{Path(prefix).name}."
    names = sorted(file.name for file in path.parent.glob("*") if file.name.startswith(start))
    suffixes = [f".{name.removeprefix(start)}" for name in names if name != f"{start}gold"]
    return f"{hint}; suffixes that exist: {', '.join(suffixes)}" if suffixes else hint


def _read_text(config: DataConfig, prefix: str, repaired: Counter[str]) -> Iterator[Block]:
    source, target = _text_files(config, prefix)
    yield from read_parallel(source, target, repaired)


def _table_files(config: DataConfig, name: str) -> list[Path]:
    return [check_file(Path(name), f"; data.format={config.format} reads one file for both languages")]


def _read_tsv(config: DataConfig, name: str, repaired: Counter[str]) -> Iterator[Block]:
    (path,) = _table_files(config, name)
    source_column, target_column = (column - 1 for column in config.columns)
    num_columns = max(config.columns)
    num_read = 0
    for lines in read_lines(path, repaired):
        rows = [line.split("\t") if "\t" in line or not is_blank(line) else [""] * num_columns for line in lines]
        for number, cells in enumerate(rows, start=num_read + 1):
            if len(cells) < num_columns:
                raise ValueError(
                    f"{path}: line {number}: {len(cells)} tab-separated columns, data.columns={config.columns} needs "
                    f"{num_columns}"
                )
        num_read += len(lines)
        yield [cells[source_column].strip(" ") for cells in rows], [cells[target_column].strip(" ") for cells in rows]


def _read_rows(config: DataConfig, name: str, repaired: Counter[str]) -> Iterator[Block]:
    if config.format == "hub":
        assert config.hf_dataset is not None
        where = f"{config.hf_dataset} ({name})"
        columns = config.source_lang, config.target_lang
        batches = table_files.open_hub_dataset(config.hf_dataset, config.hf_config, name, columns, config.streaming)
    else:
        (path,) = _table_files(config, name)
        where, batches = str(path), table_files.open_file(config.format, path)
    yield from table_files.iter_pairs(batches, where, config.column, config.source_lang, config.target_lang, repaired)


_TEXT = DataSource("text", _read_text, _text_files, "a prefix, read from PREFIX.<source_lang> and PREFIX.<target_lang>")
SOURCES = {
    "builtin": _TEXT,
    "text": _TEXT,
    "tsv": DataSource("tsv", _read_tsv, _table_files, "a file with one pair on each line"),
    "parquet": DataSource("parquet", _read_rows, _table_files, "a .parquet file"),
    "jsonl": DataSource("jsonl", _read_rows, _table_files, "a file with one JSON object on each line"),
    "hub": DataSource("hub", _read_rows, lambda config, name: [], "a split's name"),
}


def data_source(config: DataConfig) -> DataSource:
    check_choice("data", config, "format", SOURCES)
    return SOURCES[config.format]
