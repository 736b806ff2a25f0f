"""Layers of a Transformer (Vaswani et al. 2017) and their options."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nmt.attention import CROSS, DECODER_SELF, ENCODER_SELF, NO_ATTENTION, AttentionConfig, AttentionLayer
from nmt.attention.dropout import ByteMaskDropout
from nmt.attention.layer import KeyValueCache
from nmt.attention.linear import Linear
from nmt.config import check_choice, check_range
from nmt.models.layers import ACTIVATIONS, NORMS, POSITIONS, FeedForward, to_autocast_dtype
from nmt.models.seq2seq import expand_to_rows


@dataclass
class TransformerConfigBase:
    """Options that Transformer encoders and decoders share.

    d_model: width of embeddings and of every layer's output; an even number, and a multiple of the heads.
    ffn_dim: width inside the feed-forward layers.
    norm: LayerNorm or RMSNorm.
    norm_position: pre = x + f(norm(x)) and a last norm; post = norm(x + f(x)), as first published.
    positions: how positions are encoded: added sinusoids, an added learned table, or rotated queries and keys.
    max_positions: with positions=learned: rows of the table, the longest sentence that it can process.
    activation: the function inside the feed-forward layers.
    activation_dropout: dropout inside the feed-forward layers.
    layerdrop: in training each layer is left out with this probability (Fan et al. 2020); 0 = off.
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
        """Raise ValueError naming the option, its value and what is allowed."""
        check_choice("model", self, "norm", NORMS)
        check_choice("model", self, "norm_position", ("pre", "post"))
        check_choice("model", self, "positions", POSITIONS)
        check_choice("model", self, "activation", ACTIVATIONS)
        check_range("model", self, ["d_model", "ffn_dim", "max_positions"], minimum=1)
        check_range("model", self, ["activation_dropout", "layerdrop"], minimum=0, below=1)
        if self.d_model % 2:
            raise ValueError(f"model.d_model={self.d_model}: must be even")

    def validate_attention(self, name: str, attention_type: str, num_layers: int) -> None:
        """Raise ValueError for options of an attention that are not allowed in these layers."""
        attention: AttentionConfig = getattr(self, name)
        attention.validate_at(f"model.{name}", attention_type, num_layers)
        if self.d_model % attention.heads:
            raise ValueError(f"model.{name}.heads={attention.heads}: model.d_model={self.d_model} is no multiple of it")


