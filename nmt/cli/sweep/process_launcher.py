"""Several runs at a time on this machine, each in a process of its own, which a pool of threads starts.

In a pool of processes, one that is killed would break the pool; and the number of threads and the GPUs can only be
chosen when a process starts.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch

from nmt.cli.sweep.jobs import DONE, FAILED, RUNNING, SweepJob, SweepOptions
from nmt.cli.sweep.progress import SweepProgress
from nmt.runtime.process import end_with_parent
from nmt.training.distributed import cpu_count
from nmt.training.launcher import ended_by
from nmt.training.signals import STOP_SIGNALS, SignalForwarder

PARENT = "NMT_SWEEP_PARENT"
"""Environment variable of a run that belongs to a sweep: the process that started it."""
_MAX_LINES, _MAX_TRACEBACK_LINES = 200, 40  # of standard error that are kept, and that are shown


class ResourceSlot(NamedTuple):
    """A share of the machine: processor threads, and GPUs by their names in CUDA_VISIBLE_DEVICES."""

    threads: int
    gpus: list[str]


def allocate_slots(jobs: int, num_runs: int, devices: int, gpus: Sequence[str], cores: int) -> list[ResourceSlot]:
    """Divide the machine into equal shares for `jobs` of `num_runs` runs at a time, each on `devices` of the GPUs.

    With jobs=0 there is one share for every `devices` GPUs, or without a GPU for every core.
    """
    number = max(1, min(jobs or (len(gpus) // devices if gpus else cores), num_runs))
    names = cycle(gpus)
    return [ResourceSlot(max(1, cores // number), list(islice(names, min(devices, len(gpus))))) for _ in range(number)]


def job_environment(slot: ResourceSlot, config: Any) -> dict[str, str]:
    """Return the environment variables of a run in a slot, except for threads and a device that its options set."""
    variables: dict[str, str] = {}
    if not config.num_threads:
        variables |= {"OMP_NUM_THREADS": str(slot.threads), "MKL_NUM_THREADS": str(slot.threads)}
    if slot.gpus and getattr(config, "device", "auto") in ("auto", "cuda"):
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
    return variables


def start_command(
    name: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start `python -m nmt.<name>` with its standard error in a pipe; `options` are those of Popen."""
    return subprocess.Popen(
        [sys.executable, "-m", f"nmt.{name}", *arguments],
        env={**os.environ, **(variables or {}), PARENT: str(os.getpid())},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C reaches this process alone, which forwards it once
        **options,
    )


class JobProcess:
    """A command in a process of its own; submitit pickles and calls instances, too.

    Args:
        name: of the command.
        arguments: of the command.
        variables: environment variables of the process, in addition to those of this one.
        echo: print standard error as it comes; otherwise only tracebacks.
    """

    def __init__(
        self, name: str, arguments: list[str], variables: Mapping[str, str] | None = None, *, echo: bool = True
    ) -> None:
        self.name, self.arguments, self.variables, self.echo = name, arguments, variables, echo
        self.process: Any = None
        self.stopped = False

    def __call__(self) -> tuple[int, str]:
        """Run the command; return its exit code, and the reason when that is not 0."""
        self.process = start_command(
            self.name, self.arguments, self.variables, stdin=subprocess.DEVNULL, errors="replace"
        )
        if self.stopped:  # in the meantime
            self.stop()
        lines: deque[str] = deque(maxlen=_MAX_LINES)
        for line in self.process.stderr:
            lines.append(line.rstrip("\n"))
            if self.echo:
                print(lines[-1], file=sys.stderr, flush=True)
        code = self.process.wait()
        if code and not self.echo and any(line.startswith("Traceback") for line in lines):
            print("\n".join(list(lines)[-_MAX_TRACEBACK_LINES:]), file=sys.stderr, flush=True)
        return code, failure_reason(code, lines) if code else ""

    def stop(self) -> None:
        """Make the command save and stop."""
        self.stopped = True
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def checkpoint(self) -> Any:
        """Make the process save, and return the submission that continues it; submitit calls this before a job ends."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        if self.process is not None:
            self.process.wait()
        return DelayedSubmission(JobProcess(self.name, self.arguments))


def run_in_processes(name: str, jobs: Sequence[SweepJob], options: SweepOptions, progress: SweepProgress) -> None:
    """Run all jobs, as many at a time as there are slots; a signal makes them save and stop.

    Raises:
        SystemExit: with 128 + N after signal N.
    """
    if not jobs:
        return
    devices = max(getattr(getattr(job.config, "train", None), "devices", 1) for job in jobs)
    free = allocate_slots(options.jobs, len(jobs), devices, _gpus(), cpu_count())
    share = f"{free[0].threads} thread{'s' if free[0].threads > 1 else ''}"
    share += f" and {len(free[0].gpus)} of {len(_gpus())} GPUs" if free[0].gpus else ""
    progress.print(f"sweep: {len(jobs)} runs, {len(free)} at a time, each with {share}")
    processes: list[JobProcess] = []

    def run(job: SweepJob) -> None:
        slot = free.pop()
        process = JobProcess(name, job.arguments, job_environment(slot, job.config), echo=False)
        processes.append(process)
        try:
            if not signals.received:
                progress.print(f"{job.head}: started")
                job.status = RUNNING
                code, reason = process()
                job.end(FAILED if code else DONE, reason)
        finally:
            processes.remove(process)
            free.append(slot)

    def stop(_: int) -> None:
        for process in list(processes):
            process.stop()

    with SignalForwarder(stop) as signals, ThreadPoolExecutor(len(free)) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        for future in as_completed(futures):
            future.result()
            if futures[future].status in (DONE, FAILED):
                progress.job_finished(futures[future])
    if signals.received:
        raise SystemExit(128 + signals.received)


def failure_reason(code: int, stderr: Iterable[str]) -> str:
    """Return why a command failed, from its exit code (-N for signal N) and its lines on standard error."""
    lines = list(stderr)
    if code - 128 in STOP_SIGNALS:
        return f"stopped by {signal.Signals(code - 128).name}, and saved before; the same command continues it"
    if code < 0:
        return ended_by(-code)
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return lines[-1].strip() if lines else f"ended with exit code {code}"


def exit_with_parent() -> None:
    """In a run of a sweep, save and stop when the sweep has ended, so that no run is left behind."""
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        end_with_parent(int(parent))


def _gpus() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]
