"""Encoder-decoders. A new one is a `Config`, a `Seq2Seq` and a line in `MODELS`."""

from typing import Any, NamedTuple

from nmt.attention import AttentionConfig
from nmt.models.hybrid import RNNTransformer, RNNTransformerConfig, TransformerRNN, TransformerRNNConfig
from nmt.models.rnn import RNNConfig, RNNSeq2Seq
from nmt.models.seq2seq import AttentionWeights, DecoderState, Seq2Seq
from nmt.models.transformer import Transformer, TransformerConfig

__all__ = ["MODELS", "AttentionWeights", "DecoderState", "ModelSpec", "Seq2Seq", "build_model", "unused_options"]


class ModelSpec(NamedTuple):
    """An architecture: its configuration and what is built from it."""

    config: type[Any]
    model: type[Any]


MODELS: dict[str, ModelSpec] = {
    "rnn": ModelSpec(RNNConfig, RNNSeq2Seq),
    "transformer": ModelSpec(TransformerConfig, Transformer),
    "transformer_rnn": ModelSpec(TransformerRNNConfig, TransformerRNN),
    "rnn_transformer": ModelSpec(RNNTransformerConfig, RNNTransformer),
}


def unused_options(config: Any) -> list[str]:
    """Options of a model's attentions that are set and change nothing, with their values: "model.attention.top_k=4"."""
    default, found = type(config)(), []
    for site in ("attention", "encoder_self_attention", "decoder_self_attention"):
        own = getattr(config, site, None)
        if isinstance(own, AttentionConfig):
            names = own.unused_options(getattr(default, site))
            found += [f"model.{site}.{name}={getattr(own, name)}" for name in names]
    return found


def build_model(config: Any, source_size: int, target_size: int, *, joint: bool) -> Seq2Seq:
    """The model that `config.architecture` names, freshly initialised from torch's generator."""
    model: Seq2Seq = MODELS[config.architecture].model(config, source_size, target_size, joint=joint)
    return model
