"""Where memory runs out, batches are computed in halves: the results are the same, and one line says so."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nmt.data import Tokenizer, TokenizerConfig, collate
from nmt.evaluation.attention_diagnostics import head_importance
from nmt.evaluation.metrics import MetricsConfig
from nmt.inference.translator import Translator
from nmt.models import build_model
from nmt.models.transformer import TransformerConfig
from nmt.runtime.memory import OutOfMemoryError, halve_on_oom, is_oom_error
from nmt.search import SearchConfig
from nmt.training.validation import Validator

TEXTS = [
    f"the {animal} {verb} the {other}" for animal in ("dog", "cat") for verb in ("sees", "likes") for other in "ab"
]
PAIRS = [(text, text[4:]) for text in TEXTS]


@pytest.fixture
def translator() -> Translator:
    tokenizer = Tokenizer.train(TokenizerConfig(type="word", vocab_size=100), PAIRS * 3)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_model": 8, "ffn_dim": 8}
    model = build_model(TransformerConfig(**sizes), tokenizer.source_size, tokenizer.target_size, joint=True).eval()
    return Translator(model, tokenizer, SearchConfig(beam_size=2, max_length_offset=2), torch.device("cpu"))


def limit(translator: Translator, monkeypatch: pytest.MonkeyPatch, rows: int, *, real_rows: bool = False) -> None:
    """Let the encoder run out of memory on more rows."""
    encode = translator.model.encode

    def encode_few(source: torch.Tensor, mask: torch.Tensor) -> Any:
        num = len(source.unique(dim=0)) if real_rows else len(source)  # a search adds copies to small batches
        if num > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return encode(source, mask)

    monkeypatch.setattr(translator.model, "encode", encode_few)


@pytest.fixture
def num_warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    logging.getLogger("nmt").propagate = True
    caplog.set_level("WARNING")
    return lambda: sum("computed in two halves" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("method", ["beam", "sample"])
def test_translations(
    translator: Translator, method: str, num_warnings: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator.config.method, translator.config.n_best = method, 2
    whole = translator.n_best(TEXTS)
    limit(translator, monkeypatch, 3, real_rows=True)
    assert translator.n_best(TEXTS) == whole
    assert num_warnings() == 3  # 8 into 4 and 4, each into 2 and 2
    limit(translator, monkeypatch, 0, real_rows=True)
    with pytest.raises(OutOfMemoryError, match=r"on one of the sentences alone \(CUDA out of memory.* GiB\): lower"):
        translator.n_best(TEXTS)


def test_attention_and_importance(
    translator: Translator, num_warnings: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = translator.encode_pairs(PAIRS)
    whole, importance = dict(translator.attention_weights(*ids)), head_importance(translator, PAIRS)
    limit(translator, monkeypatch, 5)
    split = dict(translator.attention_weights(*ids))
    assert num_warnings() == 1
    assert split.keys() == whole.keys() == set(range(8))
    for index, weights in whole.items():
        np.testing.assert_allclose(split[index], weights, atol=1e-6)
    np.testing.assert_allclose(head_importance(translator, PAIRS), importance, atol=1e-5)
    assert num_warnings() > 2


def test_validation(translator: Translator, num_warnings: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    batches: Any = SimpleNamespace(epoch=lambda _: [collate(*translator.encode_pairs(PAIRS))])
    validator = Validator(translator, batches, [], None, MetricsConfig())
    whole = validator.loss(translator.model, "fp32")
    limit(translator, monkeypatch, 3)
    assert validator.loss(translator.model, "fp32") == pytest.approx(whole, rel=1e-6)
    assert num_warnings() == 3


def test_other_errors_pass_through_and_the_last_piece_names_the_remedy() -> None:
    def fails(_: Any) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        halve_on_oom(fails, [1, 2], what="things", remedy="")
    assert is_oom_error(OutOfMemoryError("out of memory on one"))  # which the server answers with its own sentence
    assert not is_oom_error(ValueError("out of memory on one"))
