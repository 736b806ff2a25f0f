"""A Transformer that reads and a recurrent decoder that writes, and the reverse (Chen et al. 2018)."""

from dataclasses import dataclass

from nmt.models.encoder_decoder import EncoderDecoder, MatchConfig, check_dropout, check_tie
from nmt.models.rnn import RecurrentEncoderConfig
from nmt.models.rnn_decoder import WIRINGS, RecurrentDecoderConfig
from nmt.models.transformer import TransformerDecoder, TransformerEncoder
from nmt.models.transformer_layers import TransformerDecoderConfig, TransformerEncoderConfig


@dataclass
class TransformerRNNConfig(RecurrentDecoderConfig, TransformerEncoderConfig, MatchConfig):
    """A Transformer encoder, `width` wide, and a recurrent decoder; options as in the two architectures.

    architecture: transformer_rnn.
    dropout, tie: as in the two architectures.
    """

    architecture: str = "transformer_rnn"
    tie: str = "output"

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        self.check_transformer()
        self.check_encoder()
        self.check_recurrent()
        self.check_decoder()
        check_tie(self.tie)
        check_dropout(self.dropout)
        self.check_match()


class TransformerRNN(EncoderDecoder):
    """Built from `TransformerRNNConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: TransformerRNNConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = TransformerEncoder(config)
        decoder = WIRINGS[config.wiring](config, encoder.dim)
        super().__init__(encoder, decoder, config.width, source_size, target_size, tie=config.tie, joint=joint)


@dataclass
class RNNTransformerConfig(TransformerDecoderConfig, RecurrentEncoderConfig, MatchConfig):
    """A recurrent encoder, `hidden` wide, and a Transformer decoder; options as in the two architectures.

    architecture: rnn_transformer.
    dropout, tie: as in the two architectures.
    """

    architecture: str = "rnn_transformer"
    tie: str = "output"

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        self.check_recurrent()
        self.check_encoder()
        self.check_transformer()
        self.check_decoder()
        check_tie(self.tie)
        check_dropout(self.dropout)
        self.check_match()


class RNNTransformer(EncoderDecoder):
    """Built from `RNNTransformerConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: RNNTransformerConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = config.build_encoder(config.embedding)
        decoder = TransformerDecoder(config, encoder.dim)
        super().__init__(encoder, decoder, config.embedding, source_size, target_size, tie=config.tie, joint=joint)
