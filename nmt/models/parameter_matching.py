"""Models of one size: a width gives way until a model costs as much as a reference with another score.

Scores bring parameters of their own, so a better score might only be a larger model. With `model.match=parameters` or
`model.match=flops` a run is given the reference's number of parameters, or of FLOPs as `nmt.models.flops` counts them.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from nmt.attention import NONE, SCORES
from nmt.config import get_node, leaves
from nmt.models.flops import build_on_meta, flops_per_token, parameter_counts

TOLERANCE = 0.005
"""How far from the reference a matched model may be, as a share."""

WIDTHS = (
    "embedding_dim",
    "ffn_dim",
    "hidden_size",
    "d_model",
    "attention.dim",
    "encoder_self_attention.dim",
    "decoder_self_attention.dim",
)
"""Options that an error proposes as `match_width`."""

_LONGEST_STEP = 64
_LARGEST = 1 << 16


class _Sizes(NamedTuple):
    source: int
    target: int
    joint: bool


class _Fit(NamedTuple):
    """A width, the budget of the model that has it, and how far that is from the reference's, as a share."""

    value: int
    budget: float
    off: float


def match_parameters(config: Any, source_size: int, target_size: int, *, joint: bool) -> tuple[Any, str]:
    """The configuration with its `match_width` adjusted, and a sentence about it; as it is, and "", for match=none.

    A width that attention takes from another (`dim=0`) follows that one; nothing else changes.

    Args:
        config: of a model, see `nmt.models.MODELS`; it is left as it is.
        source_size, target_size: vocabulary sizes.
        joint: both sides share one vocabulary.

    Raises:
        ValueError: no value of the width comes within `TOLERANCE` of the reference; the message says how near it came,
            and which other widths would do. Or the reference cannot be built.
    """
    if config.match == NONE:
        return config, ""
    sizes = _Sizes(source_size, target_size, joint)
    target = _reference_cost(config, sizes)
    option, before = config.match_width, _get(config, config.match_width)
    head = f"model.match={config.match}"
    try:
        fit = _fit(config, option, target, sizes)
    except ValueError as error:
        others = _others(config, target, sizes)
        raise ValueError(f"{head}: model.{option} cannot be adjusted ({error}); {others}") from None
    unit = "parameters" if config.match == "parameters" else "FLOPs per target token"
    change = f"{before} → {fit.value}" if fit.value != before else f"stays {before}"
    said = (
        f"model.{option} {change}, {fit.budget:,.0f} {unit}, reference ({config.match_score}) {target:,.0f}: "
        f"{100 * fit.off:+.2f} %"
    )
    if abs(fit.off) > TOLERANCE:
        raise ValueError(
            f"{head}: nothing comes within {100 * TOLERANCE:g} % of the reference, the nearest is {said}; "
            f"{_others(config, target, sizes)}"
        )
    return _with(config, option, fit.value), f"{head}: {said}"


def _reference_cost(config: Any, sizes: _Sizes) -> float:
    """What the reference costs: the same configuration with its score in every layer.

    It has no coverage where its score cannot use one.
    """
    reference = copy.deepcopy(config)
    attention, score = reference.attention, config.match_score
    attention.score = score
    changes: dict[str, Any] = {} if score != NONE and SCORES[score].has_coverage else {"coverage": False}
    attention.coverage &= not changes
    attention.per_layer = [
        {name: changes.get(name, value) for name, value in layer.items() if name != "score"}
        for layer in attention.per_layer
    ]
    try:
        reference.validate()
        return _cost(reference, sizes)
    except ValueError as error:
        raise ValueError(f"model.match_score={score}: this model has no such reference: {error}") from None


def _cost(config: Any, sizes: _Sizes) -> float:
    """What is matched, of the model of a configuration; ValueError when it cannot be built."""
    if config.match == "flops":
        return flops_per_token(config, sizes.source, sizes.target, joint=sizes.joint)
    return sum(parameter_counts(build_on_meta(config, sizes.source, sizes.target, joint=sizes.joint)).values())


def _fit(config: Any, option: str, target: float, sizes: _Sizes) -> _Fit:
    """The value of the option whose model is nearest to the target.

    Raises:
        ValueError: the option has one value only beside the model's other options, or no effect.
    """

    @functools.cache
    def cost(value: int) -> float:
        return _cost(_with(config, option, value), sizes)

    def fit(value: int) -> _Fit:
        return _Fit(value, cost(value), cost(value) / target - 1)

    current = _get(config, option)
    if cost(current) == target:
        return fit(current)
    step = _step(config, option, sizes)
    begin = current or step * -(-128 // step)
    low, high = _bracket(cost, target, begin, step)
    while high - low > step:  # interpolation, rounded to a value that is allowed
        share = (target - cost(low)) / (cost(high) - cost(low))
        guess = low + step * round(share * (high - low) / step)
        guess = min(max(guess, low + step), high - step)
        low, high = (guess, high) if cost(guess) <= target else (low, guess)
    return min(fit(low), fit(high), key=lambda found: abs(found.off))


def _bracket(cost: Callable[[int], float], target: float, begin: int, step: int) -> tuple[int, int]:
    """Values between which the cost passes the target, multiples of the step; one value twice when it never does."""
    low = high = begin
    if cost(begin) == cost(2 * begin):
        raise ValueError("it has no effect on this model")
    while cost(low) > target:
        if low == step:
            return low, low
        low, high = max(step, low // 2 // step * step), low
    while cost(high) <= target:
        if high > _LARGEST:
            return high, high
        low, high = high, 2 * high
    return low, high


def _step(config: Any, option: str, sizes: _Sizes) -> int:
    """The distance of neighbouring values that the model can have, because of heads, halves and ties."""
    why: Exception | None = None
    for step in range(1, _LONGEST_STEP + 1):
        changed = _with(config, option, _get(config, option) + step)
        try:
            changed.validate()
            build_on_meta(changed, sizes.source, sizes.target, joint=sizes.joint)
        except ValueError as error:
            why = error
            continue
        return step
    raise ValueError(str(why))


def _others(config: Any, target: float, sizes: _Sizes) -> str:
    """Which widths come near enough, for the end of an error."""
    able = []
    for option in WIDTHS:
        if option == config.match_width or option not in leaves(config):
            continue
        try:
            fit = _fit(config, option, target, sizes)
        except ValueError:
            continue
        if abs(fit.off) <= TOLERANCE:
            able.append(f"model.match_width={option}")
    return f"{' or '.join(able)} would do" if able else "no other width comes near enough either"


def _get(config: Any, option: str) -> int:
    parent, _, name = option.rpartition(".")
    value: int = getattr(get_node(config, parent), name)
    return value


def _with(config: Any, option: str, value: int) -> Any:
    """A copy with another value of the option."""
    changed = copy.deepcopy(config)
    parent, _, name = option.rpartition(".")
    setattr(get_node(changed, parent), name, value)
    return changed
