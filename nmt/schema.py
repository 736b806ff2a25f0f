"""The configuration trees of the commands; each part is a dataclass beside the code it configures."""

import re
from dataclasses import dataclass, field
from typing import Any

from nmt.attention import NONE
from nmt.data.sources import DataConfig
from nmt.metrics import MetricsConfig
from nmt.models.rnn import RNNConfig
from nmt.optim import OptimConfig
from nmt.search import SearchConfig
from nmt.trainer import TrainConfig


@dataclass
class Config:
    """Everything that `python -m nmt.train` can be told."""

    name: str | None = None
    """Run directory inside `runs`; None: made from the options given."""
    runs: str = "runs"
    seed: int = 1
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """Processor threads; 0: as many as torch chooses."""
    data: DataConfig = field(default_factory=DataConfig)
    model: Any = field(default_factory=RNNConfig)
    """The configuration of one of `MODELS`."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed (of this node; the others check themselves)."""
        _check_machine(self.device, self.threads)
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be 0 or more")
        if not self.runs:
            raise ValueError("runs=: the folder for the runs needs a name; the default is runs=runs")
        parts = [] if self.name is None else self.name.split("/")
        if any(part in ("", ".", "..") or part != part.strip() for part in parts):
            raise ValueError(f"name={self.name}: must be a folder name inside {self.runs}/, such as name=my_run")
        attention = self.model.attention
        scores = [layer.get("score", attention.score) for layer in attention.layers] or [attention.score]
        if self.train.coverage_loss and all(score == NONE for score in scores):
            raise ValueError(
                f"train.coverage_loss={self.train.coverage_loss:g}: needs a model with attention; set it to 0, or "
                "choose a score other than model.attention.score=none"
            )


@dataclass
class EvaluateConfig:
    """What `python -m nmt.evaluate` can be told; whatever is not given comes from the checkpoint."""

    checkpoint: str = ""
    """A run directory (its best checkpoint) or a checkpoint file."""
    output: str | None = None
    """Folder for the report; None: see `report_folder`."""
    data: DataConfig = field(default_factory=DataConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    device: str = "auto"
    threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoint(self.checkpoint)
        _check_machine(self.device, self.threads)
        if self.output == "":
            raise ValueError(
                "output=: the report needs a folder; leave the option out for the one in the run directory"
            )


@dataclass
class TranslateConfig:
    """What `python -m nmt.translate` can be told; whatever is not given comes from the checkpoint."""

    checkpoint: str = ""
    search: SearchConfig = field(default_factory=SearchConfig)
    device: str = "auto"
    threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoint(self.checkpoint)
        _check_machine(self.device, self.threads)


def _check_checkpoint(checkpoint: str) -> None:
    if not checkpoint:
        raise ValueError("checkpoint: must be given: checkpoint=runs/NAME or checkpoint=FILE.pt")


def _check_machine(device: str, threads: int) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    if threads < 0:
        raise ValueError(f"threads={threads}: must be 0 (torch's own choice) or more")
