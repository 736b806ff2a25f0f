"""The Transformer (Vaswani et al. 2017)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nmt.attention import KeyValueCache
from nmt.attention.dropout import ByteMaskDropout
from nmt.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
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
"""Minimum number of positions by which a full cache grows."""


class _LayerStack(nn.Module):
    """Positions, layers and the last norm of either side."""

    def __init__(self, config: Any, layers: Iterator[nn.Module]) -> None:
        super().__init__()
        self.input_dim = self.dim = config.d_model
        self.positions = PositionalEmbedding(config.positions, config.d_model, config.max_positions)
        self.max_length = config.max_positions if config.positions == "learned" else None
        self.dropout = ByteMaskDropout(config.dropout)
        self.layers = nn.ModuleList(layers)
        self.norm = NORMS[config.norm](config.d_model) if config.norm_position == "pre" else nn.Identity()
        self.layer_drop = config.layerdrop

    def sample_layers(self) -> Iterator[tuple[int, nn.Module]]:
        """Yield the layers with their numbers, in training without those that layerdrop leaves out."""
        return _sample_layers(self.layers, self.layer_drop if self.training else 0.0)


class TransformerEncoder(_LayerStack):
    """A stack of encoder layers; the source summary is the mean of its outputs."""

    def __init__(self, config: TransformerEncoderConfig) -> None:
        super().__init__(config, (EncoderLayer(config, number) for number in range(config.encoder_layers)))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the embedded source (B, S, D) with mask (B, S) -> outputs (B, S, D) and their mean (B, D)."""
        x = self.dropout(self.positions(x))
        for _, layer in self.sample_layers():
            x = layer(x, mask)
        x = self.norm(x)
        real = mask.unsqueeze(-1)
        return x, (x * real).sum(1) / real.sum(1)