@dataclass
class TransformerEncoderConfig(TransformerConfigBase):
    """Options of a Transformer encoder.

    encoder_layers: number of layers of the encoder.
    encoder_self_attention: attention in the encoder: of source tokens to each other.
    """

    encoder_layers: int = 2
    encoder_self_attention: AttentionConfig = field(default_factory=lambda: AttentionConfig(heads=4))
    dropout: float = 0.1

    def validate_encoder(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        self.validate_transformer()
        check_range("model", self, ["encoder_layers"], minimum=1)
        self.validate_attention("encoder_self_attention", ENCODER_SELF, self.encoder_layers)


@dataclass
class TransformerDecoderConfig(TransformerConfigBase):
    """Options of a Transformer decoder.

    decoder_layers: number of layers of the decoder.
    decoder_self_attention: attention in the decoder: of target tokens to those before.
    attention: attention to the source; docs/attention.md has the formulas.
    """

    decoder_layers: int = 2
    decoder_self_attention: AttentionConfig = field(default_factory=lambda: AttentionConfig(heads=4))
    attention: AttentionConfig = field(default_factory=lambda: AttentionConfig(heads=4))
    dropout: float = 0.1

    def validate_decoder(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        self.validate_transformer()
        check_range("model", self, ["decoder_layers"], minimum=1)
        self.validate_attention("attention", CROSS, self.decoder_layers)
        self.validate_attention("decoder_self_attention", DECODER_SELF, self.decoder_layers)


class SublayerConnection(nn.Module):
    """The norm, dropout and residual sum around a sublayer, the norm before the sublayer or after the sum."""

    def __init__(self, config: TransformerConfigBase, dropout: float) -> None:
        super().__init__()
        self.norm = NORMS[config.norm](config.d_model)
        self.dropout = ByteMaskDropout(dropout)
        self.is_pre = config.norm_position == "pre"

    def pre(self, x: Tensor) -> Tensor:
        """Return the input of the sublayer."""
        return to_autocast_dtype(self.norm(x) if self.is_pre else x)

    def post(self, x: Tensor, output: Tensor) -> Tensor:
        """Add the output of the sublayer to x."""
        x = x + self.dropout(output)
        return x if self.is_pre else self.norm(x)


def _self_attention(config: TransformerConfigBase, attention: AttentionConfig, attention_type: str) -> AttentionLayer:
    dim, rotary = config.d_model, config.positions == "rotary"
    return AttentionLayer(attention, dim, dim, attention_type=attention_type, out_dim=dim, bias=True, rotary=rotary)


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
        query = self.attended.pre(x)
        x = self.attended.post(x, self.attention(query, self.attention.precompute_keys(query), mask).context)
        return self.fed.post(x, self.feed_forward(self.fed.pre(x)))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and a feed-forward layer.

    Without cross-attention a projection of the source summary is added at every target position.
    """

    compiles = "forward"

    def __init__(self, config: TransformerDecoderConfig, number: int, memory_dim: int) -> None:
        super().__init__()
        self.attention = _self_attention(config, config.decoder_self_attention.for_layer(number), DECODER_SELF)
        self.attended = SublayerConnection(config, config.dropout)
        cross = config.attention.for_layer(number)
        self.cross: AttentionLayer | None = None
        if cross.score == NO_ATTENTION:
            self.summary = Linear(memory_dim, config.d_model)
        else:
            self.cross = AttentionLayer(cross, config.d_model, memory_dim, out_dim=config.d_model, bias=True)
        self.crossed = SublayerConnection(config, config.dropout)
        if self.cross is None and self.crossed.is_pre:
            self.crossed.norm = nn.Identity()  # no query is made from x
        self.feed_forward = FeedForward(config.d_model, config.ffn_dim, config.activation, config.activation_dropout)
        self.fed = SublayerConnection(config, config.dropout)

    def forward(
        self,
        x: Tensor,
        cache: KeyValueCache,
        start: Tensor | int,
        memory: KeyValueCache,
        mask: Tensor,
        summary: Tensor,
        used: Tensor | None = None,
        *,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None, KeyValueCache]:
        """Decode x (B, T, D) after `start` positions of the cache -> (B, T, D), weights (B, H, T, S) or None, cache.

        The new positions are written into a cache that has room for them. In a cache of fixed size `start` is a tensor
        () and `used` (B, C) says which positions hold keys, the new one among them.
        """
        query = self.attended.pre(x)
        new = self.attention.precompute_keys(query, start)
        after = {name: append_cache(cache[name], tensor, start) for name, tensor in new.items()}
        past = after
        if isinstance(start, int):
            past = {name: tensor[:, :, : start + x.size(1)] for name, tensor in after.items()}
        x = self.attended.post(x, self.attention(query, past, used, start=start).context)
        weights = None
        if self.cross is None:
            context = expand_to_rows(self.summary(summary), x.size(0)).unsqueeze(1).expand_as(x)
        else:
            query, coverage = self.crossed.pre(x), cache.get("coverage")
            context, weights, coverage = self.cross(
                query, memory, mask, start=start, coverage=coverage, need_weights=need_weights
            )
            after |= {} if coverage is None else {"coverage": coverage}
        x = self.crossed.post(x, context)
        return self.fed.post(x, self.feed_forward(self.fed.pre(x))), weights, after


def append_cache(cache: Tensor, new: Tensor, start: Tensor | int) -> Tensor:
    """Append new positions (B, H, T, D) to a cache (B, H, C, D) whose first `start` positions are used.

    They are written into a cache that has room for them; a full one is copied. With a tensor () as `start` T is 1.
    """
    if isinstance(start, Tensor):
        return cache.index_copy_(2, start.view(1), new)
    if cache.size(2) == start:
        return torch.cat([cache, new], dim=2) if start else new
    cache[:, :, start : start + new.size(2)] = new
    return cache


def grow_cache(cache: Tensor, length: int) -> Tensor:
    """Return a copy of (B, H, T, D) with room for `length` positions."""
    grown = cache.new_empty(cache.size(0), cache.size(1), length, cache.size(3))
    grown[:, :, : cache.size(2)] = cache
    return grown
