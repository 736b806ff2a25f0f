"""Aligned sentence pairs, and writers of the files that hold them."""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nmt.alignment.pharaoh import Link, pharaoh_line
from nmt.runtime.files import atomic_write, name_in_errors
from nmt.runtime.text import is_blank

SCHEMA = 2
"""Version of the layout of npz, JSONL and Parquet files; 2 added the words of the subwords."""
DECIMALS = 4
_WEIGHTS_TYPE = np.float16


def words_known(text: str, words: Sequence[int]) -> bool:
    """Return whether the words of a text's subwords (`words`: one for each) are known; a blank text has none."""
    return max(words, default=-1) >= 0 or is_blank(text)


class AlignedPair(NamedTuple):
    """A sentence pair, its attention and its links.

    source, target: texts; their words are separated by U+0020.
    source_subwords, target_subwords: names of the S and T subwords, the end token included.
    source_words, target_words: the word of each subword, -1 for none, as for the end token.
    weights: (L, H, T, S) attention before dropout, every row summing to 1.
    matrix: (Tw, Sw + 1) attention between words, of one alignment source; the last column is the weight on no word.
        Words at the end of which the tokenizer leaves nothing are not counted.
    links: (source word, target word).
    """

    source: str
    target: str
    source_subwords: list[str]
    target_subwords: list[str]
    source_words: list[int]
    target_words: list[int]
    weights: npt.NDArray[np.float32]
    matrix: npt.NDArray[np.float64]
    links: list[Link]

    @property
    def words_match(self) -> bool:
        """Return whether the words are those of the texts; if not, there are no links."""
        return words_known(self.source, self.source_words) and words_known(self.target, self.target_words)


class AlignmentWriter(Protocol):
    """Writes pairs, numbered from `first`."""

    def write(self, first: int, pairs: Sequence[AlignedPair]) -> None: ...

    def close(self) -> None: ...


class _LineWriter:
    """Base of the writers of one line per pair."""

    def __init__(self, path: Path, weights: bool) -> None:
        self.file: IO[str] = path.open("w", encoding="utf-8", newline="\n")
        self.close = self.file.close

    def write(self, first: int, pairs: Sequence[AlignedPair]) -> None:
        self.file.writelines(f"{self.line(i, pair)}\n" for i, pair in enumerate(pairs, start=first))

    def line(self, number: int, pair: AlignedPair) -> str:
        raise NotImplementedError


class PharaohWriter(_LineWriter):
    """One line of links `i-j` for each pair."""

    def line(self, number: int, pair: AlignedPair) -> str:
        return pharaoh_line(pair.links)


class JsonlWriter(_LineWriter):
    """One JSON object for each pair, without the weights of every layer and head, which are too large as text.

    Keys as in `ParquetWriter`; `matrix` is rounded to `DECIMALS` decimals.
    """

    def line(self, number: int, pair: AlignedPair) -> str:
        row = {**_row(number, pair), "matrix": pair.matrix.round(DECIMALS).tolist()}
        return json.dumps(row, ensure_ascii=False)


class NpzWriter:
    """Arrays of pair number i (from 0), to be read with `numpy.load`.

    `i.source` (S,) and `i.target` (T,) subwords; `i.source_words` and `i.target_words` the word of each, -1 for none;
    `i.links` (N, 2); and in float16 `i.weights` (L, H, T, S), or without every layer and head `i.matrix` (Tw, Sw + 1).
    `schema` is the version of this layout.
    """

    def __init__(self, path: Path, weights: bool) -> None:
        self.archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self.close = self.archive.close
        self.weights = weights
        try:
            self._add("schema", np.array(SCHEMA))
        except OSError:
            self.close()  # else the archive, which nobody closes, prints a traceback
            raise

    def write(self, first: int, pairs: Sequence[AlignedPair]) -> None:
        for i, pair in enumerate(pairs, start=first):
            self._add(f"{i}.source", np.array(pair.source_subwords))
            self._add(f"{i}.target", np.array(pair.target_subwords))
            self._add(f"{i}.source_words", np.array(pair.source_words, np.int32))
            self._add(f"{i}.target_words", np.array(pair.target_words, np.int32))
            self._add(f"{i}.links", np.array(pair.links, np.int32).reshape(-1, 2))
            if self.weights:
                self._add(f"{i}.weights", pair.weights.astype(_WEIGHTS_TYPE))
            else:
                self._add(f"{i}.matrix", pair.matrix.astype(_WEIGHTS_TYPE))

    def _add(self, name: str, array: npt.NDArray[Any]) -> None:
        with self.archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)


