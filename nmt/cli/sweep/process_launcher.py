"""Several runs at a time on this machine, each in a process of its own.

A pool of processes would not do: a process that is killed, for want of memory say, would break the pool, and the number
of threads and the GPUs can only be chosen when a process begins. So a pool of threads starts one process for each run.
"""

import contextlib
import ctypes
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
from nmt.training.distributed import cpu_count
from nmt.training.launcher import ended_by
from nmt.training.signals import SignalForwarder

PARENT = "NMT_SWEEP_PARENT"
"""Environment variable of a run that belongs to a sweep: the process that started it."""
_PR_SET_PDEATHSIG = 1
_KEPT, _SHOWN = 200, 40  # lines of standard error, and of a traceback


class ResourceSlot(NamedTuple):
    """A share of the machine: processor threads, and GPUs by the names that CUDA_VISIBLE_DEVICES has for them."""

    threads: int
    gpus: list[str]


def allocate_slots(jobs: int, wanted: int, devices: int, gpus: Sequence[str], cores: int) -> list[ResourceSlot]:
    """Divide the machine into equal shares.

    Args:
        jobs: runs at a time; 0: one for every `devices` GPUs, or without a GPU for every core.
        wanted: how many runs there are.
        devices: GPUs that a run wants.
        gpus: names of the GPUs.
        cores: processor cores.
    """
    number = max(1, min(jobs or (len(gpus) // devices if gpus else cores), wanted))
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


class JobProcess:
    """A command in a process of its own. Instances are pickled and called by submitit, too.

    Args:
        name: of the command.
        arguments: of the command.
        variables: environment variables that the process gets besides those of this one.
        echo: whether standard error is passed on as it comes; otherwise only tracebacks are.
    """

    def __init__(
        self, name: str, arguments: list[str], variables: Mapping[str, str] | None = None, *, echo: bool = True
    ) -> None:
        self.name, self.arguments, self.variables, self.echo = name, arguments, variables or {}, echo
        self.process: Any = None
        self.stopped = False

    def __call__(self) -> tuple[int, str]:
        """Run the command; return its exit code, and the reason when that is not 0."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"nmt.{self.name}", *self.arguments],
            env={**os.environ, **self.variables, PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a terminal's Ctrl-C goes to this process alone, which passes it on once
        )
        if self.stopped:  # in the meantime
            self.stop()
        lines: deque[str] = deque(maxlen=_KEPT)
        for line in self.process.stderr:
            lines.append(line.rstrip("\n"))
            if self.echo:
                print(lines[-1], file=sys.stderr, flush=True)
        code = self.process.wait()
        if code and not self.echo and any(line.startswith("Traceback") for line in lines):
            print("\n".join(list(lines)[-_SHOWN:]), file=sys.stderr, flush=True)
        return code, failure_reason(code, lines) if code else ""

    def stop(self) -> None:
        """Have the command save and stop."""
        self.stopped = True
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def checkpoint(self) -> Any:
        """Have the process save, and return what submitit submits to continue it. Called before a job is ended."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        if self.process is not None:
            self.process.wait()
        return DelayedSubmission(JobProcess(self.name, self.arguments))


def run_in_processes(name: str, jobs: Sequence[SweepJob], options: SweepOptions, progress: SweepProgress) -> None:
    """Make all runs, as many at a time as there are slots. At a signal they save and stop.

    Raises SystemExit with 128 + N when signal N came.
    """
    if not jobs:
        return
    devices = max(getattr(getattr(job.config, "train", None), "devices", 1) for job in jobs)
    free = allocate_slots(options.jobs, len(jobs), devices, _gpus(), cpu_count())
    share = f"{free[0].threads} thread{'s' if free[0].threads > 1 else ''}"
    share += f" and {len(free[0].gpus)} of {len(_gpus())} GPUs" if free[0].gpus else ""
    progress.say(f"sweep: {len(jobs)} runs to make, {len(free)} at a time, each with {share}")
    tasks: list[JobProcess] = []

    def make(job: SweepJob) -> None:
        slot = free.pop()
        task = JobProcess(name, job.arguments, job_environment(slot, job.config), echo=False)
        tasks.append(task)
        try:
            if not signals.received:
                progress.say(f"{job.head}: started")
                job.status = RUNNING
                code, reason = task()
                job.end(FAILED if code else DONE, reason)
        finally:
            tasks.remove(task)
            free.append(slot)

    def stop(_: int) -> None:
        for task in list(tasks):
            task.stop()

    with SignalForwarder(stop) as signals, ThreadPoolExecutor(len(free)) as pool:
        futures = {pool.submit(make, job): job for job in jobs}
        for future in as_completed(futures):
            future.result()
            if futures[future].status in (DONE, FAILED):
                progress.ended(futures[future])
    if signals.received:
        raise SystemExit(128 + signals.received)


def failure_reason(code: int, said: Iterable[str]) -> str:
    """Return in one sentence why a command ended with this exit code.

    Args:
        code: negative for a signal that ended the process.
        said: its lines on standard error.
    """
    lines = list(said)
    if code - 128 in (signal.SIGINT, signal.SIGTERM):
        return f"stopped by {signal.Signals(code - 128).name}, and saved before; the same command continues it"
    if code < 0:
        return ended_by(-code)
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return lines[-1].strip() if lines else f"ended with exit code {code}"


def exit_with_parent() -> None:
    """In a run of a sweep, ask for SIGTERM when the sweep ends, so that no run is left behind. Linux only."""
    parent = os.environ.pop(PARENT, None)
    if parent is None or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(parent):
            raise SystemExit(128 + signal.SIGTERM)


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]
