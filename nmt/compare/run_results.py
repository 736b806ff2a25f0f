"""What a run has left that can be compared: its options, its evaluation on one test set, and what it cost."""

import functools
import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from nmt import checkpoint
from nmt.cli.configs import Config
from nmt.config import flatten, to_dict, upgrade_keys
from nmt.data import Tokenizer
from nmt.models.flops import build_on_meta, flops_per_token, parameter_counts
from nmt.training import logger
from nmt.training.checkpointing import TrainProgress
from nmt.training.config import TrainConfig


class ValidationRecord(NamedTuple):
    """What training recorded: seconds of the run before it, None where unknown; values by name, "bleu",
    "perplexity", "aer" in per cent and others."""

    update: int
    seconds: float | None
    values: dict[str, float]


@dataclass(frozen=True)
class RunResult:
    """One run on one test set.

    label: as the user named it. options: by their dotted names. vocabulary: digest of the tokenizer, "" without a
    checkpoint. version, precision: that it was trained with, "" likewise. signatures, intervals: by metric; an interval
    is mean and half width. quantities: everything that is one number, by name: metrics, "aer" and "entropy", "bleu
    0-10", "aer 0-10" and "entropy 0-10" for each bucket of source length, and costs. buckets: sentences in each.
    validations: in their order. reading: the layer, head and shift that alignments were read from, counted from 1; 0 is
    the mean.
    """

    label: str
    run: Path
    report: Path
    config: Config
    options: dict[str, Any]
    vocabulary: str
    version: str
    precision: str
    sources: tuple[str, ...]
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    sentence_chrf: tuple[float, ...]
    signatures: dict[str, str]
    intervals: dict[str, tuple[float, float]]
    quantities: dict[str, float]
    buckets: dict[str, int] = field(default_factory=dict)
    validations: list[ValidationRecord] = field(default_factory=list)
    alignment_source: tuple[int, int, int] = (0, 0, 0)

    @property
    def seed(self) -> int:
        return self.config.seed

    def minutes_to(self, bleu: float) -> float | None:
        """Return the training minutes until the first validation with this BLEU; None without one, or where unknown."""
        for each in self.validations:
            if each.values.get("bleu", -1.0) >= bleu:
                return None if each.seconds is None else each.seconds / 60
        return None


def find_reports(paths: Iterable[str], test: str) -> tuple[list[Path], list[str]]:
    """Return the reports that the paths mean, and a sentence for each run that has none.

    Args:
        paths: runs, folders of runs, or reports.
        test: the folder of a further test set inside each report; "" for the first one.

    Raises:
        FileNotFoundError: a path is none of these.
    """
    reports: dict[Path, None] = {}
    left_out = []
    for name in paths:
        path = Path(name)
        if (path / "scores.json").is_file():
            reports[path / test] = None
            continue
        runs = [path] if _is_run(path) else sorted(each for each in path.glob("*") if _is_run(each))
        if not runs:
            what = "the folder holds no run and no report" if path.is_dir() else "no such run directory"
            raise FileNotFoundError(f"{path}: {what}")
        for run in runs:
            report = run / "report" / test
            if (report / "scores.json").is_file() and (report / "config.yaml").is_file():
                reports[report] = None
            else:
                where = f" of {test}" if test else ""
                left_out.append(f"{run} has no whole report{where} (not finished, or failed) and is left out")
    return list(reports), left_out


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and not (path / "scores.json").is_file()


