"""What comes next is made by a thread while the present item is used."""

import atexit
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class _Failure(NamedTuple):
    error: BaseException


class _End:
    pass


def ahead(items: Iterator[T], num: int) -> Iterator[T]:
    """The same items in the same order, up to `num` of them made in a thread before they are asked for; 0: no thread.

    An exception of `items` is raised where the item would have come. The thread ends with the items, when this
    generator is closed or dropped, and before the interpreter ends.
    """
    if num == 0:
        yield from items
        return
    made: SimpleQueue[T | _Failure | _End] = SimpleQueue()
    free = threading.Semaphore(num)
    stopped = threading.Event()

    def make() -> None:
        try:
            while free.acquire() and not stopped.is_set():
                try:
                    made.put(next(items))
                except StopIteration:
                    made.put(_End())
                    return
        except BaseException as error:  # raised again by the other thread
            made.put(_Failure(error))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)

    def end() -> None:
        stopped.set()
        free.release()
        thread.join()

    # A daemon that still runs while the interpreter is taken down can bring the process down with it.
    atexit.register(end)
    thread.start()
    try:
        while True:
            item = made.get()
            if isinstance(item, _End):
                return
            if isinstance(item, _Failure):
                raise item.error
            free.release()
            yield item
    finally:
        atexit.unregister(end)
        end()
