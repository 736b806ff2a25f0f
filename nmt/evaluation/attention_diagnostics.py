"""What the attention of each layer and head does, as numbers, and what the model loses without a head."""

import contextlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.attention import CROSS, Attention
from nmt.data import Tokenizer, batch_to_device, collate
from nmt.evaluation.breakdown import bucket_sort_key, length_bucket
from nmt.inference.translator import Translator
from nmt.models import Seq2Seq

SCHEMA = 1
TARGET_SEGMENTS = 5
"""Into how many parts a target is cut to see how entropy drifts along it."""
UNDER, OVER = 0.2, 3.0
"""A source subword is attended too little or too much below or above so many times the mean of its sentence."""

_Array = NDArray[np.float64]

MEASURES = {
    "entropy": "of a row's weights, in nats",
    "effective": "number of source subwords that a row attends to: exp(entropy)",
    "under_attended": f"share of source subwords that receive less than {UNDER} of their sentence's mean",
    "over_attended": f"share of source subwords that receive more than {OVER} times their sentence's mean",
    "monotonic": "share of steps from row to row on which the place attended to most does not go back",
    "jump_length": "subwords between the places that neighbouring rows attend to most, beyond one step forward",
    "eos_weight": "weight on </s>",
    "punctuation": "weight on source subwords of punctuation alone",
    "entropy_drift": "entropy of the last part of a target less that of its first, in nats",
}
"""Every number: what it is, a mean over the rows, columns or steps that it counts."""
TRACKED = ("effective", "under_attended", "over_attended", "monotonic", "jump_length", "eos_weight", "punctuation")
"""Those that validations write down too, beside entropy."""


def head_measures(weights: NDArray[np.floating], is_punctuation: NDArray[np.bool_]) -> tuple[dict[str, _Array], _Array]:
    """Measures one sentence.

    Args:
        weights: (L, H, T, S) attention, the end token last on both sides. Its row is left out: it predicts no word.
        is_punctuation: (S,) source subwords that hold nothing else.

    Returns:
        each of `MEASURES`, (L, H), NaN where a sentence is too short to have it; the entropy of rows in each of
        `TARGET_SEGMENTS` parts of the target, (PARTS, L, H).
    """
    rows = weights[:, :, :-1].astype(np.float64)  # (L, H, T - 1, S)
    num_rows, num_columns = rows.shape[2], rows.shape[3] - 1
    nothing = np.full(rows.shape[:2], np.nan)
    found = dict.fromkeys(MEASURES, nothing)
    along = np.full((TARGET_SEGMENTS, *rows.shape[:2]), np.nan)
    if num_rows == 0:
        return found, along
    entropy = row_entropies(rows)  # (L, H, T - 1)
    found |= {"entropy": entropy.mean(-1), "effective": np.exp(entropy).mean(-1)}
    found |= {"eos_weight": rows[..., -1].mean(-1), "punctuation": rows[..., is_punctuation].sum(-1).mean(-1)}
    if num_columns:
        received = rows[..., :-1].sum(2)  # (L, H, S - 1)
        mean = received.mean(-1, keepdims=True)
        found |= {
            "under_attended": (received < UNDER * mean).mean(-1),
            "over_attended": (received > OVER * mean).mean(-1),
        }
        if num_rows > 1:
            step = np.diff(rows[..., :-1].argmax(-1), axis=-1)
            found |= {"monotonic": (step >= 0).mean(-1), "jump_length": np.abs(step - 1).mean(-1)}
    if num_rows >= TARGET_SEGMENTS:
        edges = np.arange(TARGET_SEGMENTS) * num_rows // TARGET_SEGMENTS
        sizes = np.diff([*edges, num_rows])
        along = np.moveaxis(np.add.reduceat(entropy, edges, axis=-1) / sizes, -1, 0)
        found["entropy_drift"] = along[-1] - along[0]
    return found, along


def row_entropies(rows: _Array) -> _Array:
    """Entropy in nats of each row of weights: (..., S) -> (...)."""
    found: _Array = -(rows * np.log(np.maximum(rows, np.finfo(np.float64).tiny))).sum(-1)
    return found


