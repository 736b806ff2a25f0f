"""The options of one attention, and which of them go together."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from nmt.attention.normalizers import NORMALIZERS
from nmt.attention.scores import SCORES
from nmt.attention.windows import CROSS, WINDOWS

NONE = "none"


@dataclass
class AttentionConfig:
    """How one place of a model attends.

    score: compatibility function (see `SCORES`), a list with one per head, or none. With none, which only
        cross-attention can have, every target position sees one fixed vector, the source's summary.
    heads: how many compare in parallel; with more than one, values are projected too, and the heads' contexts are
        joined by a projection.
    dim: width of projected queries and keys, all heads together; 0: as wide as the query.
    project_qk: project queries and keys to `dim` before they are compared. Without it the score sees the states as they
        are (Luong's own "dot"); additive and hybrid need it, because the projections are the W and U of their formula.
    divisor: of scaled and hybrid: "sqrt" (of a head's width), "learned" (one per head), or a number.
    max_positions: of location: source positions that are told apart; later ones share the last.
    normalizer: softmax, sparsemax, entmax15 or top_k.
    top_k: of top_k: how many keys keep a weight.
    window: global, local_m or local_p.
    window_size: of a window: positions on each side of its centre.
    coverage: additive and hybrid scores see what each source position has received so far; cross-attention only.
    dropout: of weights; recorded weights are those before it.
    per_layer: one mapping per layer with the options that differ there, as [{score: additive}, {}, {score: dot}].
    """

    score: Any = "scaled"
    heads: int = 1
    dim: int = 0
    project_qk: bool = True
    divisor: Any = "sqrt"
    max_positions: int = 512
    normalizer: str = "softmax"
    top_k: int = 8
    window: str = "global"
    window_size: int = 10
    coverage: bool = False
    dropout: float = 0.0
    per_layer: list[dict[str, Any]] = field(default_factory=list)

    @property
    def scores(self) -> list[str]:
        """The score of every head."""
        return list(self.score) if isinstance(self.score, list | tuple) else [self.score] * self.heads

    def for_layer(self, number: int) -> "AttentionConfig":
        """The setting of one layer."""
        changes = self.per_layer[number] if self.per_layer else {}
        return dataclasses.replace(self, **{**changes, "per_layer": []})

    def unused_options(self, default: "AttentionConfig") -> list[str]:
        """Options that differ from `default` and change nothing, such as `top_k` without top_k."""
        layers = [self.for_layer(number) for number in range(len(self.per_layer))] or [self]
        scores = {score for layer in layers for score in layer.scores}
        matters = {
            "top_k": any(layer.normalizer == "top_k" for layer in layers),
            "window_size": any(layer.window != "global" for layer in layers),
            "divisor": bool(scores & {"scaled", "hybrid"}),
            "max_positions": "location" in scores,
            "dim": any(layer.project_qk for layer in layers),
        }
        if scores == {NONE}:
            matters = dict.fromkeys(
                (f.name for f in dataclasses.fields(self) if f.name not in ("score", "per_layer")), False
            )
        return [name for name, used in matters.items() if not used and getattr(self, name) != getattr(default, name)]

    def validate_at(self, path: str, site: str, num_layers: int = 1) -> None:
        """Raises ValueError for a value that is not allowed or a combination that cannot be.

        Args:
            path: of this node, such as "model.attention", for messages.
            site: one of `ATTENTION_TYPES`.
            num_layers: how many layers attend here.
        """
        if self.per_layer and len(self.per_layer) != num_layers:
            raise ValueError(
                f"{path}.per_layer has {len(self.per_layer)} entries: {num_layers} layers attend here; give one mapping "
                "for "
                "each, {} where nothing differs"
            )
        for number, changes in enumerate(self.per_layer):
            known = {f.name for f in dataclasses.fields(self)} - {"per_layer", "heads"}
            for option in changes:
                if option not in known:
                    why = "all layers have the same number" if option == "heads" else "no option of an attention"
                    raise ValueError(f"{path}.per_layer: {option} cannot differ by layer ({why})")
            self.for_layer(number)._validate_layer(f"{path}.per_layer[{number}]", site)
        if not self.per_layer:
            self._validate_layer(path, site)

    def _validate_layer(self, path: str, site: str) -> None:
        self._validate_values(path)
        for option, allowed in (("normalizer", NORMALIZERS), ("window", WINDOWS)):
            if getattr(self, option) not in tuple(allowed):  # a value from `per_layer` may be anything, a list as well
                raise ValueError(f"{path}.{option}={getattr(self, option)}: must be one of {', '.join(allowed)}")
        self._validate_score(path, site)
        if site not in WINDOWS[self.window].attention_types:
            here, works = ("cross-attention", "local_m or local_p") if site == CROSS else ("self-attention", "sliding")
            why = (
                "it needs queries and keys of one sentence"
                if site == CROSS
                else "it looks for the source position that belongs to a target position"
            )
            raise ValueError(f"{path}.window={self.window} does not work in {here}: {why}; use {works}, or global")

    def _validate_values(self, path: str) -> None:
        for option, least in (("heads", 1), ("dim", 0), ("max_positions", 1), ("top_k", 1), ("window_size", 1)):
            value = getattr(self, option)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{path}.{option}={value}: must be a whole number of at least {least}")
        number = isinstance(self.dropout, int | float) and not isinstance(self.dropout, bool)
        if not number or not 0 <= self.dropout < 1:
            raise ValueError(f"{path}.dropout={self.dropout}: must be at least 0 and below 1")
        for option in ("project_qk", "coverage"):
            if not isinstance(getattr(self, option), bool):
                raise ValueError(f"{path}.{option}={getattr(self, option)}: must be true or false")
        if self.divisor not in ("sqrt", "learned"):
            try:
                good = not isinstance(self.divisor, bool) and 0 < float(self.divisor) < math.inf
            except (TypeError, ValueError, OverflowError):
                good = False
            if not good:
                raise ValueError(f"{path}.divisor={self.divisor}: must be sqrt, learned or a number above 0")
        if self.dim % self.heads:
            raise ValueError(f"{path}.dim={self.dim}: must be a multiple of {path}.heads={self.heads}")

    def _validate_score(self, path: str, site: str) -> None:
        names = self.scores
        allowed = [*SCORES, NONE] if site == CROSS and not isinstance(self.score, list) else [*SCORES]
        for name in names:
            if name == NONE and site != CROSS:
                raise ValueError(f"{path}.score=none: only cross-attention can be left out; use window=sliding here")
            if name not in allowed:
                raise ValueError(f"{path}.score={name}: must be one of {', '.join(allowed)}, or a list with one a head")
        if len(names) != self.heads:
            raise ValueError(
                f"{path}.score=[{','.join(names)}]: {len(names)} scores for {path}.heads={self.heads}; give one a head"
            )
        chosen = set(names) - {NONE}
        if not self.project_qk and (
            needy := [name for name in names if name in SCORES and SCORES[name].needs_projection]
        ):
            raise ValueError(
                f"{path}.project_qk=false: the {needy[0]} score needs its projections (the W and U of vᵀ tanh(Wq + Uk)); "
                "use project_qk=true, or score=general for unprojected states of different widths"
            )
        if self.coverage and (site != CROSS or not chosen or not all(SCORES[name].has_coverage for name in chosen)):
            able = " or ".join(name for name, score in SCORES.items() if score.has_coverage)
            where = f"{path}.score={','.join(dict.fromkeys(names))}" if site == CROSS else "self-attention"
            raise ValueError(
                f"{path}.coverage=true does not work with {where}: coverage enters the formula of {able} "
                "in cross-attention; for any other score use train.coverage_loss_weight"
            )
