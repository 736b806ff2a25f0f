"""Export to ONNX: every model, its attention weights and its state, step by step with onnxruntime."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nmt.attention import NORMALIZERS, SCORES
from nmt.export import verification
from nmt.export.scripts.translate_onnx import OnnxModel, beam_search
from nmt.export.tracing import TRACEABLE_NORMALIZERS, traceable
from nmt.inference.translator import Translator
from nmt.search import SearchConfig

Make = Any  # see conftest.py


def test_every_normalizer_is_traceable() -> None:
    assert TRACEABLE_NORMALIZERS.keys() == NORMALIZERS.keys()


@pytest.mark.parametrize("length", [1, 3, 17, 40])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_traceable_normalizers(name: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(length)
    scores = torch.randn(5, 2, 3, length) * 2
    scores[0, ..., length // 2 + 1 :] = -np.inf
    scores[1] = scores[1].round()  # ties
    expected = NORMALIZERS[name](scores, 3)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert torch.allclose(TRACEABLE_NORMALIZERS[name](scores, 3), expected, atol=1e-6)


VARIANTS = [
    {
        "attention__score": score,
        "encoder_self_attention__score": score,
        "decoder_self_attention__score": score,
        "attention__normalizer": normalizer,
        "decoder_self_attention__normalizer": normalizer,
        "attention__window": ("global", "local_m", "local_p")[number % 3],
        "attention__window_size": 2,
        "encoder_self_attention__window": ("sliding", "global")[number % 2],
        "decoder_self_attention__window": ("global", "sliding")[number % 2],
        "decoder_self_attention__window_size": 2,
        "encoder_self_attention__window_size": 2,
        "attention__coverage": score in ("additive", "hybrid") and number % 2 == 0,
        "positions": ("sinusoidal", "rotary", "learned")[number % 3],
    }
    for number, (score, normalizer) in enumerate(itertools.product(SCORES, NORMALIZERS))
]


@pytest.mark.parametrize("number", range(len(VARIANTS)))
def test_the_traceable_copy_computes_the_same(number: int, make: Make) -> None:
    translator, _ = make(seed=number, **VARIANTS[number])
    traced = traceable(translator.model)
    sample = verification.sample_sentences(translator, 20)
    ours = verification.log_probs(translator, sample)
    theirs = verification.log_probs(
        Translator(traced, translator.tokenizer, translator.config, translator.device), sample
    )
    assert max(np.abs(our - their).max() for our, their in zip(ours, theirs, strict=True)) < 1e-4
    assert not any(isinstance(module, nn.LSTM) for module in traced.modules())


QUICK: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": (
        "rnn",
        {
            "decoder": "input_feeding",
            "attention__coverage": True,
            "attention__dim": 8,
            "attention__normalizer": "entmax15",
        },
    ),
    "transformer": (
        "transformer",
        {
            "positions": "rotary",
            "attention__score": ["additive", "cosine"],
            "attention__heads": 2,
            "norm": "rms",
            "encoder_layers": 1,
            "decoder_layers": 1,
        },
    ),
}
LONG: dict[str, tuple[str, dict[str, Any]]] = {
    "gru, two layers, two heads": (
        "rnn",
        {
            "cell": "gru",
            "decoder": "luong",
            "encoder_layers": 2,
            "decoder_layers": 2,
            "attention__dim": 8,
            "attention__heads": 2,
            "attention__window": "local_m",
            "attention__window_size": 3,
        },
    ),
    "bahdanau, general, top_k": (
        "rnn",
        {"decoder": "bahdanau", "attention__score": "general", "attention__normalizer": "top_k", "attention__top_k": 2},
    ),
    "no attention": ("rnn", {"attention__score": "none", "bidirectional": False, "bridge": "zero"}),
    "transformer_rnn": ("transformer_rnn", {"decoder": "bahdanau", "attention__score": "location"}),
    "rnn_transformer": (
        "rnn_transformer",
        {"attention__score": "hybrid", "attention__coverage": True, "decoder_self_attention__normalizer": "sparsemax"},
    ),
    "windows": (
        "transformer",
        {
            "positions": "learned",
            "attention__window": "local_p",
            "attention__normalizer": "sparsemax",
            "encoder_self_attention__window": "sliding",
            "encoder_self_attention__window_size": 2,
            "activation": "swiglu",
            "decoder_self_attention__window": "sliding",
            "decoder_self_attention__window_size": 2,
            "norm_position": "post",
        },
    ),
    "transformer without attention to the source": ("transformer", {"attention__score": "none"}),
}


def check_export(make: Make, architecture: str, options: dict[str, Any], folder: Path, sources: list[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from nmt.export import export

    translator, config = make(architecture, kind="bpe", joint=False, tie_embeddings="none", **options)
    result = export(translator, config, "onnx", folder / "out", 100)
    assert result.difference < 1e-4
    manifest = json.loads((folder / "out" / "export.json").read_text())
    assert (manifest["max_source"], manifest["max_target"]) == (
        translator.model.max_source_length,
        translator.model.max_target_length,
    )
    check_attention(translator, folder / "out", sources)
    model = OnnxModel(folder / "out", 1)
    ids = translator.tokenizer.encode_source(sources)
    for beam in (1, 3):
        translator.config = SearchConfig(beam_size=beam, max_length_ratio=1, max_length_offset=5)
        for our, source in zip(translator.translate(sources), ids, strict=True):
            tokens, score = beam_search(model, source, beam, 1.0, len(source) + 5)
            assert score == pytest.approx(our.score, abs=1e-4)
            assert tokens == our.tokens


def check_attention(translator: Translator, folder: Path, sources: list[str]) -> None:
    """Check the attention weights of sentences of different lengths in one batch."""
    model = OnnxModel(folder, 1)
    sample = verification.sample_sentences(translator, 12)
    expected = dict(translator.attention_weights(sample.sources, sample.targets))
    interface = json.loads((folder / "export.json").read_text())["interface"]
    assert bool(expected) == bool(interface["attention"])
    memory, state = model.start(sample.sources)
    previous = [2] * len(sample.sources)
    for position in range(max(map(len, sample.targets))):
        log_probs, weights, state = model.step(previous, memory, state)
        assert log_probs.shape == (len(previous), translator.tokenizer.target_size)
        for row, matrix in expected.items():
            if position < matrix.shape[2]:
                length = matrix.shape[3]
                assert np.abs(weights[row, :, :, 0, :length] - matrix[:, :, position]).max() < 1e-4
                assert not weights[row, :, :, 0, length:].any()
        previous = [target[position] if position < len(target) else 3 for target in sample.targets]
    for spec in interface["memory"]:
        assert len(memory[spec["name"]]) == len(previous)
        assert memory[spec["name"]].dtype == spec["dtype"]
    for spec in interface["state"]:
        sizes = [axis if isinstance(axis, int) else -1 for axis in spec["shape"]]
        actual = state[spec["name"]].shape
        assert [size if known > -1 else -1 for size, known in zip(actual, sizes, strict=True)] == sizes


@pytest.mark.parametrize("name", QUICK)
def test_models_step_by_step(name: str, make: Make, tmp_path: Path, sources: list[str]) -> None:
    check_export(make, *QUICK[name], tmp_path, sources)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_further_models_step_by_step(name: str, make: Make, tmp_path: Path, sources: list[str]) -> None:
    check_export(make, *LONG[name], tmp_path, sources)