@dataclass
class AttentionDiagnostics:
    """Numbers of every layer and head over a test set; means over sentences, NaN where no sentence has any.

    num_sentences: how many were measured.
    measures: (L, H) for each of `MEASURES`.
    by_length: the same for each bucket of source length in words, with its number of sentences.
    along: (PARTS, L, H) entropy along the target, from its first to its last part.
    agreement: (L·H, L·H) share of rows in which two heads attend most to the same subword.
    importance: (L, H) what the loss, in nats per token, rises by when the head is silenced; None: not measured.
    num_importance: sentences that it was measured on.
    uniform_punctuation: what a head that attends everywhere alike gives to punctuation.
    """

    num_sentences: int
    measures: dict[str, _Array]
    by_length: dict[str, tuple[int, dict[str, _Array]]]
    along: _Array
    agreement: _Array
    uniform_punctuation: float
    importance: _Array | None = None
    num_importance: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; NaN becomes None."""
        return {
            "schema": SCHEMA,
            "about": MEASURES,
            "num_sentences": self.num_sentences,
            "layers": self.along.shape[1],
            "heads": self.along.shape[2],
            "measures": {name: _plain(values) for name, values in self.measures.items()},
            "by_length": {
                bucket: {"num_sentences": num, **{name: _plain(values) for name, values in measures.items()}}
                for bucket, (num, measures) in self.by_length.items()
            },
            "entropy_along_target": _plain(self.along),
            "agreement": _plain(self.agreement),
            "uniform_punctuation": self.uniform_punctuation,
            "importance": None if self.importance is None else _plain(self.importance),
            "num_importance": self.num_importance,
        }

    def mean_head_agreement(self) -> _Array:
        """(L, H) the mean of a head's agreement with every other one; NaN where there is no other."""
        num = len(self.agreement)
        with_others: _Array = self.agreement.sum(1) - self.agreement.diagonal()
        return (with_others / (num - 1) if num > 1 else np.full(1, np.nan)).reshape(self.along.shape[1:])

    def tensorboard_measures(self) -> dict[str, Any]:
        """What is written down while a model trains: plain (L, H) values of each of `TRACKED`, and "agreement"."""
        found = {name: self.measures[name] for name in TRACKED} | {"agreement": self.mean_head_agreement()}
        return {name: _plain(values, 4) for name, values in found.items() if not np.isnan(values).all()}

    def table(self) -> list[str]:
        """Aligned lines, one for each layer and head."""
        measures = {**self.measures, **({} if self.importance is None else {"importance": self.importance})}
        measures["agreement"] = self.mean_head_agreement()
        rows = [["layer", "head", *measures]]
        for layer, head in np.ndindex(self.along.shape[1:]):
            cells = [values[layer, head] for values in measures.values()]
            shown = ["–" if np.isnan(cell) else f"{cell:.3f}" for cell in cells]
            rows.append([str(layer + 1), str(head + 1), *shown])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


@dataclass
class DiagnosticsAccumulator:
    """Gathers sentence after sentence; memory does not grow with their length."""

    rows: list[_Array] = field(default_factory=list)
    along: list[_Array] = field(default_factory=list)
    buckets: list[str] = field(default_factory=list)
    same: _Array | None = None
    num_rows: int = 0
    uniform: list[float] = field(default_factory=list)

    def add(self, weights: NDArray[np.floating], source_subwords: Sequence[str], source: str) -> None:
        """One sentence.

        Args:
            weights: (L, H, T, S). source_subwords: S names, the end token last. source: the text.
        """
        marks = np.array([_is_punctuation(piece) for piece in source_subwords[:-1]] + [False], np.bool_)
        measured, along = head_measures(weights, marks)
        self.rows.append(np.stack([measured[name] for name in MEASURES]))
        self.along.append(along)
        self.buckets.append(length_bucket(source))
        self.uniform.append(float(marks.mean()))
        best = weights[:, :, :-1].argmax(-1)  # (L, H, T - 1)
        best = best.reshape(best.shape[0] * best.shape[1], -1 if best.size else 0)
        same = (best[:, None] == best[None]).sum(-1).astype(np.float64)
        self.same = same if self.same is None else self.same + same
        self.num_rows += best.shape[1]

    def result(self) -> AttentionDiagnostics | None:
        """What was measured; None when nothing was."""
        if self.same is None:
            return None
        rows, names = np.stack(self.rows), np.array(self.buckets)  # (N, K, L, H), (N,)
        buckets = {}
        for name in sorted(set(self.buckets), key=bucket_sort_key):
            inside = rows[names == name]
            buckets[name] = (len(inside), dict(zip(MEASURES, _mean(inside), strict=True)))
        return AttentionDiagnostics(
            len(rows),
            dict(zip(MEASURES, _mean(rows), strict=True)),
            buckets,
            _mean(np.stack(self.along)),
            self.same / max(self.num_rows, 1),
            float(np.mean(self.uniform)),
        )


