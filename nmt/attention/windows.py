"""Windows: which keys a query may see, and what is added to their scores.

A window says it twice: as a dense bias, which is its definition, and as an attention that touches the window only, so
that cost grows with the window and not with the sentence. `Attention` takes the second when it saves work.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

CROSS, ENCODER_SELF, DECODER_SELF = "cross", "encoder_self", "decoder_self"
ATTENTION_TYPES = (CROSS, ENCODER_SELF, DECODER_SELF)
"""Where an attention stands: target to source, source to source, target to earlier target."""

ScoreFn = Callable[[Tensor, Tensor], Tensor]  # queries (B, H, *, T, D), keys (B, H, *, S, D) -> (B, H, *, T, S)
NormalizeFn = Callable[[Tensor], Tensor]  # scores with -inf where hidden -> weights, dropout applied


class QueryContext(NamedTuple):
    """Who asks, and whom.

    query: (B, T, query_dim), not projected.
    mask: (B, S), True for real keys, a prefix of each row; None: all.
    start: position of the first query, one for all or (B,); or the position of every query, (B, T).
    """

    query: Tensor
    mask: Tensor | None
    start: Tensor | int

    def positions(self) -> Tensor:
        """Absolute positions of the queries, (B or 1, T)."""
        if isinstance(self.start, Tensor) and self.start.dim() == 2:
            return self.start
        steps = torch.arange(self.query.size(1), device=self.query.device)
        if isinstance(self.start, Tensor):
            return steps + self.start.unsqueeze(-1)
        return (steps + self.start).unsqueeze(0)

    def key_lengths(self, num_keys: int) -> Tensor:
        """Number of real keys per row, (B,)."""
        if self.mask is None:
            return torch.full((self.query.size(0),), num_keys, device=self.query.device)
        return self.mask.sum(-1)


class ProjectedQKV(NamedTuple):
    """queries (B, H, T, D), keys (B, H, S, any) as the score prepared them, values (B, H, S, D)."""

    queries: Tensor
    keys: Tensor
    values: Tensor


class Window(nn.Module):
    """The whole sentence.

    Args:
        heads: of the attention.
        query_dim: width of an unprojected query.
        width: D of the local windows: positions on each side of the centre.
        site: one of `ATTENTION_TYPES`; in decoder self-attention a query sees no position after its own.
    """

    attention_types: tuple[str, ...] = ATTENTION_TYPES
    counts_steps = False  # whether it must know how many queries came before

    def __init__(self, heads: int, query_dim: int, width: int, site: str) -> None:
        super().__init__()
        self.heads, self.width, self.site = heads, width, site

    def is_cheaper(self, num_queries: int, num_keys: int) -> bool:
        """Whether touching the window only is less work than the dense form."""
        return False

    def attention_bias(self, asked: QueryContext, num_keys: int) -> Tensor | None:
        """What is added to the scores: 0 or less where a key may be attended, -inf elsewhere.

        Returns:
            something that broadcasts to (B, H, T, S), S = num_keys, or None for nothing.
        """
        query, mask, _ = asked
        bias = None if mask is None else _bias(mask[:, None, None], query)
        if self.site != DECODER_SELF or query.size(1) == 1:
            return bias
        queries, keys = asked.positions()[:, None, :, None], torch.arange(num_keys, device=query.device)
        future = _bias(keys <= queries, query)  # (B or 1, 1, T, S)
        return future if bias is None else bias + future

    def banded_attention(
        self, asked: QueryContext, projected: ProjectedQKV, heads: list[int], compare: ScoreFn, weigh: NormalizeFn
    ) -> Tensor:
        """Attention that touches the window only.

        Args:
            asked: see `Asked`.
            projected: of some heads.
            heads: which of the window's heads these are.
            compare: the score. weigh: the normaliser and dropout.

        Returns:
            context (B, H, T, D).
        """
        raise NotImplementedError


class Local(Window):
    """2D + 1 keys around a centre p_t: Luong et al. 2015, section 3.2. `centres` says where that is."""

    attention_types: tuple[str, ...] = (CROSS,)

    def is_cheaper(self, num_queries: int, num_keys: int) -> bool:
        return num_keys > 2 * (2 * self.width + 1)

    def window_centers(self, asked: QueryContext, num_keys: int) -> Tensor:
        """p_t as a real number of source positions, (B, H or 1, T), between 0 and the last real key."""
        raise NotImplementedError

    def log_gaussian(self, distance: Tensor) -> Tensor:
        """What is added to the score of a key at this distance from p_t."""
        return torch.zeros_like(distance)

    def attention_bias(self, asked: QueryContext, num_keys: int) -> Tensor:
        centres = self.window_centers(asked, num_keys).unsqueeze(-1)  # (B, H or 1, T, 1)
        places = torch.arange(num_keys, device=centres.device)
        real = places < asked.key_lengths(num_keys).view(-1, 1, 1, 1)
        inside = ((places - centres.round()).abs() <= self.width) & real
        return self.log_gaussian(places - centres).masked_fill(~inside, float("-inf"))

    def banded_attention(
        self, asked: QueryContext, projected: ProjectedQKV, heads: list[int], compare: ScoreFn, weigh: NormalizeFn
    ) -> Tensor:
        queries, keys, values = projected
        centres = self.window_centers(asked, keys.size(2))  # (B, H or 1, T)
        centres = centres[:, heads] if centres.size(1) > 1 else centres
        offsets = torch.arange(-self.width, self.width + 1, device=keys.device)
        places = centres.round().long().unsqueeze(-1) + offsets  # (B, H or 1, T, W)
        inside = (places >= 0) & (places < asked.key_lengths(keys.size(2)).view(-1, 1, 1, 1))
        bias = self.log_gaussian(places - centres.unsqueeze(-1)).masked_fill(~inside, float("-inf"))
        places = places.clamp(0, keys.size(2) - 1).expand(-1, keys.size(1), -1, -1)
        scores = compare(queries.unsqueeze(-2), _gather(keys, places)).squeeze(-2)  # (B, H, T, W)
        weights = weigh(scores + bias.to(scores.dtype))
        return (weights.to(values.dtype).unsqueeze(-2) @ _gather(values, places)).squeeze(-2)


class LocalM(Local):
    """p_t = t: source and target run in step (Luong et al. 2015, "local-m")."""

    counts_steps = True

    def window_centers(self, asked: QueryContext, num_keys: int) -> Tensor:
        places = torch.minimum(asked.positions(), asked.key_lengths(num_keys).unsqueeze(-1) - 1)  # (B, T)
        return places.unsqueeze(1).to(_real(asked.query))


class LocalP(Local):
    """p_t = S σ(vᵀ tanh(W h_t)), favoured by a Gaussian of σ = D/2: Luong et al. 2015, equations 9 and 10 ("local-p").

    The Gaussian is added to the score as a logarithm, before the normaliser, so that weights still sum to 1; the paper
    multiplies them with it afterwards. Each head has its own v.
    """

    def __init__(self, heads: int, query_dim: int, width: int, site: str) -> None:
        super().__init__(heads, query_dim, width, site)
        self.hidden = nn.Linear(query_dim, query_dim, bias=False)
        self.place = nn.Linear(query_dim, heads, bias=False)

    def window_centers(self, asked: QueryContext, num_keys: int) -> Tensor:
        share = torch.sigmoid(self.place(torch.tanh(self.hidden(asked.query))).to(_real(asked.query)))  # (B, T, H)
        lengths = asked.key_lengths(num_keys).view(-1, 1, 1).to(share.dtype)
        return torch.minimum(lengths * share, lengths - 1).transpose(1, 2)

    def log_gaussian(self, distance: Tensor) -> Tensor:
        return -2 * (distance / self.width).square()  # σ = D/2, so 2σ² = D²/2


class Sliding(Window):
    """Keys at most `width` positions away (Beltagy et al. 2020, section 3.1); only earlier ones in the decoder.

    Queries go in blocks of `width`, each against its own and the neighbouring blocks of keys.
    """

    attention_types: tuple[str, ...] = (ENCODER_SELF, DECODER_SELF)

    def is_cheaper(self, num_queries: int, num_keys: int) -> bool:
        return num_keys > 4 * self.width if num_queries > 1 else num_keys > self.width + 1

    def attention_bias(self, asked: QueryContext, num_keys: int) -> Tensor:
        query, mask, _ = asked
        distance = asked.positions()[:, None, :, None] - torch.arange(num_keys, device=query.device)
        inside = self._near(distance)  # (B or 1, 1, T, S)
        # A padded query sees itself: a row needs one key, and no real query sees this one.
        return _bias(inside if mask is None else inside & (mask[:, None, None] | (distance == 0)), query)

    def _near(self, distance: Tensor) -> Tensor:
        """Whether a key that lies `distance` before a query is seen."""
        return (distance <= self.width) & (distance >= (0 if self.site == DECODER_SELF else -self.width))

    def banded_attention(
        self, asked: QueryContext, projected: ProjectedQKV, heads: list[int], compare: ScoreFn, weigh: NormalizeFn
    ) -> Tensor:
        (queries, keys, values), mask = projected, asked.mask
        num = queries.size(2)
        if num == 1:  # a decoding step: the last keys
            recent = slice(max(keys.size(2) - self.width - 1, 0), None)
            return weigh(compare(queries, keys[:, :, recent])) @ values[:, :, recent]
        assert num == keys.size(2), "blocks need queries and keys of one sequence"
        size = max(self.width, 1)
        after = 0 if self.site == DECODER_SELF else size
        blocks = -(-num // size)
        short = blocks * size - num
        queries = nn.functional.pad(queries, (0, 0, 0, short)).unflatten(2, (blocks, size))  # (B, H, N, C, D)
        # N blocks of neighbours: the keys from one block before to, in the encoder, one after: (B, H, N, W, D)
        around = (0, 0, size, short + after)
        keys, values = (
            nn.functional.pad(x, around).unfold(2, 2 * size + after, size).transpose(-2, -1) for x in (keys, values)
        )
        reach = torch.arange(blocks * size, device=queries.device).view(blocks, size, 1)
        places = torch.arange(blocks, device=queries.device).view(blocks, 1, 1) * size - size
        places = places + torch.arange(2 * size + after, device=queries.device)  # (N, 1, W)
        inside = self._near(reach - places) & (places >= 0) & (places < num)
        if mask is not None:
            real = nn.functional.pad(mask, (size, short + after)).unfold(1, 2 * size + after, size)  # (B, N, W)
            inside = inside & real[:, :, None]
        inside = inside | (reach == places)  # padded queries see themselves, as in the dense form
        bias = _bias(inside, queries)
        bias = bias[:, None] if mask is not None else bias  # (B or none, 1, N, C, W)
        scores = compare(queries, keys)
        return (weigh(scores + bias.to(scores.dtype)).to(values.dtype) @ values).flatten(2, 3)[:, :, :num]


WINDOWS: dict[str, type[Window]] = {
    "global": Window,
    "local_m": LocalM,
    "local_p": LocalP,
    "sliding": Sliding,
}


def _bias(allowed: Tensor, like: Tensor) -> Tensor:
    """0 where True, -inf where False, in the type of `like`."""
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill_(~allowed, float("-inf"))


def _real(x: Tensor) -> torch.dtype:
    """The type in which positions are computed: they need more digits than half precision has."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _gather(x: Tensor, places: Tensor) -> Tensor:
    """x (B, H, S, D) at places (B, H, T, W) -> (B, H, T, W, D)."""
    rows = torch.arange(x.size(0) * x.size(1), device=x.device).view(x.size(0), x.size(1), 1, 1) * x.size(2)
    return nn.functional.embedding(rows + places, x.reshape(-1, x.size(-1)))
