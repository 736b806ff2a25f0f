"""Progress of a sweep: the number of finished runs, and the estimated time left."""

import sys
import time
from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from nmt.cli.sweep.jobs import DONE, FAILED, RUNNING, SKIPPED, WAITING, SweepJob
from nmt.runtime.logs import is_quiet
from nmt.runtime.terminal import escape_controls


class SweepProgress:
    """Progress lines of a sweep on standard error."""

    def __init__(self, jobs: Sequence[SweepJob]) -> None:
        self.jobs, self.started = jobs, time.monotonic()

    def line(self) -> str:
        """Return one line about the whole sweep; the time left assumes that all runs take equally long."""
        counts = Counter(job.status for job in self.jobs)
        text = f"sweep: {counts[DONE] + counts[SKIPPED]} of {len(self.jobs)} runs finished"
        text += f" ({counts[SKIPPED]} of them before)" if counts[SKIPPED] else ""
        text += "".join(f", {counts[status]} {status}" for status in (FAILED, RUNNING) if counts[status])
        elapsed, num_left = time.monotonic() - self.started, counts[WAITING] + counts[RUNNING]
        if not num_left:
            return f"{text}; took {tqdm.format_interval(elapsed)}"
        return f"{text}; about {tqdm.format_interval(elapsed * num_left / counts[DONE])} left" if counts[DONE] else text

    def print(self, text: str, *, is_error: bool = False) -> None:
        """Print a line; with --quiet only one about an error."""
        if is_error or not is_quiet():
            # One write, because other threads print too.
            print(escape_controls(text) + "\n", end="", file=sys.stderr, flush=True)

    def job_finished(self, job: SweepJob) -> None:
        """Print the outcome of a run of another process, and the line about the sweep."""
        is_failed = job.status == FAILED
        self.print(f"{job.head}: failed: {job.reason}" if is_failed else f"{job.head}: finished", is_error=is_failed)
        self.print(self.line())
