"""A model whose computation can be traced as a graph.

Some of the library is written for speed: it chooses an algorithm by sizes and values, or calls NumPy. A graph has one
algorithm for all sizes. Here each such place gets its definition in plain operations.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nmt.attention import NORMALIZERS, Attention
from nmt.attention.normalizers import Normalizer
from nmt.attention.scores import Additive
from nmt.models import Seq2Seq

NONE = float("-inf")


def traceable(model: Seq2Seq) -> Seq2Seq:
    """Return a copy of the model, in evaluation mode, that computes the same and chooses nothing by size or value."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LSTM | nn.GRU):
                setattr(module, name, OnnxRNN(child))
        if isinstance(module, Attention):
            _set(module, "_normalize", lambda scores, of=module: PLAIN[of.normalizer](scores, of.top_k))
            _set(module, "_can_use_sdpa", lambda *_: False)
            _set(module.window, "is_cheaper", lambda *_: False)
        elif isinstance(module, Additive):
            _set(module, "forward", module.reference)
    return model


def _set(module: nn.Module, name: str, function: Callable[..., object]) -> None:
    assert hasattr(module, name), f"{type(module).__name__} has no {name}"
    object.__setattr__(module, name, function)


def _softmax(scores: Tensor, top: int) -> Tensor:
    return torch.softmax(scores, dim=-1)


def _top_k(scores: Tensor, top: int) -> Tensor:
    """softmax over what is at least the score in place `top`; rows with fewer keys keep them all."""
    padded = nn.functional.pad(torch.sort(scores, dim=-1, descending=True).values, (0, top), value=NONE)
    last = padded[..., top - 1 : top]
    return torch.softmax(scores.masked_fill(scores < last, NONE), dim=-1)


PLAIN: dict[str, Normalizer] = NORMALIZERS | {"softmax": _softmax, "top_k": _top_k}
"""The normalisers without a choice by size."""


class OnnxRNN(nn.Module):
    """One recurrent layer in one direction as ONNX's operator LSTM or GRU, which takes any length.

    torch would trace the layer itself as one step after another, as many as the example is long.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        assert layer.num_layers == 1
        assert layer.batch_first
        assert not layer.bidirectional
        self.is_lstm, self.hidden = isinstance(layer, nn.LSTM), layer.hidden_size
        # torch has the gates in the order i f g o and r z n, ONNX wants i o f g and z r n
        order = [0, 3, 1, 2] if self.is_lstm else [1, 0, 2]
        parts = [part.detach().unflatten(0, (len(order), -1))[order].flatten(0, 1) for part in layer.all_weights[0]]
        self.inputs = nn.Parameter(parts[0].unsqueeze(0))  # (1, gates * D, E)
        self.recurrent = nn.Parameter(parts[1].unsqueeze(0))  # (1, gates * D, D)
        self.biases = nn.Parameter(torch.cat(parts[2:]).unsqueeze(0))  # (1, 2 * gates * D)

    def forward(
        self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """x (B, S, E), state (1, B, D) each -> outputs (B, S, D), the last state."""
        shape = (1, x.size(0), self.hidden)
        if state is None:
            zeros = x.new_zeros(shape)
            state = (zeros, zeros) if self.is_lstm else zeros
        before = state if isinstance(state, tuple) else (state,)
        outputs, *after = torch.onnx.ops.symbolic_multi_out(
            "LSTM" if self.is_lstm else "GRU",
            [x.transpose(0, 1), self.inputs, self.recurrent, self.biases, None, *before],
            {"hidden_size": self.hidden} if self.is_lstm else {"hidden_size": self.hidden, "linear_before_reset": 1},
            dtypes=[x.dtype] * (1 + len(before)),
            shapes=[(x.size(1), *shape), *[shape] * len(before)],
        )
        return outputs.squeeze(1).transpose(0, 1), tuple(after) if self.is_lstm else after[0]
