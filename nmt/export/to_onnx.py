"""Export of any model as two ONNX graphs: the encoder, and one step of the decoder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.data.vocabulary import BOS, EOS, PAD
from nmt.export import output_folder, vocabularies
from nmt.export.quiet import quiet
from nmt.export.scripts.translate_onnx import OnnxModel
from nmt.export.tracing import traceable
from nmt.export.verification import ExportedModel
from nmt.inference.translator import Translator
from nmt.models import DecoderState, Seq2Seq
from nmt.plugins import LOADED
from nmt.runtime.errors import error_message

ENCODER_FILE, STEP_FILE = "encoder.onnx", "step.onnx"
AXES = ("batch", "source", "past")
EXAMPLE_SIZES = ((3, 7, 5), (4, 11, 6))
"""Two sets of sizes for `AXES`: an axis is free where the shapes of the two differ."""

INSTRUCTIONS = (
    f"Run {ENCODER_FILE} once, with ids that end with the end token and are filled up with the padding token. "
    f"Then run {STEP_FILE} for every token: it takes the previous token (the begin token at first), the memory tensors "
    "as they came from the encoder, and the state. The state before the first token comes from the encoder where "
    '"first" says so; otherwise it is zeros of the given shape, past being 0. Each step returns next.* for state.*. '
    "All rows are independent: rows of memory and state may be repeated, reordered and dropped together, as beam "
    "search does. Axes named batch, source and past are free; past is the number of steps so far."
)

TensorSpecs = dict[str, dict[str, Any]]
"""For each tensor of a graph's interface its dtype, and its shape with the names of free axes."""


class _Encoder(nn.Module):
    """Source ids -> memory and the state before the first token, by these names."""

    def __init__(self, model: Seq2Seq, memory: Sequence[str], state: Sequence[str]) -> None:
        super().__init__()
        self.model, self.memory, self.state = model, memory, state

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        memory = self.model.encode(source, source != PAD)
        state = self.model.init_state(memory)
        return (*(memory[name] for name in self.memory), *(state[name] for name in self.state))


class _Step(nn.Module):
    """The previous token, memory and state -> log-probabilities, attention weights if any, the next state."""

    def __init__(self, model: Seq2Seq, state: Sequence[str]) -> None:
        super().__init__()
        self.model, self.state = model, state

    def forward(self, token: Tensor, memory: DecoderState, state: DecoderState) -> tuple[Tensor, ...]:
        logits, attention, next_state = self.model.step(token, state, memory, attention=True)
        weights = [] if attention is None else [attention.cross]
        return (torch.log_softmax(logits.float(), dim=-1), *weights, *(next_state[name] for name in self.state))


class OnnxRunner(ExportedModel):
    """The exported model, run by onnxruntime."""

    def __init__(self, folder: Path) -> None:
        self.model, self.folder = OnnxModel(folder, threads=1), folder

    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        memory, state = self.model.start(sources)
        padded = [[*target, EOS] + [PAD] * (max(map(len, targets)) - len(target)) for target in targets]
        previous, steps = [BOS] * len(targets), []
        for labels in zip(*padded, strict=True):
            log_probs, _, state = self.model.step(previous, memory, state)
            steps.append(log_probs[range(len(labels)), labels])
            previous = list(labels)
        return [row[: len(target) + 1] for row, target in zip(np.stack(steps, 1), targets, strict=True)]


