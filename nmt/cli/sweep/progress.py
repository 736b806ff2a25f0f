"""Progress of a sweep: how many runs are finished, and how long the rest will take."""

import sys
import time
from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from nmt.cli.sweep.jobs import DONE, FAILED, FINISHED_BEFORE, RUNNING, WAITING, SweepJob


class SweepProgress:
    """Prints the progress of a sweep on standard error."""

    def __init__(self, jobs: Sequence[SweepJob]) -> None:
        self.jobs, self.begin = jobs, time.monotonic()

    def line(self) -> str:
        """Return one line about the whole sweep; the time left assumes that all runs take equally long."""
        num = Counter(job.status for job in self.jobs)
        text = f"sweep: {num[DONE] + num[FINISHED_BEFORE]} of {len(self.jobs)} runs finished"
        text += f" ({num[FINISHED_BEFORE]} of them before)" if num[FINISHED_BEFORE] else ""
        text += "".join(f", {num[status]} {status}" for status in (FAILED, RUNNING) if num[status])
        passed, left = time.monotonic() - self.begin, num[WAITING] + num[RUNNING]
        if not left:
            return f"{text}; took {tqdm.format_interval(passed)}"
        return f"{text}; about {tqdm.format_interval(passed * left / num[DONE])} left" if num[DONE] else text

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def ended(self, job: SweepJob) -> None:
        """Print how a run of another process ended, and the line about the sweep."""
        self.say(f"{job.head}: failed: {job.reason}" if job.status == FAILED else f"{job.head}: finished")
        self.say(self.line())
