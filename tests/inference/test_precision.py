"""Translation in both precisions: what it may depend on, and what it may not."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from nmt.attention import AttentionConfig
from nmt.attention.linear import Linear
from nmt.data import Tokenizer, TokenizerConfig
from nmt.inference.translator import Translator
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.search import SearchConfig

CPU = torch.device("cpu")
WORDS = [f"w{number}" for number in range(40)]
TEXTS = [" ".join(WORDS[(i * j + j) % 40] for j in range(1 + i % 11)) for i in range(90)]
MODELS_WITH_OPTIONS: dict[str, Any] = {
    "transformer": {"d_model": 32, "ffn_dim": 64},
    "rnn": {"decoder": "input_feeding", "cell": "gru", "embedding_dim": 24, "hidden_size": 32},
    "rnn_transformer": {"cell": "lstm", "hidden_size": 32, "d_model": 32, "ffn_dim": 48},
}


def make(name: str, **search: Any) -> Translator:
    """Return a translator of a model that is far from uniform."""
    torch.manual_seed(5)
    tokenizer = Tokenizer.train(TokenizerConfig(type="word"), [(text, text) for text in TEXTS])
    attention = AttentionConfig(score="scaled", heads=2, dim=16 if name == "rnn" else None)
    config = dataclasses.replace(MODELS[name].config(), attention=attention, **MODELS_WITH_OPTIONS[name])
    sizes = tokenizer.source_size, tokenizer.target_size
    model: Seq2Seq = build_model(config, *sizes, joint=tokenizer.joint).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return Translator(model, tokenizer, SearchConfig(**{"beam_size": 3, "max_length_offset": 4, **search}), CPU)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.bf16)])
@pytest.mark.parametrize("name", MODELS_WITH_OPTIONS)
def test_neither_batches_nor_threads_change_a_translation(name: str, precision: str) -> None:
    """Texts, tokens and scores are the same to the last bit, one sentence at a time or many."""
    before = torch.get_num_threads()
    results = []
    try:
        for threads, options in (
            (1, {"batch_size": 1}),
            (1, {"batch_size": 64}),
            (1, {"batch_size": 64, "batch_tokens": 50}),
            (2, {"batch_size": 7}),
            (3, {"batch_size": 64}),
        ):
            torch.set_num_threads(threads)
            results.append(make(name, precision=precision, **options).n_best(TEXTS))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(result == results[0] for result in results)
    assert len({translation.text for n_best in results[0] for translation in n_best}) > 8


@pytest.mark.parametrize("half", [pytest.param("bf16", marks=pytest.mark.bf16), "fp16"])
@pytest.mark.parametrize("name", MODELS_WITH_OPTIONS)
def test_half_precisions_are_near_fp32(name: str, half: str) -> None:
    """The first step's probabilities differ a little, so it is used; most translations are the same."""
    exact, fast = (make(name, precision=precision).translate(TEXTS) for precision in ("fp32", half))
    assert [t.log_prob for t in exact] != [t.log_prob for t in fast]
    same = [(a, b) for a, b in zip(exact, fast, strict=True) if a.tokens == b.tokens]
    assert len(same) > 0.6 * len(TEXTS)
    assert np.median([abs(a.score - b.score) for a, b in same]) < 0.1


def test_attention_of_given_pairs_is_fp32() -> None:
    translators = [make("transformer", precision=precision) for precision in ("fp32", "bf16")]
    for translator in translators:
        translator.translate(TEXTS[:3])  # which packs the weights
        layers = [module for module in translator.model.modules() if isinstance(module, Linear)]
        assert all(layer.packed is None and layer.packs for layer in layers)
    pairs = translators[0].encode_pairs([(text, text) for text in TEXTS[:5]])
    matrices = [list(translator.attention_weights(*pairs)) for translator in translators]
    for (_, exact), (_, other) in zip(*matrices, strict=True):
        assert np.array_equal(exact, other)


def test_scores_are_those_of_forced_decoding() -> None:
    translator = make("transformer")
    for text, translation in zip(TEXTS, translator.translate(TEXTS), strict=True):
        (source,), target = translator.tokenizer.encode_source([text]), translation.tokens
        ids = torch.tensor([[*source, 3]])
        with torch.no_grad():
            logits, _ = translator.model(ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor([[2, *target]]))
        rows = torch.log_softmax(logits[0], -1)
        log_prob = rows[torch.arange(len(target) + 1), torch.tensor([*target, 3])].sum().item()
        assert translation.log_prob == pytest.approx(log_prob, abs=1e-3)


def test_precision_is_checked() -> None:
    with pytest.raises(ValueError, match=r"search\.precision=fp64: must be one of auto, fp32, tf32, bf16, fp16"):
        SearchConfig(precision="fp64").validate()
