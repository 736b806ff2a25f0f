"""Training: updates, validation, checkpoints, and the records of a run."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmt import checkpoint, optim, runtime
from nmt.data import PAD, Batch, Batches, on_device
from nmt.loss import cross_entropy
from nmt.models import Seq2Seq
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
    precision: fp32, bf16, or auto (what is faster on this device).
    log_every, valid_every, save_every: in updates.
    valid_sentences: translate only the first sentences of the validation set for BLEU; 0 = all.
    stop_metric: what chooses the best checkpoint: bleu, chrf, loss or aer (where gold exists).
    patience: end after this many validations without a better one; 0 = never.
    """

    max_updates: int = 2500
    max_minutes: float = 0.0
    batch_tokens: int = 1536
    accumulate: int = 1
    label_smoothing: float = 0.1
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
        for option in ("max_minutes", "valid_sentences", "patience"):
            if not 0 <= getattr(self, option) < math.inf:
                raise ValueError(f"train.{option}={getattr(self, option)}: must be a number of at least 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"train.label_smoothing={self.label_smoothing}: must be at least 0 and below 1")
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
        self.optimizer = optim.optimizer(optim_config, model)
        self.plateau = optim.Plateau(optim_config)
        self.position = Position()
        self.precision = runtime.precision(config.precision, device)
        self.last, self.best = directory / "checkpoints" / "last.pt", directory / "checkpoints" / "best.pt"
        self.resume()

    def fit(self, stop: StopSignal) -> Position:
        """Trains until a limit, early stopping, or `stop` (which saves first).

        Raises:
            ValueError: the loss is no longer a finite number.
        """
        position, config = self.position, self.config
        with Records(self.directory, position.update, config.max_updates, position.pending) as records:
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
            if position.finished and position.best_update == 0:  # shorter than one validation
                self._validate(records, stop)
                self.save(self.last)
        return position

    def step(self, micro_batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor]:
        """One update; returns the summed smoothed loss, the summed negative log-likelihood and the gradient's norm."""
        self.position.update += 1
        torch.manual_seed((self.seed * 1_000_003 + self.position.update) % 2**63)
        num_tokens = sum(batch.num_tokens for batch in micro_batches)
        losses, nlls = [], []
        for batch in micro_batches:
            batch = on_device(batch, self.device)
            wanted = batch.labels != PAD
            with runtime.autocast(self.precision, self.device):
                logits, _ = self.model(batch.source, batch.source_mask, batch.inputs, positions=wanted)
                loss, nll = cross_entropy(logits, batch.labels[wanted], smoothing=self.config.label_smoothing)
            (loss / num_tokens).backward()
            losses.append(loss.detach())
            nlls.append(nll)
        limit = self.optim_config.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum(), torch.stack(nlls).sum(), norm

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
        position = self.position
        assert self.validation is not None
        outcome = self.validation(self.model, records, position.update, self.precision, stop)
        if outcome is None:
            return
        if self.config.stop_metric not in outcome:
            raise ValueError(f"train.stop_metric={self.config.stop_metric}: validation gives only {', '.join(outcome)}")
        self.plateau.observe(outcome["loss"])
        value = outcome[self.config.stop_metric]
        position.validated = position.update
        if math.isnan(position.best) or STOP_METRICS[self.config.stop_metric] * (value - position.best) > 0:
            position.best, position.best_update, position.bad = value, position.update, 0
            self.save(self.best, weights_only=True)
        else:
            position.bad += 1
        records.validated(position.update, outcome, position.best_update)

    def _check_finite(self, records: Records) -> None:
        if not records.is_finite():
            kept = f"; {self.last} holds the last good state" if self.last.exists() else ""
            raise ValueError(
                f"the training loss stopped being a finite number by update {self.position.update}: lower "
                f"optim.learning_rate={self.optim_config.learning_rate:g}, raise optim.warmup, lower optim.clip_norm, "
                f"or set train.precision=fp32{kept}"
            )

    def save(self, path: Path, *, weights_only: bool = False) -> None:
        """Writes a checkpoint; with `weights_only` one that can be used but not continued."""
        position = dataclasses.asdict(self.position)
        content = {**self.header, "model": self.model.state_dict(), "position": position, "precision": self.precision}
        if not weights_only:
            content |= {"optimizer": self.optimizer.state_dict(), "plateau": self.plateau.state()}
        checkpoint.save(path, content)

    def resume(self) -> None:
        """Takes up the run's last checkpoint, if there is one.

        Raises:
            ValueError: the checkpoint is damaged, or its model has another shape.
        """
        if not self.last.exists():
            return
        content = checkpoint.load(self.last, self.device)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.plateau.load(content["plateau"])
        self.position = Position(**content["position"])
        self.precision = content["precision"]
        self.position.finished = self._finished()  # the limits may have been raised
