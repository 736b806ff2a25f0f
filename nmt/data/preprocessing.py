"""Encoding of sentence pairs into the files of one cache entry."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from nmt.data.config import DataConfig
from nmt.data.prefetch import prefetch
from nmt.data.sources import Block
from nmt.data.tokenizer import Tokenizer
from nmt.data.vocabulary import FlatIds
from nmt.runtime.files import open_output, write_text
from nmt.runtime.text import is_blank

logger = logging.getLogger(__name__)

VERSION = 4  # of the files; another version is another cache entry
META = "meta.json"

Files = Mapping[str, IO[bytes]]


def format_counts(numbers: Mapping[str, int]) -> str:
    """Format counts by reason for messages."""
    return ", ".join(f"{reason}: {num}" for reason, num in numbers.items())


@dataclass(eq=False)
class CorpusWriter:
    """Writer of one cache entry: encodes blocks of pairs, drops those that are not used, and counts them. Of a stream,
    which is not written, `encode` and `select` alone are called."""

    folder: Path
    config: DataConfig
    tokenizer: Tokenizer
    training: bool
    keep_text: bool
    where: str
    repaired: Counter[str] = field(default_factory=Counter)
    bounds: dict[str, int] = field(default_factory=dict)  # first row of each corpus
    dropped: Counter[str] = field(default_factory=Counter)
    _ends: Counter[str] = field(default_factory=Counter)  # offsets of the files' ends
    _first_dropped: int | None = None
    _num_read: int = 0
    _num_pairs: int = 0

    def __post_init__(self) -> None:
        sizes = {"source": self.tokenizer.source_size, "target": self.tokenizer.target_size}
        self._dtypes = {name: np.dtype(np.uint16 if size <= 1 << 16 else np.uint32) for name, size in sizes.items()}

    def run(self, parts: Iterable[tuple[str, DataConfig, Tokenizer, Iterable[Block]]]) -> None:
        """Write all files, corpus after corpus: its name, options, tokenizer and text. Raises ValueError when no pair
        of one is left."""
        started = time.monotonic()
        columns = ["source", "target"] + (["source_text", "target_text"] if self.keep_text else [])
        names = ["dropped", *columns, *(f"{column}_offsets" for column in columns)]
        with ExitStack() as stack:
            files = {name: stack.enter_context(open_output(self.folder / f"{name}.bin")) for name in names}
            for column in columns:
                files[f"{column}_offsets"].write(np.zeros(1, np.int64).tobytes())
            for name, self.config, self.tokenizer, blocks in parts:
                self.bounds[name], num_read = self._num_pairs, self._num_read
                for block, source, target in prefetch(self.encode(blocks), 1):
                    self._write(files, block, source, target)
                if self._num_pairs == self.bounds[name]:
                    where = self.where + (f": {name}" if len(self.bounds) > 1 else "")
                    raise ValueError(
                        f"{where}: none of the {self._num_read - num_read} pairs can be used "
                        f"({format_counts(self.dropped)}); data.max_length={self.config.max_length}, "
                        f"data.max_length_ratio={self.config.max_length_ratio}"
                    )
        meta = {
            "dtype": {name: dtype.name for name, dtype in self._dtypes.items()},
            "num_read": self._num_read,
            "dropped": dict(self.dropped),
            "repaired": dict(self.repaired),
            "first_dropped": self._first_dropped,
            "bounds": self.bounds,
        }
        write_text(self.folder / META, json.dumps(meta, indent=1))
        seconds = max(time.monotonic() - started, 1e-9)
        logger.info("encoded %s in %.1f s (%.0f pairs/s)", self.where, seconds, self._num_read / seconds)

    def encode(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, FlatIds, FlatIds]]:
        """Yield each block with its encoded sides, in two threads: SentencePiece releases the interpreter lock."""
        encoders = self.tokenizer.encode_source_flat, self.tokenizer.encode_target_flat
        with ThreadPoolExecutor(2) as pool:
            for block in blocks:
                source, target = pool.map(lambda encode, texts: encode(texts), encoders, block)
                yield block, source, target

    def _write(self, files: Files, block: Block, source: FlatIds, target: FlatIds) -> None:
        keep = self.select(block, source[1], target[1])
        for name, (ids, lengths) in (("source", source), ("target", target)):
            kept_ids = ids if keep.all() else ids[np.repeat(keep, lengths)]
            files[name].write(kept_ids.astype(self._dtypes[name]).tobytes())
            self._write_offsets(files, name, lengths[keep])
        if self.keep_text:
            for name, texts in zip(("source_text", "target_text"), block, strict=True):
                rows = [text.encode() for text in compress(texts, keep.tolist())]
                files[name].write(b"".join(rows))
                self._write_offsets(files, name, np.fromiter(map(len, rows), np.int64, len(rows)))
        files["dropped"].write((np.flatnonzero(~keep) + self._num_read).astype(np.int64).tobytes())
        self._num_read += len(keep)
        self._num_pairs += int(keep.sum())

    def _write_offsets(self, files: Files, name: str, lengths: NDArray[np.int64]) -> None:
        offsets = np.cumsum(lengths) + self._ends[name]
        files[f"{name}_offsets"].write(offsets.tobytes())
        self._ends[name] += int(lengths.sum())

    def select(self, block: Block, source: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows of a block are kept; count the others, each under the first reason that holds."""
        config, (source_tags, target_tags) = self.config, self.tokenizer.prefixes
        source, target = source - len(source_tags), target - len(target_tags)
        reasons = {"source too long": source > config.max_length, "target too long": target > config.max_length}
        if self.training:
            blank = [np.fromiter(map(is_blank, texts), np.bool_) for texts in block]
            reasons = {"empty source": blank[0] | (source == 0), "empty target": blank[1] | (target == 0), **reasons}
            if config.max_length_ratio > 0:
                longer, shorter = np.maximum(source, target), np.minimum(source, target)
                reasons["length ratio"] = longer > config.max_length_ratio * shorter
        keep = np.ones(len(source), np.bool_)
        for reason, holds in reasons.items():
            if num := int((keep & holds).sum()):
                self.dropped[reason] += num
            keep &= ~holds
        if self._first_dropped is None and not keep.all():
            self._first_dropped = self._num_read + int(keep.argmin()) + 1
        return keep
