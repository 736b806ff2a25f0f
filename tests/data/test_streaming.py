"""A stream has the pairs of the prepared corpus, in an order of its own, and goes on anywhere as if never stopped."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt.config import validate
from nmt.data import (
    PAD,
    Batch,
    DataConfig,
    Tokenizer,
    TokenizerConfig,
    load_corpus,
    read_pairs,
    streaming,
    table_files,
    train_or_load_tokenizer,
)
from nmt.data.batching import BatchLoader
from nmt.data.preprocessing import CorpusWriter
from nmt.data.sources import dataset_fingerprint
from nmt.data.streaming import StreamLoader
from nmt.data.table_files import DatasetUnavailableError

FILES = (70, 1, 130, 0, 52, 40)  # rows of each
BUFFER = 48


def record(row: int) -> dict[str, Any]:
    rng = random.Random(row)
    words = [f"w{rng.randrange(30)}" for _ in range(rng.choice([1, 3, 5, 9, 14]))]
    target: str | None = " ".join(word.upper() for word in reversed(words))
    if row % 37 == 5:
        target = None if row % 2 else " \u3000"
    return {"id": row, "translation": {"en": " ".join([*words, str(row)]), "de": target}}


def write(folder: Path, kind: str, files: tuple[int, ...] = FILES) -> None:
    from pyarrow import Table, parquet

    rows = iter(range(10**6))
    folder.mkdir(exist_ok=True)
    schema = None
    sizes = [num for num in files if num or kind != "parquet"]  # the library reads no empty ones of those
    for name, size in [*((f"train-{number}", size) for number, size in enumerate(sizes)), ("validation", 6)]:
        records = [record(next(rows)) for _ in range(size)]
        path = folder / f"{name}.{kind}"
        if kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in records))
        elif kind == "parquet":
            table = Table.from_pylist(records, schema=schema)
            schema = table.schema
            parquet.write_table(table, path)
        else:
            lines = [f"{row['translation']['en']},{row['translation']['de'] or ''}\n" for row in records]
            path.write_text("en,de\n" + "".join(lines))


def options(folder: Path, **changes: Any) -> DataConfig:
    tokenizer = TokenizerConfig(vocab_size=300, **changes.pop("tokenizer", {}))
    config = DataConfig(
        format="hub",
        hf_dataset=str(folder),
        streaming=True,
        shuffle_buffer=BUFFER,
        max_length=40,
        cache_dir=str(folder.parent / "cache"),
        tokenizer=tokenizer,
    )
    config = replace(config, **changes)
    validate(config)
    return config


Make = Callable[..., StreamLoader]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(kind: str = "jsonl", *, seed: int = 1, index: bool = False, tokens: int = 120, **changes: Any) -> Any:
        if not (folder := tmp_path / kind).exists():
            write(folder, kind)
        config = options(folder, **changes)
        tokenizer = train_or_load_tokenizer(config)
        return StreamLoader(config, tokenizer, tokens, seed, tmp_path / "index" if index else None)

    return make


def rows(batch: Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return source and target of each row, without padding."""
    sides = ([tuple(id for id in row if id != PAD) for row in side.tolist()] for side in (batch.source, batch.labels))
    return list(zip(*sides, strict=True))


def pairs(batches: Iterator[Batch]) -> list[Any]:
    return [pair for batch in batches for pair in rows(batch)]


def same(batch: Batch, other: Batch) -> bool:
    return all(map(torch.equal, batch[:5], other[:5])) and batch.num_tokens == other.num_tokens


def corpus_pairs(config: DataConfig, tokenizer: Tokenizer) -> tuple[Counter[Any], Any]:
    corpus = load_corpus(replace(config, streaming=False), "train", tokenizer)
    return Counter(pairs(BatchLoader(corpus, tokenizer, 10_000, 1).epoch(0))), corpus


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("buffer", [7, BUFFER, 10_000])
def test_an_epoch_is_the_prepared_corpus(make: Make, kind: str, buffer: int) -> None:
    """The same pairs are used, dropped for the same reasons and repaired, in batches that hold as much as they may."""
    stream = make(kind, shuffle_buffer=buffer, max_length=18, max_length_ratio=1.9)
    expected, corpus = corpus_pairs(stream.config, stream.tokenizer)
    assert {"empty target", "source too long", "length ratio"} <= corpus.dropped.keys()
    for epoch in (0, 1, 4):
        batches = list(stream.epoch(epoch))
        assert Counter(pairs(iter(batches))) == expected
        assert all(max(batch.source.numel(), batch.labels.numel()) <= 120 for batch in batches)
        name, *counts = stream.statistics(1, 0)
        assert (name, *counts) == ("train", corpus.num_read, len(corpus), corpus.dropped, corpus.repaired)
    assert {*corpus.repaired} == {"spaces at the ends", *["empty cell"] * (kind != "csv")}


