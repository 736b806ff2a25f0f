"""Validation while training: loss over the validation corpus, scores and alignment error of its translations."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from nmt.alignment import AlignmentConfig, AlignmentSource, GoldAlignment
from nmt.data import BatchLoader, SentencePair, batch_to_device
from nmt.evaluation import evaluator
from nmt.evaluation.attention_diagnostics import DiagnosticsAccumulator, row_entropies
from nmt.evaluation.metrics import MetricsConfig
from nmt.evaluation.report import heatmap
from nmt.evaluation.results import EvaluationResult
from nmt.inference.translator import Translator
from nmt.models import Seq2Seq
from nmt.runtime.device import autocast
from nmt.training.logger import RunLogger
from nmt.training.losses import cross_entropy
from nmt.training.signals import GracefulShutdown

NUM_SAMPLES = 3
NUM_MEASURED = 50
"""Pairs whose attention is measured: the first ones, always the same, with their references."""


class _StopRequestedError(Exception):
    """A stop was asked for in the middle of a validation."""


class Validator:
    """What happens every `valid_every` updates. It uses the code and the search of the final evaluation.

    Args:
        translator: holds the model that is trained.
        batches: the validation corpus, for the loss.
        pairs: its texts, for scores.
        gold: word alignments of `pairs`, or None.
        metrics: which scores.
        reading: how alignments are read off attention; None: the defaults.
    """

    def __init__(
        self,
        translator: Translator,
        batches: BatchLoader,
        pairs: Sequence[SentencePair],
        gold: Sequence[GoldAlignment] | None,
        metrics: MetricsConfig,
        reading: AlignmentConfig | None = None,
    ) -> None:
        self.translator, self.batches, self.pairs, self.gold, self.metrics = translator, batches, pairs, gold, metrics
        self.reading = reading

    def __call__(
        self, model: Seq2Seq, records: RunLogger, update: int, precision: str, stop: GracefulShutdown
    ) -> dict[str, float] | None:
        """Loss in nats per token, perplexity, scores by name, and "aer"; None when `stop` came in between."""

        def check(_: int) -> None:
            if stop.requested or stop.received:  # also what the other ranks, who wait for this one, do not know yet
                raise _StopRequestedError

        try:
            loss = self.loss(model, precision)
            scored = evaluator.translate_and_score(
                self.translator, self.pairs, self.gold, self.metrics, self.reading, on_batch=check
            )
        except _StopRequestedError:
            return None
        self._show(scored, records, update)
        self._measure(records, update)
        return {"loss": loss, "perplexity": math.exp(min(loss, 100.0)), **scored.flat_scores()}

    def loss(self, model: Seq2Seq, precision: str) -> float:
        """Mean negative log-likelihood per token, in nats, without smoothing."""
        device = self.translator.device
        total, num_tokens = 0.0, 0
        model.eval()
        with torch.no_grad(), autocast(precision, device):
            for batch in self.batches.epoch(0):
                batch = batch_to_device(batch, device)
                logits, _ = model(batch.source, batch.source_mask, batch.inputs, positions=batch.label_indices)
                total += float(cross_entropy(logits, batch.labels.flatten()[batch.label_indices])[1])
                num_tokens += batch.num_tokens
        model.train()
        return total / max(num_tokens, 1)

    def _show(self, scored: EvaluationResult, records: RunLogger, update: int) -> None:
        """Sample translations and their attention for TensorBoard."""
        samples = list(range(min(NUM_SAMPLES, len(self.pairs))))
        tokenizer = self.translator.tokenizer
        sources = tokenizer.encode_source([self.pairs[i].source for i in samples])
        targets = [scored.translations[i].tokens for i in samples]
        for i in samples:
            lines = (self.pairs[i].source, self.pairs[i].target, scored.translations[i].text)
            text = "  \n".join(
                f"{name}: {line}" for name, line in zip(("source", "reference", "hypothesis"), lines, strict=True)
            )
            records.add_text(f"sample/{i + 1}", text, update)
        reading = scored.alignment_source or AlignmentSource()  # without gold nothing was chosen
        for i, weights in self.translator.attention_weights(sources, targets):
            rows = reading.plot_rows(weights)
            labels = (
                [*tokenizer.source_subwords(sources[i]), "</s>"],
                [*tokenizer.target_subwords(targets[i]), "</s>"],
            )
            figure = heatmap.figure(rows, labels[0], labels[1][: len(rows)], title=self.translator.describe(reading))
            records.add_figure(f"attention/{i + 1}", figure, update)

    def _measure(self, records: RunLogger, update: int) -> None:
        """What the attention of every layer and head does over the same few references each time."""
        tokenizer, some = self.translator.tokenizer, self.pairs[:NUM_MEASURED]
        sources = tokenizer.encode_source([pair.source for pair in some])
        targets = tokenizer.encode_target([pair.target for pair in some])
        collector, found = DiagnosticsAccumulator(), []
        for i, weights in self.translator.attention_weights(sources, targets):
            found.append(
                row_entropies(weights[:, :, :-1].astype(np.float64))
            )  # the row of the end token predicts no word
            collector.add(weights, [*tokenizer.source_subwords(sources[i]), "</s>"], some[i].source)
        result = collector.result()
        if result is not None and collector.num_rows:
            records.log_attention(np.concatenate(found, -1), result.tensorboard_measures(), update)
