"""Comparisons of degenerate results: blank texts, equal systems, one run, one sentence, constants, missing values."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nmt.cli.configs import Config
from nmt.compare import RunResult, compare_runs
from nmt.compare.page import page
from nmt.compare.run_results import ValidationRecord, _validations
from nmt.compare.statistics import mean_correlation, stouffer, summarize, t_test
from nmt.compare.tables import FORMATS, SECTIONS, to_text
from nmt.config import flatten, to_dict
from nmt.evaluation.metrics import SIGNIFICANCE_TESTS, MetricsConfig, corpus_score, sentence_chrf

pytestmark = pytest.mark.filterwarnings("error")
LINES = ["", ".", "a", "a a a a a a a a", "Ein Hund sieht 3 Katzen .", "你好"]
number = st.sampled_from([0.0, 1.0, 1.1, 1.1 + 2e-16, 5e-324, 1e-30, 33.3, 1e30])
line = st.sampled_from(LINES)


def texts(num: int) -> st.SearchStrategy[list[str]]:
    return st.one_of(line.map(lambda text: [text] * num), st.lists(line, min_size=num, max_size=num))


def result(draw: Any, score: str, seed: int, sources: list[str], references: list[str]) -> RunResult:
    config = Config(name=f"{score}-{seed}", seed=seed)
    config.model.attention.score = score
    hypotheses, metrics = draw(texts(len(references))), MetricsConfig(names=["bleu", "chrf", "ter"])
    scores = corpus_score(hypotheses, references, metrics)
    names = ["aer", "bleu 0-10", "bleu 61-", "parameters", "minutes", "flops", "entropy"]
    quantities = draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, number)))
    values = st.fixed_dictionaries({}, optional=dict.fromkeys(("bleu", "perplexity", "aer"), number))
    seconds = draw(st.lists(st.none() | number, max_size=2))
    return RunResult(
        label=str(config.name),
        run=Path(str(config.name)),
        report=Path(f"{config.name}/report"),
        config=config,
        options=flatten(to_dict(config)),
        vocabulary="",
        version="1",
        precision="",
        sources=tuple(sources),
        references=tuple(references),
        hypotheses=tuple(hypotheses),
        sentence_chrf=tuple(sentence_chrf(hypotheses, references, metrics)),
        signatures={name: value.signature for name, value in scores.items()},
        intervals=draw(st.sampled_from([{}, {"bleu": (0.0, 0.0)}])),
        quantities={**{name: value.score for name, value in scores.items()}, **quantities},
        buckets={"0-10": len(references)},
        validations=[ValidationRecord(i, second, draw(values)) for i, second in enumerate(seconds)],
    )


@st.composite
def results(draw: Any) -> list[RunResult]:
    num = draw(st.sampled_from([1, 2, 12]))
    sources, references = draw(texts(num)), draw(texts(num))
    return [
        result(draw, score, seed, sources, references)
        for score in ("additive", "dot")
        for seed in range(draw(st.integers(1, 3)))
    ]


def no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


@settings(max_examples=40, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(results(), st.sampled_from([0, 5]), st.sampled_from(list(SIGNIFICANCE_TESTS)), st.integers(0, 2))
def test_any_results_are_compared(runs: list[RunResult], resamples: int, test: str, num_sentences: int) -> None:
    comparison = compare_runs(runs, num_resamples=resamples, significance_test=test, target_bleu=1.0)
    for name, make in FORMATS.items():
        text = make(comparison, SECTIONS)
        assert "nan" not in text, name
        if name == "json":
            json.loads(text, parse_constant=no_constant)
    html = page(comparison, SECTIONS, num_sentences)
    assert [mark for mark in ("Mnan", '="nan', ">nan<", ">inf<") if mark in html] == []
    for contrast in comparison.contrasts:
        p_values = [contrast.sentences, contrast.seeds, contrast.adjusted_sentences, contrast.adjusted_seeds]
        assert all(p is None or 0 <= p <= 1 for p in [*p_values, *contrast.per_seed])
        if len(runs[0].references) == 1:
            assert contrast.per_seed == []  # of one sentence there is no other sample
        if contrast.difference.mean == 0 and not any(contrast.difference.values):
            assert not contrast.differs


def test_groups_of_one_run_and_equal_systems(tmp_path: Path) -> None:
    config = Config(name="a")
    same = RunResult(
        *("a", tmp_path, tmp_path, config, {**flatten(to_dict(config)), "model.attention.score": "a"}, "", "1", ""),
        *(("x",) * 9, ("a b c d",) * 9, ("a b c d",) * 9, (100.0,) * 9, {"bleu": "s"}, {}, {"bleu": 100.0}),
    )
    other = RunResult(**{**vars(same), "options": {**same.options, "model.attention.score": "b"}})
    comparison = compare_runs([same, other], num_resamples=20)
    (contrast,) = comparison.contrasts
    assert (contrast.per_seed, contrast.sentences, contrast.seeds, contrast.differs) == ([1.0], 1.0, None, None)
    assert "one pair of models" in to_text(comparison, SECTIONS)


def test_statistics_of_constants() -> None:
    assert t_test([0.1 + 0.2, 0.3, 0.3]) == 0.0  # they differ by rounding: SciPy warns of lost precision
    assert t_test([5e-14, -3e-14]) == pytest.approx(t_test([5.0, -3.0]))
    assert t_test([5.6e-14, 5.6e-14]) == 1.0  # equal but for rounding
    assert mean_correlation([[1.0], [2.0]]) == 0.0
    assert stouffer([1.0, 1.0], [0.0, 0.0], 0.0) == 1.0
    assert summarize([2.0, 2.0]).low == 2.0


def test_validations_that_are_no_numbers_are_not_drawn() -> None:
    rows = [{"update": 1, "valid_bleu": None, "valid_aer": None}, {"update": 2, "valid_bleu": 3.0, "valid_loss": None}]
    assert _validations(rows) == [ValidationRecord(2, None, {"bleu": 3.0})]
