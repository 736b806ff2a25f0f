"""Training: updates, validation, checkpoints, and the records of a run."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from nmt.data import Batch, Batches
from nmt.models import Seq2Seq
from nmt.runtime.device import compile_modules, resolve_precision
from nmt.runtime.memory import trim_memory
from nmt.training import divergence, optim
from nmt.training.checkpointing import Checkpoints, Position, State
from nmt.training.config import STOP_METRICS, TrainConfig
from nmt.training.distributed import Ranks
from nmt.training.divergence import Guard
from nmt.training.logger import Records
from nmt.training.objective import Objective
from nmt.training.oom import Pieces
from nmt.training.optim import OptimConfig
from nmt.training.signals import StopSignal
from nmt.training.tally import Tally
from nmt.training.validation import Validation
from nmt.training.weight_averaging import Average, holding

__all__ = ["Position", "TrainConfig", "Trainer"]

log = logging.getLogger(__name__)


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
        ranks: the processes that train together; all of them make the same calls, and the first one writes.
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
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.batches, self.validation = model, batches, validation
        self.config, self.optim_config = config, optim_config
        self.seed, self.device, self.directory, self.header = seed, device, directory, header
        self.ranks = ranks or Ranks()
        self.objective = Objective(config)
        self.optimizer = optim.optimizer(optim_config, model)
        self.plateau = optim.Plateau(optim_config)
        self.average = Average(model, config.ema) if config.ema else None
        self.guard = Guard(config.guard, config.guard_factor, device)
        self.position = Position()
        self.precision = resolve_precision(config.precision, device)
        if config.compile:
            compile_modules(model)
        self.network = self.ranks.network(model)
        state = State(model, self.optimizer, self.plateau, self.average)
        sign = STOP_METRICS[config.stop_metric]
        self.checkpoints = Checkpoints(directory / "checkpoints", header, state, config, config.save_every, sign)
        self.last, self.best = self.checkpoints.last, self.checkpoints.best
        self.resume()

    def fit(self, stop: StopSignal) -> Position:
        """Trains until a limit, early stopping, or `stop` (which saves first).

        Raises:
            ValueError: the loss or a weight is no longer a finite number.
        """
        position, config, usual_memory = self.position, self.config, 0
        with self._records() as records:
            begin = time.monotonic() - position.seconds
            missing = position.validated < position.update and position.update % config.valid_every == 0
            goes_on = True
            if missing and not position.finished:  # a stop came between the update and its validation
                goes_on = self._conclude(records, stop, begin)
            for micro_batches in self._updates() if goes_on else ():
                records.count(*self.step(micro_batches), num_tokens=sum(batch.num_tokens for batch in micro_batches))
                self._agree(stop, begin)
                if position.update % config.log_every == 0:
                    usual_memory = trim_memory(usual_memory)
                    self._look_after(records)
                    records.log(position.update, position.epoch, self._rate(), self.counts())
                if not self._conclude(records, stop, begin):
                    break
            if position.finished and position.validated < position.update and not stop.requested:
                # Saved as finished but not validated: after a kill or a stop in here, the same command does it again.
                self._validate(records, stop)
                self._agree(stop, begin)
                self.save(records)
            averaged = config.average == "none" or position.averaged == position.update
            if position.finished and not averaged and not stop.requested:
                self._validate_mean(records, stop)
                self.save(records)
        return position

    def step(self, micro_batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor]:
        """One update, of whose batches this rank computes its share; returns the losses as `Objective` sums them, over
        all ranks, the gradient's norm, and 1 if the update was skipped, else 0."""
        self.position.update += 1
        pieces = Pieces(micro_batches, self.network, self._seed, self.device)
        for piece in pieces:
            with pieces.fitting():
                pieces.add(*self.objective(self.network.call, piece, self.precision))
        self.position.split += pieces.num_split
        losses = self.ranks.add_up(torch.stack(pieces.losses).sum(0))
        norm = clip_grad_norm_(self.model.parameters(), self.optim_config.clip_norm or math.inf, foreach=True)
        skipped = self.guard.judge(norm, losses)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        if self.guard.is_on:
            self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.position.update)
        return losses, norm, skipped

    def _seed(self) -> None:
        """Random numbers of this update and rank."""
        torch.manual_seed((self.seed * 1_000_003 + self.position.update + self.ranks.rank * 2**48) % 2**63)

    def _records(self) -> Tally:
        position, names = self.position, self.objective.names
        stands = (position.update, position.validated, position.averaged)
        if not self.ranks.is_first:
            return Tally(names, position.pending)
        return Records(self.directory, names, *stands, self.config.max_updates, position.pending)

    def _agree(self, stop: StopSignal, begin: float) -> None:
        """What one rank alone knows: the signals it received, and, of the first, how long the run has taken."""
        heard = self.ranks.gather((stop.received, time.monotonic() - begin))
        self.position.seconds = heard[0][1]
        stop.agree(max(int(received) for received, _ in heard))

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
        return self.config.over(self.position)

    def _conclude(self, records: Tally, stop: StopSignal, begin: float) -> bool:
        """Ends an update: validates and saves if it is time to; whether another one follows."""
        if self._maybe_validate(records, stop):
            self._agree(stop, begin)
        self.position.finished = self._finished()
        is_last = bool(self.position.finished) or stop.requested  # asked once: a signal after this waits for an update
        if is_last or self.position.update % self.config.save_every == 0:
            self._check_finite(records)
            self.position.pending = records.pending()
            self.save(records, must=is_last)
        return not is_last

    def _maybe_validate(self, records: Tally, stop: StopSignal) -> bool:
        """Validates if it is time to; whether it was."""
        if self.position.update % self.config.valid_every or stop.requested:
            return False
        self._check_finite(records)
        self._validate(records, stop)
        return True

    def _validate(self, records: Tally, stop: StopSignal) -> None:
        """Validates, keeps the best checkpoint, and tells the schedule; nothing happens when `stop` cuts it short."""
        update = self.position.update
        with self.average.applied() if self.average is not None else nullcontext():
            outcome = None
            if isinstance(records, Records):
                assert self.validation is not None
                outcome = self.validation(self.model, records, update, self.precision, stop)
            outcome = self.ranks.tell(outcome)  # for which the others wait, however long the first one decodes
            if outcome is not None:
                # As they are now, and not at the last save: a run stopped before its validation has them so too.
                self.position.guard, self.position.pending = self.guard.state(), records.pending()
                self._judge(outcome)
                best, seconds = self.position.best_update, self.position.seconds
                records.validated(update, outcome, self.model.quantities(), best, seconds)

    def _judge(self, outcome: dict[str, float]) -> None:
        """Keeps what the model holds now, which may be an average, if this validation is the best so far."""
        position, metric = self.position, self.config.stop_metric
        if metric not in outcome:
            raise ValueError(f"train.stop_metric={metric}: validation gives only {', '.join(outcome)}")
        self.plateau.observe(outcome["loss"])
        position.validated = position.update
        if math.isnan(position.best) or STOP_METRICS[metric] * (outcome[metric] - position.best) > 0:
            position.best, position.best_update, position.bad = outcome[metric], position.update, 0
            position.best_mean = []
        else:
            position.bad += 1
        if self.ranks.is_first:
            self.checkpoints.save_best(position, self.precision, outcome[metric])

    def _validate_mean(self, records: Tally, stop: StopSignal) -> None:
        """Validates the mean of the kept checkpoints, if it is wanted; it becomes best.pt when it is the best."""
        if not isinstance(records, Records):
            return  # nothing comes after it that other ranks have a part in
        position, metric = self.position, self.config.stop_metric
        found = self.checkpoints.mean(position)
        if found is None:
            position.averaged = position.update
            return
        weights, updates = found
        assert self.validation is not None
        with holding(self.model, weights):
            outcome = self.validation(self.model, records, position.update, self.precision, stop)
            if outcome is None:
                return
            position.averaged = position.update
            if is_best := STOP_METRICS[metric] * (outcome[metric] - position.best) > 0:
                position.best, position.best_update, position.best_mean = outcome[metric], position.update, updates
                self.checkpoints.save_mean(position, self.precision)
        records.validated_mean(position.update, outcome, updates, is_best=is_best)

    def counts(self) -> dict[str, int]:
        """How often in the whole run something was done otherwise than planned; waits for the device."""
        return {
            "updates_skipped": self.guard.skipped()[0],
            "rollbacks": self.guard.rollbacks,
            "batches_split": self.position.split,
        }

    def _look_after(self, records: Tally) -> None:
        """With each log line, where the run waits for the device anyway: whether skipping updates is a way out."""
        _, in_a_row = self.guard.skipped()
        if in_a_row >= divergence.IN_A_ROW:
            self._diverged(f"{in_a_row} updates in a row had to be skipped")
        self._check_finite(records)

    def _check_finite(self, records: Tally) -> None:
        """Waits for the device, so only where something is written anyway."""
        weights = torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()])
        if not records.is_finite():
            self._diverged("the training loss stopped being a finite number")
        elif not weights.all():  # the last update may have spoilt a weight after its loss
            self._diverged("a weight stopped being a finite number")

    def _diverged(self, what: str) -> None:
        """Returns to a checkpoint and goes on with the next data, where the guard may do so; else ends the run."""
        update, config = self.position.update, self.optim_config
        if self.guard.may_roll_back:
            found = self.checkpoints.return_to_regular(self.device)
            if found is not None:
                self.guard.rolled_back()
                log.warning("%s by update %d: back to the weights of update %d", what, update, found)
                return
        again = f" again, after {self.guard.rollbacks} returns to a checkpoint" if self.guard.rollbacks else ""
        kept = f"; {self.last} holds the last good state" if self.last.exists() else ""
        raise ValueError(
            f"{what} by update {update}{again}: lower optim.learning_rate={config.learning_rate:g}, raise "
            f"optim.warmup, lower optim.clip_norm, or set train.precision=fp32{kept}"
        )

    def save(self, records: Tally, *, must: bool = True) -> None:
        """Writes what a run continues from, after what it says has been recorded; see `Checkpoints.save_last`."""
        self.position.guard = self.guard.state()
        if isinstance(records, Records):
            self.checkpoints.save_last(self.position, self.precision, records.sync, must=must)

    def resume(self) -> None:
        """Takes up the run's last checkpoint, if there is one; errors as `Checkpoints.resume`."""
        found = self.checkpoints.resume(self.device)
        if found is not None:
            self.position, self.precision = found
            self.guard.load(self.position.guard)
            self.position.finished = self._finished()  # the limits may have been raised
        stands = {update for (update,) in self.ranks.gather((self.position.update,))}
        if len(stands) > 1:
            raise ValueError(
                f"{self.directory}: not all ranks see the same checkpoints; "
                "runs= must be a folder that all machines share"
            )
