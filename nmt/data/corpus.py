"""Encoded corpora in the cache: flat arrays of ids on disk, memory-mapped, made once for each text and tokenizer."""

import base64
import hashlib
import json
import logging
import mmap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.data.batch_sampler import max_length
from nmt.data.cache import cached_directory
from nmt.data.config import DataConfig
from nmt.data.corpora import of_split, reserved_names, tokenizer_for, training_corpora, vocabulary_corpora
from nmt.data.fingerprints import FileFingerprint, check_unchanged
from nmt.data.preprocessing import META, VERSION, CorpusWriter, format_counts
from nmt.data.reservoir_sampling import reservoir_sample
from nmt.data.sources import Block, dataset_fingerprint, read_blocks, read_pairs, resolve_split
from nmt.data.tokenizer import Tokenizer, training_options
from nmt.runtime.files import write_text
from nmt.runtime.logs import is_quiet
from nmt.runtime.memory import malloc_trim

logger = logging.getLogger(__name__)

_TOKENIZER = "tokenizer.json"


class TokenColumn(NamedTuple):
    """One language: row i is `ids[offsets[i]:offsets[i + 1]]`, without BOS and EOS."""

    ids: NDArray[Any]  # uint16 or uint32, mapped from disk
    offsets: NDArray[np.int64]  # (N + 1,)


