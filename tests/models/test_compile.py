"""Compiled parts: the same numbers, and only in training."""

import shutil
from typing import Any

import pytest
import torch

from nmt.models import MODELS, Seq2Seq, build_model
from nmt.runtime.device import compile_modules

DECODERS = ("bahdanau", "input_feeding", "luong")


def models(name: str) -> list[Any]:
    """Configurations of an architecture, small and without dropout."""
    config = MODELS[name].config
    small = {"d_model": 32, "ffn_dim": 48} if name == "transformer" else {"hidden_size": 32}
    if name == "rnn":
        return [config(dropout=0.0, embedding_dim=16, decoder=decoder, **small) for decoder in DECODERS]
    return [config(dropout=0.0, **small)]


def pair(config: Any) -> tuple[Seq2Seq, Seq2Seq]:
    """A model twice, the second with compiled parts."""
    plain, compiled = (build_seeded(config) for _ in range(2))
    compile_modules(compiled)
    return plain, compiled


def build_seeded(config: Any) -> Seq2Seq:
    torch.manual_seed(0)
    return build_model(config, 20, 20, joint=False)


def run(model: Seq2Seq, lengths: tuple[int, int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and gradients for a batch of these lengths, one source shorter than the other."""
    torch.manual_seed(sum(lengths))
    source, inputs = torch.randint(4, 20, (2, lengths[0])), torch.randint(4, 20, (2, lengths[1]))
    mask = torch.ones_like(source, dtype=torch.bool)
    mask[1, lengths[0] // 2 :] = False
    logits, _ = model(source, mask, inputs)
    return logits, list(torch.autograd.grad(logits.square().mean(), list(model.parameters())))


def test_only_training_runs_compiled_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def fake(function: Any) -> Any:
        def compiled(*arguments: Any, **named: Any) -> Any:
            calls.append(type(function.__self__).__name__)
            return function(*arguments, **named)

        return compiled

    monkeypatch.setattr(torch, "compile", fake)
    expected = {
        "transformer": {"EncoderLayer": 2, "DecoderLayer": 2},
        "transformer_rnn": {"EncoderLayer": 2},
        "rnn_transformer": {"DecoderLayer": 2},
    }
    for name, wanted in expected.items():
        plain, compiled = pair(MODELS[name].config(dropout=0.0))
        calls.clear()
        found, wished = run(compiled, (5, 6)), run(plain, (5, 6))
        if name == "transformer_rnn":
            calls[:] = [call for call in calls if call == "EncoderLayer"]
        assert {kind: calls.count(kind) for kind in calls} == wanted
        torch.testing.assert_close(found, wished)
        calls.clear()
        run(compiled.eval(), (5, 6))
        assert not calls
        assert list(compiled.state_dict()) == list(plain.state_dict())


def test_a_recurrent_loop_runs_its_compiled_body_at_each_position(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch, "compile", lambda function: lambda *a, **k: (calls.append(1), function(*a, **k))[1])
    for config, steps in zip(models("rnn"), (6, 6, 0), strict=True):
        _, compiled = pair(config)
        calls.clear()
        run(compiled, (5, 6))
        assert len(calls) == steps


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_compiled_and_plain_agree(name: str) -> None:
    for config in models(name):
        plain, compiled = pair(config)
        for lengths in ((7, 9), (5, 4), (11, 6)):  # one compilation serves them all
            torch.testing.assert_close(run(compiled, lengths), run(plain, lengths), rtol=1e-4, atol=1e-5)
