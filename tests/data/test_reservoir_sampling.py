"""The sample of a small text is all of it, that of a large one is fair and bounded."""

import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest

from nmt.data.reservoir_sampling import reservoir_sample


def pairs(num: int, length: int = 8) -> list[tuple[str, str]]:
    return [(f"{row:0{length}d}", f"{row + 1:0{length}d}") for row in range(num)]


def test_all_of_a_small_text_in_order() -> None:
    text = pairs(50)
    for limits in ((0, 0), (50, 0), (0, 800), (50, 800)):
        assert reservoir_sample(iter(text), *limits) == (text, 50)


@pytest.mark.parametrize("limits", [(100, 0), (0, 1600), (130, 1600), (100, 2000)])
def test_limits_hold_and_all_parts_of_the_text_are_sampled(limits: tuple[int, int]) -> None:
    text = pairs(1000)
    sample, num_read = reservoir_sample(text, *limits)
    assert num_read == 1000
    assert 90 <= len(sample) <= 100
    assert set(sample) <= set(text)
    assert len(set(sample)) == len(sample)
    quarters = Counter(int(source) // 250 for source, _ in sample)
    assert min(quarters[quarter] for quarter in range(4)) > 10  # 25 each are expected
    assert reservoir_sample(text, *limits).pairs == sample  # the same one every time


def test_one_pair_at_least() -> None:
    text = pairs(3, 1000)
    assert len(reservoir_sample(text, 0, 10).pairs) == 1


def test_memory_is_bounded() -> None:
    def endless(num: int) -> Iterator[tuple[str, str]]:
        for row in range(num):
            yield f"{row:0500d}", f"{row:0500d}"

    peaks = []
    for num in (1000, 8000):
        tracemalloc.start()
        reservoir_sample(endless(num), 0, 200_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 1_000_000
