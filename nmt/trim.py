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
from nmt.models.flops import build_on_meta
from nmt.models.loading import check_model

ONLY_FOR_TRAINING = ("optimizer", "plateau", "average")


def main(config: TrimConfig, overrides: list[str]) -> None:
    """Write the cut model as a checkpoint, and print its sizes."""
    path, output = checkpoint.resolve(config.checkpoint), Path(config.output)
    if output.exists():
        raise ValueError(f"output={output}: exists already; name another file, or delete it")
    texts = [check_file(Path(name), "") for name in (config.text if isinstance(config.text, list) else [config.text])]
    content = checkpoint.load(path)
    model = Config.from_checkpoint(content).model
    with checkpoint.interpreting(content):
        tokenizer = Tokenizer.from_state_dict(content["tokenizer"])
        sizes = tokenizer.source_size, tokenizer.target_size
        check_model(model, content["model"], *sizes, joint=tokenizer.joint)
    smaller, kept = _cut_tokenizer(tokenizer, texts)
    state = _cut_state(model, content["model"], tokenizer, kept)
    content = {name: value for name, value in content.items() if name not in ONLY_FOR_TRAINING}
    checkpoint.save(output, {**content, "model": state, "tokenizer": smaller.state_dict()})
    for side, before, ids in zip(("source", "target"), sizes, kept, strict=True):
        print(f"{side} vocabulary: {before:,} entries before, {len(ids):,} now")
    before, now = (
        sum({t.data_ptr(): t.numel() for t in tensors.values()}.values()) for tensors in (content["model"], state)
    )
    megabytes = [file.stat().st_size / 1e6 for file in (path, output)]
    print(f"parameters: {before:,} before, {now:,} now")
    print(f"{output}: {megabytes[1]:.1f} MB, {path}: {megabytes[0]:.1f} MB")


def _cut_tokenizer(tokenizer: Tokenizer, texts: Sequence[Path]) -> tuple[Tokenizer, list[list[int]]]:
    """Return a tokenizer that encodes these texts as before, and the ids of each side that it has.

    A joint vocabulary is cut to all texts; of two, that of the source to the first text and that of the target to the
    second, or not at all. Raises ValueError for a text without tokens.
    """
    used: list[set[int]] = []
    for number, path in enumerate(texts):
        encode = (tokenizer.encode_source_flat, tokenizer.encode_target_flat)[number]
        used.append({index for lines in read_lines(path, Counter()) for index in np.unique(encode(lines)[0]).tolist()})
        if not used[-1]:
            raise ValueError(f"{path}: holds no text: there is nothing to cut the vocabulary to")
    if tokenizer.joint:
        used = [set().union(*used)]
    elif len(used) == 1:
        used.append(set(range(tokenizer.target_size)))
    sides = (tokenizer.source, tokenizer.target)
    models, kept = zip(*(side.cut(ids) for side, ids in zip(sides, used, strict=False)), strict=True)
    sampling, lowercase = tokenizer.subword_regularization, tokenizer.lowercase
    smaller = Tokenizer(tokenizer.type, models[0], models[-1], sampling=sampling, lowercase=lowercase)
    smaller.files = tokenizer.files
    return smaller, [kept[0], kept[-1]]


def _cut_state(
    config: Any, state: dict[str, Tensor], tokenizer: Tokenizer, kept: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Return the tensors of a model without the rows of other ids. A dimension is one of a vocabulary where a larger
    vocabulary would enlarge it; tensors that share memory do so afterwards."""
    sizes, joint = (tokenizer.source_size, tokenizer.target_size), tokenizer.joint
    shapes = [tensor.shape for tensor in state.values()]
    done: dict[tuple[int, ...], Tensor] = {}
    for side in (0,) if joint else (0, 1):
        larger = [size + (joint or number == side) for number, size in enumerate(sizes)]
        enlarged = build_on_meta(config, *larger, joint=joint).state_dict()
        ids = torch.tensor(kept[side])
        for (name, tensor), shape in zip(state.items(), shapes, strict=True):
            for dim in range(len(shape)):
                if enlarged[name].shape[dim] != shape[dim]:
                    key = tensor.data_ptr(), side, dim
                    state = {**state, name: done.setdefault(key, tensor.index_select(dim, ids))}
    return state


if __name__ == "__main__":
    run_command(main, TrimConfig, "trim")
