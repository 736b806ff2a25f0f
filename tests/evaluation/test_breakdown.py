"""Scores of parts of a test set, error rates, and scores of other programs."""

import random
from pathlib import Path

import pytest

from nmt.alignment import GoldAlignment, alignment_error_rate
from nmt.evaluation.breakdown import (
    alignment_by_length,
    breakdown,
    length_bucket,
    length_correlation_warning,
    rates,
    repetitions,
    word_frequencies,
    word_tokens,
)
from nmt.evaluation.external_scores import read_external_scores
from nmt.evaluation.metrics import MetricsConfig, corpus_score

SOURCES = ["Anna sees 3 dogs .", "She sleeps .", "Where does Anna live ?", "word " * 25, "a tiger", ""]
REFERENCES = ["Hunde : 3 sieht Anna .", "Sie schläft .", "Wo wohnt Anna ?", "Wort " * 25, "ein Tiger", ""]
HYPOTHESES = ["Anna sieht 3 Hunde .", "Sie schläft .", "Wo lebt sie ?", "Wort " * 24, "ein Hund", ""]
COUNTS = {
    "anna": 50,
    "sees": 2000,
    "3": 200,
    "dogs": 9,
    "she": 5000,
    "sleeps": 12,
    "where": 900,
    "does": 900,
    "a": 9000,
}
COUNTS |= {"live": 10, "word": 4000}


def bleu(rows: list[int]) -> float:
    config = MetricsConfig(names=["bleu"])
    return corpus_score([HYPOTHESES[i] for i in rows], [REFERENCES[i] for i in rows], config)["bleu"].score


def test_each_bucket_is_the_corpus_score_of_its_sentences() -> None:
    result = breakdown(SOURCES, HYPOTHESES, REFERENCES, MetricsConfig(), COUNTS).buckets
    expected = {
        "length": {"0-10": [0, 1, 2, 4, 5], "21-30": [3]},
        "rare_words": {"0": [4], "1-9": [0], "10-99": [1, 2], "1000-": [3, 5]},
        "numbers": {"with": [0], "without": [1, 2, 3, 4, 5]},
        "names": {"with": [2], "without": [0, 1, 3, 4, 5]},  # a sentence's first word is capitalized anyway
    }
    assert {category: list(buckets) for category, buckets in result.items()} == {
        category: list(buckets) for category, buckets in expected.items()
    }
    for category, buckets in expected.items():
        for name, rows in buckets.items():
            assert result[category][name].num_sentences == len(rows), (category, name)
            assert result[category][name].bleu == pytest.approx(bleu(rows)), (category, name)


def test_alignment_error_by_length_is_that_of_the_sentences_of_each_bucket() -> None:
    generator = random.Random(2)
    links = [[(generator.randrange(4), j) for j in range(4)] for _ in SOURCES]
    gold = [GoldAlignment({(j, j) for j in range(4)}, set()) for _ in SOURCES]
    result = alignment_by_length(SOURCES, links, gold)
    rows = {"0-10": [0, 1, 2, 4, 5], "21-30": [3]}
    assert list(result) == list(rows)
    for bucket, members in rows.items():
        assert result[bucket] == alignment_error_rate([links[i] for i in members], [gold[i] for i in members])
    assert result["0-10"] != result["21-30"]


def test_a_category_with_one_bucket_is_left_out() -> None:
    result = breakdown(SOURCES[1:2], HYPOTHESES[1:2], REFERENCES[1:2], MetricsConfig())
    assert list(result.buckets) == ["length"]


def test_frequencies_are_those_of_the_training_text() -> None:
    training = ["The dog, the DOG!", "a Dog 3", ""]
    assert word_frequencies(training, ["Dog the", "cat 3."]) == {"dog": 3, "the": 2, "3": 1}
    assert word_tokens("U.S. 東京は 3,5") == ["u", "s", "東京は", "3", "5"]


@pytest.mark.parametrize(
    ("number", "bucket"), [(0, "0-10"), (1, "0-10"), (10, "0-10"), (11, "11-20"), (60, "51-60"), (61, "61-")]
)
def test_buckets_of_length(number: int, bucket: str) -> None:
    assert length_bucket(" a" * number) == bucket


