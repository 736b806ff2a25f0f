"""Significance of the mean of a score over several test sets."""

import random

import pytest

from nmt.evaluation.metrics import MetricsConfig, build_metrics
from nmt.evaluation.significance import mean_test, paired_test

WORDS = ["the", "a", "dog", "cat", "house", "old", "sees", "runs", "in", "and", "small"]


def texts(seed: int, num: int = 40) -> tuple[list[str], list[str], list[str]]:
    """Return references and the hypotheses of two systems, the second of which has fewer errors."""
    draws = random.Random(seed)
    references = [" ".join(draws.choices(WORDS, k=draws.randint(5, 12))) for _ in range(num)]

    def damaged(share: float) -> list[str]:
        return [" ".join(draws.choice(WORDS) if draws.random() < share else w for w in r.split()) for r in references]

    return references, damaged(0.3), damaged(0.25)


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
@pytest.mark.parametrize("test", ["bootstrap", "randomization"])
def test_of_one_set_it_is_the_test_of_sacrebleu(name: str, test: str) -> None:
    config = MetricsConfig(names=[name], num_resamples=200, significance_test=test)
    for seed in range(4):
        references, first, second = texts(seed)
        expected = paired_test({"a": first, "b": second}, references, config)[name].systems["b"]
        found = mean_test([(build_metrics(config)[name], (first, second), [references])], config)
        assert found.score == pytest.approx(expected.score, abs=1e-4)
        assert found.p_value == pytest.approx(expected.p_value, abs=2 / 201)  # sums in single precision
        assert 0.004 < (found.p_value or 0) < 1


def test_the_same_sentences_again_are_no_further_evidence() -> None:
    """In the sets of a text in several languages the same lines are resampled; other lines are evidence."""
    config = MetricsConfig(names=["bleu"], num_resamples=400)
    metric = build_metrics(config)["bleu"]
    references, first, second = texts(3)
    once = mean_test([(metric, (first, second), [references])], config)
    again = mean_test([(metric, (first, second), [references])] * 3, config)
    assert again == pytest.approx(once)
    sets = [(metric, (one, two), [reference]) for reference, one, two in (texts(seed) for seed in range(30))]
    others = mean_test(sets, config)
    assert others.p_value == pytest.approx(1 / 401) != once.p_value
    assert others.score == pytest.approx(sum(metric.corpus_score(h[1], r).score for _, h, r in sets) / 30)
    equal = [(metric, (first, first), [references]), (metric, (second, second), [references])]
    assert mean_test(equal, config).p_value == 1.0


def test_each_set_has_a_tokenizer_of_its_own() -> None:
    first, second = (build_metrics(MetricsConfig(names=["bleu"], tokenize=name))["bleu"] for name in ("13a", "zh"))
    reference, hypothesis = ["一二三四五六七八"], ["一二三四五六九八"]
    config = MetricsConfig(num_resamples=2)
    row = mean_test([(metric, (reference, hypothesis), [reference]) for metric in (first, second)], config)
    scores = [metric.corpus_score(hypothesis, [reference]).score for metric in (first, second)]
    assert row.score == pytest.approx(sum(scores) / 2)
    assert scores[0] < 1 < scores[1]
