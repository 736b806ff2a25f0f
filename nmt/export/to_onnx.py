"""Any model as two ONNX graphs: the encoder, and one step of the decoder."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.data.vocabulary import BOS, EOS, PAD
from nmt.export.scripts.text import Text
from nmt.export.scripts.translate_onnx import Model
from nmt.export.tracing import traceable
from nmt.inference.translator import Translator
from nmt.models import Seq2Seq, State

ENCODER, STEP = "encoder.onnx", "step.onnx"
AXES = ("batch", "source", "past")
EXAMPLES = ((3, 7, 5), (4, 11, 6))
"""Two sets of sizes for `AXES`: an axis is where the shapes of the two differ."""


class Port(NamedTuple):
    """A tensor that goes in or out: its name, type, and shape, a free axis by its name."""

    name: str
    dtype: str
    shape: list[int | str]


class Ports(NamedTuple):
    """What the two graphs exchange, in their order.

    memory: from the encoder to every step. state: from step to step. given: those of the state that the encoder gives;
    the others are zeros before the first token. attention: the weights, if the model has any.
    """

    memory: list[Port]
    state: list[Port]
    given: list[str]
    attention: Port | None

    def described(self) -> dict[str, Any]:
        """For the file beside the graphs: what goes in and out, and how a translation is made of it."""
        return {
            "how": (
                f"Run {ENCODER} once, with ids that end with the end token and are filled up with the padding token. "
                f"Then run {STEP} for every token: it takes the token before (the begin token at first), the memory "
                "tensors as they came from the encoder, and the state. The state before the first token comes from the "
                'encoder where "first" says so, and is zeros of the shape given otherwise, past being 0. Each step '
                "gives next.* for state.*. All rows are independent: rows of memory and state may be repeated, "
                "reordered and dropped together, which is what beam search does. Axes named batch, source and past "
                "are free; past is the number of steps so far."
            ),
            "source": {"dtype": "int64", "shape": ["batch", "source"]},
            "token": {"dtype": "int64", "shape": ["batch"]},
            "log_probs": {"dtype": "float32", "shape": ["batch", "target vocabulary"]},
            "attention": None
            if self.attention is None
            else {
                "dtype": self.attention.dtype,
                "shape": self.attention.shape,
                "axes": ["row", "decoder layer", "head", "one target position", "source position"],
            },
            "memory": [port._replace(name=f"memory.{port.name}")._asdict() for port in self.memory],
            "state": [
                port._replace(name=f"state.{port.name}")._asdict()
                | {"first": "encoder" if port.name in self.given else "zeros", "next": f"next.{port.name}"}
                for port in self.state
            ],
        }


class _Encoder(nn.Module):
    """Source ids -> memory and state before the first token, those that are asked for."""

    def __init__(self, model: Seq2Seq, memory: Sequence[str], state: Sequence[str]) -> None:
        super().__init__()
        self.model, self.memory, self.state = model, memory, state

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        memory = self.model.encode(source, source != PAD)
        state = self.model.start(memory)
        return tuple([memory[name] for name in self.memory] + [state[name] for name in self.state])


class _Step(nn.Module):
    """The previous token, memory and state -> log-probabilities, weights if any, the next state."""

    def __init__(self, model: Seq2Seq, state: Sequence[str]) -> None:
        super().__init__()
        self.model, self.state = model, state

    def forward(self, token: Tensor, memory: State, state: State) -> tuple[Tensor, ...]:
        logits, record, after = self.model.step(token, state, memory, attention=True)
        weights = [] if record is None else [record.cross]
        return (torch.log_softmax(logits.float(), dim=-1), *weights, *(after[name] for name in self.state))


class Loaded:
    """What was written, as its own engine reads it."""

    def __init__(self, folder: Path) -> None:
        self.model, self.text = Model(folder, threads=1), Text(folder, "source")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without end token."""
        return [self.text.encode(text) for text in texts]

    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        """Log-probabilities of every target's tokens and its end token, all sentences in one batch."""
        memory, state = self.model.start(sources)
        padded = [[*target, EOS] + [PAD] * (max(map(len, targets)) - len(target)) for target in targets]
        last, found = [BOS] * len(targets), []
        for labels in zip(*padded, strict=True):
            log_probs, _, state = self.model.step(last, memory, state)
            found.append(log_probs[range(len(labels)), labels])
            last = list(labels)
        return [row[: len(target) + 1] for row, target in zip(np.stack(found, 1), targets, strict=True)]