def test_the_order_is_a_function_of_seed_and_epoch(make: Make) -> None:
    stream, again, other = make(), make(), make(seed=2)
    orders = [pairs(loader.epoch(epoch)) for loader in (stream, other) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    again.prefetch = 0
    assert all(map(same, stream.epoch(1), again.epoch(1)))
    # files come in another order, and pairs of a buffer in that of their batches: the first buffers differ
    assert len({frozenset(order[:BUFFER]) for order in orders}) == 4
    assert make(shuffle_buffer=1, tokens=41)
    text = pairs(make(shuffle_buffer=1, tokens=41).epoch(3))
    numbers = [int(stream.tokenizer.decode_source(source).split()[-1]) for source, _ in text]
    kept = [row for row in range(sum(FILES)) if row % 37 != 5]
    starts = [sum(FILES[:number]) for number in range(len(FILES))]
    groups = [[row for row in kept if start <= row < start + num] for start, num in zip(starts, FILES, strict=True)]
    assert numbers != kept
    assert sorted(numbers) == kept
    for group in filter(None, groups):  # each file in its own order, as a whole
        place = numbers.index(group[0])
        assert numbers[place : place + len(group)] == group


@pytest.mark.parametrize("sampling", [0.0, 0.2])
def test_an_epoch_goes_on_from_any_batch(make: Make, sampling: float) -> None:
    """With the index and without, in another process, for each share; damaged lines of the index do not matter."""
    changes = {"tokenizer": {"subword_regularization": sampling}, "index": True, "tokens": 200}
    stream = make(**changes)
    whole = {epoch: list(stream.epoch(epoch)) for epoch in (0, 1)}
    if sampling:
        assert Counter(pairs(iter(whole[0]))) != Counter(pairs(iter(whole[1])))
    assert stream.index is not None
    lines = stream.index.read_text().splitlines()
    stream.index.write_text("\n".join([lines[0], "nonsense", "[]", lines[3][:20], *lines[2:]]) + '\n["')
    for loader in (make(**changes), make(**{**changes, "index": False})):
        for epoch, start in [(1, 3), (0, 11), (1, 18), (1, len(whole[1]) - 1), (0, len(whole[0]))]:
            shares = [loader.epoch(epoch, start, share=(rank, 2)) for rank in range(2)]
            for expected, *batches in zip(whole[epoch][start:], *shares, strict=True):
                assert pairs(iter(batches)) == rows(expected)[::2] + rows(expected)[1::2]
                assert {batch.num_tokens for batch in batches} == {expected.num_tokens}
        assert loader.statistics(1, 5) == stream.statistics(1, 5)


def test_two_ranks_have_disjoint_halves(make: Make) -> None:
    stream = make()
    halves = [Counter(pairs(make().epoch(0, share=(rank, 2)))) for rank in range(2)]
    assert halves[0].keys() & halves[1].keys() == set()
    assert halves[0] + halves[1] == Counter(pairs(stream.epoch(0)))


def test_what_skipping_costs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the index neither files nor buffers before the batch are read, except the file that it is in."""
    stream = make(index=True)
    whole = list(stream.epoch(0))
    encoded, opened = [], []
    encode, read = CorpusWriter.encode, table_files._json_batches

    def counted_encode(self: CorpusWriter, blocks: Any) -> Any:
        encoded.append(1)
        return encode(self, blocks)

    def counted_read(*arguments: Any) -> Any:
        opened.append(1)
        return read(*arguments)

    loader, plain = make(index=True), make()
    monkeypatch.setattr(CorpusWriter, "encode", counted_encode)
    monkeypatch.setattr(table_files, "_json_batches", counted_read)
    last = len(whole) - 1
    assert all(map(same, loader.epoch(0, last), whole[last:]))
    assert (len(encoded), len(opened)) == (1, 2)  # the end of one file, and a whole one
    assert all(map(same, plain.epoch(0, last), whole[last:]))
    assert (len(encoded), len(opened)) == (1 + -(-sum(FILES) // BUFFER), 2 + len(FILES))


def test_no_more_than_two_buffers_are_read_in_advance(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    num_read = []
    stream, original = make(), StreamLoader._rows

    def counted(*arguments: Any) -> Iterator[Any]:
        for row in original(*arguments):
            num_read.append(1)
            yield row

    monkeypatch.setattr(StreamLoader, "_rows", counted)
    batches = stream.epoch(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # ends the threads
    assert BUFFER <= len(num_read) <= 3 * BUFFER < sum(FILES)


class Breaks:
    """Streams that break off after one block of each opening, `times` times for each file."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error, self.failed = times, error, Counter[Any]()

    def __call__(self, stream: Any, where: str, shard: int | None = None) -> Iterator[Any]:
        for number, block in enumerate(self.original(stream, where, shard)):
            if shard is not None and number == 1 and self.failed[shard] < self.times:
                self.failed[shard] += 1
                raise ValueError(f"{where}: cannot be read: {self.error}") from self.error
            yield block

    original = staticmethod(table_files.read_batches)


def test_a_connection_that_breaks_is_opened_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(table_files, "BLOCK_LINES", 16)
    waits: list[int] = []
    monkeypatch.setattr(streaming.time, "sleep", waits.append)
    whole = make()
    expected = list(whole.epoch(0))
    breaks = Breaks(3, ConnectionError("Server Disconnected"))
    monkeypatch.setattr(table_files, "read_batches", breaks)
    stream = make()
    assert all(map(same, stream.epoch(0), expected))
    assert stream.statistics(1, 0) == whole.statistics(1, 0)
    assert waits[:3] == [2, 10, 60]
    assert "cannot be read: Server Disconnected; it is tried again in 2 s" in caplog.text
    breaks.times = 4
    breaks.failed.clear()
    with pytest.raises(
        DatasetUnavailableError, match=r"Server Disconnected, again and again; what is trained is saved"
    ):
        list(stream.epoch(0))
    breaks.times, breaks.error = 1, ValueError("not UTF-8")  # the file is at fault: no second attempt
    breaks.failed.clear()
    waits.clear()
    with pytest.raises(ValueError, match="not UTF-8"):
        list(stream.epoch(0))
    assert waits == []


def test_rows_that_are_at_fault(make: Make, tmp_path: Path) -> None:
    stream = make()
    path = tmp_path / "jsonl" / "train-2.jsonl"
    lines = path.read_text().splitlines()
    lines[20] = '{"translation": {"en": "a", "de": 7}}'
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"\(train, file 3\): de: row 21 holds 7, which is not text"):
        list(stream.epoch(0))
    with pytest.raises(ValueError, match=r"column translation has no language fr; it has de, en"):
        make(target_lang="fr")
    with pytest.raises(ValueError, match=r"jsonl \(dev\): "):
        make(train="dev")
    path.unlink()
    with pytest.raises(ValueError, match=r"jsonl: 0 of 163 pairs can be used \(.*source too long: 15\d"):
        list(make(max_length=1).epoch(0))
    with pytest.raises(ValueError, match=r"data.error_on_dropped=true: .*jsonl: empty target: 2"):
        list(make(error_on_dropped=True).epoch(0))
    with pytest.raises(ValueError, match=r"train\.batch_tokens=40: the longest sentence has 41 tokens"):
        make(tokens=40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "text"}, "data.streaming=true: needs data=hub, not text, where data.hf_dataset=FOLDER may be"),
        ({"max_pairs": 5}, "data.streaming=true: reads one text as it is; leave out data.max_pairs"),
        ({"shuffle_buffer": 0}, "data.shuffle_buffer=0: must be at least 1"),
        ({"hf_dataset": None}, "data.hf_dataset: not given"),
    ],
)
def test_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"format": "hub", "hf_dataset": "some/set", "streaming": True, **changes}).validate()