def head_importance(translator: Translator, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64] | None:
    """What each head of the attention to the source is worth: the rise of the loss when it is silenced.

    A silenced head gives a context of zeros (Michel et al. 2019, equation 1 with ξ = 0); all else stays.

    Args:
        translator: the model. pairs: source and target texts.

    Returns:
        (L, H) nats per target token; None for a model without attention, or no pairs.
    """
    attentions = cross_attention_modules(translator.attention_model)
    if not attentions or not pairs:
        return None
    batches = _batches(translator, pairs)
    whole = _loss(translator, batches)
    found = np.zeros((len(attentions), attentions[0].heads))
    for layer, attention in enumerate(attentions):
        for head in range(attention.heads):
            with masked_head(attention, head):
                found[layer, head] = _loss(translator, batches) - whole
    return found


def cross_attention_modules(model: Seq2Seq) -> list[Attention]:
    """The attentions to the source, in the order of the layers of an `AttentionWeights`."""
    return [module for module in model.modules() if isinstance(module, Attention) and module.attention_type == CROSS]


@contextlib.contextmanager
def masked_head(attention: Attention, head: int) -> Iterator[None]:
    """While the context lasts, one head (from 0) contributes nothing: its context is zero."""

    def zero(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        contexts = inputs[0].unflatten(-1, (attention.heads, -1)).clone()  # (B, T, H, D)
        contexts[..., head, :] = 0
        return contexts.flatten(-2), *inputs[1:]

    handle = attention.output.register_forward_pre_hook(zero)
    try:
        yield
    finally:
        handle.remove()


def _batches(translator: Translator, pairs: Sequence[tuple[str, str]], size: int = 32) -> list[Any]:
    tokenizer: Tokenizer = translator.tokenizer
    sources = tokenizer.encode_source([source for source, _ in pairs])
    targets = tokenizer.encode_target([target for _, target in pairs])
    order = sorted(range(len(pairs)), key=lambda i: (len(sources[i]), len(targets[i])))
    groups = [order[begin : begin + size] for begin in range(0, len(order), size)]
    return [
        batch_to_device(collate([sources[i] for i in group], [targets[i] for i in group]), translator.device)
        for group in groups
    ]


def _loss(translator: Translator, batches: Sequence[Any]) -> float:
    """Mean negative log-likelihood per token, in nats."""
    total, num_tokens = 0.0, 0
    model = translator.attention_model
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches:
            logits, _ = model(batch.source, batch.source_mask, batch.inputs, positions=batch.label_indices)
            labels = batch.labels.flatten()[batch.label_indices]
            total += float(nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))
            num_tokens += batch.num_tokens
    model.train(was_training)
    return total / max(num_tokens, 1)


def _is_punctuation(piece: str) -> bool:
    text = piece.replace("▁", "")
    return bool(text) and all(unicodedata.category(character)[0] in "PS" for character in text)


def _mean(stacked: _Array) -> _Array:
    """Over the first axis, leaving out NaN; NaN where nothing is left."""
    counts = (~np.isnan(stacked)).sum(0)
    summed: _Array = np.nansum(stacked, axis=0)
    return np.where(counts > 0, summed / np.maximum(counts, 1), np.nan)


def _plain(values: _Array, decimals: int = 6) -> Any:
    rounded = np.round(values, decimals).astype(object)
    rounded[np.isnan(values)] = None
    return rounded.tolist()
