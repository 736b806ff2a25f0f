"""The one thread that models run in, and the jobs that wait for it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from starlette.exceptions import HTTPException

from nmt.runtime.memory import is_oom_error

STOPPING = "the server is being stopped"
AGAIN = {"Retry-After": "1"}
"""The header of a refusal after which the client may ask again."""


class CancelledError(Exception):
    """Ends the work of a job that was given up."""


class InferenceJob:
    """Work that was taken on. When it is given up, `future` is cancelled at once, though the thread notices at its next
    check only."""

    turn: "Future[bytes]"
    future: "asyncio.Future[bytes]"

    def __init__(self) -> None:
        self.late = False
        self._stopped = threading.Event()

    def check(self) -> None:
        """Raise StoppedError when the job was given up; to be called often."""
        if self._stopped.is_set():
            raise CancelledError

    def stop(self, *, late: bool = False) -> None:
        """Give the job up: it ends at its next check, or is never begun."""
        self.late |= late
        self._stopped.set()
        self.future.cancel()
        self.turn.cancel()


class ModelWorker:
    """Does one job after the other, in the order in which they came.

    Args:
        most_waiting: jobs that wait while one is done, at most.
        seconds: from the beginning of the wait, after which a job is given up.

    `ended` is set when all is given up, and nothing is taken on any more.
    """

    def __init__(self, most_waiting: int, seconds: float) -> None:
        self.most_waiting, self.seconds = most_waiting, seconds
        self.ended = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._jobs: set[InferenceJob] = set()

    def submit(self, work: Callable[[InferenceJob], bytes]) -> InferenceJob:
        """Take a job on. To be called from the event loop.

        Raises:
            HTTPException: too many wait already, or all has been given up.
        """
        if self.ended.is_set():
            raise HTTPException(503, STOPPING)
        if len(self._jobs) > self.most_waiting:
            raise HTTPException(503, "too many requests wait already: ask again in 1 s", AGAIN)
        job = InferenceJob()
        self._jobs.add(job)
        job.turn = self._thread.submit(work, job)
        job.turn.add_done_callback(lambda _: self._jobs.discard(job))  # first: who is answered may ask again
        job.future = asyncio.wrap_future(job.turn)
        timer = asyncio.get_running_loop().call_later(self.seconds, lambda: job.stop(late=True))
        job.future.add_done_callback(lambda _: timer.cancel())
        return job

    def result(self, job: InferenceJob) -> bytes:
        """Return the answer of a job that has ended.

        Raises:
            HTTPException: it was given up, or memory ran out.
        """
        if not job.future.cancelled():
            try:
                return job.future.result()
            except Exception as error:
                if is_oom_error(error):
                    raise HTTPException(503, "not enough memory for this request: ask for less", AGAIN) from None
                raise
        if not job.late:
            raise HTTPException(503, STOPPING)
        limit = f"{self.seconds:g} s (timeout)"
        if job.turn.cancelled():
            raise HTTPException(503, f"others were served for {limit}: ask again", AGAIN)
        raise HTTPException(504, f"not done within {limit}: ask for fewer or shorter sentences or a smaller beam")

    def give_up(self) -> None:
        """Give up all jobs without waiting for the thread, and take nothing on any more. To be called from the event
        loop, or after its end."""
        self.ended.set()
        for job in list(self._jobs):
            job.stop()

    def close(self) -> None:
        """Give up all jobs, and wait for the thread to end."""
        self.give_up()
        self._thread.shutdown(wait=True, cancel_futures=True)
