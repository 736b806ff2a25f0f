"""The parts that all encoder-decoders share: embeddings, their tying, the output matrix, and the interface of both
sides."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from nmt.attention import NO_ATTENTION, SCORES
from nmt.attention.linear import Linear
from nmt.config import check_choice, check_range
from nmt.models.layers import TIES, make_embedding, to_autocast_dtype
from nmt.models.seq2seq import AttentionWeights, DecoderState, Head, Seq2Seq

PAD = 0
"""Id of the padding token on both sides."""


class EncoderProtocol(Protocol):
    """input_dim: width of embedded inputs. dim: of the outputs. max_length: of a source in tokens; None: any."""

    input_dim: int
    dim: int
    max_length: int | None

    def __call__(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the embedded source (B, S, E) with mask (B, S) -> outputs (B, S, dim), source summary (B, dim)."""


class DecoderProtocol(Protocol):
    """dim: width of embedded inputs and of output features. max_length: of a target in tokens; None: any."""

    dim: int
    max_length: int | None

    def precompute(self, values: Tensor) -> DecoderState:
        """Compute what attention needs of the encoder outputs (B, S, D), once per sentence."""

    def init_state(self, memory: DecoderState) -> DecoderState:
        """Return the state before the first token; memory holds "summary" and "mask" too."""

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        """See `Seq2Seq.allocate_cache`."""

    def reorder_state(self, state: DecoderState, rows: Tensor, source_rows: Tensor, first_steps: Tensor) -> None:
        """See `Seq2Seq.reorder_state`."""

    def unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Decode embedded inputs (B, T, E) -> features (B, T, any), weights (B, L, H, T, S) or None, the next state."""

    def output_features(self, features: Tensor) -> Tensor:
        """Turn features (..., any) into the inputs of the output matrix (..., dim)."""


MATCHES = ("none", "parameters", "flops")


@dataclass
class ParameterMatchingConfig:
    """Options that match the size of a model to a reference, so that scores are compared at equal size; see
    `nmt.models.parameter_matching`.

    match: adjust one width until the model has as many parameters, or flops of a forward pass, as the reference.
    match_width: the adjusted width, an option of the model such as ffn_dim or attention.dim.
    match_score: the reference is the same configuration with this score in `attention`.
    """

    match: str = "none"
    match_width: str = "ffn_dim"
    match_score: str = "scaled"

    def validate_matching(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_choice("model", self, "match", MATCHES)
        check_choice("model", self, "match_score", [*SCORES, NO_ATTENTION])
        width: object = self
        for name in self.match_width.split("."):
            width = getattr(width, name, None)
        if not isinstance(width, int) or isinstance(width, bool):
            raise ValueError(
                f"model.match_width={self.match_width}: must be a width of this model, an option that is a whole "
                f"number; the default is {type(self)().match_width}"
            )


class EncoderDecoderConfig(ParameterMatchingConfig):
    """The checks of a model's options; a subclass has those of an encoder, of a decoder, and these.

    architecture: the kind of encoder and decoder, chosen by model=NAME.
    dropout: probability with which activations are dropped in training: on embeddings; in recurrent models also between
        layers and before the output, in Transformers on the output of each sublayer.
    tie_embeddings: which matrices are one: none; output = target embedding and output matrix; all = the source
        embedding too, which needs a joint vocabulary.
    """

    def validate(self: Any) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        self.validate_encoder()
        self.validate_decoder()
        check_choice("model", self, "tie_embeddings", TIES)
        check_range("model", self, ["dropout"], minimum=0, below=1)
        self.validate_matching()


class EncoderDecoder(Seq2Seq):
    """An encoder and a decoder of any kind.

    Args:
        config: of the model; `tie_embeddings` is none, output (target embedding = output matrix) or all (source
            embedding too).
        encoder, decoder: the two sides.
        source_size, target_size: vocabulary sizes.
        joint: both sides share one vocabulary.

    Raises:
        ValueError: tie=all without a joint vocabulary or with embeddings of different widths.
    """

    def __init__(
        self,
        config: Any,
        encoder: EncoderProtocol,
        decoder: DecoderProtocol,
        source_size: int,
        target_size: int,
        *,
        joint: bool,
    ) -> None:
        super().__init__()
        tie, source_width = config.tie_embeddings, encoder.input_dim
        if tie == "all" and not joint:
            raise ValueError(
                "model.tie_embeddings=all: needs one vocabulary for both languages; "
                "set data.tokenizer.joint=true or model.tie_embeddings=output"
            )
        if tie == "all" and source_width != decoder.dim:
            raise ValueError(
                f"model.tie_embeddings=all: source embeddings are {source_width} wide and target embeddings "
                f"{decoder.dim}; make the widths equal or set model.tie_embeddings=output"
            )
        self.source_embedding = make_embedding(source_size, source_width, PAD)
        self.target_embedding = self.source_embedding if tie == "all" else make_embedding(target_size, decoder.dim, PAD)
        self.encoder, self.decoder = encoder, decoder
        self.max_source_length, self.max_target_length = encoder.max_length, decoder.max_length
        self.output = Linear(decoder.dim, target_size)
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

    @property
    def has_fixed_states(self) -> bool:
        # a decoder of a plugin may not have it; an intervention looks at lengths, which a recorded step cannot
        has_overrides = any(getattr(module, "overrides", None) for module in self.modules())
        return hasattr(self.decoder, "fixed_state") and not has_overrides

    def fixed_state(self, state: DecoderState, steps: int) -> DecoderState:
        fixed: DecoderState = self.decoder.fixed_state(state, steps)  # type: ignore[attr-defined]
        return fixed

    def reorder_state(self, state: DecoderState, rows: Tensor, source_rows: Tensor, first_steps: Tensor) -> None:
        self.decoder.reorder_state(state, rows, source_rows, first_steps)

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
        head: Head | None = None,
    ) -> tuple[Any, AttentionWeights | None]:
        memory = self.encode(source, source_mask)
        x = self.target_embedding(inputs)  # (B, T, E)
        features, weights, _ = self.decoder.unroll(x, self.init_state(memory), memory, need_weights=attention)
        features = features if positions is None else features.flatten(0, 1)[positions]  # (B, T, any) or (N, any)
        features = self.decoder.output_features(features)
        logits = self.output(features) if head is None else head(self.output, features)
        return logits, None if weights is None else AttentionWeights(weights)
