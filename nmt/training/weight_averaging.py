"""An exponential moving average of a model's weights, which is often better than the weights themselves."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Weights averaged over updates, in the style of Polyak & Juditsky 1992, with exponentially falling shares.

    average <- d · average + (1 - d) · weights, d = min(decay, (1 + n) / (10 + n)) after update n: the smaller decay of
    early updates keeps the first weights from weighing on the average for long.

    Parameters that are tied are one parameter and are averaged once. Buffers are constants and stay the model's own.

    Args:
        model: on its device; the average begins as a copy of its parameters.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        parameters = dict(model.named_parameters())  # each once, under its first name
        self.names = list(parameters)
        self.parameters: list[Tensor] = list(parameters.values())
        self.weights = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Takes in the weights after update `number`, counted from 1; nothing waits for the device."""
        decay = min(self.decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(self.weights, self.parameters, 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model holds the average while the context lasts, and exactly its own weights afterwards.

        Values are copied and the tensors stay where they are, since recurrent layers on a GPU keep theirs in one block.
        """
        own = [parameter.detach().clone() for parameter in self.parameters]
        try:
            self._fill(self.weights)
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, values)

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint: the averaged parameters by name."""
        return dict(zip(self.names, self.weights, strict=True))

    def load_state_dict(self, state: dict[str, Tensor] | None) -> None:
        """From a checkpoint of the same model.

        Raises:
            ValueError: the checkpoint has none.
        """
        if state is None:
            raise ValueError(
                f"train.ema_decay={self.decay:g}: the run was begun without an average of its weights; continue it "
                "with "
                "train.ema_decay=0, or start one with another name"
            )
        for name, weight in zip(self.names, self.weights, strict=True):
            weight.copy_(state[name])


@contextmanager
def temporarily_loaded(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """The model holds another state while the context lasts, and exactly its own afterwards."""
    own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    try:
        model.load_state_dict(state)
        yield
    finally:
        model.load_state_dict(own)


def average_state_dicts(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several states of one model, one of which is in memory at a time; summed in fp64.

    What is not a floating-point number is that of the last state.

    Raises:
        ValueError: there is no state.
    """
    sums: dict[str, Tensor] = {}
    last: Mapping[str, Tensor] = {}
    num = 0
    for num, last in enumerate(states, start=1):  # noqa: B007
        for name, tensor in last.items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor if name in sums else tensor.double()
    if not num:
        raise ValueError("a mean of no checkpoints was asked for")
    return {name: (sums[name] / num).to(tensor.dtype) if name in sums else tensor for name, tensor in last.items()}
