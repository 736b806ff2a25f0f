"""Models that commands load, with the options of both."""

from collections.abc import Sequence
from typing import Any

from nmt import checkpoint
from nmt.cli.configs import AlignConfig, CleanConfig, Config, ScoreConfig, ServeConfig, TranslateConfig
from nmt.cli.continuation import merge_with_checkpoint
from nmt.data import DataConfig
from nmt.inference.aligner import check_directions
from nmt.inference.translator import Translator
from nmt.runtime.device import resolve_device

Command = AlignConfig | ScoreConfig | ServeConfig | TranslateConfig


def load_translator(
    paths: Any, config: Command | CleanConfig, overrides: Sequence[str] = ()
) -> tuple[Translator, Config]:
    """Return the model of a run or checkpoint file, or the ensemble of a list of them, on the device of a command, and
    its options: those of its (first) checkpoint, overridden by the command's as in `merge_with_checkpoint`, which has
    the errors; to clean a corpus, those of the checkpoint."""
    device = resolve_device(config.device)
    contents = [checkpoint.load(checkpoint.resolve(p), device) for p in (paths if isinstance(paths, list) else [paths])]
    options = Config.from_checkpoint(contents[0])
    options = options if isinstance(config, CleanConfig) else merge_with_checkpoint(options, config, overrides)
    return Translator.from_checkpoints(contents, options.search, device), options


def load_reverse(
    config: AlignConfig | ScoreConfig | TranslateConfig, data: DataConfig, overrides: Sequence[str]
) -> tuple[Translator, Config]:
    """Return the model `reverse` of a command as `load_translator` does, in the direction opposite to that of the first
    model, which was trained on `data`; errors are also those of `check_directions`."""
    translator, options = load_translator(config.reverse, config, overrides)
    both = config.checkpoint, data, config.reverse, options.data
    return translator.into(options.data, check_directions(*both, config.target_lang)), options
