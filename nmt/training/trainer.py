"""The training loop: forward, backward, clip, step, log, validate, save, stop."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nmt.config import flatten
from nmt.data import Batch, BatchLoader
from nmt.models import Seq2Seq
from nmt.models.encoder_decoder import EncoderDecoder
from nmt.runtime.device import compile_modules, resolve_precision
from nmt.runtime.memory import trim_memory
from nmt.training.checkpointing import CheckpointManager, TrainingObjects
from nmt.training.config import TrainConfig
from nmt.training.distributed import DistributedContext
from nmt.training.divergence import MAX_CONSECUTIVE_SKIPS, DivergenceGuard
from nmt.training.early_stopping import EarlyStopping, stop_reason
from nmt.training.ema import ExponentialMovingAverage, temporarily_loaded
from nmt.training.forecast import RunForecast, last_update
from nmt.training.logger import MetricAccumulator, RunLogger
from nmt.training.objective import TrainingObjective
from nmt.training.oom import MicroBatches
from nmt.training.optim import (
    OptimConfig,
    ReduceOnPlateau,
    build_optimizer,
    build_scaler,
    clip_gradients,
    learning_rate,
)
from nmt.training.progress import TrainProgress
from nmt.training.rescoring import changed_score_options, rescore_best
from nmt.training.signals import GracefulShutdown
from nmt.training.validation import Validator

__all__ = ["TrainConfig", "TrainProgress", "Trainer"]

log = logging.getLogger(__name__)


class Trainer:
    """The training of a model in a run directory, continued from its last checkpoint.

    The randomness of an update is a function of (seed, update) and the order of the data one of (seed, epoch), so a
    continued run equals an uninterrupted one without any stored generator.

    Args:
        model: on `device`.
        batches: the training data.
        validation: called every `valid_every` updates; None only when `fit` is not called.
        directory: the run directory.
        header: entries of every checkpoint ("config", "tokenizer").
        distributed: the processes that train together. All of them make the same calls, and the main process writes.
    """

    def __init__(
        self,
        model: Seq2Seq,
        batches: BatchLoader,
        validation: Validator | None,
        config: TrainConfig,
        optim_config: OptimConfig,
        *,
        seed: int,
        device: torch.device,
        directory: Path,
        header: dict[str, Any],
        distributed: DistributedContext | None = None,
    ) -> None:
        self.model, self.batches, self.validation = model, batches, validation
        self.config, self.optim_config = config, optim_config
        self.seed, self.device, self.directory, self.header = seed, device, directory, header
        self.distributed = distributed or DistributedContext()
        fused = isinstance(model, EncoderDecoder)
        self.objective = TrainingObjective(config, fused=fused, corpora=batches.corpora if batches else ())
        self.optimizer = build_optimizer(optim_config, model)
        self.plateau = ReduceOnPlateau(optim_config)
        self.ema = ExponentialMovingAverage(model, config.ema_decay) if config.ema_decay else None
        self.guard = DivergenceGuard(config.on_divergence, config.max_grad_norm_ratio, device)
        self.early_stopping = EarlyStopping(config)
        self.progress = TrainProgress()
        self.precision = resolve_precision(config.precision, device, "train.precision")
        if config.compile:
            compile_modules(model)
        self.grad_sync = self.distributed.wrap(model)
        state = TrainingObjects(model, self.optimizer, self.plateau, self.ema)
        self.checkpoints = CheckpointManager(
            directory / "checkpoints", header, state, config, config.save_every, self.early_stopping.sign
        )
        self.last, self.best = self.checkpoints.last, self.checkpoints.best
        self._start = math.nan  # when the run would have begun if it had never been interrupted (monotonic seconds)
        self._num_graphs = 0
        self.resume()
        self._begin = self.progress.update
        self.scaler = build_scaler(device, self.precision, self.progress.scaler_state)
        epochs = config.max_epochs or flatten(self.checkpoints.stored_config).get("train.max_epochs")
        self.updates_per_epoch = -(-batches.num_batches() // config.gradient_accumulation) if epochs else 0
        self.last_update = last_update(config.max_updates, config.max_epochs, self.updates_per_epoch)

    def fit(self, stop: GracefulShutdown) -> TrainProgress:
        """Train until a limit, early stopping, or `stop` (which saves first).

        Raises:
            ValueError: the loss or a weight is no longer a finite number.
        """
        progress, config, usual_memory = self.progress, self.config, 0
        with self._open_logger() as logger:
            self._start = time.monotonic() - progress.seconds
            stored = self.checkpoints.stored_config
            forecast = RunForecast(self.optim_config, config, progress, stored, self.updates_per_epoch)
            proceed = self._rescore_best(logger, stop)
            proceed = proceed and (not self._missed_validation() or self._end_update(logger, stop))
            for batches in self._updates(logger) if proceed else ():
                logger.log_update(*self.step(batches), num_tokens=sum(batch.num_tokens for batch in batches))
                self._sync_ranks(stop)
                forecast.check(progress)
                if progress.update % config.log_every == 0:
                    usual_memory = trim_memory(usual_memory)
                    self._check_divergence(logger)
                    end = forecast.expected_end(progress)
                    scale = {"gradient_scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {}
                    logger.log(progress, self._learning_rate(), {**self.anomaly_counts(), **scale}, end)
                    self._log_compilations()
                if not self._end_update(logger, stop):
                    break
            if progress.stop_reason and progress.last_validated < progress.update and not stop.requested:
                # Already saved as finished: after a kill in this validation the same command validates again.
                self._validate(logger, stop)
                self._sync_ranks(stop)
                self.save(logger)
            if progress.stop_reason and self._average_due() and not stop.requested:
                self._validate_averaged(logger, stop)
                self.save(logger)
            forecast.check(progress)
        return progress

    def step(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor]:
        """Make one update from this rank's share of every batch.

        Returns:
            the losses as `TrainingObjective` sums them, over all ranks; the norm of the gradient before clipping; and 1
            if the update was skipped, else 0.
        """
        self.progress.update += 1
        micro_batches = MicroBatches(batches, self.grad_sync, self._seed_update, self.device, self.scaler)
        for micro_batch in micro_batches:
            with micro_batches.catch_oom():
                loss, losses = self.objective(self.grad_sync.call, micro_batch, self.precision)
                micro_batches.backward(loss, losses)
        self.progress.oom_splits += micro_batches.num_split
        losses = self.distributed.all_reduce(torch.stack(micro_batches.losses).sum(0))
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model, self.optim_config.clip_norm)
        scale = self.scaler.scale(torch.ones_like(norm)) if self.scaler.is_enabled() else None
        skipped = self.guard.check(norm, losses, scale)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate() * group["lr_scale"]
        if self.guard.enabled or self.scaler.is_enabled():
            self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.progress.update)
        return losses, norm, skipped

    def anomaly_counts(self) -> dict[str, int]:
        """Count the skipped updates, rollbacks and out-of-memory splits of the whole run; waits for the device."""
        return {
            "updates_skipped": self.guard.skip_counts()[0],
            "rollbacks": self.guard.rollbacks,
            "oom_splits": self.progress.oom_splits,
        }

    def _log_compilations(self) -> None:
        number = torch._dynamo.utils.counters["stats"]["unique_graphs"] if self.config.compile else 0
        if number > self._num_graphs:
            log.info("torch.compile made %d graphs by update %d", number - self._num_graphs, self.progress.update)
            self._num_graphs = number

    def _update_progress(self) -> None:
        self.progress.divergence_state, scaler = self.guard.state_dict(), self.scaler.state_dict()
        self.progress.scaler_state = [scaler["scale"], float(scaler["_growth_tracker"])] if scaler else []

    def save(self, logger: MetricAccumulator, *, must: bool = True) -> None:
        """Write last.pt after the log that it presumes; see `CheckpointManager.save_last`."""
        self._update_progress()
        if isinstance(logger, RunLogger):
            self.checkpoints.save_last(self.progress, self.precision, logger.sync, must=must)

    def resume(self) -> None:
        """Continue from the run's last checkpoint, if there is one; raises as `CheckpointManager.resume`."""
        resumed = self.checkpoints.resume(self.device)
        if resumed is not None:
            self.progress, self.precision = resumed
            self.guard.load_state_dict(self.progress.divergence_state)
            self.progress.stop_reason = stop_reason(self.config, self.progress)  # the limits may have been raised
        updates = {update for (update,) in self.distributed.all_gather((self.progress.update,))}
        if len(updates) > 1:
            raise ValueError(
                f"{self.directory}: not all ranks see the same checkpoints; "
                "runs= must be a folder that all machines share"
            )

    def _updates(self, logger: MetricAccumulator) -> Iterator[list[Batch]]:
        """Yield the batches of each update, from the current progress on; an update never spans two epochs. Save where
        the last of them ends the run."""
        progress = self.progress
        while not progress.stop_reason:
            share = self.distributed.rank, self.distributed.size
            self._log_stage()
            batches = iter(self.batches.epoch(progress.epoch, progress.batch, share=share))
            try:
                while group := list(islice(batches, self.config.gradient_accumulation)):
                    progress.batch += len(group)
                    for batch in group:
                        if batch.rows_by_corpus is not None:
                            before = progress.pairs_by_corpus or [0] * len(batch.rows_by_corpus)
                            progress.pairs_by_corpus = (before + batch.rows_by_corpus).tolist()
                    yield group
            except (ValueError, OSError):  # a stream broke off, between two updates
                self._save_checked(logger, must=True)
                raise
            progress.epoch, progress.batch = progress.epoch + 1, 0
            progress.stop_reason = stop_reason(self.config, progress)
            if progress.stop_reason:
                self._save_checked(logger, must=True)

    def _log_stage(self) -> None:
        """Log the mixture of corpora where a stage begins, or a run in it."""
        mixture, epoch = self.batches.mixture, self.progress.epoch
        if mixture is None or (mixture.stage(epoch)[1] and self.progress.update != self._begin):
            return
        number, within = mixture.stage(epoch)
        shares = zip(self.batches.corpora, mixture.stages[number].shares, strict=True)
        text = ", ".join(f"{name} {share:.3f}" for name, share in shares if share)
        log.info("stage %d of %d, epoch %d: shares %s", number + 1, len(mixture.stages), within, text)

    def _learning_rate(self) -> float:
        update = self.progress.update
        return learning_rate(self.optim_config, update, update / max(self.last_update, 1), self.plateau)

    def _seed_update(self) -> None:
        """Seed the random numbers of this update and rank."""
        # on a CPU, torch uses the lowest 32 bits only: there too, ranks are far from each other and from later updates
        offset = self.distributed.rank * 0x9E3779B97F4A7C15
        torch.manual_seed((self.seed * 1_000_003 + self.progress.update + offset) % 2**63)

    def _open_logger(self) -> MetricAccumulator:
        if not self.distributed.is_main:
            return MetricAccumulator(self.objective.names, self.progress.unlogged_sums)
        return RunLogger(self.directory, self.objective.names, self.progress, self.last_update, self.device)

    def _sync_ranks(self, stop: GracefulShutdown) -> None:
        """Share the signals that each rank received, and the duration of the run as the main process measures it."""
        gathered = self.distributed.all_gather((stop.received, time.monotonic() - self._start))
        self.progress.seconds = gathered[0][1]
        stop.synchronize(max(int(received) for received, _ in gathered))

    def _rescore_best(self, logger: MetricAccumulator, stop: GracefulShutdown) -> bool:
        """Validate the best models again if no new score could be compared with theirs; return False if interrupted."""
        progress, stored = self.progress, self.checkpoints.stored_config
        changed = changed_score_options(self.config.early_stopping_metric, stored, self.header["config"])
        validates = not progress.stop_reason or progress.last_validated < progress.update or self._average_due()
        if not (changed and validates and progress.best_update):
            return True
        log.info("%s: scores have another meaning now, so the best is validated again", "; ".join(changed))
        ranked = None
        if isinstance(logger, RunLogger):
            scores = partial(self._scores, logger, stop)
            ranked = rescore_best(self.checkpoints, progress, self.early_stopping, self.model, scores)
        ranked = self.distributed.broadcast(ranked)
        self._sync_ranks(stop)
        if ranked is None:
            return False
        for name in ("best_score", "best_loss", "best_update", "best_averaged_updates", "kept_best", "kept_losses"):
            setattr(progress, name, getattr(ranked, name))
        progress.validations_without_improvement = 0
        self.save(logger, must=False)
        logger.restart_timer()
        return True

    def _average_due(self) -> bool:
        return self.config.average_checkpoints != "none" and self.progress.last_averaged != self.progress.update

    def _missed_validation(self) -> bool:
        """Return whether the run was stopped between an update and the validation due after it."""
        progress = self.progress
        due = progress.update % self.config.valid_every == 0
        return due and progress.last_validated < progress.update and not progress.stop_reason

    def _end_update(self, logger: MetricAccumulator, stop: GracefulShutdown) -> bool:
        """Validate and save where it is due; return whether another update follows."""
        progress, config = self.progress, self.config
        if progress.update % config.valid_every == 0 and not stop.requested:
            self._check_finite(logger)
            self._validate(logger, stop)
            self._sync_ranks(stop)
        progress.stop_reason = stop_reason(config, progress)
        is_last = bool(progress.stop_reason) or stop.requested  # read once: a later signal waits for the next update
        if is_last or progress.update % config.save_every == 0:
            self._save_checked(logger, must=is_last)
        return not is_last

    def _save_checked(self, logger: MetricAccumulator, *, must: bool) -> None:
        self._check_finite(logger)
        self.progress.unlogged_sums = logger.unlogged_sums()
        self.save(logger, must=must)

    def _scores(self, logger: RunLogger, stop: GracefulShutdown) -> dict[str, float] | None:
        assert self.validation is not None
        return self.validation(self.model, logger, self.progress.update, self.precision, stop)

    def _validate(self, logger: MetricAccumulator, stop: GracefulShutdown) -> None:
        """Validate, keep the best checkpoint and step the schedule; do nothing when `stop` interrupts it."""
        progress = self.progress
        with self.ema.swapped_in() if self.ema is not None else nullcontext():
            scores = self._scores(logger, stop) if isinstance(logger, RunLogger) else None
            scores = self.distributed.broadcast(scores)  # the other ranks wait here for the main process
            if scores is None:
                return
            # As they are now, not as last saved: a run stopped before its validation has the same.
            self._update_progress()
            progress.unlogged_sums = logger.unlogged_sums()
            score, loss = self.early_stopping.score(scores)
            self.plateau.step(scores["loss"])
            self.early_stopping.update(score, loss, progress)
            mixture = self.batches.mixture
            if mixture is not None and mixture.stage(progress.epoch)[0] < len(mixture.stages) - 1:
                progress.validations_without_improvement = 0  # patience counts in the last stage
            if self.distributed.is_main:
                self.checkpoints.save_best(progress, self.precision, score, loss)
            logger.log_validation(progress, scores, self.model.learned_scalars())

    def _validate_averaged(self, logger: MetricAccumulator, stop: GracefulShutdown) -> None:
        """Validate the mean of the kept checkpoints; it becomes best.pt when it is the best."""
        if not isinstance(logger, RunLogger):
            return  # no collective follows
        progress = self.progress
        averaged = self.checkpoints.average(progress)
        if averaged is None:
            progress.last_averaged = progress.update
            return
        weights, updates = averaged
        with temporarily_loaded(self.model, weights):
            scores = self._scores(logger, stop)
            if scores is None:
                return
            is_best = self.early_stopping.update(*self.early_stopping.score(scores), progress, updates)
            if is_best:
                self.checkpoints.save_averaged(progress, self.precision)
        logger.log_averaged_validation(progress.update, scores, updates, is_best=is_best)

    def _check_divergence(self, logger: MetricAccumulator) -> None:
        """Check that skipping updates helps; called with each log line, where the run waits for the device anyway."""
        _, consecutive = self.guard.skip_counts()
        if consecutive >= MAX_CONSECUTIVE_SKIPS:
            self._handle_divergence(f"{consecutive} updates in a row had to be skipped")
        self._check_finite(logger)

    def _check_finite(self, logger: MetricAccumulator) -> None:
        """Check loss and weights; waits for the device, so only where something is written anyway."""
        weights = torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()])
        if not logger.is_finite():
            self._handle_divergence("the training loss stopped being a finite number")
        elif not weights.all():  # the last update may have spoiled a weight after its loss
            self._handle_divergence("a weight stopped being a finite number")

    def _handle_divergence(self, reason: str) -> None:
        """Roll back to a checkpoint and go on with the next data, where the guard allows it; else end the run."""
        update, config = self.progress.update, self.optim_config
        if self.guard.can_roll_back and (restored := self.checkpoints.rollback(self.device)) is not None:
            self.guard.on_rollback()
            self.scaler = build_scaler(self.device, self.precision, [])
            log.warning("%s by update %d: back to the weights of update %d", reason, update, restored)
            return
        again = f" again, after {self.guard.rollbacks} returns to a checkpoint" if self.guard.rollbacks else ""
        kept = f"; {self.last} holds the last good state" if self.last.exists() else ""
        raise ValueError(
            f"{reason} by update {update}{again}: lower optim.learning_rate={config.learning_rate:g}, raise "
            f"optim.warmup_updates, lower optim.clip_norm, or set train.precision=fp32{kept}"
        )
