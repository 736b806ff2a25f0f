"""The thread that runs the models, and its queue of jobs."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from starlette.exceptions import HTTPException

from nmt.runtime.memory import is_oom_error

STOPPING = "the server is being stopped"
RETRY_AFTER = {"Retry-After": "1"}
"""Header of an error after which the client may try again."""


class CancelledError(Exception):
    """Exception that ends the work of a canceled job."""


class InferenceJob:
    """Submitted work. On cancellation, `future` is canceled at once; the thread stops at its next check."""

    thread_future: "Future[bytes]"
    future: "asyncio.Future[bytes]"

    def __init__(self) -> None:
        self.timed_out = False
        self._cancelled = threading.Event()

    def raise_if_cancelled(self) -> None:
        """Raise CancelledError when the job is canceled; to be called often."""
        if self._cancelled.is_set():
            raise CancelledError

    def cancel(self, *, timed_out: bool = False) -> None:
        """Cancel the job: it ends at its next check, or is never started."""
        self.timed_out |= timed_out
        self._cancelled.set()
        self.future.cancel()
        self.thread_future.cancel()


class ModelWorker:
    """A thread for one job at a time, in the order of submission, and a queue of at most `queue_size` waiting jobs.

    A job is canceled `timeout` seconds after submission. `stopping` is set when no more jobs are accepted.
    """

    def __init__(self, queue_size: int, timeout: float) -> None:
        self.queue_size, self.timeout = queue_size, timeout
        self.stopping = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._jobs: set[InferenceJob] = set()

    def submit(self, task: Callable[[InferenceJob], bytes]) -> InferenceJob:
        """Submit a task, from the event loop; raise HTTPException when the queue is full or the server is stopped."""
        if self.stopping.is_set():
            raise HTTPException(503, STOPPING)
        if len(self._jobs) > self.queue_size:
            raise HTTPException(503, "too many requests are waiting: try again in 1 s", RETRY_AFTER)
        job = InferenceJob()
        job.thread_future = self._thread.submit(task, job)
        self._jobs.add(job)
        # the first callback: a client with its response may submit again
        job.thread_future.add_done_callback(lambda _: self._jobs.discard(job))
        job.future = asyncio.wrap_future(job.thread_future)
        timer = asyncio.get_running_loop().call_later(self.timeout, lambda: job.cancel(timed_out=True))
        job.future.add_done_callback(lambda _: timer.cancel())
        return job

    def result(self, job: InferenceJob) -> bytes:
        """Return the result of a finished job; raise HTTPException when it was canceled or memory ran out."""
        if not job.future.cancelled():
            try:
                return job.future.result()
            except Exception as error:
                if is_oom_error(error):
                    raise HTTPException(503, "not enough memory for this request: request less", RETRY_AFTER) from None
                raise
        if not job.timed_out:
            raise HTTPException(503, STOPPING)
        limit = f"{self.timeout:g} s (timeout)"
        if job.thread_future.cancelled():
            raise HTTPException(503, f"not started within {limit}: try again", RETRY_AFTER)
        raise HTTPException(504, f"not finished within {limit}: send fewer or shorter sentences or use a smaller beam")

    def cancel_all(self) -> None:
        """Cancel all jobs and accept no more, without waiting. To be called from the event loop, or after its end."""
        self.stopping.set()
        for job in list(self._jobs):
            job.cancel()

    def close(self) -> None:
        """Cancel all jobs, and wait for the thread to end."""
        self.cancel_all()
        self._thread.shutdown(wait=True, cancel_futures=True)
