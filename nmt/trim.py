"""python -m nmt.trim: cut a model's vocabulary, with its embeddings and output rows, to what texts need."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nmt import checkpoint
from nmt.cli.compose import run_command
from nmt.cli.configs import Config, TrimConfig
from nmt.data import Tokenizer
from nmt.data.text_files import check_file, read_lines
from nmt.inference.translator import Translator
from nmt.models.flops import build_on_meta


def main(config: TrimConfig, overrides: list[str]) -> None:
    """Write the cut model as a checkpoint, and print its sizes."""
    path, output = checkpoint.resolve(config.checkpoint), Path(config.output)
    if output.exists():
        raise ValueError(f"output={output}: exists already; name another file, or delete it")
    texts = [check_file(Path(name), "") for name in config.text]
    content = checkpoint.load(path)
    model = Config.from_checkpoint(content).model
    translator = Translator.from_checkpoint(content, None, torch.device("cpu"))
    if translator.tokenizer.joint and len(texts) == 1:  # what is left could not write the target language
        raise ValueError(
            f"text={texts[0]}: both languages have one vocabulary, so that a text in the target language is needed "
            "too, such as translations by the whole model: text=[SOURCE,TARGET]"
        )
    tokenizer, kept = _cut_tokenizer(translator.tokenizer, texts)
    state = _cut_state(model, translator, kept)
    content |= {"model": state, "tokenizer": tokenizer.state_dict()}
    for_training = ("optimizer", "plateau", "average")
    checkpoint.save(output, {name: value for name, value in content.items() if name not in for_training})
    for file, t in ((path, translator.tokenizer), (output, tokenizer)):
        entries = f"{t.source_size:,} source and {t.target_size:,} target entries"
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, {entries}")


def _cut_tokenizer(tokenizer: Tokenizer, texts: Sequence[Path]) -> tuple[Tokenizer, list[list[int]]]:
    """Return a tokenizer that encodes these texts as before, and the ids of each side that it has.

    A joint vocabulary is cut to all texts; of two, that of the source to the first text and that of the target to the
    second, or not at all. Raises ValueError for a text without tokens.
    """
    used: list[set[int]] = []
    for path, encode in zip(texts, (tokenizer.encode_source_flat, tokenizer.encode_target_flat), strict=False):
        used.append({index for lines in read_lines(path, Counter()) for index in np.unique(encode(lines)[0]).tolist()})
        if not used[-1]:
            raise ValueError(f"{path}: holds no text: there is nothing to cut the vocabulary to")
    used = [set().union(*used)] if tokenizer.joint else [*used, set(range(tokenizer.target_size))]
    cut = [model.cut(ids) for model, ids in zip((tokenizer.source, tokenizer.target), used, strict=False)]
    states = {side: model.state() for side, (model, _) in zip(("source", "target"), cut, strict=False)}
    return Tokenizer.from_state_dict(tokenizer.state_dict() | states), [cut[0][1], cut[-1][1]]


def _cut_state(config: Any, translator: Translator, kept: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Return the tensors of a model without the rows of other ids than those kept of each side.

    A dimension is one of a vocabulary where a larger vocabulary enlarges it. Tensors stay tied.
    """
    state, joint = translator.model.state_dict(), translator.tokenizer.joint
    sizes = [translator.tokenizer.source_size, translator.tokenizer.target_size]
    shapes, done = {name: tensor.shape for name, tensor in state.items()}, dict[tuple[int, int, int], Tensor]()
    for side in (0,) if joint else (0, 1):
        larger = [size + (joint or number == side) for number, size in enumerate(sizes)]
        enlarged, ids = build_on_meta(config, *larger, joint=joint).state_dict(), torch.tensor(kept[side])
        for name, shape in shapes.items():
            for dim in (dim for dim, size in enumerate(shape) if enlarged[name].shape[dim] != size):
                tensor = state[name]
                state[name] = done.setdefault((tensor.data_ptr(), side, dim), tensor.index_select(dim, ids))
    return state


if __name__ == "__main__":
    run_command(main, TrimConfig, "trim")
