"""Synthetic comparisons for tests of their page: attention, curves, costs and scores by length, without a model."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nmt.alignment.writers import AlignedPair, alignment_writers
from nmt.cli.configs import Config
from nmt.compare import RunComparison, RunResult, compare_runs
from nmt.compare.run_results import ValidationRecord
from nmt.config import flatten, to_dict

SOURCES = [
    "the small house stands beside the old church",
    "a number, 1,234 & <b>markup</b>",
    "the king spoke to the children </script><img src=http://a.example/x>",
    "short",
    " ".join(f"word{i}" for i in range(40)),
]
REFERENCES = [
    "das kleine Haus steht dort",
    "eine Zahl",
    "تحدث الملك إلى الأطفال",
    "kurz",
    " ".join(f"Wort{i}" for i in range(38)),
]
LAYERS, HEADS = 2, 3
Study = Callable[..., RunComparison]


def split_subwords(text: str) -> tuple[list[str], list[int]]:
    """Split words of more than five letters in two subwords, then append the end token."""
    names, words = [], []
    for number, word in enumerate(text.split(" ")):
        halves = [word[:4], word[4:]] if len(word) > 5 else [word]
        names += ["▁" + halves[0], *halves[1:]]
        words += [number] * len(halves)
    return [*names, "</s>"], [*words, -1]


def _aligned(source: str, target: str, rng: np.random.Generator) -> AlignedPair:
    (source_subwords, source_words), (target_subwords, target_words) = split_subwords(source), split_subwords(target)
    logits = rng.normal(size=(LAYERS, HEADS, len(target_subwords), len(source_subwords))) * 2
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    sides = (source_subwords, target_subwords, source_words, target_words)
    return AlignedPair(source, target, *sides, weights.astype(np.float32), np.zeros((1, 1)), [(0, 0), (1, 1)])


def make_result(folder: Path, score: str, seed: int, draws: random.Random) -> RunResult:
    """Return the result of a run of a score; `none` has no attention."""
    config = Config(name=f"{score}-{seed}", seed=seed)
    config.model.attention.score = score
    report = folder / config.name / "report"
    report.mkdir(parents=True)
    hypotheses = [" ".join(draws.sample(text.split(" "), len(text.split(" ")))) for text in REFERENCES]
    quality = {"bleu": draws.uniform(20, 40), "chrf": draws.uniform(40, 60)}
    lengths = {f"bleu {bucket}": draws.uniform(10, 40) for bucket in ("0-10", "31-40")}
    costs = {
        "parameters": 1.5e6,
        "flops": draws.uniform(1e6, 2e6),
        "tokens_per_second": draws.uniform(9e3, 2e4),
        "minutes": 3.0,
    }
    if score != "none":
        rng = np.random.default_rng(draws.randrange(1000))
        with alignment_writers(report, ["npz"], weights=True) as write:
            write([_aligned(*texts, rng) for texts in zip(SOURCES, hypotheses, strict=True)])
        quality |= {"aer": draws.uniform(10, 30)}
        lengths |= {f"aer {bucket}": draws.uniform(10, 30) for bucket in ("0-10", "31-40")}
    aer = {} if score == "none" else {"aer": 40.0}
    curve = [
        ValidationRecord(
            update,
            update * draws.uniform(0.1, 0.12),
            {"bleu": update / 20 + draws.random(), "perplexity": 3000 / update, **aer},
        )
        for update in (200, 400, 600)
    ]
    return RunResult(
        label=str(folder / config.name),
        run=folder / config.name,
        report=report,
        config=config,
        options=flatten(to_dict(config)),
        vocabulary="v",
        version="1",
        precision="fp32",
        sources=tuple(SOURCES),
        references=tuple(REFERENCES),
        hypotheses=tuple(hypotheses),
        sentence_chrf=tuple(draws.uniform(0, 100) for _ in SOURCES),
        signatures={"bleu": "nrefs:1|tok:13a", "chrf": "nrefs:1|nc:6"},
        intervals={},
        quantities={**quality, **lengths, **costs},
        buckets={"0-10": 4, "31-40": 1},
        validations=curve,
        alignment_source=(0, 0, 0) if score == "none" else (2, 1, 0),
    )


@pytest.fixture
def make_comparison(tmp_path: Path) -> Study:
    """Return a function that compares runs of some scores and seeds."""

    def study(scores: tuple[str, ...] = ("additive", "scaled", "none"), seeds: int = 2) -> RunComparison:
        draws = random.Random(3)
        results = [make_result(tmp_path, score, seed, draws) for score in scores for seed in range(1, seeds + 1)]
        return compare_runs(results, num_resamples=0)

    return study
