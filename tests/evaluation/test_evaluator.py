"""Scores during training: all of the validation set, or a probe of it while no translation ends by itself."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from nmt.attention import AttentionConfig
from nmt.data import DataConfig, SentencePair, TokenizerConfig, train_or_load_tokenizer
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.evaluation.evaluator import MAX_PROBED, MIN_PROBED, _probe, translate_and_score
from nmt.evaluation.metrics import MetricsConfig, corpus_score
from nmt.evaluation.results import EvaluationSet
from nmt.inference.translator import Translation, Translator
from nmt.models import build_model
from nmt.models.rnn import RNNConfig
from nmt.search import SearchConfig, make_decode_batches

CPU = torch.device("cpu")
NEVER_END = "translations never end, as without training; scores are of these, of 120 sentences"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, EvaluationSet]:
    """Return an untrained model, its tokenizer, and a validation set."""
    data = DataConfig(
        synthetic=SyntheticConfig(train=150, valid=120, test=3, long=2),
        cache_dir=str(tmp_path_factory.mktemp("cache")),
        tokenizer=TokenizerConfig(type="word", vocab_size=3000),
    )
    tokenizer = train_or_load_tokenizer(data)
    torch.manual_seed(3)
    config = RNNConfig(embedding_dim=8, hidden_size=8, attention=AttentionConfig(score="additive", dim=8))
    return (
        build_model(config, tokenizer.source_size, tokenizer.target_size, joint=True),
        tokenizer,
        EvaluationSet.read(data, "valid"),
    )


def test_an_untrained_model_is_scored_by_a_probe(parts: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With the same search, whatever the batches are; the alignment error is that of all pairs."""
    model, tokenizer, valid = parts
    results = []
    for batch_size in (64, 7):
        translator = Translator(model, tokenizer, SearchConfig(beam_size=2, batch_size=batch_size), CPU)
        with caplog.at_level(logging.INFO, "nmt"):
            caplog.clear()
            results.append(translate_and_score(translator, valid.pairs, valid.gold, MetricsConfig()))
        (line,) = (record.message for record in caplog.records if NEVER_END in record.message)
        assert f" of {len(results[-1].pairs)} {NEVER_END}" in line
    first, second = results
    assert MIN_PROBED <= len(first.pairs) == len(first.translations) <= 60
    assert [pair for pair in valid.pairs if pair in first.pairs] == first.pairs  # in their order
    sources, references = zip(*first.pairs, strict=True)
    translations = translator.translate(sources)
    assert first.translations == second.translations == translations
    assert first.scores == corpus_score([t.text for t in translations], references, MetricsConfig())
    short = Translator(model, tokenizer, SearchConfig(beam_size=2, max_length_ratio=0, max_length_offset=1), CPU)
    assert (
        first.flat_scores()["aer"]
        == translate_and_score(short, valid.pairs, valid.gold, MetricsConfig()).flat_scores()["aer"]
    )


def test_a_short_limit_that_cuts_every_translation_is_no_reason(parts: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Then the result is that of translating all at once, and every batch shows progress."""
    model, tokenizer, valid = parts
    config = SearchConfig(beam_size=2, batch_size=1, max_length_ratio=0, max_length_offset=2)
    translator, done = Translator(model, tokenizer, config, CPU), []
    with caplog.at_level(logging.INFO, "nmt"):
        result = translate_and_score(translator, valid.pairs, None, MetricsConfig(), on_batch=done.append)
    assert NEVER_END not in caplog.text
    assert all(translation.truncated for translation in result.translations)
    assert result.pairs == valid.pairs
    assert result.translations == translator.translate([pair.source for pair in valid.pairs])
    assert (done[-1], done) == (120, sorted(set(done)))


@pytest.mark.parametrize(("num_ended", "num_scored"), [(1, 20), (2, 50), (20, 50)])
def test_nearly_all_of_the_probe_must_be_endless(
    parts: Any, monkeypatch: pytest.MonkeyPatch, num_ended: int, num_scored: int
) -> None:
    """Of 20 sentences, 18 are not more than nine tenths."""
    model, tokenizer, _ = parts
    translator = Translator(model, tokenizer, SearchConfig(), CPU)
    pairs = [SentencePair("a " * (4 if i < 20 else 8 * (2 + i % 9)), "a b") for i in range(50)]

    def translate(texts: Sequence[str], **_: object) -> list[Translation]:
        return [Translation("a", [5] * 9, 0.0, i >= num_ended) for i in range(len(texts))]

    monkeypatch.setattr(translator, "translate", translate)
    assert len(translate_and_score(translator, pairs, None, MetricsConfig()).pairs) == num_scored


def test_the_probe_adds_no_batch() -> None:
    """It is one of the batches that there are anyway; a set of few sentences, or of few of one length, has none."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 30, (1000,), generator=generator).tolist()
    probe, config = _probe(lengths), SearchConfig()
    rest = [length for i, length in enumerate(lengths) if i not in probe]
    assert len(probe) == MAX_PROBED
    assert len({length // 4 for length in map(lengths.__getitem__, probe)}) == 1
    assert len([*make_decode_batches(rest, config)]) + 1 == len([*make_decode_batches(lengths, config)])
    for few in ([], [5] * MIN_PROBED, range(0, 400, 4), [*[5] * (MIN_PROBED - 1), *range(100, 400)]):
        assert _probe([*few]) == []
