"""Attentions as plain matrices, for engines that know softmax(q·k) and nothing else.

An inner-product score is a matrix between query and key, and a matrix can be multiplied into the key projection once
and for all. So the dot, scaled (whatever its divisor) and general scores, and attention without projections, leave as
ordinary multi-head attention; and so does no attention at all: with queries and keys of zero every source position has
the same weight, and the mean of the encoder's outputs is what such a decoder sees.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.attention import Attention
from nmt.attention.scores import Dot, General, Scaled
from nmt.models.transformer_layers import DecoderLayer


class Matrix(NamedTuple):
    """x -> weight x + bias: (out, in) and (out,), float32."""

    weight: Tensor
    bias: Tensor


class Matrices(NamedTuple):
    """Multi-head attention whose scores are q·k, not divided by anything; heads lie one after the other in the rows."""

    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix

    def divided(self, width: int) -> "Matrices":
        """The same for an engine that divides scores by √width, the width of a head."""
        return self._replace(query=Matrix(self.query.weight * width**0.5, self.query.bias * width**0.5))


@torch.no_grad()
def self_attention(attention: Attention, width: int) -> Matrices:
    """An attention over states this wide, its scores being dot, scaled or general.

    Args:
        attention: built with `out_dim`, so that values and contexts are projected; not turned by rotary positions, or
            with dot and scaled scores only.
        width: of the states; a head of queries and keys must not be wider than width / heads, and is filled up with
            zeros to that.
    """
    heads = attention.heads
    query, key = (_augmented(part, width).unflatten(0, (heads, -1)) for part in (attention.query, attention.key))
    folded: list[Tensor] = [torch.empty(0)] * heads
    for group, score in zip(attention.groups, attention.scores, strict=True):
        for head, matrix in zip(group, _fold(score, key[group]), strict=True):
            folded[head] = matrix
    short = width // heads - query.size(1)
    assert short >= 0, "a head is wider than the engine's"
    wide = [nn.functional.pad(part, (0, 0, 0, short)).flatten(0, 1) for part in (query, torch.stack(folded))]
    rest = [_augmented(part, width) for part in (attention.value, attention.output)]
    return Matrices(*map(_split, [*wide, *rest]))


def cross_attention(layer: DecoderLayer, width: int) -> Matrices:
    """A decoder layer's attention to the source, or what is equal to having none."""
    if layer.cross is not None:
        return self_attention(layer.cross, width)
    nothing = Matrix(torch.zeros(width, width), torch.zeros(width))
    return Matrices(nothing, nothing, nothing._replace(weight=torch.eye(width)), linear(layer.summary))


@torch.no_grad()
def linear(module: nn.Linear) -> Matrix:
    """A linear layer with bias."""
    return Matrix(module.weight.float().clone(), module.bias.float().clone())


def _augmented(module: nn.Module, width: int) -> Tensor:
    """[weight | bias] in double precision; an identity for a projection that was left out."""
    if isinstance(module, nn.Identity):
        return torch.eye(width, width + 1, dtype=torch.float64)
    assert isinstance(module, nn.Linear)
    return torch.cat([module.weight, module.bias.unsqueeze(1)], dim=1).double()


def _split(augmented: Tensor) -> Matrix:
    return Matrix(augmented[:, :-1].float().contiguous(), augmented[:, -1].float().contiguous())


def _fold(score: nn.Module, key: Tensor) -> Tensor:
    """Key projections (H, d, D + 1) -> those with which q·k is the score."""
    if isinstance(score, General):
        return torch.einsum("hqk,hkd->hqd", score.matrix().double(), key)
    if isinstance(score, Scaled):
        return key / (score.divisor if score.learned is None else score.learned.double().exp().view(-1, 1, 1))
    assert isinstance(score, Dot), f"{type(score).__name__} is no inner product of projections"
    return key
