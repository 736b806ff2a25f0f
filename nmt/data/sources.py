"""Where sentence pairs come from: text files, tables, the `datasets` library, or the built-in language pair.

Every source is read in blocks, so memory does not grow with the corpus.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nmt.data import table_files
from nmt.data.fingerprints import file_fingerprint
from nmt.data.synthetic import dataset
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.data.text_files import check_file, read_lines, read_parallel
from nmt.data.tokenizer import TokenizerConfig


class SentencePair(NamedTuple):
    source: str
    target: str


Block = tuple[list[str], list[str]]  # as many sources as targets
HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
SPLITS = tuple(HUB_SPLITS)


@dataclass
class DataConfig:
    """Which sentence pairs, and what is made of them.

    format: a key of SOURCES.
    train: training text: a prefix, file or split name, or a list [a,b], which is joined. text: a prefix, read from
        PREFIX.<source_lang> and PREFIX.<target_lang>; tsv, parquet, jsonl: a file; hub: a split's name (default: train,
        validation, test). builtin: default its own; a prefix is read as with text.
    valid: validation text; named as `train` is.
    test: test text; named as `train` is.
    source_lang: source language, also the suffix of its text files.
    target_lang: target language, likewise.
    extra_tests: further test sets, each evaluated on its own.
    hf_dataset, hf_config: kind=hub only: a local folder or the dataset's name, and its configuration (such as de-en).
    column: parquet, jsonl, hub: the column of {language: sentence} records; without it, one column for each language.
    columns: tsv: the columns of source and target, counted from 1; others are ignored.
    max_length: subwords of a side, the end token not counted; longer pairs are dropped and counted.
    max_length_ratio: longer side over shorter side in subwords, above which a training pair is dropped; 0 is off.
    train_alignments: files of the training text's word alignment, as many as `train` has entries, one line of links for
        each
        pair: i-j, or ipj for one that is only possible; source word first, counted from 0, words being what spaces
        separate. Default: PREFIX.gold beside the text (which the built-in pair has), for one file its name with .gold.
        Read only where something uses it: `train.guided_alignment_weight`.
    error_on_dropped: a dropped pair is an error.
    cache_dir: folder for prepared corpora and tokenizers.
    """

    format: str = "builtin"
    train: Any = None
    valid: Any = None
    test: Any = None
    extra_tests: list[str] = field(default_factory=list)
    source_lang: str = "en"
    target_lang: str = "de"
    hf_dataset: str | None = None
    hf_config: str | None = None
    column: str = "translation"
    columns: list[int] = field(default_factory=lambda: [1, 2])
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    max_length: int = 256
    max_length_ratio: float = 0.0
    train_alignments: Any = None
    error_on_dropped: bool = False
    cache_dir: str = "cache"
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    def validate(self) -> None:
        """Raises ValueError, naming the option, for values that cannot work."""
        if self.format not in SOURCES:
            raise ValueError(f"data.format={self.format}: must be one of {', '.join(SOURCES)}")
        for name in SPLITS:
            as_name_list(f"data.{name}", getattr(self, name))
        as_name_list("data.extra_tests", self.extra_tests)
        as_name_list("data.train_alignments", self.train_alignments)
        for name in ("source_lang", "target_lang", "column", "cache_dir"):
            if not getattr(self, name):
                raise ValueError(f"data.{name}: must not be empty")
        if self.source_lang == self.target_lang:
            raise ValueError(f"data.target_lang={self.target_lang}: must differ from data.source_lang")
        if self.format == "hub" and not self.hf_dataset:
            raise ValueError("data.hf_dataset: not given; data.format=hub needs a dataset's name or a local folder")
        if self.format == "builtin":
            self._validate_builtin()
        if len(self.columns) != 2 or min(self.columns) < 1 or self.columns[0] == self.columns[1]:
            raise ValueError(f"data.columns={self.columns}: must be two different columns, counted from 1")
        if self.max_length < 1:
            raise ValueError(f"data.max_length={self.max_length}: must be at least 1")
        if self.max_length_ratio != 0 and self.max_length_ratio < 1:
            raise ValueError(f"data.max_length_ratio={self.max_length_ratio}: must be 0 (off) or at least 1")
        self.tokenizer.validate()

    def _validate_builtin(self) -> None:
        self.synthetic.validate()
        languages = {self.source_lang, self.target_lang}
        if not (self.train and self.valid and self.test) and languages != set(dataset.LANGUAGES):
            raise ValueError(
                f"data.source_lang={self.source_lang} and data.target_lang={self.target_lang}: the built-in pair is en "
                "and de, in either direction"
            )


def read_pairs(config: DataConfig, split: str, repaired: Counter[str] | None = None) -> Iterator[SentencePair]:
    """All pairs of a split (train, valid, test) or of an explicitly named place (as in `more_tests`), blank ones too.

    Raises ValueError or FileNotFoundError naming file and line. What was repaired is counted in `repaired`.
    """
    for sources, targets in read_blocks(config, split, Counter() if repaired is None else repaired):
        yield from map(SentencePair, sources, targets)


def read_blocks(config: DataConfig, split: str, repaired: Counter[str]) -> Iterator[Block]:
    """As `read_pairs`, in blocks."""
    for location in resolve_split(config, split):
        yield from read_split_part(config, location, repaired)


def read_split_part(config: DataConfig, location: str, repaired: Counter[str]) -> Iterator[Block]:
    """The blocks of one of the `locations`."""
    yield from _kind(config).read(config, location, repaired)


def resolve_split(config: DataConfig, split: str) -> list[str]:
    """The prefixes, files or split names that a split (or an explicitly named place) stands for."""
    if split not in SPLITS:
        return [split]
    if given := as_name_list(f"data.{split}", getattr(config, split)):
        return given
    if config.format == "builtin":
        return [str(_builtin_folder(config) / split)]
    if config.format == "hub":
        return [HUB_SPLITS[split]]
    raise ValueError(f"data.{split}: not given; data.format={config.format} needs {_kind(config).needs}")


def extra_test_sets(config: DataConfig) -> list[str]:
    """The further test sets to evaluate; by default the built-in pair's sentences longer than any in its training."""
    if config.format == "builtin" and not config.extra_tests:
        return [str(_builtin_folder(config) / "test_long")]
    return list(config.extra_tests)


