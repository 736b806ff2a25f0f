"""The one thread that models run in, and who waits for it."""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor


class StoppedError(Exception):
    """The work was given up: whoever asked for it has left, or its time is over."""


class BusyError(Exception):
    """Too many wait already. `seconds`: after which it may be better."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class ClosedError(Exception):
    """No work is taken on any more: the server is being stopped."""


class Watch:
    """Tells work whether it is still wanted.

    Args:
        seconds: until when, from now.
    """

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.begun = False
        self._stopped = threading.Event()

    @property
    def left(self) -> float:
        """Seconds."""
        return max(self.deadline - time.monotonic(), 0.0)

    def stop(self) -> None:
        """The work is not wanted any more."""
        self._stopped.set()

    def check(self) -> None:
        """Raises StoppedError when the work is not wanted any more; to be called often."""
        if self._stopped.is_set() or not self.left:
            raise StoppedError


class Job:
    """Work that was taken on: `future` will hold what came of it. When it is given up, `future` is cancelled at once,
    though the thread notices at its next check only."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.future: Future[bytes] = Future()
        self.turn: Future[None]  # of the thread

    def stop(self) -> None:
        """Nobody waits for it any more: it ends at its next check, or is never begun."""
        self.watch.stop()
        self.turn.cancel()
        self.future.cancel()


class Worker:
    """Does one job after the other, in the order in which they came.

    Args:
        most_waiting: jobs that wait while one is done, at most.
        seconds: from the beginning of the wait, after which a job is given up.

    `ended` is set when all is given up, and nothing is taken on any more.
    """

    def __init__(self, most_waiting: int, seconds: float) -> None:
        self.most_waiting, self.seconds = most_waiting, seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._jobs: set[Job] = set()
        self._mean = 0.0  # seconds of a job, of the last ones above all
        self.ended = asyncio.Event()

    def submit(self, work: Callable[[Watch], bytes]) -> Job:
        """Takes a job on. To be called from one thread only.

        Raises:
            BusyError: too many wait already.
            ClosedError: all has been given up.
        """
        if self.ended.is_set():
            raise ClosedError
        if len(self._jobs) > self.most_waiting:
            raise BusyError(max(math.ceil(self._mean * len(self._jobs)), 1))
        job = Job(Watch(self.seconds))
        self._jobs.add(job)
        job.turn = self._thread.submit(self._do, work, job)
        job.turn.add_done_callback(lambda _: self._jobs.discard(job))  # it may never have had its turn
        return job

    def _do(self, work: Callable[[Watch], bytes], job: Job) -> None:
        with contextlib.suppress(InvalidStateError):  # it was given up meanwhile
            try:
                found = self._timed(work, job.watch)
            except BaseException as error:
                self._jobs.discard(job)
                job.future.set_exception(error)
            else:
                self._jobs.discard(job)  # first: who is answered may ask again
                job.future.set_result(found)

    def _timed(self, work: Callable[[Watch], bytes], watch: Watch) -> bytes:
        watch.check()
        watch.begun = True
        started = time.monotonic()
        try:
            return work(watch)
        finally:
            self._mean += 0.2 * (time.monotonic() - started - self._mean)

    def give_up(self) -> None:
        """Gives up what is being done and what waits, without waiting for it, and takes nothing on any more. To be
        called from the thread that submits, or after its end."""
        self.ended.set()
        for job in list(self._jobs):
            job.stop()

    def close(self) -> None:
        """Gives up what is being done and what waits, and waits for the thread to end."""
        self.give_up()
        self._thread.shutdown(wait=True, cancel_futures=True)
