"""The log of a run: metrics.jsonl, log lines or a progress bar, and TensorBoard."""

import contextlib
import json
import logging
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from nmt.config import upgrade_keys
from nmt.runtime.files import JsonlLog
from nmt.runtime.memory import peak_memory, reset_peak_memory

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MACHINE_DEPENDENT_KEYS = ("tokens_per_second", "peak_memory_mb", "seconds")
"""What a row says of the machine: it differs when the same run is made again."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, under today's keys; a last line that a crash cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(upgrade_keys(json.loads(line)))
        except json.JSONDecodeError:
            break
    return rows


class MetricAccumulator:
    """What is counted from one log line to the next. A rank that is not the first one counts and writes nothing.

    Args:
        names: of the losses that `count` is given; "loss" and "nll" first.
        pending: what `pending` gave when the run was saved.
    """

    def __init__(self, names: Sequence[str], pending: Sequence[float] = ()) -> None:
        self.names = names
        self._reset(pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _reset(self, pending: Sequence[float] = ()) -> None:
        # Sums of the losses, then tokens; on the losses' device, so that counting does not wait for it; fp64, so that
        # restarts change nothing.
        self.sums = torch.tensor(pending or [0.0] * (len(self.names) + 1), dtype=torch.float64)
        self.norm: Tensor | None = None
        self.tokens_here = 0
        self.begin = time.monotonic()

    def log_update(self, losses: Tensor, norm: Tensor, skipped: Tensor, *, num_tokens: int) -> None:
        """One update.

        Args:
            losses: (len(names),), summed over tokens.
            norm: of the gradient.
            skipped: a scalar, 1 when the update was not made, whose losses are then left out; else 0.
            num_tokens: target tokens of the update.
        """
        added = torch.cat([losses.double(), losses.new_full((1,), num_tokens, dtype=torch.float64)])
        self.sums = self.sums.to(losses.device) + added.where(skipped == 0, 0.0)
        self.norm = norm
        self.tokens_here += num_tokens

    def unlogged_sums(self) -> list[float]:
        """What was counted since the last log line, for a checkpoint."""
        sums: list[float] = self.sums.tolist()
        return sums if sums[-1] else []

    def is_finite(self) -> bool:
        """Whether the losses since the last log line are finite numbers."""
        return bool(torch.isfinite(self.sums).all())

    def log(self, update: int, epoch: int, learning_rate: float, counts: Mapping[str, int]) -> None:
        """Begins to count anew."""
        self._reset()

    def log_validation(
        self,
        update: int,
        outcome: dict[str, float],
        quantities: dict[str, list[float]],
        best_update: int,
        seconds: float = 0.0,
    ) -> None:
        """Validation time is not training time."""
        self.tokens_here, self.begin = 0, time.monotonic()


class RunLogger(MetricAccumulator):
    """The open records of a run, continued from `update`: what a run that was killed wrote after it is removed.

    Args:
        directory: the run directory.
        names: of the losses that `count` is given; "loss" and "nll" first.
        update: where the run stands.
        validated: the update of the last validation that the run knows of.
        averaged: the update at which the mean of checkpoints was last validated, as the run knows.
        max_updates: for the progress bar.
        pending: what `pending` gave when the run was saved.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        update: int,
        validated: int,
        averaged: int,
        max_updates: int,
        pending: Sequence[float] = (),
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(names, pending)
        reset_peak_memory()
        self.path = directory / "metrics.jsonl"
        # a validation may have come after the checkpoint of its own update; it will be done again
        known = {"valid_loss": validated, "averaged_loss": averaged}
        rows = [
            row
            for row in read_metrics(self.path)
            if row["update"] <= next((known[name] for name in known if name in row), update)
        ]
        self.file = JsonlLog(self.path, [json.dumps(row) for row in rows])
        self.hook, threading.excepthook = threading.excepthook, self._thread_failed
        self.board: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=update + 1)
        self.bar = _bar(update, max_updates)
        self.entropy: list[list[float]] = []
        self.attended: dict[str, list[list[float | None]]] = {}

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

    def log(self, update: int, epoch: int, learning_rate: float, counts: Mapping[str, int]) -> None:
        """A row of the training loss since the last one, and of what had to be done otherwise in the whole run.

        Args:
            counts: how often, by name; what did not happen is not mentioned.
        """
        *losses, num_tokens = self.sums.tolist()
        loss, nll, *others = (total / num_tokens if num_tokens else math.nan for total in losses)
        rate = self.tokens_here / (time.monotonic() - self.begin)
        row = {
            "update": update,
            "epoch": epoch,
            "loss": loss,
            "perplexity": math.exp(min(nll, 100.0)),
            **dict(zip(self.names[2:], others, strict=True)),
            "learning_rate": learning_rate,
            "gradient_norm": float(self.norm) if self.norm is not None else math.nan,
            "tokens_per_second": round(rate, 1),
            "peak_memory_mb": round(peak_memory(self.sums.device) / 2**20, 1),
            **{name: number for name, number in counts.items() if number},
        }
        # When every update was skipped there is no loss, and the norm of a skipped one may be no number.
        self.write({name: value for name, value in row.items() if math.isfinite(value)}, "train")
        text = f"loss {loss:.3f}  perplexity {row['perplexity']:.2f}  {rate:.0f} tokens/s"
        text += "".join(f"  {name.replace('_', ' ')} {number}" for name, number in counts.items() if number)
        level = logging.INFO if self.bar.disable else logging.DEBUG  # on a terminal the bar shows it
        log.log(level, "update %d  epoch %d  %s  rate %.2e", update, epoch, text, learning_rate)
        self.bar.set_postfix_str(text)
        self._reset()

    def log_validation(
        self,
        update: int,
        outcome: dict[str, float],
        quantities: dict[str, list[float]],
        best_update: int,
        seconds: float = 0.0,
    ) -> None:
        """A row of validation results, with the model's learned quantities by name and head if it has any.

        `seconds` are those of the whole run before this validation, earlier ones counted.
        """
        row = {"update": update, **{f"valid_{name}": value for name, value in outcome.items()}}
        row["seconds"] = round(seconds, 2)
        more = {"learned_scalars": quantities, "entropy": self.entropy, "attention": self.attended}
        self.write({**row, **{name: values for name, values in more.items() if values}}, "valid")
        self.entropy, self.attended = [], {}
        self.log_message(
            f"valid at update {update}: {_shown(outcome)}{'  (best so far)' if best_update == update else ''}"
        )
        for name, values in quantities.items():
            log.debug("%s at update %d: %s", name, update, "  ".join(f"{value:.3f}" for value in values))
        super().log_validation(update, outcome, quantities, best_update, seconds)

    def log_averaged_validation(
        self, update: int, outcome: dict[str, float], updates: Sequence[int], *, is_best: bool
    ) -> None:
        """A row of validation results of the mean of the checkpoints of `updates`."""
        row = {
            "update": update,
            "averaged_updates": list(updates),
            **{f"averaged_{name}": v for name, v in outcome.items()},
        }
        self.file.write(json.dumps(row))
        self.entropy, self.attended = [], {}
        judged = "the best so far, and now best.pt" if is_best else "not better than best.pt, which stays"
        self.log_message(f"valid of the mean of updates {', '.join(map(str, updates))}: {_shown(outcome)}  ({judged})")

    def sync(self) -> None:
        """Has every row on the disk. Raises OSError when that cannot be."""
        self.file.sync()

    def log_message(self, text: str) -> None:
        """A log line that does not tear the progress bar."""
        self.bar.clear()
        log.info("%s", text)
        self.bar.refresh()

    def write(self, row: dict[str, Any], group: str) -> None:
        """A row of metrics.jsonl, and its numbers as TensorBoard scalars."""
        self.file.write(json.dumps(row))
        for name, value in row.items():
            if name == "learned_scalars":
                for quantity, heads in value.items():
                    for head, number in enumerate(heads, start=1):
                        self._add("scalar", f"learned_scalars/{quantity}/{head}", number, row["update"])
            elif name == "entropy":
                for layer, heads in enumerate(value, start=1):
                    for head, number in enumerate(heads, start=1):
                        self._add("scalar", f"entropy/layer_{layer}/head_{head}", number, row["update"])
            elif name == "attention":
                for measure, grid in value.items():
                    for layer, heads in enumerate(grid, start=1):
                        for head, number in enumerate(heads, start=1):
                            if number is not None:
                                self._add("scalar", f"{measure}/layer_{layer}/head_{head}", number, row["update"])
            elif name not in ("update", "epoch", "seconds"):
                self._add("scalar", f"{group}/{name.removeprefix('valid_')}", value, row["update"])

    def add_text(self, tag: str, text: str, update: int) -> None:
        """A text for TensorBoard."""
        self._add("text", tag, text, update)

    def add_figure(self, tag: str, figure: "Figure", update: int) -> None:
        """A picture for TensorBoard."""
        self._add("figure", tag, figure, update)

    def log_attention(
        self, rows: "NDArray[np.float64]", measures: Mapping[str, list[list[float | None]]], update: int
    ) -> None:
        """Histograms of the entropy of attention for TensorBoard; its mean, and what else was measured, for the row of
        this validation.

        Args:
            rows: (L, H, N) nats, one for each row of attention.
            measures: (L, H) values by name, None for what there was nothing to measure of.
        """
        self.entropy, self.attended = rows.mean(-1).round(6).tolist(), dict(measures)
        for layer, heads in enumerate(rows, start=1):
            for head, values in enumerate(heads, start=1):
                self._add("histogram", f"entropy/layer_{layer}/head_{head}/rows", values, update)

    def _add(self, kind: str, tag: str, value: Any, update: int) -> None:
        """Tells TensorBoard, until that fails for want of disk: a picture less is no reason to stop."""
        if self.board is not None:
            try:
                getattr(self.board, f"add_{kind}")(tag, value, update)
            except OSError as error:
                self.board = None
                log.warning("TensorBoard gets nothing more from this sitting: %s", error)

    def _thread_failed(self, arguments: threading.ExceptHookArgs) -> None:
        """TensorBoard writes in a thread, whose failure `_add` meets the next time."""
        if not isinstance(arguments.exc_value, OSError):
            self.hook(arguments)


