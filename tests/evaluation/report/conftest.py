"""Synthetic reports for tests: every section filled, in several scripts."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nmt.evaluation.report import ReportData, ReportSentence, SentenceBrowser, SplitStats

MEASURES = ("entropy", "effective", "entropy_drift")

Example = Callable[..., ReportData]


def attention(rng: np.random.Generator, layers: int, heads: int, num_target: int, num_source: int) -> np.ndarray:
    """Return (L, H, T, S) weights of heads from broad to sharp about the diagonal."""
    places, rows = np.arange(num_source), np.arange(num_target) * num_source / max(num_target, 1)
    sharp = rng.uniform(0, 3, (layers, heads, 1, 1))
    logits = rng.normal(size=(layers, heads, num_target, num_source)) - sharp * np.abs(places - rows[:, None])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def split_subwords(text: str) -> tuple[list[str], list[int]]:
    """Split words of more than five letters in two subwords, then append the end token."""
    names, words = [], []
    for number, word in enumerate(text.split(" ")):
        halves = [word[:4], word[4:]] if len(word) > 5 else [word]
        names += ["▁" + halves[0], *halves[1:]]
        words += [number] * len(halves)
    return [*names, "</s>"], [*words, -1]


TEXTS = [
    ("the small house stands beside the old church", "das kleine Haus steht neben der alten Kirche"),
    ("a number, 1,234 & <b>markup</b>", "eine Zahl, 1.234 & <b>Auszeichnung</b>"),
    ("猫が 大好き です 。", "我 很 喜欢 猫 。"),
    ("the king spoke to the children", "تحدث الملك إلى الأطفال في القصر"),
    (" ".join(f"word{i}" for i in range(70)), " ".join(f"Donaudampfschifffahrt{i}" for i in range(64))),
    ("no answer", ""),
]


def make_report(
    num: int = len(TEXTS),
    layers: int = 2,
    heads: int = 3,
    *,
    shift: int = 0,
    texts: Sequence[tuple[str, str]] = TEXTS,
) -> ReportData:
    """Return a report of `num` sentences with `layers` × `heads` matrices each."""
    rng = np.random.default_rng(7)
    browser = (
        SentenceBrowser(2, 1, shift, "layer 2, head 1")
        if layers > 1
        else SentenceBrowser(alignment_source_text="the only head")
    )
    for number in range(num):
        source, reference = texts[number % len(texts)]
        hypothesis = reference.replace("kleine", "große").replace(" steht", "")
        (source_subwords, source_words), (target_subwords, target_words) = (
            split_subwords(source),
            split_subwords(hypothesis),
        )
        if not hypothesis:
            target_subwords, target_words = ["</s>"], [-1]
        values = {"chrF": 100 * math.cos(number) ** 2, "model score": -0.1 * number if number != 1 else None}
        row = (values, source_subwords, target_subwords, source_words, target_words, [(0, 0), (1, 1)])
        weights = attention(rng, layers, heads, len(target_subwords), len(source_subwords))
        browser.add(ReportSentence(source, reference, hypothesis, *row), weights)
    history = [{"update": u, "loss": 5 * math.exp(-u / 300)} for u in range(10, 1001, 10)]
    entropy = [[[2 - u / 1000 + 0.1 * head for head in range(heads)]] * layers for u in range(200, 1001, 200)]
    history += [
        {"update": u, "valid_loss": 2.5, "valid_bleu": u / 40, "valid_aer": 0.3, "entropy": values}
        for u, values in zip(range(200, 1001, 200), entropy, strict=True)
    ]
    grid = rng.uniform(0, 2, (layers, heads)).round(3).tolist()
    diagnostics = {
        "about": dict.fromkeys(MEASURES, "description"),
        "layers": layers,
        "heads": heads,
        "measures": dict.fromkeys(MEASURES, grid),
        "by_length": {"0-10": {"num_sentences": 3, **dict.fromkeys(MEASURES, grid)}},
        "entropy_along_target": [grid] * 5,
        "agreement": np.eye(layers * heads).tolist(),
        "uniform_punctuation": 0.1,
        "importance": None,
        "num_importance": 0,
    }
    readings = [
        {"layer": layer, "head": head, "shift": step, "null": True, "aer": rng.uniform(0.1, 0.9)}
        for step in (0, 1)
        for layer in range(layers + 1)
        for head in (range(heads + 1) if layer else [0])
    ]
    alignment_scores = {"aer": 0.2345, "precision": 0.7, "recall": 0.8, "f1": 0.75}
    alignment_source = {"layer": browser.layer, "head": browser.head, "shift": 0, "null": True}
    by_length = {"0-10": {"num_sentences": 3, "bleu": 31.5}, "61-": {"num_sentences": 1, "bleu": 12.25}}
    system = {"score": 31.4159, "mean": 31.4, "half_width": 1.5, "p_value": None}
    scores = {
        "bleu": {"score": 31.4159, "signature": "nrefs:1|tok:13a"},
        "chrf": {"score": 52.5, "signature": "nrefs:1|nc:6"},
        "intervals": {"bleu": {"mean": 31.38, "half_width": 1.5, "signature": "nrefs:1|bs:1000"}},
        "external": {"comet": {"score": 0.8125, "signature": "wmt22"}},
        "significance": {
            "bleu": {"signature": "bs:1000|sig", "systems": {"old": system, "new": {**system, "p_value": 0.012}}}
        },
        "rates": {"length_ratio": 1.01, "exact_match": 0.05},
        "buckets": {"length": by_length},
        "alignment": {
            **alignment_scores,
            "alignment_source": alignment_source,
            "alignment_source_text": "layer 2, head 1",
            "selected_by": "AER",
        },
    }
    return ReportData(
        title="Test, German to English",
        name="gru-1",
        scores=scores,
        head_scores=readings,
        diagnostics=diagnostics,
        history=history,
        data=[SplitStats("train", 12345, 12340, {"too long": 5, "never": 0}, {"byte-order mark": 1})],
        fingerprints={"train": [["a/train.en", "0123abcd"]]},
        command="python -m nmt.train model=rnn",
        versions={"torch": "2.10.0"},
        config="seed: 1\nmodel:\n  cell: gru\n",
        notes=["one note"],
        browser=browser,
    )


@pytest.fixture
def example() -> Example:
    return make_report
