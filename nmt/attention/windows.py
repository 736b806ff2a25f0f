"""Windows: which keys a query may attend to, and the bias that is added to their scores.

A window has two forms: a dense bias, which is its definition, and an attention that computes the window only, so that
cost grows with the window and not with the sentence. `AttentionLayer` uses the second when it is cheaper.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.attention.linear import Linear

CROSS, ENCODER_SELF, DECODER_SELF = "cross", "encoder_self", "decoder_self"
ATTENTION_TYPES = (CROSS, ENCODER_SELF, DECODER_SELF)
"""Target to source, source to source, target to earlier target."""

ScoreFn = Callable[[Tensor, Tensor], Tensor]  # queries (B, H, *, T, D), keys (B, H, *, S, D) -> (B, H, *, T, S)
NormalizeFn = Callable[[Tensor], Tensor]  # scores with -inf where hidden -> weights, dropout applied


class QueryContext(NamedTuple):
    """The queries as the windows need them, and the keys they may attend to.

    query: (B, T, query_dim), not projected.
    mask: (B, S), True for real keys, a prefix of each row; None: all.
    start: position of the first query, one for all (a number or a tensor ()) or (B,); or that of every query, (B, T).
    """

    query: Tensor
    mask: Tensor | None
    start: Tensor | int

    def positions(self) -> Tensor:
        """Return absolute positions of the queries, (B or 1, T)."""
        if isinstance(self.start, Tensor) and self.start.dim() == 2:
            return self.start
        steps = torch.arange(self.query.size(1), device=self.query.device)
        if isinstance(self.start, Tensor) and self.start.dim() == 1:
            return steps + self.start.unsqueeze(-1)
        return (steps + self.start).unsqueeze(0)

    def select(self, steps: slice) -> "QueryContext":
        """Return the context of some of the queries."""
        return QueryContext(self.query[:, steps], self.mask, self.positions()[:, steps])

    def fold_beams(self, num_sentences: int) -> "QueryContext":
        """Turn beams (B · K, 1, query_dim) of one position into K queries of each of the B sentences.

        The keys are stored once, and compared with all beams in one product.
        """
        query, mask, start = self
        positions = torch.full((query.size(0),), start, device=query.device) if isinstance(start, int) else start
        positions = positions.expand(query.size(0))
        return QueryContext(query.view(num_sentences, -1, query.size(-1)), mask, positions.view(num_sentences, -1))

    def key_lengths(self, num_keys: int) -> Tensor:
        """Return the number of real keys per row, (B,)."""
        if self.mask is None:
            return torch.full((self.query.size(0),), num_keys, device=self.query.device)
        return self.mask.sum(-1)


class ProjectedQKV(NamedTuple):
    """queries (B, H, T, D), keys (B, H, S, any) as prepared by the score, values (B, H, S, D)."""

    queries: Tensor
    keys: Tensor
    values: Tensor


class Window(nn.Module):
    """The whole sentence.

    Args:
        heads: number of heads of the attention.
        query_dim: width of an unprojected query.
        width: D of the local windows: positions on each side of the center.
        attention_type: one of `ATTENTION_TYPES`; in decoder self-attention keys after a query's position are masked.
    """

    attention_types: tuple[str, ...] = ATTENTION_TYPES
    counts_steps = False  # whether a decoder must keep the number of earlier queries in its state

    def __init__(self, heads: int, query_dim: int, width: int, attention_type: str) -> None:
        super().__init__()
        self.heads, self.width, self.attention_type = heads, width, attention_type

    def is_cheaper(self, num_queries: int, num_keys: int) -> bool:
        """Return whether computing the window only is less work than the dense form."""
        return False

    def attention_bias(self, context: QueryContext, num_keys: int) -> Tensor | None:
        """Return the bias added to the scores: 0 or less where a key may be attended to, -inf elsewhere.

        It broadcasts to (B, H, T, S), S = num_keys; None for no bias.
        """
        query, mask, _ = context
        bias = None if mask is None else _additive_mask(mask[:, None, None], query)
        if self.attention_type != DECODER_SELF or query.size(1) == 1:
            return bias
        queries, keys = context.positions()[:, None, :, None], torch.arange(num_keys, device=query.device)
        future = _additive_mask(keys <= queries, query)  # (B or 1, 1, T, S)
        return future if bias is None else bias + future

    def sdpa_mask(self, context: QueryContext, num_keys: int) -> tuple[Tensor | None, bool] | None:
        """Return the bias as torch's attention likes it: where keys may be attended to, (B, 1, 1, S) or None for
        everywhere, and whether the attention is causal; None where this cannot say it."""
        query, mask, start = context
        if type(self) is not Window:
            return None
        if self.attention_type != DECODER_SELF or query.size(1) == 1:
            return (None if mask is None else mask[:, None, None]), False
        is_whole = mask is None and isinstance(start, int) and start == 0 and query.size(1) == num_keys
        return (None, True) if is_whole else None

    def banded_attention(
        self,
        context: QueryContext,
        projected: ProjectedQKV,
        heads: Tensor | None,
        score: ScoreFn,
        normalize: NormalizeFn,
    ) -> Tensor:
        """Compute the contexts (B, H, T, D) from the keys inside the window only.

        Args:
            context: the queries and their mask.
            projected: of some heads.
            heads: the indices of these heads; None: all.
            score: the compatibility function. normalize: the normalizer, followed by dropout.
        """
        raise NotImplementedError


class Local(Window):
    """2D + 1 keys around a center p_t: Luong et al. 2015, section 3.2."""

    attention_types: tuple[str, ...] = (CROSS,)

    def is_cheaper(self, num_queries: int, num_keys: int) -> bool:
        return num_keys > 2 * (2 * self.width + 1)

    def window_centers(self, context: QueryContext, num_keys: int) -> Tensor:
        """Return p_t as a real number of source positions, (B, H or 1, T), between 0 and the last real key."""
        raise NotImplementedError

    def log_gaussian(self, distance: Tensor) -> Tensor:
        """Return the bias of a key at this distance from p_t."""
        return torch.zeros_like(distance)

    def attention_bias(self, context: QueryContext, num_keys: int) -> Tensor:
        centers = self.window_centers(context, num_keys).unsqueeze(-1)  # (B, H or 1, T, 1)
        key_positions = torch.arange(num_keys, device=centers.device)
        is_real = key_positions < context.key_lengths(num_keys).view(-1, 1, 1, 1)
        inside = ((key_positions - centers.round()).abs() <= self.width) & is_real
        return self.log_gaussian(key_positions - centers).masked_fill(~inside, float("-inf"))

    def banded_attention(
        self,
        context: QueryContext,
        projected: ProjectedQKV,
        heads: Tensor | None,
        score: ScoreFn,
        normalize: NormalizeFn,
    ) -> Tensor:
        queries, keys, values = projected
        centers = self.window_centers(context, keys.size(2))  # (B, H or 1, T)
        centers = centers if heads is None or centers.size(1) == 1 else centers.index_select(1, heads)
        offsets = torch.arange(-self.width, self.width + 1, device=keys.device)
        key_positions = centers.round().long().unsqueeze(-1) + offsets  # (B, H or 1, T, W)
        inside = (key_positions >= 0) & (key_positions < context.key_lengths(keys.size(2)).view(-1, 1, 1, 1))
        bias = self.log_gaussian(key_positions - centers.unsqueeze(-1)).masked_fill(~inside, float("-inf"))
        key_positions = key_positions.clamp(0, keys.size(2) - 1).expand(-1, keys.size(1), -1, -1)
        scores = score(queries.unsqueeze(-2), _gather(keys, key_positions)).squeeze(-2)  # (B, H, T, W)
        weights = normalize(scores + bias.to(scores.dtype))
        return (weights.to(values.dtype).unsqueeze(-2) @ _gather(values, key_positions)).squeeze(-2)


class LocalM(Local):
    """p_t = t: source and target are aligned monotonically (Luong et al. 2015, "local-m")."""

    counts_steps = True

    def window_centers(self, context: QueryContext, num_keys: int) -> Tensor:
        last = context.key_lengths(num_keys).unsqueeze(-1) - 1
        return torch.minimum(context.positions(), last).unsqueeze(1).to(_position_dtype(context.query))


class LocalP(Local):
    """p_t = S σ(vᵀ tanh(W h_t)), favored by a Gaussian of σ = D/2: Luong et al. 2015, equations 9 and 10 ("local-p").

    The Gaussian is added to the score as a logarithm, before the normalizer, so that weights still sum to 1; the paper
    multiplies them with it afterwards. Each head has its own v.
    """

    def __init__(self, heads: int, query_dim: int, width: int, attention_type: str) -> None:
        super().__init__(heads, query_dim, width, attention_type)
        self.hidden = Linear(query_dim, query_dim, bias=False)
        self.place = Linear(query_dim, heads, bias=False)

    def window_centers(self, context: QueryContext, num_keys: int) -> Tensor:
        predicted = self.place(torch.tanh(self.hidden(context.query)))  # (B, T, H)
        relative = torch.sigmoid(predicted.to(_position_dtype(context.query)))
        lengths = context.key_lengths(num_keys).view(-1, 1, 1).to(relative.dtype)
        return torch.minimum(lengths * relative, lengths - 1).transpose(1, 2)

    def log_gaussian(self, distance: Tensor) -> Tensor:
        return -2 * (distance / self.width).square()  # σ = D/2, so 2σ² = D²/2


class Sliding(Window):
    """Keys at most `width` positions away (Beltagy et al. 2020, section 3.1); only earlier ones in the decoder.

    Queries are split into blocks of `width`, each compared with its own and the neighboring blocks of keys.
    """

    attention_types: tuple[str, ...] = (ENCODER_SELF, DECODER_SELF)

    def is_cheaper(self, num_queries: int, num_keys: int) -> bool:
        return num_keys > 4 * self.width if num_queries > 1 else num_keys > self.width + 1

    def attention_bias(self, context: QueryContext, num_keys: int) -> Tensor:
        query, mask, _ = context
        distance = context.positions()[:, None, :, None] - torch.arange(num_keys, device=query.device)
        inside = self._is_near(distance)  # (B or 1, 1, T, S)
        # A padded query attends to itself: a row needs one key, and no real query attends to this one.
        return _additive_mask(inside if mask is None else inside & (mask[:, None, None] | (distance == 0)), query)

    def _is_near(self, distance: Tensor) -> Tensor:
        """Return whether a key that lies `distance` before a query is inside the window."""
        return (distance <= self.width) & (distance >= (0 if self.attention_type == DECODER_SELF else -self.width))

    def banded_attention(
        self,
        context: QueryContext,
        projected: ProjectedQKV,
        heads: Tensor | None,
        score: ScoreFn,
        normalize: NormalizeFn,
    ) -> Tensor:
        (queries, keys, values), mask = projected, context.mask
        num = queries.size(2)
        if num == 1:  # a decoding step: the last keys
            recent = slice(max(keys.size(2) - self.width - 1, 0), None)
            return normalize(score(queries, keys[:, :, recent])) @ values[:, :, recent]
        assert num == keys.size(2), "blocks need queries and keys of one sequence"
        size = max(self.width, 1)
        after = 0 if self.attention_type == DECODER_SELF else size
        num_blocks = -(-num // size)
        padding = num_blocks * size - num
        queries = nn.functional.pad(queries, (0, 0, 0, padding)).unflatten(2, (num_blocks, size))  # (B, H, N, C, D)
        # For each block its keys, from one block before to, in the encoder, one after: (B, H, N, W, D)
        span = 2 * size + after
        padded = (nn.functional.pad(x, (0, 0, size, padding + after)) for x in (keys, values))
        keys, values = (x.unfold(2, span, size).transpose(-2, -1) for x in padded)
        query_positions = torch.arange(num_blocks * size, device=queries.device).view(num_blocks, size, 1)
        key_positions = torch.arange(num_blocks, device=queries.device).view(num_blocks, 1, 1) * size - size
        key_positions = key_positions + torch.arange(span, device=queries.device)  # (N, 1, W)
        inside = self._is_near(query_positions - key_positions) & (key_positions >= 0) & (key_positions < num)
        if mask is not None:
            real_keys = nn.functional.pad(mask, (size, padding + after)).unfold(1, span, size)  # (B, N, W)
            inside = inside & real_keys[:, :, None]
        inside = inside | (
            query_positions == key_positions
        )  # padded queries attend to themselves, as in the dense form
        bias = _additive_mask(inside, queries)
        bias = bias[:, None] if mask is not None else bias  # (B or none, 1, N, C, W)
        scores = score(queries, keys)
        return (normalize(scores + bias.to(scores.dtype)).to(values.dtype) @ values).flatten(2, 3)[:, :, :num]


WINDOWS: dict[str, type[Window]] = {"global": Window, "local_m": LocalM, "local_p": LocalP, "sliding": Sliding}


def _additive_mask(allowed: Tensor, like: Tensor) -> Tensor:
    """Return 0 where True, -inf where False, in the dtype of `like`."""
    return torch.where(allowed, 0.0, float("-inf")).to(like.dtype)


def _position_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of positions, which need more digits than half precision has."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _gather(x: Tensor, key_positions: Tensor) -> Tensor:
    """Select x (B, H, S, D) at positions (B, H, T, W) -> (B, H, T, W, D)."""
    rows = torch.arange(x.size(0) * x.size(1), device=x.device).view(x.size(0), x.size(1), 1, 1) * x.size(2)
    return nn.functional.embedding(rows + key_positions, x.reshape(-1, x.size(-1)))
