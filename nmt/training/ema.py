"""An exponential moving average of a model's weights, which is often better than the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nmt.models.loading import check_tensors


class ExponentialMovingAverage:
    """Weights averaged over updates, in the style of Polyak & Juditsky 1992, with exponentially falling shares.

    average <- d · average + (1 - d) · weights, d = min(decay, (1 + n) / (10 + n)) after update n: the smaller decay of
    early updates removes the initial weights from the average sooner.

    Tied parameters are averaged once. Buffers are constants and are not averaged.

    Args:
        model: on its device; the average starts as a copy of its parameters.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters: dict[str, Tensor] = dict(model.named_parameters())  # tied ones once, under the first name
        self.weights = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Add the weights after update `number`, counted from 1; nothing waits for the device."""
        decay = min(self.decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(list(self.weights.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the model the averaged weights while the context lasts, and exactly its former ones afterwards.

        Values are copied and the tensors stay where they are, since recurrent layers on a GPU keep theirs in one block.
        """
        trained = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        try:
            self._fill(self.weights)
            yield
        finally:
            self._fill(trained)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        torch._foreach_copy_(list(self.parameters.values()), list(values.values()))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged parameters by name, for a checkpoint."""
        return dict(self.weights)

    def load_state_dict(self, state: dict[str, Tensor] | None) -> None:
        """Load the average of a checkpoint of the same model. Raise ValueError when it has none, or another one."""
        if state is None:
            raise ValueError(
                f"train.ema_decay={self.decay:g}: the run was begun without an average of its weights; continue it "
                "with train.ema_decay=0, or start one with another name"
            )
        check_tensors(self.weights, state, "average")
        for name, weight in self.weights.items():
            weight.copy_(state[name])


@contextmanager
def temporarily_loaded(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the model another state while the context lasts, and exactly its former one afterwards."""
    former = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    try:
        model.load_state_dict(state)
        yield
    finally:
        model.load_state_dict(former)
