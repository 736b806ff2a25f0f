"""A reader ahead gives the same items, passes errors on, and ends with whoever reads."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from nmt.data.prefetch import prefetch


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("num", [0, 1, 3, 100])
def test_same_items_in_the_same_order(num: int) -> None:
    assert list(prefetch(iter(range(50)), num)) == list(range(50))
    assert list(prefetch(iter([]), num)) == []
    assert list(prefetch(iter([None, None]), num)) == [None, None]
    assert readers() == []


def test_bounded() -> None:
    """Items are made while none is asked for, but not more than agreed."""
    made = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    reader = prefetch(items(), 3)
    assert next(reader) == 0
    deadline = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    reader.close()
    assert len(made) == 4


@pytest.mark.parametrize("num", [0, 1, 3])
@pytest.mark.parametrize("error", [ValueError("bad line 7"), KeyboardInterrupt(), SystemExit(3)])
def test_errors_come_where_the_item_would_have_come(num: int, error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise error

    reader = prefetch(items(), num)
    assert [next(reader) for _ in range(5)] == list(range(5))
    with pytest.raises(type(error)) as caught:
        next(reader)
    assert caught.value is error
    assert readers() == []


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_ends_when_closed_or_dropped(taken: int) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    for close in (True, False):
        reader = prefetch(endless(), 2)
        for _ in range(taken):
            next(reader)
        assert len(readers()) == min(taken, 1)
        if close:
            reader.close()
        else:
            del reader
        assert readers() == []


def test_the_program_can_end_while_a_reader_waits() -> None:
    program = """
import itertools, sys
from nmt.data.prefetch import prefetch
kept = prefetch(iter(itertools.count()), 2)
assert next(kept) == 0
sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")