def _shown(outcome: dict[str, float]) -> str:
    texts = (f"AER {100 * value:.1f} %" if name == "aer" else f"{name} {value:.2f}" for name, value in outcome.items())
    return "  ".join(texts)


def _bar(initial: int, total: int) -> Any:
    """A progress bar with rate and time left on a terminal; silent elsewhere, where plain lines are logged."""
    from tqdm import tqdm

    return tqdm(
        initial=initial, total=total, unit="update", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()
    )


EXCLUDED_HPARAMS = ("name", "runs", "data.cache_dir", "num_threads", "device")
"""Options that do not change the model."""


def log_hparams(directory: Path, options: Mapping[str, Any], scores: Mapping[str, float], update: int) -> None:
    """Write a run's options and final scores for TensorBoard's table of runs (HPARAMS).

    Args:
        directory: the run directory.
        options: nested; `EXCLUDED_HPARAMS` are left out.
        scores: by test set and name, as "test/bleu".
        update: the last one.
    """
    from torch.utils.tensorboard import SummaryWriter

    flat = {name: value for name, value in _flat_options(options) if name not in EXCLUDED_HPARAMS}
    try:
        with SummaryWriter(str(directory / "tensorboard")) as board:
            # "." for the run's own folder: the table has one line for each run then
            board.add_hparams(flat, {f"final/{name}": value for name, value in scores.items()}, None, ".", update)
    except OSError as error:
        log.warning("TensorBoard gets no final scores: %s", error)


def _flat_options(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield options under their full names."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat_options(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, bool | int | float | str) else json.dumps(value)
