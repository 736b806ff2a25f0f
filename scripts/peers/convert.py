"""Write a Transformer of ours in the forms of other programs, and its test set in subwords.

    python scripts/peers/convert.py RUN DIR [PREFIX]

writes into DIR/decode model.npz and vocab.yml (Marian), best.ckpt, config.yaml and vocab.txt (JoeyNMT), ctranslate2 (by
nmt.export), and the run's test set, or PREFIX.<language>, as source.sp and reference.txt. Eole 0.6.4 is left out: its
decoder normalizes before each sublayer only. What a form lacks is folded into what it has, so the function stays the
same, but for Marian's sinusoids: from one dimension to the next their angles fall by 10000^(1/(D/2 - 1)), ours by
10000^(2/D).
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from nmt import checkpoint
from nmt.attention import AttentionLayer
from nmt.cli.configs import Config
from nmt.data import BOS, EOS, PAD, UNK, DataConfig, Tokenizer
from nmt.data.corpus import train_or_load_tokenizer
from nmt.data.sources import read_pairs
from nmt.export import export, vocabularies
from nmt.export.attention_folding import Linear, cross_attention, self_attention
from nmt.export.formats import ensure_supported
from nmt.inference.translator import Translator
from nmt.models.layers import sinusoidal_embedding
from nmt.runtime.errors import report_errors

NEEDED = "norm=layer norm_position=post positions=sinusoidal activation=relu tie_embeddings=all"
SPECIAL_IDS = {"marian": [EOS, UNK, PAD, BOS], "joeynmt": [UNK, PAD, BOS, EOS]}
MAX_LENGTH = 5000
"""Rows of the tables of positions."""
JOEYNMT_MODULES = {
    "encoder self": ("src_src_att", "layer_norm"),
    "decoder self": ("trg_trg_att", "x_layer_norm"),
    "decoder context": ("src_trg_att", "dec_layer_norm"),
}


def ensure_convertible(config: Config, model: nn.Module) -> None:
    """Raise ValueError naming the options of a model that the other programs cannot hold."""
    options = {"architecture": "transformer"} | dict(option.split("=") for option in NEEDED.split())
    values = {name: getattr(config.model, name, None) for name in options}
    wrong = [f"model.{name}={values[name]} (needed: {need})" for name, need in options.items() if values[name] != need]
    if config.data.tokenizer.type not in ("bpe", "unigram"):
        wrong.append(f"data.tokenizer.type={config.data.tokenizer.type} (needed: bpe or unigram)")
    if len({module.heads for module in model.modules() if isinstance(module, AttentionLayer)}) > 1:
        wrong.append("attentions that differ in heads (needed: the same number everywhere)")
    if wrong:
        raise ValueError(f"the other programs cannot hold this model: {', '.join(wrong)}; choose another run")
    ensure_supported(config, "ctranslate2")


def permutation(program: str, size: int) -> list[int]:
    """Return our id for each of the program's: the special ones first, in its order."""
    return [*SPECIAL_IDS[program], *range(len(SPECIAL_IDS[program]), size)]


def sublayers(model: Any) -> Iterator[tuple[str, int, str, dict[str, Linear], nn.LayerNorm]]:
    """Yield side, layer, kind (self, context, ffn), linear layers (q, k, v, o or 1, 2) and norm of each sublayer."""
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        for number, layer in enumerate(stack.layers):
            own = self_attention(layer.attention, stack.dim)
            yield side, number, "self", dict(zip("qkvo", own, strict=True)), layer.attended.norm
            if side == "decoder":
                cross = cross_attention(layer, stack.dim)
                yield side, number, "context", dict(zip("qkvo", cross, strict=True)), layer.crossed.norm
            parts = {"1": layer.feed_forward.inner.state_dict(), "2": layer.feed_forward.outer.state_dict()}
            yield side, number, "ffn", parts, layer.fed.norm


def marian_arrays(model: Any) -> dict[str, Tensor]:
    """Return Marian's arrays: matrices (in, out), vectors (1, any), Wemb (V, D).

    Marian reads zeros where ours reads the embedding b of BOS. So b is subtracted from every embedding, which changes
    all logits of a position alike; and the first layers add √D b to the input of their projections and to their sum.
    """
    weight = model.target_embedding.weight
    ids, shift = permutation("marian", len(weight)), weight[BOS] * weight.size(1) ** 0.5
    arrays = {"Wemb": (weight - weight[BOS])[ids], "decoder_ff_logit_out_b": model.output.bias[None, ids]}
    for side, number, kind, linears, norm in sublayers(model):
        name = f"{side}_l{number + 1}_{kind}"
        for suffix, linear in linears.items():
            matrix, bias = linear["weight"], linear["bias"]
            if kind == "self" and number == 0:
                bias = bias + (shift if suffix == "o" else matrix @ shift)
            arrays |= {f"{name}_W{suffix}": matrix.T, f"{name}_b{suffix}": bias[None]}
        prefix = f"{name}_{'ffn' if kind == 'ffn' else 'Wo'}_ln"
        arrays |= {f"{prefix}_scale": norm.weight[None], f"{prefix}_bias": norm.bias[None]}
    return arrays


