"""Interventions: other weights in place of those of a layer and head of the attention to the source."""

import copy
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.alignment import Link
from nmt.attention import CROSS, AttentionLayer
from nmt.attention.windows import QueryContext
from nmt.models.seq2seq import Seq2Seq

Override = Callable[[Tensor, QueryContext], Tensor]
"""Weights (B, T, S) of one head and their queries -> the weights that act."""
TOLERANCE = 1e-3
"""By which the sum of a given row may differ from 1: rounded weights sum to a little more or less."""


class Intervention(NamedTuple):
    """Weights that act in place of those of a head.

    layer, head: counted from 1; 0: all.
    weights: "zero", a context of zeros (Michel et al. 2019, equation 1 with ξ = 0); "uniform", the same weight for each
        source token, tags and the end token included; or a matrix (T, S) with a column for each source token of the one
        sentence it is for, whose row t acts where target token t is predicted, in a search for every hypothesis. A row
        of NaN (or None) keeps the model's own weights, and so do positions beyond T. Coverage counts the weights that
        act, but a silenced head's own.
    """

    layer: int
    head: int
    weights: Any

    def apply(self, attentions: Sequence[AttentionLayer]) -> None:
        """Set it in the attentions of all layers, in place of what was there for the same heads; raise ValueError
        naming the layer, head or weights that are not allowed."""
        if not attentions:
            raise ValueError("the model has no attention to the source (model.attention.score=none) to intervene in")
        heads = attentions[0].heads
        for name, value, count in (("layer", self.layer, len(attentions)), ("head", self.head, heads)):
            if not isinstance(value, int | np.integer) or not 0 <= value <= count:
                numbers = f"{name}s 1 to {count}" if count > 1 else f"one {name}"
                raise ValueError(f"{name}={value}: attention to the source has {numbers}; 0 is all")
        override = _override(self.weights)
        selected = [self.head - 1] if self.head else range(heads)
        for attention in [attentions[self.layer - 1]] if self.layer else attentions:
            attention.overrides = {**(attention.overrides or {}), **dict.fromkeys(selected, override)}


def with_own_attention(model: Seq2Seq) -> Seq2Seq:
    """Return a copy of a model that has attentions to the source of its own; parameters and other parts are shared."""
    shared: dict[int, Any] = {id(x): x for x in chain(model.parameters(), model.buffers())}
    for module in model.modules():
        if not any(isinstance(x, AttentionLayer) and x.attention_type == CROSS for x in module.modules()):
            shared[id(module)] = module
    return copy.deepcopy(model, shared)


def rows_of_links(links: Sequence[Link], source_words: Sequence[int], target_words: Sequence[int]) -> Any:
    """Return a matrix (T, S) of word links: the row of a target subword has equal weights on the subwords of all source
    words that its word is linked to, and NaN where there are none.

    Args:
        links: (source word, target word).
        source_words, target_words: the word of each of the S and T subwords, -1 for none.

    Raises:
        ValueError: a link of a word that does not exist.
    """
    for link in links:
        for side, word, known in zip(("source", "target"), link, (source_words, target_words), strict=True):
            if word < 0 or word not in known:
                raise ValueError(f"alignment: link {link[0]}-{link[1]}: the {side} has {max(known) + 1} words")
    is_linked = np.zeros((len(target_words), len(source_words)))
    for source, target in links:
        is_linked[np.ix_(np.array(target_words) == target, np.array(source_words) == source)] = 1
    num = is_linked.sum(1, keepdims=True)
    return np.where(num > 0, is_linked / np.maximum(num, 1), np.nan)


def _override(weights: Any) -> Override | None:
    if isinstance(weights, str) and weights in ("zero", "uniform"):
        return _uniform if weights == "uniform" else None
    matrix = torch.from_numpy(_checked(weights))
    num_rows, num_columns = matrix.shape
    own = matrix.new_full((1, num_columns), torch.nan)

    def given(weights: Tensor, context: QueryContext) -> Tensor:
        lengths = context.key_lengths(weights.size(-1))
        if (wrong := lengths[lengths != num_columns]).numel():
            raise ValueError(
                f"weights have {num_columns} columns, and the source has {int(wrong[0])} subwords, </s> included"
            )
        rows = torch.nn.functional.pad(torch.cat([matrix, own]), (0, weights.size(-1) - num_columns)).to(weights)
        rows = rows[context.positions().clamp(max=num_rows)]  # (B or 1, T, S)
        return torch.where(rows[..., :1].isnan(), weights, rows)

    return given


def _uniform(weights: Tensor, context: QueryContext) -> Tensor:
    real = torch.ones_like(weights[:, 0]) if context.mask is None else context.mask.to(weights.dtype)  # (B, S)
    return (real / real.sum(-1, keepdim=True)).unsqueeze(1).expand_as(weights)


def _checked(weights: Any) -> NDArray[np.float64]:
    """Return given weights as a matrix; raise ValueError for what is none, or a row that is no distribution."""
    wanted = "must be zero, uniform, from_alignment, or a matrix (target subwords, source subwords) of numbers"
    if isinstance(weights, str) or not hasattr(weights, "__iter__"):
        raise ValueError(f"weights={str(weights)[:40]}: {wanted}")
    rows = [None if row is None else np.asarray(row) for row in weights]
    given = [row for row in rows if row is not None]
    if not given or any(row.ndim != 1 or row.dtype.kind not in "iuf" or not row.size for row in given):
        raise ValueError(f"weights: {wanted}")
    width = len(given[0])
    matrix = np.full((len(rows), width), np.nan)
    for number, row in enumerate(rows):
        if row is None or np.isnan(row).all():
            continue
        if len(row) != width:
            raise ValueError(f"weights[{number}]: has {len(row)} columns, and other rows have {width}")
        if not (row >= 0).all():
            raise ValueError(f"weights[{number}]: holds {row[~(row >= 0)][0]:g}; weights are 0 or more")
        if not abs(row.sum() - 1) <= TOLERANCE:
            raise ValueError(f"weights[{number}]: sums to {row.sum():.4g}; a row sums to 1")
        matrix[number] = row
    return matrix
