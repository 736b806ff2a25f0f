"""Parameter matching: a width is adjusted until a model costs as much as a reference with another score.

Scores have different numbers of parameters, so a better score might only be a larger model. `model.match=parameters`
matches the number of parameters of the reference, `model.match=flops` its FLOPs (see `nmt.models.flops`).
"""

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from nmt.attention import NO_ATTENTION, SCORES
from nmt.config import get_node, leaves
from nmt.models.flops import build_on_meta, flops_per_token, parameter_counts

TOLERANCE = 0.005
"""Maximum relative difference of a matched model from the reference."""

WIDTHS = (
    "embedding_dim",
    "ffn_dim",
    "hidden_size",
    "d_model",
    "attention.dim",
    "encoder_self_attention.dim",
    "decoder_self_attention.dim",
)
"""Options that an error suggests as `match_width`."""

_MAX_STEP = 64
_MAX_WIDTH = 1 << 16


class _Fit(NamedTuple):
    """A width, the cost of the model that has it, and its relative difference from the reference."""

    value: int
    cost: float
    difference: float


def match_parameters(config: Any, source_size: int, target_size: int, *, joint: bool) -> tuple[Any, str]:
    """Return the configuration with its `match_width` adjusted, and a log message; unchanged, and "", for match=none.

    A width that attention takes from another (`dim=0`) follows that one; nothing else changes.

    Args:
        config: of a model, see `nmt.models.MODELS`; it is not modified.
        source_size, target_size: vocabulary sizes.
        joint: both sides share one vocabulary.

    Raises:
        ValueError: no value of the width comes within `TOLERANCE` of the reference; the message has the nearest one,
            and other widths that can be matched. Or the reference cannot be built.
    """
    if config.match == "none":
        return config, ""
    sizes = {"source_size": source_size, "target_size": target_size, "joint": joint}
    target = _reference_cost(config, sizes)
    option, before = config.match_width, _get(config, config.match_width)
    prefix = f"model.match={config.match}"
    try:
        fit = _fit(config, option, target, sizes)
    except ValueError as error:
        hint = _other_widths(config, target, sizes)
        raise ValueError(f"{prefix}: model.{option} cannot be adjusted ({error}); {hint}") from None
    unit = "parameters" if config.match == "parameters" else "FLOPs per target token"
    change = f"{before} → {fit.value}" if fit.value != before else f"stays {before}"
    message = (
        f"model.{option} {change}, {fit.cost:,.0f} {unit}, reference ({config.match_score}) {target:,.0f}: "
        f"{100 * fit.difference:+.2f} %"
    )
    if abs(fit.difference) > TOLERANCE:
        raise ValueError(
            f"{prefix}: nothing comes within {100 * TOLERANCE:g} % of the reference, the nearest is {message}; "
            f"{_other_widths(config, target, sizes)}"
        )
    return _with(config, option, fit.value), f"{prefix}: {message}"


def _reference_cost(config: Any, sizes: dict[str, Any]) -> float:
    """Return the cost of the reference: the same configuration with its score in every layer.

    It has no coverage if its score cannot use one.
    """
    reference = copy.deepcopy(config)
    attention, score = reference.attention, config.match_score
    attention.score = score
    removed = {"score"} if score != NO_ATTENTION and SCORES[score].has_coverage else {"score", "coverage"}
    attention.coverage &= "coverage" not in removed
    attention.per_layer = [
        {name: value for name, value in layer.items() if name not in removed} for layer in attention.per_layer
    ]
    try:
        reference.validate()
        return _cost(reference, sizes)
    except ValueError as error:
        raise ValueError(f"model.match_score={score}: this model has no such reference: {error}") from None


def _cost(config: Any, sizes: dict[str, Any]) -> float:
    """Return parameters or FLOPs of the model of a configuration; ValueError when it cannot be built."""
    if config.match == "flops":
        return flops_per_token(config, **sizes)
    return sum(parameter_counts(build_on_meta(config, **sizes)).values())


def _fit(config: Any, option: str, target: float, sizes: dict[str, Any]) -> _Fit:
    """Return the value of the option whose model is nearest to the target.

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
    low, high = _bracket(cost, target, current or step * -(-128 // step), step)
    while high - low > step:  # interpolation, rounded to a value that is allowed
        fraction = (target - cost(low)) / (cost(high) - cost(low))
        guess = low + step * round(fraction * (high - low) / step)
        guess = min(max(guess, low + step), high - step)
        low, high = (guess, high) if cost(guess) <= target else (low, guess)
    return min(fit(low), fit(high), key=lambda candidate: abs(candidate.difference))


def _bracket(cost: Callable[[int], float], target: float, initial: int, step: int) -> tuple[int, int]:
    """Return multiples of the step between which the cost passes the target; one value twice when it never does."""
    low = high = initial
    if cost(initial) == cost(2 * initial):
        raise ValueError("it has no effect on this model")
    while cost(low) > target:
        if low == step:
            return low, low
        low, high = max(step, low // 2 // step * step), low
    while cost(high) <= target:
        if high > _MAX_WIDTH:
            return high, high
        low, high = high, 2 * high
    return low, high


def _step(config: Any, option: str, sizes: dict[str, Any]) -> int:
    """Return the distance of neighboring values that the model can have, because of heads, halves and tying."""
    last_error: Exception | None = None
    for step in range(1, _MAX_STEP + 1):
        changed = _with(config, option, _get(config, option) + step)
        try:
            changed.validate()
            build_on_meta(changed, **sizes)
            return step
        except ValueError as error:
            last_error = error
    raise ValueError(str(last_error))


def _other_widths(config: Any, target: float, sizes: dict[str, Any]) -> str:
    """Return a hint about widths that can be matched, for the end of an error."""
    widths = []
    for option in WIDTHS:
        if option != config.match_width and option in leaves(config):
            with contextlib.suppress(ValueError):
                if abs(_fit(config, option, target, sizes).difference) <= TOLERANCE:
                    widths.append(f"model.match_width={option}")
    return f"{' or '.join(widths)} would do" if widths else "no other width comes near enough either"


def _get(config: Any, option: str) -> int:
    parent, _, name = option.rpartition(".")
    value: int = getattr(get_node(config, parent), name)
    return value


def _with(config: Any, option: str, value: int) -> Any:
    """Return a copy with another value of the option."""
    changed = copy.deepcopy(config)
    parent, _, name = option.rpartition(".")
    setattr(get_node(changed, parent), name, value)
    return changed
