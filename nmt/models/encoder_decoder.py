"""What all encoder-decoders share: embeddings, their ties, the output matrix, and the way through the parts."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from nmt.attention import NONE, SCORES
from nmt.models.layers import TIES, make_embedding, to_autocast_dtype
from nmt.models.seq2seq import AttentionWeights, DecoderState, Seq2Seq


class EncoderProtocol(Protocol):
    """dim: width of its outputs. longest: the longest source it can read; None: any."""

    dim: int
    longest: int | None

    def __call__(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded source (B, S, E) and mask (B, S) -> outputs (B, S, dim) and a summary (B, dim)."""


class DecoderProtocol(Protocol):
    """dim: width of embedded inputs and of finished features. longest: the longest target; None: any."""

    dim: int
    longest: int | None

    def precompute(self, values: Tensor) -> DecoderState:
        """Encoder outputs (B, S, D) -> what attention needs of them, once per sentence."""

    def init_state(self, memory: DecoderState) -> DecoderState:
        """The state before the first token; memory holds "summary" and "mask" too."""

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        """See `Seq2Seq.reserve`."""

    def reorder_state(self, state: DecoderState, to: Tensor, of: Tensor, since: Tensor) -> None:
        """See `Seq2Seq.fork`."""

    def unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Embedded inputs (B, T, E) -> features (B, T, any), weights (B, L, H, T, S) or None, the state after them."""

    def output_features(self, features: Tensor) -> Tensor:
        """Features where logits are wanted (..., any) -> what is compared with the output matrix (..., dim)."""


MATCHES = (NONE, "parameters", "flops")


@dataclass
class ParameterMatchingConfig:
    """How a model is made as large as a reference, so that a comparison of scores is none of sizes; see
    `nmt.models.parameter_matching`.

    match: none, parameters or flops (of a forward pass): one width is adjusted until the two models agree.
    match_width: the width that gives way, an option of the model such as ffn_dim or attention.dim.
    match_score: the reference is the same configuration with this score in `attention`.
    """

    match: str = NONE
    match_width: str = "ffn_dim"
    match_score: str = "scaled"

    def validate_matching(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.match not in MATCHES:
            raise ValueError(f"model.match={self.match}: must be one of {', '.join(MATCHES)}")
        if self.match_score not in (*SCORES, NONE):
            raise ValueError(f"model.match_score={self.match_score}: must be one of {', '.join([*SCORES, NONE])}")
        width: object = self
        for name in self.match_width.split("."):
            width = getattr(width, name, None)
        if not isinstance(width, int) or isinstance(width, bool):
            raise ValueError(
                f"model.match_width={self.match_width}: must be a width of this model, an option that is a whole "
                f"number; the default is {type(self)().match_width}"
            )


def validate_tie(tie: str) -> None:
    """Raises ValueError for an unknown degree."""
    if tie not in TIES:
        raise ValueError(f"model.tie_embeddings={tie}: must be one of {', '.join(TIES)}")


def validate_dropout(rate: float) -> None:
    """Raises ValueError for a rate that is none."""
    if not 0 <= rate < 1:
        raise ValueError(f"model.dropout={rate}: must be at least 0 and below 1")


class EncoderDecoder(Seq2Seq):
    """An encoder and a decoder of any kind.

    Args:
        encoder, decoder: the parts.
        source_width: of embedded source tokens.
        source_size, target_size: vocabulary sizes.
        tie: none, output (target embedding = output matrix), all (source embedding too).
        joint: both sides share one vocabulary.
        pad: id of the padding token on both sides.

    Raises:
        ValueError: tie=all without a joint vocabulary or with embeddings of different widths.
    """

    def __init__(
        self,
        encoder: EncoderProtocol,
        decoder: DecoderProtocol,
        source_width: int,
        source_size: int,
        target_size: int,
        *,
        tie: str,
        joint: bool,
        pad: int = 0,
    ) -> None:
        super().__init__()
        if tie == "all" and not joint:
            raise ValueError(
                "model.tie_embeddings=all: needs one vocabulary for both languages; "
                "set data.tokenizer.joint=true or model.tie_embeddings=output"
            )
        if tie == "all" and source_width != decoder.dim:
            raise ValueError(
                f"model.tie_embeddings=all: source embeddings are {source_width} wide and target embeddings "
                f"{decoder.dim}; "
                "make the widths equal or set model.tie_embeddings=output"
            )
        self.source_embedding = make_embedding(source_size, source_width, pad)
        self.target_embedding = self.source_embedding if tie == "all" else make_embedding(target_size, decoder.dim, pad)
        self.encoder, self.decoder = encoder, decoder
        self.max_source, self.max_target = encoder.longest, decoder.longest
        self.output = nn.Linear(decoder.dim, target_size)
        nn.init.zeros_(self.output.bias)
        if tie != "none":
            self.output.weight = self.target_embedding.weight

    def encode(self, source: Tensor, source_mask: Tensor) -> DecoderState:
        values, summary = self.encoder(self.source_embedding(source), source_mask)
        return {"mask": source_mask, "summary": summary, **self.decoder.precompute(to_autocast_dtype(values))}

    def init_state(self, memory: DecoderState) -> DecoderState:
        return self.decoder.init_state(memory)

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        return self.decoder.allocate_cache(state, steps)

    def reorder_state(self, state: DecoderState, to: Tensor, of: Tensor, since: Tensor) -> None:
        self.decoder.reorder_state(state, to, of, since)

    def step(
        self, token: Tensor, state: DecoderState, memory: DecoderState, *, attention: bool = False
    ) -> tuple[Tensor, AttentionWeights | None, DecoderState]:
        x = self.target_embedding(token).unsqueeze(1)  # (B, 1, E)
        features, weights, state = self.decoder.unroll(x, state, memory, need_weights=attention)
        logits: Tensor = self.output(self.decoder.output_features(features.squeeze(1)))
        return logits, None if weights is None else AttentionWeights(weights), state

    def forward(
        self,
        source: Tensor,
        source_mask: Tensor,
        inputs: Tensor,
        *,
        attention: bool = False,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, AttentionWeights | None]:
        memory = self.encode(source, source_mask)
        x = self.target_embedding(inputs)  # (B, T, E)
        features, weights, _ = self.decoder.unroll(x, self.init_state(memory), memory, need_weights=attention)
        features = features if positions is None else features.flatten(0, 1)[positions]  # (B, T, any) or (N, any)
        return self.output(self.decoder.output_features(features)), None if weights is None else AttentionWeights(
            weights
        )
