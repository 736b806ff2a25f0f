"""Any model as two ONNX graphs: the encoder, and one step of the decoder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.data.vocabulary import BOS, EOS, PAD
from nmt.export import verification
from nmt.export.quiet import quiet
from nmt.export.scripts.text import TextCodec
from nmt.export.scripts.translate_onnx import OnnxModel
from nmt.export.tracing import traceable
from nmt.inference.translator import Translator
from nmt.models import DecoderState, Seq2Seq

ENCODER, STEP = "encoder.onnx", "step.onnx"
AXES = ("batch", "source", "past")
EXAMPLES = ((3, 7, 5), (4, 11, 6))
"""Two sets of sizes for `AXES`: an axis is free where the shapes of the two differ."""

HOW = (
    f"Run {ENCODER} once, with ids that end with the end token and are filled up with the padding token. "
    f"Then run {STEP} for every token: it takes the token before (the begin token at first), the memory "
    "tensors as they came from the encoder, and the state. The state before the first token comes from the "
    'encoder where "first" says so, and is zeros of the shape given otherwise, past being 0. Each step '
    "gives next.* for state.*. All rows are independent: rows of memory and state may be repeated, "
    "reordered and dropped together, which is what beam search does. Axes named batch, source and past "
    "are free; past is the number of steps so far."
)

Ports = dict[str, dict[str, Any]]
"""Tensors that go into or out of a graph: dtype, and shape with free axes by their names, for each name."""


class _Encoder(nn.Module):
    """Source ids -> memory and state before the first token, those that are named."""

    def __init__(self, model: Seq2Seq, memory: Sequence[str], state: Sequence[str]) -> None:
        super().__init__()
        self.model, self.memory, self.state = model, memory, state

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        memory = self.model.encode(source, source != PAD)
        state = self.model.init_state(memory)
        return tuple([memory[name] for name in self.memory] + [state[name] for name in self.state])


class _Step(nn.Module):
    """The previous token, memory and state -> log-probabilities, weights if any, the next state."""

    def __init__(self, model: Seq2Seq, state: Sequence[str]) -> None:
        super().__init__()
        self.model, self.state = model, state

    def forward(self, token: Tensor, memory: DecoderState, state: DecoderState) -> tuple[Tensor, ...]:
        logits, record, after = self.model.step(token, state, memory, attention=True)
        weights = [] if record is None else [record.cross]
        return (torch.log_softmax(logits.float(), dim=-1), *weights, *(after[name] for name in self.state))


class OnnxRunner(verification.ExportedModel):
    """The exported model, run by onnxruntime."""

    def __init__(self, folder: Path) -> None:
        self.model, self.text = OnnxModel(folder, threads=1), TextCodec(folder, "source")

    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        memory, state = self.model.start(sources)
        padded = [[*target, EOS] + [PAD] * (max(map(len, targets)) - len(target)) for target in targets]
        last, steps = [BOS] * len(targets), []
        for labels in zip(*padded, strict=True):
            log_probs, _, state = self.model.step(last, memory, state)
            steps.append(log_probs[range(len(labels)), labels])
            last = list(labels)
        return [row[: len(target) + 1] for row, target in zip(np.stack(steps, 1), targets, strict=True)]


@torch.no_grad()
def write(translator: Translator, folder: Path) -> dict[str, Any]:
    """Write `ENCODER_SELF` and `STEP` into an existing folder.

    Returns:
        what goes into the graphs and comes out, and how a translation is made of it, for the manifest.
    """
    model = translator.model.cpu().eval()
    (first, example), (_, other) = (_example(model, *sizes) for sizes in EXAMPLES)
    ports = {kind: _ports(tensors, other[kind]) for kind, tensors in example.items()}
    memory, state, attention = ports["memory"], ports["state"], ports["attention"]
    plain = traceable(model)
    used = _export(
        _Step(plain, list(state)),
        {"token": torch.full((EXAMPLES[0][0],), EOS), "memory": example["memory"], "state": example["state"]},
        {"token": {0: "batch"}, "memory": _free(memory), "state": _free(state)},
        ["token", *_prefixed("memory", memory), *_prefixed("state", state)],
        ["log_probs", *attention, *_prefixed("next", state)],
        folder / STEP,
    )
    memory = {name: port for name, port in memory.items() if f"memory.{name}" in used}
    given = [name for name in state if name in first and 0 not in first[name].shape]
    _export(
        _Encoder(plain, list(memory), given),
        {"source": torch.full(EXAMPLES[0][:2], EOS)},
        {"source": {0: "batch", 1: "source"}},
        ["source"],
        [*_prefixed("memory", memory), *_prefixed("state", given)],
        folder / ENCODER,
    )
    axes = ["row", "decoder layer", "head", "one target position", "source position"]
    return {
        "how": HOW,
        "source": {"dtype": "int64", "shape": ["batch", "source"]},
        "token": {"dtype": "int64", "shape": ["batch"]},
        "log_probs": {"dtype": "float32", "shape": ["batch", "target vocabulary"]},
        "attention": attention["attention"] | {"axes": axes} if attention else None,
        "memory": [{"name": f"memory.{name}", **port} for name, port in memory.items()],
        "state": [
            {"name": f"state.{name}", **port, "first": "encoder" if name in given else "zeros", "next": f"next.{name}"}
            for name, port in state.items()
        ],
    }


def _example(model: Seq2Seq, batch: int, source: int, past: int) -> tuple[DecoderState, dict[str, DecoderState]]:
    """Return the first state of a translation, and what the graphs exchange in the middle of it."""
    ids = torch.full((batch, source), EOS)
    memory = model.encode(ids, ids != PAD)
    first = state = model.init_state(memory)
    record = None
    for _ in range(past):
        _, record, state = model.step(ids[:, 0], state, memory, attention=True)
    attention = {} if record is None else {"attention": record.cross}
    return first, {"memory": memory, "state": state, "attention": attention}


def _ports(tensors: DecoderState, others: DecoderState) -> Ports:
    """Describe tensors; an axis where two examples differ is free."""
    names = dict(zip(zip(*EXAMPLES, strict=True), AXES, strict=True))
    return {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": [names.get(sizes, sizes[0]) for sizes in zip(tensor.shape, others[name].shape, strict=True)],
        }
        for name, tensor in tensors.items()
    }


def _free(ports: Ports) -> dict[str, dict[int, str]]:
    return {
        name: {number: axis for number, axis in enumerate(port["shape"]) if isinstance(axis, str)}
        for name, port in ports.items()
    }


def _prefixed(prefix: str, names: Iterable[str]) -> list[str]:
    return [f"{prefix}.{name}" for name in names]


def _export(
    module: nn.Module,
    arguments: dict[str, Any],
    free: dict[str, Any],
    inputs: list[str],
    outputs: list[str],
    path: Path,
) -> set[str]:
    """Write a graph without the inputs that it does not use; return the names of the others.

    Args:
        module: what is traced.
        arguments: examples of its arguments.
        free: for each tensor of `arguments` the names of its free axes by number.
        inputs, outputs: names of all tensors in order.
        path: where to write.
    """
    with quiet():
        program = torch.onnx.export(
            module,
            kwargs=arguments,
            dynamo=True,
            dynamic_shapes=free,
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    program.save(str(path), external_data=False)
    return {str(value.name) for value in graph.inputs}
