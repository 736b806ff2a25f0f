"""Tables (Parquet, JSON lines, datasets of a hub or a local folder), read through the `datasets` library.

Its readers of JSON and CSV guess types: strings such as "2024-01-02" become times, "NA" nothing, "007" a number. So
JSON is read as text and parsed here, and the columns of a CSV file are read as they are.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

from nmt.data.text_files import BLOCK_LINES, read_lines, strip_lines
from nmt.runtime.compression import SUFFIXES
from nmt.runtime.errors import error_message

Batches = Iterator[dict[str, list[Any]]]  # blocks of rows, column by column


def open_file(kind: str, path: Path) -> Batches:
    """Open the rows of one .parquet or JSON lines file."""
    where = str(path)
    options: dict[str, Any] = {"split": "train", "streaming": True}
    if kind == "jsonl" and path.suffix in SUFFIXES:
        return _json_batches(lambda whole: _compressed_texts(path, whole), where)
    if kind == "jsonl":
        return _json_batches(_text_reader({"train": where}, where, options), where)
    return read_batches(_load(kind, where, data_files=where, **options), where)


class DatasetUnavailableError(ValueError, OSError):
    """A dataset that does not exist, or whose hub is unreachable."""


def open_hub_dataset(
    path: str, config: str | None, split: str, text_columns: tuple[str, str], streaming: bool = False
) -> Batches:
    """Open the rows of a split of a dataset. A local folder is streamed, and with `streaming` any; else it is kept in
    the library's own cache, so that it is downloaded once. Raises DatasetUnavailableError."""
    return open_hub_shards(path, config, split, text_columns, streaming or Path(path).is_dir())[1](None)


def open_hub_shards(
    path: str, config: str | None, split: str, text_columns: tuple[str, str], streaming: bool = True
) -> tuple[int, Callable[[int | None], Batches]]:
    """Return the number of shards of a split, and a function that opens the rows of one, by its number, or of all."""
    where = f"{path} ({split})"
    options: dict[str, Any] = {"split": split, "streaming": streaming}
    try:
        builder = _load(path, where, load="load_dataset_builder", name=config)
        kind, files = type(builder.config).__name__, builder.config.data_files
        if kind == "JsonConfig" and streaming:
            read = _text_reader(files, where, options)
            return len(files.get(split, ())), lambda number: _json_batches(partial(read, number=number), where)
        if kind == "CsvConfig":
            as_text = dict.fromkeys(text_columns, str)
            options |= {"usecols": list(text_columns), "converters": as_text, "keep_default_na": False}
        rows = _load(path, where, name=config, **options)
        # What the library has prepared can be read offline, the files of a hub cannot.
        if kind == "JsonConfig" and "timestamp" in str(rows.features):
            return 1, lambda _: _json_batches(_text_reader(files, where, options), where)
        return rows.num_shards if streaming else 1, lambda number: read_batches(rows, where, number)
    except ValueError as error:
        raise DatasetUnavailableError(str(error)) from error


def hub_files(path: str, config: str | None, split: str) -> list[tuple[str, int, str]]:
    """Return name, size and hash of each file of a split, which is a shard: the hub's, else that of its two ends."""
    from fsspec.core import url_to_fs

    where, files = f"{path} ({split})", []
    builder = _load(path, where, load="load_dataset_builder", name=config)
    try:
        for url in (builder.config.data_files or {})[split]:
            system, name = url_to_fs(url)
            info = system.info(name)
            ends = b"" if "blob_id" in info else system.head(name, 1 << 16) + system.tail(name, 1 << 16)
            files.append((Path(name).name, info["size"], info.get("blob_id") or sha256(ends).hexdigest()))
    except Exception as error:  # network libraries have their own
        raise DatasetUnavailableError(f"{where}: its files cannot be listed: {error_message(error)}") from error
    return files


def _load(path: str, where: str, load: str = "load_dataset", **options: Any) -> Any:
    import datasets

    try:
        return getattr(datasets, load)(path, **options)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{where}: cannot be opened: {error_message(error)}") from error


