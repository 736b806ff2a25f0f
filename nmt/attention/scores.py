"""Compatibility functions: how well does a query fit a key?

A score sees projected queries and keys and nothing else: projections, mask, normaliser and weighted sum belong to
`nmt.attention.Attention`. So two scores differ in their formula and in the parameters of that formula only.

All heads are scored at once, each with its own parameters, whose first dimension is H. Between (B, H) and (T, D) there
may be further dimensions `*`, the blocks of a windowed attention; D is the width of one head.
"""

import math

import torch
from torch import Tensor, nn

from nmt.attention.additive_kernel import additive_scores


class Score(nn.Module):
    """A compatibility function.

    Args:
        heads: how many, each with its own parameters.
        query_dim, key_dim: width of a query and of a key in one head.
        divisor: of `scaled` and `hybrid`: "sqrt" = √key_dim, "learned" = one per head that begins there, or a number.
        positions: of `location`: how many source positions are told apart.

    Raises:
        ValueError: the function needs queries and keys of one width and they differ.
    """

    same_width = True  # whether queries and keys must be equally wide
    needs_projection = False  # whether the projections of `Attention` are part of the formula
    has_coverage = False  # whether `forward` can take a coverage
    positional = False  # whether it depends on where a key stands

    def __init__(
        self, heads: int, query_dim: int, key_dim: int, *, divisor: str = "sqrt", positions: int = 512
    ) -> None:
        super().__init__()
        if self.same_width and query_dim != key_dim:
            raise ValueError(
                f"score={type(self).__name__.lower()} compares queries and keys of one width, but they have "
                f"{query_dim} and {key_dim}: set project_qk=true there, or make the widths equal"
            )
        self.heads, self.query_dim, self.key_dim = heads, query_dim, key_dim

    def prepare(self, keys: Tensor, start: int = 0) -> Tensor:
        """What can be computed once per key: (B, H, S, key_dim) -> (B, H, S, any); the first stands at `start`."""
        return keys

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores of every query against every prepared key: (B, H, *, T, D), (B, H, *, S, any) -> (B, H, *, T, S)."""
        raise NotImplementedError

    def learned_scalars(self) -> dict[str, Tensor]:
        """Learned numbers worth watching, one per head: name -> (H,)."""
        return {}


class DotProductScore(Score):
    """A score that is an inner product of something made of the query and something made of the key."""

    def transform_query(self, query: Tensor) -> Tensor:
        """(B, H, *, T, query_dim) -> (B, H, *, T, as wide as prepared keys)."""
        return query

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.transform_query(query) @ keys.transpose(-2, -1)


def _per_head(parameter: Tensor, like: Tensor) -> Tensor:
    """A parameter (H, ...) with ones put in, so that it broadcasts against `like` (B, H, *, T, D)."""
    rest = parameter.shape[1:]
    return parameter.view(parameter.size(0), *[1] * (like.dim() - 2 - len(rest)), *rest)


class Additive(Score):
    """score(q, k) = vᵀ tanh(q + k): Bahdanau et al. 2015, equation in appendix A.1.2.

    The paper's W and U are the query and key projections of `Attention`, so it needs `project_qk=true`. With a coverage C,
    what each key has received so far, vᵀ tanh(q + k + C w): Tu et al. 2016, equation 9 with the plain sum of earlier
    weights as coverage.
    """

    needs_projection = True
    has_coverage = True

    def __init__(
        self, heads: int, query_dim: int, key_dim: int, *, divisor: str = "sqrt", positions: int = 512
    ) -> None:
        super().__init__(heads, query_dim, key_dim)
        self.v = nn.Parameter(torch.empty(heads, key_dim).uniform_(-1, 1) / math.sqrt(key_dim))
        self.coverage: nn.Parameter | None = None

    def add_coverage(self) -> None:
        """Gives the formula its w, one vector per head."""
        self.coverage = nn.Parameter(torch.empty(self.heads, self.key_dim).uniform_(-1, 1) / math.sqrt(self.key_dim))

    def reference(self, query: Tensor, keys: Tensor, covered: Tensor | None = None) -> Tensor:
        """The formula as it stands, holding (B, H, *, T, S, D); `covered`, C, is (B, H, *, T, S)."""
        hidden = query.unsqueeze(-2) + keys.unsqueeze(-3)  # (B, H, *, T, S, D)
        if covered is not None:
            assert self.coverage is not None
            hidden = hidden + covered.unsqueeze(-1) * _per_head(self.coverage, hidden)
        return (torch.tanh(hidden).to(self.v.dtype) * _per_head(self.v, hidden)).sum(-1)

    def forward(self, query: Tensor, keys: Tensor, covered: Tensor | None = None) -> Tensor:
        return additive_scores(query, keys, self.v) if covered is None else self.reference(query, keys, covered)


class Dot(DotProductScore):
    """score(q, k) = qᵀk: Luong et al. 2015, equation 8 ("dot")."""


class ScaledDot(DotProductScore):
    """score(q, k) = qᵀk / √d: Vaswani et al. 2017, equation 1; or another divisor, see `Score`."""

    def __init__(
        self, heads: int, query_dim: int, key_dim: int, *, divisor: str = "sqrt", positions: int = 512
    ) -> None:
        super().__init__(heads, query_dim, key_dim)
        begin = math.sqrt(key_dim) if divisor in ("sqrt", "learned") else float(divisor)
        self.learned: nn.Parameter | None = None
        if divisor == "learned":
            # as a logarithm: always above 0, and a step of the optimiser is a share of it
            self.learned = nn.Parameter(torch.full((heads,), math.log(begin)))
        self.divisor = begin

    def prepare(self, keys: Tensor, start: int = 0) -> Tensor:
        if self.learned is None:
            return keys / self.divisor
        return (keys * _per_head((-self.learned).exp()[:, None, None], keys)).to(keys.dtype)

    def learned_scalars(self) -> dict[str, Tensor]:
        return {} if self.learned is None else {"divisor": self.learned.exp()}


class General(DotProductScore):
    """score(q, k) = qᵀWk: Luong et al. 2015, equation 8 ("general"). Wk is computed once per source sentence.

    W = I + V/d, d the key's width, V zero at first: it begins as the dot product and moves d times slower than a matrix
    stored as it is. Adam moves every entry by about the learning rate, so a plain W is carried off by noise before
    attention has learned anything; the step of a d × d matrix wants to shrink with d (Yang et al. 2021, table 3).
    """

    same_width = False

    def __init__(
        self, heads: int, query_dim: int, key_dim: int, *, divisor: str = "sqrt", positions: int = 512
    ) -> None:
        super().__init__(heads, query_dim, key_dim)
        self.v = nn.Parameter(torch.zeros(heads, query_dim, key_dim))

    def weight(self) -> Tensor:
        """W, (H, query_dim, key_dim)."""
        identity = torch.eye(self.query_dim, self.key_dim, dtype=self.v.dtype, device=self.v.device)
        return identity + self.v / self.key_dim

    def prepare(self, keys: Tensor, start: int = 0) -> Tensor:
        return torch.einsum("bhsk,hqk->bhsq", keys, self.weight().to(keys.dtype))


class Cosine(DotProductScore):
    """score(q, k) = g · qᵀk / (|q| |k|): Henry et al. 2020 (QK-norm), with one learned g per head."""

    begin = 10.0  # about the paper's log2(L² - L) for L = 30, a usual sentence

    def __init__(
        self, heads: int, query_dim: int, key_dim: int, *, divisor: str = "sqrt", positions: int = 512
    ) -> None:
        super().__init__(heads, query_dim, key_dim)
        self.log_scale = nn.Parameter(torch.full((heads,), math.log(self.begin)))

    def prepare(self, keys: Tensor, start: int = 0) -> Tensor:
        return _direction(keys).to(keys.dtype)

    def transform_query(self, query: Tensor) -> Tensor:
        scale = self.log_scale.exp()[:, None, None]
        return (_direction(query) * _per_head(scale, query)).to(query.dtype)

    def learned_scalars(self) -> dict[str, Tensor]:
        return {"scale": self.log_scale.exp()}


def _direction(x: Tensor) -> Tensor:
    """x / |x| along the last dimension, in at least fp32; a vector of zeros stays zero."""
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return nn.functional.normalize(x, dim=-1, eps=1e-6)


class Location(DotProductScore):
    """score(q, k at position s) = (W q)_s: Luong et al. 2015, equation after 8 ("location"): where, not what.

    W has one row per position; positions past its last row share that row.
    """

    same_width = False
    positional = True

    def __init__(
        self, heads: int, query_dim: int, key_dim: int, *, divisor: str = "sqrt", positions: int = 512
    ) -> None:
        super().__init__(heads, query_dim, key_dim)
        self.table = nn.Parameter(torch.empty(heads, positions, query_dim).uniform_(-1, 1) / math.sqrt(query_dim))

    def prepare(self, keys: Tensor, start: int = 0) -> Tensor:
        places = torch.arange(start, start + keys.size(-2), device=keys.device).clamp(max=self.table.size(1) - 1)
        return self.table[:, places].to(keys.dtype).expand(keys.size(0), -1, -1, -1)


class Hybrid(Additive):
    """score(q, k) = γ · additive(q, k) + (1 - γ) · scaled(q, k), γ = σ(g) with one learned g per head.

    Both see the same projected query and key. γ begins at ½ and is reported with the validation results.
    """

    def __init__(
        self, heads: int, query_dim: int, key_dim: int, *, divisor: str = "sqrt", positions: int = 512
    ) -> None:
        super().__init__(heads, query_dim, key_dim)
        self.gate = nn.Parameter(torch.zeros(heads))
        self.scaled = ScaledDot(heads, query_dim, key_dim, divisor=divisor)

    def _mix(self, additive: Tensor, query: Tensor, keys: Tensor) -> Tensor:
        scaled = query @ self.scaled.prepare(keys).transpose(-2, -1)
        gate = _per_head(torch.sigmoid(self.gate)[:, None, None], additive)
        return gate * additive + (1 - gate) * scaled

    def reference(self, query: Tensor, keys: Tensor, covered: Tensor | None = None) -> Tensor:
        return self._mix(super().reference(query, keys, covered), query, keys)

    def forward(self, query: Tensor, keys: Tensor, covered: Tensor | None = None) -> Tensor:
        if covered is not None:
            return self.reference(query, keys, covered)
        return self._mix(additive_scores(query, keys, self.v), query, keys)

    def learned_scalars(self) -> dict[str, Tensor]:
        return {"gate": torch.sigmoid(self.gate), **self.scaled.learned_scalars()}


SCORES: dict[str, type[Score]] = {
    "additive": Additive,
    "dot": Dot,
    "scaled": ScaledDot,
    "general": General,
    "cosine": Cosine,
    "location": Location,
    "hybrid": Hybrid,
}
