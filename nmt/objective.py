"""What a training step minimises: smoothed cross-entropy, and what the options add to it."""

import torch
from torch import Tensor

from nmt import runtime
from nmt.data import PAD, Batch
from nmt.loss import coverage_loss, cross_entropy, divergence
from nmt.models import Seq2Seq


class Objective:
    """The sum over target tokens that is differentiated, and the sums that are logged.

    Args:
        label_smoothing, coverage_loss, r_drop: see `nmt.trainer.TrainConfig`.

    names: of the logged sums: "loss", "nll", then whichever of "coverage_loss" and "r_drop" is on.
    """

    def __init__(self, label_smoothing: float, coverage_loss: float, r_drop: float) -> None:
        self.label_smoothing, self.coverage_loss, self.r_drop = label_smoothing, coverage_loss, r_drop
        extra = {"coverage_loss": coverage_loss, "r_drop": r_drop}
        self.names = ("loss", "nll", *(name for name, weight in extra.items() if weight))

    def __call__(self, model: Seq2Seq, batch: Batch, precision: str) -> tuple[Tensor, Tensor]:
        """What is differentiated, and (len(names),) without the weights of the options."""
        twice = 2 if self.r_drop else 1
        # R-Drop sends every sentence through the model twice; dropout makes the two differ.
        source, mask, inputs, labels = (torch.cat([part] * twice) if twice > 1 else part for part in batch[:4])
        wanted = labels != PAD
        with runtime.autocast(precision, labels.device):
            logits, record = model(source, mask, inputs, attention=self.coverage_loss > 0, positions=wanted)
            loss, nll = cross_entropy(logits, labels[wanted], smoothing=self.label_smoothing)
            total, logged = loss / twice, [loss.detach() / twice, nll / twice]
            if self.coverage_loss:
                assert record is not None, "a coverage loss needs attention"
                repeated = coverage_loss(record.cross, wanted) / twice
                total = total + self.coverage_loss * repeated
                logged.append(repeated.detach())
            if self.r_drop:
                apart = divergence(logits)
                total = total + self.r_drop / 4 * apart
                logged.append(apart.detach())
        return total, torch.stack(logged)
