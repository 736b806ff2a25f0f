"""Check whether a run is finished: trained to its end with the options wanted, and evaluated."""

import contextlib
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from nmt import checkpoint
from nmt.attention import NONE
from nmt.cli.configs import Config
from nmt.cli.continuation import data_fingerprints, has_prefix, retention_only_options
from nmt.config import flatten, to_dict
from nmt.data import extra_test_sets
from nmt.evaluation.results import has_test_set
from nmt.training.checkpointing import TrainProgress
from nmt.training.config import AUTO

MACHINE_OPTIONS = ("runs", "device", "num_threads", "data.cache_dir", "train.devices", "train.log_every")
"""Options that do not change the result of a run, like those of `retention_only_options`."""


def is_complete(config: Config) -> bool:
    """Return whether nothing is left to do: same options, complete reports, nothing left to train, same text."""
    directory = Path(config.runs) / str(config.name)
    first = directory / "report" if has_test_set(config.data) else directory
    if not _is_of(config, first / "config.yaml"):
        return False
    more = extra_test_sets(config.data)  # after the first, since the built-in texts are made for it
    if not all(_is_of(config, directory / "report" / Path(name).name / "config.yaml") for name in more):
        return False
    try:
        last = checkpoint.latest_valid(directory / "checkpoints")
    except ValueError:
        return False
    if last is None or last.path.name != "last.pt" or not (directory / "checkpoints/best.pt").is_file():
        return False
    position = TrainProgress.from_dict(last.content["position"])
    if not config.train.stop_reason(position) or position.last_validated != position.update:
        return False
    if config.train.average_checkpoints != "none" and position.last_averaged != position.update:
        return False
    with contextlib.suppress(OSError, ValueError):  # text that is gone leaves the result as it is
        stored = last.content.get("texts", {})
        for split, now in data_fingerprints(config).items():
            if split in stored and [digest for _, digest in stored[split]] != [digest for _, digest in now]:
                return False
    return True


def _is_of(config: Config, path: Path) -> bool:
    """Return whether a complete report, or the run if it has no test set, was made with these options."""
    if not path.is_file():
        return False
    try:
        stored = Config.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (ValueError, yaml.YAMLError, AttributeError):
        return False
    then, now = flatten(to_dict(stored)), flatten(to_dict(config))
    set_by_the_run = [*MACHINE_OPTIONS, *retention_only_options(config)]
    if config.model.match != NONE:
        set_by_the_run.append(f"model.{config.model.match_width}")
    if config.train.batch_tokens == AUTO:
        set_by_the_run.append("train.batch_tokens")
    return all(then.get(path) == now.get(path) or has_prefix(path, set_by_the_run) for path in {*then, *now})
