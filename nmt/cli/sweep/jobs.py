"""The options of a sweep, and its jobs."""

from dataclasses import dataclass, field
from typing import Any

from nmt.config import check_choice, check_range

LAUNCHERS = ("serial", "processes", "slurm")

WAITING, RUNNING, DONE, SKIPPED, FAILED = "waiting", "running", "done", "finished before", "failed"


@dataclass
class SweepOptions:
    """Options of `-m`, which are no part of any run's configuration.

    sweep: a sweep of configs/sweep/, or a list [a,b] of them, which are combined.
    launcher: how the runs start: serial = one after the other; processes = several at a time on this machine, which
        share cores or GPUs; slurm = as jobs to a cluster through submitit.
    jobs: with launcher processes or slurm: how many runs at a time. 0 = one for each GPU (or `train.devices` of them),
        without a GPU one for each core; on a cluster as many as it will run, and with {cluster: local} one for each
        core, or one when GPUs are requested.
    slurm: with launcher=slurm: resources of a job, such as {partition: gpu, timeout_min: 240, gpus_per_node: 1,
        cpus_per_task: 4}; names as in submitit or sbatch. {cluster: local} tries the same without a cluster.
    """

    sweep: list[str] = field(default_factory=list)
    launcher: str = "serial"
    jobs: int = 0
    slurm: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        check_choice("", self, "launcher", LAUNCHERS)
        check_range("", self, ["jobs"], minimum=0)
        if self.jobs and self.launcher == "serial":
            raise ValueError(f"jobs={self.jobs}: needs launcher=processes or launcher=slurm; serial is one by one")
        if self.slurm and self.launcher != "slurm":
            raise ValueError(f"slurm={self.slurm}: needs launcher=slurm")
        if (cluster := str(self.slurm.get("cluster", "slurm"))) not in ("slurm", "local"):
            raise ValueError(f"slurm={{cluster: {cluster}}}: must be slurm, or local to try the same without a cluster")


@dataclass(eq=False)
class SweepJob:
    """One run of a sweep.

    label: the arguments in which it differs from the other runs. arguments: all its arguments. config: the
    configuration they describe; None when it is invalid, with the reason.
    """

    number: int
    total: int
    label: str
    arguments: list[str]
    config: Any = None
    status: str = WAITING
    reason: str = ""

    @property
    def head(self) -> str:
        """Its number and label."""
        return f"run {self.number} of {self.total}" + (f": {self.label}" if self.label else "")

    @property
    def failure(self) -> str:
        """Its label and why it failed; the label once, where the reason begins with it."""
        is_named = not self.label or self.reason.startswith(f"{self.label}:")
        return self.reason if is_named else f"{self.label}: {self.reason}"

    def end(self, status: str, reason: str = "") -> None:
        """Store how the run ended."""
        self.status, self.reason = status, reason
