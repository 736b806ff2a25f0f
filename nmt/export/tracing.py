"""A model in the form in which its computation can be recorded as a graph.

Some of the library is written for speed on the machine at hand: it looks at sizes and values and chooses a way, or
calls NumPy. A graph has one way for all sizes. Here each such place gets its definition in plain operations.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nmt.attention import Attention
from nmt.attention.scores import Additive
from nmt.models import Seq2Seq

NONE = float("-inf")


def traceable(model: Seq2Seq) -> Seq2Seq:
    """A copy of the model, in evaluation mode, that gives the same numbers and chooses nothing by size or value."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LSTM | nn.GRU):
                setattr(module, name, Recurrent(child))
        if isinstance(module, Attention):
            _set(module, "_weigh", _weigher(module.normaliser, module.top))
            _set(module, "_fuses", lambda *_: False)
            _set(module.window, "saves", lambda *_: False)
        elif isinstance(module, Additive):
            _set(module, "forward", module.plain)
    return model


def _set(module: nn.Module, name: str, function: Callable[..., object]) -> None:
    assert hasattr(module, name), f"{type(module).__name__} has no {name}"
    object.__setattr__(module, name, function)


def _weigher(normaliser: str, top: int) -> Callable[[Tensor], Tensor]:
    return lambda scores: PLAIN[normaliser](scores, top)


def _softmax(scores: Tensor, top: int) -> Tensor:
    return torch.softmax(scores, dim=-1)


def _descending(scores: Tensor) -> Tensor:
    return torch.sort(scores, dim=-1, descending=True).values


def _counts(scores: Tensor) -> Tensor:
    return torch.arange(1, scores.size(-1) + 1, dtype=scores.dtype)


def _sparsemax(scores: Tensor, top: int) -> Tensor:
    """Martins & Astudillo 2016, algorithm 1: τ = (Σ of the k best - 1) / k for the largest k that keeps the k-th."""
    shifted = scores - scores.amax(-1, keepdim=True)
    ordered = _descending(shifted).clamp(min=-1.0)  # what lies 1 below the best has no weight
    threshold = ((ordered.cumsum(-1) - 1) / _counts(scores)).amax(-1, keepdim=True)
    return (shifted - threshold).clamp(min=0.0)


def _entmax15(scores: Tensor, top: int) -> Tensor:
    """Peters et al. 2019, algorithm 2."""
    shifted = (scores - scores.amax(-1, keepdim=True)) / 2
    ordered, counts = _descending(shifted).clamp(min=-1.0), _counts(scores)
    total, squares = ordered.cumsum(-1), (ordered * ordered).cumsum(-1)
    root = (total * total - counts * (squares - 1)).clamp(min=0.0).sqrt()
    threshold = torch.minimum((total - root) / counts, ordered).amax(-1, keepdim=True)
    slope = (shifted - threshold).clamp(min=0.0)
    return slope * slope


def _top_k(scores: Tensor, top: int) -> Tensor:
    """softmax over what is at least the score in place `top`; rows with fewer keys keep them all."""
    absent = torch.full((*scores.shape[:-1], top), NONE)
    last = torch.cat([_descending(scores), absent], dim=-1)[..., top - 1 : top]
    return torch.softmax(scores.masked_fill(scores < last, NONE), dim=-1)


PLAIN: dict[str, Callable[[Tensor, int], Tensor]] = {
    "softmax": _softmax,
    "sparsemax": _sparsemax,
    "entmax15": _entmax15,
    "top_k": _top_k,
}
"""Forward passes of `nmt.attention.NORMALISERS`."""


class Recurrent(nn.Module):
    """One recurrent layer in one direction as ONNX's operator LSTM or GRU, which takes any length.

    Recorded as it is, a layer would be unrolled to the length of the example.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        assert layer.num_layers == 1
        assert layer.batch_first
        assert not layer.bidirectional
        self.is_lstm, self.hidden = isinstance(layer, nn.LSTM), layer.hidden_size
        # torch has the gates in the order i f g o and r z n, ONNX wants i o f g and z r n
        order = (0, 3, 1, 2) if self.is_lstm else (1, 0, 2)
        parts = [
            torch.stack(part.detach().chunk(len(order)))[list(order)].flatten(0, 1) for part in layer.all_weights[0]
        ]
        self.inputs = nn.Parameter(parts[0].unsqueeze(0))  # (1, gates * D, E)
        self.recurrent = nn.Parameter(parts[1].unsqueeze(0))  # (1, gates * D, D)
        self.biases = nn.Parameter(torch.cat(parts[2:]).unsqueeze(0))  # (1, 2 * gates * D)

    def forward(
        self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """x (B, S, E), state (1, B, D) each -> outputs (B, S, D), the last state."""
        before: list[Tensor | None] = [None]
        if state is None:
            zeros = x.new_zeros(1, x.size(0), self.hidden)
            before += [zeros, zeros] if self.is_lstm else [zeros]
        else:
            before += list(state) if isinstance(state, tuple) else [state]
        steps, batch = x.size(1), x.size(0)
        last = (1, batch, self.hidden)
        shapes = [(steps, 1, batch, self.hidden), last, *([last] if self.is_lstm else [])]
        attributes: dict[str, Any] = {"hidden_size": self.hidden}
        if not self.is_lstm:
            attributes["linear_before_reset"] = 1
        outputs, *after = torch.onnx.ops.symbolic_multi_out(
            "LSTM" if self.is_lstm else "GRU",
            [x.transpose(0, 1), self.inputs, self.recurrent, self.biases, *before],
            attributes,
            dtypes=[x.dtype] * len(shapes),
            shapes=shapes,
        )
        return outputs.squeeze(1).transpose(0, 1), tuple(after) if self.is_lstm else after[0]
