"""Any attention of this project as a layer for other models, called as `torch.nn.MultiheadAttention` is."""

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from nmt.attention.config import NO_ATTENTION, AttentionConfig
from nmt.attention.layer import AttentionLayer, KeyValueCache
from nmt.attention.linear import Linear
from nmt.attention.windows import CROSS, ENCODER_SELF, WINDOWS, QueryContext
from nmt.config import suggest


class Attention(AttentionLayer):
    """Any attention, called as `torch.nn.MultiheadAttention(batch_first=True)`, which with score="scaled" it equals.

    Args:
        embed_dim: width of queries and of the output.
        heads, score, normalizer, window, options: see `nmt.attention.AttentionConfig`; the window `sliding` is for
            self-attention.
        kdim, vdim: widths of keys and of values; None: that of queries.
        bias: whether the projections have a bias.

    Raises:
        TypeError: an option is unknown, or a width is no whole number.
        ValueError: an option has a value that is not allowed, or is excluded by another.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        heads: int = 1,
        score: str | list[str] = "scaled",
        normalizer: str = "softmax",
        window: str = "global",
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        **options: Any,
    ) -> None:
        known = [option.name for option in dataclasses.fields(AttentionConfig)]
        if unknown := [name for name in options if name not in known]:
            nearest = suggest(unknown[0].removeprefix("num_"), known)
            hint = f"did you mean {nearest}?" if nearest else f"there are {', '.join(known)}"
            raise TypeError(f"Attention: {unknown[0]}: unknown option; {hint}")
        config = AttentionConfig(score, heads, normalizer=normalizer, window=window, **options)
        is_cross = window not in WINDOWS or CROSS in WINDOWS[window].attention_types
        config.validate_at("Attention", attention_type := CROSS if is_cross else ENCODER_SELF)
        if score == NO_ATTENTION or config.coverage or config.per_layer:
            raise ValueError("Attention: score=none, coverage and per_layer are options of whole models")
        self.widths = embed_dim, embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        if any(type(width) is not int for width in self.widths):
            raise TypeError(f"Attention: embed_dim, kdim, vdim = {self.widths}: whole numbers are needed")
        super().__init__(config, *self.widths[:2], attention_type=attention_type, out_dim=embed_dim, bias=bias)
        if self.widths[1] != self.widths[2]:
            self.value = Linear(self.widths[2], embed_dim, bias=bias)

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to keys and sum their values, or those of the queries themselves.

        Masks are torch's, the opposite of those inside models: True = *not* attended; numbers are added to the scores.
        A query without any key (all are masked, or none of them is in its window) has weights of 0, and its output is
        the bias of the output projection. Windows count positions from 0; for local_m and local_p the source ends with
        the last key that `key_padding_mask` leaves.

        Args:
            query: (B, T, embed_dim).
            key, value: (B, S, kdim) and (B, S, vdim); None: the queries, and the keys.
            key_padding_mask: (B, S).
            need_weights: return the weights.
            attn_mask: (T, S), (B, T, S) or (B · heads, T, S).
            average_attn_weights: return the mean of the heads' weights instead of each head's.
            is_causal: query t attends to no key after number t, whatever the masks are.

        Returns:
            output (B, T, embed_dim); weights before dropout, (B, T, S) or of each head (B, heads, T, S), or None.

        Raises:
            TypeError: a mask is no tensor of booleans or floats.
            ValueError: a shape does not fit.
        """
        key = query if key is None else key
        value = key if value is None else value
        for name, states in (("query", query), ("key", key), ("value", value)):
            if not isinstance(states, Tensor):
                raise TypeError(f"{name}: a tensor is needed, not {type(states).__name__}")
            if states.dim() != 3:
                raise ValueError(f"{name} of shape {tuple(states.shape)}: (batch, positions, width) is needed")
        batch, num, keys = query.size(0), query.size(1), key.size(1)
        found = [tuple(states.shape) for states in (query, key, value)]
        needed = [(batch, size, width) for size, width in zip((num, keys, keys), self.widths, strict=True)]
        if found != needed or (self.attention_type != CROSS and num != keys):
            same = "" if self.attention_type == CROSS else ", and with window=sliding as many queries as keys"
            raise ValueError(f"query, key, value are {found}: {needed} is needed (batch, positions, width){same}")
        cache = self._prepare(key, value, 0)
        views = {(num, keys): (1, 1), (batch, num, keys): (batch, 1)}
        views[batch * self.heads, num, keys] = (batch, self.heads)
        future = torch.ones(num, keys, dtype=torch.bool, device=query.device).triu(1) if is_causal else None
        padding = _additive_mask("key_padding_mask", key_padding_mask, {(batch, keys): (batch, 1)}, query)
        others = (_additive_mask("attn_mask", mask, views, query) for mask in (attn_mask, future))
        masks = [mask for mask in (padding, *others) if mask is not None]
        if masks:
            output, weights = self._attend_masked(query, cache, padding, masks, need_weights)
        else:
            output, weights, _ = super().forward(query, cache, None, need_weights=need_weights)
        return output, weights.mean(1) if weights is not None and average_attn_weights else weights

    def _attend_masked(
        self, query: Tensor, cache: KeyValueCache, padding: Tensor | None, masks: list[Tensor], need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend with the sum of masks that broadcast to (B, H, T, S) -> output, weights (B, H, T, S)."""
        prefix = None  # of the keys, up to the last that is real
        if padding is not None:
            prefix = (padding[:, 0, 0] > float("-inf")).flip(-1).cumsum(-1).flip(-1) > 0
        window = self.window.attention_bias(QueryContext(query, prefix, 0), cache["keys.0"].size(2))
        bias = functools.reduce(torch.add, masks if window is None else [window, *masks])
        without_key = (bias == float("-inf")).all(-1, keepdim=True)  # finite scores, whose results become 0
        bias, queries = bias.masked_fill(without_key, 0.0), self._project_queries(QueryContext(query, None, 0))
        values, weights = self._attend_dense(queries, cache, bias, need_weights)
        output = self.output(values.masked_fill(without_key, 0.0).transpose(1, 2).flatten(2))
        return output, None if weights is None else weights.masked_fill(without_key, 0.0)


def _additive_mask(
    name: str, mask: Tensor | None, views: dict[tuple[int, ...], tuple[int, int]], like: Tensor
) -> Tensor | None:
    """Return a mask as numbers to add, of shape (B or 1, H or 1, T or 1, S); `views` has B and H for each shape."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"{name}: a tensor of booleans (True = not attended) or of floats is needed, not {kind}")
    if (shape := tuple(mask.shape)) not in views:
        raise ValueError(f"{name} of shape {shape}: {' or '.join(map(str, views))} is needed for these inputs")
    if mask.dtype == torch.bool:
        mask = torch.zeros(shape, dtype=like.dtype, device=like.device).masked_fill(mask, float("-inf"))
    return mask.to(like.dtype).reshape(*views[shape], -1, shape[-1])
