"""The optimiser and its learning rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2019) and a schedule.

    learning_rate: the highest rate of the schedule.
    schedule: constant, inverse_sqrt (after warm-up ~ 1/√update, Vaswani et al. 2017), cosine (down to `min_lr_ratio` of
        the rate at the end of training), plateau (times `plateau_factor` after `plateau_patience` validations without a
        better loss). All of them warm up linearly.
    warmup_updates: updates until the highest rate.
    min_lr_ratio, plateau_factor, plateau_patience: see `schedule`.
    beta1, beta2, epsilon, weight_decay: of AdamW.
    clip_norm: gradients are scaled down to this norm; 0 = off.
    """

    learning_rate: float = 3e-3
    schedule: str = "cosine"
    warmup_updates: int = 200
    min_lr_ratio: float = 0.05
    plateau_factor: float = 0.5
    plateau_patience: int = 2
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.0
    clip_norm: float = 1.0

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.schedule not in SCHEDULES:
            raise ValueError(f"optim.schedule={self.schedule}: must be one of {', '.join(SCHEDULES)}")
        if not self.learning_rate > 0:
            raise ValueError(f"optim.learning_rate={self.learning_rate}: must be above 0")
        for option in ("warmup_updates", "weight_decay", "clip_norm", "plateau_patience"):
            if getattr(self, option) < 0:
                raise ValueError(f"optim.{option}={getattr(self, option)}: must be at least 0")
        for option in ("beta1", "beta2", "min_lr_ratio", "plateau_factor"):
            if not 0 <= getattr(self, option) < 1:
                raise ValueError(f"optim.{option}={getattr(self, option)}: must be at least 0 and below 1")
        if not self.epsilon > 0:
            raise ValueError(f"optim.epsilon={self.epsilon}: must be above 0")


def _constant(config: OptimConfig, update: int, progress: float) -> float:
    return 1.0


def _inverse_sqrt(config: OptimConfig, update: int, progress: float) -> float:
    return math.sqrt(max(config.warmup_updates, 1) / max(update, config.warmup_updates, 1))


def _cosine(config: OptimConfig, update: int, progress: float) -> float:
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


SCHEDULES: dict[str, Callable[[OptimConfig, int, float], float]] = {
    "constant": _constant,
    "inverse_sqrt": _inverse_sqrt,
    "cosine": _cosine,
    "plateau": _constant,
}
"""(config, update counted from 1, progress of the whole training in [0, 1]) -> factor after warm-up."""


class ReduceOnPlateau:
    """Multiplies the rate by `decay` when the validation loss stops falling."""

    def __init__(self, config: OptimConfig) -> None:
        self.config = config
        self.factor, self.best, self.bad = 1.0, math.inf, 0

    def step(self, loss: float) -> None:
        """One validation loss."""
        if loss < self.best:
            self.best, self.bad = loss, 0
            return
        self.bad += 1
        if self.bad > self.config.plateau_patience:
            self.factor, self.bad = self.factor * self.config.plateau_factor, 0

    def state_dict(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"factor": self.factor, "best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """From a checkpoint."""
        self.factor, self.best, self.bad = state["factor"], state["best"], int(state["bad"])


def learning_rate(config: OptimConfig, update: int, progress: float, plateau: ReduceOnPlateau | None = None) -> float:
    """The rate of an update (counted from 1), given the share of training that has passed."""
    warm = min(1.0, update / config.warmup_updates) if config.warmup_updates else 1.0
    factor = plateau.factor if plateau is not None and config.schedule == "plateau" else 1.0
    return config.learning_rate * warm * factor * SCHEDULES[config.schedule](config, update, progress)


def build_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.AdamW:
    """Fused AdamW; weight decay on matrices only, not on biases and vectors."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True)
