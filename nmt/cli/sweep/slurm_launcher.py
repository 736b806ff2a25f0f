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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nmt.cli.run_directory import command_line
from nmt.cli.sweep.jobs import DONE, FAILED, Job, SweepOptions
from nmt.cli.sweep.process_launcher import PARENT, reason_of
from nmt.cli.sweep.progress import Progress
from nmt.runtime.files import write_text
from nmt.training.distributed import cores

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
    keys = {job: command_line(name, job.arguments) for job in jobs}
    left = _left_behind(folder, executor)
    running = {job: left[key] for job, key in keys.items() if key in left}
    waiting = deque(job for job in jobs if job not in running)
    for job, at in running.items():
        job.start()
        progress.say(f"{job.head}: is job {at.job_id}")
    at_once = _at_once(options, executor, len(jobs))

    def submit() -> None:
        new = [waiting.popleft() for _ in range(min(len(waiting), at_once - len(running)))]
        if not new:
            return
        with executor.batch():
            submitted = [executor.submit(Task(name, job.arguments)) for job in new]
        for job, at in zip(new, submitted, strict=True):
            running[job] = at
            job.start()
            progress.say(f"{job.head}: submitted as job {at.job_id}")

    submit()
    if executor.cluster == "slurm":  # of other sweeps as well, which may be given again after this one
        known = left | {keys[job]: at for job, at in running.items()}
        write_text(folder / "jobs.json", json.dumps({key: at.job_id for key, at in known.items()}, indent=2) + "\n")
    number = f", {at_once} at a time" if waiting else ""
    progress.say(f"sweep: {len(jobs)} jobs{number}; what they say is in {folder}/")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _wait(running, progress, submit)
    except KeyboardInterrupt:
        if executor.cluster == "slurm":
            ids = sorted({at.job_id.partition("_")[0] for at in running.values()})
            progress.say(f"sweep: the jobs go on; scancel {' '.join(ids)} ends them")
        else:
            for at in running.values():
                at.cancel(check=False)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(running: dict[Job, Any], progress: Progress, submit: Callable[[], None]) -> None:
    while running:
        for job, at in list(running.items()):
            if at.done():
                del running[job]
                _judge(job, at)
                progress.ended(job)
        submit()
        progress.tick()
        if running:
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


def _at_once(options: SweepOptions, executor: Any, num_jobs: int) -> int:
    """How many jobs are submitted at a time: all to SLURM, which bounds itself how many run.

    submitit's own executor starts what it is given, and gives every job the same GPUs, if it asks for any.
    """
    if executor.cluster == "slurm":
        return num_jobs
    return options.jobs or (1 if options.slurm.get("gpus_per_node") else cores())


def _left_behind(folder: Path, executor: Any) -> dict[str, Any]:
    """Jobs of earlier sweeps that SLURM still has, by their commands."""
    if executor.cluster != "slurm":
        return {}
    with contextlib.suppress(OSError, ValueError):
        from submitit import SlurmJob

        stored = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
        jobs: dict[str, Any] = {line: SlurmJob(folder=folder, job_id=number) for line, number in stored.items()}
        return {line: job for line, job in jobs.items() if not job.done(force_check=True)}
    return {}