def test_rates_of_a_worked_example() -> None:
    references = ["a b c d", "a b c d", "a b c d", "the the end", "x", "a b"]
    hypotheses = ["a b c d", "a b", "a b a b c d e", "the the end", "", "b b b"]
    result = rates(hypotheses, references, MetricsConfig())
    assert result.exact_match == pytest.approx(2 / 6)
    assert result.empty == pytest.approx(1 / 6)
    assert result.under_translated == pytest.approx(2 / 6)  # two of four, none of one
    assert result.over_translated == pytest.approx(1 / 6)  # seven of four; three of two is not more than 1.5
    assert result.repetition == pytest.approx(2 / 6)  # "a b a b" and "b b b"; "the the" is in the reference too
    assert result.length_ratio == pytest.approx((4 + 2 + 7 + 3 + 0 + 3) / (4 + 4 + 4 + 3 + 1 + 2))


def test_rates_ignore_case_as_the_metrics_do() -> None:
    result = rates(["die die dort sind ."], ["Die die dort sind ."], MetricsConfig(lowercase=True))
    assert (result.exact_match, result.repetition) == (1, 0)
    assert rates(["die die"], ["Die die"], MetricsConfig()).exact_match == 0


def test_the_length_ratio_is_that_of_bleu() -> None:
    from sacrebleu.metrics import BLEU

    expected = BLEU().corpus_score(HYPOTHESES, [REFERENCES])
    assert rates(HYPOTHESES, REFERENCES, MetricsConfig()).length_ratio == pytest.approx(expected.ratio)


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 0), ("a b", 0), ("a a", 1), ("a a a", 2), ("a b a b", 1), ("a b c d a b c d", 1), ("a b c a b d", 0)],
)
def test_repetitions(text: str, number: int) -> None:
    assert repetitions(text.split()) == number


def test_references_in_another_order_are_detected() -> None:
    generator = random.Random(1)
    sources = ["x" * generator.randint(10, 90) for _ in range(200)]
    references = ["y" * max(1, round(len(text) * generator.uniform(0.8, 1.5))) for text in sources]
    assert length_correlation_warning(sources, references) is None
    shuffled = generator.sample(references, len(references))
    correlation = length_correlation_warning(sources, shuffled)
    assert correlation is not None
    assert abs(correlation) < 0.3
    assert length_correlation_warning(sources, references[1:] + references[:1]) is not None
    assert length_correlation_warning(["x" * 40] * 100, ["y" * generator.randint(39, 41) for _ in range(100)]) is None
    assert length_correlation_warning(sources[:20], shuffled[:20]) is None


def test_external_scores_in_every_layout(tmp_path: Path) -> None:
    lines, corpus, sentences = tmp_path / "lines", tmp_path / "whole", tmp_path / "parts"
    lines.write_text("0.5\n1\n-2e-1\n")
    assert read_external_scores(lines, 3) == (pytest.approx(1.3 / 3), "", [0.5, 1.0, -0.2])
    corpus.write_text('{"score": 0.83, "signature": "wmt22-comet-da"}')
    assert read_external_scores(corpus, 3) == (0.83, "wmt22-comet-da", None)
    sentences.write_text('{"sentences": [1, 2, 3]}')
    assert read_external_scores(sentences, 3) == (2.0, "", [1, 2, 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n", "2 scores for 3 sentences"),
        ("1\nx\n3\n", "line 2: 'x' is not a number"),
        ("1\nnan\n3\n", "sentence 2: nan is not a finite number"),
        ("", "line 1: '' is not a number"),
        ('{"scores": 1}', "has neither score nor sentences; its keys are scores"),
        ('{"score": "high"}', "'high' is not a number"),
        ('{"sentences": 3}', "sentences must be a list"),
        ('{"score": ', "not a JSON object"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_bad_file_of_scores_is_rejected(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "comet"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_external_scores(path, 3)
    assert str(path) in str(error.value)
