"""Read the results of a run: its options, its evaluation on one test set, and its training cost."""

import functools
import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from nmt import checkpoint
from nmt.cli.configs import Config
from nmt.config import flatten, to_dict, upgrade_keys
from nmt.data import Tokenizer
from nmt.models.flops import build_on_meta, flops_per_token, parameter_counts
from nmt.models.loading import check_model
from nmt.training import logger
from nmt.training.config import TrainConfig
from nmt.training.early_stopping import stop_reason
from nmt.training.progress import TrainProgress

_COSTS: dict[str, tuple[str, Callable[[list[float]], float]]] = {
    "tokens_per_second": ("tokens_per_second", statistics.median),
    "peak_memory_mb": ("peak_memory_mb", max),
    "seconds": ("minutes", lambda seconds: max(seconds) / 60),
}


class ValidationRecord(NamedTuple):
    """One validation. seconds: of training before it, None where unknown. values: by name, such as "bleu",
    "perplexity", and "aer" in per cent."""

    update: int
    seconds: float | None
    values: dict[str, float]


@dataclass(frozen=True)
class RunResult:
    """One run on one test set.

    label: as the user named it. options: by their dotted names. vocabulary: digest of the tokenizer, "" without a
    checkpoint. version, precision: that it was trained with, "" likewise. signatures, intervals: by metric; an interval
    is mean and half width. quantities: all scalar results by name: metrics, "aer" and "entropy", "bleu 0-10", "aer
    0-10" and "entropy 0-10" for each bucket of source length, and costs. buckets: number of sentences in each.
    validations: in order. alignment_source: layer, head and shift that alignments were extracted from, counted from 1;
    0 is the mean. gold: digest of the gold alignments, "" when unknown. is_stale: the report is of other weights than
    those of the run's best checkpoint now. further: references beyond the first. sentence_scores: of plugins' metrics.
    parts: from `read_directions`, the results of each.
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
    gold: str = ""
    is_stale: bool = False
    further: tuple[tuple[str, ...], ...] = ()
    sentence_scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    parts: "dict[str, RunResult]" = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.config.seed

    def minutes_to(self, bleu: float) -> float | None:
        """Return the training minutes until the first validation with this BLEU; None without one, or if unknown."""
        first = next((record for record in self.validations if record.values.get("bleu", -1.0) >= bleu), None)
        return None if first is None or first.seconds is None else first.seconds / 60


def find_reports(paths: Iterable[str], test_set: str) -> tuple[list[Path], list[str]]:
    """Return the reports in the paths, and a message for each run without one.

    Args:
        paths: runs, folders of runs, or reports.
        test_set: the folder of a further test set inside each report; "" for the first one.

    Raises:
        FileNotFoundError: a path is none of these.
    """
    reports: dict[Path, None] = {}
    left_out = []
    for path in map(Path, paths):
        if (path / "scores.json").is_file():
            reports[path / test_set] = None
            continue
        runs = [path] if _is_run(path) else sorted(filter(_is_run, path.glob("*")))
        if not runs:
            reason = "the folder holds no run and no report" if path.is_dir() else "no such run directory"
            raise FileNotFoundError(f"{path}: {reason}")
        for run in runs:
            report = run / "report" / test_set
            if (report / "scores.json").is_file() and (report / "config.yaml").is_file():
                reports[report] = None
            else:
                where = f" of {test_set}" if test_set else ""
                left_out.append(f"{run} has no complete report{where} (not finished, or failed) and is left out")
    return list(reports), left_out


def read_directions(report: Path) -> RunResult:
    """Read the results of a run in all its directions as one: all sentences, of each score the mean over the
    directions, and that of each as "bleu@en-de". Raise ValueError as `read_run_result`, or if there is one only."""
    path = report / "languages.json"
    if not path.is_file():
        raise ValueError(f"{path}: not there; evaluate the run on a test set in several directions with nmt.evaluate")
    rows = next(iter(json.loads(path.read_text(encoding="utf-8")).values()))["directions"]
    parts = {row["direction"]: read_run_result(report / row["folder"]) for row in rows}
    first, *_ = runs = list(parts.values())
    names = [*first.signatures, "aer", "entropy"]
    quantities = {name: value for name, value in first.quantities.items() if name not in names and " " not in name}
    for name in names:
        values = {part: run.quantities[name] for part, run in parts.items() if name in run.quantities}
        quantities |= {name: statistics.fmean(values.values())} if len(values) == len(parts) else {}
        quantities |= {f"{name}@{part}": value for part, value in values.items()}
    columns = ("sources", "references", "hypotheses", "sentence_chrf")
    texts: dict[str, Any] = {c: tuple(chain.from_iterable(getattr(run, c) for run in runs)) for c in columns}
    signatures = {name: "; ".join(dict.fromkeys(run.signatures[name] for run in runs)) for name in first.signatures}
    intervals = {f"{name}@{part}": value for part, run in parts.items() for name, value in run.intervals.items()}
    pooled = replace(first, **texts, signatures=signatures, intervals=intervals, quantities=quantities)
    return replace(pooled, buckets={}, further=(), gold="", parts=parts)


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and not (path / "scores.json").is_file()


def read_run_result(report: Path) -> RunResult:
    """Read one report, with the run that it belongs to.

    Raises:
        ValueError: a file is damaged, or written by an incompatible version.
    """
    run = next((folder for folder in report.parents if (folder / "metrics.jsonl").is_file()), report.parent)
    model = _model_info(run)
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
    by_length = scores.get("buckets", {}).get("length", {})
    history = _until_evaluated(logger.read_metrics(run / "metrics.jsonl"), config.train)
    alignment, digests, weights = scores.get("alignment", {}), scores.get("digests", {}), model.pop("weights", "")
    source = scores.get("alignment_source") or alignment.get("alignment_source", {})
    quantities = {name: value["score"] for name, value in metrics.items()}
    if alignment:
        quantities["aer"] = 100 * alignment["aer"]
    quantities |= {f"aer {bucket}": 100 * part["aer"] for bucket, part in alignment.get("by_length", {}).items()}
    if spans := scores.get("spans"):
        quantities |= {f"span_{name}": 100 * spans["references"][name] for name in ("exact", "f1")}
    entropies = _entropies(report / "diagnostics.json")
    quantities |= {name: value for name, value in entropies.items() if name == "entropy"}
    quantities |= {f"bleu {bucket}": part["bleu"] for bucket, part in by_length.items()}
    origin: dict[str, Any] = {key: str(model.pop(key, "")) for key in ("vocabulary", "version", "precision")}
    return RunResult(
        label=str(run if report in (run / "report", run) else report),
        run=run,
        report=report,
        config=config,
        options=flatten(to_dict(config)),
        **origin,
        sources=tuple(row["source"] for row in rows),
        references=tuple(row["reference"] for row in rows),
        hypotheses=tuple(row["hypothesis"] for row in rows),
        sentence_chrf=tuple(row["chrf"] for row in rows),
        signatures={name: value["signature"] for name, value in metrics.items()},
        intervals={name: (part["mean"], part["half_width"]) for name, part in scores.get("intervals", {}).items()},
        quantities={**quantities, **entropies, **model, **_costs(history)},
        buckets={bucket: part["num_sentences"] for bucket, part in by_length.items()},
        validations=_validations(history),
        alignment_source=(source.get("layer", 0), source.get("head", 0), source.get("shift", 0)),
        gold=digests.get("gold", ""),
        further=tuple(zip(*(row.get("references", [""])[1:] for row in rows), strict=True)),
        sentence_scores={name: tuple(row[name] for row in rows) for name in sorted({*metrics} & {*rows[0]} - {"chrf"})},
        is_stale=bool(weights) and digests.get("model", weights) != weights,
    )


def _until_evaluated(history: list[dict[str, Any]], train: TrainConfig) -> list[dict[str, Any]]:
    """Return the records until training ended; later ones, of a run that is being continued, were not evaluated."""
    positions = [TrainProgress(update=row["update"], seconds=row.get("seconds", 0.0)) for row in history]
    end = next((position.update for position in positions if stop_reason(train, position)), math.inf)
    return [row for row in history if row["update"] <= end]


def _validations(history: list[dict[str, Any]]) -> list[ValidationRecord]:
    validations = []
    for row in history:
        measured = [name for name in row if name.startswith("valid_") and row[name] is not None]
        values = {name.removeprefix("valid_"): row[name] for name in measured}
        if "aer" in values:
            values["aer"] *= 100
        if values:
            validations.append(ValidationRecord(row["update"], row.get("seconds"), values))
    return validations


def _entropies(path: Path) -> dict[str, float]:
    """Return the mean entropy over layers and heads, of all sentences and by length, where it was measured."""
    if not path.is_file():
        return {}
    diagnostics = json.loads(path.read_text(encoding="utf-8"))
    grids = {"entropy": diagnostics["measures"]["entropy"]}
    grids |= {f"entropy {bucket}": part["entropy"] for bucket, part in diagnostics["by_length"].items()}
    values = {name: [value for layer in grid for value in layer if value is not None] for name, grid in grids.items()}
    return {name: statistics.fmean(numbers) for name, numbers in values.items() if numbers}


def _costs(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median training speed, the peak memory and the training time, where recorded."""
    values = {key: [row[key] for row in history if key in row] for key in _COSTS}
    return {name: reduce(values[key]) for key, (name, reduce) in _COSTS.items() if values[key]}


