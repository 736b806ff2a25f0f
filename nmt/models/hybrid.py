"""A Transformer that reads and a recurrent decoder that writes, and the reverse (Chen et al. 2018)."""

from dataclasses import dataclass

from nmt.models.encoder_decoder import EncoderDecoder, ParameterMatchingConfig, validate_dropout, validate_tie
from nmt.models.rnn import RNNEncoderConfig
from nmt.models.rnn_decoder import DECODERS, RNNDecoderConfig
from nmt.models.transformer import TransformerDecoder, TransformerEncoder
from nmt.models.transformer_layers import TransformerDecoderConfig, TransformerEncoderConfig


@dataclass
class TransformerRNNConfig(RNNDecoderConfig, TransformerEncoderConfig, ParameterMatchingConfig):
    """A Transformer encoder, `width` wide, and a recurrent decoder; options as in the two architectures.

    architecture: transformer_rnn.
    dropout, tie_embeddings: as in the two architectures.
    """

    architecture: str = "transformer_rnn"
    tie_embeddings: str = "output"

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        self.validate_transformer()
        self.validate_encoder()
        self.validate_recurrent()
        self.validate_decoder()
        validate_tie(self.tie_embeddings)
        validate_dropout(self.dropout)
        self.validate_matching()


class TransformerRNN(EncoderDecoder):
    """Built from `TransformerRNNConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: TransformerRNNConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = TransformerEncoder(config)
        decoder = DECODERS[config.decoder](config, encoder.dim)
        super().__init__(
            encoder, decoder, config.d_model, source_size, target_size, tie=config.tie_embeddings, joint=joint
        )


@dataclass
class RNNTransformerConfig(TransformerDecoderConfig, RNNEncoderConfig, ParameterMatchingConfig):
    """A recurrent encoder, `hidden` wide, and a Transformer decoder; options as in the two architectures.

    architecture: rnn_transformer.
    dropout, tie_embeddings: as in the two architectures.
    """

    architecture: str = "rnn_transformer"
    tie_embeddings: str = "output"

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        self.validate_recurrent()
        self.validate_encoder()
        self.validate_transformer()
        self.validate_decoder()
        validate_tie(self.tie_embeddings)
        validate_dropout(self.dropout)
        self.validate_matching()


class RNNTransformer(EncoderDecoder):
    """Built from `RNNTransformerConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: RNNTransformerConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = config.build_encoder(config.embedding_dim)
        decoder = TransformerDecoder(config, encoder.dim)
        super().__init__(
            encoder, decoder, config.embedding_dim, source_size, target_size, tie=config.tie_embeddings, joint=joint
        )
