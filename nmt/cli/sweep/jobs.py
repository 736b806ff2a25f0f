"""The options of a sweep, and its runs."""

from dataclasses import dataclass, field
from typing import Any

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
        """Raise ValueError naming the option, its value and what is allowed."""
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
class SweepJob:
    """One run of a sweep.

    shown: what differs from the other runs. arguments: all of them, as the command gets them. config: what they say;
    None when they cannot be read, for which there is a reason then.
    """

    number: int
    total: int
    shown: str
    arguments: list[str]
    config: Any = None
    status: str = WAITING
    reason: str = ""

    @property
    def head(self) -> str:
        """Its number and what differs from the other runs."""
        return f"run {self.number} of {self.total}: {self.shown}"

    def end(self, status: str, reason: str = "") -> None:
        """Store how the run ended."""
        self.status, self.reason = status, reason
