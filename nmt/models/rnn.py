"""Recurrent encoder-decoders; what their decoders do is in `nmt.models.rnn_decoder`."""

from dataclasses import dataclass

from nmt.models.encoder_decoder import EncoderDecoder, MatchConfig, check_dropout, check_tie
from nmt.models.rnn_decoder import WIRINGS, RecurrentDecoderConfig, RecurrentPart
from nmt.models.rnn_layers import Encoder


@dataclass
class RecurrentEncoderConfig(RecurrentPart):
    """Options of a recurrent encoder.

    encoder_layers: stacked recurrent layers.
    bidirectional: read the source both ways.
    """

    encoder_layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.1

    def check_encoder(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.encoder_layers < 1:
            raise ValueError(f"model.encoder_layers={self.encoder_layers}: must be at least 1")
        if self.bidirectional and self.hidden % 2:
            raise ValueError(
                f"model.hidden={self.hidden}: must be even, a bidirectional encoder has half of it each way"
            )

    def build_encoder(self, width: int) -> Encoder:
        """The encoder of embeddings this wide."""
        return Encoder(
            self.cell,
            width,
            self.hidden,
            layers=self.encoder_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
        )


@dataclass
class RNNConfig(RecurrentDecoderConfig, RecurrentEncoderConfig, MatchConfig):
    """A recurrent encoder-decoder. The defaults suit the built-in language pair; `configs/experiment` has larger ones.

    architecture: rnn.
    dropout: on embeddings, between layers and before the output.
    tie: "none", "output" (target embedding = output matrix), "all" (source embedding too; needs a joint vocabulary).
    """

    architecture: str = "rnn"
    tie: str = "output"
    match_width: str = "embedding"

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        self.check_recurrent()
        self.check_encoder()
        self.check_decoder()
        check_tie(self.tie)
        check_dropout(self.dropout)
        self.check_match()


class RNN(EncoderDecoder):
    """A recurrent encoder-decoder, built from `RNNConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: RNNConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = config.build_encoder(config.embedding)
        decoder = WIRINGS[config.wiring](config, encoder.dim)
        super().__init__(encoder, decoder, config.embedding, source_size, target_size, tie=config.tie, joint=joint)
