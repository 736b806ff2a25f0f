"""The optimizer, its learning rate, and gradient clipping."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from nmt.config import check_choice, check_range
from nmt.models.loading import check_tensors
from nmt.training.warm_start import check_scales, set_learning


@dataclass
class OptimConfig:
    """The optimizer, AdamW (Loshchilov & Hutter 2019), and the schedule of its learning rate.

    learning_rate: the highest rate of the schedule.
    schedule: how the rate falls: constant = not, inverse_sqrt (after warm-up ~ 1/√update, Vaswani et al. 2017), cosine
        (down to `min_lr_ratio` of the rate at the end of training), plateau (times `plateau_factor` after
        `plateau_patience` validations without a better loss). All of them warm up linearly.
    warmup_updates: updates until the highest rate, to which the rate rises linearly; 0 = no warm-up.
    min_lr_ratio: with schedule=cosine: the rate at the end of training, as a share of the highest.
    plateau_factor: with schedule=plateau: the rate is multiplied by it.
    plateau_patience: with schedule=plateau: validations in a row without a better loss before that.
    beta1, beta2: decay rates of AdamW's means of the gradient and of its square.
    epsilon: added to AdamW's denominator.
    weight_decay: AdamW's decay of matrices (not of biases and vectors); 0 = off.
    clip_norm: gradients are scaled down to this norm; 0 = off.
    lr_scales: factors of the rate for parts of the model, a mapping such as {encoder: 0.1, embeddings: 0}: encoder,
        decoder, embeddings, output, attention, or the path of a module; of overlapping parts the smaller one counts. 0
        freezes a part: no gradient, no decay, no dropout inside it.
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
    lr_scales: dict[str, float] = field(default_factory=dict)

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_choice("optim", self, "schedule", SCHEDULES)
        check_range("optim", self, ["learning_rate", "epsilon"], above=0)
        check_range("optim", self, ["warmup_updates", "weight_decay", "clip_norm", "plateau_patience"], minimum=0)
        check_scales(self.lr_scales)
        check_range("optim", self, ["beta1", "beta2", "min_lr_ratio", "plateau_factor"], minimum=0, below=1)


class ReduceOnPlateau:
    """The factor of the learning rate that falls by `plateau_factor` when the validation loss stops falling."""

    def __init__(self, config: OptimConfig) -> None:
        self.config = config
        self.factor, self.best, self.num_bad_validations = 1.0, math.inf, 0

    def step(self, loss: float) -> None:
        """Update the factor after a validation."""
        if loss < self.best:
            self.best, self.num_bad_validations = loss, 0
            return
        self.num_bad_validations += 1
        if self.num_bad_validations > self.config.plateau_patience:
            self.factor, self.num_bad_validations = self.factor * self.config.plateau_factor, 0

    def state_dict(self) -> dict[str, float]:
        """Return the state for a checkpoint."""
        return {"factor": self.factor, "best": self.best, "bad": self.num_bad_validations}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Load the state of a checkpoint."""
        self.factor, self.best = float(state["factor"]), float(state["best"])
        self.num_bad_validations = int(state["bad"])


def learning_rate(config: OptimConfig, update: int, progress: float, plateau: ReduceOnPlateau | None = None) -> float:
    """Return the rate of an update (counted from 1), where `progress` in [0, 1] is the share of training so far."""
    warmup, factor = config.warmup_updates, 1.0
    if config.schedule != "plateau":
        factor = SCHEDULES[config.schedule](config, update, progress)
    elif plateau is not None:
        factor = plateau.factor
    return config.learning_rate * (min(1.0, update / warmup) if warmup else 1.0) * factor


SCHEDULES: dict[str, Callable[[OptimConfig, int, float], float]] = {
    "constant": lambda *_: 1.0,
    "inverse_sqrt": lambda config, update, _: math.sqrt(max(w := config.warmup_updates, 1) / max(update, w, 1)),
    "cosine": lambda config, _, p: (low := config.min_lr_ratio) + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(p, 1))),
    "plateau": lambda *_: 1.0,  # the factor of `ReduceOnPlateau` instead
}
"""Factors of the learning rate beside warm-up, from the options, the update and the share of training so far."""


def build_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.AdamW:
    """Return fused AdamW, with weight decay on matrices only, not on biases and vectors.

    Parts of the model are frozen by `lr_scales` here; raises as `set_learning`.
    """
    scales, parameters = set_learning(model, config.lr_scales), dict(model.named_parameters())
    groups = [
        {"params": params, "weight_decay": config.weight_decay if is_matrix else 0.0, "lr_scale": scale}
        for scale in dict.fromkeys(scales.values())
        for is_matrix in (True, False)
        if (
            params := [
                parameters[n] for n, own in scales.items() if own == scale and (parameters[n].dim() > 1) == is_matrix
            ]
        )
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True)


def load_optimizer_state(optimizer: torch.optim.Optimizer, stored: dict[str, Any]) -> None:
    """Load the state of a checkpoint; the options stay those of the configuration.

    Raises:
        ValueError: its tensors are not those of the optimizer's parameters. Other errors are torch's.
    """
    options = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(stored)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
    for parameter, state in optimizer.state.items():
        expected = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        check_tensors(expected, state, "optimizer")


def build_scaler(device: torch.device, precision: str, state: list[float]) -> torch.amp.GradScaler:
    """Return the scaler of the loss for fp16, whose gradients would else vanish; for other precisions it does nothing.

    It doubles the scale after 2,000 updates in a row without overflow, and halves it after an overflow.

    Args:
        state: `scaler_state` of a checkpoint; empty for a new scaler.
    """
    if len(state) not in (0, 2):
        raise ValueError(f"position.scaler_state={state}: two numbers are needed")
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    if state and scaler.is_enabled():
        scaler.load_state_dict({**scaler.state_dict(), "scale": state[0], "_growth_tracker": int(state[1])})
    return scaler


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients down to a joint norm of at most `max_norm` (0: leave them); return the norm before."""
    return clip_grad_norm_(model.parameters(), max_norm or math.inf, foreach=True)
