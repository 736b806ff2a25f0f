"""Training: updates, validation, checkpoints, and the records of a run."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from nmt import checkpoint, optim, runtime
from nmt.average import Average
from nmt.data import Batch, Batches, on_device
from nmt.models import Seq2Seq
from nmt.objective import Objective
from nmt.optim import OptimConfig
from nmt.records import Records
from nmt.stop import StopSignal
from nmt.validation import Validation

log = logging.getLogger(__name__)

STOP_METRICS = {"bleu": 1, "chrf": 1, "loss": -1, "aer": -1}
"""What may choose the best checkpoint: 1 = higher is better."""


@dataclass
class TrainConfig:
    """How long and how to train.

    max_updates, max_minutes: whichever comes first ends the run; 0 minutes = no limit. Minutes of all sittings of a run
        that was interrupted and continued count together.
    batch_tokens: a batch has at most this many tokens on its longer side, padding counted.
    accumulate: batches per update.
    label_smoothing: ε of the smoothed cross-entropy.
    coverage_loss: λ of the coverage loss (See et al. 2017, equation 13), against attending to the same source tokens
        again and again; 0 = off.
    r_drop: α of R-Drop (Liang et al. 2021, equation 4): every sentence goes through the model twice, and the two
        predictions are drawn together; 0 = off, 5 is the paper's for translation.
    ema: decay per update of a moving average of the weights, such as 0.999, for validation and best.pt; 0 = off.
    precision: fp32, bf16, or auto (what is faster on this device).
    log_every, valid_every, save_every: in updates; besides, a run ends with a validation and is saved.
    valid_sentences: translate only the first sentences of the validation set for BLEU; 0 = all.
    stop_metric: what chooses the best checkpoint: bleu, chrf, loss or aer (where gold exists).
    patience: end after this many validations without a better one; 0 = never.
    """

    max_updates: int = 2500
    max_minutes: float = 0.0
    batch_tokens: int = 1536
    accumulate: int = 1
    label_smoothing: float = 0.1
    coverage_loss: float = 0.0
    r_drop: float = 0.0
    ema: float = 0.0
    precision: str = "auto"
    log_every: int = 100
    valid_every: int = 500
    save_every: int = 500
    valid_sentences: int = 0
    stop_metric: str = "bleu"
    patience: int = 0

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        for option in ("max_updates", "batch_tokens", "accumulate", "log_every", "valid_every", "save_every"):
            if getattr(self, option) < 1:
                raise ValueError(f"train.{option}={getattr(self, option)}: must be at least 1")
        for option in ("max_minutes", "valid_sentences", "patience", "coverage_loss", "r_drop"):
            if not 0 <= getattr(self, option) < math.inf:
                raise ValueError(f"train.{option}={getattr(self, option)}: must be a number of at least 0")
        for option in ("label_smoothing", "ema"):
            if not 0 <= getattr(self, option) < 1:
                raise ValueError(f"train.{option}={getattr(self, option)}: must be at least 0 and below 1")
        for option, allowed in (("precision", runtime.PRECISIONS), ("stop_metric", tuple(STOP_METRICS))):
            if getattr(self, option) not in allowed:
                raise ValueError(f"train.{option}={getattr(self, option)}: must be one of {', '.join(allowed)}")


@dataclass
class Position:
    """Where a run stands: everything besides weights, optimiser and schedule that a continuation needs."""

    update: int = 0
    epoch: int = 0
    batch: int = 0  # batches of this epoch that have been used
    validated: int = 0  # update of the last validation
    best: float = math.nan
    best_update: int = 0
    bad: int = 0  # validations since the best
    seconds: float = 0.0
    pending: list[float] = field(default_factory=list)  # sums since the last log line
    finished: str = ""  # why the run is over


class Trainer:
    """Trains a model in a run directory, and continues what it finds there.

    The randomness of an update is a function of (seed, update) and the order of the data one of (seed, epoch), so a
    continued run equals an uninterrupted one without any stored generator.

    Args:
        model: on `device`.
        batches: the training data.
        validation: what to do every `valid_every` updates; None only when no `fit` is wanted.
        directory: the run directory.
        header: goes into every checkpoint ("config", "tokenizer").
    """

    def __init__(
        self,
        model: Seq2Seq,
        batches: Batches,
        validation: Validation | None,
        config: TrainConfig,
        optim_config: OptimConfig,
        *,
        seed: int,
        device: torch.device,
        directory: Path,
        header: dict[str, Any],
    ) -> None:
        self.model, self.batches, self.validation = model, batches, validation
        self.config, self.optim_config = config, optim_config
        self.seed, self.device, self.directory, self.header = seed, device, directory, header
        self.objective = Objective(config.label_smoothing, config.coverage_loss, config.r_drop)
        self.optimizer = optim.optimizer(optim_config, model)
        self.plateau = optim.Plateau(optim_config)
        self.average = Average(model, config.ema) if config.ema else None
        self.position = Position()
        self.precision = runtime.precision(config.precision, device)
        self.last, self.best = directory / "checkpoints" / "last.pt", directory / "checkpoints" / "best.pt"
        self.resume()

    def fit(self, stop: StopSignal) -> Position:
        """Trains until a limit, early stopping, or `stop` (which saves first).

        Raises:
            ValueError: the loss or a weight is no longer a finite number.
        """
        position, config = self.position, self.config
        names, stands = self.objective.names, (position.update, position.validated)
        with Records(self.directory, names, *stands, config.max_updates, position.pending) as records:
            begin = time.monotonic() - position.seconds
            if position.update and not position.finished and position.validated < position.update:
                self._maybe_validate(records, stop)  # a stop came between the update and its validation
            for micro_batches in self._updates():
                records.count(*self.step(micro_batches), num_tokens=sum(batch.num_tokens for batch in micro_batches))
                position.seconds = time.monotonic() - begin
                if position.update % config.log_every == 0:
                    self._check_finite(records)
                    records.log(position.update, position.epoch, self._rate())
                self._maybe_validate(records, stop)
                position.seconds = time.monotonic() - begin
                position.finished = self._finished()
                if position.finished or stop.requested or position.update % config.save_every == 0:
                    self._check_finite(records)
                    position.pending = records.pending()
                    self.save(self.last)
                if position.finished or stop.requested:
                    break
            if position.finished and position.validated < position.update and not stop.requested:
                # Saved as finished but not validated: after a kill or a stop in here, the same command does it again.
                self._validate(records, stop)
                position.seconds = time.monotonic() - begin
                self.save(self.last)
        return position

    def step(self, micro_batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """One update; returns the losses as `Objective` sums them, and the gradient's norm."""
        self.position.update += 1
        torch.manual_seed((self.seed * 1_000_003 + self.position.update) % 2**63)
        num_tokens = sum(batch.num_tokens for batch in micro_batches)
        parts = []
        for batch in micro_batches:
            loss, losses = self.objective(self.model, on_device(batch, self.device), self.precision)
            (loss / num_tokens).backward()
            parts.append(losses)
        norm = clip_grad_norm_(self.model.parameters(), self.optim_config.clip_norm or math.inf, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.position.update)
        return torch.stack(parts).sum(0), norm

    def _updates(self) -> Iterator[list[Batch]]:
        """The batches of each update, from where the run stands; an update never spans two epochs."""
        position = self.position
        while not position.finished:
            batches = iter(self.batches.epoch(position.epoch, position.batch))
            while group := list(islice(batches, self.config.accumulate)):
                position.batch += len(group)
                yield group
            position.epoch, position.batch = position.epoch + 1, 0

    def _rate(self) -> float:
        update = self.position.update
        return optim.learning_rate(self.optim_config, update, update / self.config.max_updates, self.plateau)

    def _finished(self) -> str:
        position, config = self.position, self.config
        if position.update >= config.max_updates:
            return f"train.max_updates={config.max_updates} reached"
        if config.max_minutes and position.seconds >= 60 * config.max_minutes:
            return f"train.max_minutes={config.max_minutes:g} reached"
        if config.patience and position.bad >= config.patience:
            return f"no better valid {config.stop_metric} in train.patience={config.patience} validations"
        return ""

    def _maybe_validate(self, records: Records, stop: StopSignal) -> None:
        if self.position.update % self.config.valid_every == 0 and not stop.requested:
            self._check_finite(records)
            self._validate(records, stop)

    def _validate(self, records: Records, stop: StopSignal) -> None:
        """Validates, keeps the best checkpoint, and tells the schedule; nothing happens when `stop` cuts it short."""
        assert self.validation is not None
        update = self.position.update
        with self.average.applied() if self.average is not None else nullcontext():
            outcome = self.validation(self.model, records, update, self.precision, stop)
            if outcome is not None:
                self._judge(outcome)
                records.validated(update, outcome, self.model.quantities(), self.position.best_update)

    def _judge(self, outcome: dict[str, float]) -> None:
        """Keeps what the model holds now, which may be an average, if this validation is the best so far."""
        position, metric = self.position, self.config.stop_metric
        if metric not in outcome:
            raise ValueError(f"train.stop_metric={metric}: validation gives only {', '.join(outcome)}")
        self.plateau.observe(outcome["loss"])
        position.validated = position.update
        if math.isnan(position.best) or STOP_METRICS[metric] * (outcome[metric] - position.best) > 0:
            position.best, position.best_update, position.bad = outcome[metric], position.update, 0
            self.save(self.best, weights_only=True)
        else:
            position.bad += 1

    def _check_finite(self, records: Records) -> None:
        """Waits for the device, so only where something is written anyway."""
        weights = torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()])
        if records.is_finite() and weights.all():  # the last update may have spoilt a weight after its loss
            return
        what = "a weight" if records.is_finite() else "the training loss"
        kept = f"; {self.last} holds the last good state" if self.last.exists() else ""
        raise ValueError(
            f"{what} stopped being a finite number by update {self.position.update}: lower "
            f"optim.learning_rate={self.optim_config.learning_rate:g}, raise optim.warmup, lower optim.clip_norm, "
            f"or set train.precision=fp32{kept}"
        )

    def save(self, path: Path, *, weights_only: bool = False) -> None:
        """Writes a checkpoint; with `weights_only` one that can be used but not continued."""
        position = dataclasses.asdict(self.position)
        content = {**self.header, "model": self.model.state_dict(), "position": position, "precision": self.precision}
        if not weights_only:
            content |= {"optimizer": self.optimizer.state_dict(), "plateau": self.plateau.state()}
            if self.average is not None:
                content["average"] = self.average.state()
        checkpoint.save(path, content)

    def resume(self) -> None:
        """Takes up the run's last checkpoint, if there is one.

        Raises:
            ValueError: the checkpoint is damaged, or holds no average although one is wanted.
            RuntimeError: its model has another shape.
        """
        if not self.last.exists():
            return
        content = checkpoint.load(self.last, self.device)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.plateau.load(content["plateau"])
        if self.average is not None:
            self.average.load(content.get("average"))
        self.position = Position(**content["position"])
        self.precision = content["precision"]
        self.position.finished = self._finished()  # the limits may have been raised