@torch.no_grad()
def write(translator: Translator, folder: Path, manifest: dict[str, Any]) -> OnnxRunner:
    """Write `ENCODER_FILE`, `STEP_FILE` and the vocabularies into an existing folder, and load them.

    The interface of the graphs, and how to translate with them, is added to the manifest.
    """
    vocabularies.write_vocabularies(translator.tokenizer, folder)
    model = translator.model.cpu().eval()
    (first, example), (_, second) = (_example(model, *sizes) for sizes in EXAMPLE_SIZES)
    specs = {kind: _specs(tensors, second[kind]) for kind, tensors in example.items()}
    memory, state, attention = specs["memory"], specs["state"], specs["attention"]
    traced = traceable(model)
    used_inputs = _export(
        folder / STEP_FILE,
        _Step(traced, list(state)),
        {"token": torch.full((EXAMPLE_SIZES[0][0],), EOS), "memory": example["memory"], "state": example["state"]},
        dynamic_shapes={"token": {0: "batch"}, "memory": _free_axes(memory), "state": _free_axes(state)},
        input_names=["token", *_prefixed("memory", memory), *_prefixed("state", state)],
        output_names=["log_probs", *attention, *_prefixed("next", state)],
    )
    memory = {name: spec for name, spec in memory.items() if f"memory.{name}" in used_inputs}
    from_encoder = [name for name in state if name in first and 0 not in first[name].shape]
    _export(
        folder / ENCODER_FILE,
        _Encoder(traced, list(memory), from_encoder),
        {"source": torch.full(EXAMPLE_SIZES[0][:2], EOS)},
        dynamic_shapes={"source": {0: "batch", 1: "source"}},
        input_names=["source"],
        output_names=[*_prefixed("memory", memory), *_prefixed("state", from_encoder)],
    )
    axes = ["row", "decoder layer", "head", "one target position", "source position"]
    manifest["interface"] = {
        "how": INSTRUCTIONS,
        "source": {"dtype": "int64", "shape": ["batch", "source"]},
        "token": {"dtype": "int64", "shape": ["batch"]},
        "log_probs": {"dtype": "float32", "shape": ["batch", "target vocabulary"]},
        "attention": attention["attention"] | {"axes": axes} if attention else None,
        "memory": [{"name": f"memory.{name}", **spec} for name, spec in memory.items()],
        "state": [
            {"name": f"state.{name}", **spec, "first": "encoder" if name in from_encoder else "zeros"}
            | {"next": f"next.{name}"}
            for name, spec in state.items()
        ],
    }
    output_folder.write_manifest(folder, manifest)
    return OnnxRunner(folder)


def _example(model: Seq2Seq, batch: int, source: int, past: int) -> tuple[DecoderState, dict[str, DecoderState]]:
    """Return the first state of a translation, and the tensors of the graphs' interface after `past` steps."""
    ids = torch.full((batch, source), EOS)
    memory = model.encode(ids, ids != PAD)
    first = state = model.init_state(memory)
    weights = None
    for _ in range(past):
        _, weights, state = model.step(ids[:, 0], state, memory, attention=True)
    return first, {"memory": memory, "state": state, "attention": {"attention": weights.cross} if weights else {}}


def _specs(tensors: DecoderState, second: DecoderState) -> TensorSpecs:
    """Describe tensors; an axis where the two examples differ is free."""
    axis_names = dict(zip(zip(*EXAMPLE_SIZES, strict=True), AXES, strict=True))
    return {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": [axis_names.get(sizes, sizes[0]) for sizes in zip(tensor.shape, second[name].shape, strict=True)],
        }
        for name, tensor in tensors.items()
    }


def _free_axes(specs: TensorSpecs) -> dict[str, dict[int, str]]:
    shapes = {name: enumerate(spec["shape"]) for name, spec in specs.items()}
    return {name: {number: axis for number, axis in shape if axis in AXES} for name, shape in shapes.items()}


def _prefixed(prefix: str, names: Iterable[str]) -> list[str]:
    return [f"{prefix}.{name}" for name in names]


def _export(path: Path, module: nn.Module, example: dict[str, Any], **options: Any) -> set[str]:
    """Write the graph of a module without its unused inputs; return the names of the used ones."""
    try:
        with quiet():
            program = torch.onnx.export(module, kwargs=example, dynamo=True, verbose=False, **options)
    except Exception as error:
        if not LOADED:
            raise
        raise ValueError(f"format=onnx: its computation cannot be traced ({error_message(error)[:200]})") from error
    assert program is not None
    graph = program.model.graph
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    program.save(str(path), external_data=False)
    return {str(value.name) for value in graph.inputs}
