import json
import subprocess
import sys

import pytest

from nmt.evaluation.metrics import METRICS, MetricsConfig, corpus_score

REFERENCES = ["Der alte Mann liest einen Brief.", "Die Katze schläft, der Hund nicht.", "Es regnet seit 3,5 Tagen!"]
HYPOTHESES = ["der alte Mann liest ein Brief.", "Die Katze schläft und der Hund nicht.", "Es regnet seit drei Tagen!"]

OPTIONS = {"bleu": [], "chrf": [], "chrf++": ["--chrf-word-order", "2"], "ter": ["--ter-case-sensitive"]}
LOWERCASE = {"bleu": ["-lc"], "chrf": ["--chrf-lowercase"], "chrf++": ["--chrf-word-order", "2", "--chrf-lowercase"]}


def command_line(tmp_path, metric, options):
    (tmp_path / "references").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    (tmp_path / "hypotheses").write_text("\n".join(HYPOTHESES) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "references",
        "-i",
        "hypotheses",
        "-m",
        metric.rstrip("+"),
        "-w",
        "10",
    ]
    completed = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=True)
    return json.loads(completed.stdout)


@pytest.mark.parametrize(
    ("metric", "options", "config"),
    [
        *((metric, options, MetricsConfig()) for metric, options in OPTIONS.items()),
        *((metric, options, MetricsConfig(lowercase=True)) for metric, options in LOWERCASE.items()),
        ("bleu", ["-tok", "char"], MetricsConfig(tokenize="char")),
        ("bleu", ["-tok", "intl"], MetricsConfig(tokenize="intl")),
    ],
)
def test_equals_the_command_line_of_sacrebleu(tmp_path, metric, options, config):
    config.names = [metric]
    result = corpus_score(HYPOTHESES, REFERENCES, config)[metric]
    expected = command_line(tmp_path, metric, options)
    assert result.score == pytest.approx(expected["score"], abs=1e-9)
    assert result.signature == expected["signature"]


def test_scores_are_in_the_order_of_the_names():
    names = list(reversed(METRICS))
    assert list(corpus_score(HYPOTHESES, REFERENCES, MetricsConfig(names=names))) == names


def test_a_perfect_translation_has_perfect_scores():
    results = corpus_score(REFERENCES, REFERENCES, MetricsConfig(names=list(METRICS)))
    assert {name: round(result.score, 6) for name, result in results.items()} == {
        "bleu": 100.0,
        "chrf": 100.0,
        "chrf++": 100.0,
        "ter": 0.0,
    }


def test_lists_of_different_length_are_rejected_with_both_counts():
    with pytest.raises(ValueError, match=r"2 hypotheses but 3 references"):
        corpus_score(HYPOTHESES[:2], REFERENCES, MetricsConfig())


def test_empty_lists_are_rejected():
    with pytest.raises(ValueError, match="no sentences to score"):
        corpus_score([], [], MetricsConfig())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            MetricsConfig(names=["blue"]),
            r"metrics\.names=blue: must be one of bleu, chrf.*; did you mean bleu\?",
        ),
        (MetricsConfig(names=[]), r"metrics\.names=\[\]"),
        (MetricsConfig(names=["bleu", "bleu"]), "bleu is named more than once"),
        (MetricsConfig(tokenize="13"), r"metrics\.tokenize=13: must be one of .*; did you mean 13a\?"),
        (MetricsConfig(tokenize="flores200"), r"metrics\.tokenize=flores200: must be one of 13a, intl"),
    ],
)
def test_an_invalid_option_is_named_with_the_allowed_values(config, message):
    with pytest.raises(ValueError, match=message) as error:
        config.validate()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("tokenize", "extra"), [("ja-mecab", "ja"), ("ko-mecab", "ko")])
def test_a_tokenizer_without_its_package_names_what_to_install(monkeypatch, tokenize, extra):
    monkeypatch.setattr("nmt.evaluation.metrics.find_spec", lambda module: None)
    with pytest.raises(ValueError, match=rf'pip install "sacrebleu\[{extra}\]"'):
        MetricsConfig(tokenize=tokenize).validate()
