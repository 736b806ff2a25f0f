"""Computation of the next items in a thread while the current one is used."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class _End:
    """The sentinel after the last item."""


def prefetch(items: Iterator[T], num: int) -> Iterator[T]:
    """Yield the same items in the same order, up to `num` of them computed in a thread in advance; 0: no thread.

    An exception of `items` is raised where the item would have come. The thread ends with the items, when this
    generator is closed or dropped, and before the interpreter ends.
    """
    if num == 0:
        yield from items
        return
    end = _End()
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    pending = deque(pool.submit(next, items, end) for _ in range(num))
    try:
        while not isinstance(item := pending.popleft().result(), _End):
            pending.append(pool.submit(next, items, end))
            yield item
    finally:
        for future in pending:  # shutdown(cancel_futures=True) fails when the interpreter is ending
            future.cancel()
        pool.shutdown()
