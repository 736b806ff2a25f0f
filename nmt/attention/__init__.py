"""Attention = projections, a score, a mask, a softmax and a weighted sum: the only place where they meet."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmt.attention.scores import SCORES, Score

__all__ = ["SCORES", "Attention", "AttentionConfig", "Score"]


@dataclass
class AttentionConfig:
    """What aligns a target position with the source.

    score: a key of `SCORES`, or "none": every target position sees one fixed vector (the last encoder states).
    project: project queries and keys to `dim` before they are compared. Without it the score sees the states as they
        are (Luong's own "dot"); additive needs it, because the projections are the W and U of its formula.
    dim: width of projected queries and keys.
    """

    score: str = "additive"
    project: bool = True
    dim: int = 128

    def validate(self) -> None:
        """Raises ValueError for an unknown score or an impossible combination."""
        allowed = [*SCORES, "none"]
        if self.score not in allowed:
            raise ValueError(f"model.attention.score={self.score}: must be one of {', '.join(allowed)}")
        if self.dim < 1:
            raise ValueError(f"model.attention.dim={self.dim}: must be at least 1")
        if self.score == "additive" and not self.project:
            raise ValueError(
                "model.attention.project=false: the additive score needs its projections (the W and U of "
                "vᵀ tanh(Wq + Uk)); use project=true, or score=general for unprojected states of different widths"
            )


class Attention(nn.Module):
    """Weights over the source for each query, and the values summed with them.

    Args:
        config: score, projections and their width.
        query_dim: width of a query.
        key_dim: width of a key.
    """

    def __init__(self, config: AttentionConfig, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.query: nn.Module = nn.Linear(query_dim, config.dim, bias=False) if config.project else nn.Identity()
        self.key: nn.Module = nn.Linear(key_dim, config.dim, bias=False) if config.project else nn.Identity()
        widths = (config.dim, config.dim) if config.project else (query_dim, key_dim)
        self.score = SCORES[config.score](*widths)

    def prepare(self, keys: Tensor) -> Tensor:
        """Everything that depends on the keys only, once per source sentence: (B, S, key_dim) -> (B, S, any)."""
        prepared: Tensor = self.score.prepare(self.key(keys))
        return prepared

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attends.

        Args:
            query: (B, T, query_dim).
            keys: (B, S, any), from `prepare`.
            values: (B, S, D).
            mask: (B, S), True where a key may be attended; at least one per row.

        Returns:
            context (B, T, D) and weights (B, T, S): rows sum to 1 and are exactly 0 where the mask is False.
        """
        scores = self.score(self.query(query), keys)  # (B, T, S)
        weights = torch.softmax(scores.masked_fill(~mask.unsqueeze(-2), float("-inf")), dim=-1)
        return weights.to(values.dtype) @ values, weights
