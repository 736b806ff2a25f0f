"""Starting the ranks of a run on this machine, from inside the command, with torch's elastic launcher."""

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nmt.cli.help import one_line
from nmt.training.signals import PassedOn

CAUSES = {
    signal.SIGKILL: "a process is often killed because the machine has run out of memory",
    signal.SIGSEGV: "a defect in a library or in the machine",
    signal.SIGBUS: "often a full /dev/shm or a disk that is gone",
}
GRACE = 5.0
"""Seconds that a rank which misses another one waits for the launcher to end it, so that the first cause is told."""

LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "gloo", "nccl", "tcpstore")
"""Signs, in the errors of torch's backends, that another rank is gone."""

log = logging.getLogger("nmt.training.launcher")


def run(task: Callable[..., None], arguments: tuple[Any, ...], devices: int) -> None:
    """Runs the task in `devices` processes of their own and waits for all of them.

    Signals are passed on, and it is for the task to answer them. When one rank dies the others are ended.

    Args:
        task: a function of a module; it finds its rank with `distributed.join`.
        arguments: of the task; they are pickled.
        devices: how many processes.

    Raises:
        ValueError: a rank raised it, or an OSError; in one sentence.
        ChildProcessError: a rank died or has a defect; which one, of what, and how to go on.
        SystemExit: with the task's exit code, after a signal 128 + its number.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    outcome: dict[str, Any] = {}

    def launch(folder: str) -> None:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=f"{folder}/logs"),
        )
        try:
            outcome["codes"] = elastic_launch(config, _rank)(task, arguments, folder)
        except ChildFailedError as error:
            outcome["died"] = {rank: failure.exitcode for rank, failure in error.failures.items()}
        except BaseException as error:
            outcome["error"] = error

    with tempfile.TemporaryDirectory(prefix="nmt-ranks-") as folder, _quiet(), PassedOn(_to_ranks) as signals:
        # Not in this thread, where the launcher would answer a signal by ending ranks that are still saving.
        thread = threading.Thread(target=launch, args=(folder,), name="launcher")
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
        told = {int(path.stem): json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}
    if "error" in outcome:
        raise outcome["error"]
    if "died" in outcome:
        if signals.received:
            raise SystemExit(128 + signals.received)
        raise _cause(outcome["died"], told, devices)
    if code := max(outcome["codes"].values()):
        raise SystemExit(code)


def _cause(died: dict[int, int], told: dict[int, dict[str, str]], devices: int) -> Exception:
    """Why a rank died, of those that did: what it said itself, or the signal that ended it."""
    on = "the same command continues the run from its last checkpoint"
    for rank, said in told.items():
        if said["kind"] == "user":
            return ValueError(said["text"])
        if said["kind"] == "defect":
            return ChildProcessError(f"rank {rank} of {devices} failed ({said['text']}), which ended the others")
    rank, code = min(died.items())
    if code >= 0:
        return ChildProcessError(f"rank {rank} of {devices} ended with exit code {code}, which ended the others; {on}")
    number = signal.Signals(-code)
    cause = f" ({CAUSES[number]})" if number in CAUSES else ""
    return ChildProcessError(
        f"rank {rank} of {devices} was ended by {number.name}{cause}, which ended the others; {on}"
    )


def _rank(task: Callable[..., None], arguments: tuple[Any, ...], folder: str) -> int:
    """One rank, in its own process: the exit code; a mistake or a defect is left in `folder` for the launcher."""
    number = os.environ["RANK"]

    def leave(kind: str, text: str) -> None:
        (Path(folder) / f"{number}.json").write_text(json.dumps({"kind": kind, "text": text}))

    code = 0
    try:
        task(*arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # torch takes the exception itself for success
    except ConnectionError:
        raise SystemExit(1) from None  # another rank is gone, and the launcher tells of that one
    except (ValueError, OSError) as error:
        if os.environ.get("NMT_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exception(error)
        leave("user", one_line(error))
        raise SystemExit(1) from None
    except Exception as error:
        traceback.print_exc()
        leave("defect", f"{type(error).__name__}: {one_line(error)}")
        raise SystemExit(1) from None
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        sys.stderr.flush()
        os._exit(code)  # nobody would ever take this rank's result
    return code


@contextlib.contextmanager
def missing_ranks(several: bool) -> Iterator[None]:
    """Turns the error of a connection to a rank that is gone into a sentence.

    Raises:
        ConnectionError: in place of what torch's backends raise.
    """
    try:
        yield
    except RuntimeError as error:
        said = one_line(error)
        if not several or not any(sign in said.lower() for sign in LOST):
            raise
        # Whoever started this rank ends it when it sees the cause; without one, it ends itself.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        text = "another rank of this run is gone; the same command continues it from its last checkpoint"
        log.error("%s", text)
        log.debug("%s", said)
        time.sleep(GRACE)
        raise ConnectionError(text) from error


def _to_ranks(number: int) -> None:
    """Sends a signal to every rank, whether or not the terminal has sent it there too."""
    for child in multiprocessing.active_children():
        with contextlib.suppress(ProcessLookupError):
            if child.pid is not None:
                os.kill(child.pid, number)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the launcher's own log, whose errors are told here in one sentence."""
    names = ("torch.distributed.elastic", "torch.distributed.launcher", "torch.multiprocessing")
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    warnings = os.environ.get("PYTHONWARNINGS")
    # Python's clean-up process warns of what a rank that was killed has left behind, and removes it.
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [warnings, "ignore:resource_tracker:UserWarning"]))
    try:
        yield
    finally:
        if warnings is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = warnings
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
