"""The training objective: smoothed cross-entropy, and the terms that the options add to it."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nmt.data import PAD, UNK, AlignmentTargets, Batch
from nmt.data.vocabulary import SPECIAL_TOKENS
from nmt.models import Seq2Seq
from nmt.runtime.device import autocast
from nmt.training.losses import alignment_loss, coverage_loss, cross_entropy, output_cross_entropy, symmetric_kl


@dataclass
class LossConfig:
    """Options of the training loss.

    label_smoothing: ε of the smoothed cross-entropy: the share of probability given to all tokens but the reference.
    coverage_loss_weight: λ of the coverage loss (See et al. 2017, equation 13), against attending to the same source
        tokens again and again; 0 = off.
    r_drop_alpha: α of R-Drop (Liang et al. 2021, equation 4): every sentence passes through the model twice, and the
        two predictions are drawn together; 0 = off, 5 is the paper's for translation.
    guided_alignment_weight: λ of guided alignment (Liu et al. 2016; Chen et al. 2016; Garg et al. 2019): attention to
        the source is drawn towards the training text's word alignment (see `data.train_alignments`) by their
        cross-entropy, summed over the target subwords that have links; 0 = off.
    guided_layer, guided_head: the layer and the head that are guided, counted from 1, without layers that do not attend
        to the source; 0 = the mean of all. The head from which alignments are read is selected separately, by
        `alignment`.
    word_dropout: probability with which a source token is replaced by UNK in training, so that the model learns to use
        the others. Sennrich et al. 2016 (WMT) set the embedding to zero; here the embedding of UNK is learned.
    target_word_dropout: the same for the target tokens that the decoder reads (Bowman et al. 2016, section 3.1.1).
    """

    label_smoothing: float = 0.1
    coverage_loss_weight: float = 0.0
    r_drop_alpha: float = 0.0
    guided_alignment_weight: float = 0.0
    guided_layer: int = 0
    guided_head: int = 0
    word_dropout: float = 0.0
    target_word_dropout: float = 0.0

    def unused_options(self) -> list[str]:
        """Return the options that are set without effect, with their values."""
        names = [] if self.guided_alignment_weight else ["guided_layer", "guided_head"]
        return [f"train.{name}={getattr(self, name)}" for name in names if getattr(self, name)]


class TrainingObjective:
    """The sum over target tokens that is differentiated, and the sums that are logged.

    The terms of attention are 0 in a step in which `layerdrop` has left out every layer that attends to the source.

    Args:
        fused: the model is an `EncoderDecoder`, whose output layer and loss are computed together.
        corpora: the names of those that a training text consists of.

    names: of the logged sums: "loss", "nll", of corpora "nll/NAME" and then "tokens/NAME" of each, then whichever of
        "coverage_loss", "guided_alignment" and "r_drop" is on. After "guided_alignment" comes "guided_missed", the
        part of the reference alignment where attention is exactly 0 (outside a window, or because of a sparse
        normalizer) and cannot be guided.
    """

    def __init__(self, config: LossConfig, *, fused: bool = False, corpora: Collection[str] = ()) -> None:
        self.config, self.fused, self.corpora = config, fused, corpora
        self.names: tuple[str, ...] = ("loss", "nll")
        self.names += (*(f"nll/{name}" for name in corpora), *(f"tokens/{name}" for name in corpora))
        if config.coverage_loss_weight:
            self.names += ("coverage_loss",)
        if config.guided_alignment_weight:
            self.names += ("guided_alignment", "guided_missed")
        if config.r_drop_alpha:
            self.names += ("r_drop",)

    def __call__(self, model: Seq2Seq, batch: Batch, precision: str) -> tuple[Tensor, Tensor]:
        """Compute the sum to be differentiated, and the logged ones (len(names),), without the options' weights.

        With guided alignment the batch needs links.
        """
        config = self.config
        source, mask, inputs, labels, positions = batch[:5]
        passes = 2 if config.r_drop_alpha else 1
        if passes == 2:  # every sentence passes through the model twice; dropout makes the two differ
            positions = torch.cat([positions, positions + labels.numel()])
            source, mask, inputs, labels = (torch.cat([tensor] * 2) for tensor in batch[:4])
        if model.training:
            source = apply_word_dropout(source, config.word_dropout)
            inputs = apply_word_dropout(inputs, config.target_word_dropout)
        needs_attention = config.coverage_loss_weight > 0 or config.guided_alignment_weight > 0
        with autocast(precision, labels.device):
            options: dict[str, Any] = {"attention": needs_attention, "positions": positions}
            targets, smoothing = labels.flatten()[positions], config.label_smoothing
            by_token = None if batch.corpora is None else torch.empty(len(targets), device=targets.device)
            if self.fused and not config.r_drop_alpha:  # which compares the logits
                head = partial(output_cross_entropy, labels=targets, smoothing=smoothing, by_token=by_token)
                (loss, nll), attention = model(source, mask, inputs, head=head, **options)
            else:
                logits, attention = model(source, mask, inputs, **options)
                loss, nll = cross_entropy(logits, targets, smoothing=smoothing, by_token=by_token)
            total, logged = loss / passes, [loss.detach() / passes, nll / passes]
            zero = nll.new_zeros(())
            if batch.corpora is not None and by_token is not None:
                corpora = batch.corpora[batch.label_indices // batch.labels.size(1)].repeat(passes)
                values = torch.stack([by_token, torch.ones_like(by_token)]).to(nll.dtype)
                logged += nll.new_zeros((2, len(self.corpora))).index_add_(1, corpora, values).flatten() / passes
            if config.coverage_loss_weight:
                repeated = zero if attention is None else coverage_loss(attention.cross, labels != PAD) / passes
                total = total + config.coverage_loss_weight * repeated
                logged.append(repeated.detach())
            if config.guided_alignment_weight:
                guided = missed = zero
                if attention is not None:
                    guided, missed = self._guided_alignment(attention.cross, batch.links, passes)
                total = total + config.guided_alignment_weight * guided
                logged += [guided.detach(), missed]
            if config.r_drop_alpha:
                divergence = symmetric_kl(logits)
                total = total + config.r_drop_alpha / 4 * divergence
                logged.append(divergence.detach())
        return total, torch.stack(logged)

    def _guided_alignment(self, weights: Tensor, links: AlignmentTargets | None, passes: int) -> tuple[Tensor, Tensor]:
        """Compute the loss of the guided layer and head of weights (B, L, H, T, S), and the reference they miss."""
        assert links is not None, "guided alignment needs a corpus with links"
        layer, head = self.config.guided_layer, self.config.guided_head
        weights = weights[:, layer - 1 : layer] if layer else weights
        weights = weights[:, :, head - 1 : head] if head else weights
        guided = weights.mean((1, 2)) if weights.size(1) * weights.size(2) > 1 else weights[:, 0, 0]  # (B, T, S)
        losses, missed = zip(*(alignment_loss(rows, *links) for rows in guided.chunk(passes)), strict=True)
        return torch.stack(losses).mean(), torch.stack(missed).mean()


def apply_word_dropout(ids: Tensor, rate: float) -> Tensor:
    """Return the ids with each token replaced by UNK with probability `rate`; never PAD, BOS or EOS."""
    if not rate:
        return ids
    is_dropped = torch.rand(ids.shape, device=ids.device) < rate
    return ids.masked_fill(is_dropped & (ids >= len(SPECIAL_TOKENS)), UNK)
