"""Attention = projections × score × normaliser × window × heads: the only place where they meet.

The same class serves a recurrent decoder and every place of a Transformer; see `AttentionConfig` for the choices.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.attention.config import AttentionConfig
from nmt.attention.dropout import ByteMaskDropout
from nmt.attention.normalizers import NORMALIZERS
from nmt.attention.rotary import apply_rotary
from nmt.attention.scores import SCORES, Additive, DotProductScore, Score
from nmt.attention.windows import CROSS, WINDOWS, ProjectedQKV, QueryContext

SDPA_MIN_QUERIES = 8
"""Queries up to which separate products are faster on a CPU than torch's own attention: steps of decoding."""

KeyValueCache = dict[str, Tensor]
"""Prepared keys and values, batch first: one entry of each for every group of heads that share a score."""


class AttentionOutput(NamedTuple):
    """context (B, T, D); weights (B, H, T, S), before dropout, when asked for; coverage (B, H, S) where it is used."""

    context: Tensor
    weights: Tensor | None = None
    coverage: Tensor | None = None


class Attention(nn.Module):
    """Weights over the keys for each query, and the values summed with them.

    Args:
        config: of this layer.
        query_dim: width of a query.
        key_dim: width of a key's state.
        site: one of `ATTENTION_TYPES`.
        out_dim: width of the context; None: values stay as they are with one head, and are projected, joined and
            projected back to key_dim with several (Vaswani et al. 2017, 3.2.2).
        bias: whether projections have one.
        rotary: turn projected queries and keys by their positions (Su et al. 2021); self-attention only.

    Raises:
        ValueError: widths that the score or the number of heads does not allow.
    """

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
        for what, width in (("queries", query_width), ("keys", key_width), ("values", value_width)):
            if width % config.heads:
                raise ValueError(f"heads={config.heads}: {what} are {width} wide, which is no multiple of it")
        if rotary and (query_width // config.heads) % 2:
            raise ValueError(
                f"heads={config.heads}: rotary positions need heads of even width, they have "
                f"{query_width // config.heads}"
            )
        self.query: nn.Module = nn.Linear(query_dim, dim, bias=bias) if config.project_qk else nn.Identity()
        self.key: nn.Module = nn.Linear(key_dim, dim, bias=bias) if config.project_qk else nn.Identity()
        self.value: nn.Module = nn.Identity() if plain_values else nn.Linear(key_dim, value_width, bias=bias)
        self.output: nn.Module = nn.Identity() if plain_values else nn.Linear(value_width, value_width, bias=bias)
        self.names = list(dict.fromkeys(config.scores))
        self.groups = [[head for head, other in enumerate(config.scores) if other == name] for name in self.names]
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
        self.order = None if order == sorted(order) else sorted(range(len(order)), key=order.__getitem__)
        self.normalizer, self.top_k = config.normalizer, config.top_k
        self.dropout = ByteMaskDropout(config.dropout)

    def precompute_keys(self, states: Tensor, start: int = 0) -> KeyValueCache:
        """Everything that depends on the keys only, once per sentence.

        Args:
            states: (B, S, key_dim).
            start: position of the first, where keys come one after the other.

        Returns:
            "keys.0" (B, H, S, any), "values.0" (B, H, S, D) and so on, H the heads of each group.
        """
        keys, values = self._split(self.key(states)), self._split(self.value(states))
        if self.rotary:
            keys = apply_rotary(keys, start)
        memory: KeyValueCache = {}
        for number, (group, score) in enumerate(zip(self.groups, self.scores, strict=True)):
            assert isinstance(score, Score)
            memory[f"keys.{number}"] = score.prepare(self._heads(keys, group), start)
            memory[f"values.{number}"] = self._heads(values, group)
        return memory

    def forward(
        self,
        query: Tensor,
        memory: KeyValueCache,
        mask: Tensor | None,
        *,
        start: Tensor | int = 0,
        coverage: Tensor | None = None,
        need_weights: bool = False,
    ) -> AttentionOutput:
        """Attends.

        Args:
            query: (B, T, query_dim); in a decoding step also (B · K, 1, query_dim), K queries of one position for each
                row of memory, one row's after the other.
            memory: from `prepare`; in decoder self-attention its keys end with those of the queries.
            mask: (B, S), True where a key may be attended, a prefix of each row that is not empty; None: everywhere.
            start: position of the first query: one for all, or (B,).
            covered: (B, H, S), what earlier queries gave each key, where the configuration has coverage; None: nothing.
            record: return the weights.
        """
        if query.size(0) != memory["keys.0"].size(0):
            return self._attend_beams(query, memory, mask, start, coverage, need_weights)
        queries = self._split(self.query(query))  # (B, H, T, D)
        if self.rotary:
            assert not isinstance(start, Tensor)
            queries = apply_rotary(queries, start)
        asked, num_keys = QueryContext(query, mask, start), memory["keys.0"].size(2)
        weights: Tensor | None = None
        if self.coverage:
            context, weights, coverage = self._attend_with_coverage(asked, queries, memory, coverage)
        elif not need_weights and self.window.is_cheaper(query.size(1), num_keys):
            context = self._attend_windowed(asked, queries, memory)
        else:
            context, weights = self._attend_dense(
                queries, memory, self.window.attention_bias(asked, num_keys), need_weights
            )
        joined: Tensor = self.output(context.transpose(1, 2).flatten(2))
        return AttentionOutput(joined, weights if need_weights else None, coverage)

    def _attend_beams(
        self,
        query: Tensor,
        memory: KeyValueCache,
        mask: Tensor | None,
        start: Tensor | int,
        covered: Tensor | None,
        record: bool,
    ) -> AttentionOutput:
        """K queries (B · K, 1, query_dim) of one position for each row of memory, as K queries of one sentence: the
        keys are there once, and compared with all of them in one product."""
        rows, keys = memory["keys.0"].size(0), memory["keys.0"].size(2)
        folded = query.view(rows, -1, query.size(-1))  # (B, K, query_dim)
        num = folded.size(1)
        here = start if isinstance(start, Tensor) else torch.full((rows * num,), start, device=query.device)
        asked = QueryContext(folded, mask, here.view(rows, num))
        queries = self._split(self.query(folded))
        if self.coverage:
            covered = queries.new_zeros(rows * num, self.heads, keys) if covered is None else covered
            by_sentence = covered.view(rows, num, self.heads, keys).transpose(1, 2)  # (B, H, K, S)
            context, weights = self._attend_dense(
                queries, memory, self.window.attention_bias(asked, keys), True, by_sentence
            )
            assert weights is not None
            covered = (by_sentence + weights).transpose(1, 2).reshape(rows * num, self.heads, keys)
        elif not record and self.window.is_cheaper(num, keys):
            context, weights = self._attend_windowed(asked, queries, memory), None
        else:
            context, weights = self._attend_dense(queries, memory, self.window.attention_bias(asked, keys), record)
        joined: Tensor = self.output(context.transpose(1, 2).flatten(2)).view(rows * num, 1, -1)
        if record and weights is not None:
            weights = weights.transpose(1, 2).reshape(rows * num, self.heads, 1, keys)
        return AttentionOutput(joined, weights if record else None, covered)

    def _split(self, x: Tensor) -> Tensor:
        """(B, S, H * D) -> (B, H, S, D)."""
        return x.view(*x.shape[:-1], self.heads, x.size(-1) // self.heads).transpose(1, 2)

    def _heads(self, x: Tensor, group: list[int]) -> Tensor:
        """The heads of a group, out of (B, H, ...)."""
        return x if len(self.groups) == 1 else x[:, group]

    def _join(self, parts: list[Tensor]) -> Tensor:
        """Groups of heads, (B, H, ...) each, in the order of the heads."""
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return joined if self.order is None else joined[:, self.order]

    def _normalize(self, scores: Tensor) -> Tensor:
        return NORMALIZERS[self.normalizer](scores, self.top_k)

    def _normalize_and_drop(self, scores: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(self._normalize(scores))
        return dropped

    def _attend_dense(
        self, queries: Tensor, memory: KeyValueCache, bias: Tensor | None, record: bool, covered: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Every query against every key -> context (B, H, T, D), weights (B, H, T, S) when asked for.

        `covered` (B, H, T or 1, S) is what each query finds covered.
        """
        contexts, all_weights = [], []
        for number, (group, score) in enumerate(zip(self.groups, self.scores, strict=True)):
            keys, values = memory[f"keys.{number}"], memory[f"values.{number}"]
            own = self._heads(queries, group)
            seen = bias if bias is None or bias.size(1) == 1 else self._heads(bias, group)
            if not record and self._can_use_sdpa(score, own, values, seen):
                contexts.append(_sdpa(score, own, keys, values, seen, self.dropout))
                continue
            part = () if covered is None else (self._heads(covered, group),)
            scores = score(own, keys, *part)
            weights = self._normalize(scores if seen is None else scores + seen.to(scores.dtype))
            contexts.append(self.dropout(weights).to(values.dtype) @ values)
            all_weights.append(weights)
        return self._join(contexts), self._join(all_weights) if record else None

    def _can_use_sdpa(self, score: nn.Module, queries: Tensor, values: Tensor, bias: Tensor | None) -> bool:
        """Whether torch's own attention does it, and fast: not for bf16 on a CPU, nor for a few queries there."""
        if (
            self.normalizer != "softmax"
            or not isinstance(score, DotProductScore)
            or (bias is not None and bias.requires_grad)
        ):
            return False
        if queries.device.type != "cpu":
            return True
        half = torch.is_autocast_enabled("cpu") or queries.dtype not in (torch.float32, torch.float64)
        dropping = self.training and self.dropout.rate > 0
        return not (half or dropping or queries.size(2) <= SDPA_MIN_QUERIES or queries.size(3) != values.size(3))

    def _attend_windowed(self, asked: QueryContext, queries: Tensor, memory: KeyValueCache) -> Tensor:
        """The same as `_attend_dense` from the keys inside the window only."""
        contexts = []
        for number, (group, score) in enumerate(zip(self.groups, self.scores, strict=True)):
            own = ProjectedQKV(self._heads(queries, group), memory[f"keys.{number}"], memory[f"values.{number}"])
            contexts.append(self.window.banded_attention(asked, own, group, score, self._normalize_and_drop))
        return self._join(contexts)

    def _attend_with_coverage(
        self, asked: QueryContext, queries: Tensor, memory: KeyValueCache, covered: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One query after the other, because each sees what those before it have covered."""
        num_keys = memory["keys.0"].size(2)
        covered = queries.new_zeros(queries.size(0), self.heads, num_keys) if covered is None else covered
        contexts, rows = [], []
        for step in range(queries.size(2)):
            here = slice(step, step + 1)
            bias = self.window.attention_bias(
                QueryContext(asked.query[:, here], asked.mask, asked.start + step), num_keys
            )
            context, weights = self._attend_dense(queries[:, :, here], memory, bias, True, covered.unsqueeze(-2))
            assert weights is not None
            covered = covered + weights.squeeze(2)
            contexts.append(context)
            rows.append(weights)
        return torch.cat(contexts, dim=2), torch.cat(rows, dim=2), covered

    def learned_scalars(self) -> dict[str, Tensor]:
        """Learned numbers of the scores, such as gates: "score.name" -> (H,) of the heads that have it."""
        found: dict[str, Tensor] = {}
        for name, score in zip(self.names, self.scores, strict=True):
            assert isinstance(score, Score)
            found |= {f"{name}.{quantity}": values for quantity, values in score.learned_scalars().items()}
        return found


@contextlib.contextmanager
def _isolated_rng() -> Iterator[None]:
    """Draws inside do not move the draws after: models that differ in a score start with the same other parameters."""
    seed = int(torch.randint(2**62, (), device="cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _sdpa(
    score: nn.Module, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, dropout: ByteMaskDropout
) -> Tensor:
    """softmax(product score + bias) values in one call."""
    assert isinstance(score, DotProductScore)
    return nn.functional.scaled_dot_product_attention(
        score.transform_query(queries),
        keys,
        values,
        attn_mask=None if bias is None else bias.to(queries.dtype),
        dropout_p=dropout.rate if dropout.training else 0.0,
        scale=1.0,
    )
