"""Tables (Parquet, JSON lines, datasets of a hub or a local folder), read through the `datasets` library."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nmt.data.text_files import BLOCK_LINES, strip_lines


def open_file(kind: str, path: Path) -> Any:
    """Open a stream of the rows of one .parquet or JSON lines file."""
    return _load("json" if kind == "jsonl" else kind, str(path), data_files=str(path), split="train", streaming=True)


class DatasetUnavailableError(ValueError, OSError):
    """A dataset that does not exist, or whose hub is unreachable."""


def load_hub_dataset(path: str, config: str | None, split: str) -> Any:
    """Load the rows of a split of a dataset. A local folder is streamed; anything else is kept in the library's own
    cache, so that it is downloaded once. Raises DatasetUnavailableError."""
    try:
        return _load(path, f"{path} ({split})", name=config, split=split, streaming=Path(path).is_dir())
    except ValueError as error:
        raise DatasetUnavailableError(str(error)) from error


def _load(path: str, where: str, **options: Any) -> Any:
    import datasets

    try:
        return datasets.load_dataset(path, **options)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{where}: cannot be opened: {_one_line(error)}") from error


def iter_pairs(
    stream: Any, where: str, column: str, source_lang: str, target_lang: str, repaired: Counter[str]
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield blocks of sources and targets from a column of {language: sentence} records, or else from one column for
    each language.

    A line break inside a cell becomes a space and a null cell an empty text, both counted in `repaired`. Raises
    ValueError with the row (from 1) for a cell that is not text, and for missing columns.
    """
    num_read = 0
    for batch in _batches(stream, where):
        sources = _cells(batch, column, source_lang, where)
        targets = _cells(batch, column, target_lang, where)
        yield (
            _texts(sources, f"{where}: {source_lang}", num_read, repaired),
            _texts(targets, f"{where}: {target_lang}", num_read, repaired),
        )
        num_read += len(sources)
    if num_read == 0:
        raise ValueError(f"{where}: there are no rows")


def _batches(stream: Any, where: str) -> Iterator[dict[str, list[Any]]]:
    import datasets

    try:
        yield from stream.iter(batch_size=BLOCK_LINES)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{where}: cannot be read: {_one_line(error)}") from error


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
