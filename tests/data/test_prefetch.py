"""Prefetching yields the same items, propagates errors, and ends with its consumer."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from nmt.data.prefetch import prefetch


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("num", [0, 1, 3, 100])
def test_same_items_in_the_same_order(num: int) -> None:
    assert list(prefetch(iter(range(50)), num)) == list(range(50))
    assert list(prefetch(iter([]), num)) == []
    assert list(prefetch(iter([None, None]), num)) == [None, None]
    assert prefetch_threads() == []


def test_bounded() -> None:
    """Items are made in advance, but not more than the given number."""
    made = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items_ahead = prefetch(items(), 3)
    assert next(items_ahead) == 0
    deadline = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    items_ahead.close()
    assert len(made) == 4


@pytest.mark.parametrize("num", [0, 1, 3])
@pytest.mark.parametrize("error", [ValueError("bad line 7"), KeyboardInterrupt(), SystemExit(3)])
def test_errors_come_where_the_item_would_have_come(num: int, error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise error

    items_ahead = prefetch(items(), num)
    assert [next(items_ahead) for _ in range(5)] == list(range(5))
    with pytest.raises(type(error)) as caught:
        next(items_ahead)
    assert caught.value is error
    assert prefetch_threads() == []


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_ends_when_closed_or_dropped(taken: int) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    for close in (True, False):
        items_ahead = prefetch(endless(), 2)
        for _ in range(taken):
            next(items_ahead)
        assert len(prefetch_threads()) == min(taken, 1)
        if close:
            items_ahead.close()
        else:
            del items_ahead
        assert prefetch_threads() == []


def test_the_program_can_end_while_a_thread_waits() -> None:
    program = """
import itertools, sys
from nmt.data.prefetch import prefetch
items_ahead = prefetch(iter(itertools.count()), 2)
assert next(items_ahead) == 0
sys.exit(7)
"""
    process = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (7, "")
