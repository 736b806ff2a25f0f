"""Work on several items side by side, one processor core each."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yield the result for each item, in order; `workers` threads compute them, each with one thread of torch.

    For many small operations this uses the cores better than threads within each operation. What torch keeps for each
    thread, such as autocast and whether gradients are computed, is not that of the caller.

    Args:
        function: called in any thread. What it raises is raised here, when its item is due.
        workers: 1: in this thread.
    """
    workers = min(workers, len(items))
    if workers < 2:
        yield from map(function, items)
        return
    num_threads, remaining = torch.get_num_threads(), iter(items)
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, "worker", partial(torch.set_num_threads, 1))
    try:
        while True:
            while len(pending) <= workers and (item := next(remaining, None)) is not None:
                pending.append(pool.submit(function, item))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)  # which the workers have set for threads that are yet to begin