class _Example(NamedTuple):
    source: Tensor
    memory: State
    start: State
    state: State
    attention: Tensor | None


@torch.no_grad()
def write(translator: Translator, folder: Path) -> Ports:
    """Writes `ENCODER` and `STEP` into a folder that exists; returns what they exchange."""
    model = translator.model.cpu().eval()
    first, second = (_example(model, *sizes) for sizes in EXAMPLES)
    form = traceable(model)
    memory, state = _ports(first.memory, second.memory), _ports(first.state, second.state)
    weights = None
    if first.attention is not None and second.attention is not None:
        weights = _ports({"attention": first.attention}, {"attention": second.attention})[0]
    names = [f"memory.{port.name}" for port in memory], [f"state.{port.name}" for port in state]
    outputs = ["log_probs", *(["attention"] if weights else []), *(f"next.{port.name}" for port in state)]
    used = _export(
        _Step(form, [port.name for port in state]),
        {
            "token": (torch.full((EXAMPLES[0][0],), EOS), {0: "batch"}),
            "memory": ({port.name: first.memory[port.name] for port in memory}, _free(memory)),
            "state": ({port.name: first.state[port.name] for port in state}, _free(state)),
        },
        ["token", *names[0], *names[1]],
        outputs,
        folder / STEP,
    )
    memory = [port for port in memory if f"memory.{port.name}" in used]
    given = [port for port in state if port.name in first.start and 0 not in first.start[port.name].shape]
    _export(
        _Encoder(form, [port.name for port in memory], [port.name for port in given]),
        {"source": (first.source, {0: "batch", 1: "source"})},
        ["source"],
        [f"memory.{port.name}" for port in memory] + [f"state.{port.name}" for port in given],
        folder / ENCODER,
    )
    return Ports(memory, state, [port.name for port in given], weights)


def _example(model: Seq2Seq, batch: int, source: int, past: int) -> _Example:
    """What the two graphs would see in the middle of a translation."""
    ids = torch.full((batch, source), EOS)
    memory = model.encode(ids, ids != PAD)
    start = model.start(memory)
    state, record = start, None
    for _ in range(past):
        _, record, state = model.step(ids[:, 0], state, memory, attention=True)
    return _Example(ids, memory, start, state, None if record is None else record.cross)


def _ports(first: State, second: State) -> list[Port]:
    """The tensors' names and shapes, an axis where two examples differ being free."""
    return [
        Port(name, str(tensor.dtype).removeprefix("torch."), _shape(tensor, second[name]))
        for name, tensor in first.items()
    ]


def _shape(first: Tensor, second: Tensor) -> list[int | str]:
    names = dict(zip(zip(*EXAMPLES, strict=True), AXES, strict=True))
    return [one if one == other else names[one, other] for one, other in zip(first.shape, second.shape, strict=True)]


def _free(ports: list[Port]) -> dict[str, dict[int, str]]:
    return {
        port.name: {number: axis for number, axis in enumerate(port.shape) if isinstance(axis, str)} for port in ports
    }


def _export(
    module: nn.Module, arguments: dict[str, tuple[Any, Any]], inputs: list[str], outputs: list[str], path: Path
) -> set[str]:
    """Writes a graph; returns the names of the inputs that it uses, and drops the others.

    Args:
        module: what is recorded.
        arguments: its arguments, each with the names of its free axes by number.
        inputs, outputs: names of all tensors in their order.
        path: where to.
    """
    axes = {axis: torch.export.Dim(axis) for axis in AXES}

    def named(tree: dict[Any, Any]) -> dict[Any, Any]:
        return {key: axes[value] if isinstance(value, str) else named(value) for key, value in tree.items()}

    with _quiet():
        program = torch.onnx.export(
            module,
            kwargs={name: example for name, (example, _) in arguments.items()},
            dynamo=True,
            dynamic_shapes={name: named(free) for name, (_, free) in arguments.items()},
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    used = {value.name for value in graph.inputs}
    program.save(str(path), external_data=False)
    return {str(name) for name in used}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
