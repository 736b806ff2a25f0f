"""Models and batches that are tried on pretended CUDA: every architecture × score × normalizer × window."""

import dataclasses
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch

from nmt.attention import NO_ATTENTION, NORMALIZERS, SCORES, AttentionConfig
from nmt.data import AlignmentTargets, Batch, collate
from nmt.models import MODELS, Seq2Seq, build_model

VOCABULARY = 40
SIZES = {
    "embedding_dim": 8, "hidden_size": 8, "d_model": 8, "ffn_dim": 12, "dropout": 0.0, "encoder_layers": 1,
    "decoder_layers": 2,
}  # fmt: skip
ARCHITECTURES: list[dict[str, str]] = [
    {"architecture": "rnn", "decoder": "bahdanau", "cell": "lstm"},
    {"architecture": "rnn", "decoder": "input_feeding", "cell": "gru"},
    {"architecture": "rnn", "decoder": "luong", "cell": "lstm"},
    {"architecture": "rnn", "decoder": "luong", "cell": "gru"},
    {"architecture": "transformer"},
    {"architecture": "rnn_transformer", "cell": "gru"},
    {"architecture": "transformer_rnn", "decoder": "bahdanau", "cell": "gru"},
    {"architecture": "transformer_rnn", "decoder": "input_feeding", "cell": "lstm"},
    {"architecture": "transformer_rnn", "decoder": "luong", "cell": "lstm"},
]
CROSS_ATTENTIONS: dict[str, dict[str, Any]] = {
    "without attention": {"score": NO_ATTENTION, "heads": 1},
    "coverage additive": {"score": "additive", "coverage": True},
    "coverage hybrid": {"score": "hybrid", "coverage": True},
    "mixed scores": {"score": ["additive", "dot", "additive", "cosine"], "heads": 4, "divisor": "learned"},
    "learned divisor": {"score": "scaled", "divisor": "learned"},
    "attention dropout": {"score": "scaled", "dropout": 0.1},
    "one unprojected head": {"score": "general", "heads": 1, "project_qk": False},
}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "learned positions": {"positions": "learned", "max_positions": 40},
    "rotary": {"positions": "rotary"},
    "post rms": {"norm": "rms", "norm_position": "post"},
    "swiglu": {"activation": "swiglu"},
    "dropout": {"dropout": 0.2, "activation_dropout": 0.1},
    "layerdrop": {"layerdrop": 0.4},
}
STOCHASTIC = ("attention dropout", "dropout", "layerdrop")
"""Ends of the names of models whose training is random."""


def attention(score: Any = "scaled", heads: int = 2, **changes: Any) -> AttentionConfig:
    dim = 0 if changes.get("project_qk") is False else 8
    return AttentionConfig(score=score, heads=heads, dim=dim, window_size=2, top_k=2, max_positions=4, **changes)


def config(architecture: str, **changes: Any) -> Any:
    """Return the configuration of a small model; options that the architecture does not have are left out."""
    kind = MODELS[architecture].config
    names = {field.name for field in dataclasses.fields(kind)}
    made = kind(**{name: value for name, value in {**SIZES, **changes}.items() if name in names})
    made.validate()
    return made


def configs() -> Iterator[tuple[str, Any]]:
    """Yield a name and a configuration for every combination, and for the options that stand alone."""
    for how, score, normalizer, window in product(ARCHITECTURES, SCORES, NORMALIZERS, ("global", "local_m", "local_p")):
        own = attention(score, normalizer=normalizer, window=window)
        inner = attention(score, normalizer=normalizer, window="global" if window == "global" else "sliding")
        places = {"attention": own, "encoder_self_attention": inner, "decoder_self_attention": inner}
        yield f"{' '.join(how.values())} {score} {normalizer} {window}", config(**how, **places)
    for how in ARCHITECTURES:
        for name, options in CROSS_ATTENTIONS.items():
            yield f"{' '.join(how.values())} {name}", config(**how, attention=attention(**options))
        if "transformer" in how["architecture"]:
            for name, options in TRANSFORMERS.items():
                yield f"{' '.join(how.values())} {name}", config(**how, **options)


def spread(step: int) -> list[tuple[str, Any]]:
    """Return every `step`-th configuration; a step without a common factor with the tables meets every entry."""
    return list(configs())[::step]


def model(configuration: Any, *, seed: int = 1, scale: float = 1.0) -> Seq2Seq:
    """Return a model on the CPU; with a `scale` above 1 its predictions are surer, so that rounding decides nothing."""
    torch.manual_seed(seed)
    made = build_model(configuration, VOCABULARY, VOCABULARY, joint=True)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(scale)
    return made


def batch() -> Batch:
    """Return three pairs of different lengths, with word alignments."""
    generator = torch.Generator().manual_seed(0)
    sources, targets = (
        [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
        for lengths in ((11, 7, 3), (9, 10, 2))
    )
    links = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 3, 1, 2, 0, 1], [1, 2, 0, 3, 1, 2]])
    return collate(sources, targets)._replace(links=AlignmentTargets(links, torch.full((6,), 0.5)))
