"""The log of a run: metrics.jsonl, log lines or a progress bar, and TensorBoard."""

import contextlib
import json
import logging
import math
import operator
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.config import flatten, upgrade_keys
from nmt.runtime.files import JsonlLog
from nmt.runtime.logs import is_quiet
from nmt.runtime.memory import peak_memory, reset_peak_memory
from nmt.runtime.terminal import shows_bars
from nmt.training.progress import TrainProgress

log = logging.getLogger(__name__)

MACHINE_DEPENDENT_KEYS = ("tokens_per_second", "peak_memory_mb", "seconds")
"""Keys of a row whose values differ when the same run is repeated."""
End = tuple[int, float] | None  # the update at which a run will end, and the seconds left
EXCLUDED_HPARAMS = ("name", "runs", "data.cache_dir", "num_threads", "device")
"""Options that do not change the model."""
SHOWN_HPARAMS = ("seed", "model.architecture", "model.attention.score")
"""Options in TensorBoard's table of runs that are shown even where they have their defaults."""
DIAGNOSTICS = "z_diagnostics"
"""TensorBoard opens the first two groups of tags in the order of the alphabet: "train" and "valid" shall be these."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, under today's keys; log damaged lines, other than a last one cut short."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows, damaged = [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = upgrade_keys(json.loads(line.decode(), parse_constant=lambda _: None))
            operator.index(row["update"])
            rows.append(row)
        except (ValueError, LookupError, TypeError, AttributeError):
            damaged += [str(number)] if number < len(lines) else []
    if damaged:
        log.warning("%s: damaged and left out: line %s", path, ", ".join(damaged))
    return rows


class MetricAccumulator:
    """The sums from one log line to the next. A rank other than the main process accumulates and writes nothing.

    Args:
        names: of the losses that `log_update` receives; "loss" and "nll" first.
        unlogged_sums: the result of `unlogged_sums` when the run was saved.
    """

    def __init__(self, names: Sequence[str], unlogged_sums: Sequence[float] = ()) -> None:
        self.names = names
        self._reset(unlogged_sums)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _reset(self, unlogged_sums: Sequence[float] = ()) -> None:
        # Sums of the losses, then tokens; on the losses' device, so that adding does not wait for it; fp64, so that
        # restarts change nothing.
        if unlogged_sums and len(unlogged_sums) != len(self.names) + 1:
            raise ValueError(f"position.unlogged_sums={unlogged_sums}: {len(self.names) + 1} numbers are needed")
        self.sums = torch.tensor(unlogged_sums or [0.0] * (len(self.names) + 1), dtype=torch.float64)
        self.norm: Tensor | None = None
        self.restart_timer()

    def restart_timer(self) -> None:
        """Leave what came since the last update out of the training speed."""
        self.timed_tokens, self.begin = 0, time.monotonic()

    def log_update(self, losses: Tensor, norm: Tensor, skipped: Tensor, *, num_tokens: int) -> None:
        """Add an update to the sums.

        Args:
            losses: (len(names),), summed over tokens.
            norm: of the gradient.
            skipped: a scalar, 1 when the update was skipped, whose losses are then left out; else 0.
            num_tokens: target tokens of the update.
        """
        added = torch.cat([losses.double(), losses.new_full((1,), num_tokens, dtype=torch.float64)])
        self.sums = self.sums.to(losses.device) + added.where(skipped == 0, 0.0)
        self.norm = norm
        self.timed_tokens += num_tokens

    def unlogged_sums(self) -> list[float]:
        """Return the sums since the last log line, for a checkpoint."""
        sums: list[float] = self.sums.tolist()
        return sums if sums[-1] else []

    def is_finite(self) -> bool:
        """Return whether the losses since the last log line are finite numbers."""
        return bool(torch.isfinite(self.sums).all())

    def log(self, progress: TrainProgress, learning_rate: float, counts: Mapping[str, float], end: End) -> None:
        """Start new sums."""
        self._reset()

    def log_validation(
        self, progress: TrainProgress, scores: Mapping[str, float], learned_scalars: Mapping[str, list[float]]
    ) -> None:
        """Leave the time of the validation out of the training speed."""
        self.restart_timer()


class RunLogger(MetricAccumulator):
    """The open log of a run, from which the rows that a killed run wrote after `progress` are removed.

    Args:
        directory: the run directory.
        names: of the losses that `log_update` receives; "loss" and "nll" first.
        progress: of the run that is continued.
        last_update: at which the run ends, for the progress bar; 0: unknown.
        device: whose peak memory is logged.
    """

    def __init__(
        self, directory: Path, names: Sequence[str], progress: TrainProgress, last_update: int, device: torch.device
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        super().__init__(names, progress.unlogged_sums)
        reset_peak_memory(device)
        path = directory / "metrics.jsonl"
        # a validation may have come after the checkpoint of its own update; it will be done again
        logged = {"valid_loss": progress.last_validated, "averaged_loss": progress.last_averaged}
        rows = [
            json.dumps(row)
            for row in read_metrics(path)
            if row["update"] <= next((logged[name] for name in logged if name in row), progress.update)
        ]
        if progress.update and not path.exists():
            log.warning("%s is missing: the rows of %d updates are lost, and it begins anew", path, progress.update)
        self.file = JsonlLog(path, rows)
        self.hook, threading.excepthook = threading.excepthook, self._thread_failed
        self.board: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=progress.update + 1)
        hidden = is_quiet() or not shows_bars()  # plain lines are logged instead
        form = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # the time left is in the postfix
        options = {"unit": "update", "dynamic_ncols": True, "leave": False, "disable": hidden, "bar_format": form}
        self.bar = tqdm(initial=progress.update, total=last_update or None, **options)
        self.attention: dict[str, Any] = {}  # for the row of the next validation

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        self.file.close()
        with contextlib.suppress(OSError):
            if self.board is not None:
                self.board.close()
        threading.excepthook = self.hook

    def log_update(self, losses: Tensor, norm: Tensor, skipped: Tensor, *, num_tokens: int) -> None:
        super().log_update(losses, norm, skipped, num_tokens=num_tokens)
        self.bar.update(1)

    def log(self, progress: TrainProgress, learning_rate: float, counts: Mapping[str, float], end: End) -> None:
        """Write a row of the mean training losses since the last one, also of each corpus, in nats without smoothing.

        Args:
            counts: of anomalies in the whole run and the like, by name; zeros are left out.
            end: the update and the seconds left when the run will end, where they can be estimated.
        """
        *losses, num_tokens = self.sums.tolist()
        sums = dict(zip(self.names, losses, strict=True))
        means = {name: total / num_tokens if num_tokens else math.nan for name, total in sums.items()}
        corpora = [name.partition("/")[2] for name in sums if name.startswith("tokens/")]
        for name in corpora:
            num, total = sums[f"tokens/{name}"], sums[f"nll/{name}"]
            del means[f"tokens/{name}"], means[f"nll/{name}"]
            means |= {f"loss/{name}": total / num if num else math.nan, f"share/{name}": num / max(num_tokens, 1)}
        loss, nll = means.pop("loss"), means.pop("nll")
        rate = self.timed_tokens / max(time.monotonic() - self.begin, 1e-9)
        counts = {name: number for name, number in counts.items() if number}
        row = {
            "update": progress.update,
            "epoch": progress.epoch,
            "loss": loss,
            "perplexity": math.exp(min(nll, 100.0)),
            **means,
            **{f"pairs/{name}": num for name, num in zip(corpora, progress.pairs_by_corpus, strict=False)},
            "learning_rate": learning_rate,
            "gradient_norm": float(self.norm) if self.norm is not None else math.nan,
            "tokens_per_second": round(rate, 1),
            "peak_memory_mb": round(peak_memory(self.sums.device) / 2**20, 1),
            **counts,
        }
        # When every update was skipped there is no loss, and the norm of a skipped one may not be finite.
        self._write({name: value for name, value in row.items() if math.isfinite(value)}, "train")
        text = f"loss {loss:.3f}  perplexity {row['perplexity']:.2f}  {rate:.0f} tokens/s"
        text += "".join(f"  {name.replace('_', ' ')} {number}" for name, number in counts.items())
        level = logging.INFO if self.bar.disable else logging.DEBUG  # on a terminal the bar shows it
        left = ""
        if end is not None:
            self.bar.total = max(end[0], progress.update)
            left = f"  {self.bar.format_interval(end[1])} left"
        line = "update %d  epoch %d  %s  rate %.2e%s"
        log.log(level, line, progress.update, progress.epoch, text, learning_rate, left)
        self.bar.set_postfix_str(text + left)
        self._reset()

    def log_validation(
        self, progress: TrainProgress, scores: Mapping[str, float], learned_scalars: Mapping[str, list[float]]
    ) -> None:
        """Write a row of validation scores, with the model's learned scalars by name and head if it has any.

        Its "seconds" are those of the whole run before this validation.
        """
        update = progress.update
        row: dict[str, Any] = {"update": update, **{f"valid_{name}": value for name, value in scores.items()}}
        row["seconds"] = round(progress.seconds, 2)
        if learned_scalars:
            row["learned_scalars"] = learned_scalars
        self._write(row | self.attention, "valid")
        self.attention = {}
        best = "  (best so far)" if progress.best_update == update else ""
        self._log_message(f"valid at update {update}: {_format_scores(scores)}{best}")
        for name, values in learned_scalars.items():
            log.debug("%s at update %d: %s", name, update, "  ".join(f"{value:.3f}" for value in values))
        self.restart_timer()

    def log_averaged_validation(
        self, update: int, scores: Mapping[str, float], averaged_updates: Sequence[int], *, is_best: bool
    ) -> None:
        """Write a row of validation scores of the mean of the checkpoints of `averaged_updates`."""
        row: dict[str, Any] = {"update": update, "averaged_updates": list(averaged_updates)}
        self.file.write(_json(row | {f"averaged_{name}": value for name, value in scores.items()}))
        self.attention = {}
        verdict = "the best so far, and now best.pt" if is_best else "not better than best.pt, which stays"
        updates = ", ".join(map(str, averaged_updates))
        self._log_message(f"valid of the mean of updates {updates}: {_format_scores(scores)}  ({verdict})")

    def log_attention(
        self, entropies: NDArray[np.float64], measures: Mapping[str, list[list[float | None]]], update: int
    ) -> None:
        """Add histograms of the entropy of attention to TensorBoard; its mean and the measures go into the next row.

        Args:
            entropies: (L, H, N) nats, one for each row of attention.
            measures: (L, H) values by name, None for what there was nothing to measure of.
        """
        self.attention = {"entropy": entropies.mean(-1).round(6).tolist(), "attention": dict(measures)}
        for layer, heads in enumerate(entropies, start=1):
            for head, values in enumerate(heads, start=1):
                if np.isfinite(values).any():  # otherwise TensorBoard has no histogram
                    tag = f"{DIAGNOSTICS}/entropy/layer_{layer}/head_{head}/rows"
                    self.add_to_tensorboard("histogram", tag, values, update)

    def add_to_tensorboard(self, kind: str, tag: str, value: Any, update: int) -> None:
        """Add a scalar, text, figure or histogram, until the disk is full: that is no reason to stop."""
        if self.board is not None:
            try:
                getattr(self.board, f"add_{kind}")(tag, value, update)
            except OSError as error:
                self.board = None
                log.warning("TensorBoard gets nothing more from this session: %s", error)

    def sync(self) -> None:
        """Write every row to the disk. Raise OSError when that fails."""
        self.file.sync()

    def _write(self, row: dict[str, Any], group: str) -> None:
        """Write a row of metrics.jsonl, and its numbers as TensorBoard scalars."""
        self.file.write(_json(row))
        for tag, value in _scalars(row, group):
            self.add_to_tensorboard("scalar", tag, value, row["update"])

    def _log_message(self, text: str) -> None:
        self.bar.clear()  # otherwise the line would be written into the bar
        log.info("%s", text)
        self.bar.refresh()

    def _thread_failed(self, arguments: threading.ExceptHookArgs) -> None:
        """Ignore the disk errors of TensorBoard's thread, which its next call raises again."""
        if not isinstance(arguments.exc_value, OSError):
            self.hook(arguments)


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(json.loads(json.dumps(row), parse_constant=lambda _: None))  # NaN is no JSON


