"""A copy of a model whose computation can be traced as a graph.

Some modules are written for speed: they choose an algorithm by sizes and values, or call NumPy. A graph has one
algorithm for all sizes, so each of them is replaced by its definition in plain operations.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nmt.attention import NORMALIZERS, AttentionLayer
from nmt.attention.normalizers import Normalizer
from nmt.attention.scores import Additive
from nmt.models import Seq2Seq


def traceable(model: Seq2Seq) -> Seq2Seq:
    """Return a copy of the model, in evaluation mode, that computes the same and chooses nothing by size or value."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LSTM | nn.GRU):
                setattr(module, name, OnnxRNN(child))
        if isinstance(module, AttentionLayer):
            name, top_k = module.normalizer, module.top_k
            normalize = TRACEABLE_NORMALIZERS.get(name) or NORMALIZERS[name]  # a plugin's
            _replace(module, "_normalize", lambda scores, normalize=normalize, top_k=top_k: normalize(scores, top_k))
            _replace(module, "_can_use_sdpa", lambda *_: False)
            _replace(module.window, "is_cheaper", lambda *_: False)
        elif isinstance(module, Additive):
            _replace(module, "forward", module.reference)
    return model


def _replace(module: nn.Module, name: str, function: Callable[..., object]) -> None:
    assert hasattr(module, name), f"{type(module).__name__} has no {name}"
    object.__setattr__(module, name, function)


def _top_k(scores: Tensor, k: int) -> Tensor:
    """Compute softmax over the scores that are at least the k-th largest; rows with fewer keys keep them all."""
    padded = nn.functional.pad(torch.sort(scores, dim=-1, descending=True).values, (0, k), value=-torch.inf)
    return torch.softmax(scores.masked_fill(scores < padded[..., k - 1 : k], -torch.inf), dim=-1)


TRACEABLE_NORMALIZERS: dict[str, Normalizer] = NORMALIZERS | {
    "softmax": lambda scores, _: torch.softmax(scores, dim=-1),
    "top_k": _top_k,
}
"""Normalizers that choose no algorithm by size."""


class OnnxRNN(nn.Module):
    """One recurrent layer in one direction as ONNX's operator LSTM or GRU, which takes any length.

    torch would unroll the layer, with as many steps as the example is long.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        assert (layer.num_layers, layer.batch_first, layer.bidirectional) == (1, True, False)
        self.is_lstm, self.hidden = isinstance(layer, nn.LSTM), layer.hidden_size
        # torch has the gates in the order i f g o and r z n, ONNX needs i o f g and z r n
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
        initial = state if isinstance(state, tuple) else (state,)
        attributes: dict[str, Any] = {"hidden_size": self.hidden} | ({} if self.is_lstm else {"linear_before_reset": 1})
        outputs, *final = torch.onnx.ops.symbolic_multi_out(
            "LSTM" if self.is_lstm else "GRU",
            [x.transpose(0, 1), self.inputs, self.recurrent, self.biases, None, *initial],
            attributes,
            dtypes=[x.dtype] * (1 + len(initial)),
            shapes=[(x.size(1), *shape), *[shape] * len(initial)],
        )
        return outputs.squeeze(1).transpose(0, 1), tuple(final) if self.is_lstm else final[0]
