"""Several runs at a time on this machine, each in a process of its own.

A process that dies, for want of memory say, takes no other with it, as it would from a pool; and it has its own
threads and GPUs, which can be chosen only when a process begins.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import IO, Any, NamedTuple

import torch

from nmt.cli.sweep.jobs import DONE, FAILED, Job, SweepOptions
from nmt.cli.sweep.progress import Progress
from nmt.training.distributed import cores
from nmt.training.launcher import CAUSES
from nmt.training.signals import PassedOn

PARENT = "NMT_SWEEP_PARENT"
"""Environment variable of a run that belongs to a sweep: the process that started it."""
_PR_SET_PDEATHSIG = 1
_SHOWN = 40  # lines of a traceback


class Slot(NamedTuple):
    """A share of the machine: processor threads, and GPUs by the names that CUDA_VISIBLE_DEVICES has for them."""

    threads: int
    gpus: list[str]


def slots(jobs: int, wanted: int, devices: int, gpus: Sequence[str], cores: int) -> list[Slot]:
    """Equal shares of the machine.

    Args:
        jobs: runs at a time; 0: one for every `devices` GPUs, or without a GPU for every core.
        wanted: runs that there are.
        devices: GPUs that a run wants.
    """
    number = jobs or (max(1, len(gpus) // devices) if gpus else cores)
    number = max(1, min(number, wanted))
    threads = max(1, cores // number)
    if not gpus:
        return [Slot(threads, [])] * number
    shares = [[gpus[(i * devices + k) % len(gpus)] for k in range(min(devices, len(gpus)))] for i in range(number)]
    return [Slot(threads, share) for share in shares]


def environment(slot: Slot, config: Any) -> dict[str, str]:
    """The environment of a run in a slot. Threads and a device that its options name are left to them."""
    found = dict(os.environ)
    if not config.threads:
        found |= {"OMP_NUM_THREADS": str(slot.threads), "MKL_NUM_THREADS": str(slot.threads)}
    if slot.gpus and getattr(config, "device", "auto") in ("auto", "cuda"):
        found["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
    return found | {PARENT: str(os.getpid())}


def run(name: str, jobs: Sequence[Job], options: SweepOptions, progress: Progress) -> None:
    """Runs all of them, as many at a time as there are slots. A signal is passed on, and they save and stop.

    Raises SystemExit with 128 + N when signal N came.
    """
    if not jobs:
        return
    devices = max(getattr(getattr(job.config, "train", None), "devices", 1) for job in jobs)
    free = slots(options.jobs, len(jobs), devices, _gpus(), cores())
    share = f"{free[0].threads} thread{'s' if free[0].threads > 1 else ''}"
    share += f" and {len(free[0].gpus)} of {len(_gpus())} GPUs" if free[0].gpus else ""
    progress.say(f"sweep: {len(jobs)} runs to make, {len(free)} at a time, each with {share}")
    waiting, running = deque(jobs), dict[Job, _Child]()

    def end(_: int) -> None:
        for child in running.values():
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)

    with PassedOn(end) as signals:
        while running or (waiting and not signals.received):
            while waiting and free and not signals.received:
                job, slot = waiting.popleft(), free.pop()
                progress.say(f"{job.head}: started")
                job.start()
                running[job] = _Child.start(name, job, slot)
            time.sleep(0.1)
            progress.tick()
            for job, child in list(running.items()):
                if child.process.poll() is not None:
                    del running[job]
                    free.append(child.slot)
                    child.judge(job)
                    progress.ended(job)
        if signals.received:
            raise SystemExit(128 + signals.received)


class _Child(NamedTuple):
    process: "subprocess.Popen[bytes]"
    slot: Slot
    said: IO[bytes]

    @classmethod
    def start(cls, name: str, job: Job, slot: Slot) -> "_Child":
        said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by judge
        process = subprocess.Popen(
            [sys.executable, "-m", f"nmt.{name}", *job.arguments],
            env=environment(slot, job.config),
            stdin=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # a terminal's Ctrl-C comes to this process, which passes it on once
        )
        return cls(process, slot, said)

    def judge(self, job: Job) -> None:
        """What became of the run."""
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").splitlines()
        self.said.close()
        code = self.process.returncode
        if code == 0:
            job.end(DONE)
            return
        job.end(FAILED, reason_of(code, lines))
        if any(line.startswith("Traceback") for line in lines):
            print("\n".join(lines[-_SHOWN:]), file=sys.stderr, flush=True)


def reason_of(code: int, said: Iterable[str]) -> str:
    """Why a command ended with this exit code, in one sentence.

    Args:
        code: negative for a signal that ended the process.
        said: its lines on standard error.
    """
    lines = list(said)
    stopped = code - 128 if code > 128 else 0
    if stopped in (signal.SIGINT, signal.SIGTERM):
        return f"stopped by {signal.Signals(stopped).name}, and saved before; the same command continues it"
    if code < 0:
        number = signal.Signals(-code)
        return f"ended by {number.name}" + (f" ({CAUSES[number]})" if number in CAUSES else "")
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return lines[-1].strip() if lines else f"ended with exit code {code}"


def follow_parent() -> None:
    """In a run of a sweep: SIGTERM comes when the sweep is no more, so that none is left behind. Linux only."""
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