def _text_reader(files: Any, where: str, options: dict[str, Any]) -> Callable[..., Batches]:
    """Return a function that opens the text of files, their lines or each as a whole, or of one file by its number."""
    options = {"data_files": files, "encoding": "utf-8-sig", **options}
    units = {False: "line", True: "document"}
    load = cache(lambda whole: _load("text", where, sample_by=units[whole], **options))
    return lambda whole, number=None: read_batches(load(whole), where, number)


def _compressed_texts(path: Path, whole: bool) -> Batches:
    blocks = read_lines(path, Counter())
    return ({"text": block} for block in ([["\n".join(chain.from_iterable(blocks))]] if whole else blocks))


def _json_batches(read: Callable[[bool], Batches], where: str) -> Batches:
    """Yield the rows of files with a JSON object on each line, or with one list of objects."""
    rows = _json_rows(read, where)
    while block := list(islice(rows, BLOCK_LINES)):
        names = dict.fromkeys(name for row in block for name in row)
        yield {name: [row.get(name) for row in block] for name in names}


def _json_rows(read: Callable[[bool], Batches], where: str) -> Iterator[dict[str, Any]]:
    first = next(read(False), {"text": [""]})["text"][0]
    num_read = 0
    for batch in read(first.lstrip().startswith("[")):
        for text in filter(str.strip, batch["text"]):
            try:
                value = json.loads(text)
                if "\\u" in text:
                    json.dumps(value, ensure_ascii=False).encode()  # fails for half of a surrogate pair
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where}: cannot be read: row {num_read + 1} is not JSON: {error}") from None
            for row in value if isinstance(value, list) else [value]:
                num_read += 1
                if not isinstance(row, dict):
                    raise ValueError(f"{where}: cannot be read: row {num_read} is not a JSON object with named columns")
                yield row


def iter_pairs(
    batches: Batches, where: str, column: str, source_lang: str, target_lang: str, repaired: Counter[str]
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield blocks of sources and targets from a column of {language: sentence} records, or else from one column for
    each language.

    A line break inside a cell becomes a space and a null cell an empty text, both counted in `repaired`. Raises
    ValueError with the row (from 1) for a cell that is not text, and for missing columns.
    """
    num_read = 0
    for batch in batches:
        sources = _cells(batch, column, source_lang, where)
        targets = _cells(batch, column, target_lang, where)
        yield (
            _texts(sources, f"{where}: {source_lang}", num_read, repaired),
            _texts(targets, f"{where}: {target_lang}", num_read, repaired),
        )
        num_read += len(sources)
    if num_read == 0:
        raise ValueError(f"{where}: there are no rows")


def read_batches(stream: Any, where: str, shard: int | None = None) -> Batches:
    """Yield the rows of a stream of `datasets`, or of one shard of it. Raises ValueError when they cannot be read."""
    import datasets

    try:
        yield from (stream if shard is None else stream.shard(stream.num_shards, shard)).iter(batch_size=BLOCK_LINES)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{where}: cannot be read: {error_message(error)}") from error


def _cells(batch: dict[str, list[Any]], column: str, language: str, where: str) -> list[Any]:
    if column in batch:
        records = batch[column]
        languages = {name for record in records if isinstance(record, dict) for name in record}
        if language not in languages:
            raise ValueError(f"{where}: column {column} has no language {language}; it has {_join_names(languages)}")
        return [record.get(language) if isinstance(record, dict) else record for record in records]
    if language in batch:
        return batch[language]
    raise ValueError(f"{where}: no column {column} (data.column) and no column {language}; it has {_join_names(batch)}")


def _texts(cells: list[Any], where: str, num_before: int, repaired: Counter[str]) -> list[str]:
    for row, cell in enumerate(cells, start=num_before + 1):
        if cell is not None and not isinstance(cell, str):
            raise ValueError(f"{where}: row {row} holds {cell!r}, which is not text")
    if num := cells.count(None):
        repaired["empty cell"] += num
    texts: list[str] = [cell or "" for cell in cells]
    if num := sum("\n" in text for text in texts):
        repaired["line break in a cell"] += num
        texts = [text.replace("\r\n", " ").replace("\n", " ") for text in texts]
    return strip_lines(texts, repaired)


def _join_names(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
