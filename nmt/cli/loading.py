"""Models that commands load, with the options of both."""

from collections.abc import Sequence
from typing import Any

import torch

from nmt import checkpoint
from nmt.cli.configs import AlignConfig, Config, ScoreConfig, ServeConfig, TranslateConfig
from nmt.cli.continuation import merge_with_checkpoint
from nmt.data import DataConfig
from nmt.inference.aligner import check_directions
from nmt.inference.translator import Translator

Command = AlignConfig | ScoreConfig | ServeConfig | TranslateConfig


def load_translator(
    paths: Any, device: torch.device, config: Command | None = None, overrides: Sequence[str] = ()
) -> tuple[Translator, Config]:
    """Return the model of a run or checkpoint file, or the ensemble of a list of them, and its options: those of its
    (first) checkpoint, overridden by a command's as in `merge_with_checkpoint`, which has the errors."""
    contents = [checkpoint.load(checkpoint.resolve(p), device) for p in (paths if isinstance(paths, list) else [paths])]
    options = Config.from_checkpoint(contents[0])
    options = options if config is None else merge_with_checkpoint(options, config, overrides)
    return Translator.from_checkpoints(contents, options.search, device), options


def load_reverse(
    config: AlignConfig | ScoreConfig | TranslateConfig,
    data: DataConfig,
    device: torch.device,
    overrides: Sequence[str],
) -> tuple[Translator, Config]:
    """Return the model `reverse` of a command as `load_translator` does, in the direction opposite to that of the first
    model, which was trained on `data`; errors are also those of `check_directions`."""
    translator, options = load_translator(config.reverse, device, config, overrides)
    both = config.checkpoint, data, config.reverse, options.data
    return translator.into(options.data, check_directions(*both, config.target_lang)), options