def read_run_result(report: Path) -> RunResult:
    """Read one report, with the run that it belongs to.

    Raises:
        ValueError: a file is damaged, or of a version that did not write what is needed.
    """
    run = next((each for each in report.parents if (each / "metrics.jsonl").is_file()), report.parent)
    model = _model(run)
    try:
        return _read(report, run, model)
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: not there; evaluate the run again with nmt.evaluate") from None
    except (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{report}: damaged, or of another version ({reason}); evaluate the run again") from None


def _read(report: Path, run: Path, model: dict[str, Any]) -> RunResult:
    config = Config.from_dict(yaml.safe_load((report / "config.yaml").read_text(encoding="utf-8")))
    scores = upgrade_keys(json.loads((report / "scores.json").read_text(encoding="utf-8")))
    lines = (report / "sentences.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    metrics = {name: value for name, value in scores.items() if isinstance(value, dict) and "signature" in value}
    history = _until_evaluated(logger.read_metrics(run / "metrics.jsonl"), config.train)
    return RunResult(
        label=str(run if report in (run / "report", run) else report),
        run=run,
        report=report,
        config=config,
        options=flatten(to_dict(config)),
        vocabulary=str(model.pop("vocabulary", "")),
        version=str(model.pop("version", "")),
        precision=str(model.pop("precision", "")),
        sources=tuple(row["source"] for row in rows),
        references=tuple(row["reference"] for row in rows),
        hypotheses=tuple(row["hypothesis"] for row in rows),
        sentence_chrf=tuple(row["chrf"] for row in rows),
        signatures={name: value["signature"] for name, value in metrics.items()},
        intervals={name: (each["mean"], each["half_width"]) for name, each in scores.get("intervals", {}).items()},
        quantities={**_quality(report, scores, metrics), **model, **_costs(history)},
        buckets={name: each["num_sentences"] for name, each in scores.get("buckets", {}).get("length", {}).items()},
        validations=_validations(history),
        alignment_source=_reading(scores),
    )


def _until_evaluated(history: list[dict[str, Any]], train: TrainConfig) -> list[dict[str, Any]]:
    """Return the records until training ended; later ones, of a run that is being continued, were not evaluated."""
    positions = [TrainProgress(update=row["update"], seconds=row.get("seconds", 0.0)) for row in history]
    end = next((position.update for position in positions if train.stop_reason(position)), math.inf)
    return [row for row in history if row["update"] <= end]


def _validations(history: list[dict[str, Any]]) -> list[ValidationRecord]:
    validations = []
    for row in history:
        values = {name.removeprefix("valid_"): row[name] for name in row if name.startswith("valid_")}
        if "aer" in values:
            values["aer"] *= 100
        if values:
            validations.append(ValidationRecord(row["update"], row.get("seconds"), values))
    return validations


def _reading(scores: dict[str, Any]) -> tuple[int, int, int]:
    reading = scores.get("alignment_source") or scores.get("alignment", {}).get("alignment_source", {})
    return reading.get("layer", 0), reading.get("head", 0), reading.get("shift", 0)


def _quality(report: Path, scores: dict[str, Any], metrics: dict[str, Any]) -> dict[str, float]:
    quality: dict[str, float | None] = {name: value["score"] for name, value in metrics.items()}
    aligned: dict[str, Any] = scores.get("alignment", {})
    if aligned:
        quality["aer"] = 100 * aligned["aer"]
    quality |= {f"aer {bucket}": 100 * each["aer"] for bucket, each in aligned.get("by_length", {}).items()}
    by_length: dict[str, Any] = {}
    if (report / "diagnostics.json").is_file():
        diagnostics = json.loads((report / "diagnostics.json").read_text(encoding="utf-8"))
        quality["entropy"] = _mean(diagnostics["measures"]["entropy"])
        by_length = diagnostics["by_length"]
    quality |= {f"bleu {name}": each["bleu"] for name, each in scores.get("buckets", {}).get("length", {}).items()}
    quality |= {f"entropy {bucket}": _mean(each["entropy"]) for bucket, each in by_length.items()}
    return {name: value for name, value in quality.items() if value is not None}


def _mean(of_heads: list[list[float | None]]) -> float | None:
    """Return the mean over layers and heads."""
    values = [value for layer in of_heads for value in layer if value is not None]
    return statistics.fmean(values) if values else None


def _costs(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median speed of training, the largest memory of any sitting, and the time it took, where recorded."""
    costs: dict[str, float] = {}
    if speeds := [row["tokens_per_second"] for row in history if "tokens_per_second" in row]:
        costs["tokens_per_second"] = statistics.median(speeds)
    if memory := [row["peak_memory_mb"] for row in history if "peak_memory_mb" in row]:
        costs["peak_memory_mb"] = max(memory)
    if seconds := [row["seconds"] for row in history if "seconds" in row]:
        costs["minutes"] = max(seconds) / 60
    return costs


def _model(run: Path) -> dict[str, Any]:
    """Return the size of the model and name of the vocabulary, from the checkpoint; nothing when that is gone."""
    try:
        content = checkpoint.load(checkpoint.resolve(run))
        config = Config.from_dict(content["config"])
        tokenizer = Tokenizer.from_state_dict(content["tokenizer"])
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{run}: {str(error).removeprefix(f'{run}: ')}") from None
    sizes = _sizes(json.dumps(to_dict(config)), tokenizer.source_size, tokenizer.target_size, tokenizer.joint)
    names = {"vocabulary": tokenizer.digest, "version": content["nmt"], "precision": content.get("precision", "")}
    return {**names, "parameters": sizes[0], "flops": sizes[1]}


@functools.cache
def _sizes(config: str, source_size: int, target_size: int, joint: bool) -> tuple[float, float]:
    """Return the number of parameters, and FLOPs per target token."""
    model = Config.from_dict(json.loads(config)).model
    count = sum(parameter_counts(build_on_meta(model, source_size, target_size, joint=joint)).values())
    return float(count), flops_per_token(model, source_size, target_size, joint=joint)
