"""Batches hold every pair once, within the budget, padded as masked, the same for the same seed and epoch."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from nmt.data import (
    BOS,
    EOS,
    PAD,
    Batch,
    BatchLoader,
    DataConfig,
    EncodedCorpus,
    Tokenizer,
    TokenizerConfig,
    batch_sampler,
    batch_to_device,
    collate,
    load_corpus,
    make_batches,
    pin_memory,
    select_rows,
    source_batch,
    train_or_load_tokenizer,
)


def lengths(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths like those of short captions in two languages."""
    rng = np.random.default_rng(seed)
    source = rng.gamma(8, 1.8, num).astype(np.int64)
    return source, np.maximum(0, source + rng.normal(0, 2.5, num).astype(np.int64))


@pytest.mark.parametrize("num", [1, 2, 37, 5000])
@pytest.mark.parametrize("budget", [80, 1024, 10**6])
def test_make_batches_keeps_every_row_within_the_budget(num: int, budget: int) -> None:
    source, target = lengths(num)
    batches = make_batches(source, target, budget, seed=1, epoch=2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(num))
    for rows in batches:
        assert len(rows) * (max(source[rows].max(), target[rows].max()) + 1) <= budget
    assert make_batches(source[:0], target[:0], budget, seed=1, epoch=0) == []


def test_batches_are_full() -> None:
    """No batch could take the pair that comes next in order of length: there are few more batches than needed."""
    source, target = lengths(20_000)
    batches = make_batches(source, target, 2048, seed=1, epoch=0)
    needed = (np.maximum(source, target) + 1).sum() / 2048
    assert len(batches) < 1.05 * needed
    padded = sum(len(rows) * (source[rows].max() + target[rows].max() + 2) for rows in batches)
    assert 1 - (source + target + 2).sum() / padded < 0.06


def test_make_batches_depends_on_seed_and_epoch_alone() -> None:
    source, target = lengths(3000)

    def flat(seed: int, epoch: int) -> list[list[int]]:
        return [rows.tolist() for rows in make_batches(source, target, 512, seed=seed, epoch=epoch)]

    first = flat(1, 0)
    np.random.seed(3)  # noqa: NPY002 - the global state must not matter
    assert flat(1, 0) == first
    for different in (flat(1, 1), flat(2, 0)):
        assert len(different) == len(first)
        assert different != first
        common = {tuple(sorted(rows)) for rows in first} & {tuple(sorted(rows)) for rows in different}
        assert len(common) < len(first) / 2  # not the same batches in another order
    means = [source[rows].mean() for rows in make_batches(source, target, 512, seed=1, epoch=0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3  # nor in order of length


def test_make_batches_names_the_option_when_a_pair_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"train\.batch_tokens=20: the longest sentence has 31 tokens"):
        make_batches(np.array([3, 30]), np.array([4, 4]), 20, seed=0, epoch=0)
    assert len(make_batches(np.array([3, 30]), np.array([4, 4]), 31, seed=0, epoch=0)) == 2


@pytest.mark.slow
def test_batches_of_a_million_pairs_take_about_a_second() -> None:
    source, target = lengths(1_000_000)
    started = time.perf_counter()
    make_batches(source, target, 2048, seed=0, epoch=0)
    assert time.perf_counter() - started < 4


def test_collate() -> None:
    batch = collate([[5, 6], [7]], [[8], [9, 10, 11]])
    assert batch.source.tolist() == [[5, 6, EOS], [7, EOS, PAD]]
    assert batch.source_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.inputs.tolist() == [[BOS, 8, PAD, PAD], [BOS, 9, 10, 11]]
    assert batch.labels.tolist() == [[8, EOS, PAD, PAD], [9, 10, 11, EOS]]
    assert batch.num_tokens == 6
    assert batch.indices.tolist() == [0, 1]
    assert {batch.source.dtype, batch.inputs.dtype, batch.labels.dtype} == {torch.int64}
    assert batch.source_mask.dtype == torch.bool
    empty = collate([[]], [[]])
    assert (empty.source.tolist(), empty.inputs.tolist(), empty.labels.tolist()) == ([[EOS]], [[BOS]], [[EOS]])


def test_on_device() -> None:
    batch = collate([[5, 6], [7]], [[8], [9]])
    moved = batch_to_device(batch, torch.device("meta"))
    tensors = [value for value in moved if isinstance(value, torch.Tensor)]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 5
    assert [tensor.shape for tensor in tensors] == [value.shape for value in batch if isinstance(value, torch.Tensor)]
    assert (moved.num_tokens, moved.indices.tolist()) == (4, [0, 1])


def test_source_batch() -> None:
    sources = [[4] * length for length in (3, 0, 9, 1, 5)]
    source, mask = source_batch(sources)
    assert source[mask].tolist() == [token for ids in sources for token in [*ids, EOS]]


def corpus(folder: Path, **options: object) -> tuple[EncodedCorpus, Tokenizer]:
    rng = np.random.default_rng(0)
    for language in ("en", "de"):
        words = [rng.integers(0, 60, rng.integers(1, 15)) for _ in range(400)]
        lines = ["".join(f"wo{'rt' * (word % 3)}{word} " for word in line) + "\n" for line in words]
        (folder / f"a.{language}").write_text("".join(lines))
    tokenizer = TokenizerConfig(**{"type": "bpe", "vocab_size": 320, **options})
    config = DataConfig(format="text", train=str(folder / "a"), cache_dir=str(folder / "cache"), tokenizer=tokenizer)
    loaded = train_or_load_tokenizer(config)
    return load_corpus(config, "train", loaded), loaded


def same(first: Batch, second: Batch) -> bool:
    return all(map(np.array_equal, first, second))


def test_batches_hold_the_rows_of_the_corpus(tmp_path: Path) -> None:
    """Vectorized gathering from the mapped arrays agrees with collating lists."""
    pairs, tokenizer = corpus(tmp_path)
    batches = BatchLoader(pairs, tokenizer, 256, seed=1)
    seen = []
    num_batches = 0
    for batch in batches.epoch(0):
        num_batches += 1
        sides = [
            [side.ids[side.offsets[row] : side.offsets[row + 1]].tolist() for row in batch.indices]
            for side in (pairs.source, pairs.target)
        ]
        assert same(batch, collate(sides[0], sides[1], batch.indices))
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(len(pairs)))
    assert num_batches == len(list(batches.epoch(7)))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("sampling", [0.0, 0.3])
