"""Recurrent decoders: Bahdanau et al. 2015, Luong et al. 2015; without attention, Cho et al. 2014.

What a decoder does with attention is its *wiring*, an option apart from the score:

    bahdanau        context from the previous state, fed into the cell:
                    c_t = attend(s_{t-1}), s_t = cell([y_{t-1}; c_t], s_{t-1})
    input_feeding   context from the new state, the attentional vector h̃ fed back:
                    s_t = cell([y_{t-1}; h̃_{t-1}], s_{t-1}), h̃_t = tanh(W [s_t; attend(s_t)])
    luong           no feeding: all states in one recurrent call, then attention for all positions at once
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nmt.attention import CROSS, NONE, Attention, AttentionConfig
from nmt.attention.dropout import ByteMaskDropout
from nmt.models.rnn_layers import CELLS, GATES, StackedRNNCell
from nmt.models.seq2seq import DecoderState, copy_rows, expand_to_rows

BRIDGES = ("linear", "zero")


@dataclass
class RNNConfigBase:
    """What recurrent encoders and decoders share.

    cell: gru or lstm.
    hidden_size: width of decoder states and of encoder outputs (a bidirectional encoder has half of it each way).
    embedding_dim: width of embeddings and of the vector that is compared with the output matrix.
    """

    cell: str = "lstm"
    embedding_dim: int = 128
    hidden_size: int = 256

    def validate_recurrent(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        if self.cell not in CELLS:
            raise ValueError(f"model.cell={self.cell}: must be one of {', '.join(CELLS)}")
        for option in ("embedding_dim", "hidden_size"):
            if getattr(self, option) < 1:
                raise ValueError(f"model.{option}={getattr(self, option)}: must be at least 1")


def _one_head() -> AttentionConfig:
    return AttentionConfig(score="additive", dim=128)


@dataclass
class RNNDecoderConfig(RNNConfigBase):
    """What a recurrent decoder can be told.

    decoder_layers: stacked recurrent layers.
    decoder: bahdanau, input_feeding or luong (see the module).
    bridge: how the decoder starts: "linear" = tanh of a projection of the source's summary, "zero" = zeros.
    attention: see `nmt.attention.AttentionConfig`.
    """

    decoder_layers: int = 1
    decoder: str = "luong"
    bridge: str = "linear"
    dropout: float = 0.1
    attention: AttentionConfig = field(default_factory=_one_head)

    def validate_decoder(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        for option, allowed in (("decoder", tuple(DECODERS)), ("bridge", BRIDGES)):
            if getattr(self, option) not in allowed:
                raise ValueError(f"model.{option}={getattr(self, option)}: must be one of {', '.join(allowed)}")
        if self.decoder_layers < 1:
            raise ValueError(f"model.decoder_layers={self.decoder_layers}: must be at least 1")
        self.attention.validate_at("model.attention", CROSS)


class RNNDecoder(nn.Module):
    """What the wirings have in common: how they start, where the context comes from, and the readout.

    The readout is h̃ = tanh(W [s; c]) (Luong 2015, equation 5), as wide as an embedding.

    Args:
        config: of the decoder.
        memory_dim: width of encoder outputs and of their summary.
    """

    longest: int | None = None
    readout_inputs = 0  # width, in embeddings, of what the readout sees beside [s; c]

    def __init__(self, config: RNNDecoderConfig, memory_dim: int) -> None:
        super().__init__()
        self.dim, self.hidden, self.num_layers = config.embedding_dim, config.hidden_size, config.decoder_layers
        self.is_lstm = config.cell == "lstm"
        self.bridge = (
            nn.Linear(memory_dim, config.decoder_layers * config.hidden_size) if config.bridge == "linear" else None
        )
        self.attention: Attention | None = None
        own = config.attention.for_layer(0)
        if own.score != NONE:
            self.attention = Attention(own, query_dim=config.hidden_size, key_dim=memory_dim)
        self.dropout = ByteMaskDropout(config.dropout)
        readout_dim = config.hidden_size + memory_dim + self.readout_inputs * config.embedding_dim
        self.readout = nn.Linear(readout_dim, config.embedding_dim, bias=False)

    def precompute(self, values: Tensor) -> DecoderState:
        """Encoder outputs (B, S, D) -> keys and values of the attention."""
        return {} if self.attention is None else self.attention.precompute_keys(values)

    def init_state(self, memory: DecoderState) -> DecoderState:
        """The state before the first token."""
        summary = memory["summary"]
        shape = (summary.size(0), self.num_layers, self.hidden)
        hidden = summary.new_zeros(shape) if self.bridge is None else torch.tanh(self.bridge(summary)).view(shape)
        state = {"hidden": hidden, "cell": torch.zeros_like(hidden)} if self.is_lstm else {"hidden": hidden}
        if self.attention is not None and self.attention.window.counts_steps:
            state["position"] = torch.zeros(summary.size(0), dtype=torch.long, device=summary.device)
        return state

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        """The state as it is: it does not grow."""
        return state

    def reorder_state(self, state: DecoderState, to: Tensor, of: Tensor, since: Tensor) -> None:
        """Rows `to` become those of `of`, whole: a step replaces all of a row."""
        copy_rows(state, to, of)

    def attend(
        self, query: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """query (B, T, hidden) -> context (B, T, D), weights (B, H, T, S) or None, what attention carries on.

        Without attention the context is the source's summary.
        """
        if self.attention is None:
            return expand_to_rows(memory["summary"], query.size(0)).unsqueeze(1).expand(-1, query.size(1), -1), None, {}
        position = state.get("position")
        attended = self.attention(
            query,
            memory,
            memory["mask"],
            start=0 if position is None else position,
            coverage=state.get("covered"),
            need_weights=need_weights,
        )
        carried = {} if position is None else {"position": position + query.size(1)}
        if attended.coverage is not None:
            carried["covered"] = attended.coverage
        return attended.context, attended.weights, carried

    def unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Embedded inputs (B, T, E) -> readouts (B, T, E), weights (B, 1, H, T, S) or None, the last state."""
        features, weights, state = self._unroll(self.dropout(x), state, memory, need_weights)
        return features, None if weights is None else weights.unsqueeze(1), state

    def _unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        raise NotImplementedError

    def output_features(self, features: Tensor) -> Tensor:
        """Readouts where logits are wanted, with dropout."""
        dropped: Tensor = self.dropout(features)
        return dropped


