"""Compiled parts: the same numbers, and only in training."""

import functools
import re
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


def run(model: Seq2Seq, lengths: tuple[int, int], size: int = 2) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and gradients for a batch of these lengths, one source shorter than the others."""
    torch.manual_seed(sum(lengths))
    source, inputs = torch.randint(4, 20, (size, lengths[0])), torch.randint(4, 20, (size, lengths[1]))
    mask = torch.ones_like(source, dtype=torch.bool)
    mask[1, lengths[0] // 2 :] = False
    logits, _ = model(source, mask, inputs)
    return logits, list(torch.autograd.grad(logits.square().mean(), list(model.parameters())))


def test_only_training_runs_compiled_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def fake(function: Any, *, dynamic: bool | None) -> Any:
        assert dynamic is (True if function.__name__ == "advance" else None)

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
    monkeypatch.setattr(
        torch, "compile", lambda function, *, dynamic: lambda *a, **k: (calls.append(1), function(*a, **k))[1]
    )
    for config, steps in zip(models("rnn"), (6, 6, 0), strict=True):
        _, compiled = pair(config)
        calls.clear()
        run(compiled, (5, 6))
        assert len(calls) == steps


def test_only_batch_and_lengths_are_dynamic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widths are numbers in every graph, and other sizes of batches and lengths of sentences need no other."""
    graphs: list[tuple[str, ...]] = []

    def backend(module: torch.fx.GraphModule, _: list[Any]) -> Any:
        values = [node.meta["example_value"] for node in module.graph.nodes if node.op == "placeholder"]
        graphs.append(tuple(" ".join(map(str, value.shape)) for value in values if isinstance(value, torch.Tensor)))
        return module.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    plain, compiled = pair(MODELS["transformer"].config(dropout=0.0, d_model=32, ffn_dim=48))
    for lengths in ((27, 29), (35, 24), (31, 36)):  # beyond the shortest ones, which attention treats otherwise
        for size in (2, 5):
            torch.testing.assert_close(run(compiled, lengths, size), run(plain, lengths, size))
    assert len(graphs) == 2  # of an encoder layer and of a decoder layer, whatever their number
    shapes = {re.sub(r"s\d+", "any", shape) for graph in graphs for shape in graph}
    assert {"any any 32", "any any", "any 4 any 8", "48 32"} <= shapes
    assert not any(shape.endswith("any") and shape != "any any" for shape in shapes)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_compiled_and_plain_agree(name: str) -> None:
    for config in models(name):
        plain, compiled = pair(config)
        for lengths in ((7, 9), (5, 4), (11, 6)):  # one compilation serves them all
            torch.testing.assert_close(run(compiled, lengths), run(plain, lengths), rtol=1e-4, atol=1e-5)
