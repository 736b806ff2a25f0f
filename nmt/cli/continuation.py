"""Continue a run, or use its checkpoint, under options given again: what may differ, and what comes from where."""

import copy
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from nmt.cli.config_groups import group_options
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig, ExportConfig, ServeConfig, TranslateConfig
from nmt.config import diff, get_node, leaves, to_dict, validate
from nmt.data import SOURCES, alignment_path, resolve_split
from nmt.data.fingerprints import file_fingerprint
from nmt.data.sources import dataset_fingerprint
from nmt.data.word_alignments import training_alignment_paths

# Options (or nodes) that do not make another run of a run: they may change when it is continued, and are no part of
# its name.
RESUMABLE_OPTIONS = (
    "name",
    "runs",
    "device",
    "num_threads",
    "data.cache_dir",
    "data.test",
    "data.extra_tests",
    "train.devices",
    "train.max_updates",
    "train.max_minutes",
    "train.log_every",
    "train.valid_every",
    "train.save_every",
    "train.patience",
    "train.keep_last_checkpoints",
    "train.keep_best_checkpoints",
    "train.average_checkpoints",
    "search",
    "metrics",
    "alignment",
)


def retention_only_options(config: Config) -> set[str]:
    """Return the options that select checkpoints of which no mean is made, so that they do not affect the result."""
    of_last, of_best = {"train.keep_last_checkpoints", "train.save_every"}, {"train.keep_best_checkpoints"}
    return {"none": of_last | of_best, "last": of_best, "best": of_last}[config.train.average_checkpoints]


def has_prefix(path: str, tops: Sequence[str]) -> bool:
    """Return whether an option is one of `tops` or lies below one of them."""
    return any(path == top or path.startswith(top + ".") for top in tops)


def check_continuation(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to continue a run under a configuration that would make it another run.

    Args:
        old, new: stored configurations (`to_primitive`). What an older version did not know is taken for its default.

    Raises:
        ValueError: options outside `FREE` differ, or are unknown to this version; the message lists them and says what
            to do.
    """
    old = to_dict(Config.from_dict(old))
    changed = [line for line in diff(old, new) if not has_prefix(line.partition(":")[0], RESUMABLE_OPTIONS)]
    if changed:
        raise ValueError(
            f"the run {new.get('name')} was started with other options ({'; '.join(changed)}): give this one another "
            f"name (name=…), or delete the folder {new.get('runs')}/{new.get('name')} to start again"
        )


def data_fingerprints(config: Config) -> dict[str, list[list[str]]]:
    """Return for each split a list of [file or place, SHA-256] that training reads; digests count, not names."""
    data = config.data
    read: dict[str, list[list[str]]] = {}
    for split in ("train", "valid"):
        files = [path for place in resolve_split(data, split) for path in SOURCES[data.format].files(data, place)]
        if split == "train" and config.train.guided_alignment_weight:
            files += training_alignment_paths(data)
        elif split == "valid" and (gold := alignment_path(data, split)) is not None:
            files.append(gold)
        read[split] = [[str(path), file_fingerprint(path).hex()] for path in files]
        if data.format == "hub":
            read[split].append(
                [f"{data.hf_dataset} ({', '.join(resolve_split(data, split))})", dataset_fingerprint(data, split)]
            )
    return read


def merge_with_checkpoint(
    trained: Config,
    config: EvaluateConfig | TranslateConfig | ExportConfig | AlignConfig | ServeConfig,
    overrides: Sequence[str],
) -> Config:
    """Return the configuration a checkpoint was trained with, under what the command line gave.

    Args:
        trained: the checkpoint's configuration; left as it is.
        config: what the command composed.
        overrides: the arguments it was given; only the options they name replace those of the checkpoint. `device` and
            `threads` belong to the machine and always come from the command.

    Raises:
        ValueError: an option was given that the checkpoint has fixed (the tokenizer), or values do not fit together.
    """
    paths = ["device", "num_threads"]
    for override in overrides:
        key, _, value = override.partition("=")
        paths += group_options(key, value) if key == "data" else [key]
    merged = copy.deepcopy(trained)
    stored = leaves(merged)
    for path in leaves(config):
        if not has_prefix(path, paths) or path not in stored:  # what only the command has is no part of a run
            continue
        if path.startswith("data.tokenizer."):
            raise ValueError(
                f"{path}: the tokenizer comes from the checkpoint and cannot be changed; leave the option out"
            )
        parent, _, name = path.rpartition(".")
        setattr(get_node(merged, parent), name, getattr(get_node(config, parent), name))
    for field in fields(config):
        if is_dataclass(getattr(config, field.name)):
            validate(getattr(merged, field.name))
    return merged
