"""A Transformer encoder with a recurrent decoder, and the reverse (Chen et al. 2018)."""

from dataclasses import dataclass

from nmt.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from nmt.models.rnn import RNNEncoderConfig
from nmt.models.rnn_decoder import DECODERS, RNNDecoderConfig
from nmt.models.transformer import TransformerDecoder, TransformerEncoder
from nmt.models.transformer_layers import TransformerDecoderConfig, TransformerEncoderConfig


@dataclass
class TransformerRNNConfig(RNNDecoderConfig, TransformerEncoderConfig, EncoderDecoderConfig):
    """A Transformer encoder, `d_model` wide, and a recurrent decoder; options as in the two architectures."""

    architecture: str = "transformer_rnn"
    tie_embeddings: str = "output"


class TransformerRNN(EncoderDecoder):
    """Built from `TransformerRNNConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: TransformerRNNConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = TransformerEncoder(config)
        decoder = DECODERS[config.decoder](config, encoder.dim)
        super().__init__(config, encoder, decoder, source_size, target_size, joint=joint)


@dataclass
class RNNTransformerConfig(TransformerDecoderConfig, RNNEncoderConfig, EncoderDecoderConfig):
    """A recurrent encoder, `hidden_size` wide, and a Transformer decoder; options as in the two architectures."""

    architecture: str = "rnn_transformer"
    tie_embeddings: str = "output"


class RNNTransformer(EncoderDecoder):
    """Built from `RNNTransformerConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: RNNTransformerConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = config.build_encoder(config.embedding_dim)
        decoder = TransformerDecoder(config, encoder.dim)
        super().__init__(config, encoder, decoder, source_size, target_size, joint=joint)
