"""Making the runs of a sweep."""

import json
import sys
import traceback
from collections.abc import Callable, Sequence

from nmt.cli.configs import Config
from nmt.cli.sweep import process_launcher, slurm_launcher
from nmt.cli.sweep.completion import is_complete
from nmt.cli.sweep.jobs import DONE, FAILED, FINISHED_BEFORE, RUNNING, WAITING, SweepJob, SweepOptions
from nmt.cli.sweep.progress import SweepProgress
from nmt.config import to_dict
from nmt.data import attach_alignments, load_corpus, train_or_load_tokenizer
from nmt.runtime.errors import error_message, print_error


def run_sweep(name: str, jobs: Sequence[SweepJob], options: SweepOptions, make: Callable[[SweepJob], None]) -> None:
    """Make every run that is not finished yet; one that fails does not stop the rest.

    Args:
        name: of the command.
        jobs: those that have failed already are only listed.
        options: says how they are made.
        make: makes one in this process.

    Raises:
        SystemExit: 1 when some failed, which are listed with their reasons; after a signal, its code.
    """
    progress = SweepProgress(jobs)
    for job in jobs:
        if job.status == WAITING and isinstance(job.config, Config) and is_complete(job.config):
            job.end(FINISHED_BEFORE)
            progress.say(f"{job.head}: finished before")
        elif job.status == FAILED:
            progress.say(f"{job.head}\nerror: {job.reason}")
    try:
        if options.launcher == "serial":
            _serial(jobs, make, progress)
        else:
            _prepare_data(jobs, progress)
            launch = (
                process_launcher.run_in_processes if options.launcher == "processes" else slurm_launcher.run_on_slurm
            )
            launch(name, [job for job in jobs if job.status == WAITING], options, progress)
    except (SystemExit, KeyboardInterrupt):
        progress.say(progress.line().partition(";")[0] + "; stopped: the same command goes on with the rest")
        raise
    if len(jobs) > 1:
        progress.say(progress.line())
    if failed := [job for job in jobs if job.status == FAILED]:
        progress.say(f"{len(failed)} of {len(jobs)} runs failed:")
        for job in failed:
            progress.say(f"  {job.shown}: {job.reason}")
        raise SystemExit(1)


def _serial(jobs: Sequence[SweepJob], make: Callable[[SweepJob], None], progress: SweepProgress) -> None:
    """Make the runs one after the other, in this process."""
    waiting = [job for job in jobs if job.status == WAITING]
    for job in waiting:
        progress.say(job.head)
        job.status = RUNNING
        try:
            make(job)
            job.end(DONE)
        except (ValueError, OSError) as error:
            print_error(error)
            job.end(FAILED, error_message(error))
        except Exception as error:  # a defect: shown in full, and the other runs still go ahead
            traceback.print_exc(file=sys.stderr)
            job.end(FAILED, f"{type(error).__name__}: {error_message(error)}")
        if job is not waiting[-1]:
            progress.say(progress.line())


def _prepare_data(jobs: Sequence[SweepJob], progress: SweepProgress) -> None:
    """Put tokenizers and corpora into the cache, each once, before several processes need them at the same time."""
    reasons: dict[str, str] = {}
    waiting = [job for job in jobs if job.status == WAITING and isinstance(job.config, Config)]
    for job in waiting:
        key = _data_key(job.config)
        if key not in reasons:
            reasons[key] = _prepare(job.config)
        if reasons[key]:
            job.end(FAILED, reasons[key])
            progress.say(f"{job.head}\nerror: {job.reason}")
    if waiting:
        progress.say(f"sweep: data prepared, {len(reasons)} kind{'s' if len(reasons) > 1 else ''} of it")


def _data_key(config: Config) -> str:
    """Return what is prepared for a run, as text; test sets are read later."""
    data = {name: value for name, value in to_dict(config.data).items() if name not in ("test", "extra_tests")}
    return json.dumps([data, bool(config.train.guided_alignment_weight)], sort_keys=True)


def _prepare(config: Config) -> str:
    """Prepare the data; return what is wrong with it, "" for nothing."""
    try:
        tokenizer = train_or_load_tokenizer(config.data)
        corpora = [load_corpus(config.data, split, tokenizer) for split in ("train", "valid")]
        if config.train.guided_alignment_weight:
            attach_alignments(config.data, corpora[0], tokenizer)
    except (ValueError, OSError) as error:
        return error_message(error)
    return ""
