"""The Transformer (Vaswani et al. 2017)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmt.attention import KeyValueCache
from nmt.attention.dropout import ByteMaskDropout
from nmt.models.encoder_decoder import EncoderDecoder, ParameterMatchingConfig, validate_dropout, validate_tie
from nmt.models.layers import NORMS, PositionalEmbedding
from nmt.models.seq2seq import DecoderState, copy_rows
from nmt.models.transformer_layers import (
    DecoderLayer,
    EncoderLayer,
    TransformerDecoderConfig,
    TransformerEncoderConfig,
    grow_cache,
)

CACHE_GROWTH = 8
"""Positions by which a full cache grows at least."""


class TransformerEncoder(nn.Module):
    """Reads the source; its summary is the mean of its outputs."""

    def __init__(self, config: TransformerEncoderConfig) -> None:
        super().__init__()
        self.dim = config.d_model
        self.positions = PositionalEmbedding(config.positions, config.d_model, config.max_positions)
        self.longest = config.max_positions if config.positions == "learned" else None
        self.dropout = ByteMaskDropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config, number) for number in range(config.encoder_layers))
        self.norm = NORMS[config.norm](config.d_model) if config.norm_position == "pre" else nn.Identity()
        self.layer_drop = config.layerdrop

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded source (B, S, D) and mask (B, S) -> outputs (B, S, D) and their mean (B, D)."""
        x = self.dropout(self.positions(x))
        for _, layer in _kept(self.layers, self.layer_drop if self.training else 0.0):
            x = layer(x, mask)
        x = self.norm(x)
        real = mask.unsqueeze(-1)
        return x, (x * real).sum(1) / real.sum(1)


class TransformerDecoder(nn.Module):
    """Writes the target. Its state is the prepared keys and values of the tokens so far."""

    def __init__(self, config: TransformerDecoderConfig, memory_dim: int) -> None:
        super().__init__()
        self.dim = config.d_model
        self.positions = PositionalEmbedding(config.positions, config.d_model, config.max_positions)
        self.longest = config.max_positions if config.positions == "learned" else None
        self.dropout = ByteMaskDropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, number, memory_dim) for number in range(config.decoder_layers))
        self.norm = NORMS[config.norm](config.d_model) if config.norm_position == "pre" else nn.Identity()
        self.layer_drop = config.layerdrop

    def precompute(self, values: Tensor) -> DecoderState:
        """Encoder outputs (B, S, D) -> the prepared keys and values of every layer's cross-attention."""
        return {
            f"{number}.{name}": tensor
            for number, layer in enumerate(self.layers)
            if isinstance(layer, DecoderLayer) and layer.cross is not None
            for name, tensor in layer.cross.precompute_keys(values).items()
        }

    def init_state(self, memory: DecoderState) -> DecoderState:
        """A cache of no tokens, (B, H, 0, any) each."""
        nothing = memory["summary"].new_zeros(memory["summary"].size(0), 0, self.dim)
        return {
            f"{number}.{name}": tensor
            for number, layer in enumerate(self.layers)
            if isinstance(layer, DecoderLayer)
            for name, tensor in layer.attention.precompute_keys(nothing).items()
        }

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        """Keys and values with room for more. "past" (B, T) then says by its width how many positions are taken."""
        past = state.get("past")
        num, start = state["0.keys.0"].size(0), _taken(state)
        after = {"past": torch.ones(num, start, dtype=torch.bool, device=state["0.keys.0"].device)}
        after = after if past is None else {"past": past}
        for name, tensor in state.items():
            if name != "past":
                grows = not name.endswith("covered")
                after[name] = grow_cache(tensor[:, :, :start], start + steps) if grows else tensor
        return after

    def reorder_state(self, state: DecoderState, to: Tensor, of: Tensor, since: Tensor) -> None:
        """Rows `to` become those of `of`: of keys and values only the positions that may differ."""
        taken = _taken(state)
        counts = taken - since
        pairs = torch.repeat_interleave(counts)
        steps = torch.arange(len(pairs), device=to.device) + (since - (counts.cumsum(0) - counts))[pairs]
        whole = {name: tensor for name, tensor in state.items() if name == "past" or name.endswith("covered")}
        copy_rows(whole, to, of)
        for name in state.keys() - whole.keys():
            state[name][to[pairs], :, steps] = state[name][of[pairs], :, steps]

    def unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Embedded inputs (B, T, D) -> features (B, T, D), weights (B, L, H, T, S) or None, the state after them."""
        start = _taken(state)
        if "past" in state and start + x.size(1) > state["0.keys.0"].size(2):
            state = self.allocate_cache(state, x.size(1) + max(CACHE_GROWTH, start // 2))
        x = self.dropout(self.positions(x, start))
        all_weights: list[Tensor] = []
        after: DecoderState = {}
        if "past" in state:
            after["past"] = torch.ones(x.size(0), start + x.size(1), dtype=torch.bool, device=x.device)
        for number, layer in _kept(self.layers, self.layer_drop if self.training else 0.0):
            x, weights, cache = layer(
                x,
                _of(number, state),
                start,
                _of(number, memory),
                memory["mask"],
                memory["summary"],
                need_weights=need_weights,
            )
            after |= {f"{number}.{name}": tensor for name, tensor in cache.items()}
            if weights is not None:
                all_weights.append(weights)
        return x, torch.stack(all_weights, dim=1) if all_weights and need_weights else None, after

    def output_features(self, features: Tensor) -> Tensor:
        """Features at the positions whose logits are wanted -> what is compared with the output matrix."""
        finished: Tensor = self.norm(features)
        return finished


def _taken(state: DecoderState) -> int:
    """Positions in a cache."""
    return state["past"].size(1) if "past" in state else state["0.keys.0"].size(2)


def _of(number: int, state: DecoderState) -> KeyValueCache:
    """The entries of one layer, without its number."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _kept(layers: nn.ModuleList, rate: float) -> Iterator[tuple[int, nn.Module]]:
    """The layers with their numbers, each left out with probability `rate`, but never all."""
    draws = torch.rand(len(layers)).tolist() if rate else [1.0] * len(layers)
    for number, layer in enumerate(layers):
        if draws[number] >= rate or draws[number] == max(draws):
            yield number, layer


@dataclass
class TransformerConfig(TransformerDecoderConfig, TransformerEncoderConfig, ParameterMatchingConfig):
    """A Transformer. The defaults suit the built-in language pair; `configs/experiment` has larger ones.

    architecture: transformer.
    dropout: on embeddings and on what each part adds.
    tie_embeddings: "none", "output" (target embedding = output matrix), "all" (source embedding too; needs a joint
        vocabulary).
    """

    architecture: str = "transformer"
    tie_embeddings: str = "output"

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        self.validate_transformer()
        self.validate_encoder()
        self.validate_decoder()
        validate_tie(self.tie_embeddings)
        validate_dropout(self.dropout)
        self.validate_matching()


class Transformer(EncoderDecoder):
    """A Transformer, built from `TransformerConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: TransformerConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = TransformerEncoder(config)
        decoder = TransformerDecoder(config, encoder.dim)
        super().__init__(
            encoder, decoder, config.d_model, source_size, target_size, tie=config.tie_embeddings, joint=joint
        )
