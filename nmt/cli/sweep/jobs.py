"""The options of a sweep, and its runs."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.cli.configs import Config
from nmt.training import logger

LAUNCHERS = ("serial", "processes", "slurm")

WAITING, RUNNING, DONE, FINISHED_BEFORE, FAILED = "waiting", "running", "done", "finished before", "failed"


@dataclass
class SweepOptions:
    """How the runs of `-m` are made; no part of any run's own configuration.

    sweep: named sets of values (`configs/sweep/`); several are combined.
    launcher: serial = one after the other, in this process; processes = several at a time on this machine, sharing its
        cores or GPUs; slurm = jobs of a SLURM cluster, through submitit.
    jobs: processes and slurm: how many at a time; 0 = one for each GPU (or `train.devices` of them), without a GPU one
        for each core; on a cluster as many as it will run, and with {cluster: local} one for each core, or one where
        GPUs are asked for.
    slurm: what a job asks for, such as {partition: gpu, timeout_min: 240, gpus_per_node: 1, cpus_per_task: 4}; names as
        submitit or sbatch have them. {cluster: local} tries the same without a cluster.
    """

    sweep: list[str] = field(default_factory=list)
    launcher: str = "serial"
    jobs: int = 0
    slurm: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.launcher not in LAUNCHERS:
            raise ValueError(f"launcher={self.launcher}: must be one of {', '.join(LAUNCHERS)}")
        if self.jobs < 0:
            raise ValueError(f"jobs={self.jobs}: must be 0 (chosen by the machine) or more")
        if self.jobs and self.launcher == "serial":
            raise ValueError(f"jobs={self.jobs}: needs launcher=processes or launcher=slurm; serial is one by one")
        if self.slurm and self.launcher != "slurm":
            raise ValueError(f"slurm={self.slurm}: needs launcher=slurm")
        if (cluster := str(self.slurm.get("cluster", "slurm"))) not in ("slurm", "local"):
            raise ValueError(f"slurm={{cluster: {cluster}}}: must be slurm, or local to try the same without a cluster")


@dataclass(eq=False)
class Job:
    """One run of a sweep.

    shown: what tells it from the others. arguments: all of them, as the command gets them. config: what they say; None
    when they cannot be read, for which there is a reason then.
    """

    number: int
    total: int
    shown: str
    arguments: list[str]
    config: Any = None
    status: str = WAITING
    reason: str = ""
    begun: float = 0.0
    begun_share: float = 0.0
    seconds: float = 0.0

    @property
    def head(self) -> str:
        """The run by its number and what it has of its own."""
        return f"run {self.number} of {self.total}: {self.shown}"

    @property
    def directory(self) -> Path | None:
        """Of a training run."""
        return Path(self.config.runs) / str(self.config.name) if isinstance(self.config, Config) else None

    def start(self) -> None:
        """It runs from now on."""
        self.status, self.begun, self.begun_share = RUNNING, time.monotonic(), self.share()

    def fail(self, reason: str) -> None:
        """It is over without a result."""
        self.end(FAILED, reason)

    def end(self, status: str, reason: str = "") -> None:
        """It is over."""
        self.seconds = time.monotonic() - self.begun if self.begun else 0.0
        self.status, self.reason = status, reason

    def share(self) -> float:
        """How much of its work is done, from 0 to 1, as its records tell."""
        if self.status not in (WAITING, RUNNING):
            return 1.0
        if self.directory is None:
            return 0.0
        rows = logger.read(self.directory / "metrics.jsonl")
        return min(0.95, rows[-1]["update"] / self.config.train.max_updates) if rows else 0.0
