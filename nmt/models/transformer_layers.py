"""Layers of a Transformer (Vaswani et al. 2017), each of whose attentions is an `nmt.attention.Attention`."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nmt.attention import CROSS, DECODER_SELF, ENCODER_SELF, NONE, Attention, AttentionConfig, KeyValueCache
from nmt.attention.dropout import ByteMaskDropout
from nmt.models.layers import ACTIVATIONS, NORMS, POSITIONS, FeedForward, to_autocast_dtype
from nmt.models.seq2seq import expand_to_rows

HEADS = 4


def _multi_head() -> AttentionConfig:
    return AttentionConfig(score="scaled", heads=HEADS)


@dataclass
class TransformerConfigBase:
    """What Transformer encoders and decoders share.

    d_model: of embeddings and of every layer's output.
    ffn_dim: width inside the feed-forward layers.
    norm: layer or rms.
    norm_position: "pre" = x + f(norm(x)) and a last norm; "post" = norm(x + f(x)), as first published.
    positions: sinusoidal, learned or rotary.
    max_positions: rows of the learned table.
    activation: relu, gelu or swiglu.
    activation_dropout: inside the feed-forward layers.
    layerdrop: in training each layer is left out with this probability (Fan et al. 2020).
    """

    d_model: int = 128
    ffn_dim: int = 256
    norm: str = "layer"
    norm_position: str = "pre"
    positions: str = "sinusoidal"
    max_positions: int = 1024
    activation: str = "relu"
    activation_dropout: float = 0.0
    layerdrop: float = 0.0

    def validate_transformer(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        choices = (
            ("norm", tuple(NORMS)),
            ("norm_position", ("pre", "post")),
            ("positions", POSITIONS),
            ("activation", tuple(ACTIVATIONS)),
        )
        for option, allowed in choices:
            if getattr(self, option) not in allowed:
                raise ValueError(f"model.{option}={getattr(self, option)}: must be one of {', '.join(allowed)}")
        for option in ("d_model", "ffn_dim", "max_positions"):
            if getattr(self, option) < 1:
                raise ValueError(f"model.{option}={getattr(self, option)}: must be at least 1")
        for option in ("activation_dropout", "layerdrop"):
            if not 0 <= getattr(self, option) < 1:
                raise ValueError(f"model.{option}={getattr(self, option)}: must be at least 0 and below 1")
        if self.d_model % 2:
            raise ValueError(f"model.d_model={self.d_model}: must be even")

    def validate_heads(self, path: str, attention: AttentionConfig) -> None:
        """Raises ValueError when the widths of a layer do not divide by its heads."""
        if self.d_model % attention.heads:
            raise ValueError(f"{path}.heads={attention.heads}: model.d_model={self.d_model} is no multiple of it")


@dataclass
class TransformerEncoderConfig(TransformerConfigBase):
    """Options of a Transformer encoder.

    encoder_layers: number of layers.
    encoder_self_attention: their attention.
    """

    encoder_layers: int = 2
    encoder_self_attention: AttentionConfig = field(default_factory=_multi_head)
    dropout: float = 0.1

    def validate_encoder(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.encoder_layers < 1:
            raise ValueError(f"model.encoder_layers={self.encoder_layers}: must be at least 1")
        self.encoder_self_attention.validate_at("model.encoder_self_attention", ENCODER_SELF, self.encoder_layers)
        self.validate_heads("model.encoder_self_attention", self.encoder_self_attention)


@dataclass
class TransformerDecoderConfig(TransformerConfigBase):
    """Options of a Transformer decoder.

    decoder_layers: number of layers.
    decoder_self_attention: their attention to the target.
    attention: their attention to the source.
    """

    decoder_layers: int = 2
    decoder_self_attention: AttentionConfig = field(default_factory=_multi_head)
    attention: AttentionConfig = field(default_factory=_multi_head)
    dropout: float = 0.1

    def validate_decoder(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.decoder_layers < 1:
            raise ValueError(f"model.decoder_layers={self.decoder_layers}: must be at least 1")
        self.attention.validate_at("model.attention", CROSS, self.decoder_layers)
        self.decoder_self_attention.validate_at("model.decoder_self_attention", DECODER_SELF, self.decoder_layers)
        self.validate_heads("model.attention", self.attention)
        self.validate_heads("model.decoder_self_attention", self.decoder_self_attention)


class SublayerConnection(nn.Module):
    """The norm, dropout and sum around each part of a layer, the norm before the part or after the sum."""

    def __init__(self, config: TransformerConfigBase, dropout: float) -> None:
        super().__init__()
        self.norm = NORMS[config.norm](config.d_model)
        self.dropout = ByteMaskDropout(dropout)
        self.is_pre = config.norm_position == "pre"

    def before(self, x: Tensor) -> Tensor:
        """What the part sees of x."""
        return to_autocast_dtype(self.norm(x) if self.is_pre else x)

    def after(self, x: Tensor, part: Tensor) -> Tensor:
        """x and what the part made of it."""
        x = x + self.dropout(part)
        summed: Tensor = x if self.is_pre else self.norm(x)
        return summed


def _self_attention(config: TransformerConfigBase, own: AttentionConfig, site: str) -> Attention:
    width, rotary = config.d_model, config.positions == "rotary"
    return Attention(own, width, width, attention_type=site, out_dim=width, bias=True, rotary=rotary)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward layer."""

    compiles = "forward"

    def __init__(self, config: TransformerEncoderConfig, number: int) -> None:
        super().__init__()
        self.attention = _self_attention(config, config.encoder_self_attention.for_layer(number), ENCODER_SELF)
        self.attended = SublayerConnection(config, config.dropout)
        self.feed_forward = FeedForward(config.d_model, config.ffn_dim, config.activation, config.activation_dropout)
        self.fed = SublayerConnection(config, config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, D) and mask (B, S) -> (B, S, D)."""
        seen = self.attended.before(x)
        x = self.attended.after(x, self.attention(seen, self.attention.precompute_keys(seen), mask).context)
        return self.fed.after(x, self.feed_forward(self.fed.before(x)))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and a feed-forward layer.

    Without cross-attention every target position sees the source's summary, through one projection.
    """

    compiles = "forward"

    def __init__(self, config: TransformerDecoderConfig, number: int, memory_dim: int) -> None:
        super().__init__()
        self.attention = _self_attention(config, config.decoder_self_attention.for_layer(number), DECODER_SELF)
        self.attended = SublayerConnection(config, config.dropout)
        own = config.attention.for_layer(number)
        self.cross: Attention | None = None
        if own.score == NONE:
            self.summary = nn.Linear(memory_dim, config.d_model)
        else:
            self.cross = Attention(own, config.d_model, memory_dim, out_dim=config.d_model, bias=True)
        self.crossed = SublayerConnection(config, config.dropout)
        if self.cross is None and self.crossed.is_pre:
            self.crossed.norm = nn.Identity()  # nothing asks x where to look
        self.feed_forward = FeedForward(config.d_model, config.ffn_dim, config.activation, config.activation_dropout)
        self.fed = SublayerConnection(config, config.dropout)

    def forward(
        self,
        x: Tensor,
        cache: KeyValueCache,
        start: int,
        memory: KeyValueCache,
        mask: Tensor,
        summary: Tensor,
        *,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None, KeyValueCache]:
        """x (B, T, D) after the `start` positions of the cache -> (B, T, D), weights (B, H, T, S) or None, the longer
        cache. A cache with room for them takes the new positions in."""
        seen = self.attended.before(x)
        new = self.attention.precompute_keys(seen, start)
        grown = {name: append_cache(cache[name], tensor, start) for name, tensor in new.items()}
        seen_keys = {name: tensor[:, :, : start + x.size(1)] for name, tensor in grown.items()}
        x = self.attended.after(x, self.attention(seen, seen_keys, None, start=start).context)
        if self.cross is None:
            x = self.crossed.after(x, expand_to_rows(self.summary(summary), x.size(0)).unsqueeze(1).expand_as(x))
            return self.fed.after(x, self.feed_forward(self.fed.before(x))), None, grown
        seen = self.crossed.before(x)
        attended = self.cross(seen, memory, mask, start=start, coverage=cache.get("covered"), need_weights=need_weights)
        x = self.crossed.after(x, attended.context)
        after = grown if attended.coverage is None else {**grown, "covered": attended.coverage}
        return self.fed.after(x, self.feed_forward(self.fed.before(x))), attended.weights, after


def append_cache(cache: Tensor, new: Tensor, start: int) -> Tensor:
    """A cache (B, H, C, D) whose first `start` positions are taken, and new ones (B, H, T, D) after them.

    They are written into a cache that has room for them; one that has none is copied.
    """
    if cache.size(2) == start:
        return torch.cat([cache, new], dim=2) if start else new
    cache[:, :, start : start + new.size(2)] = new
    return cache


def grow_cache(cache: Tensor, room: int) -> Tensor:
    """A copy of (B, H, T, D) with room for as many positions."""
    longer = cache.new_empty(cache.size(0), cache.size(1), room, cache.size(3))
    longer[:, :, : cache.size(2)] = cache
    return longer
