"""Encoder-decoder models. A new one is a configuration class, a `Seq2Seq` and a line in `MODELS`."""

from typing import Any, NamedTuple

from nmt.attention import AttentionConfig
from nmt.models.hybrid import RNNTransformer, RNNTransformerConfig, TransformerRNN, TransformerRNNConfig
from nmt.models.rnn import RNNConfig, RNNSeq2Seq
from nmt.models.seq2seq import AttentionWeights, DecoderState, Seq2Seq
from nmt.models.transformer import Transformer, TransformerConfig

__all__ = ["MODELS", "AttentionWeights", "DecoderState", "ModelSpec", "Seq2Seq", "build_model", "unused_options"]


class ModelSpec(NamedTuple):
    """An architecture: its configuration class and its model class."""

    config: type[Any]
    model: type[Any]


MODELS: dict[str, ModelSpec] = {
    "rnn": ModelSpec(RNNConfig, RNNSeq2Seq),
    "transformer": ModelSpec(TransformerConfig, Transformer),
    "transformer_rnn": ModelSpec(TransformerRNNConfig, TransformerRNN),
    "rnn_transformer": ModelSpec(RNNTransformerConfig, RNNTransformer),
}


def unused_options(config: Any) -> list[str]:
    """Return options of a model's attentions that are set and have no effect, as "model.attention.top_k=4"."""
    default, unused = type(config)(), []
    for option in ("attention", "encoder_self_attention", "decoder_self_attention"):
        attention = getattr(config, option, None)
        if isinstance(attention, AttentionConfig):
            names = attention.unused_options(getattr(default, option))
            unused += [f"model.{option}.{name}={getattr(attention, name)}" for name in names]
    return unused


def build_model(config: Any, source_size: int, target_size: int, *, joint: bool) -> Seq2Seq:
    """Return the model of `config.architecture`, initialized with torch's random generator."""
    model: Seq2Seq = MODELS[config.architecture].model(config, source_size, target_size, joint=joint)
    return model
