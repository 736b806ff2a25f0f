"""Training text that is read as it arrives: one buffer of pairs after the other is encoded, shuffled and batched."""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, compress, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nmt.data import table_files
from nmt.data.batch_sampler import check_max_length
from nmt.data.batching import Batch, BatchLoader
from nmt.data.config import DataConfig
from nmt.data.corpus import EncodedCorpus, TextColumn, TokenColumn
from nmt.data.prefetch import prefetch
from nmt.data.preprocessing import CorpusWriter, format_counts
from nmt.data.sources import Block, dataset_fingerprint, resolve_split
from nmt.data.tokenizer import Tokenizer

logger = logging.getLogger(__name__)
RETRY_SECONDS: tuple[int, ...] = (2, 10, 60)  # before a file that broke off is opened again, beside the library's own


class BufferStart(NamedTuple):
    """The beginning of a buffer, and what has been read of its epoch by then; all numbers count from 0."""

    epoch: int
    batch: int
    place: int  # of its first row's file in the order of the epoch
    row: int  # of that file
    num_read: int
    dropped: dict[str, int]
    repaired: dict[str, int]


class StreamLoader(BatchLoader):
    """The batches of a training text with `data.streaming`, epoch by epoch.

    Seed and epoch order the files; each `data.shuffle_buffer` pairs are batched as a corpus of their own, while the
    next ones are read. The file `index` remembers where buffers begin, so that an epoch is continued by skipping rows
    of one file; without it, all that precedes is read and encoded again, to the same batches.
    """

    def __init__(
        self,
        config: DataConfig,
        tokenizer: Tokenizer,
        batch_tokens: int,
        seed: int,
        index: Path | None = None,
        device: torch.device | None = None,
    ) -> None:
        check_max_length(config.max_length, batch_tokens)
        nothing = _encode(CorpusWriter(Path(), config, tokenizer, True, False, ""), ([], []))
        super().__init__(nothing, tokenizer, batch_tokens, seed, device=device)
        self.config, self.index, self.languages = config, index, (config.source_lang, config.target_lang)
        self.shards = list[tuple[str, Callable[[], table_files.Batches]]]()
        for name in resolve_split(config, "train"):
            where = f"{config.hf_dataset} ({name}, file"
            num, read = table_files.open_hub_shards(str(config.hf_dataset), config.hf_config, name, self.languages)
            self.shards += [(f"{where} {number + 1})", partial(read, number)) for number in range(num)]
        next(self._rows(0, 0, 0, Counter()), None)  # where it cannot be read at all, this is known before training
        options = [config.shuffle_buffer, config.max_length, config.max_length_ratio, batch_tokens, seed]
        key = f"{dataset_fingerprint(config, 'train').digest} {tokenizer.digest} {options}"
        self._key, self._starts = hashlib.sha256(key.encode()).hexdigest()[:16], [BufferStart(0, 0, 0, 0, 0, {}, {})]
        for line in index.read_text("utf-8", "replace").splitlines() if index and index.exists() else ():
            with suppress(ValueError, TypeError):  # it is damaged
                key, *values = json.loads(line)
                if key == self._key:
                    self._starts.append(BufferStart(*values))

    def num_batches(self) -> int:
        """Return 0: how many batches an epoch has is not known before its end."""
        return 0

    def statistics(self, epoch: int, batch: int) -> tuple[str, int, int, dict[str, int], dict[str, int]]:
        """Return name, pairs read and used, dropped and repaired, of the first epoch, as far as this batch needs it."""
        starts = sorted(start for start in self._starts if start.epoch == 0)
        end = next((start for start in starts if not epoch and start.batch >= batch), starts[-1])
        return "train", end.num_read, end.num_read - sum(end.dropped.values()), end.dropped, end.repaired

    def _make_epoch(self, epoch: int, start: int, share: tuple[int, int]) -> Iterator[Batch]:
        for first, loader in prefetch(self._buffers(epoch, start), min(self.prefetch, 1)):
            yield from loader.epoch(0, max(0, start - first), share=share)

    def _buffers(self, epoch: int, start: int) -> Iterator[tuple[int, BatchLoader]]:
        """Yield the buffers of an epoch, each with the number of its first batch, from the last one on that is known to
        begin at batch `start` or before. Raises ValueError when no pair can be used."""
        known = [begin for begin in self._starts if begin.epoch == epoch and begin.batch <= start]
        begin, config = max(known, default=BufferStart(epoch, 0, 0, 0, 0, {}, {})), self.config
        repaired, dropped = Counter(begin.repaired), Counter(begin.dropped)
        encoder = CorpusWriter(Path(), config, self.tokenizer, True, False, "", repaired, {}, dropped)
        rows = self._rows(epoch, begin.place, begin.row, repaired)
        while pairs := list(islice(rows, config.shuffle_buffer)):
            corpus = _encode(encoder, ([pair[2] for pair in pairs], [pair[3] for pair in pairs]))
            if config.error_on_dropped and dropped:
                raise ValueError(f"data.error_on_dropped=true: {config.hf_dataset}: {format_counts(dropped)}")
            seed = int(np.random.SeedSequence([self.seed, epoch, begin.num_read]).generate_state(1, np.uint64)[0])
            loader = BatchLoader(corpus, self.tokenizer, self.batch_tokens, seed, prefetch=0, device=self.device)
            first, (place, row, *_), num_read = begin.batch, pairs[-1], begin.num_read + len(pairs)
            end = first + loader.num_batches(), place, row + 1, num_read
            begin = BufferStart(epoch, *end, dict(dropped), dict(repaired))
            self._starts.append(begin)
            if self.index:
                with suppress(OSError), self.index.open("a") as file:  # as on a full disk: it only saves time
                    file.write(json.dumps([self._key, *begin]) + "\n")
            yield first, loader
        text = f"{config.hf_dataset}: {begin.num_read - dropped.total()} of {begin.num_read} pairs can be used"
        if not begin.batch:
            raise ValueError(f"{text} ({format_counts(dropped)})")
        if epoch == 0:
            logger.info("%s; %s", text, format_counts(dropped + repaired) or "nothing was dropped")

    def _rows(self, epoch: int, place: int, row: int, repaired: Counter[str]) -> Iterator[tuple[int, int, str, str]]:
        """Yield place, row, source and target of pairs from a place and a row on; count the repairs in blocks of them.
        Raises ValueError for rows that are at fault, and DatasetUnavailableError where more attempts fail too."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards)).tolist()
        waits = RETRY_SECONDS
        while place < len(order):
            (where, open_rows), first, seen = self.shards[order[place]], 0, Counter[str]()
            try:
                head = list(islice(batches := open_rows(), 1))  # none of an empty file
                pairs = table_files.iter_pairs(chain(head, batches), where, self.config.column, *self.languages, seen)
                for sources, targets in pairs if head else ():
                    repaired.update(seen if first >= row else {})
                    seen.clear()
                    while row < first + len(sources):
                        yield place, row, sources[row - first], targets[row - first]
                        row, waits = row + 1, RETRY_SECONDS
                    first += len(sources)
                place, row = place + 1, 0
            except ValueError as error:
                if error.__cause__ is None or isinstance(error.__cause__, ValueError):  # the rows are at fault
                    raise
                if not waits:
                    text = "again and again; what is trained is saved, and the same command goes on from there"
                    raise table_files.DatasetUnavailableError(f"{error}, {text}") from error
                logger.warning("%s; it is tried again in %d s", error, waits[0])
                time.sleep(waits[0])
                waits = waits[1:]


def _encode(encoder: CorpusWriter, block: Block) -> EncodedCorpus:
    """Return the pairs of a block that are used, with their text, in memory."""
    columns, texts = list[TokenColumn](), list[TextColumn]()
    ((_, *sides),) = encoder.encode([block])
    keep = encoder.select(block, sides[0][1], sides[1][1])
    for side, (ids, lengths) in zip(block, sides, strict=True):
        columns.append(TokenColumn(ids[np.repeat(keep, lengths)], np.append(0, np.cumsum(lengths[keep]))))
        rows = [text.encode() for text in compress(side, keep.tolist())]
        ends = np.cumsum([*map(len, rows)], dtype=np.int64)
        texts.append(TextColumn(np.frombuffer(b"".join(rows), np.uint8), np.append(0, ends)))
    return EncodedCorpus(columns[0], columns[1], texts[0], texts[1], {}, {}, len(keep), "", [])