class TextColumn(NamedTuple):
    """One language's sentences in UTF-8: row i is `content[offsets[i]:offsets[i + 1]]`."""

    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]  # (N + 1,)

    def rows(self, indices: NDArray[Any]) -> list[str]:
        """Return the sentences of some rows."""
        starts, ends = self.offsets[indices].tolist(), self.offsets[indices + 1].tolist()
        return [self.content[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]


class AlignmentColumn(NamedTuple):
    """Word alignment: row i has the links `pairs[offsets[i]:offsets[i + 1]]`, each once."""

    pairs: NDArray[Any]  # (M, 2) uint16 or uint32, mapped from disk: source word, target word, counted from 0
    offsets: NDArray[np.int64]  # (N + 1,)


@dataclass(frozen=True)
class EncodedCorpus:
    """Encoded sentence pairs, N rows.

    `source_text` and `target_text` are kept for a training corpus with subword regularization only, which segments the
    text anew in every epoch; `links` come from `attach_alignments`. `dropped` and `repaired` count pairs by reason, out
    of `num_read`; `dropped_rows` are the indices, from 0, of the dropped ones. `digest` identifies text, tokenizer and
    options together; `files` are the files of the text as it was encoded. `bounds` are the first rows of the corpora of
    a training text that consists of several, by name, and `prefixes` the tags before their sources and targets.
    """

    source: TokenColumn
    target: TokenColumn
    source_text: TextColumn | None
    target_text: TextColumn | None
    dropped: dict[str, int]
    repaired: dict[str, int]
    num_read: int
    digest: str
    files: list[FileFingerprint]
    dropped_rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    links: AlignmentColumn | None = None
    bounds: dict[str, int] = field(default_factory=dict)
    prefixes: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])

    def __len__(self) -> int:
        return len(self.source.offsets) - 1

    @cached_property
    def max_length(self) -> int:
        """Number of subwords of the longest sentence on either side, the end token not counted."""
        longest = max(max_length(self.source.offsets), max_length(self.target.offsets))
        self.drop_page_cache()
        return longest

    def drop_page_cache(self) -> None:
        """Release the pages of its files that are resident in this process; they are mapped again when read."""
        columns = (self.source, self.target, self.source_text, self.target_text, self.links)
        for array in (array for column in columns if column is not None for array in column):
            mapped = getattr(array, "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


def train_or_load_tokenizer(config: DataConfig) -> Tokenizer:
    """Return the tokenizer trained on the training text alone, from the cache where text and options are unchanged; or
    the one of `data.tokenizer.model`.

    Raises ValueError or FileNotFoundError for an unusable text or model, or an unreachable vocabulary size.
    """
    if config.tokenizer.model:
        return Tokenizer.load(config.tokenizer).with_tags(reserved_names(config))
    text = dataset_fingerprint(config, "train")
    options = json.dumps([VERSION, training_options(config.tokenizer)])
    digest = hashlib.sha256((options + text.digest).encode()).hexdigest()

    def build(folder: Path) -> None:
        started = time.monotonic()
        limits = config.tokenizer.max_training_pairs, config.tokenizer.max_training_characters
        texts = [part.config for part in vocabulary_corpora(config)] or [config]
        pairs = (pair for own in texts for pair in read_pairs(own, "train"))
        most = (limits[0] or None) if config.streaming else None
        sample = reservoir_sample(islice(pairs, most), *limits)
        check_unchanged(text.files, dataset_fingerprint(config, "train").files)
        trained = Tokenizer.train(config.tokenizer, sample.pairs)
        sizes = f"{trained.source_size}" if trained.joint else f"{trained.source_size}+{trained.target_size}"
        sampled = "all" if len(sample.pairs) == sample.num_read else f"{len(sample.pairs)} random ones of"
        logger.info(
            "trained a %s tokenizer with %s entries on %s %d pairs in %.1f s",
            *(trained.type, sizes, sampled, sample.num_read, time.monotonic() - started),
        )
        write_text(folder / _TOKENIZER, json.dumps(trained.state_dict(), default=_to_base64, ensure_ascii=False))

    folder = cached_directory(Path(config.cache_dir) / f"tokenizer-{digest[:16]}", build)
    malloc_trim()  # training a tokenizer takes more memory than all that follows
    state = json.loads((folder / _TOKENIZER).read_text(encoding="utf-8"), object_hook=_from_base64)
    tokenizer = Tokenizer.from_state_dict(state)
    tokenizer.subword_regularization = config.tokenizer.subword_regularization
    return tokenizer.with_tags(reserved_names(config))


def load_corpus(config: DataConfig, split: str, tokenizer: Tokenizer) -> EncodedCorpus:
    """Return the encoded pairs of a split (or of an explicitly named prefix, file or split), from the cache where text,
    tokenizer and options are unchanged; else encode them block by block in bounded memory.

    Dropped and counted: pairs with more than `max_length` subwords on a side and, of the training split, pairs with an
    empty side or a length ratio above `max_length_ratio`. Other splits keep empty sentences. Raises ValueError when
    nothing is left, and with `error_on_dropped` when anything is dropped.
    """
    training = split == "train"
    keep_text = training and tokenizer.subword_regularization > 0
    options: list[Any]
    options = [VERSION, config.max_length, config.max_length_ratio if training else 0, training, keep_text]
    text, where = dataset_fingerprint(config, split), ", ".join(dict.fromkeys(resolve_split(config, split)))
    parts = [
        (part.name, part.config, tokenizer_for(config, tokenizer, part.config.target_lang, part.tag))
        for part in (training_corpora(config) if training else [])
    ]
    own, split_name = of_split(config, split)
    if parts:
        options += [[c.max_length, c.max_length_ratio, t.digest] for _, c, t in parts]
    else:
        tokenizer = tokenizer_for(config, tokenizer, own.target_lang)
    digest = hashlib.sha256((json.dumps(options) + tokenizer.digest + text.digest).encode()).hexdigest()

    def build(folder: Path) -> None:
        writer = CorpusWriter(folder, config, tokenizer, training, keep_text, where)
        writer.run(
            (name, own, view, _show_progress(read_blocks(own, split_name, writer.repaired), name or where))
            for name, own, view in parts or [("", own, tokenizer)]
        )
        check_unchanged(text.files, dataset_fingerprint(config, split).files)
        malloc_trim()

    folder = cached_directory(Path(config.cache_dir) / f"corpus-{digest[:16]}", build)
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    num_dropped = sum(meta["dropped"].values())
    if config.error_on_dropped and num_dropped:
        raise ValueError(
            f"data.error_on_dropped=true: {where}: pair {meta['first_dropped']} and {num_dropped - 1} others cannot be "
            f"used ({format_counts(meta['dropped'])})"
        )
    bounds = meta.get("bounds", {}) if parts else {}
    ends = [*bounds.values(), meta["num_read"] - num_dropped][1:]
    sizes = [f"{name}: {end - start}" for (name, start), end in zip(bounds.items(), ends, strict=False)]
    reasons = [f"{title}: {format_counts(meta[title])}" for title in ("dropped", "repaired") if meta[title]]
    num_pairs = f"{meta['num_read'] - num_dropped} of {meta['num_read']} pairs"
    logger.info("%s: %s", where, "; ".join([num_pairs, *sizes, *reasons]))

    views = [view for _, _, view in parts] or [tokenizer]

    def column(name: str, dtype: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        return memory_map(folder / f"{name}.bin", dtype), memory_map(folder / f"{name}_offsets.bin", np.int64)

    return EncodedCorpus(
        source=TokenColumn(*column("source", meta["dtype"]["source"])),
        target=TokenColumn(*column("target", meta["dtype"]["target"])),
        source_text=TextColumn(*column("source_text", "uint8")) if keep_text else None,
        target_text=TextColumn(*column("target_text", "uint8")) if keep_text else None,
        dropped=meta["dropped"],
        repaired=meta["repaired"],
        num_read=meta["num_read"],
        digest=digest,
        files=text.files,
        dropped_rows=memory_map(folder / "dropped.bin", np.int64),
        bounds=bounds,
        prefixes=([view.prefixes[0] for view in views], [view.prefixes[1] for view in views]),
    )


def _show_progress(blocks: Iterator[Block], where: str) -> Iterator[Block]:
    """Yield the blocks, with a progress bar when the error stream is a terminal."""
    from tqdm import tqdm

    with tqdm(desc=where, unit=" pairs", unit_scale=True, disable=is_quiet() or None, leave=False) as bar:
        for block in blocks:
            yield block
            bar.update(len(block[0]))


def memory_map(path: Path, dtype: Any) -> NDArray[Any]:
    """Map a file of numbers, or return an empty array for an empty file, which cannot be mapped."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")


def _to_base64(value: Any) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode("ascii")}


def _from_base64(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value
