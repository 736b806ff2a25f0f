"""Combine stored options with new ones: which may change when a run is continued, and which a checkpoint fixes."""

import copy
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from nmt.cli.config_groups import group_options
from nmt.cli.configs import AlignConfig, Config, EvaluateConfig, ExportConfig, ScoreConfig, ServeConfig, TranslateConfig
from nmt.config import diff, get_node, leaves, validate
from nmt.data import alignment_path
from nmt.data.corpora import of_split
from nmt.data.fingerprints import FileFingerprint, file_fingerprint
from nmt.data.sources import dataset_fingerprint, reference_files, resolve_split, validation_splits
from nmt.data.word_alignments import training_alignment_paths

RESUMABLE_OPTIONS = (
    *("name", "runs", "device", "num_threads", "plugins", "data.cache_dir", "data.test", "data.extra_tests"),
    *("train.devices", "train.max_updates", "train.max_epochs", "train.max_minutes", "train.log_every"),
    *("train.valid_every", "train.save_every", "train.patience", "train.keep_last_checkpoints"),
    *("train.keep_best_checkpoints", "train.average_checkpoints", "search", "metrics", "alignment"),
)
"""Options (or nodes) that may change when a run is continued, and that are not part of its name."""


def retention_only_options(config: Config) -> set[str]:
    """Return the options that only choose which checkpoints are kept, without being averaged into the result."""
    of_last, of_best = {"train.keep_last_checkpoints", "train.save_every"}, {"train.keep_best_checkpoints"}
    return {"none": of_last | of_best, "last": of_best, "best": of_last}[config.train.average_checkpoints]


def has_prefix(path: str, prefixes: Sequence[str]) -> bool:
    """Return whether an option is one of `prefixes` or lies below one of them."""
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def check_continuation(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Check that a run with the stored configuration `old` may be continued with `new`.

    Raises:
        ValueError: options outside `RESUMABLE_OPTIONS` differ, or are unknown to this version.
    """
    options = [asdict(Config.from_dict(stored)) for stored in (old, new)]  # paths as they are today
    changed = [line for line in diff(*options) if not has_prefix(line.partition(":")[0], RESUMABLE_OPTIONS)]
    if changed:
        raise ValueError(
            f"the run {new.get('name')} was started with other options ({'; '.join(changed)}): give this one another "
            f"name (name=…), or delete the folder {new.get('runs')}/{new.get('name')} to start again"
        )


def data_fingerprints(config: Config) -> dict[str, list[FileFingerprint]]:
    """Return for each split that training reads the fingerprints of its files, or of its data set."""
    data = config.data
    splits = validation_splits(data, config.train.early_stopping_set)
    fingerprints = {split: dataset_fingerprint(data, split).files for split in ("train", *splits)}
    if config.reads_alignments:
        text, links = fingerprints["train"], list(map(file_fingerprint, training_alignment_paths(data)))
        fingerprints["train"] = links + text if data.format == "hub" else text + links  # the order in checkpoints
    for split in splits:
        if (gold := alignment_path(data, split)) is not None:
            fingerprints[split].append(file_fingerprint(gold))
        for location in resolve_split(data, split):
            fingerprints[split] += map(file_fingerprint, reference_files(of_split(data, split)[0], location)[1:])
    return fingerprints


def merge_with_checkpoint(
    trained: Config,
    config: EvaluateConfig | TranslateConfig | ExportConfig | AlignConfig | ScoreConfig | ServeConfig,
    overrides: Sequence[str],
) -> Config:
    """Return the configuration of a checkpoint, overridden by the options of a command line.

    Args:
        trained: the checkpoint's configuration; not changed.
        config: the command's configuration.
        overrides: its arguments; only the options they name replace those of the checkpoint, besides `device` and
            `num_threads`, which always come from the command.

    Raises:
        ValueError: an option is overridden that the checkpoint fixes (the tokenizer), or values exclude each other.
    """
    paths = ["device", "num_threads"]
    for override in overrides:
        key, _, value = override.partition("=")
        paths += group_options(key, value) if key == "data" else [key]
    merged = copy.deepcopy(trained)
    stored = leaves(merged)
    for path in leaves(config):
        if not has_prefix(path, paths) or path not in stored:  # options of the command alone are no part of a run
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
