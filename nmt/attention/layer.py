"""Attention = projections × score × normalizer × window × heads: the only place where they meet.

The same class serves a recurrent decoder and every place of a Transformer; see `AttentionConfig` for the choices.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.attention.config import AttentionConfig
from nmt.attention.dropout import ByteMaskDropout
from nmt.attention.linear import Linear
from nmt.attention.normalizers import NORMALIZERS
from nmt.attention.rotary import apply_rotary
from nmt.attention.scores import SCORES, Additive, DotProductScore, Score
from nmt.attention.windows import CROSS, DECODER_SELF, WINDOWS, ProjectedQKV, QueryContext

SDPA_MIN_QUERIES = 8
"""Up to this many queries, as in a decoding step, separate products are faster on a CPU than torch's own attention."""

KeyValueCache = dict[str, Tensor]
"""Prepared keys and values, batch first: one entry of each for every group of heads that share a score."""


class AttentionOutput(NamedTuple):
    """context (B, T, D); weights (B, H, T, S), before dropout, when needed; coverage (B, H, S) where it is used."""

    context: Tensor
    weights: Tensor | None = None
    coverage: Tensor | None = None


class AttentionLayer(nn.Module):
    """Weights over the keys for each query, and the values summed with them.

    Args:
        config: of this layer.
        query_dim: width of a query.
        key_dim: width of a key's state.
        attention_type: one of `ATTENTION_TYPES`.
        out_dim: width of the context; None: values stay as they are with one head, and are projected, joined and
            projected back to key_dim with several (Vaswani et al. 2017, 3.2.2).
        bias: whether projections have a bias.
        rotary: rotate projected queries and keys by their positions (Su et al. 2021); self-attention only.

    Raises:
        ValueError: widths that the score or the number of heads does not allow.
    """

    order: Tensor | None
    # of heads, from 0, with other weights than their own; None: a context of zeros. See nmt.inference.interventions
    overrides: Mapping[int, Callable[[Tensor, QueryContext], Tensor] | None] | None = None

    def __init__(
        self,
        config: AttentionConfig,
        query_dim: int,
        key_dim: int,
        *,
        attention_type: str = CROSS,
        out_dim: int | None = None,
        bias: bool = False,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.attention_type, self.heads, self.rotary = attention_type, config.heads, rotary
        dim = config.dim or query_dim
        query_width, key_width = (dim, dim) if config.project_qk else (query_dim, key_dim)
        plain_values = out_dim is None and config.heads == 1
        value_width = key_dim if out_dim is None else out_dim
        for role, width in (("queries", query_width), ("keys", key_width), ("values", value_width)):
            if width % config.heads:
                raise ValueError(f"heads={config.heads}: {role} are {width} wide, which is no multiple of it")
        if rotary and (query_width // config.heads) % 2:
            raise ValueError(
                f"heads={config.heads}: rotary positions need heads of even width, they have "
                f"{query_width // config.heads}"
            )
        self.query: nn.Module = Linear(query_dim, dim, bias=bias) if config.project_qk else nn.Identity()
        self.key: nn.Module = Linear(key_dim, dim, bias=bias) if config.project_qk else nn.Identity()
        self.value: nn.Module = nn.Identity() if plain_values else Linear(key_dim, value_width, bias=bias)
        self.output: nn.Module = nn.Identity() if plain_values else Linear(value_width, value_width, bias=bias)
        self.names = list(dict.fromkeys(config.scores))
        self.groups = [[head for head, score in enumerate(config.scores) if score == name] for name in self.names]
        widths = (query_width // config.heads, key_width // config.heads)
        self.coverage = config.coverage
        with _isolated_rng():
            self.scores = nn.ModuleList(
                SCORES[name](len(group), *widths, divisor=str(config.divisor), positions=config.max_positions)
                for name, group in zip(self.names, self.groups, strict=True)
            )
            for score in self.scores if config.coverage else ():
                assert isinstance(score, Additive)
                score.add_coverage()
            self.window = WINDOWS[config.window](config.heads, query_dim, config.window_size, attention_type)
        order = [head for group in self.groups for head in group]
        places = None if order == sorted(order) else sorted(range(len(order)), key=order.__getitem__)
        # buffers, because indices in a list would be sent to the device at every use, which waits for it
        self.register_buffer("order", None if places is None else torch.tensor(places), persistent=False)
        for number, group in enumerate(self.groups):
            heads = torch.tensor(group) if len(self.groups) > 1 else None
            self.register_buffer(f"group_{number}", heads, persistent=False)
        self.normalizer, self.top_k = config.normalizer, config.top_k
        self.dropout = ByteMaskDropout(config.dropout)

    def precompute_keys(self, states: Tensor, start: Tensor | int = 0) -> KeyValueCache:
        """Compute everything that depends on the keys only, once per sentence.

        Args:
            states: (B, S, key_dim).
            start: position of the first, where keys are appended one after the other; a number or a tensor ().

        Returns:
            "keys.0" (B, H, S, any), "values.0" (B, H, S, D) and so on, H the heads of each group.
        """
        return self._prepare(states, states, start)

    def _prepare(self, key_states: Tensor, value_states: Tensor, start: Tensor | int) -> KeyValueCache:
        keys, values = self._split_heads(self.key(key_states)), self._split_heads(self.value(value_states))
        if self.rotary:
            keys = apply_rotary(keys, start)
        cache: KeyValueCache = {}
        for number, score in enumerate(self.scores):
            assert isinstance(score, Score)
            cache[f"keys.{number}"] = score.precompute(self._select_heads(keys, number), start)
            cache[f"values.{number}"] = self._select_heads(values, number)
        return cache

    def forward(
        self,
        query: Tensor,
        cache: KeyValueCache,
        mask: Tensor | None,
        *,
        start: Tensor | int = 0,
        coverage: Tensor | None = None,
        need_weights: bool = False,
    ) -> AttentionOutput:
        """Attend to the keys with each query.

        Args:
            query: (B, T, query_dim); in a decoding step also (B · K, 1, query_dim), the K beams of each row of the
                cache one after the other.
            cache: from `precompute_keys`; in decoder self-attention its keys end with those of the queries, unless
                `start` is a tensor: then it has a fixed size, and `mask` says what is used.
            mask: (B, S), True where a key may be attended to, a prefix of each row that is not empty; None: everywhere.
            start: position of the first query: one for all, a number or a tensor (), or (B,).
            coverage: (B, H, S), the weight that each key has received from earlier queries, where the configuration has
                coverage; None: zeros.
            need_weights: return the weights.
        """
        num_sentences, num_keys = cache["keys.0"].size(0), cache["keys.0"].size(2)
        has_beams = query.size(0) != num_sentences
        in_fixed_cache = self.attention_type == DECODER_SELF and isinstance(start, Tensor)
        context = QueryContext(query, mask, start)
        context = context.fold_beams(num_sentences) if has_beams else context
        queries = self._project_queries(context)
        weights: Tensor | None = None
        silenced = [head for head, override in (self.overrides or {}).items() if override is None]
        has_weights = need_weights or len(silenced) < len(self.overrides or {})
        if self.coverage:
            if coverage is None:
                coverage = queries.new_zeros(query.size(0), self.heads, num_keys)
            attend = self._attend_with_coverage if has_beams else self._attend_stepwise
            by_sentence = coverage.view(num_sentences, -1, self.heads, num_keys).transpose(1, 2)  # (B, H, K, S)
            values, weights, by_sentence = attend(queries, cache, context, by_sentence)
            coverage = by_sentence.transpose(1, 2).reshape(query.size(0), self.heads, num_keys)
        elif not (has_weights or in_fixed_cache) and self.window.is_cheaper(queries.size(2), num_keys):
            values = self._attend_windowed(queries, cache, context)
        else:
            values, weights = self._attend_dense(queries, cache, context, has_weights)
        if silenced:
            index = torch.tensor(silenced, device=values.device)
            values = values.index_fill(1, index, 0)
            weights = None if weights is None else weights.index_fill(1, index, 0)
        output: Tensor = self.output(values.transpose(1, 2).flatten(2))
        if has_beams:
            output = output.view(query.size(0), 1, -1)
            if weights is not None:
                weights = weights.transpose(1, 2).reshape(query.size(0), self.heads, 1, num_keys)
        return AttentionOutput(output, weights if need_weights else None, coverage)

    def _project_queries(self, context: QueryContext) -> Tensor:
        """Project queries (B, T, query_dim) -> (B, H, T, D)."""
        queries = self._split_heads(self.query(context.query))
        if self.rotary:
            queries = apply_rotary(queries, context.start)
        return queries

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, S, H * D) -> (B, H, S, D)."""
        return x.view(*x.shape[:-1], self.heads, x.size(-1) // self.heads).transpose(1, 2)

    def _select_heads(self, x: Tensor, number: int) -> Tensor:
        """Select the heads of group `number` from (B, H, ...)."""
        return x if len(self.groups) == 1 else x.index_select(1, getattr(self, f"group_{number}"))

    def _join_heads(self, groups: list[Tensor]) -> Tensor:
        """Join groups of heads, (B, H, ...) each, in the order of the heads."""
        joined = groups[0] if len(groups) == 1 else torch.cat(groups, dim=1)
        return joined if len(groups) == 1 or self.order is None else joined.index_select(1, self.order)

    def _head_groups(self, queries: Tensor, cache: KeyValueCache) -> Iterator[tuple[int, nn.Module, ProjectedQKV]]:
        """Yield the number of each group of heads, their score, and their queries, keys and values."""
        for number, score in enumerate(self.scores):
            keys, values = cache[f"keys.{number}"], cache[f"values.{number}"]
            yield number, score, ProjectedQKV(self._select_heads(queries, number), keys, values)

    def _normalize(self, scores: Tensor) -> Tensor:
        return NORMALIZERS[self.normalizer](scores, self.top_k)

    def _normalize_and_drop(self, scores: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(self._normalize(scores))
        return dropped

    def _attend_dense(
        self,
        queries: Tensor,
        cache: KeyValueCache,
        context: QueryContext | Tensor,
        need_weights: bool,
        coverage: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Compare every query with every key -> context (B, H, T, D), weights (B, H, T, S) when needed.

        `context` gives the bias of the scores, or is that bias. `coverage` (B, H, T or 1, S) is that of each query.
        """
        contexts, all_weights = [], []
        bias, mask = context if isinstance(context, Tensor) else None, None
        if isinstance(context, QueryContext):
            num_keys, on_cpu = cache["keys.0"].size(2), queries.device.type == "cpu"
            if not (on_cpu or need_weights) and all(map(self._is_softmax_of_dots, self.scores)):
                mask = self.window.sdpa_mask(context, num_keys)
            bias = self.window.attention_bias(context, num_keys) if mask is None else None
        for number, score, projected in self._head_groups(queries, cache):
            group_bias = bias if bias is None or bias.size(1) == 1 else self._select_heads(bias, number)
            if not need_weights and self._can_use_sdpa(score, projected, group_bias):
                contexts.append(self._sdpa(score, projected, group_bias, mask))
                continue
            group_coverage = () if coverage is None else (self._select_heads(coverage, number),)
            scores = score(projected.queries, projected.keys, *group_coverage)
            weights = self._normalize(scores if group_bias is None else scores + group_bias.to(scores.dtype))
            if self.overrides is not None and isinstance(context, QueryContext):
                weights = self._override(weights, self.groups[number], context)
            contexts.append(self.dropout(weights).to(projected.values.dtype) @ projected.values)
            all_weights.append(weights)
        return self._join_heads(contexts), self._join_heads(all_weights) if need_weights else None

    def _override(self, weights: Tensor, heads: Sequence[int], context: QueryContext) -> Tensor:
        """Return the weights (B, H, T, S) of these heads that act."""
        overrides = [(self.overrides or {}).get(head) for head in heads]
        rows = zip(overrides, weights.unbind(1), strict=True)
        return torch.stack([own if override is None else override(own, context) for override, own in rows], dim=1)

    def _is_softmax_of_dots(self, score: nn.Module) -> bool:
        return self.normalizer == "softmax" and isinstance(score, DotProductScore)

    def _can_use_sdpa(self, score: nn.Module, projected: ProjectedQKV, bias: Tensor | None) -> bool:
        """Return whether torch's attention supports it and is fast: not, on a CPU, for bf16 or for a few queries."""
        queries, _, values = projected
        if not self._is_softmax_of_dots(score):
            return False
        if bias is not None and bias.requires_grad:
            return False
        if queries.device.type != "cpu":
            return True
        is_half = torch.is_autocast_enabled("cpu") or queries.dtype not in (torch.float32, torch.float64)
        drops = self.training and self.dropout.rate > 0
        return not (is_half or drops or queries.size(2) <= SDPA_MIN_QUERIES or queries.size(3) != values.size(3))

    def _sdpa(
        self,
        score: nn.Module,
        projected: ProjectedQKV,
        bias: Tensor | None,
        mask: tuple[Tensor | None, bool] | None = None,
    ) -> Tensor:
        """Compute softmax(dot-product score + bias) values in one call; with `mask`, from `Window.sdpa_mask`, for the
        bias."""
        assert isinstance(score, DotProductScore)
        allowed, is_causal = mask or (None if bias is None else bias.to(projected.queries.dtype), False)
        return nn.functional.scaled_dot_product_attention(
            score.transform_query(projected.queries),
            projected.keys,
            projected.values,
            attn_mask=allowed,
            dropout_p=self.dropout.rate if self.training else 0.0,
            is_causal=is_causal,
            scale=score.scale(projected.keys),
        )

    def _attend_windowed(self, queries: Tensor, cache: KeyValueCache, context: QueryContext) -> Tensor:
        """Compute the same as `_attend_dense` from the keys inside the window only."""
        contexts = [
            self.window.banded_attention(
                context, projected, getattr(self, f"group_{number}"), score, self._normalize_and_drop
            )
            for number, score, projected in self._head_groups(queries, cache)
        ]
        return self._join_heads(contexts)

    def _attend_with_coverage(
        self, queries: Tensor, cache: KeyValueCache, context: QueryContext, coverage: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend at one position -> contexts, weights (B, H, K, S), coverage (B, H, K, S) after it."""
        values, weights = self._attend_dense(queries, cache, context, True, coverage)
        assert weights is not None
        return values, weights, coverage + weights

    def _attend_stepwise(
        self, queries: Tensor, cache: KeyValueCache, context: QueryContext, coverage: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend with one query after the other, because the coverage of each depends on those before it."""
        contexts, all_weights = [], []
        for number in range(queries.size(2)):
            step = slice(number, number + 1)
            values, weights, coverage = self._attend_with_coverage(
                queries[:, :, step], cache, context.select(step), coverage
            )
            contexts.append(values)
            all_weights.append(weights)
        return torch.cat(contexts, dim=2), torch.cat(all_weights, dim=2), coverage

    def learned_scalars(self) -> dict[str, Tensor]:
        """Return learned numbers of the scores, such as gates: "score.name" -> (H,) of the heads that have it."""
        scalars: dict[str, Tensor] = {}
        for name, score in zip(self.names, self.scores, strict=True):
            assert isinstance(score, Score)
            scalars |= {f"{name}.{key}": values for key, values in score.learned_scalars().items()}
        return scalars


@contextlib.contextmanager
def _isolated_rng() -> Iterator[None]:
    """Keep draws inside from moving those after: models that differ in a score start with the same other parameters."""
    seed = int(torch.randint(2**62, (), device="cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
