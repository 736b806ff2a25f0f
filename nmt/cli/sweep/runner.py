"""Run the jobs of a sweep."""

import json
import sys
import traceback
from collections.abc import Callable, Sequence

from nmt.cli.configs import Config
from nmt.cli.sweep import process_launcher, slurm_launcher
from nmt.cli.sweep.completion import is_run_complete
from nmt.cli.sweep.jobs import DONE, FAILED, RUNNING, SKIPPED, WAITING, SweepJob, SweepOptions
from nmt.cli.sweep.progress import SweepProgress
from nmt.config import to_dict
from nmt.data import attach_alignments, load_corpus, train_or_load_tokenizer
from nmt.data.sources import validation_splits
from nmt.runtime.errors import error_message, print_error
from nmt.training.distributed import is_launched


def run_sweep(name: str, jobs: Sequence[SweepJob], options: SweepOptions, run: Callable[[SweepJob], None]) -> None:
    """Run every job that is not finished yet; one that fails does not stop the others.

    Raises:
        SystemExit: 1 when jobs failed, which are listed with their reasons; after a signal, its code.
    """
    progress = SweepProgress(jobs)
    for job in jobs:
        if job.status == WAITING and isinstance(job.config, Config) and is_run_complete(job.config):
            job.end(SKIPPED)
            progress.print(f"{job.head}: finished before")
        elif job.status == FAILED:
            progress.print(f"{job.head}\nerror: {job.reason}", is_error=True)
    try:
        if options.launcher == "serial":
            _run_serially(jobs, run, progress)
        else:
            _prepare_data(jobs, progress)
            launch = slurm_launcher.run_on_slurm if options.launcher == "slurm" else process_launcher.run_in_processes
            launch(name, [job for job in jobs if job.status == WAITING], options, progress)
    except (SystemExit, KeyboardInterrupt):
        progress.print(progress.line().partition(";")[0] + "; stopped: the same command continues with the rest")
        raise
    if len(jobs) > 1:
        progress.print(progress.line())
    if failed := [job for job in jobs if job.status == FAILED]:
        progress.print(f"{len(failed)} of {len(jobs)} runs failed:", is_error=True)
        for job in failed:
            progress.print(f"  {job.failure}", is_error=True)
        raise SystemExit(1)


def _run_serially(jobs: Sequence[SweepJob], run: Callable[[SweepJob], None], progress: SweepProgress) -> None:
    """Run the jobs one after the other, in this process."""
    waiting = [job for job in jobs if job.status == WAITING]
    for job in waiting:
        progress.print(job.head)
        job.status = RUNNING
        try:
            run(job)
            job.end(DONE)
        except (ValueError, OSError) as error:
            if is_launched():  # the other ranks may be waiting elsewhere; torchrun ends them
                raise
            print_error(error)
            job.end(FAILED, error_message(error))
        except Exception as error:  # a defect: shown in full, while the other jobs still run
            traceback.print_exc(file=sys.stderr)
            job.end(FAILED, f"{type(error).__name__}: {error_message(error)}")
        if job is not waiting[-1]:
            progress.print(progress.line())


def _prepare_data(jobs: Sequence[SweepJob], progress: SweepProgress) -> None:
    """Fill the cache with each tokenizer and corpus once, before several processes need them at the same time."""
    errors: dict[str, str] = {}
    waiting = [job for job in jobs if job.status == WAITING and isinstance(job.config, Config)]
    for job in waiting:
        data = to_dict(job.config.data)
        for name in ("test", "extra_tests"):  # are read later
            del data[name]
        key = json.dumps([data, bool(job.config.train.guided_alignment_weight)], sort_keys=True)
        if key not in errors:
            errors[key] = _prepare(job.config)
        if errors[key]:
            job.end(FAILED, errors[key])
            progress.print(f"{job.head}\nerror: {job.reason}", is_error=True)
    if waiting:
        progress.print(f"sweep: data prepared, {len(errors)} kind{'s' if len(errors) > 1 else ''} of it")


def _prepare(config: Config) -> str:
    """Prepare the data; return the error message, or ""."""
    try:
        tokenizer = train_or_load_tokenizer(config.data)
        splits = ["train"] * (not config.data.streaming) + validation_splits(config.data)
        corpora = [load_corpus(config.data, split, tokenizer) for split in splits]
        if config.train.guided_alignment_weight:
            attach_alignments(config.data, corpora[0], tokenizer)
    except (ValueError, OSError) as error:
        return error_message(error)
    return ""
