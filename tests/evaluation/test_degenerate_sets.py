"""Degenerate test sets: every statistic is a finite number or not defined, and pages can be made of them."""

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from nmt.alignment import GoldAlignment
from nmt.data import SentencePair
from nmt.evaluation import evaluator
from nmt.evaluation.attention_diagnostics import DiagnosticsAccumulator
from nmt.evaluation.breakdown import alignment_by_length, breakdown, length_correlation_warning, rates
from nmt.evaluation.metrics import METRICS, SIGNIFICANCE_TESTS, TOKENIZERS, MetricsConfig, corpus_score, sentence_chrf
from nmt.evaluation.report import ReportData
from nmt.evaluation.report.page import render
from nmt.evaluation.results import EvaluationResult
from nmt.evaluation.significance import bootstrap_intervals, paired_test
from nmt.inference.translator import Translation
from tests.evaluation.test_evaluate import QUICK, call, make

pytestmark = pytest.mark.filterwarnings("error")
few = settings(max_examples=40, deadline=None, derandomize=True, database=None, phases=[Phase.generate])

LINES = [
    "",
    " ",
    ".",
    "a",
    "Ein",
    "a a a a a a a a",
    "Ein Hund sieht 3 Katzen .",
    "x" * 200,
    "你好",
    "\u200b",
    "\u3000",
]


@st.composite
def sides(draw: Any, num_sides: int) -> list[list[str]]:
    """Return texts of as many sentences: all blank, all the same, all of one length, or some of each."""
    num = draw(st.sampled_from([1, 2, 30]))
    line = st.sampled_from(LINES)
    side = st.one_of(
        st.just([""] * num),
        line.map(lambda text: [text] * num),
        st.just([f"{i:03d} w" for i in range(num)]),
        st.lists(line, min_size=num, max_size=num),
    )
    return [draw(side) for _ in range(num_sides)]


def configs() -> st.SearchStrategy[MetricsConfig]:
    return st.builds(
        MetricsConfig,
        tokenize=st.sampled_from([name for name in TOKENIZERS if "mecab" not in name]),
        lowercase=st.booleans(),
        names=st.just(list(METRICS)),
        num_resamples=st.sampled_from([2, 12]),
        significance_test=st.sampled_from(list(SIGNIFICANCE_TESTS)),
    )


def numbers(value: Any) -> Iterator[float]:
    """Yield every number in nested containers."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


@few
@given(sides(4), configs())
def test_every_statistic_is_a_number_or_not_defined(texts: list[list[str]], config: MetricsConfig) -> None:
    sources, hypotheses, others, references = texts
    pairs = list(map(SentencePair, sources, references))
    translations = [Translation(text, [], math.nan, False) for text in hypotheses]
    scores = corpus_score(hypotheses, references, config)
    result = EvaluationResult("test", pairs, translations, scores)
    result.sentence_chrf = sentence_chrf(hypotheses, references, config)
    result.intervals = bootstrap_intervals(hypotheses, references, config)
    result.comparisons = paired_test({"other": others, "this": hypotheses}, references, config)
    result.breakdown = breakdown(sources, hypotheses, references, config, {"ein": 3})
    result.notes = evaluator._notes(translations, pairs, config)
    content = result.to_dict()
    assert all(map(math.isfinite, numbers([content, result.sentences()])))
    json.dumps([content, result.sentences()], allow_nan=False)
    assert ">not defined<" in render(ReportData(scores=content, notes=result.notes)) or (
        len(references) > 1 and result.breakdown.rates.length_ratio is not None
    )
    assert "nan" not in "".join(result.summary_lines())
    if len(references) == 1:
        assert result.intervals == {}
        assert any("not defined for one sentence" in note for note in result.notes)
    for comparison in result.comparisons.values():
        other, this = comparison.systems.values()
        if len(references) == 1:
            assert this == (this.score, None, None, None)
        elif other.score == this.score:
            assert this.p_value == 1.0


@few
@given(sides(2))
def test_a_correlation_of_lengths_is_of_sets_that_have_one(texts: list[list[str]]) -> None:
    lengths = [[len(text) for text in side] for side in texts]
    correlation = length_correlation_warning(*texts)
    if len(texts[0]) < 30 or any(len(set(side)) == 1 for side in lengths):
        assert correlation is None
    elif correlation is not None:
        assert correlation == pytest.approx(np.corrcoef(lengths)[0, 1])


def test_systems_of_equal_scores_do_not_differ() -> None:
    """SacreBLEU's tests alone give their smallest p-value where no sample has a difference either."""
    for name in SIGNIFICANCE_TESTS:
        config = MetricsConfig(names=["bleu", "chrf", "ter"], num_resamples=50, significance_test=name)
        blank = paired_test({"a": ["ein Hund"] * 40, "b": ["a b"] * 40}, [""] * 40, config)
        assert [blank[metric].systems["b"].p_value for metric in config.names] == [1.0, 1.0, 1.0]
        wrong = ["ein Hund sieht eine Katze"] * 40, ["ein Hund sieht eine Maus"] * 40, ["ein Hund sieht eine Kuh"] * 40
        row = paired_test({"a": wrong[0], "b": wrong[1]}, wrong[2], config)["bleu"].systems["b"]
        assert row.p_value == 1.0


def test_the_length_ratio_to_nothing_is_not_defined() -> None:
    assert rates(["a b", ""], ["", ""], MetricsConfig()).length_ratio is None
    assert rates(["", ""], ["a", ""], MetricsConfig()).length_ratio == 0.0