def _builtin_folder(config: DataConfig) -> Path:
    config._validate_builtin()
    reverse = config.source_lang != dataset.LANGUAGES[0]
    return dataset.dataset_directory(Path(config.cache_dir), config.synthetic, reverse=reverse)


def alignment_path(config: DataConfig, split: str) -> Path | None:
    """The file of true word alignments beside a text (PREFIX.gold; for one file, its name with .gold), if there is one.

    None for joined texts too: their alignments are in several files.
    """
    if config.format == "hub":
        return None
    places = resolve_split(config, split)
    if len(places) != 1:
        return None
    path = default_alignment_path(config, places[0])
    return path if path.is_file() else None


def default_alignment_path(config: DataConfig, place: str) -> Path:
    """The file of word alignments that belongs to one of the `locations`, whether it exists or not."""
    return Path(f"{place}.gold") if _kind(config).read is _read_text else Path(place).with_suffix(".gold")


def dataset_fingerprint(config: DataConfig, split: str) -> str:
    """A digest of the text of a split and of the options that decide how it is read."""
    digest = hashlib.sha256()
    options = [_kind(config).name, config.source_lang, config.target_lang, config.column, config.columns]
    digest.update(json.dumps(options).encode())
    for location in resolve_split(config, split):
        files = _kind(config).files(config, location)
        for path in files:
            digest.update(file_fingerprint(path))
        if not files:
            for block in _kind(config).read(config, location, Counter()):
                digest.update(json.dumps(block).encode())
    return digest.hexdigest()