def joeynmt_state(model: Any) -> dict[str, Tensor]:
    """Return JoeyNMT's parameters, and a bias for its output layer, which has none: decode.py adds it."""
    weight = model.target_embedding.weight
    ids = permutation("joeynmt", len(weight))
    state = dict.fromkeys(("src_embed.lut.weight", "trg_embed.lut.weight", "decoder.output_layer.weight"), weight[ids])
    table = sinusoidal_embedding(0, MAX_LENGTH, weight.size(1), weight)[None]
    state |= {"decoder.output_layer.bias": model.output.bias[ids], "encoder.pe.pe": table, "decoder.pe.pe": table}
    parts = {"1": "pwff_layer.0", "2": "pwff_layer.3", "o": "output_layer"}
    for side, number, kind, linears, norm in sublayers(model):
        module, after = JOEYNMT_MODULES.get(f"{side} {kind}", ("feed_forward", "feed_forward.layer_norm"))
        modules = {f"{module}.{parts.get(key, f'{key}_layer')}": linear for key, linear in linears.items()}
        modules[after] = norm.state_dict()
        for name, tensors in modules.items():
            state |= {f"{side}.layers.{number}.{name}.{key}": tensor for key, tensor in tensors.items()}
    return state


def write_data(
    data: DataConfig, tokenizer: Tokenizer | None, folder: Path, splits: Sequence[str] = ("train", "valid")
) -> list[str]:
    """Write vocab.yml (Marian) and vocab.txt (JoeyNMT, Eole), and <split>.source and .target in subwords and .reference
    as text, without pairs that have a blank side; return the subwords. Without a tokenizer, use that of training."""
    tokenizer = tokenizer or train_or_load_tokenizer(data)
    names = vocabularies.unique_names(tokenizer.source)
    marian, joeynmt = ([names[index] for index in permutation(program, len(names))] for program in SPECIAL_IDS)
    places = {name: place for place, name in enumerate(marian)}
    files = {"vocab.yml": [yaml.safe_dump(places, allow_unicode=True)], "vocab.txt": joeynmt}
    for split in splits:
        pairs = [pair for pair in read_pairs(data, split) if pair.source.strip() and pair.target.strip()]
        files[f"{split}.reference"] = [pair.target for pair in pairs]
        targets = tokenizer.encode_target(files[f"{split}.reference"])
        encoded = {"source": tokenizer.encode_source([pair.source for pair in pairs]), "target": targets}
        for side, rows in encoded.items():
            files[f"{split}.{side}"] = [" ".join(names[index] for index in row) for row in rows]
    for file, lines in files.items():
        (folder / file).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return names


def main(run: str, directory: str, prefix: str = "") -> None:
    """Write everything into DIR/decode."""
    path, folder = checkpoint.resolve(run), Path(directory) / "decode"
    content = checkpoint.load(path)
    config, translator = Config.from_checkpoint(content), Translator.from_checkpoint(content, None, torch.device("cpu"))
    ensure_convertible(config, translator.model)
    folder.mkdir(parents=True, exist_ok=True)
    config.data.test = prefix or config.data.test
    names = write_data(config.data, translator.tokenizer, folder, ["test"])
    sizes = {**vars(config.model), "size": len(names), "heads": config.model.attention.heads}
    models = yaml.safe_load(Path(__file__).with_name("models.yaml").read_text(encoding="utf-8") % sizes)
    arrays = {name: array.detach().contiguous().numpy() for name, array in marian_arrays(translator.model).items()}
    described = np.frombuffer(yaml.safe_dump(models["marian"]).encode() + b"\0", np.int8)
    np.savez(folder / "model.npz", **arrays, **{"special:model.yml": described})
    (folder / "config.yaml").write_text(yaml.safe_dump(models["joeynmt"]), encoding="utf-8")
    torch.save({"model_state": joeynmt_state(translator.model)}, folder / "best.ckpt")
    export(translator, config, "ctranslate2", folder / "ctranslate2", MAX_LENGTH)
    (folder / "nmt.json").write_text(json.dumps({"checkpoint": str(path.resolve()), "names": names}), encoding="utf-8")


if __name__ == "__main__":
    with report_errors():
        if not 3 <= len(sys.argv) <= 4:
            raise ValueError("usage: python scripts/peers/convert.py RUN DIR [PREFIX]")
        main(*sys.argv[1:])
