"""What a training step minimises: smoothed cross-entropy, and what the options add to it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt.data import PAD, UNK, AlignmentTargets, Batch
from nmt.data.vocabulary import SPECIAL_TOKENS
from nmt.models import Seq2Seq
from nmt.runtime.device import autocast
from nmt.training.losses import alignment_loss, coverage_loss, cross_entropy, symmetric_kl


@dataclass
class LossConfig:
    """What is minimised.

    label_smoothing: ε of the smoothed cross-entropy.
    coverage_loss_weight: λ of the coverage loss (See et al. 2017, equation 13), against attending to the same source
        tokens again and again; 0 = off.
    r_drop_alpha: α of R-Drop (Liang et al. 2021, equation 4): every sentence goes through the model twice, and the two
        predictions are drawn together; 0 = off, 5 is the paper's for translation.
    guided_alignment_weight: λ of guided alignment (Liu et al. 2016; Chen et al. 2016; Garg et al. 2019): attention to
        the source is drawn towards the training text's word alignment (see `data.train_alignments`) by their
        cross-entropy,
        summed over the target subwords that have links; 0 = off.
    guided_layer, guided_head: the layer and the head that learn it, counted from 1, layers without attention to the
        source left out; 0 = the mean of all. `alignment` chooses again from which one alignments are read.
    word_dropout: probability with which a source token is replaced by UNK in training, so that the model learns to use
        the others. Sennrich et al. 2016 (WMT) set the embedding to zero; here the embedding of UNK is learned.
    target_word_dropout: the same for what the decoder is given of the target (Bowman et al. 2016, section 3.1.1).
    """

    label_smoothing: float = 0.1
    coverage_loss_weight: float = 0.0
    r_drop_alpha: float = 0.0
    guided_alignment_weight: float = 0.0
    guided_layer: int = 0
    guided_head: int = 0
    word_dropout: float = 0.0
    target_word_dropout: float = 0.0

    def validate_loss(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        for option in ("coverage_loss_weight", "r_drop_alpha", "guided_alignment_weight"):
            if not 0 <= getattr(self, option) < math.inf:
                raise ValueError(f"train.{option}={getattr(self, option)}: must be a number of at least 0")
        for option in ("label_smoothing", "word_dropout", "target_word_dropout"):
            if not 0 <= getattr(self, option) < 1:
                raise ValueError(f"train.{option}={getattr(self, option)}: must be at least 0 and below 1")
        for option in ("guided_layer", "guided_head"):
            if getattr(self, option) < 0:
                what = option.removeprefix("guided_")
                raise ValueError(f"train.{option}={getattr(self, option)}: must be 0 (all) or the number of a {what}")

    def unused_options(self) -> list[str]:
        """Options that are set and change nothing, with their values."""
        names = [] if self.guided_alignment_weight else ["guided_layer", "guided_head"]
        return [f"train.{name}={getattr(self, name)}" for name in names if getattr(self, name)]


class TrainingObjective:
    """The sum over target tokens that is differentiated, and the sums that are logged.

    What is asked of attention is 0 in a step in which `layerdrop` has left out every layer that attends to the source.

    names: of the logged sums: "loss", "nll", then whichever of "coverage_loss", "guided_alignment" and "r_drop" is on.
        After "guided_alignment" comes "guided_missed", how much of the reference alignment lies where attention is
        exactly 0 (outside a window, or because the normaliser is sparse): nothing draws attention there.
    """

    def __init__(self, config: LossConfig) -> None:
        self.config = config
        parts = {
            "coverage_loss_weight": ["coverage_loss"],
            "guided_alignment_weight": ["guided_alignment", "guided_missed"],
            "r_drop_alpha": ["r_drop"],
        }
        extra = [name for option, names in parts.items() if getattr(config, option) for name in names]
        self.names = ("loss", "nll", *extra)

    def __call__(self, model: Seq2Seq, batch: Batch, precision: str) -> tuple[Tensor, Tensor]:
        """What is differentiated, and (len(names),) without the weights of the options.

        With guided alignment the batch needs links.
        """
        config = self.config
        twice = 2 if config.r_drop_alpha else 1
        # R-Drop sends every sentence through the model twice; dropout makes the two differ.
        source, mask, inputs, labels = (torch.cat([part] * twice) if twice > 1 else part for part in batch[:4])
        if model.training:
            source, inputs = (
                apply_word_dropout(source, config.word_dropout),
                apply_word_dropout(inputs, config.target_word_dropout),
            )
        places = (
            torch.cat([batch.label_indices, batch.label_indices + batch.labels.numel()])
            if twice > 1
            else batch.label_indices
        )
        with autocast(precision, labels.device):
            recording = config.coverage_loss_weight > 0 or config.guided_alignment_weight > 0
            logits, record = model(source, mask, inputs, attention=recording, positions=places)
            loss, nll = cross_entropy(logits, labels.flatten()[places], smoothing=config.label_smoothing)
            total, logged = loss / twice, [loss.detach() / twice, nll / twice]
            if config.coverage_loss_weight:
                repeated = nll.new_zeros(()) if record is None else coverage_loss(record.cross, labels != PAD) / twice
                total = total + config.coverage_loss_weight * repeated
                logged.append(repeated.detach())
            if config.guided_alignment_weight:
                terms = nll.new_zeros(2).unbind() if record is None else self._guided(record.cross, batch.links, twice)
                apart, missed = terms
                total = total + config.guided_alignment_weight * apart
                logged += [apart.detach(), missed]
            if config.r_drop_alpha:
                apart = symmetric_kl(logits)
                total = total + config.r_drop_alpha / 4 * apart
                logged.append(apart.detach())
        return total, torch.stack(logged)

    def _guided(self, weights: Tensor, links: AlignmentTargets | None, twice: int) -> tuple[Tensor, Tensor]:
        """The loss of the chosen layer and head of weights (B, L, H, T, S), and how much of the reference they miss."""
        assert links is not None, "guided alignment needs a corpus with links"
        layer, head = self.config.guided_layer, self.config.guided_head
        weights = weights[:, layer - 1 : layer] if layer else weights
        weights = weights[:, :, head - 1 : head] if head else weights
        chosen = weights.mean((1, 2)) if weights.size(1) * weights.size(2) > 1 else weights[:, 0, 0]  # (B, T, S)
        loss, missed = zip(*(alignment_loss(half, *links) for half in chosen.chunk(twice)), strict=True)
        return torch.stack(loss).mean(), torch.stack(missed).mean()


def apply_word_dropout(ids: Tensor, rate: float) -> Tensor:
    """The ids with each token replaced by UNK with probability `rate`; never PAD, BOS or EOS."""
    if not rate:
        return ids
    drawn = torch.rand(ids.shape, device=ids.device) < rate
    return ids.masked_fill(drawn & (ids >= len(SPECIAL_TOKENS)), UNK)
