"""The runs of a sweep as jobs of a SLURM cluster, submitted and monitored through submitit.

A job that reaches its time limit or is preempted saves, goes back into the queue, and continues. The job scripts and
the logs of the jobs are in `<runs>/.slurm/`.
"""

import contextlib
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmt.cli.run_directory import command_line
from nmt.cli.sweep.jobs import DONE, FAILED, RUNNING, SweepJob, SweepOptions
from nmt.cli.sweep.process_launcher import JobProcess
from nmt.cli.sweep.progress import SweepProgress
from nmt.runtime.files import write_text
from nmt.training.distributed import cpu_count

PAUSE = 1.0
"""Seconds between two checks of the jobs; submitit itself queries the cluster less often."""


def run_on_slurm(name: str, jobs: Sequence[SweepJob], options: SweepOptions, progress: SweepProgress) -> None:
    """Submit all runs and wait for them, and for jobs that an interrupted sweep has left in the queue.

    SLURM gets all jobs at once and limits how many run at a time. submitit's local executor starts all that it gets,
    with the same GPUs for every job, so it gets only as many as may run.

    Raises:
        ValueError: submitit or SLURM is missing, or an option is unknown.
        KeyboardInterrupt: the jobs of a cluster continue.
    """
    if not jobs:
        return
    folder = Path(getattr(jobs[0].config, "runs", "runs")) / ".slurm"
    executor = _executor(folder, options, len(jobs))
    on_cluster = executor.cluster == "slurm"
    local_jobs = options.jobs or (1 if options.slurm.get("gpus_per_node") else cpu_count())
    max_running = len(jobs) if on_cluster else local_jobs
    commands = {job: command_line(name, job.arguments) for job in jobs}
    queued = _queued(folder) if on_cluster else {}
    running = {job: queued[command] for job, command in commands.items() if command in queued}
    for job, submitted in running.items():
        job.status = RUNNING
        progress.print(f"{job.head}: is job {submitted.job_id}")
    waiting = [job for job in jobs if job not in running]
    limit = f", {max_running} at a time" if len(jobs) > max_running else ""
    progress.print(f"sweep: {len(jobs)} jobs{limit}; their output is in {folder}/")
    previous_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            if waiting and (room := max_running - len(running)) > 0:
                new, waiting = waiting[:room], waiting[room:]
                submissions = executor.submit_array([JobProcess(name, job.arguments) for job in new])
                for job, submitted in zip(new, submissions, strict=True):
                    running[job] = queued[commands[job]] = submitted
                    job.status = RUNNING
                    progress.print(f"{job.head}: submitted as job {submitted.job_id}")
                if on_cluster:  # includes the jobs of other sweeps, which may be continued as well
                    ids = {command: submitted.job_id for command, submitted in queued.items()}
                    write_text(folder / "jobs.json", json.dumps(ids, indent=2) + "\n")
            for job in [job for job, submitted in running.items() if submitted.done()]:
                job.end(*_outcome(running.pop(job)))
                progress.job_finished(job)
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        if on_cluster:
            numbers = sorted({submitted.job_id.partition("_")[0] for submitted in running.values()})
            progress.print(f"sweep: the jobs continue; scancel {' '.join(numbers)} ends them")
        else:
            for submitted in running.values():
                submitted.cancel(check=False)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def _outcome(submitted: Any) -> tuple[str, str]:
    """Return the status of a job that has ended, and the reason of a failure."""
    from submitit.core.utils import UncompletedJobError

    try:
        code, reason = submitted.result()
    except UncompletedJobError:
        reason = f"job {submitted.job_id} ended as {submitted.state} without a result; see {submitted.paths.stderr}"
        return FAILED, reason
    except Exception as error:  # raised in the job; submitit adds the traceback
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return FAILED, f"job {submitted.job_id}: {last}; see {submitted.paths.stderr}"
    return FAILED if code else DONE, reason


def _executor(folder: Path, options: SweepOptions, num_jobs: int) -> Any:
    try:
        import submitit
    except ImportError:
        raise ValueError('launcher=slurm: needs submitit: run pip install "nmt-attention[sweep]"') from None
    resources = dict(options.slurm)
    cluster = str(resources.pop("cluster", "slurm"))
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError:
        raise ValueError(
            "launcher=slurm: there is no sbatch on this machine; run this on a node that submits jobs, or try it with "
            "slurm={cluster: local}"
        ) from None
    generic = executor._typed_parameters()
    parameters: dict[str, Any] = {"name": "nmt", "timeout_min": 24 * 60}
    parameters |= {option if option in generic else f"slurm_{option}": value for option, value in resources.items()}
    if cluster == "slurm":
        parameters["slurm_array_parallelism"] = options.jobs or num_jobs
    try:
        executor.update_parameters(**parameters)
    except (NameError, AssertionError) as error:
        allowed = ", ".join([*generic, "and any option of sbatch"])
        raise ValueError(f"slurm={options.slurm}: {str(error).splitlines()[0]} (allowed: {allowed})") from None
    return executor


def _queued(folder: Path) -> dict[str, Any]:
    """Return the jobs of earlier sweeps that are still in SLURM's queue, by their commands."""
    from submitit import SlurmJob

    with contextlib.suppress(OSError, ValueError):
        ids = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
        jobs = {command: SlurmJob(folder=folder, job_id=number) for command, number in ids.items()}
        return {command: job for command, job in jobs.items() if not job.done(force_check=True)}
    return {}
