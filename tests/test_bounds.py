"""The bounds of numeric options: a bound that is allowed is taken, the next value beyond it is refused by name."""

import dataclasses
import math
from typing import Any

import pytest

from nmt.alignment import AlignmentConfig
from nmt.attention import CROSS, AttentionConfig
from nmt.data import DataConfig
from nmt.search import SearchConfig
from nmt.training.optim import OptimConfig
from nmt.training.trainer import TrainConfig

COUNT, WHOLE = ([1, 2], [0, -1]), ([0, 1], [-1])  # values that are taken, values that are refused
FINITE = ([0.0, 1e-3, 1e3], [-1e-3, math.inf, math.nan])
RATE = ([0.0, 0.999], [-1e-3, 1.0, math.nan])
BOUNDS: dict[Any, dict[str, tuple[list[Any], list[Any]]]] = {
    SearchConfig: {
        **dict.fromkeys(("beam_size", "batch_size", "n_best", "diverse_groups", "mbr_samples"), COUNT),
        **dict.fromkeys(("batch_tokens", "no_repeat_ngram_size", "top_k", "min_length_offset", "seed"), WHOLE),
        **dict.fromkeys(("length_penalty", "coverage_penalty", "diversity_penalty", "max_length_ratio"), FINITE),
        **dict.fromkeys(("max_length_offset", "lookahead"), WHOLE),
        "min_length_ratio": ([0.0, 0.5, 2.0], [-1e-3, math.inf, math.nan]),
        "temperature": ([1e-3, 5.0], [0.0, -1.0, math.inf, math.nan]),
        "top_p": ([1e-3, 1.0], [0.0, 1.001, math.nan]),
    },
    OptimConfig: {
        **dict.fromkeys(("learning_rate", "epsilon"), ([1e-12, 1.0], [0.0, -1e-3, math.nan])),
        **dict.fromkeys(("warmup_updates", "plateau_patience"), WHOLE),
        **dict.fromkeys(("weight_decay", "clip_norm"), ([0.0, 2.0], [-1e-3, math.nan])),
        **dict.fromkeys(("beta1", "beta2", "min_lr_ratio", "plateau_factor"), RATE),
    },
    TrainConfig: {
        **dict.fromkeys(("devices", "gradient_accumulation", "log_every", "batch_tokens", "max_updates"), COUNT),
        **dict.fromkeys(("valid_every", "save_every", "keep_best_checkpoints"), COUNT),
        **dict.fromkeys(("max_epochs", "valid_bleu_sentences", "patience", "guided_layer", "guided_head"), WHOLE),
        **dict.fromkeys(("max_minutes", "coverage_loss_weight", "r_drop_alpha", "guided_alignment_weight"), FINITE),
        **dict.fromkeys(("ema_decay", "label_smoothing", "word_dropout", "target_word_dropout"), RATE),
        "keep_last_checkpoints": ([2, 3], [1, 0]),
        "max_grad_norm_ratio": ([0.0, 1.001, 9.0], [1.0, 0.5, -2.0, math.inf, math.nan]),
    },
    AttentionConfig: {
        **dict.fromkeys(("heads", "max_positions", "top_k", "window_size"), COUNT),
        "dim": WHOLE,
        "dropout": RATE,
        "divisor": ([1e-3, 7, "sqrt", "learned", "2.5"], [0, -1.0, math.inf, True, "one", None]),
    },
    AlignmentConfig: {
        "selection_pairs": COUNT,
        "head_importance_pairs": WHOLE,
        "threshold": ([1e-3, 1.0], [0.0, 1.001, math.nan]),
        "layer": (["auto", "mean", "1", "12"], ["0", "-1", "first", ""]),
    },
    DataConfig: {"max_length": COUNT},
}
CASES = [(kind, option, *values) for kind, options in BOUNDS.items() for option, values in options.items()]


def validate(config: Any) -> None:
    if isinstance(config, AttentionConfig):
        config.validate_at("model.attention", CROSS)
    else:
        config.validate()


@pytest.mark.parametrize(
    ("kind", "option", "allowed", "refused"), CASES, ids=[f"{c[0].__name__}.{c[1]}" for c in CASES]
)
def test_bounds(kind: Any, option: str, allowed: list[Any], refused: list[Any]) -> None:
    base = kind(beam_size=2) if kind is SearchConfig else kind()
    for value in allowed:
        validate(dataclasses.replace(base, **{option: value}))
    for value in refused:
        with pytest.raises(ValueError, match=rf"\.{option}=.*: must be "):
            validate(dataclasses.replace(base, **{option: value}))


@pytest.mark.parametrize("kind", [SearchConfig, OptimConfig, TrainConfig, AlignmentConfig, AttentionConfig])
def test_every_number_has_bounds_and_its_default_lies_within(kind: Any) -> None:
    validate(kind())
    numbers = {f.name for f in dataclasses.fields(kind) if f.type in ("int", "float", int, float)}
    assert numbers <= BOUNDS[kind].keys()