def _model_info(run: Path) -> dict[str, Any]:
    """Return size, vocabulary, version and precision of the model from the checkpoint; {} when there is none."""
    try:
        content = checkpoint.load(checkpoint.resolve(run))
        config = Config.from_checkpoint(content)
        with checkpoint.interpreting(content):
            tokenizer = Tokenizer.from_state_dict(content["tokenizer"])
            sizes = tokenizer.source_size, tokenizer.target_size
            check_model(config.model, content["model"], *sizes, joint=tokenizer.joint)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{run}: {str(error).removeprefix(f'{run}: ')}") from None
    costs = _sizes(json.dumps(to_dict(config)), *sizes, tokenizer.joint)
    names = {"vocabulary": tokenizer.digest, "version": content["nmt"], "precision": content.get("precision", "")}
    names["weights"] = checkpoint.state_digest(content["model"])
    return {**names, "parameters": costs[0], "flops": costs[1]}


@functools.cache
def _sizes(config: str, source_size: int, target_size: int, joint: bool) -> tuple[float, float]:
    """Return the number of parameters, and FLOPs per target token."""
    model = Config.from_dict(json.loads(config)).model
    count = sum(parameter_counts(build_on_meta(model, source_size, target_size, joint=joint)).values())
    return float(count), flops_per_token(model, source_size, target_size, joint=joint)