def test_a_bucket_without_gold_links_has_no_alignment_error() -> None:
    sources, links = ["a b", "a " * 15, "a"], [[(0, 0)], [(1, 1)], [(0, 0)]]
    gold = [GoldAlignment({(0, 0)}, set()), GoldAlignment(set(), set()), GoldAlignment(set(), {(0, 0)})]
    by_length = alignment_by_length(sources, links, gold)
    assert list(by_length) == ["0-10"]
    assert by_length["0-10"].aer == 0.0


@st.composite
def attention(draw: Any) -> list[np.ndarray]:
    """Return attention of sentences of some layers and heads: uniform, hard, all zero, or not a number."""
    shape = draw(st.sampled_from([(1, 1), (2, 2)]))
    matrices = []
    for _ in range(draw(st.integers(1, 3))):
        rows, columns = draw(st.sampled_from([1, 2, 8])), draw(st.sampled_from([1, 2, 8]))
        kinds = {
            "uniform": np.full((rows, columns), 1 / columns),
            "hard": np.eye(max(rows, columns))[:rows, :columns],
            "zero": np.zeros((rows, columns)),
            "nan": np.full((rows, columns), np.nan),
        }
        matrix = kinds[draw(st.sampled_from(list(kinds)))]
        matrices.append(np.broadcast_to(matrix, (*shape, rows, columns)).astype(np.float32))
    return matrices


@few
@given(attention(), st.sampled_from([None, np.nan, np.inf, 0.0]))
def test_diagnostics_of_any_attention(matrices: list[np.ndarray], importance: float | None) -> None:
    accumulator = DiagnosticsAccumulator()
    for weights in matrices:
        accumulator.add(weights, [*["."] * (weights.shape[3] - 1), "</s>"], "a b")
    result = accumulator.result()
    assert result is not None
    result.importance = None if importance is None else np.full(matrices[0].shape[:2], importance)
    content = result.to_dict()
    json.dumps([content, result.tensorboard_measures()], allow_nan=False)
    assert "nan" not in "".join(result.table())
    assert ">nan<" not in render(ReportData(diagnostics=content))
    if all(weights.shape[2] == 1 for weights in matrices):  # the row of the end token alone
        assert {value for row in content["agreement"] for value in row} == {None}


VALUES = [None, math.nan, math.inf, 0, 0.0, 5e-324, 1e-30, 1.1, 1.1 + 2e-16, -3.0, 1e30]
KEYS = ("loss", "perplexity", "valid_loss", "valid_perplexity", "valid_bleu", "valid_aer")
value = st.sampled_from(VALUES)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"update": st.sampled_from([0, 1, 2, 10**6])},
        optional={
            **dict.fromkeys(KEYS, value),
            "entropy": st.lists(st.lists(value, max_size=2), max_size=2),
            "attention": st.fixed_dictionaries({"jump_length": st.lists(st.lists(value, max_size=2), max_size=2)}),
            "learned_scalars": st.fixed_dictionaries({"g": st.lists(value, max_size=2)}),
        },
    ),
    max_size=4,
)


@few
@given(ROWS)
def test_curves_of_any_history(rows: list[dict[str, Any]]) -> None:
    page = render(ReportData(history=rows))
    assert not {">nan<", ">inf<", '="nan', "Mnan"} & {
        mark for mark in (">nan<", ">inf<", '="nan', "Mnan") if mark in page
    }


def test_blank_references_give_a_report(tmp_path: Path) -> None:
    make(tmp_path, "a")
    num = 31
    (tmp_path / "blank.en").write_text("".join(f"a dog {'sleeps ' * (i % 9)}\n" for i in range(num)))
    (tmp_path / "blank.de").write_text("\n" * num)
    (tmp_path / "blank.gold").write_text("\n" * num)
    given = ["data=text", f"data.test={tmp_path}/blank", f"output={tmp_path}/out"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # of packages
        code, output = call("evaluate", f"checkpoint={tmp_path}/runs/a", *given, *QUICK)
    assert code == 0, output
    scores = json.loads((tmp_path / "out/scores.json").read_text("utf-8"))
    assert scores["rates"]["length_ratio"] is None
    assert "alignment" not in scores
    for note in ("The references are blank: no score says", "The alignment error is not defined: the gold alignments"):
        assert note in output
        assert note in (tmp_path / "out/report.html").read_text("utf-8")


@pytest.mark.parametrize("failing", ["bootstrap_intervals", "breakdown", "sentence_chrf", "write_report"])
def test_what_fails_later_costs_neither_translations_nor_scores(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a", score="none")
    (tmp_path / "t.en").write_text("a dog\nthe cat sleeps\n")
    (tmp_path / "t.de").write_text("ein Hund\ndie Katze schläft\n")

    def fail(*_: object) -> None:
        raise ValueError("one statistic")

    given = ["data=text", f"data.test={tmp_path}/t", f"output={tmp_path}/out", f"checkpoint={tmp_path}/runs/a", *QUICK]
    assert call("evaluate", *given)[0] == 0
    complete = json.loads((tmp_path / "out/scores.json").read_text("utf-8"))
    hypotheses = (tmp_path / "out/hypotheses.txt").read_bytes()
    (tmp_path / "out/scores.json").unlink()
    (tmp_path / "out/hypotheses.txt").unlink()
    monkeypatch.setattr(evaluator, failing, fail)
    code, output = call("evaluate", *given)
    assert (code, output.splitlines()[-1]) == (1, "error: one statistic")
    scores = json.loads((tmp_path / "out/scores.json").read_text("utf-8"))
    assert {name: scores[name] for name in ("bleu", "chrf")} == {name: complete[name] for name in ("bleu", "chrf")}
    assert (tmp_path / "out/hypotheses.txt").read_bytes() == hypotheses
    assert not (tmp_path / "out/config.yaml").exists()  # so it counts as no complete report