class ParquetWriter:
    """A table that `datasets.load_dataset("parquet", data_files=…)` reads, one row for each pair.

    Columns: schema_version; id, from 0; source and target, texts; source_words and target_words, the texts split at
    spaces; source_subwords and target_subwords; source_word_ids and target_word_ids, -1 for none; links, pairs
    (source word, target word); matrix (Tw, Sw + 1) in float32; with every layer and head weights (L, H, T, S) in
    float16.
    """

    def __init__(self, path: Path, weights: bool) -> None:
        import pyarrow
        import pyarrow.parquet

        text, texts, integers = pyarrow.string(), pyarrow.list_(pyarrow.string()), pyarrow.list_(pyarrow.int32())
        columns = {
            "schema_version": pyarrow.int32(),
            "id": pyarrow.int64(),
            "source": text,
            "target": text,
            "source_words": texts,
            "target_words": texts,
            "source_subwords": texts,
            "target_subwords": texts,
            "source_word_ids": integers,
            "target_word_ids": integers,
            "links": pyarrow.list_(integers),
            "matrix": _list_of(pyarrow.float32(), 2),
            **({"weights": _list_of(pyarrow.float16(), 4)} if weights else {}),
        }
        self.schema = pyarrow.schema(list(columns.items()), metadata={"nmt_alignment_schema": str(SCHEMA)})
        self.weights = weights
        self.writer = pyarrow.parquet.ParquetWriter(path, self.schema, compression="zstd")
        self.close = self.writer.close

    def write(self, first: int, pairs: Sequence[AlignedPair]) -> None:
        import pyarrow

        rows = [_row(i, pair) for i, pair in enumerate(pairs, start=first)]
        columns: dict[str, Any] = {
            name: pyarrow.array([row[name] for row in rows], self.schema.field(name).type)
            for name in self.schema.names
            if name not in ("matrix", "weights")
        }
        columns["matrix"] = _nested([pair.matrix.astype(np.float32) for pair in pairs])
        if self.weights:
            columns["weights"] = _nested([pair.weights.astype(_WEIGHTS_TYPE) for pair in pairs])
        self.writer.write_table(pyarrow.table(columns, schema=self.schema))


FORMATS: dict[str, Callable[[Path, bool], AlignmentWriter]] = {
    "pharaoh": PharaohWriter,
    "npz": NpzWriter,
    "jsonl": JsonlWriter,
    "parquet": ParquetWriter,
}
"""Writers by format; the second argument is whether to write the weights of every layer and head."""


@contextmanager
def alignment_writers(
    directory: Path, formats: Sequence[str], *, weights: bool
) -> Iterator[Callable[[Sequence[AlignedPair]], None]]:
    """Yield a function that writes the next pairs to alignments.<format> of every format.

    The files appear together when the block ends, or not at all.

    Args:
        directory: created if it does not exist.
        formats: keys of `FORMATS`.
        weights: whether to write every layer and head, where the format can.
    """
    with ExitStack() as stack:
        writers = []
        for name in formats:
            path = directory / f"alignments.{name}"
            writer = name_in_errors(path)(FORMATS[name])(stack.enter_context(atomic_write(path)), weights)
            stack.callback(name_in_errors(path)(writer.close))
            writers.append(name_in_errors(path)(writer.write))
        num_written = 0

        def write(pairs: Sequence[AlignedPair]) -> None:
            nonlocal num_written
            for write_to_file in writers:
                write_to_file(num_written, pairs)
            num_written += len(pairs)

        yield write


def _row(number: int, pair: AlignedPair) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA,
        "id": number,
        "source": pair.source,
        "target": pair.target,
        "source_words": list(filter(None, pair.source.split(" "))),
        "target_words": list(filter(None, pair.target.split(" "))),
        "source_subwords": pair.source_subwords,
        "target_subwords": pair.target_subwords,
        "source_word_ids": pair.source_words,
        "target_word_ids": pair.target_words,
        "links": [list(link) for link in pair.links],
    }


def _list_of(item: Any, depth: int) -> Any:
    import pyarrow

    return item if depth == 0 else pyarrow.list_(_list_of(item, depth - 1))


def _nested(arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """Convert arrays of the same number of dimensions to nested lists, without a Python object for each number."""
    import pyarrow

    flat = pyarrow.array(np.concatenate([array.ravel() for array in arrays]))
    for axis in reversed(range(arrays[0].ndim)):
        lengths = [np.full(int(np.prod(array.shape[:axis])), array.shape[axis], np.int32) for array in arrays]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
        flat = pyarrow.ListArray.from_arrays(pyarrow.array(offsets), flat)
    return flat
