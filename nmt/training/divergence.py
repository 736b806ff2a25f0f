"""The divergence guard: skips updates whose loss or gradient is not finite, or whose gradient is far too large."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt.config import check_choice

MODES = ("off", "skip", "rollback")
WARMUP_UPDATES = 50
"""Updates until the running mean of the gradient norm is used."""
NORM_EMA_DECAY = 0.99
"""Decay of the running mean per update."""
MAX_CONSECUTIVE_SKIPS = 10
"""Skipped updates in a row at which a run rolls back or ends."""
MAX_ROLLBACKS = 5
"""Rollbacks of a run to its last checkpoint, at most."""


@dataclass
class DivergenceConfig:
    """Options for an update whose loss or gradient would spoil the model.

    In fp16 an update whose gradient overflows because of the scale of the loss is always skipped, and is no divergence.

    on_divergence: what happens then: off = nothing; skip = the update is skipped, and counted; rollback = also, after
        10 skipped updates in a row (checked with each log line) the run goes on with the weights and the optimizer of
        its last regular checkpoint and with the next data, up to 5 times. With `skip`, and after that, the run ends
        with an error.
    max_grad_norm_ratio: an update whose gradient norm is above this many times the running mean of earlier norms is
        skipped too; 0 = only one that is not finite.
    """

    on_divergence: str = "skip"
    max_grad_norm_ratio: float = 0.0

    def validate_divergence(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_choice("train", self, "on_divergence", MODES)
        if self.max_grad_norm_ratio and not 1 < self.max_grad_norm_ratio < math.inf:
            ratio = self.max_grad_norm_ratio
            raise ValueError(f"train.max_grad_norm_ratio={ratio}: must be a number above 1, or 0 (off)")


class DivergenceGuard:
    """The check of every update, on the device, so that nothing waits for it; the optimizer then skips a bad one.

    Args:
        mode: off, skip or rollback; see `DivergenceConfig`.
        max_ratio: a gradient is too large when its norm is above this many times the running mean of the norms of
            updates that were made; 0 = never.
        device: of the gradients.

    rollbacks: how often the run has returned to its last checkpoint.
    """

    def __init__(self, mode: str, max_ratio: float, device: torch.device) -> None:
        self.mode = mode
        self.max_ratio = max_ratio or math.inf
        self.rollbacks = 0
        # running mean of the norm, updates made, updates skipped, skipped since the last one that was made
        self._counts = torch.zeros(4, dtype=torch.float64, device=device)

    @property
    def enabled(self) -> bool:
        """Return whether the optimizer is to use the result of `check`."""
        return self.mode != "off"

    @property
    def can_roll_back(self) -> bool:
        """Return whether another rollback is allowed."""
        return self.mode == "rollback" and self.rollbacks < MAX_ROLLBACKS

    def check(self, norm: Tensor, losses: Tensor, scale: Tensor | None = None) -> Tensor:
        """Check the next update.

        Args:
            norm: of the gradient, before clipping.
            losses: the logged losses of the update, of any shape.
            scale: of the loss, in fp16: above 1, a gradient that is not finite is an overflow, which is skipped in any
                mode, and not counted among the skips in a row, since the scale is about to fall.

        Returns:
            1 when it must be skipped, else 0: a float32 scalar on the device, as `optimizer.found_inf` requires.
        """
        overflow: Tensor | None = None
        if scale is not None:
            overflow = ~norm.isfinite() & (scale > 1) & losses.isfinite().all()
        if not self.enabled:
            return torch.zeros((), device=norm.device) if overflow is None else overflow.float()
        mean, made, skipped, consecutive = self._counts.unbind()
        large = (norm > self.max_ratio * mean) & (made >= WARMUP_UPDATES)
        good = norm.isfinite() & losses.isfinite().all() & ~large
        decay = torch.clamp(made / (made + 1), max=NORM_EMA_DECAY)
        if_made = torch.stack([decay * mean + (1 - decay) * norm, made + 1, skipped, torch.zeros_like(mean)])
        if_skipped = torch.stack([mean, made, skipped + 1, consecutive + (1 if overflow is None else ~overflow)])
        self._counts = torch.where(good, if_made, if_skipped)
        return (~good).float()

    def skip_counts(self) -> tuple[int, int]:
        """Return the number of skipped updates, in all and since the last one that was made; waits for the device."""
        _, _, skipped, consecutive = self._counts.tolist()
        return int(skipped), int(consecutive)

    def on_rollback(self) -> None:
        """Count a rollback, and reset the number of consecutive skips."""
        self.rollbacks += 1
        self._counts[3] = 0

    def state_dict(self) -> list[float]:
        """Return the state for a checkpoint."""
        return [*self._counts.tolist(), float(self.rollbacks)]

    def load_state_dict(self, state: list[float]) -> None:
        """Load the state of a checkpoint; an empty list, from a checkpoint without one, changes nothing."""
        if len(state) not in (0, 5):
            raise ValueError(f"position.divergence_state={state}: five numbers are needed")
        if state:
            self._counts = torch.tensor(state[:4], dtype=torch.float64, device=self._counts.device)
            self.rollbacks = int(state[4])
