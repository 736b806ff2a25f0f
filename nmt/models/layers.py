"""Parts that several architectures share."""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout whose mask, on a CPU, comes from 8 random bits per element.

    Drawing the mask is the dear part of dropout on a CPU; 8 bits cost a third of torch's own. The rate is rounded to
    k/256 and the kept elements are scaled by the exact keep rate, so the expectation is unchanged.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.num_dropped = round(rate * 256)  # of 256 equally likely bytes

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)."""
        if not self.training or self.rate == 0.0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.rate)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.num_dropped
        return x * (kept.to(x.dtype) * (256 / (256 - self.num_dropped)))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def embedding(num: int, dim: int, pad: int) -> nn.Embedding:
    """An embedding table N(0, 1/dim) whose padding row is zero, suited to be the output matrix as well."""
    table = nn.Embedding(num, dim, padding_idx=pad)
    with torch.no_grad():
        table.weight.normal_(0, dim**-0.5)
        table.weight[pad].zero_()
    return table