@pytest.mark.parametrize("pool", [3, 5, 64])
def test_resumed_epoch_continues_where_it_stopped(
    tmp_path: Path, kind: str, sampling: float, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmt.data.batching.SAMPLED_BATCH_GROUP", pool)
    pairs, tokenizer = corpus(tmp_path, type=kind, vocab_size=300, subword_regularization=sampling)
    whole = list(BatchLoader(pairs, tokenizer, 256, seed=1).epoch(3))
    resumed = list(BatchLoader(pairs, tokenizer, 256, seed=1).epoch(3, start=5))
    assert len(resumed) == len(whole) - 5
    assert all(map(same, whole[5:], resumed))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_every_epoch_samples_new_segmentations(tmp_path: Path, kind: str) -> None:
    pairs, tokenizer = corpus(tmp_path, type=kind, vocab_size=300, subword_regularization=0.3)
    batches = BatchLoader(pairs, tokenizer, 256, seed=1)

    def segmentations(epoch: int) -> dict[int, tuple[list[int], list[int]]]:
        by_index = {}
        for batch in batches.epoch(epoch):
            assert batch.num_tokens == int((batch.labels != PAD).sum())
            for row, index in enumerate(batch.indices.tolist()):
                source = batch.source[row][batch.source_mask[row]].tolist()
                by_index[index] = (source, batch.labels[row][batch.labels[row] != PAD].tolist())
        return by_index

    first, second = segmentations(0), segmentations(1)
    for row in range(len(pairs)):
        assert tokenizer.decode_source(first[row][0]) == tokenizer.decode_source(second[row][0])
        assert tokenizer.decode_target(first[row][1]) == tokenizer.decode_target(second[row][1])
    assert sum(first[row] != second[row] for row in first) > 0.8 * len(first)
    assert sum(first[row][0] == first[row][1] for row in first) == 0


def test_sampled_segmentations_make_as_many_batches_with_little_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmt.data.batching.LENGTH_MULTIPLE", 1)
    pairs, tokenizer = corpus(tmp_path, type="bpe", vocab_size=300, subword_regularization=0.1)
    plain = list(BatchLoader(pairs, corpus(tmp_path, type="bpe", vocab_size=300)[1], 256, seed=1).epoch(0))
    sampled = list(BatchLoader(pairs, tokenizer, 256, seed=1).epoch(0))
    assert len(sampled) == len(plain)
    assert sorted(i for batch in sampled for i in batch.indices.tolist()) == list(range(len(pairs)))
    tokens = np.array([int(batch.source_mask.sum()) + batch.num_tokens for batch in sampled])
    padded = np.array([batch.source.numel() + batch.labels.numel() for batch in sampled])
    not_rebalanced = [  # the same segmentations, in the batches of the deterministic ones
        max(len(sampled_row) for sampled_row in rows) * len(rows)
        for batch in plain
        for rows in _rows_of(batch.indices.tolist(), sampled)
    ]
    assert padded.sum() - tokens.sum() < 0.85 * (sum(not_rebalanced) - tokens.sum())
    assert padded.max() < 1.5 * padded.mean()


def _rows_of(indices: list[int], batches: list[Batch]) -> Iterator[list[list[int]]]:
    """Yield the source rows of the sentences, then their target rows, without padding."""
    where = {index: (batch, row) for batch in batches for row, index in enumerate(batch.indices.tolist())}
    for side in ("source", "labels"):
        rows = [getattr(where[index][0], side)[where[index][1]] for index in indices]
        yield [row[row != PAD].tolist() for row in rows]


def test_padding_to_a_multiple_adds_padding_only() -> None:
    sources, targets = [[5, 6, 7, 8, 9], [5]], [[4], [4, 5, 6]]
    plain, padded = collate(sources, targets), collate(sources, targets, multiple=4)
    assert (padded.source.shape, padded.labels.shape) == ((2, 8), (2, 4))
    assert padded.num_tokens == plain.num_tokens
    for name in ("source", "source_mask", "inputs", "labels"):
        wide, narrow = getattr(padded, name), getattr(plain, name)
        assert torch.equal(wide[:, : narrow.size(1)], narrow)
        assert not wide[:, narrow.size(1) :].any()


@pytest.mark.parametrize("sampling", [0.0, 0.3])
def test_prefetched_batches_are_the_same(tmp_path: Path, sampling: float) -> None:
    pairs, tokenizer = corpus(tmp_path, subword_regularization=sampling)
    plain = BatchLoader(pairs, tokenizer, 256, seed=1, prefetch=0)
    for prefetch, epoch, start in ((1, 0, 0), (4, 1, 0), (4, 1, 7)):
        prefetched = BatchLoader(pairs, tokenizer, 256, seed=1, prefetch=prefetch)
        pairs_of_batches = islice(zip(plain.epoch(epoch, start), prefetched.epoch(epoch, start), strict=True), 12)
        assert all(same(*pair) for pair in pairs_of_batches)


def test_prefetching_propagates_errors(tmp_path: Path) -> None:
    pairs, tokenizer = corpus(tmp_path)
    for prefetch in (0, 4):
        with pytest.raises(ValueError, match=r"train\.batch_tokens=5: the longest sentence has"):
            next(BatchLoader(pairs, tokenizer, 5, seed=1, prefetch=prefetch).epoch(0))


@pytest.mark.parametrize("sampling", [0.0, 0.3])
@pytest.mark.parametrize("size", [2, 9])
def test_shards_make_up_the_whole_batch(tmp_path: Path, sampling: float, size: int) -> None:
    pairs, tokenizer = corpus(tmp_path, subword_regularization=sampling)
    batches = BatchLoader(pairs, tokenizer, 256, seed=1)
    for epoch in (0, 3):
        shards = [batches.epoch(epoch, 2, share=(rank, size)) for rank in range(size)]
        for whole, *rank_shards in islice(zip(batches.epoch(epoch, 2), *shards, strict=True), 8):
            for rank, shard in enumerate(rank_shards):
                assert same(shard, select_rows(whole, slice(rank, None, size))._replace(num_tokens=whole.num_tokens))
    rank = max(len(batch.indices) for batch in batches.epoch(0))  # one more than the largest batch has rows
    empty = next(batches.epoch(0, share=(rank, rank + 1)))
    assert (len(empty.indices), len(empty.source), empty.num_tokens > 0) == (0, 0, True)


def test_a_corpus_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row once, resumed anywhere as uninterrupted, with the same tokens after its pages were released."""
    monkeypatch.setattr(batch_sampler, "EPOCH_CHUNK_ROWS", 100)
    monkeypatch.setattr(batch_sampler, "SEGMENT_ROWS", 16)
    pairs, tokenizer = corpus(tmp_path)
    batches = BatchLoader(pairs, tokenizer, 128, seed=1)
    whole = list(batches.epoch(2))
    assert sorted(np.concatenate([batch.indices for batch in whole]).tolist()) == list(range(len(pairs)))
    for batch in whole:
        rows = [
            [side.ids[side.offsets[row] : side.offsets[row + 1]].tolist() for row in batch.indices]
            for side in (pairs.source, pairs.target)
        ]
        assert same(batch, collate(rows[0], rows[1], batch.indices))
    for start in range(0, len(whole) + 1, 7):
        assert all(map(same, whole[start:], batches.epoch(2, start)))


def test_memory_is_pinned_for_cuda_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, tokenizer = corpus(tmp_path)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(devices.append(device)))
    pinned: list[torch.Tensor] = []
    devices: list[torch.device] = []
    plain = list(BatchLoader(pairs, tokenizer, 256, seed=1, device=torch.device("cpu")).epoch(0))
    assert (pinned, devices) == ([], [])
    batches = list(BatchLoader(pairs, tokenizer, 256, seed=1, device=torch.device("cuda:1")).epoch(0))
    assert all(map(same, plain, batches))
    assert len(pinned) == 5 * len(batches)
    assert pin_memory(plain[0], torch.device("cpu")) is plain[0]
    assert set(devices) == {torch.device("cuda:1")}
