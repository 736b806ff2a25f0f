"""A guard against updates that would spoil a model: a loss or gradient that is not finite, or far beyond the usual."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MODES = ("off", "skip", "rollback")
WARMUP_UPDATES = 50
"""Updates until the running mean of the gradient's norm is trusted."""
NORM_EMA_DECAY = 0.99
"""Share of the running mean that stays from one update to the next."""
MAX_CONSECUTIVE_SKIPS = 10
"""Skipped updates, one after the other, that a run does not go on from by itself."""
MAX_ROLLBACKS = 5
"""How often a run returns to its last checkpoint."""


@dataclass
class DivergenceConfig:
    """What happens to an update whose loss or gradient would spoil the model.

    on_divergence: off; skip = it is left out, and counted; rollback = besides, when 10 updates in a row had to be left
        out, the run goes on with the weights and the optimiser of its last regular checkpoint and with the next data,
        up to 5
        times. With `skip`, and after that, the run ends with an error. In a row is looked at with each log line.
    max_grad_norm_ratio: a gradient whose norm is above this many times the running mean of the norms before is left out
        too; 0 = only one that is not finite.
    """

    on_divergence: str = "skip"
    max_grad_norm_ratio: float = 0.0

    def validate_divergence(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.on_divergence not in MODES:
            raise ValueError(f"train.on_divergence={self.on_divergence}: must be one of {', '.join(MODES)}")
        if self.max_grad_norm_ratio and not 1 < self.max_grad_norm_ratio < math.inf:
            raise ValueError(
                f"train.max_grad_norm_ratio={self.max_grad_norm_ratio}: must be a number above 1, or 0 (off)"
            )


class DivergenceGuard:
    """Judges every update on the device, so that nothing waits for it; the optimiser then passes over a bad one.

    Args:
        mode: off, skip or rollback; see `nmt.training.trainer.TrainConfig`.
        factor: a gradient is too large when its norm is above this many times the running mean of the norms of
            updates that were made; 0 = never.
        device: where the gradients are.

    rollbacks: how often the run has returned to its last checkpoint.
    """

    def __init__(self, mode: str, factor: float, device: torch.device) -> None:
        self.mode = mode
        self.factor = factor or math.inf
        self.rollbacks = 0
        # running mean of the norm, updates made, updates skipped, skipped since the last one that was made
        self._counts = torch.zeros(4, dtype=torch.float64, device=device)

    @property
    def enabled(self) -> bool:
        """Whether the optimiser listens to it."""
        return self.mode != "off"

    @property
    def can_roll_back(self) -> bool:
        """Whether the run may return to a checkpoint once more."""
        return self.mode == "rollback" and self.rollbacks < MAX_ROLLBACKS

    def check(self, norm: Tensor, losses: Tensor) -> Tensor:
        """Takes in an update that is about to be made.

        Args:
            norm: of the gradient, before clipping.
            losses: any shape; what is logged of the update.

        Returns:
            1 when it must not be made, else 0: a float32 scalar on the device, as `optimizer.found_inf` wants it.
        """
        if not self.enabled:
            return torch.zeros((), device=norm.device)
        mean, made, skipped, in_a_row = self._counts.unbind()
        large = (norm > self.factor * mean) & (made >= WARMUP_UPDATES)
        good = norm.isfinite() & losses.isfinite().all() & ~large
        share = torch.clamp(made / (made + 1), max=NORM_EMA_DECAY)
        after = torch.stack([share * mean + (1 - share) * norm, made + 1, skipped, torch.zeros_like(mean)])
        before = torch.stack([mean, made, skipped + 1, in_a_row + 1])
        self._counts = torch.where(good, after, before)
        return (~good).float()

    def skip_counts(self) -> tuple[int, int]:
        """Updates skipped in all, and those since the last one that was made; waits for the device."""
        _, _, skipped, in_a_row = self._counts.tolist()
        return int(skipped), int(in_a_row)

    def on_rollback(self) -> None:
        """The run is at its last checkpoint again: the updates skipped in a row no longer count as such."""
        self.rollbacks += 1
        self._counts[3] = 0

    def state_dict(self) -> list[float]:
        """For a checkpoint."""
        return [*self._counts.tolist(), float(self.rollbacks)]

    def load_state_dict(self, state: list[float]) -> None:
        """From a checkpoint; from one without a guard's state, which is an empty list, the guard begins anew."""
        if state:
            self._counts = torch.tensor(state[:4], dtype=torch.float64, device=self._counts.device)
            self.rollbacks = int(state[4])
