"""Check whether a run is complete: trained to its end with the same options, and evaluated on the same test sets."""

import contextlib
from dataclasses import asdict
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from nmt import checkpoint
from nmt.cli.configs import Config
from nmt.cli.continuation import data_fingerprints, has_prefix, retention_only_options
from nmt.config import flatten
from nmt.evaluation.results import has_test_set, load_test_sets, stored_digests, test_splits
from nmt.plugins import loaded
from nmt.training.config import AUTO
from nmt.training.early_stopping import stop_reason
from nmt.training.progress import TrainProgress

MACHINE_OPTIONS = ("runs", "plugins", "device", "num_threads", "data.cache_dir", "train.devices", "train.log_every")
"""Options that do not change the result of a run, like those of `retention_only_options`."""


def is_run_complete(config: Config) -> bool:
    """Return whether a run has these options, finished training on this text, and has reports on these test sets."""
    directory = Path(config.runs) / str(config.name)
    first = directory / "report" if has_test_set(config.data) else directory
    if not _has_same_options(config, first / "config.yaml"):
        return False
    folders = test_splits(config.data).values()  # after the first check: this may generate the synthetic data
    if not all(_has_same_options(config, directory / "report" / name / "config.yaml") for name in folders):
        return False
    try:
        last = checkpoint.latest_valid(directory / "checkpoints")
        model = checkpoint.state_digest(checkpoint.load(directory / "checkpoints/best.pt")["model"])
    except (ValueError, FileNotFoundError):
        return False
    if last is None or last.path.name != "last.pt":
        return False
    digests = [plugin.digest for plugin in loaded(config.plugins)]
    if any(digest not in digests for _, digest in last.content.get("plugins", ())):
        return False
    progress = TrainProgress.from_dict(last.content["position"])
    if not stop_reason(config.train, progress) or progress.last_validated != progress.update:
        return False
    if config.train.average_checkpoints != "none" and progress.last_averaged != progress.update:
        return False
    with contextlib.suppress(OSError, ValueError):  # text that was removed leaves the result as it is
        stored = last.content.get("texts", {})
        for split, current in data_fingerprints(config).items():
            if split in stored and [digest for _, digest in stored[split]] != [file.sha256 for file in current]:
                return False
    try:
        tests = load_test_sets(config.data)
    except OSError:  # as above
        return True
    except ValueError:  # the text is at fault, which the run reports
        return False
    reports = [directory / "report" / test.folder for test in tests]
    expected = [{**test.digests(), "model": model} for test in tests]
    return [stored_digests(report) for report in reports] == expected  # those of version 0.4 hold none


def _has_same_options(config: Config, path: Path) -> bool:
    """Return whether a complete report, or the run if it has no test set, was made with these options."""
    if not path.is_file():
        return False
    try:
        stored = Config.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (ValueError, yaml.YAMLError, AttributeError):
        return False
    before, now = flatten(asdict(stored)), flatten(asdict(config))
    ignored = [*MACHINE_OPTIONS, *retention_only_options(config)]
    if config.model.match != "none":  # set by the run, as is the next
        ignored.append(f"model.{config.model.match_width}")
    if config.train.batch_tokens == AUTO:
        ignored.append("train.batch_tokens")
    return all(before.get(path) == now.get(path) or has_prefix(path, ignored) for path in {*before, *now})
