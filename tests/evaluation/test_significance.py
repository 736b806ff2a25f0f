"""Intervals and paired tests, against the command line of sacrebleu on the same files."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmt.evaluation.metrics import METRICS, SIGNIFICANCE_TESTS, MetricsConfig, corpus_score
from nmt.evaluation.significance import bootstrap_intervals, paired_test

NAMES = {"bleu": "BLEU", "chrf": "chrF2", "chrf++": "chrF2++", "ter": "TER"}
OPTIONS: dict[str, list[str]] = {"bleu": [], "chrf": [], "chrf++": ["--chrf-word-order", "2"]}
OPTIONS["ter"] = ["--ter-case-sensitive"]


def texts(seed: int, mistakes: float) -> list[str]:
    """Return the same 40 sentences for each seed, with a share of `mistakes` of their words replaced."""
    generator = random.Random(0)
    words = ["the", "a", "man", "woman", "dog", "sits", "stands", "in", "front", "of", "red", "street", ",", "3"]
    sentences = [[generator.choice(words) for _ in range(generator.randint(4, 15))] for _ in range(40)]
    generator.seed(seed)
    return [" ".join("x" if generator.random() < mistakes else word for word in sentence) for sentence in sentences]


REFERENCES = texts(0, 0.0)
SYSTEMS = {"baseline": texts(1, 0.2), "better": texts(2, 0.1), "same": texts(3, 0.2)}


def sacrebleu(folder: Path, systems: list[str], metric: str, *options: str) -> Any:
    (folder / "references").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    for name in systems:
        (folder / name).write_text("\n".join(SYSTEMS[name]) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", *systems, "-m", metric.rstrip("+"), "-w", "10"]
    command += [*OPTIONS[metric], *options]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(completed.stdout)


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_are_those_of_sacrebleu(tmp_path: Path, metric: str) -> None:
    config = MetricsConfig(names=[metric], num_resamples=300)
    result = bootstrap_intervals(SYSTEMS["better"], REFERENCES, config)[metric]
    expected = sacrebleu(tmp_path, ["better"], metric, "--confidence", "--confidence-n", "300")
    assert result.mean == pytest.approx(expected["confidence_mean"], abs=1e-9)
    assert result.half_width == pytest.approx(expected["confidence_var"], abs=1e-9)
    assert result.signature == expected["signature"]
    assert corpus_score(SYSTEMS["better"], REFERENCES, config)[metric].score == pytest.approx(
        expected["score"], abs=1e-9
    )


@pytest.mark.parametrize("metric", METRICS)
def test_samples_without_any_match_count_too(metric: str) -> None:
    hypotheses, references = ["the", "the", "dog"], ["the cat sat", "a bird ran off", "our dog"]
    config = MetricsConfig(names=[metric], num_resamples=50)
    samples = np.random.default_rng(12345).choice(3, size=(50, 3))  # sacreBLEU's own samples
    scores = [
        corpus_score([hypotheses[i] for i in indices], [references[i] for i in indices], config)[metric].score
        for indices in samples
    ]
    assert bootstrap_intervals(hypotheses, references, config)[metric].mean == pytest.approx(sum(scores) / 50, abs=1e-4)


@pytest.mark.parametrize(
    ("metric", "test"),
    [("bleu", "bootstrap"), ("bleu", "randomization"), ("chrf++", "randomization"), ("ter", "randomization")],
)
def test_paired_tests_are_those_of_sacrebleu(tmp_path: Path, metric: str, test: str) -> None:
    config = MetricsConfig(names=[metric], num_resamples=200, significance_test=test)
    result = paired_test(SYSTEMS, REFERENCES, config)[metric]
    sacrebleu_name = SIGNIFICANCE_TESTS[test]
    flags = [f"--paired-{sacrebleu_name}", f"--paired-{sacrebleu_name}-n", "200", "-f", "json"]
    rows = sacrebleu(tmp_path, list(SYSTEMS), metric, *flags)
    assert [Path(row["system"].removeprefix("Baseline: ")).name for row in rows] == list(SYSTEMS)
    for row, system in zip(rows, result.systems.values(), strict=True):
        expected = row[NAMES[metric]]
        assert system.score == pytest.approx(expected["score"], abs=1e-9)
        for name, value in (("p_value", system.p_value), ("mean", system.mean), ("ci", system.half_width)):
            assert value == (None if expected[name] is None else pytest.approx(expected[name], abs=1e-9)), name
    assert result.systems["baseline"].p_value is None
    assert f"{sacrebleu_name}:200" in result.signature
    assert "seed:12345" in result.signature


@pytest.mark.parametrize("test", ["bootstrap", "randomization"])
def test_a_difference_is_significant_and_no_difference_is_not(test: str) -> None:
    systems = paired_test(SYSTEMS, REFERENCES, MetricsConfig(num_resamples=200, significance_test=test))["bleu"].systems
    assert systems["better"].p_value is not None
    assert systems["same"].p_value is not None
    assert systems["better"].p_value < 0.05 < systems["same"].p_value


def test_no_resamples_no_intervals() -> None:
    assert bootstrap_intervals(REFERENCES, REFERENCES, MetricsConfig(num_resamples=0)) == {}


def test_a_system_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match="short: 1 hypotheses but 40 references"):
        paired_test({"baseline": REFERENCES, "short": REFERENCES[:1]}, REFERENCES, MetricsConfig())
    with pytest.raises(ValueError, match="1 systems: a comparison needs two"):
        paired_test({"baseline": REFERENCES}, REFERENCES, MetricsConfig())


@pytest.mark.parametrize(("test", "short"), [("bootstrap", "bs"), ("randomization", "ar")])
def test_signatures_of_paired_tests_say_what_was_computed(tmp_path: Path, test: str, short: str) -> None:
    """They are those of the metric alone with its resamples, of every metric its own, and as sacreBLEU prints them."""
    config = MetricsConfig(names=list(METRICS), num_resamples=100, significance_test=test)
    results = paired_test({"baseline": SYSTEMS["baseline"], "better": SYSTEMS["better"]}, REFERENCES, config)
    intervals = bootstrap_intervals(SYSTEMS["better"], REFERENCES, config)
    assert list(results) == list(METRICS)
    for name in METRICS:
        assert results[name].signature == intervals[name].signature.replace("bs:100", f"{short}:100")
    flags = [f"--paired-{short}", f"--paired-{short}-n", "100", "-f", "text"]
    (tmp_path / "references").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    for name in ("baseline", "better"):
        (tmp_path / name).write_text("\n".join(SYSTEMS[name]) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "references",
        "-i",
        "baseline",
        "better",
        "-m",
        "bleu",
        "chrf",
        *flags,
    ]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for name in ("bleu", "chrf"):
        assert results[name].signature in printed.stdout + printed.stderr
