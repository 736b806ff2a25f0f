"""Validation during training: loss of the validation corpus, scores and alignment error of its translations."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch

from nmt.alignment import AlignmentConfig, AlignmentSource, GoldAlignment
from nmt.data import Batch, BatchLoader, SentencePair, halve_batch_on_oom
from nmt.evaluation import evaluator
from nmt.evaluation.attention_diagnostics import DiagnosticsAccumulator, row_entropies
from nmt.evaluation.metrics import MetricsConfig
from nmt.evaluation.report import heatmap
from nmt.evaluation.results import EvaluationResult
from nmt.inference.translator import Translator
from nmt.models import Seq2Seq
from nmt.runtime.device import autocast
from nmt.runtime.progress import show_stage
from nmt.training.logger import DIAGNOSTICS, RunLogger
from nmt.training.losses import cross_entropy
from nmt.training.signals import GracefulShutdown

NUM_SAMPLES = 3
NUM_MEASURED = 50
"""Pairs whose attention is measured, with their references: always the first ones."""


class _StopRequestedError(Exception):
    """The interruption of a validation by a signal."""


class Validator:
    """The validation every `valid_every` updates, with the code and the search of the final evaluation.

    Args:
        translator: of the model that is trained.
        batches: the validation corpus, for the loss.
        pairs: its texts, for scores.
        gold: word alignments of `pairs`, or None.
        metrics: of translations.
        alignment: options of the alignments that attention gives; None: the defaults.
        further: references of `pairs` beyond the first.
    """

    def __init__(
        self,
        translator: Translator,
        batches: BatchLoader,
        pairs: Sequence[SentencePair],
        gold: Sequence[GoldAlignment] | None,
        metrics: MetricsConfig,
        alignment: AlignmentConfig | None = None,
        further: Sequence[Sequence[str]] = (),
    ) -> None:
        self.translator, self.batches, self.pairs, self.gold = translator, batches, pairs, gold
        self.metrics, self.alignment, self.further = metrics, alignment, further
        self.others: dict[str, Validator] = {}  # of further validation sets, by name
        self.direction = ""  # of these pairs where the others are of other directions, and the mean of all counts

    def __call__(
        self, model: Seq2Seq, logger: RunLogger, update: int, precision: str, stop: GracefulShutdown
    ) -> dict[str, float] | None:
        """Return the loss in nats per token, perplexity, scores by name, and "aer", then those of `others`, as
        "NAME/loss"; of several directions the means first. None when `stop` interrupts it."""
        try:
            scores, result = self._scores(model, precision, stop)
            of_sets = {self.direction: scores} if self.direction else {}
            of_sets |= {name: other._scores(model, precision, stop)[0] for name, other in self.others.items()}
        except _StopRequestedError:
            return None
        if self.direction:
            shared = [metric for metric in scores if all(metric in values for values in of_sets.values())]
            scores = {metric: fmean(values[metric] for values in of_sets.values()) for metric in shared}
            scores["perplexity"] = math.exp(min(scores["loss"], 100.0))
        for name, values in of_sets.items():
            scores = scores | {f"{name}/{metric}": value for metric, value in values.items()}
        self._log_samples(result, logger, update)
        self._log_attention(logger, update)
        return scores

    def _scores(
        self, model: Seq2Seq, precision: str, stop: GracefulShutdown
    ) -> tuple[dict[str, float], EvaluationResult]:
        def check(num_done: int) -> None:
            show(num_done)
            if stop.requested or stop.received:  # also a signal that the other ranks, which wait, have not received
                raise _StopRequestedError

        loss = self.loss(model, precision)
        with show_stage("validation", len(self.pairs), announce=False) as show:
            result = evaluator.translate_and_score(
                self.translator, self.pairs, self.gold, self.metrics, self.alignment, self.further, on_batch=check
            )
        return {"loss": loss, "perplexity": math.exp(min(loss, 100.0)), **result.flat_scores()}, result

    def loss(self, model: Seq2Seq, precision: str) -> float:
        """Compute the mean negative log-likelihood per token, in nats, without smoothing."""
        device = self.translator.device
        total, num_tokens = 0.0, 0

        def nll(batch: Batch) -> float:
            logits, _ = model(batch.source, batch.source_mask, batch.inputs, positions=batch.label_indices)
            return float(cross_entropy(logits, batch.labels.flatten()[batch.label_indices])[1])

        model.eval()
        with torch.no_grad(), autocast(precision, device):
            for batch in self.batches.epoch(0):
                remedy = "lower data.max_length, or make the model smaller"
                total += sum(halve_batch_on_oom(nll, batch, device, what="validation pairs", remedy=remedy))
                num_tokens += batch.num_tokens
        model.train()
        return total / max(num_tokens, 1)

    def _log_samples(self, result: EvaluationResult, logger: RunLogger, update: int) -> None:
        """Add sample translations and their attention to TensorBoard."""
        tokenizer, samples = self.translator.tokenizer, result.pairs[:NUM_SAMPLES]
        sources = tokenizer.encode_source([pair.source for pair in samples])
        targets = [translation.tokens for translation in result.translations[: len(samples)]]
        for i, pair in enumerate(samples):
            sides = {"source": pair.source, "reference": pair.target, "hypothesis": result.translations[i].text}
            text = "\n".join(f"    {name}: {side}" for name, side in sides.items())  # indented: text, not Markdown
            logger.add_to_tensorboard("text", f"sample/{i + 1}", text, update)
        alignment_source = result.alignment_source or AlignmentSource()  # without gold alignments no head was selected
        title = self.translator.describe(alignment_source.without_rule)
        for i, weights in self.translator.attention_weights(sources, targets):
            rows = alignment_source.plot_rows(weights)
            source = [*tokenizer.source_subwords(sources[i]), "</s>"]
            target = [*tokenizer.target_subwords(targets[i]), "</s>"]
            figure = heatmap.plot_heatmap(rows, source, target[: len(rows)], title=title)
            logger.add_to_tensorboard("figure", f"{DIAGNOSTICS}/attention/{i + 1}", figure, update)

    def _log_attention(self, logger: RunLogger, update: int) -> None:
        """Measure the attention of every layer and head on the same few references each time."""
        tokenizer, pairs = self.translator.tokenizer, self.pairs[:NUM_MEASURED]
        sources = tokenizer.encode_source([pair.source for pair in pairs])
        targets = tokenizer.encode_target([pair.target for pair in pairs])
        diagnostics, entropies = DiagnosticsAccumulator(), []
        for i, weights in self.translator.attention_weights(sources, targets):
            # without the row of the end token, which predicts no word
            entropies.append(row_entropies(weights[:, :, :-1].astype(np.float64)))
            diagnostics.add(weights, [*tokenizer.source_subwords(sources[i]), "</s>"], pairs[i].source)
        result = diagnostics.result()
        if result is not None and diagnostics.num_rows:
            logger.log_attention(np.concatenate(entropies, -1), result.tensorboard_measures(), update)
