"""The checkpoints of a run: their content, which of them are kept, and how a run continues from them.

last.pt            the newest state, to continue from
update-000500.pt   earlier states, also to continue from: `keep_last_checkpoints` with last.pt, at least one
best.pt            the model with the best validation
best-000500.pt     with `keep_best_checkpoints` above 1 the best models; best.pt is a hard link to the first
*.corrupt          files that were damaged and passed over
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nmt import checkpoint
from nmt.checkpoint import check_same_data, checkpoint_path, saved_updates
from nmt.config import check_choice, check_range
from nmt.models import Seq2Seq
from nmt.models.loading import load_state
from nmt.runtime.device import PRECISIONS
from nmt.runtime.errors import error_message
from nmt.runtime.files import hard_link
from nmt.training.ema import ExponentialMovingAverage
from nmt.training.optim import ReduceOnPlateau, load_optimizer_state
from nmt.training.progress import TrainProgress

log = logging.getLogger(__name__)

AVERAGES = ("none", "last", "best")


@dataclass
class CheckpointConfig:
    """Which checkpoints of a run are kept, and whether they are averaged at its end.

    keep_last_checkpoints: how many of the newest states, last.pt counted, at least 2: a damaged last.pt falls back to
        the one before.
    keep_best_checkpoints: how many of the best models, best.pt counted.
    average_checkpoints: at the end, the mean of the weights of the kept checkpoints (`last` or `best` ones) is
        validated, and becomes best.pt when it is better (Vaswani et al. 2017, section 6.1); none = off.
    """

    keep_last_checkpoints: int = 2
    keep_best_checkpoints: int = 1
    average_checkpoints: str = "none"

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_range("train", self, ["keep_last_checkpoints"], minimum=2)
        check_range("train", self, ["keep_best_checkpoints"], minimum=1)
        check_choice("train", self, "average_checkpoints", AVERAGES)
        if self.average_checkpoints == "best" and self.keep_best_checkpoints < 2:
            raise ValueError(
                "train.average_checkpoints=best: needs several checkpoints to average; set "
                "train.keep_best_checkpoints=5"
            )


class TrainingObjects(NamedTuple):
    """The objects that training changes, besides the progress."""

    model: Seq2Seq
    optimizer: torch.optim.Optimizer
    plateau: ReduceOnPlateau
    ema: ExponentialMovingAverage | None


class CheckpointManager:
    """The checkpoints of one run, written by one process.

    Args:
        folder: of the checkpoints; made when it is needed.
        header: entries of every checkpoint ("config", "tokenizer", and "texts" as `check_same_data` reads it).
        state: saved by `save_last`, filled by `resume`.
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
        self.stored_config: dict[str, Any] = {}  # of the checkpoint that the run continues
        self.corrupt: list[Path] = []
        self.pending_writes: list[Callable[[], None]] = []  # of best models for which there was no space

    def save_last(
        self, progress: TrainProgress, precision: str, sync_log: Callable[[], None], *, must: bool = True
    ) -> None:
        """Write what a continuation needs; the former last.pt becomes the numbered file of its update.

        Args:
            sync_log: writes the log to the disk, which a continuation presumes there.
            must: False: a full disk is only reported, since the next checkpoint will do.

        Raises:
            OSError: it could not be written; the files that exist are untouched. The message says what is lost.
        """
        content = self._content(progress, precision)
        content |= {"optimizer": self.state.optimizer.state_dict(), "plateau": self.state.plateau.state_dict()}
        if self.state.ema is not None:
            content["average"] = self.state.ema.state_dict()
        is_new = progress.update != self.last_saved_update
        try:
            sync_log()
            while self.pending_writes:  # last.pt must not refer to a best model that is not on the disk
                self.pending_writes[0]()
                del self.pending_writes[0]
            for path in self.corrupt:
                path.replace(path.with_suffix(".corrupt"))
            self.corrupt.clear()
            checkpoint.save(self.last, content, self._numbered(self.last_saved_update) if is_new else None)
        except OSError as error:
            saved, reason = self.last_saved_update, error_message(error)
            existing = f"the last checkpoint in {self.folder} is of update {saved}" if saved else "no checkpoint exists"
            if must:
                lost = f"updates {saved + 1} to {progress.update} are" if is_new else "the last validation is"
                raise OSError(
                    f"{reason}; {lost} lost, {existing}: when the disk can be written to again (a full one needs "
                    "space), the same command makes up for it"
                ) from error
            log.warning("update %d is not saved, training goes on; %s: %s", progress.update, existing, reason)
            return
        self.last_saved_update = progress.update
        self._prune(progress)

    def save_best(self, progress: TrainProgress, precision: str, score: float, loss: float = math.inf) -> None:
        """Save the current model if it is among the best; on a full disk, keep it in memory until `save_last`."""
        losses = [*progress.kept_losses, *[math.inf] * len(progress.kept_best)]  # version 0.4 stored none
        known = [(*entry, its_loss) for entry, its_loss in zip(progress.kept_best, losses, strict=False)]
        self.rank_best(progress, [*known, (score, progress.update, loss)])
        is_first = progress.best_update == progress.update
        if is_first or (self.config.keep_best_checkpoints > 1 and (score, progress.update) in progress.kept_best):
            self._write_best(self._content(progress, precision), progress.update, is_first=is_first)

    def rank_best(self, progress: TrainProgress, entries: list[tuple[float, int, float]]) -> None:
        """Keep the best of these (score, update, loss): a tie is decided by the loss, then by their order here."""
        ranked = sorted(entries, key=lambda entry: (-self.sign * entry[0], entry[2]))
        ranked = ranked[: self.config.keep_best_checkpoints]
        progress.kept_best, progress.kept_losses = [entry[:2] for entry in ranked], [entry[2] for entry in ranked]

    def save_averaged(self, progress: TrainProgress, precision: str) -> None:
        """Write best.pt with the current model: the mean of several."""
        self._write_best(self._content(progress, precision), progress.update, is_first=True, is_mean=True)

    def average(self, progress: TrainProgress) -> tuple[dict[str, Tensor], list[int]] | None:
        """Average the model's weights over the checkpoints that `average_checkpoints` names; return the mean and their
        updates, or None when fewer than two of them exist."""
        if self.config.average_checkpoints == "last":
            earlier = [update for update in self._regular_updates() if update < progress.update]
            paths = {update: self._numbered(update) for update in earlier[1 - self.config.keep_last_checkpoints :]}
            paths[progress.update] = self.last
        else:
            paths = {update: self._numbered(update, "best") for _, update in progress.kept_best}
        for update, path in sorted(paths.items()):
            try:
                checkpoint.load(path)
            except (FileNotFoundError, checkpoint.CorruptCheckpointError) as error:
                log.warning("%s (left out of the mean)", error)
                del paths[update]
        if len(paths) < 2:
            option = f"train.average_checkpoints={self.config.average_checkpoints}"
            log.warning("%s: %d checkpoint is too few for a mean", option, len(paths))
            return None
        updates = sorted(paths)
        return checkpoint.average_state_dicts(checkpoint.load(paths[update])["model"] for update in updates), updates

    def resume(self, device: torch.device) -> tuple[TrainProgress, str] | None:
        """Load the newest valid checkpoint; return progress and precision, or None without one. Change no file.

        Raises:
            ValueError: no checkpoint is valid, the run was trained on other text, the checkpoint holds no moving
                average although one is wanted, its model has another shape, or a best model is damaged.
        """
        latest = checkpoint.latest_valid(self.folder, device)
        if latest is None:
            return None
        content = latest.content
        with checkpoint.interpreting(content):
            check_same_data(content, self.header)
            self._load_weights(content)
            self.state.plateau.load_state_dict(content["plateau"])
            progress, precision = TrainProgress.from_dict(content["position"]), content["precision"]
            if precision not in PRECISIONS:
                raise ValueError(f"precision={precision}: must be one of {', '.join(PRECISIONS)}")
        self._check_best(progress)
        self.last_saved_update = progress.update
        self.corrupt = [path for path, _ in latest.corrupt]
        self.stored_config = content.get("config", {})
        for path, reason in latest.corrupt:
            log.warning("%s is damaged and passed over: %s", path, reason)
        if latest.path != self.last:
            missing = "" if latest.corrupt else f"{self.last} is missing: "
            again = "updates after it are done again, with the same result; nothing else is lost"
            log.warning("%scontinues from %s, update %d; %s", missing, latest.path, progress.update, again)
        return progress, precision

    def _check_best(self, progress: TrainProgress) -> None:
        """Check the best models while nothing is lost by it; without best.pt, forget the best validation."""
        numbered = [self._numbered(update, "best") for _, update in progress.kept_best]
        for path in (self.best, *(numbered if self.config.keep_best_checkpoints > 1 else ())):
            try:
                if path.exists():
                    checkpoint.load(path)
            except checkpoint.CorruptCheckpointError:
                raise ValueError(
                    f"{path}: the file of a best model is damaged: put back a copy, or delete it, and the best of the "
                    "later validations takes its place; nothing was changed"
                ) from None
        if progress.best_update and not self.best.exists():
            text = "%s is missing, the best model (update %d); the best of the later validations takes its place"
            log.warning(text, self.best, progress.best_update)
            progress.best_score, progress.best_loss = math.nan, math.inf
            progress.best_update, progress.best_averaged_updates = 0, []
            progress.last_validated = min(progress.last_validated, progress.update - 1)  # a finished run: once more

    def rollback(self, device: torch.device) -> int | None:
        """Load model, moving average and optimizer from the newest state, without those that only a stop has made;
        return its update, or None when there is none."""
        for path in (self.last, *map(self._numbered, reversed(self._regular_updates()))):
            if path.exists():
                content = checkpoint.load(path, device)
                with checkpoint.interpreting(content):
                    update: int = content["position"]["update"]
                    if update % self.save_every == 0:
                        self._load_weights(content)
                        return update
        return None

    def _load_weights(self, content: Mapping[str, Any]) -> None:
        load_state(self.state.model, content["model"])
        load_optimizer_state(self.state.optimizer, content["optimizer"])
        if self.state.ema is not None:
            self.state.ema.load_state_dict(content.get("average"))

    def _content(self, progress: TrainProgress, precision: str) -> dict[str, Any]:
        model, position = self.state.model.state_dict(), asdict(progress)
        return {**self.header, "model": model, "position": position, "precision": precision}

    def _numbered(self, update: int, kind: str = "update") -> Path:
        return checkpoint_path(self.folder, kind, update)

    def _write_best(self, content: dict[str, Any], update: int, *, is_first: bool, is_mean: bool = False) -> None:
        """Write best.pt, or with several kept a numbered file to which best.pt is a hard link if it is the first."""

        def write() -> None:
            if is_mean or self.config.keep_best_checkpoints == 1:
                checkpoint.save(self.best, content)
                return
            path = self._numbered(update, "best")
            checkpoint.save(path, content)
            if is_first:
                hard_link(path, self.best)

        try:
            write()
        except OSError as error:
            content["model"] = {name: tensor.to("cpu", copy=True) for name, tensor in content["model"].items()}
            self.pending_writes.append(write)
            log.warning("the model of update %d stays in memory until it can be written: %s", update, error)

    def _regular_updates(self) -> list[int]:
        """Return the updates of the earlier states that an uninterrupted run would have too."""
        return [update for update in saved_updates(self.folder, "update") if update % self.save_every == 0]

    def _prune(self, progress: TrainProgress) -> None:
        """Remove the files that are no longer kept, after last.pt has been written."""
        earlier = [update for update in saved_updates(self.folder, "update") if update < progress.update]
        regular = [update for update in earlier if update % self.save_every == 0]
        kept = {self._numbered(update) for update in regular[1 - self.config.keep_last_checkpoints :] or earlier[-1:]}
        if self.config.keep_best_checkpoints > 1:
            kept |= {self._numbered(update, "best") for _, update in progress.kept_best}
        removable = {self._numbered(update) for update in earlier}
        removable |= {self._numbered(update, "best") for update in saved_updates(self.folder, "best")}
        for path in removable - kept:
            path.unlink(missing_ok=True)
