"""Translate standard input, one sentence a line: python translate.py [--beam N] < source.txt > target.txt

Requires numpy and onnxruntime, and sentencepiece for subwords. `OnnxModel` is an example of running the two graphs.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PAD, BOS, EOS = 0, 2, 3
Tensors = dict[str, Any]
"""Arrays by name, each with its batch first."""


class OnnxModel:
    """encoder.onnx and step.onnx of a folder, run as export.json describes them."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers = onnxruntime.get_available_providers()
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=providers)
            for name in ("encoder.onnx", "step.onnx")
        )
        self.interface = json.loads((folder / "export.json").read_text(encoding="utf-8"))["interface"]

    def start(self, sources: Sequence[Sequence[int]]) -> tuple[Tensors, Tensors]:
        """Encode ids without end token -> memory, constant for all steps, and the state before the first token."""
        max_length = max(map(len, sources)) + 1
        source = np.full((len(sources), max_length), PAD, np.int64)
        for row, ids in enumerate(sources):
            source[row, : len(ids) + 1] = [*ids, EOS]
        memory = self._run(self.encoder, {"source": source})
        sizes = {"batch": len(sources), "source": max_length, "past": 0}
        state = {}
        for spec in self.interface["state"]:
            shape = [sizes.get(axis, axis) for axis in spec["shape"]]
            state[spec["name"]] = memory.pop(spec["name"], np.zeros(shape, spec["dtype"]))
        return memory, state

    def step(self, tokens: Sequence[int], memory: Tensors, state: Tensors) -> tuple[Any, Any, Tensors]:
        """Decode one step: previous tokens (B,) -> log-probabilities (B, V), weights (B, L, H, 1, S) or None, state."""
        outputs = self._run(self.decoder, {"token": np.array(tokens, np.int64), **memory, **state})
        next_state = {name: outputs["next." + name.removeprefix("state.")] for name in state}
        return outputs["log_probs"], outputs.get("attention"), next_state

    @staticmethod
    def _run(session: Any, tensors: Tensors) -> Tensors:
        outputs = session.run(None, {port.name: tensors[port.name] for port in session.get_inputs()})
        return {port.name: output for port, output in zip(session.get_outputs(), outputs, strict=True)}


def select_rows(tensors: Tensors, indices: Sequence[int]) -> Tensors:
    """Return some rows of every tensor."""
    return {name: tensor[list(indices)] for name, tensor in tensors.items()}


def beam_search(
    model: OnnxModel,
    source: Sequence[int],
    beam_size: int,
    length_penalty: float,
    max_length: int,
    prefix: Sequence[int] = (),
    tags: Sequence[int] = (),
) -> tuple[list[int], float]:
    """Return the best translation's ids and its score, log p / length^length_penalty; greedy with beam size 1.

    Source, result and `max_length` are without end token, which `length` includes; the result begins with `prefix`, and
    has no ids of `tags` after it.
    """
    memory, state = model.start([source])
    hypotheses: list[tuple[list[int], float]] = [([], 0.0)]
    best: tuple[list[int], float] = ([], -math.inf)
    for length in range(1, max_length + 2):
        previous = [tokens[-1] if tokens else BOS for tokens, _ in hypotheses]
        log_probs, _, state = model.step(previous, select_rows(memory, [0] * len(previous)), state)
        log_probs[:, [PAD, BOS]] = -np.inf
        if length == max_length + 1:
            log_probs[:, np.arange(log_probs.shape[1]) != EOS] = -np.inf
        if length <= len(prefix):
            log_probs[:, np.arange(log_probs.shape[1]) != prefix[length - 1]] = -np.inf
        else:
            log_probs[:, list(tags)] = -np.inf
        total = (np.array([log_prob for _, log_prob in hypotheses])[:, None] + log_probs).ravel()
        candidates = np.argsort(-total, kind="stable")[: 2 * beam_size if beam_size > 1 else 1]
        grown: list[tuple[list[int], float]] = []
        parents: list[int] = []
        for candidate in candidates.tolist():
            parent, token = divmod(candidate, log_probs.shape[1])
            log_prob = float(total[candidate])
            if token == EOS:
                best = max(best, (hypotheses[parent][0], log_prob / length**length_penalty), key=lambda pair: pair[1])
            elif log_prob > -math.inf and len(grown) < beam_size:
                grown.append(([*hypotheses[parent][0], token], log_prob))
                parents.append(parent)
        # log-probabilities only decrease: no longer hypothesis can score higher
        bound = max((log_prob for _, log_prob in grown), default=-math.inf) / (max_length + 1) ** length_penalty
        if best[1] >= bound:
            break
        hypotheses, state = grown, select_rows(state, parents)
    return best


def main() -> None:
    """Read, translate and write line by line."""
    from text import TextCodec, add_tag_options, max_tokens, translate_lines

    folder = Path(__file__).parent
    manifest = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    search = manifest["search"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beam", type=int, default=search["beam_size"])
    parser.add_argument("--threads", type=int, default=0)
    add_tag_options(parser, manifest)
    options = parser.parse_args()
    model = OnnxModel(folder, options.threads)
    source, target = (TextCodec(folder, side, options.target_lang, options.tag) for side in ("source", "target"))

    def translate(sources: list[list[int]]) -> list[str]:
        (ids,) = sources
        limits = search["length_penalty"], max_tokens(manifest, len(ids))
        tokens, _ = beam_search(model, ids, options.beam, *limits, target.prefix, target.tags)
        return [target.decode(tokens)]

    translate_lines(source.encode, translate, manifest["max_source"], 1)


if __name__ == "__main__":
    main()
