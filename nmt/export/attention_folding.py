"""Attention as plain linear layers, for engines that compute softmax(q·k/√d) only.

An inner-product score is a matrix between query and key, which can be multiplied into the key projection in advance. So
the dot, scaled (with any divisor) and general scores, and attention without projections, become ordinary multi-head
attention. So does the absence of attention: queries and keys of zero give every source position the same weight, and
such a decoder reads the mean of the encoder's outputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.attention import AttentionLayer
from nmt.attention.scores import Dot, General, ScaledDot
from nmt.models.transformer_layers import DecoderLayer

Linear = dict[str, Tensor]
"""The weight (out, in) and bias (out,) of a linear layer, as in `nn.Linear.state_dict`."""


class Projections(NamedTuple):
    """Multi-head attention whose scores are q·k/√(width of a head); heads are consecutive rows."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear


@torch.no_grad()
def self_attention(attention: AttentionLayer, width: int) -> Projections:
    """Convert an attention over states of this width whose scores are dot, scaled or general.

    Args:
        attention: built with `out_dim`, so that values and contexts are projected; with rotary positions, its scores
            must be dot or scaled.
        width: of the states; a head of queries and keys must not be wider than width / heads, and is padded to that
            with zeros.
    """
    heads, head_width = attention.heads, width // attention.heads
    query, key = (_augmented(part, width).unflatten(0, (heads, -1)) for part in (attention.query, attention.key))
    for group, score in zip(attention.groups, attention.scores, strict=True):
        assert isinstance(score, Dot | ScaledDot | General), f"{type(score).__name__} is not an inner product"
        key[group] = score.precompute(key[group].transpose(1, 2).unsqueeze(0)).squeeze(0).transpose(1, 2)
    missing = head_width - query.size(1)
    assert missing >= 0, "a head is wider than the engine's"
    padded = [nn.functional.pad(part, (0, 0, 0, missing)).flatten(0, 1) for part in (query * head_width**0.5, key)]
    plain = [_augmented(part, width) for part in (attention.value, attention.output)]
    return Projections(*({"weight": part[:, :-1].float(), "bias": part[:, -1].float()} for part in (*padded, *plain)))


def cross_attention(layer: DecoderLayer, width: int) -> Projections:
    """Convert a decoder layer's attention to the source, or the equivalent of having none."""
    if layer.cross is not None:
        return self_attention(layer.cross, width)
    zeros = {"weight": torch.zeros(width, width), "bias": torch.zeros(width)}
    return Projections(zeros, zeros, zeros | {"weight": torch.eye(width)}, layer.summary.state_dict())


def _augmented(module: nn.Module, width: int) -> Tensor:
    """Return [weight | bias] in double precision; an identity for a missing projection."""
    if isinstance(module, nn.Identity):
        return torch.eye(width, width + 1, dtype=torch.float64)
    assert isinstance(module, nn.Linear)
    return torch.cat([module.weight, module.bias.unsqueeze(1)], dim=1).double()
