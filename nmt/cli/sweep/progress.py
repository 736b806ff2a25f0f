"""One line about a whole sweep: what is done, what runs, and how long the rest will take."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from nmt.cli.sweep.jobs import DONE, FAILED, FINISHED_BEFORE, RUNNING, WAITING, Job

INTERVAL = 60.0
"""Seconds between two lines where there is no terminal whose line can be written over."""


class Progress:
    """Says on standard error how a sweep stands."""

    def __init__(self, jobs: Sequence[Job], stream: TextIO | None = None) -> None:
        self.jobs, self.stream = jobs, stream or sys.stderr
        self.begin = self.last = time.monotonic()

    def line(self) -> str:
        """How the sweep stands."""
        counts = {status: sum(job.status == status for job in self.jobs) for status in (DONE, FAILED, RUNNING)}
        before = sum(job.status == FINISHED_BEFORE for job in self.jobs)
        done = counts[DONE] + before
        said = [f"sweep: {done} of {len(self.jobs)} runs finished" + (f" ({before} of them before)" if before else "")]
        said += [f"{counts[FAILED]} failed"] if counts[FAILED] else []
        said += [f"{counts[RUNNING]} running"] if counts[RUNNING] else []
        return ", ".join(said) + self._left()

    def _left(self) -> str:
        """Time left, from the work that was done in this sitting: a run is as much work as another."""
        left = sum(1 - job.share() for job in self.jobs if job.status in (WAITING, RUNNING))
        if not left:
            return f"; took {duration(time.monotonic() - self.begin)}"
        made = sum(job.share() - job.begun_share for job in self.jobs if job.begun and job.status != FAILED)
        if made <= 0:
            return ""
        return f"; about {duration((time.monotonic() - self.begin) * left / made)} left"

    def say(self, text: str) -> None:
        """A line that stays."""
        clear = "\r\033[K" if self.stream.isatty() else ""
        print(f"{clear}{text}", file=self.stream, flush=True)

    def ended(self, job: Job) -> None:
        """What became of a run that was not made in this process, and how the sweep stands."""
        outcome = f"failed: {job.reason}" if job.status == FAILED else f"finished in {duration(job.seconds)}"
        self.say(f"{job.head}: {outcome}")
        self.stands()

    def stands(self) -> None:
        """How the sweep stands, as a line that stays."""
        self.last = time.monotonic()
        self.say(self.line())

    def tick(self) -> None:
        """Now and then while others work."""
        passed = time.monotonic() - self.last
        if self.stream.isatty() and passed >= 1:
            self.last = time.monotonic()
            print(f"\r\033[K{self.line()}", end="", file=self.stream, flush=True)
        elif passed >= INTERVAL:
            self.stands()


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