def _scalars(row: Mapping[str, Any], group: str) -> Iterator[tuple[str, float]]:
    """Yield the TensorBoard tag and value of every number in a row of metrics.jsonl."""
    for name, value in row.items():
        if name == "learned_scalars":
            for scalar, heads in value.items():
                tag = f"{DIAGNOSTICS}/{name}/{scalar}"
                yield from ((f"{tag}/{head}", number) for head, number in enumerate(heads, start=1))
        elif name in ("entropy", "attention"):
            for measure, layers in (value if name == "attention" else {name: value}).items():
                for layer, heads in enumerate(layers, start=1):
                    for head, number in enumerate(heads, start=1):
                        if number is not None:
                            yield f"{DIAGNOSTICS}/{measure}/layer_{layer}/head_{head}", number
        elif name not in ("update", "epoch", "seconds"):
            is_main = group == "valid" or "loss" in name or name == "learning_rate"
            yield f"{group if is_main else DIAGNOSTICS}/{name.removeprefix('valid_')}", value


def _format_scores(scores: Mapping[str, float]) -> str:
    sets = dict.fromkeys(name.partition("/")[0] for name in scores if "/" in name)
    shown = {f"{name}/bleu" for name in sets} if len(sets) > 2 else {*scores}  # metrics.jsonl has all
    texts = (
        f"AER {100 * value:.1f} %" if name == "aer" else f"{name} {value:.2f}"
        for name, value in scores.items()
        if name in shown or "/" not in name
    )
    return "  ".join(texts)


def log_hparams(
    directory: Path, options: Mapping[str, Any], defaults: Mapping[str, Any], scores: Mapping[str, float], update: int
) -> None:
    """Write a run's options and final scores for TensorBoard's table of runs (HPARAMS).

    Args:
        directory: the run directory.
        options, defaults: nested; `EXCLUDED_HPARAMS` and options that have their defaults are left out. Those of the
            model lose its name: the table shows the first five in the order of the alphabet.
        scores: by test set and name, as "test/bleu".
        update: the last one.
    """
    from torch.utils.tensorboard import SummaryWriter

    usual = flatten(defaults)
    hparams = {
        name.removeprefix("model."): value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in flatten(options).items()
        if name in SHOWN_HPARAMS or (name not in EXCLUDED_HPARAMS and value != usual.get(name))
    }
    try:
        with SummaryWriter(str(directory / "tensorboard")) as board:
            # "." for the run's own folder: the table has one line for each run then; names are cleaned as its tags
            metrics = {re.sub(r"[^\w./-]", "_", f"z_final/{name}"): value for name, value in scores.items()}
            board.add_hparams(hparams, metrics, None, ".", update)
    except OSError as error:
        log.warning("TensorBoard gets no final scores: %s", error)