def as_name_list(option: str, value: Any) -> list[str]:
    """An option that takes a name, a list of them, or nothing. Raises ValueError for anything else."""
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{option}={value!r}: must be a name or a list of names")
    return names


class DataSource(NamedTuple):
    name: str
    read: Callable[[DataConfig, str, Counter[str]], Iterator[Block]]
    files: Callable[[DataConfig, str], list[Path]]  # what decides the text's content; none: the text itself
    needs: str


def _text_files(config: DataConfig, prefix: str) -> list[Path]:
    paths = [Path(f"{prefix}.{language}") for language in (config.source_lang, config.target_lang)]
    for path in paths:
        check_file(path, "" if path.is_file() else f"; {_suffix_hint(prefix, path)}")
    return paths


def _suffix_hint(prefix: str, path: Path) -> str:
    name = Path(prefix).name
    parent = path.parent
    found = sorted(file.name[len(name) :] for file in parent.glob("*") if file.name.startswith(f"{name}."))
    found = [suffix for suffix in found if suffix != ".gold"]
    reads = f"{prefix} is read from one file for each language, set by data.source_lang and data.target_lang"
    return f"{reads}; suffixes that exist: {', '.join(found)}" if found else reads


def _read_text(config: DataConfig, prefix: str, repaired: Counter[str]) -> Iterator[Block]:
    source, target = _text_files(config, prefix)
    yield from read_parallel(source, target, repaired)


def _table_files(config: DataConfig, name: str) -> list[Path]:
    check_file(Path(name), f"; data.format={config.format} reads one file for both languages")
    return [Path(name)]


def _read_tsv(config: DataConfig, name: str, repaired: Counter[str]) -> Iterator[Block]:
    (path,) = _table_files(config, name)
    first, second = (column - 1 for column in config.columns)
    needed = max(config.columns)
    num_read = 0
    for lines in read_lines(path, repaired):
        fields = [line.split("\t") if line else [""] * needed for line in lines]
        if min(map(len, fields)) < needed:
            row = next(index for index, cells in enumerate(fields) if len(cells) < needed)
            raise ValueError(
                f"{path}: line {num_read + row + 1}: {len(fields[row])} tab-separated columns, "
                f"data.columns={config.columns} needs {needed}"
            )
        num_read += len(lines)
        yield [cells[first].strip(" ") for cells in fields], [cells[second].strip(" ") for cells in fields]


def _read_rows(config: DataConfig, name: str, repaired: Counter[str]) -> Iterator[Block]:
    if config.format == "hub":
        assert config.hf_dataset is not None
        where = f"{config.hf_dataset} ({name})"
        stream = table_files.load_hub_dataset(config.hf_dataset, config.hf_config, name)
    else:
        where = name
        stream = table_files.open_file(config.format, _table_files(config, name)[0])
    yield from table_files.iter_pairs(stream, where, config.column, config.source_lang, config.target_lang, repaired)


_TEXT = DataSource("text", _read_text, _text_files, "a prefix, read from PREFIX.<source_lang> and PREFIX.<target_lang>")
SOURCES: dict[str, DataSource] = {
    "builtin": _TEXT,
    "text": _TEXT,
    "tsv": DataSource("tsv", _read_tsv, _table_files, "a file with one pair on each line"),
    "parquet": DataSource("parquet", _read_rows, _table_files, "a .parquet file"),
    "jsonl": DataSource("jsonl", _read_rows, _table_files, "a file with one JSON object on each line"),
    "hub": DataSource("hub", _read_rows, lambda config, name: [], "a split's name"),
}


def _kind(config: DataConfig) -> DataSource:
    if config.format not in SOURCES:
        raise ValueError(f"data.format={config.format}: must be one of {', '.join(SOURCES)}")
    return SOURCES[config.format]
