"""Translate standard input, one sentence a line: python translate.py [--beam N] < source.txt > target.txt

Needs numpy and onnxruntime, and for subwords sentencepiece. `Model` is the whole of what the two graphs can do, as an
example for other languages and machines.
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
    """encoder.onnx and step.onnx of a folder, called as export.json describes them."""

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
        """Ids without end token -> memory, which stays, and the state before the first token."""
        longest = max(map(len, sources)) + 1
        source = np.full((len(sources), longest), PAD, np.int64)
        for row, ids in enumerate(sources):
            source[row, : len(ids) + 1] = [*ids, EOS]
        memory = self._run(self.encoder, {"source": source})
        sizes = {"batch": len(sources), "source": longest, "past": 0}
        state = {}
        for port in self.interface["state"]:
            shape = [sizes.get(axis, axis) for axis in port["shape"]]
            state[port["name"]] = memory.pop(port["name"], np.zeros(shape, port["dtype"]))
        return memory, state

    def step(self, tokens: Sequence[int], memory: Tensors, state: Tensors) -> tuple[Any, Any, Tensors]:
        """Previous tokens (B,) -> log-probabilities of the next (B, V), weights (B, L, H, 1, S) or None, next state."""
        outputs = self._run(self.decoder, {"token": np.array(tokens, np.int64), **memory, **state})
        after = {name: outputs["next." + name.removeprefix("state.")] for name in state}
        return outputs["log_probs"], outputs.get("attention"), after

    @staticmethod
    def _run(session: Any, tensors: Tensors) -> Tensors:
        outputs = session.run(None, {port.name: tensors[port.name] for port in session.get_inputs()})
        return {port.name: output for port, output in zip(session.get_outputs(), outputs, strict=True)}


def rows(tensors: Tensors, chosen: Sequence[int]) -> Tensors:
    """Return some rows of every tensor."""
    return {name: tensor[list(chosen)] for name, tensor in tensors.items()}


def beam_search(
    model: OnnxModel, source: Sequence[int], beam: int, length_penalty: float, longest: int
) -> tuple[list[int], float]:
    """Return the best translation's ids and its score, log p / length^length_penalty; greedy with beam 1.

    Args:
        model: see `Model`.
        source: ids without end token.
        beam: hypotheses kept at every step.
        length_penalty: 1 is the mean log-probability of a token, end token counted.
        longest: tokens before the end token at most.
    """
    memory, state = model.start([source])
    hypotheses: list[tuple[list[int], float]] = [([], 0.0)]
    best: tuple[list[int], float] | None = None
    for length in range(1, longest + 2):
        last = [tokens[-1] if tokens else BOS for tokens, _ in hypotheses]
        log_probs, _, state = model.step(last, rows(memory, [0] * len(last)), state)
        log_probs[:, [PAD, BOS]] = -np.inf
        if length == longest + 1:
            log_probs[:, np.arange(log_probs.shape[1]) != EOS] = -np.inf
        total = (np.array([log_prob for _, log_prob in hypotheses])[:, None] + log_probs).ravel()
        candidates = np.argsort(-total, kind="stable")[: 2 * beam if beam > 1 else 1]
        grown: list[tuple[list[int], float]] = []
        parents: list[int] = []
        for candidate in candidates.tolist():
            parent, token = divmod(candidate, log_probs.shape[1])
            log_prob = float(total[candidate])
            if token == EOS and log_prob > -math.inf:
                score = log_prob / length**length_penalty
                best = (hypotheses[parent][0], score) if best is None or score > best[1] else best
            elif token != EOS and log_prob > -math.inf and len(grown) < beam:
                grown.append(([*hypotheses[parent][0], token], log_prob))
                parents.append(parent)
        # log-probabilities only fall: no longer hypothesis can score above this
        bound = max((log_prob for _, log_prob in grown), default=-math.inf) / (longest + 1) ** length_penalty
        if best is not None and (beam == 1 or best[1] >= bound):
            break
        hypotheses, state = grown, rows(state, parents)
    assert best is not None
    return best


def main() -> None:
    """Read, translate and write line by line."""
    folder = Path(__file__).parent
    from text import TextCodec, max_tokens, translate_lines

    manifest = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    search = manifest["search"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beam", type=int, default=search["beam_size"])
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    model, source, target = OnnxModel(folder, options.threads), TextCodec(folder, "source"), TextCodec(folder, "target")

    def translate(sources: list[list[int]]) -> list[str]:
        (ids,) = sources
        longest = max_tokens(manifest, len(ids))
        tokens, _ = beam_search(model, ids, options.beam, search["length_penalty"], longest)
        return [target.decode(tokens)]

    translate_lines(source.encode, translate, manifest["max_source"], 1)


if __name__ == "__main__":
    main()
