"""Compatibility functions: how well does a query fit a key?

A score sees projected queries and keys and nothing else: projections, mask, normaliser and weighted sum belong to
`nmt.attention.Attention`. So two scores differ in their formula and in the parameters of that formula only.
The leading dimensions `...` are `(B,)` in a recurrent decoder and `(B, H)` inside multi-head attention.
"""

import math

import torch
from torch import Tensor, nn


class Score(nn.Module):
    """A compatibility function.

    Args:
        query_dim: width of a query.
        key_dim: width of a key.

    Raises:
        ValueError: the function needs queries and keys of one width and they differ.
    """

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.query_dim, self.key_dim = query_dim, key_dim

    def prepare(self, keys: Tensor) -> Tensor:
        """What can be computed once per source sentence: (..., S, key_dim) -> (..., S, any)."""
        return keys

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores of every query against every prepared key: (..., T, D), (..., S, any) -> (..., T, S)."""
        raise NotImplementedError


def _same_width(name: str, query_dim: int, key_dim: int) -> None:
    if query_dim != key_dim:
        raise ValueError(
            f"model.attention.score={name} compares queries and keys of one width, but they have {query_dim} and "
            f"{key_dim}: set model.attention.project=true, or make the widths equal"
        )


class Additive(Score):
    """score(q, k) = vᵀ tanh(q + k): Bahdanau et al. 2015, equation in appendix A.1.2.

    The paper's W and U are the query and key projections of `Attention`, so it needs `project=true`.
    """

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__(query_dim, key_dim)
        _same_width("additive", query_dim, key_dim)
        self.v = nn.Parameter(torch.empty(key_dim).uniform_(-1, 1) / math.sqrt(key_dim))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        hidden = torch.tanh(query.unsqueeze(-2) + keys.unsqueeze(-3))  # (..., T, S, D)
        return hidden @ self.v.to(hidden.dtype)


class Dot(Score):
    """score(q, k) = qᵀk: Luong et al. 2015, equation 8 ("dot")."""

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__(query_dim, key_dim)
        _same_width("dot", query_dim, key_dim)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys.transpose(-2, -1)


class Scaled(Score):
    """score(q, k) = qᵀk / √d: Vaswani et al. 2017, equation 1."""

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__(query_dim, key_dim)
        _same_width("scaled", query_dim, key_dim)

    def prepare(self, keys: Tensor) -> Tensor:
        return keys / math.sqrt(self.key_dim)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys.transpose(-2, -1)


class General(Score):
    """score(q, k) = qᵀWk: Luong et al. 2015, equation 8 ("general"). Wk is computed once per source sentence.

    W = I + V/d, d the key's width, V zero at first: it begins as the dot product and moves d times slower than a matrix
    stored as it is. Adam moves every entry by about the learning rate, so a plain W is carried off by noise before
    attention has learned anything; the step of a d × d matrix wants to shrink with d (Yang et al. 2021, table 3).
    """

    def __init__(self, query_dim: int, key_dim: int) -> None:
        super().__init__(query_dim, key_dim)
        self.v = nn.Parameter(torch.zeros(query_dim, key_dim))

    def matrix(self) -> Tensor:
        """W, (query_dim, key_dim)."""
        identity = torch.eye(self.query_dim, self.key_dim, dtype=self.v.dtype, device=self.v.device)
        return identity + self.v / self.key_dim

    def prepare(self, keys: Tensor) -> Tensor:
        return nn.functional.linear(keys, self.matrix())  # (..., S, query_dim)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys.transpose(-2, -1)


SCORES: dict[str, type[Score]] = {
    "additive": Additive,
    "dot": Dot,
    "scaled": Scaled,
    "general": General,
}
