"""The checkpoints of a run: what they hold, which are kept, and taking a run up again.

last.pt            the newest state, to continue from
update-000500.pt   the states before it, also to continue from: `keep_last_checkpoints` with last.pt, at least one
best.pt            the model with the best validation
best-000500.pt     with `keep_best_checkpoints` above 1 the best models, best.pt being another name of the first
*.corrupt          what was found damaged and passed over
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nmt import checkpoint
from nmt.checkpoint import check_same_data, checkpoint_path, saved_updates
from nmt.models import Seq2Seq
from nmt.runtime.files import hard_link
from nmt.training.optim import ReduceOnPlateau
from nmt.training.weight_averaging import ExponentialMovingAverage, average_state_dicts

log = logging.getLogger(__name__)

AVERAGES = ("none", "last", "best")


@dataclass
class CheckpointConfig:
    """Which checkpoints of a run are kept, and what is made of them at its end.

    keep_last_checkpoints: how many of the newest states, last.pt counted; a damaged last.pt falls back to the one
        before.
    keep_best_checkpoints: how many of the best models, best.pt counted.
    average_checkpoints: at the end, the mean of the weights of the kept checkpoints (`last` or `best` ones) is
        validated, and becomes best.pt when it is better (Vaswani et al. 2017, section 6.1); none = off.
    """

    keep_last_checkpoints: int = 2
    keep_best_checkpoints: int = 1
    average_checkpoints: str = "none"

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.keep_last_checkpoints < 2:
            raise ValueError(
                f"train.keep_last_checkpoints={self.keep_last_checkpoints}: must be at least 2, since a damaged "
                "last.pt falls back to another"
            )
        if self.keep_best_checkpoints < 1:
            raise ValueError(f"train.keep_best_checkpoints={self.keep_best_checkpoints}: must be at least 1")
        if self.average_checkpoints not in AVERAGES:
            raise ValueError(
                f"train.average_checkpoints={self.average_checkpoints}: must be one of {', '.join(AVERAGES)}"
            )
        if self.average_checkpoints == "best" and self.keep_best_checkpoints < 2:
            raise ValueError(
                "train.average_checkpoints=best: needs several checkpoints to average; set "
                "train.keep_best_checkpoints=5"
            )


@dataclass
class TrainProgress:
    """Where a run stands: everything besides weights, optimiser and schedule that a continuation needs."""

    update: int = 0
    epoch: int = 0
    batch: int = 0  # batches of this epoch that have been used
    last_validated: int = 0  # update of the last validation
    best_score: float = math.nan
    best_update: int = 0
    best_averaged_updates: list[int] = field(default_factory=list)  # the updates whose mean best.pt is; else none
    kept_best: list[tuple[float, int]] = field(default_factory=list)  # (score, update), best first, means left out
    last_averaged: int = 0  # update at which the mean of checkpoints was last validated
    validations_without_improvement: int = 0  # validations since the best
    seconds: float = 0.0
    unlogged_sums: list[float] = field(default_factory=list)  # sums since the last log line
    oom_splits: int = 0  # times a batch was split because memory ran out
    divergence_state: list[float] = field(default_factory=list)  # see `nmt.training.divergence.Guard.state`
    stop_reason: str = ""  # why the run is over

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "TrainProgress":
        """Return the progress that a checkpoint of this version or of 0.3 holds."""
        return cls(**{_RENAMED_PROGRESS.get(name, name): value for name, value in stored.items()})


_RENAMED_PROGRESS = {
    "validated": "last_validated",
    "best": "best_score",
    "best_mean": "best_averaged_updates",
    "averaged": "last_averaged",
    "bad": "validations_without_improvement",
    "pending": "unlogged_sums",
    "split": "oom_splits",
    "guard": "divergence_state",
    "finished": "stop_reason",
}
"""Fields of `TrainProgress` in version 0.3 and their names since."""


class TrainingObjects(NamedTuple):
    """What changes while a run trains, besides its position."""

    model: Seq2Seq
    optimizer: torch.optim.Optimizer
    plateau: ReduceOnPlateau
    average: ExponentialMovingAverage | None


class CheckpointManager:
    """The checkpoints of one run, written by one process.

    Args:
        folder: of the checkpoints; made when it is needed.
        header: goes into every checkpoint ("config", "tokenizer", and "texts" as `check_same_data` reads it).
        state: what is saved, and what `resume` fills.
        save_every: the states of these updates are the ones that are kept, wherever else a run was stopped.
        sign: 1 where a higher score is better, else -1.
    """

    def __init__(
        self,
        folder: Path,
        header: dict[str, Any],
        state: TrainingObjects,
        config: CheckpointConfig,
        save_every: int,
        sign: int = 1,
    ) -> None:
        self.folder, self.header, self.state = folder, header, state
        self.config, self.save_every, self.sign = config, save_every, sign
        self.last, self.best = folder / "last.pt", folder / "best.pt"
        self.last_saved_update = 0  # the update whose state last.pt holds
        self.damaged: list[Path] = []
        self.waiting: list[Callable[[], None]] = []  # best models for which there was no room

    def save_last(
        self, position: TrainProgress, precision: str, first: Callable[[], None], *, must: bool = True
    ) -> None:
        """Writes what a continuation needs; last.pt as it was becomes the state before.

        Args:
            position, precision: of the run.
            first: brings to the disk what a continuation will take for written.
            must: False: a disk that is full is reported, and the next time will do.

        Raises:
            OSError: it could not be written; what was there is untouched.
        """
        content = self._content(position, precision)
        content |= {"optimizer": self.state.optimizer.state_dict(), "plateau": self.state.plateau.state_dict()}
        if self.state.average is not None:
            content["average"] = self.state.average.state_dict()
        try:
            first()
            while self.waiting:  # last.pt must not know of a best model that is not there
                self.waiting[0]()
                del self.waiting[0]
            for path in self.damaged:
                path.replace(path.with_suffix(".corrupt"))
            self.damaged.clear()
            former = (
                None
                if position.update == self.last_saved_update
                else checkpoint_path(self.folder, "update", self.last_saved_update)
            )
            checkpoint.save(self.last, content, former)
        except OSError as error:
            if must:
                raise
            stands = (
                f"last.pt is that of update {self.last_saved_update}"
                if self.last_saved_update
                else "there is no checkpoint yet"
            )
            log.warning("update %d is not saved, training goes on; %s: %s", position.update, stands, error)
            return
        self.last_saved_update = position.update
        self._prune(position)

    def save_best(self, position: TrainProgress, precision: str, score: float) -> None:
        """Keeps the model as it is now, which can be used but not continued, if it is among the best.

        Where there is no room for it, it is kept in memory until `save_last` succeeds.
        """
        ranked = [*position.kept_best, (score, position.update)]
        ranked.sort(key=lambda each: -self.sign * each[0])  # stable: of equals the first stays ahead
        position.kept_best = ranked[: self.config.keep_best_checkpoints]
        is_first = position.best_update == position.update
        if is_first or (self.config.keep_best_checkpoints > 1 and (score, position.update) in position.kept_best):
            self._write_best(self._content(position, precision), position.update, is_first=is_first)

    def save_averaged(self, position: TrainProgress, precision: str) -> None:
        """Writes best.pt with the model as it is now: the mean of several."""
        self._write_best(self._content(position, precision), position.update, is_first=True, is_mean=True)

    def average(self, position: TrainProgress) -> tuple[dict[str, Tensor], list[int]] | None:
        """The mean of the model's weights over the checkpoints that `config.average` names, and their updates; None
        when fewer than two of them are there."""
        if self.config.average_checkpoints == "last":
            before = [update for update in self._regular() if update < position.update]
            paths = {
                update: checkpoint_path(self.folder, "update", update)
                for update in before[1 - self.config.keep_last_checkpoints :]
            }
            paths[position.update] = self.last
        else:
            paths = {update: checkpoint_path(self.folder, "best", update) for _, update in position.kept_best}
        models: dict[int, Path] = {}
        for update, path in sorted(paths.items()):
            if path.exists():
                models[update] = path
            else:
                log.warning("%s is not there and is left out of the mean", path)
        if len(models) < 2:
            log.warning(
                "train.average_checkpoints=%s: %d checkpoint is too few for a mean",
                self.config.average_checkpoints,
                len(models),
            )
            return None

        def states() -> Iterator[dict[str, Tensor]]:
            for path in models.values():
                yield checkpoint.load(path)["model"]

        return average_state_dicts(states()), list(models)

    def resume(self, device: torch.device) -> tuple[TrainProgress, str] | None:
        """Takes up the newest whole checkpoint; position and precision, or None when there is none. Changes no file.

        Raises:
            ValueError: no checkpoint is whole, the run was trained on other text, the checkpoint holds no average
                although one is wanted, or its model has another shape.
        """
        found = checkpoint.latest_valid(self.folder, device)
        if found is None:
            return None
        content, state = found.content, self.state
        check_same_data(content, self.header)
        try:
            state.model.load_state_dict(content["model"])
        except RuntimeError as error:
            first = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
            raise ValueError(f"{found.path}: its model is not the one of these options ({first})") from None
        state.optimizer.load_state_dict(content["optimizer"])
        state.plateau.load_state_dict(content["plateau"])
        if state.average is not None:
            state.average.load_state_dict(content.get("average"))
        position = TrainProgress.from_dict(content["position"])
        self.last_saved_update = position.update
        self.damaged = [path for path, _ in found.damaged]
        for path, reason in found.damaged:
            log.warning("%s is damaged and passed over: %s", path, reason)
        if found.path != self.last:
            missing = "" if found.damaged else f"{self.last} is missing: "
            again = "updates after it are done again, with the same result; nothing else is lost"
            log.warning("%scontinues from %s, update %d; %s", missing, found.path, position.update, again)
        return position, content["precision"]

    def rollback(self, device: torch.device) -> int | None:
        """Fills model, average and optimiser from the newest state that was saved in its turn, not because of a stop;
        its update, or None when there is none."""
        for path in (
            self.last,
            *(checkpoint_path(self.folder, "update", update) for update in reversed(self._regular())),
        ):
            if not path.exists():
                continue
            content = checkpoint.load(path, device)
            update: int = content["position"]["update"]
            if update % self.save_every == 0:
                self.state.model.load_state_dict(content["model"])
                self.state.optimizer.load_state_dict(content["optimizer"])
                if self.state.average is not None:
                    self.state.average.load_state_dict(content.get("average"))
                return update
        return None

    def _content(self, position: TrainProgress, precision: str) -> dict[str, Any]:
        where = dataclasses.asdict(position)
        return {**self.header, "model": self.state.model.state_dict(), "position": where, "precision": precision}

    def _write_best(self, content: dict[str, Any], update: int, *, is_first: bool, is_mean: bool = False) -> None:
        """best.pt, or with several kept a numbered file of which best.pt is another name if it is the first."""

        def write() -> None:
            if is_mean or self.config.keep_best_checkpoints == 1:
                checkpoint.save(self.best, content)
                return
            path = checkpoint_path(self.folder, "best", update)
            checkpoint.save(path, content)
            if is_first:
                hard_link(path, self.best)

        try:
            write()
        except OSError as error:
            content["model"] = {name: tensor.to("cpu", copy=True) for name, tensor in content["model"].items()}
            self.waiting.append(write)
            log.warning("the model of update %d stays in memory until it can be written: %s", update, error)

    def _regular(self) -> list[int]:
        """The updates of the states before, but those that only a stop has made: they would not be there without it."""
        return [update for update in saved_updates(self.folder, "update") if update % self.save_every == 0]

    def _prune(self, position: TrainProgress) -> None:
        """Removes what need not be kept any more, now that last.pt knows it."""
        before = [update for update in saved_updates(self.folder, "update") if update < position.update]
        regular = [update for update in self._regular() if update < position.update]
        kept = regular[1 - self.config.keep_last_checkpoints :] or before[-1:]
        names = {checkpoint_path(self.folder, "update", update) for update in kept}
        if self.config.keep_best_checkpoints > 1:
            names |= {checkpoint_path(self.folder, "best", update) for _, update in position.kept_best}
        removable = [checkpoint_path(self.folder, "update", update) for update in before]
        removable += [checkpoint_path(self.folder, "best", update) for update in saved_updates(self.folder, "best")]
        for path in removable:
            if path not in names:
                path.unlink(missing_ok=True)
