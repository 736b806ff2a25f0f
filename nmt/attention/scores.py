"""Compatibility functions: how well a query fits a key.

A score is given projected queries and keys and nothing else: projections, mask, normalizer and weighted sum belong to
`nmt.attention.AttentionLayer`. So two scores differ in their formula and in the parameters of that formula only.

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
        heads: number of heads, each with its own parameters.
        query_dim, key_dim: width of a query and of a key in one head.
        divisor: of `scaled` and `hybrid`: "sqrt" = √key_dim, "learned" = one per head that begins there, or a number.
        positions: of `location`: number of distinct source positions.

    Raises:
        ValueError: the function needs queries and keys of one width and they differ.
    """

    same_width = True  # whether queries and keys must be equally wide
    needs_projection = False  # whether the projections of `AttentionLayer` are part of the formula
    has_coverage = False  # whether `forward` can take a coverage
    positional = False  # whether it depends on the positions of the keys

    def __init__(
        self, heads: int, query_dim: int, key_dim: int, *, divisor: str = "sqrt", positions: int = 512
    ) -> None:
        super().__init__()
        if self.same_width and query_dim != key_dim:
            name = {kind: name for name, kind in SCORES.items()}.get(type(self), type(self).__name__)
            raise ValueError(
                f"score={name} compares queries and keys of one width, but they have {query_dim} and {key_dim}: "
                "set project_qk=true there, or make the widths equal"
            )
        self.heads, self.query_dim, self.key_dim = heads, query_dim, key_dim
        self.create_parameters(divisor, positions)

    def create_parameters(self, divisor: str, positions: int) -> None:
        """Create the parameters of the formula; the arguments are those of the class."""

    def precompute(self, keys: Tensor, start: Tensor | int = 0) -> Tensor:
        """Compute what depends on the keys only: (B, H, S, key_dim) -> (B, H, S, any); the first is at `start`, on the
        device where it is a tensor ()."""
        return keys

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score every query against every prepared key: (B, H, *, T, D), (B, H, *, S, any) -> (B, H, *, T, S)."""
        raise NotImplementedError

    def learned_scalars(self) -> dict[str, Tensor]:
        """Return learned numbers worth watching, one per head: name -> (H,)."""
        return {}


class DotProductScore(Score):
    """A score that is an inner product of a transformed query and a prepared key."""

    def transform_query(self, query: Tensor) -> Tensor:
        """(B, H, *, T, query_dim) -> (B, H, *, T, as wide as prepared keys)."""
        return query

    def scale(self, keys: Tensor) -> float:
        """Return the factor of the inner product that is not in the prepared keys."""
        return 1.0

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        scores, scale = self.transform_query(query) @ keys.transpose(-2, -1), self.scale(keys)
        return scores if scale == 1.0 else scores * scale


def per_head(parameter: Tensor, like: Tensor) -> Tensor:
    """Return a parameter (H, ...) in a shape that broadcasts against `like`, (B, H, *, T, D) or (B, H, *, T, S)."""
    shape = parameter.shape[1:]
    return parameter.view(parameter.size(0), *[1] * (like.dim() - 2 - len(shape)), *shape)


class Additive(Score):
    """score(q, k) = vᵀ tanh(q + k): Bahdanau et al. 2015, equation in appendix A.1.2.

    The paper's W and U are the query and key projections of `AttentionLayer`, so it needs `project_qk=true`. With a
    coverage C, the weight that each key has received so far, vᵀ tanh(q + k + C w): Tu et al. 2016, equation 9 with the
    plain sum of earlier weights as coverage.
    """

    needs_projection = True
    has_coverage = True

    def create_parameters(self, divisor: str, positions: int) -> None:
        self.v = nn.Parameter(torch.empty(self.heads, self.key_dim).uniform_(-1, 1) / math.sqrt(self.key_dim))
        self.coverage: nn.Parameter | None = None

    def add_coverage(self) -> None:
        """Add w to the formula, one vector per head."""
        self.coverage = nn.Parameter(torch.empty(self.heads, self.key_dim).uniform_(-1, 1) / math.sqrt(self.key_dim))

    def reference(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        """Compute the formula as it stands, holding (B, H, *, T, S, D); `coverage`, C, is (B, H, *, T, S)."""
        hidden = query.unsqueeze(-2) + keys.unsqueeze(-3)  # (B, H, *, T, S, D)
        if coverage is not None:
            assert self.coverage is not None
            hidden = hidden + coverage.unsqueeze(-1) * per_head(self.coverage, hidden)
        return (torch.tanh(hidden).to(self.v.dtype) * per_head(self.v, hidden)).sum(-1)

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        return additive_scores(query, keys, self.v) if coverage is None else self.reference(query, keys, coverage)


class Dot(DotProductScore):
    """score(q, k) = qᵀk: Luong et al. 2015, equation 8 ("dot")."""


class ScaledDot(DotProductScore):
    """score(q, k) = qᵀk / √d: Vaswani et al. 2017, equation 1; or another divisor, see `Score`."""

    def create_parameters(self, divisor: str, positions: int) -> None:
        self.divisor = math.sqrt(self.key_dim) if divisor in ("sqrt", "learned") else float(divisor)
        self.learned: nn.Parameter | None = None
        if divisor == "learned":
            # as a logarithm: always above 0, and a step of the optimizer is a fraction of it
            self.learned = nn.Parameter(torch.full((self.heads,), math.log(self.divisor)))

    def precompute(self, keys: Tensor, start: Tensor | int = 0) -> Tensor:
        if self.learned is None:
            return keys / self.divisor if self.scale(keys) == 1.0 else keys
        return (keys * per_head((-self.learned).exp()[:, None, None], keys)).to(keys.dtype)

    def scale(self, keys: Tensor) -> float:
        # a GPU's attention kernels scale at no cost; on a CPU the keys are divided once per sentence
        return 1.0 if self.learned is not None or keys.device.type == "cpu" else 1 / self.divisor

    def learned_scalars(self) -> dict[str, Tensor]:
        return {} if self.learned is None else {"divisor": self.learned.exp()}


class General(DotProductScore):
    """score(q, k) = qᵀWk: Luong et al. 2015, equation 8 ("general"). Wk is computed once per source sentence.

    W = I + V/d, d the key's width, V zero at first: it begins as the dot product and moves d times slower than a matrix
    stored as it is. Adam moves every entry by about the learning rate, so a plain W is carried off by noise before
    attention has learned anything; the step of a d × d matrix wants to shrink with d (Yang et al. 2021, table 3).
    """

    same_width = False

    def create_parameters(self, divisor: str, positions: int) -> None:
        self.v = nn.Parameter(torch.zeros(self.heads, self.query_dim, self.key_dim))

    def weight(self) -> Tensor:
        """Return W, (H, query_dim, key_dim)."""
        identity = torch.eye(self.query_dim, self.key_dim, dtype=self.v.dtype, device=self.v.device)
        return identity + self.v / self.key_dim

    def precompute(self, keys: Tensor, start: Tensor | int = 0) -> Tensor:
        return torch.einsum("bhsk,hqk->bhsq", keys, self.weight().to(keys.dtype))


class Cosine(DotProductScore):
    """score(q, k) = g · qᵀk / (|q| |k|): Henry et al. 2020 (QK-norm), with one learned g per head."""

    initial_scale = 10.0  # about the paper's log2(L² - L) for L = 30, a usual sentence

    def create_parameters(self, divisor: str, positions: int) -> None:
        self.log_scale = nn.Parameter(torch.full((self.heads,), math.log(self.initial_scale)))

    def precompute(self, keys: Tensor, start: Tensor | int = 0) -> Tensor:
        return _direction(keys).to(keys.dtype)

    def transform_query(self, query: Tensor) -> Tensor:
        scale = self.log_scale.exp()[:, None, None]
        return (_direction(query) * per_head(scale, query)).to(query.dtype)

    def learned_scalars(self) -> dict[str, Tensor]:
        return {"scale": self.log_scale.exp()}


def _direction(x: Tensor) -> Tensor:
    """Return x / |x| along the last dimension, in at least fp32; a vector of zeros stays zero."""
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return nn.functional.normalize(x, dim=-1, eps=1e-6)


class Location(DotProductScore):
    """score(q, k at position s) = (W q)_s: Luong et al. 2015, equation after 8 ("location"): where, not what.

    W has one row per position; positions past its last row share that row.
    """

    same_width = False
    positional = True

    def create_parameters(self, divisor: str, positions: int) -> None:
        rows = torch.empty(self.heads, positions, self.query_dim).uniform_(-1, 1)
        self.table = nn.Parameter(rows / math.sqrt(self.query_dim))

    def precompute(self, keys: Tensor, start: Tensor | int = 0) -> Tensor:
        positions = (torch.arange(keys.size(-2), device=keys.device) + start).clamp(max=self.table.size(1) - 1)
        return self.table[:, positions].to(keys.dtype).expand(keys.size(0), -1, -1, -1)


class Hybrid(Additive):
    """score(q, k) = γ · additive(q, k) + (1 - γ) · scaled(q, k), γ = σ(g) with one learned g per head.

    Both use the same projected query and key. γ begins at ½ and is reported with the validation results.
    """

    def create_parameters(self, divisor: str, positions: int) -> None:
        super().create_parameters(divisor, positions)
        self.gate = nn.Parameter(torch.zeros(self.heads))
        self.scaled = ScaledDot(self.heads, self.query_dim, self.key_dim, divisor=divisor)

    def _mix(self, additive: Tensor, query: Tensor, keys: Tensor) -> Tensor:
        scaled: Tensor = self.scaled(query, self.scaled.precompute(keys))
        gate = per_head(torch.sigmoid(self.gate)[:, None, None], additive)
        return gate * additive + (1 - gate) * scaled

    def reference(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        return self._mix(super().reference(query, keys, coverage), query, keys)

    def forward(self, query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        if coverage is not None:
            return self.reference(query, keys, coverage)
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
