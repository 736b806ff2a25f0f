"""Start the ranks of a run on this machine, from inside the command, with torch's elastic launcher."""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from nmt.plugins import LOADED, load_plugins
from nmt.runtime.errors import error_message
from nmt.runtime.streams import guard_standard_streams
from nmt.training.signals import SignalForwarder

SIGNAL_HINTS = {
    signal.SIGKILL: "a process is often killed because the machine has run out of memory",
    signal.SIGSEGV: "a defect in a library or in the machine",
    signal.SIGBUS: "often a full /dev/shm or a disk that is gone",
}
GRACE = 5.0
"""Seconds that a rank which lost another one waits to be ended, so that the launcher reports the first cause."""

_CONNECTION_ERRORS = ("connection closed", "connection reset", "connection refused", "broken pipe")
LOST_RANK_MESSAGES = (*_CONNECTION_ERRORS, "gloo", "nccl", "tcpstore")
"""Parts of the messages with which torch's backends report that another rank is gone."""

log = logging.getLogger("nmt.training.launcher")


def launch_ranks(task: Callable[..., None], arguments: tuple[Any, ...], devices: int) -> None:
    """Run the task in `devices` processes and wait for all of them.

    Signals are forwarded to the task. When one rank dies the others are ended.

    Args:
        task: a function of a module, which calls `distributed.init_distributed`.
        arguments: of the task; they are pickled.
        devices: the number of processes.

    Raises:
        ValueError: a rank raised it, or an OSError.
        ChildProcessError: a rank died or has a defect; the message names it and the way to go on.
        SystemExit: with the task's exit code, after a signal 128 + its number.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Python's clean-up process removes what a killed rank has left behind, and would warn of it.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    logging.disable()  # the launcher's log: its errors are raised below, in one sentence
    try:
        with tempfile.TemporaryDirectory(prefix="nmt-ranks-") as folder, SignalForwarder(_send_to_ranks) as signals:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=devices,
                run_id="nmt",
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="localhost",
                max_restarts=0,
                logs_specs=DefaultLogsSpecs(log_dir=folder),
                signals_to_handle="",  # the launcher would end ranks that are still saving
            )
            codes = elastic_launch(config, _run_rank)(list(LOADED), pickle.dumps((task, arguments)))
    except ChildFailedError as error:
        if signals.received:
            raise SystemExit(128 + signals.received) from None
        rank, failure = error.get_first_failure()
        raise _cause(f"rank {rank} of {devices}", failure.exitcode, failure.error_file_data["message"]) from None
    finally:
        logging.disable(logging.NOTSET)
    if code := max(codes.values()):
        raise SystemExit(code)


def _cause(rank: str, code: int, recorded: Any) -> Exception:
    """Return why a rank died: the exception that torch recorded, or the signal or exit code that ended it."""
    effect = "which ended the others"
    if isinstance(recorded, dict):
        kind, _, text = recorded["message"].partition(": ")
        stack = recorded["extraInfo"]["py_callstack"]
        if kind == "ValueError":
            user_error = ValueError(text)
            user_error.add_note(stack)
            return user_error
        print(stack, file=sys.stderr)
        return ChildProcessError(f"{rank} failed ({error_message(recorded['message'])}), {effect}")
    end = f"was {ended_by(-code)}" if code < 0 else f"ended with exit code {code}"
    return ChildProcessError(f"{rank} {end}, {effect}; the same command continues the run from its last checkpoint")


def ended_by(number: int) -> str:
    """Return the name of the signal that ended a process, and its usual cause."""
    name = signal.Signals(number)
    return f"ended by {name.name}" + (f" ({SIGNAL_HINTS[name]})" if name in SIGNAL_HINTS else "")


def _run_rank(plugins: list[str], pickled: bytes) -> int:
    """Run one rank, in its own process; return its exit code. torch records any other exception for the launcher."""
    code = 0
    guard_standard_streams()
    try:
        load_plugins(plugins)  # whose classes may be among the arguments
        task, arguments = pickle.loads(pickled)
        task(*arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # torch takes the exception itself for success
    except ConnectionError:
        raise SystemExit(1) from None  # another rank is gone, which the launcher reports
    except (ValueError, OSError) as error:
        raise ValueError(error_message(error)) from error
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        sys.stderr.flush()
        os._exit(code)  # torch would wait forever for the launcher to take the result
    return code


@contextlib.contextmanager
def report_lost_rank(distributed: bool) -> Iterator[None]:
    """Turn the error of a connection to a lost rank into a sentence.

    Raises:
        ConnectionError: instead of the errors of torch's backends.
    """
    try:
        yield
    except RuntimeError as error:
        if not distributed or not any(part in str(error).lower() for part in LOST_RANK_MESSAGES):
            raise
        # The launcher ends this rank when it sees the cause; without a launcher, the rank ends by the error below.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        text = "another rank of this run is gone; the same command continues it from its last checkpoint"
        log.error("%s", text)
        log.debug("%s", error)
        time.sleep(GRACE)
        raise ConnectionError(text) from error


def _send_to_ranks(number: int) -> None:
    """Send a signal to every rank, even if the terminal has sent it there too."""
    for child in multiprocessing.active_children():
        with contextlib.suppress(ProcessLookupError):
            if child.pid is not None:
                os.kill(child.pid, number)
