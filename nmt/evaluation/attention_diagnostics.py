"""Diagnostics of the attention of each layer and head, and the importance of each head to the model."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nmt.data import Batch, collate, halve_batch_on_oom
from nmt.evaluation.breakdown import bucket_sort_key, length_bucket
from nmt.inference.interventions import Intervention, with_own_attention
from nmt.inference.translator import Translator, cross_attention_modules, evaluation_mode
from nmt.models.seq2seq import Seq2Seq

SCHEMA = 1
TARGET_SEGMENTS = 5
"""Number of segments of a target in which the drift of entropy is measured."""
UNDER_ATTENDED, OVER_ATTENDED = 0.2, 3.0
"""Bounds of the attention that a source subword receives, in multiples of the mean of its sentence."""

_Array = NDArray[np.float64]

MEASURES = {
    "entropy": "of a row's weights, in nats",
    "effective": "number of source subwords that a row attends to: exp(entropy)",
    "under_attended": f"share of source subwords that receive less than {UNDER_ATTENDED} of their sentence's mean",
    "over_attended": f"share of source subwords that receive more than {OVER_ATTENDED} times their sentence's mean",
    "monotonic": "share of steps from row to row on which the position attended to most does not go back",
    "jump_length": "subwords between the positions that adjacent rows attend to most, beyond one step forward",
    "eos_weight": "weight on </s>",
    "punctuation": "weight on source subwords of punctuation alone",
    "entropy_drift": "entropy of the last segment of a target less that of its first, in nats",
}
"""Description of each measure, a mean over the rows, columns or steps that it counts."""
TENSORBOARD_MEASURES = tuple(name for name in MEASURES if not name.startswith("entropy"))
"""Measures that validations record, beside entropy."""


def head_measures(weights: NDArray[np.floating], is_punctuation: NDArray[np.bool_]) -> tuple[dict[str, _Array], _Array]:
    """Compute the measures of one sentence.

    Args:
        weights: (L, H, T, S) attention, the end token last on both sides. Its row is left out: it predicts no word.
        is_punctuation: (S,) source subwords of punctuation alone.

    Returns:
        each of `MEASURES`, (L, H), NaN where a sentence is too short for it; the entropy of rows in each segment of the
        target, (TARGET_SEGMENTS, L, H).
    """
    rows = weights[:, :, :-1].astype(np.float64)  # (L, H, T - 1, S)
    num_rows, num_columns = rows.shape[2], rows.shape[3] - 1
    measures: dict[str, _Array] = dict.fromkeys(MEASURES, np.full(rows.shape[:2], np.nan))
    along_target = np.full((TARGET_SEGMENTS, *rows.shape[:2]), np.nan)
    if num_rows == 0:
        return measures, along_target
    entropy = row_entropies(rows)  # (L, H, T - 1)
    measures["entropy"], measures["effective"] = entropy.mean(-1), np.exp(entropy).mean(-1)
    measures["eos_weight"] = rows[..., -1].mean(-1)
    measures["punctuation"] = rows[..., is_punctuation].sum(-1).mean(-1)
    if num_columns:
        received = rows[..., :-1].sum(2)  # (L, H, S - 1)
        mean = received.mean(-1, keepdims=True)
        measures["under_attended"] = (received < UNDER_ATTENDED * mean).mean(-1)
        measures["over_attended"] = (received > OVER_ATTENDED * mean).mean(-1)
        if num_rows > 1:
            step = np.diff(rows[..., :-1].argmax(-1), axis=-1)
            measures["monotonic"], measures["jump_length"] = (step >= 0).mean(-1), np.abs(step - 1).mean(-1)
    if num_rows >= TARGET_SEGMENTS:
        edges = np.arange(TARGET_SEGMENTS) * num_rows // TARGET_SEGMENTS
        sizes = np.diff([*edges, num_rows])
        along_target = np.moveaxis(np.add.reduceat(entropy, edges, axis=-1) / sizes, -1, 0)
        measures["entropy_drift"] = along_target[-1] - along_target[0]
    return measures, along_target


def row_entropies(rows: _Array) -> _Array:
    """Return the entropy in nats of each row of weights: (..., S) -> (...)."""
    entropies: _Array = -(rows * np.log(np.maximum(rows, np.finfo(np.float64).tiny))).sum(-1)
    return entropies


@dataclass
class AttentionDiagnostics:
    """Measures of every layer and head over a test set; means over sentences, NaN where no sentence has any.

    num_sentences: of the test set.
    measures: (L, H) for each of `MEASURES`.
    by_length: the same for each bucket of source length in words, with its number of sentences.
    entropy_along_target: (TARGET_SEGMENTS, L, H), from the first to the last segment.
    agreement: (L·H, L·H) share of rows in which two heads attend most to the same subword; NaN without any row.
    uniform_punctuation: weight on punctuation of a uniform head.
    importance: (L, H) rise of the loss, in nats per token, when the head is masked; None: not measured.
    num_importance: sentences on which importance was measured.
    """

    num_sentences: int
    measures: dict[str, _Array]
    by_length: dict[str, tuple[int, dict[str, _Array]]]
    entropy_along_target: _Array
    agreement: _Array
    uniform_punctuation: float
    importance: _Array | None = None
    num_importance: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file, with None for NaN and infinity."""
        layers, heads = self.entropy_along_target.shape[1:]
        return {
            "schema": SCHEMA,
            "about": MEASURES,
            "num_sentences": self.num_sentences,
            "layers": layers,
            "heads": heads,
            "measures": {name: _to_lists(values) for name, values in self.measures.items()},
            "by_length": {
                bucket: {"num_sentences": num, **{name: _to_lists(values) for name, values in measures.items()}}
                for bucket, (num, measures) in self.by_length.items()
            },
            "entropy_along_target": _to_lists(self.entropy_along_target),
            "agreement": _to_lists(self.agreement),
            "uniform_punctuation": self.uniform_punctuation,
            "importance": None if self.importance is None else _to_lists(self.importance),
            "num_importance": self.num_importance,
        }

    def mean_head_agreement(self) -> _Array:
        """Return (L, H), the mean agreement of a head with each of the others; NaN where there is no other."""
        num_others = len(self.agreement) - 1
        with_others: _Array = self.agreement.sum(1) - self.agreement.diagonal()
        means = with_others / num_others if num_others else np.full(1, np.nan)
        return means.reshape(self.entropy_along_target.shape[1:])

    def tensorboard_measures(self) -> dict[str, Any]:
        """Return what is recorded during training: plain (L, H) values of `TENSORBOARD_MEASURES`, and "agreement"."""
        measures = {name: self.measures[name] for name in TENSORBOARD_MEASURES}
        measures["agreement"] = self.mean_head_agreement()
        return {name: _to_lists(values, 4) for name, values in measures.items() if not np.isnan(values).all()}

    def table(self) -> list[str]:
        """Return aligned lines, one for each layer and head."""
        importance = {} if self.importance is None else {"importance": self.importance}
        columns = {**self.measures, **importance, "agreement": self.mean_head_agreement()}
        rows = [["layer", "head", *columns]]
        for layer, head in np.ndindex(self.entropy_along_target.shape[1:]):
            cells = [values[layer, head] for values in columns.values()]
            rows.append([str(layer + 1), str(head + 1), *("–" if np.isnan(x) else f"{x:.3f}" for x in cells)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


@dataclass
class DiagnosticsAccumulator:
    """Accumulates the diagnostics of sentences; memory does not grow with their length."""

    sentences: list[tuple[str, _Array, _Array, float]] = field(default_factory=list)
    num_agreeing: Any = 0
    num_rows: int = 0

    def add(self, weights: NDArray[np.floating], source_subwords: Sequence[str], source: str) -> None:
        """Add one sentence.

        Args:
            weights: (L, H, T, S). source_subwords: S names, the end token last. source: the text.
        """
        is_punctuation = np.array([*map(_is_punctuation, source_subwords[:-1]), False], np.bool_)
        measures, along_target = head_measures(weights, is_punctuation)
        stacked = np.stack([measures[name] for name in MEASURES])
        self.sentences.append((length_bucket(source), stacked, along_target, float(is_punctuation.mean())))
        best = weights[:, :, :-1].argmax(-1)  # (L, H, T - 1)
        best = best.reshape(best.shape[0] * best.shape[1], best.shape[2])
        self.num_agreeing += (best[:, None] == best[None]).sum(-1).astype(np.float64)
        self.num_rows += best.shape[1]

    def result(self) -> AttentionDiagnostics | None:
        """Return the diagnostics; None without any sentence."""
        if not self.sentences:
            return None
        buckets, stacked, along_target, uniform_punctuation = zip(*self.sentences, strict=True)
        measures = np.stack(stacked)  # (N, K, L, H)
        by_length = {}
        for bucket in sorted(set(buckets), key=bucket_sort_key):
            members = measures[np.array(buckets) == bucket]
            by_length[bucket] = (len(members), dict(zip(MEASURES, _nan_mean(members), strict=True)))
        return AttentionDiagnostics(
            len(measures),
            dict(zip(MEASURES, _nan_mean(measures), strict=True)),
            by_length,
            _nan_mean(np.stack(along_target)),
            np.where(self.num_rows, self.num_agreeing / max(self.num_rows, 1), np.nan),
            float(np.mean(uniform_punctuation)),
        )


def head_importance(translator: Translator, pairs: Sequence[tuple[str, str]]) -> _Array | None:
    """Measure the rise of the loss when each head of the attention to the source is masked.

    A masked head has a context of zeros (Michel et al. 2019, equation 1 with ξ = 0); the rest is unchanged.

    Args:
        translator: the model. pairs: source and target texts.

    Returns:
        (L, H) nats per target token; None for a model without attention, or no pairs.
    """
    attentions = cross_attention_modules(translator.attention_model)
    if not attentions or not pairs:
        return None
    batches = _batches(translator, pairs)
    full_loss = _loss(translator, batches, translator.attention_model)
    importance = np.zeros((len(attentions), attentions[0].heads))
    for layer, head in np.ndindex(importance.shape):
        masked = with_own_attention(translator.attention_model)
        Intervention(layer + 1, head + 1, "zero").apply(cross_attention_modules(masked))
        importance[layer, head] = _loss(translator, batches, masked) - full_loss
    return importance


def _batches(translator: Translator, pairs: Sequence[tuple[str, str]], batch_size: int = 32) -> list[Batch]:
    sources, targets = translator.encode_pairs(pairs)
    order = sorted(range(len(pairs)), key=lambda i: (len(sources[i]), len(targets[i])))
    return [
        collate([sources[i] for i in indices], [targets[i] for i in indices])
        for indices in (order[begin : begin + batch_size] for begin in range(0, len(order), batch_size))
    ]


def _loss(translator: Translator, batches: Sequence[Batch], model: Seq2Seq) -> float:
    """Return the mean negative log-likelihood per token, in nats."""
    total, num_tokens = 0.0, 0

    def nll(batch: Batch) -> float:
        logits, _ = model(batch.source, batch.source_mask, batch.inputs, positions=batch.label_indices)
        labels = batch.labels.flatten()[batch.label_indices]
        return float(nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))

    with evaluation_mode(model), torch.no_grad():
        for batch in batches:
            remedy = "set alignment.head_importance_pairs=0, or use device=cpu"
            total += sum(halve_batch_on_oom(nll, batch, translator.device, what="pairs of a batch", remedy=remedy))
            num_tokens += batch.num_tokens
    return total / max(num_tokens, 1)


def _is_punctuation(subword: str) -> bool:
    text = subword.replace("▁", "")
    return bool(text) and all(unicodedata.category(character)[0] in "PS" for character in text)


def _nan_mean(stacked: _Array) -> _Array:
    """Average over the first axis, ignoring NaN; NaN where nothing is left, without a warning."""
    counts = (~np.isnan(stacked)).sum(0)
    sums: _Array = np.nansum(stacked, axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _to_lists(values: _Array, decimals: int = 6) -> Any:
    rounded = np.round(values, decimals).astype(object)
    rounded[~np.isfinite(values)] = None
    return rounded.tolist()
