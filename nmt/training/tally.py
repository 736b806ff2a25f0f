"""What is counted between two log lines of a training."""

import time
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor


class Tally:
    """What is counted from one log line to the next. A rank that is not the first one counts and writes nothing.

    Args:
        names: of the losses that `count` is given; "loss" and "nll" first.
        pending: what `pending` gave when the run was saved.
    """

    def __init__(self, names: Sequence[str], pending: Sequence[float] = ()) -> None:
        self.names = names
        self._reset(pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _reset(self, pending: Sequence[float] = ()) -> None:
        # Sums of the losses, then tokens; on the losses' device, so that counting does not wait for it; fp64, so that
        # restarts change nothing.
        self.sums = torch.tensor(pending or [0.0] * (len(self.names) + 1), dtype=torch.float64)
        self.norm: Tensor | None = None
        self.tokens_here = 0
        self.begin = time.monotonic()

    def count(self, losses: Tensor, norm: Tensor, skipped: Tensor, *, num_tokens: int) -> None:
        """One update.

        Args:
            losses: (len(names),), summed over tokens.
            norm: of the gradient.
            skipped: a scalar, 1 when the update was not made, whose losses are then left out; else 0.
            num_tokens: target tokens of the update.
        """
        added = torch.cat([losses.double(), losses.new_full((1,), num_tokens, dtype=torch.float64)])
        self.sums = self.sums.to(losses.device) + added.where(skipped == 0, 0.0)
        self.norm = norm
        self.tokens_here += num_tokens

    def pending(self) -> list[float]:
        """What was counted since the last log line, for a checkpoint."""
        sums: list[float] = self.sums.tolist()
        return sums if sums[-1] else []

    def is_finite(self) -> bool:
        """Whether the losses since the last log line are finite numbers."""
        return bool(torch.isfinite(self.sums).all())

    def log(self, update: int, epoch: int, learning_rate: float, counts: Mapping[str, int]) -> None:
        """Begins to count anew."""
        self._reset()

    def validated(
        self,
        update: int,
        outcome: dict[str, float],
        quantities: dict[str, list[float]],
        best_update: int,
        seconds: float = 0.0,
    ) -> None:
        """Validation time is not training time."""
        self.tokens_here, self.begin = 0, time.monotonic()
