"""What a run writes down while it trains: metrics.jsonl, log lines or a progress bar, and TensorBoard."""

import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nmt.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that was cut off by a crash is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Records:
    """The open records of a run, continued from `update`: what a run that was killed wrote after it is removed.

    Args:
        directory: the run directory.
        names: of the losses that `count` is given; "loss" and "nll" first.
        update: where the run stands.
        validated: the update of the last validation that the run knows of.
        max_updates: for the progress bar.
        pending: what `pending` gave when the run was saved.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        update: int,
        validated: int,
        max_updates: int,
        pending: Sequence[float] = (),
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.names = names
        self.path = directory / "metrics.jsonl"
        # a validation may have come after the checkpoint of its own update; it will be done again
        rows = [row for row in read(self.path) if row["update"] <= (validated if "valid_loss" in row else update)]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.file = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(directory / "tensorboard"), purge_step=update + 1)
        self.bar = _bar(update, max_updates)
        self._reset(pending)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        self.file.close()
        self.board.close()

    def _reset(self, pending: Sequence[float] = ()) -> None:
        # On the loss's device, so that counting does not wait for it; fp64, so that restarts change nothing.
        self.sums = torch.tensor(pending[:-1], dtype=torch.float64) if pending else torch.zeros(1, dtype=torch.float64)
        self.num_tokens = int(pending[-1]) if pending else 0
        self.norm: Tensor | None = None
        self.tokens_here = 0
        self.begin = time.monotonic()

    def count(self, losses: Tensor, norm: Tensor, *, num_tokens: int) -> None:
        """One update.

        Args:
            losses: (len(names),), summed over tokens.
            norm: of the gradient.
            num_tokens: target tokens of the update.
        """
        self.sums = self.sums.to(losses.device) + losses
        self.norm = norm
        self.num_tokens += num_tokens
        self.tokens_here += num_tokens
        self.bar.update(1)

    def pending(self) -> list[float]:
        """What was counted since the last log line, for a checkpoint."""
        return [*self.sums.tolist(), float(self.num_tokens)] if self.num_tokens else []

    def is_finite(self) -> bool:
        """Whether the losses since the last log line are finite numbers."""
        return bool(torch.isfinite(self.sums).all())

    def log(self, update: int, epoch: int, learning_rate: float) -> None:
        """A row of the training loss since the last one."""
        loss, nll, *others = (self.sums / self.num_tokens).tolist()
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
        }
        self.write(row, "train")
        text = f"loss {loss:.3f}  perplexity {row['perplexity']:.2f}  {rate:.0f} tokens/s"
        level = logging.INFO if self.bar.disable else logging.DEBUG  # on a terminal the bar shows it
        log.log(level, "update %d  epoch %d  %s  rate %.2e", update, epoch, text, learning_rate)
        self.bar.set_postfix_str(text)
        self._reset()

    def validated(
        self, update: int, outcome: dict[str, float], quantities: dict[str, list[float]], best_update: int
    ) -> None:
        """A row of validation results, with the model's learned quantities by name and head if it has any."""
        row = {"update": update, **{f"valid_{name}": value for name, value in outcome.items()}}
        self.write({**row, **({"quantities": quantities} if quantities else {})}, "valid")
        shown = "  ".join(
            f"{name} {value:.2f}" if name != "aer" else f"AER {100 * value:.1f} %" for name, value in outcome.items()
        )
        self.say(f"valid at update {update}: {shown}{'  (best so far)' if best_update == update else ''}")
        for name, values in quantities.items():
            log.debug("%s at update %d: %s", name, update, "  ".join(f"{value:.3f}" for value in values))
        self.tokens_here, self.begin = 0, time.monotonic()  # validation time is not training time

    def say(self, text: str) -> None:
        """A log line that does not tear the progress bar."""
        self.bar.clear()
        log.info("%s", text)
        self.bar.refresh()

    def write(self, row: dict[str, Any], group: str) -> None:
        """A row of metrics.jsonl, and its numbers as TensorBoard scalars."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        for name, value in row.items():
            if name == "quantities":
                for quantity, heads in value.items():
                    for head, number in enumerate(heads, start=1):
                        self.board.add_scalar(f"quantities/{quantity}/{head}", number, row["update"])
            elif name not in ("update", "epoch"):
                self.board.add_scalar(f"{group}/{name.removeprefix('valid_')}", value, row["update"])

    def text(self, tag: str, text: str, update: int) -> None:
        """A text for TensorBoard."""
        self.board.add_text(tag, text, update)

    def figure(self, tag: str, figure: "Figure", update: int) -> None:
        """A picture for TensorBoard."""
        self.board.add_figure(tag, figure, update)


def _bar(initial: int, total: int) -> Any:
    """A progress bar with rate and time left on a terminal; silent elsewhere, where plain lines are logged."""
    from tqdm import tqdm

    return tqdm(
        initial=initial, total=total, unit="update", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()
    )