class LuongDecoder(RNNDecoder):
    """No feeding: the recurrence does not depend on attention, so it runs in one call (Luong et al. 2015, 3.1)."""

    def __init__(self, config: RNNDecoderConfig, memory_dim: int) -> None:
        super().__init__(config, memory_dim)
        widths = [config.embedding_dim] + [config.hidden_size] * (config.decoder_layers - 1)
        self.layers = nn.ModuleList(CELLS[config.cell](width, config.hidden_size, batch_first=True) for width in widths)

    def _unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        after: list[tuple[Tensor, ...]] = []
        for number, layer in enumerate(self.layers):
            x = self.dropout(x) if number else x
            before = tuple(tensor.unsqueeze(0).contiguous() for tensor in _layer_state(state, number, self.is_lstm))
            x, last = layer(x, before if self.is_lstm else before[0])
            after.append(tuple(tensor.squeeze(0) for tensor in (last if self.is_lstm else (last,))))
        context, weights, carried = self.attend(x, state, memory, need_weights)
        readout = torch.tanh(self.readout(torch.cat([x, context], dim=-1)))
        return readout, weights, {**_stack_state(after), **carried}


class RecurrentAttentionDecoder(RNNDecoder):
    """A loop over positions, because each step needs what attention gave before.

    `advance` is the body of the loop, apart so that it can be compiled (see `nmt.runtime.device.compile_modules`).
    """

    compiles = "advance"

    def __init__(self, config: RNNDecoderConfig, memory_dim: int) -> None:
        super().__init__(config, memory_dim)
        feeds = [self.input_dim(config, memory_dim)] + [config.hidden_size] * (config.decoder_layers - 1)
        self.layers = nn.ModuleList(StackedRNNCell(config.cell, feed, config.hidden_size) for feed in feeds)
        # The embedded tokens of all steps go through their part of the first cell in one product, outside the loop.
        self.input = nn.Linear(config.embedding_dim, GATES[config.cell] * config.hidden_size, bias=False)
        nn.init.uniform_(self.input.weight, -(config.hidden_size**-0.5), config.hidden_size**-0.5)

    def input_dim(self, config: RNNDecoderConfig, memory_dim: int) -> int:
        """Width of what is fed back."""
        raise NotImplementedError

    def run_cells(self, known: Tensor, feed: Tensor, layers: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """One step of the whole stack."""
        after: list[tuple[Tensor, ...]] = []
        for number, (cell, before) in enumerate(zip(self.layers, layers, strict=True)):
            after.append(cell(self.dropout(after[-1][0]), before) if number else cell(feed, before, known))
        return after


class BahdanauDecoder(RecurrentAttentionDecoder):
    """The query is the previous state, the context enters the cell (Bahdanau et al. 2015, A.1.2 and A.2.2).

    The readout also sees the previous token, as the paper's deep output does (tanh in the place of its maxout).
    """

    readout_inputs = 1

    def input_dim(self, config: RNNDecoderConfig, memory_dim: int) -> int:
        return memory_dim

    def advance(
        self,
        known: Tensor,
        layers: list[tuple[Tensor, ...]],
        carried: DecoderState,
        memory: DecoderState,
        need_weights: bool,
    ) -> tuple[list[tuple[Tensor, ...]], Tensor, Tensor | None, DecoderState]:
        """One step: states before it -> states after it, context (B, 1, D), weights, what attention carries on."""
        context, row, carried = self.attend(layers[-1][0].unsqueeze(1), carried, memory, need_weights)
        return self.run_cells(known, context.squeeze(1), layers), context, row, carried

    def _unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        layers = _unstack_state(state, self.is_lstm)
        states, contexts, weights, carried = [], [], [], state
        for known in self.input(x).unbind(1):
            layers, context, row, carried = self.advance(known, layers, carried, memory, need_weights)
            states.append(layers[-1][0])
            contexts.append(context)
            weights.append(row)
        readout = torch.tanh(self.readout(torch.cat([torch.stack(states, 1), torch.cat(contexts, 1), x], dim=-1)))
        return readout, _join(weights), {**_stack_state(layers), **carried}


class InputFeedingDecoder(RecurrentAttentionDecoder):
    """The attentional vector h̃ is fed into the next step (Luong et al. 2015, 3.3)."""

    def input_dim(self, config: RNNDecoderConfig, memory_dim: int) -> int:
        return config.embedding_dim

    def init_state(self, memory: DecoderState) -> DecoderState:
        state = super().init_state(memory)
        return {**state, "feed": state["hidden"].new_zeros(state["hidden"].size(0), self.dim)}

    def advance(
        self,
        known: Tensor,
        feed: Tensor,
        layers: list[tuple[Tensor, ...]],
        carried: DecoderState,
        memory: DecoderState,
        need_weights: bool,
    ) -> tuple[list[tuple[Tensor, ...]], Tensor, Tensor | None, DecoderState]:
        """One step: states before it -> states after it, readout (B, 1, E), weights, what attention carries on."""
        layers = self.run_cells(known, feed, layers)
        top = layers[-1][0].unsqueeze(1)  # (B, 1, hidden)
        context, row, carried = self.attend(top, carried, memory, need_weights)
        return layers, torch.tanh(self.readout(torch.cat([top, context], dim=-1))), row, carried

    def _unroll(
        self, x: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool
    ) -> tuple[Tensor, Tensor | None, DecoderState]:
        layers, feed = _unstack_state(state, self.is_lstm), state["feed"]
        readouts, weights, carried = [], [], state
        for known in self.input(x).unbind(1):
            layers, readout, row, carried = self.advance(known, feed, layers, carried, memory, need_weights)
            feed = readout.squeeze(1)
            readouts.append(readout)
            weights.append(row)
        return torch.cat(readouts, dim=1), _join(weights), {**_stack_state(layers), "feed": feed, **carried}


DECODERS: dict[str, type[RNNDecoder]] = {
    "bahdanau": BahdanauDecoder,
    "input_feeding": InputFeedingDecoder,
    "luong": LuongDecoder,
}


def _join(rows: list[Tensor | None]) -> Tensor | None:
    """Weights of single steps (B, H, 1, S) -> (B, H, T, S); None when they were not asked for."""
    present = [row for row in rows if row is not None]
    return torch.cat(present, dim=2) if present else None


def _layer_state(state: DecoderState, layer: int, is_lstm: bool) -> tuple[Tensor, ...]:
    return tuple(state[name][:, layer] for name in (("hidden", "cell") if is_lstm else ("hidden",)))


def _unstack_state(state: DecoderState, is_lstm: bool) -> list[tuple[Tensor, ...]]:
    return [_layer_state(state, layer, is_lstm) for layer in range(state["hidden"].size(1))]


def _stack_state(layers: list[tuple[Tensor, ...]]) -> DecoderState:
    """One tuple per layer of (B, hidden) -> {"hidden": (B, L, hidden), "cell": …}."""
    return {
        name: torch.stack(parts, dim=1)
        for name, parts in zip(("hidden", "cell"), zip(*layers, strict=True), strict=False)
    }