def test_several_splits_are_one_text(tmp_path: Path, make: Make) -> None:
    stream = make(train=["train", "validation"])
    expected, _ = corpus_pairs(stream.config, stream.tokenizer)
    assert Counter(pairs(stream.epoch(0))) == expected
    assert stream.statistics(1, 0)[1] == sum(FILES) + 6


def test_a_tokenizer_is_trained_on_the_beginning(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    train = Tokenizer.train
    monkeypatch.setattr(Tokenizer, "train", lambda config, pairs: train(config, seen.extend(pairs) or seen))
    stream = make(tokenizer={"max_training_pairs": 60})
    assert seen == list(islice(read_pairs(stream.config, "train"), 60))


def test_the_fingerprint_is_of_the_files(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of their names, sizes, beginnings and ends, and their text is not read for it."""
    config = make().config
    before = dataset_fingerprint(config, "train")
    assert [file.name for file in before.files] == [f"{config.hf_dataset} (train)"]
    monkeypatch.setattr(table_files, "read_batches", None)
    assert dataset_fingerprint(config, "train") == before
    path = tmp_path / "jsonl" / "train-0.jsonl"
    text = path.read_text()
    path.write_text(text.replace("w1", "W1"))
    assert dataset_fingerprint(config, "train").digest != before.digest
    path.write_text(text)
    assert dataset_fingerprint(config, "train") == before
    path.rename(path.with_name("train-9.jsonl"))
    assert dataset_fingerprint(config, "train").digest != before.digest


def test_nothing_is_downloaded_for_a_name(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the training text nor, with it, the validation set of a data set that is not a folder."""

    class RemotePath(type(Path())):  # type: ignore[misc]
        def is_dir(self) -> bool:
            return False

    config = make("csv").config
    expected = list(read_pairs(config, "valid"))
    loads: list[Any] = []
    load = table_files._load

    def recorded(path: str, where: str, **options: Any) -> Any:
        loads.append(options.get("streaming", options.get("load")))
        return load(path, where, **options)

    monkeypatch.setattr(table_files, "Path", RemotePath)
    monkeypatch.setattr(table_files, "_load", recorded)
    assert len(pairs(make("csv").epoch(0))) > 250
    assert list(read_pairs(config, "valid")) == expected
    assert {*loads} == {True, "load_dataset_builder"}