class TransformerDecoder(_LayerStack):
    """A stack of decoder layers. Its state is the key/value cache of the tokens so far."""

    def __init__(self, config: TransformerDecoderConfig, memory_dim: int) -> None:
        super().__init__(config, (DecoderLayer(config, number, memory_dim) for number in range(config.decoder_layers)))

    def precompute(self, values: Tensor) -> DecoderState:
        """Compute the keys and values of every layer's cross-attention from the encoder outputs (B, S, D)."""
        return {
            f"{number}.{name}": tensor
            for number, layer in enumerate(self.layers)
            if isinstance(layer, DecoderLayer) and layer.cross is not None
            for name, tensor in layer.cross.precompute_keys(values).items()
        }

    def init_state(self, memory: DecoderState) -> DecoderState:
        """Return an empty cache, (B, H, 0, any) each."""
        empty = memory["summary"].new_zeros(memory["summary"].size(0), 0, self.dim)
        return {
            f"{number}.{name}": tensor
            for number, layer in enumerate(self.layers)
            if isinstance(layer, DecoderLayer)
            for name, tensor in layer.attention.precompute_keys(empty).items()
        }

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        """Return keys and values with room for more; the width of "past" (B, T) is the number of used positions."""
        start, keys = _cache_length(state), state["0.keys.0"]
        assert isinstance(start, int), "a cache of fixed size does not grow"
        after = {"past": state.get("past", keys.new_ones(keys.size(0), start, dtype=torch.bool))}
        for name, tensor in state.items():
            after[name] = grow_cache(tensor[:, :, :start], start + steps) if _is_cache(name) else tensor
        return after

    def fixed_state(self, state: DecoderState, steps: int) -> DecoderState:
        """Return keys and values (B, H, steps, D); "position" (B,) is the number of used positions."""
        after, used = dict(state), state["0.keys.0"].size(2)
        for name in filter(_is_cache, state):
            after[name] = grow_cache(state[name], steps)
            after[name][:, :, used:] = 0  # no key of later positions is used, but 0 times what is not a number is none
        if "position" not in state:
            after["position"] = torch.full((state["0.keys.0"].size(0),), used, device=state["0.keys.0"].device)
        return after

    def reorder_state(self, state: DecoderState, rows: Tensor, source_rows: Tensor, first_steps: Tensor) -> None:
        """Overwrite rows: of keys and values only the positions that may differ, or on a GPU, where finding them waits
        for the device, all."""
        if rows.device.type != "cpu":
            copy_rows(state, rows, source_rows)
            return
        counts = _cache_length(state) - first_steps
        pairs = torch.repeat_interleave(counts)
        offsets = first_steps - (counts.cumsum(0) - counts)
        steps = torch.arange(len(pairs), device=rows.device) + offsets[pairs]
        copy_rows({name: x for name, x in state.items() if not _is_cache(name)}, rows, source_rows)
        for name in filter(_is_cache, state):
            state[name][rows[pairs], :, steps] = state[name][source_rows[pairs], :, steps]

    def unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Decode embedded inputs (B, T, D) -> features (B, T, D), weights (B, L, H, T, S) or None, the next state."""
        start = _cache_length(state)
        if "past" in state and isinstance(start, int) and start + x.size(1) > state["0.keys.0"].size(2):
            state = self.allocate_cache(state, x.size(1) + max(CACHE_GROWTH, start // 2))
        x = self.dropout(self.positions(x, start))
        all_weights: list[Tensor] = []
        after: DecoderState = {}
        used = None
        if isinstance(start, Tensor):
            after["position"] = state["position"] + 1
            used = (torch.arange(state["0.keys.0"].size(2), device=x.device) <= start).expand(x.size(0), -1)
        elif "past" in state:
            after["past"] = torch.ones(x.size(0), start + x.size(1), dtype=torch.bool, device=x.device)
        for number, layer in self.sample_layers():
            cache, keys = _layer_entries(number, state), _layer_entries(number, memory)
            x, weights, cache = layer(
                x, cache, start, keys, memory["mask"], memory["summary"], used, need_weights=need_weights
            )
            after |= {f"{number}.{name}": tensor for name, tensor in cache.items()}
            if weights is not None:
                all_weights.append(weights)
        return x, torch.stack(all_weights, dim=1) if all_weights and need_weights else None, after

    def output_features(self, features: Tensor) -> Tensor:
        """Normalize features at the positions whose logits are needed."""
        normalized: Tensor = self.norm(features)
        return normalized


def _is_cache(name: str) -> bool:
    """Return whether an entry of the state holds keys or values, which grow with the target."""
    return name not in ("past", "position") and not name.endswith("coverage")


def _cache_length(state: DecoderState) -> Tensor | int:
    """Return the number of used positions of a cache, a tensor () if its size is fixed."""
    if "position" in state:
        return state["position"][0]
    return state["past"].size(1) if "past" in state else state["0.keys.0"].size(2)


def _layer_entries(number: int, state: DecoderState) -> KeyValueCache:
    """Return the entries of one layer, without its number."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _sample_layers(layers: nn.ModuleList, rate: float) -> Iterator[tuple[int, nn.Module]]:
    """Yield the layers with their numbers, each left out with probability `rate`, but never all."""
    draws = torch.rand(len(layers)).tolist() if rate else [1.0] * len(layers)
    for number, layer in enumerate(layers):
        if draws[number] >= rate or draws[number] == max(draws):
            yield number, layer


@dataclass
class TransformerConfig(TransformerDecoderConfig, TransformerEncoderConfig, EncoderDecoderConfig):
    """A Transformer. The defaults suit the built-in language pair; `configs/experiment` has larger ones."""

    architecture: str = "transformer"
    tie_embeddings: str = "output"


class Transformer(EncoderDecoder):
    """A Transformer, built from `TransformerConfig`; the arguments and errors are those of `EncoderDecoder`."""

    def __init__(self, config: TransformerConfig, source_size: int, target_size: int, *, joint: bool) -> None:
        encoder = TransformerEncoder(config)
        decoder = TransformerDecoder(config, encoder.dim)
        super().__init__(config, encoder, decoder, source_size, target_size, joint=joint)
