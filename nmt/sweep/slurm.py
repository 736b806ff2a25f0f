"""The runs of a sweep as jobs of a SLURM cluster, written, submitted and watched by submitit.

A job that reaches its time limit or is pre-empted saves, goes back into the queue, and continues. The scripts and what
the jobs say lie in `<runs>/.slurm/`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmt.files import write_text
from nmt.sweep.jobs import DONE, FAILED, Job, SweepOptions
from nmt.sweep.processes import PARENT, reason_of
from nmt.sweep.progress import Progress

PAUSE = 1.0
"""Seconds between two looks at the jobs; submitit itself asks the cluster less often."""
_KEPT = 200  # lines


class Task:
    """What a job does: a command in a process of its own. Called and pickled by submitit.

    Args:
        name: of the command.
        arguments: its.
    """

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name, self.arguments = name, arguments
        self.process: Any = None

    def __call__(self) -> tuple[int, str]:
        """The exit code of the command, and the reason when it is not 0."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"nmt.{self.name}", *self.arguments],
            env={**os.environ, PARENT: str(os.getpid())},
            stderr=subprocess.PIPE,
            text=True,
        )
        lines: deque[str] = deque(maxlen=_KEPT)
        for line in self.process.stderr:
            lines.append(line.rstrip("\n"))
            print(line, end="", file=sys.stderr, flush=True)
        code = self.process.wait()
        return code, reason_of(code, lines) if code else ""

    def checkpoint(self) -> Any:
        """Called before the cluster ends the job: it saves, and what is submitted next continues it."""
        import submitit

        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        return submitit.helpers.DelayedSubmission(Task(self.name, self.arguments))


def run(name: str, jobs: Sequence[Job], options: SweepOptions, progress: Progress) -> None:
    """Submits all of them and waits. Jobs that an interrupted sweep has left in the queue are waited for as well.

    Raises:
        ValueError: submitit or SLURM is not there, or does not know what is asked for.
        KeyboardInterrupt: the jobs go on.
    """
    if not jobs:
        return
    folder = Path(getattr(jobs[0].config, "runs", "runs")) / ".slurm"
    executor = _executor(folder, options, len(jobs))
    left = _left_behind(folder, executor)
    found = {job: left[" ".join(job.arguments)] for job in jobs if " ".join(job.arguments) in left}
    new = [job for job in jobs if job not in found]
    if new:
        with executor.batch():
            submitted = [executor.submit(Task(name, job.arguments)) for job in new]
        found |= dict(zip(new, submitted, strict=True))
    for job, at in found.items():
        job.start()
        progress.say(f"{job.head}: {'is' if job not in new else 'submitted as'} job {at.job_id}")
    said = {" ".join(job.arguments): at.job_id for job, at in found.items()}
    write_text(folder / "jobs.json", json.dumps(said, indent=2) + "\n")
    progress.say(f"sweep: {len(jobs)} jobs; what they say is in {folder}/")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _wait(found, progress)
    except KeyboardInterrupt:
        if executor.cluster == "slurm":
            ids = sorted({at.job_id.partition("_")[0] for at in found.values()})
            progress.say(f"sweep: the jobs go on; scancel {' '.join(ids)} ends them")
        else:
            for at in found.values():
                at.cancel(check=False)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(found: dict[Job, Any], progress: Progress) -> None:
    while found:
        for job, at in list(found.items()):
            if at.done():
                del found[job]
                _judge(job, at)
                progress.ended(job)
        progress.tick()
        if found:
            time.sleep(PAUSE)


def _judge(job: Job, at: Any) -> None:
    """What became of a job."""
    from submitit.core.utils import UncompletedJobError

    try:
        code, reason = at.result()
    except UncompletedJobError:
        job.end(FAILED, f"job {at.job_id} ended as {at.state} without a result; see {at.paths.stderr}")
    except Exception as error:  # what the job itself raised, told by submitit with its traceback
        first = str(error).strip().splitlines()
        job.end(FAILED, f"job {at.job_id}: {first[-1] if first else type(error).__name__}; see {at.paths.stderr}")
    else:
        job.end(FAILED if code else DONE, reason)


def _executor(folder: Path, options: SweepOptions, num_jobs: int) -> Any:
    try:
        import submitit
    except ImportError:
        raise ValueError('launcher=slurm: needs submitit: run pip install "nmt-attention[sweep]"') from None
    asked = dict(options.slurm)
    cluster = str(asked.pop("cluster", "slurm"))
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError:
        raise ValueError(
            "launcher=slurm: there is no sbatch here; run this where jobs are submitted from, or try it with "
            "slurm={cluster: local}"
        ) from None
    generic = executor._typed_parameters()
    parameters = {name if name in generic else f"slurm_{name}": each for name, each in asked.items()}
    parameters = {"name": "nmt", "timeout_min": 24 * 60} | parameters
    if cluster == "slurm":
        parameters["slurm_array_parallelism"] = options.jobs or num_jobs
    try:
        executor.update_parameters(**parameters)
    except (NameError, AssertionError) as error:
        known = ", ".join([*generic, "and any option of sbatch"])
        raise ValueError(f"slurm={options.slurm}: {str(error).splitlines()[0]} (known: {known})") from None
    return executor


def _left_behind(folder: Path, executor: Any) -> dict[str, Any]:
    """Jobs of an earlier sweep that SLURM still has, by their arguments."""
    if executor.cluster != "slurm":
        return {}
    with contextlib.suppress(OSError, ValueError):
        from submitit import SlurmJob

        stored = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
        jobs: dict[str, Any] = {
            arguments: SlurmJob(folder=folder, job_id=number) for arguments, number in stored.items()
        }
        return {arguments: job for arguments, job in jobs.items() if not job.done(force_check=True)}
    return {}
