"""Work side by side: order, errors, and torch's threads."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from nmt.runtime.parallel import ordered_map


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
@pytest.mark.parametrize("num", [0, 1, 2, 20])
def test_results_are_in_order(workers: int, num: int) -> None:
    def work(item: int) -> tuple[int, int]:
        time.sleep(0.002 * (item % 3))
        return item * item, torch.get_num_threads()

    results = list(ordered_map(work, range(num), workers))
    assert [square for square, _ in results] == [item * item for item in range(num)]
    assert {threads for _, threads in results} <= ({2} if min(workers, num) < 2 else {1})
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]  # also those that begin later


def test_an_error_comes_where_its_item_is_due() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    results = ordered_map(work, range(100), 3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert torch.get_num_threads() == 2


def test_who_stops_reading_stops_the_work() -> None:
    started: list[int] = []
    results = ordered_map(lambda item: started.append(item) or item, range(100), 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(started) < 10
    assert torch.get_num_threads() == 2
