"""The options of an attention, and which of them go together."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from nmt.attention.normalizers import NORMALIZERS
from nmt.attention.scores import SCORES
from nmt.attention.windows import CROSS, WINDOWS
from nmt.config import check_choice, check_range
from nmt.plugins import OWNERS

NO_ATTENTION = "none"
MAX_HEADS = 4096


@dataclass
class AttentionConfig:
    """The options of the attention in one place of a model.

    score: how a query is compared with a key: a compatibility function, a list with one per head, or none. With none,
        which only cross-attention can have, every target position sees one fixed vector, the source summary.
    heads: number of heads; with more than one, values are projected too, and the heads' contexts are joined by a
        projection.
    dim: width of projected queries and keys, all heads together; 0: as wide as the query.
    project_qk: project queries and keys to `dim` before they are compared. Without it the score compares the states
        themselves (Luong's own "dot"); additive and hybrid need it, because the projections are the W and U of their
        formula.
    divisor: the scores scaled and hybrid divide by it: sqrt (of a head's width), learned (one per head), or a number.
    max_positions: with score location: number of distinct source positions; later ones share the last.
    normalizer: how scores become weights: softmax; sparsemax or entmax15, whose small weights are exactly 0; or top_k,
        the softmax of the `top_k` highest scores.
    top_k: with normalizer top_k: how many keys keep a weight.
    window: which keys a query may attend to: global = all; local_m or local_p = those around the position of the query
        or a predicted one (cross-attention, Luong et al. 2015); sliding = its neighbors (self-attention).
    window_size: with a window: positions on each side of its center.
    coverage: additive and hybrid scores depend on the weight that each source position has received so far;
        cross-attention only.
    dropout: probability with which a weight is dropped in training; the weights that are shown are those before it.
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
        """Return the options of one layer."""
        changes = self.per_layer[number] if self.per_layer else {}
        return dataclasses.replace(self, **{**changes, "per_layer": []})

    def unused_options(self, default: "AttentionConfig") -> list[str]:
        """Return the options that differ from `default` and have no effect, such as `top_k` without top_k."""
        layers = [self.for_layer(number) for number in range(len(self.per_layer))] or [self]
        scores = {score for layer in layers for score in layer.scores}
        own = {entry for _, entry in OWNERS}  # of plugins, which may use any option
        has_effect = {
            "top_k": any(layer.normalizer in own | {"top_k"} for layer in layers),
            "window_size": any(layer.window != "global" for layer in layers),
            "divisor": bool(scores & (own | {"scaled", "hybrid"})),
            "max_positions": bool(scores & (own | {"location"})),
            "dim": any(layer.project_qk for layer in layers),
        }
        if scores == {NO_ATTENTION}:
            has_effect = {f.name: f.name in ("score", "per_layer") for f in dataclasses.fields(self)}
        return [
            name for name, effect in has_effect.items() if not effect and getattr(self, name) != getattr(default, name)
        ]

    def validate_at(self, path: str, attention_type: str, num_layers: int = 1) -> None:
        """Raise ValueError for a value that is not allowed or a combination that is impossible.

        Args:
            path: of this node, such as "model.attention", for messages.
            attention_type: one of `ATTENTION_TYPES`.
            num_layers: number of layers with this attention.
        """
        if not self.per_layer:
            self._validate_layer(path, attention_type)
            return
        if len(self.per_layer) != num_layers:
            raise ValueError(
                f"{path}.per_layer has {len(self.per_layer)} entries: {num_layers} layers attend here; give one "
                "mapping for each, {} where nothing differs"
            )
        options = {f.name for f in dataclasses.fields(self)} - {"per_layer", "heads"}
        for number, changes in enumerate(self.per_layer):
            for option in changes:
                if option in options:
                    continue
                why = "all layers have the same number" if option == "heads" else "no option of an attention"
                raise ValueError(f"{path}.per_layer: {option} cannot differ by layer ({why})")
            self.for_layer(number)._validate_layer(f"{path}.per_layer[{number}]", attention_type)

    def _validate_layer(self, path: str, attention_type: str) -> None:
        self._validate_values(path)
        self._validate_score(path, attention_type)
        if attention_type not in WINDOWS[self.window].attention_types:
            place, windows, why = (
                ("cross-attention", "local_m or local_p", "it needs queries and keys of one sentence")
                if attention_type == CROSS
                else ("self-attention", "sliding", "it looks for the source position that belongs to a target position")
            )
            raise ValueError(f"{path}.window={self.window} does not work in {place}: {why}; use {windows}, or global")

    def _validate_values(self, path: str) -> None:
        """Check each option by itself. Values of `per_layer` may have any type."""

        def check(option: str, is_valid: bool, requirement: str) -> None:
            if not is_valid:
                raise ValueError(f"{path}.{option}={getattr(self, option)}: must be {requirement}")

        for option, minimum in (("heads", 1), ("dim", 0), ("max_positions", 1), ("top_k", 1), ("window_size", 1)):
            value = getattr(self, option)
            check(option, type(value) is int and value >= minimum, f"a whole number of at least {minimum}")
        check("heads", self.heads <= MAX_HEADS, f"at most {MAX_HEADS}")  # before there is a list of them
        check_range(path, self, ["dropout"], minimum=0, below=1)
        for option in ("project_qk", "coverage"):
            check(option, isinstance(getattr(self, option), bool), "true or false")
        check("divisor", _is_divisor(self.divisor), "sqrt, learned or a number above 0")
        check("dim", self.dim % self.heads == 0, f"a multiple of {path}.heads={self.heads}")
        check_choice(path, self, "normalizer", NORMALIZERS)
        check_choice(path, self, "window", WINDOWS)

    def _validate_score(self, path: str, attention_type: str) -> None:
        names = self.scores
        allowed = [*SCORES, NO_ATTENTION] if attention_type == CROSS and not isinstance(self.score, list) else [*SCORES]
        for name in names:
            if name == NO_ATTENTION and attention_type != CROSS:
                raise ValueError(f"{path}.score=none: only cross-attention can be left out; use window=sliding here")
            if name not in allowed:
                raise ValueError(f"{path}.score={name}: must be one of {', '.join(allowed)}, or a list with one a head")
        if len(names) != self.heads:
            raise ValueError(
                f"{path}.score=[{','.join(names)}]: {len(names)} scores for {path}.heads={self.heads}; give one a head"
            )
        kinds = {name: SCORES[name] for name in names if name != NO_ATTENTION}
        unprojected = [name for name, kind in kinds.items() if kind.needs_projection and not self.project_qk]
        if unprojected:
            raise ValueError(
                f"{path}.project_qk=false: the {unprojected[0]} score needs its projections (the W and U of "
                "vᵀ tanh(Wq + Uk)); use project_qk=true, or score=general for unprojected states of different widths"
            )
        has_coverage = bool(kinds) and all(kind.has_coverage for kind in kinds.values())
        if self.coverage and not (attention_type == CROSS and has_coverage):
            able = " or ".join(name for name, kind in SCORES.items() if kind.has_coverage)
            place = f"{path}.score={','.join(dict.fromkeys(names))}" if attention_type == CROSS else "self-attention"
            raise ValueError(
                f"{path}.coverage=true does not work with {place}: coverage enters the formula of {able} "
                "in cross-attention; for any other score use train.coverage_loss_weight"
            )


def _is_divisor(value: Any) -> bool:
    if value in ("sqrt", "learned"):
        return True
    try:
        return not isinstance(value, bool) and 0 < float(value) < math.inf
    except (TypeError, ValueError, OverflowError):
        return False
