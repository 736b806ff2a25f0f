"""Batches of a corpus in chunks are as good as those of a corpus in one, and every row is in exactly one batch."""

import numpy as np
import pytest

from nmt.data import batch_sampler, make_batches
from nmt.data.batch_sampler import EpochChunk, max_length, rebalance


def lengths(num: int, seed: int = 0, longest: int = 10**6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source = np.minimum(rng.gamma(8, 1.8, num).astype(np.int64), longest)
    return source, np.clip(source + rng.normal(0, 2.5, num).astype(np.int64), 0, longest)


def offsets(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(values)])


def chunks_of(source: np.ndarray, target: np.ndarray, budget: int, seed: int = 1, epoch: int = 0) -> list[EpochChunk]:
    numbered = list(batch_sampler.epoch_chunks(offsets(source), offsets(target), budget, seed=seed, epoch=epoch))
    firsts = np.cumsum([0, *(len(chunk) for _, chunk in numbered)])
    assert [first for first, _ in numbered] == firsts[:-1].tolist()
    for start in (1, firsts[-1] // 2, firsts[-1] - 1, *firsts.tolist()):  # chunks before the start are left out
        late = batch_sampler.epoch_chunks(offsets(source), offsets(target), budget, seed=seed, epoch=epoch, start=start)
        expected = [first for first, chunk in numbered if first + len(chunk) > start or len(numbered) == 1]
        assert [first for first, _ in late] == expected
    return [chunk for _, chunk in numbered]


def batches_by_definition(
    source: np.ndarray, target: np.ndarray, budget: int, seed: int, epoch: int
) -> list[list[int]]:
    """Sort all rows by target length, then zigzag source length, then at random, and fill batches greedily."""
    rng = np.random.default_rng([seed, epoch])
    place = {row: number for number, row in enumerate(rng.permutation(len(source)).tolist())}

    def key(row: int) -> tuple[int, int, int]:
        return target[row] + 1, (source[row] + 1) * (1 if target[row] % 2 else -1), place[row]

    batches: list[list[int]] = []
    for row in sorted(range(len(source)), key=key):
        together = [*batches[-1], row] if batches else []
        if together and len(together) * (max(source[together].max(), target[together].max()) + 1) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return [batches[number] for number in rng.permutation(len(batches))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("factor", [1, 3000])  # lengths beyond 16 bits use another dtype
def test_batches_follow_the_definition(seed: int, factor: int) -> None:
    source, target = (factor * side for side in lengths(700, seed))
    planned = make_batches(source, target, 300 * factor, seed=seed, epoch=seed + 1)
    assert [rows.tolist() for rows in planned] == batches_by_definition(source, target, 300 * factor, seed, seed + 1)


def test_one_chunk_has_the_batches_of_make_batches() -> None:
    source, target = lengths(3000)
    (chunk,) = chunks_of(source, target, 512, seed=1, epoch=2)
    planned = make_batches(source, target, 512, seed=1, epoch=2)
    assert [chunk.row_indices(batch).tolist() for batch in range(len(chunk))] == [rows.tolist() for rows in planned]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sampler, "EPOCH_CHUNK_ROWS", 1000)
    monkeypatch.setattr(batch_sampler, "SEGMENT_ROWS", 32)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("num", [1001, 1024, 5000, 20_011])
def test_chunks_hold_every_row_once_within_the_budget(num: int) -> None:
    source, target = lengths(num)
    chunks = chunks_of(source, target, 512, seed=1, epoch=2)
    assert len(chunks) > 1
    batches = [chunk.row_indices(batch) for chunk in chunks for batch in range(len(chunk))]
    assert sorted(np.concatenate(batches).tolist()) == list(range(num))
    for rows in batches:
        assert rows.dtype == np.int64
        assert len(rows) * (max(source[rows].max(), target[rows].max()) + 1) <= 512
    sizes = [len(chunk.order) for chunk in chunks]
    assert max(sizes) <= 1000
    assert max(sizes) - min(sizes) < 64  # no small one at the end


@pytest.mark.usefixtures("small_chunks")
def test_chunks_cover_the_whole_corpus_and_differ_by_epoch() -> None:
    source, target = lengths(20_000)

    def epoch(seed: int, number: int) -> list[np.ndarray]:
        return [chunk.order for chunk in chunks_of(source, target, 512, seed=seed, epoch=number)]

    first = epoch(1, 0)
    for rows in first:  # of each twentieth of the corpus about as much as of any other
        assert abs(rows.mean() / 10_000 - 1) < 0.25
        assert len(set((rows // 1000).tolist())) > 10
    again, next_epoch, reseeded = epoch(1, 0), epoch(1, 1), epoch(2, 0)
    assert all(map(np.array_equal, first, again))
    for different in (next_epoch, reseeded):
        assert len(set(first[0].tolist()) & set(different[0].tolist())) < 200  # of 1,000; by chance 50


@pytest.mark.usefixtures("small_chunks")
def test_batches_of_chunks_are_as_full_as_those_of_one() -> None:
    source, target = lengths(20_000)
    together = sum(len(chunk) for chunk in chunks_of(source, target, 100))
    assert together < 1.05 * len(make_batches(source, target, 100, seed=1, epoch=0))


def test_max_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sampler, "EPOCH_CHUNK_ROWS", 3)
    for num in range(9):
        for place in range(num):
            values = np.ones(num, np.int64)
            values[place] = 7
            assert max_length(offsets(values)) == 7
    assert max_length(np.zeros(1, np.int64)) == 0


@pytest.mark.parametrize("num", [1, 2, 7, 40])
def test_rebalance_makes_the_requested_number_of_batches(num: int) -> None:
    rng = np.random.default_rng(num)
    source, target = rng.integers(1, 30, 40), rng.integers(1, 30, 40)
    parts = list(rebalance(source, target, num, np.random.default_rng(0)))
    assert len(parts) == num
    assert all(len(part) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(40))
    largest = max(len(part) * (1 + max(source[part].max(), target[part].max())) for part in parts)
    assert largest <= 2 * 31 * 40 / num
