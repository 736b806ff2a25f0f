"""Recurrent encoder-decoders; their decoders are in `nmt.models.rnn_decoder`."""

from dataclasses import dataclass

from nmt.config import check_range
from nmt.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from nmt.models.rnn_decoder import DECODERS, RNNConfigBase, RNNDecoderConfig
from nmt.models.rnn_layers import RNNEncoder


@dataclass
class RNNEncoderConfig(RNNConfigBase):
    """Options of a recurrent encoder.

    encoder_layers: number of layers of the encoder.
    bidirectional: run the layers of the encoder in both directions.
    """

    encoder_layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.1

    def validate_encoder(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        self.validate_recurrent()
        check_range("model", self, ["encoder_layers"], minimum=1)
        if self.bidirectional and self.hidden_size % 2:
            raise ValueError(
                f"model.hidden_size={self.hidden_size}: must be even, a bidirectional encoder has half of it each way"
            )

    def build_encoder(self, width: int) -> RNNEncoder:
        """Return the encoder of embeddings of this width."""
        return RNNEncoder(
            self.cell,
            width,
            self.hidden_size,
            self.encoder_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
        )


@dataclass
class RNNConfig(RNNDecoderConfig, RNNEncoderConfig, EncoderDecoderConfig):
    """A recurrent encoder-decoder. Defaults suit the built-in language pair; `configs/experiment` has larger ones."""

    architecture: str = "rnn"
    tie_embeddings: str = "output"
    match_width: str = "embedding_dim"


class RNNSeq2Seq(EncoderDecoder):
    """A recurrent encoder-decoder, built from `RNNConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: RNNConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = config.build_encoder(config.embedding_dim)
        decoder = DECODERS[config.decoder](config, encoder.dim)
        super().__init__(config, encoder, decoder, source_size, target_size, joint=joint)
