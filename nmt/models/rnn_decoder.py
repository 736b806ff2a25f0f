"""Recurrent decoders: Bahdanau et al. 2015, Luong et al. 2015; without attention, Cho et al. 2014.

The decoders differ in the state that is the query, and in the use of the context; the score is another option:

    bahdanau        context from the previous state, fed into the cell:
                    c_t = attend(s_{t-1}), s_t = cell([y_{t-1}; c_t], s_{t-1})
    input_feeding   context from the new state, the attentional vector h̃ fed back:
                    s_t = cell([y_{t-1}; h̃_{t-1}], s_{t-1}), h̃_t = tanh(W [s_t; attend(s_t)])
    luong           nothing fed back: all states in one recurrent call, then attention for all positions at once
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nmt.attention import CROSS, NO_ATTENTION, AttentionConfig, AttentionLayer
from nmt.attention.dropout import ByteMaskDropout
from nmt.attention.linear import Linear, loop_over
from nmt.config import check_choice, check_range
from nmt.models.rnn_layers import CELLS, GATES, StackedRNNCell
from nmt.models.seq2seq import DecoderState, copy_rows, expand_to_rows

BRIDGES = ("linear", "zero")

Layers = list[tuple[Tensor, ...]]
"""For each layer its hidden state, (B, hidden), and for an LSTM its cell."""

Unrolled = tuple[Tensor, Tensor | None, DecoderState]
"""Features (B, T, any), attention weights or None, the state after them."""


@dataclass
class RNNConfigBase:
    """Options that recurrent encoders and decoders share.

    cell: the kind of recurrent cell.
    hidden_size: width of decoder states and of encoder outputs (a bidirectional encoder has half of it each way).
    embedding_dim: width of embeddings and of the vector that is compared with the output matrix.
    """

    cell: str = "lstm"
    embedding_dim: int = 128
    hidden_size: int = 256

    def validate_recurrent(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_choice("model", self, "cell", CELLS)
        check_range("model", self, ["embedding_dim", "hidden_size"], minimum=1)


@dataclass
class RNNDecoderConfig(RNNConfigBase):
    """Options of a recurrent decoder.

    decoder_layers: number of layers of the decoder.
    decoder: where attention enters: bahdanau = the context of the previous state feeds the cell; input_feeding = the
        attentional vector feeds the next step; luong = nothing is fed back, which is the fastest.
    bridge: initial state of the decoder: linear = tanh of a projection of the source summary, zero = zeros.
    attention: attention to the source; docs/attention.md has the formulas.
    """

    decoder_layers: int = 1
    decoder: str = "luong"
    bridge: str = "linear"
    dropout: float = 0.1
    attention: AttentionConfig = field(default_factory=lambda: AttentionConfig(score="additive", dim=128))

    def validate_decoder(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        self.validate_recurrent()
        check_choice("model", self, "decoder", DECODERS)
        check_choice("model", self, "bridge", BRIDGES)
        check_range("model", self, ["decoder_layers"], minimum=1)
        self.attention.validate_at("model.attention", CROSS)


class RNNDecoder(nn.Module):
    """The common base of the recurrent decoders: initial state, attention, and readout.

    The readout is h̃ = tanh(W [s; c]) (Luong 2015, equation 5), as wide as an embedding.

    Args:
        config: of the decoder.
        memory_dim: width of encoder outputs and of the source summary.
    """

    max_length: int | None = None
    readout_inputs = 0  # width, in embeddings, of the inputs of the readout besides [s; c]

    def __init__(self, config: RNNDecoderConfig, memory_dim: int) -> None:
        super().__init__()
        self.dim, self.hidden, self.num_layers = config.embedding_dim, config.hidden_size, config.decoder_layers
        self.is_lstm = config.cell == "lstm"
        self.bridge = Linear(memory_dim, self.num_layers * self.hidden) if config.bridge == "linear" else None
        self.attention: AttentionLayer | None = None
        attention = config.attention.for_layer(0)
        if attention.score != NO_ATTENTION:
            self.attention = AttentionLayer(attention, query_dim=self.hidden, key_dim=memory_dim)
        self.dropout = ByteMaskDropout(config.dropout)
        self.readout = Linear(self.hidden + memory_dim + self.readout_inputs * self.dim, self.dim, bias=False)

    def precompute(self, values: Tensor) -> DecoderState:
        """Compute keys and values of the attention from the encoder outputs (B, S, D)."""
        return {} if self.attention is None else self.attention.precompute_keys(values)

    def init_state(self, memory: DecoderState) -> DecoderState:
        """Return the state before the first token."""
        summary = memory["summary"]
        shape = (summary.size(0), self.num_layers, self.hidden)
        hidden = summary.new_zeros(shape) if self.bridge is None else torch.tanh(self.bridge(summary)).view(shape)
        state = {"hidden": hidden, "cell": torch.zeros_like(hidden)} if self.is_lstm else {"hidden": hidden}
        if self.attention is not None and (self.attention.window.counts_steps or self.attention.overrides):
            state["position"] = torch.zeros(summary.size(0), dtype=torch.long, device=summary.device)
        return state

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        """Return the state unchanged: it does not grow."""
        return state

    def fixed_state(self, state: DecoderState, steps: int) -> DecoderState:
        """Return the state unchanged: its shapes are fixed."""
        return state

    def reorder_state(self, state: DecoderState, rows: Tensor, source_rows: Tensor, first_steps: Tensor) -> None:
        """Overwrite whole rows: a step replaces all of a row."""
        copy_rows(state, rows, source_rows)

    def attend(self, query: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool) -> Unrolled:
        """Attend with query (B, T, hidden) -> context (B, T, D), weights (B, H, T, S) or None, attention's next state.

        Without attention the context is the source summary.
        """
        if self.attention is None:
            return expand_to_rows(memory["summary"], query.size(0)).unsqueeze(1).expand(-1, query.size(1), -1), None, {}
        position = state.get("position")
        start, coverage = 0 if position is None else position, state.get("coverage")
        context, weights, coverage = self.attention(
            query, memory, memory["mask"], start=start, coverage=coverage, need_weights=need_weights
        )
        after = {} if position is None else {"position": position + query.size(1)}
        return context, weights, after if coverage is None else {**after, "coverage": coverage}

    def unroll(self, x: Tensor, state: DecoderState, memory: DecoderState, *, need_weights: bool) -> Unrolled:
        """Decode embedded inputs (B, T, E) -> readouts (B, T, E), weights (B, 1, H, T, S) or None, the last state."""
        readouts, weights, state = self._unroll(self.dropout(x), state, memory, need_weights)
        return readouts, None if weights is None else weights.unsqueeze(1), state

    def _unroll(self, x: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool) -> Unrolled:
        raise NotImplementedError

    def read_out(self, *inputs: Tensor) -> Tensor:
        """Compute the readout of states, contexts and further inputs, (B, T, any) each -> (B, T, E)."""
        return torch.tanh(self.readout(torch.cat(inputs, dim=-1)))

    def output_features(self, features: Tensor) -> Tensor:
        """Apply dropout to the readouts whose logits are needed."""
        dropped: Tensor = self.dropout(features)
        return dropped


class LuongDecoder(RNNDecoder):
    """The recurrence does not depend on attention, so it runs in one call (Luong et al. 2015, 3.1)."""

    def __init__(self, config: RNNDecoderConfig, memory_dim: int) -> None:
        super().__init__(config, memory_dim)
        widths = [config.embedding_dim] + [config.hidden_size] * (config.decoder_layers - 1)
        self.layers = nn.ModuleList(CELLS[config.cell](width, config.hidden_size, batch_first=True) for width in widths)

    def _unroll(self, x: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool) -> Unrolled:
        after: Layers = []
        for number, (layer, before) in enumerate(zip(self.layers, _unstack_state(state), strict=True)):
            x = self.dropout(x) if number else x
            initial = tuple(tensor.unsqueeze(0).contiguous() for tensor in before)
            x, last = layer(x, initial if self.is_lstm else initial[0])
            after.append(tuple(tensor.squeeze(0) for tensor in (last if self.is_lstm else (last,))))
        context, weights, attention_state = self.attend(x, state, memory, need_weights)
        return self.read_out(x, context), weights, {**_stack_state(after), **attention_state}


class RecurrentAttentionDecoder(RNNDecoder):
    """A loop over positions, because each step depends on the attention of the step before.

    `advance` is the body of the loop, a method so that it can be compiled (see `nmt.runtime.device.compile_modules`).
    """

    compiles = "advance"

    def __init__(self, config: RNNDecoderConfig, memory_dim: int) -> None:
        super().__init__(config, memory_dim)
        widths = [self.input_dim(config, memory_dim)] + [config.hidden_size] * (config.decoder_layers - 1)
        self.layers = nn.ModuleList(StackedRNNCell(config.cell, width, config.hidden_size) for width in widths)
        # The embedded tokens of all steps go through their part of the first cell in one product, outside the loop.
        self.input = Linear(config.embedding_dim, GATES[config.cell] * config.hidden_size, bias=False)
        nn.init.uniform_(self.input.weight, -(config.hidden_size**-0.5), config.hidden_size**-0.5)

    def input_dim(self, config: RNNDecoderConfig, memory_dim: int) -> int:
        """Return the width of the recurrent input."""
        raise NotImplementedError

    def _unroll(self, x: Tensor, state: DecoderState, memory: DecoderState, need_weights: bool) -> Unrolled:
        layers, carry = _unstack_state(state), state
        top_states, outputs, all_weights = [], [], []
        gates = self.input(x)
        with loop_over(self):
            for token_gates in gates.unbind(1):
                layers, output, weights, carry = self.advance(token_gates, layers, carry, memory, need_weights)
                top_states.append(layers[-1][0])
                outputs.append(output)
                all_weights.append(weights)
        readouts = self.collect_readouts(top_states, torch.cat(outputs, dim=1), x)
        steps = [weights for weights in all_weights if weights is not None]
        return readouts, torch.cat(steps, dim=2) if steps else None, {**_stack_state(layers), **carry}

    def advance(
        self, token_gates: Tensor, layers: Layers, carry: DecoderState, memory: DecoderState, need_weights: bool
    ) -> tuple[Layers, Tensor, Tensor | None, DecoderState]:
        """Run one step.

        Args:
            token_gates: (B, gates * hidden), the part of the embedded token in the first cell.
            layers: state of every layer before the step.
            carry: recurrent input and attention state from the step before.

        Returns:
            the states after it; context or readout (B, 1, any); weights (B, H, 1, S) or None; the next carry.
        """
        raise NotImplementedError

    def collect_readouts(self, top_states: list[Tensor], outputs: Tensor, x: Tensor) -> Tensor:
        """Return the readouts (B, T, E) from the states of the top layer, the steps' outputs and the inputs."""
        raise NotImplementedError

    def run_cells(self, token_gates: Tensor, feed: Tensor, layers: Layers) -> Layers:
        """Run one step of all layers."""
        after: Layers = []
        for number, (cell, before) in enumerate(zip(self.layers, layers, strict=True)):
            after.append(cell(self.dropout(after[-1][0]), before) if number else cell(feed, before, token_gates))
        return after


class BahdanauDecoder(RecurrentAttentionDecoder):
    """The query is the previous state, the context enters the cell (Bahdanau et al. 2015, A.1.2 and A.2.2).

    The previous token is an input of the readout too, as of the paper's deep output (tanh in the place of its maxout).
    """

    readout_inputs = 1

    def input_dim(self, config: RNNDecoderConfig, memory_dim: int) -> int:
        return memory_dim

    def advance(
        self, token_gates: Tensor, layers: Layers, carry: DecoderState, memory: DecoderState, need_weights: bool
    ) -> tuple[Layers, Tensor, Tensor | None, DecoderState]:
        context, weights, carry = self.attend(layers[-1][0].unsqueeze(1), carry, memory, need_weights)
        return self.run_cells(token_gates, context.squeeze(1), layers), context, weights, carry

    def collect_readouts(self, top_states: list[Tensor], outputs: Tensor, x: Tensor) -> Tensor:
        return self.read_out(torch.stack(top_states, 1), outputs, x)


class InputFeedingDecoder(RecurrentAttentionDecoder):
    """The attentional vector h̃ is fed into the next step (Luong et al. 2015, 3.3)."""

    def input_dim(self, config: RNNDecoderConfig, memory_dim: int) -> int:
        return config.embedding_dim

    def init_state(self, memory: DecoderState) -> DecoderState:
        state = super().init_state(memory)
        return {**state, "feed": state["hidden"].new_zeros(state["hidden"].size(0), self.dim)}

    def advance(
        self, token_gates: Tensor, layers: Layers, carry: DecoderState, memory: DecoderState, need_weights: bool
    ) -> tuple[Layers, Tensor, Tensor | None, DecoderState]:
        layers = self.run_cells(token_gates, carry["feed"], layers)
        top_state = layers[-1][0].unsqueeze(1)  # (B, 1, hidden)
        context, weights, attention_state = self.attend(top_state, carry, memory, need_weights)
        readout = self.read_out(top_state, context)
        return layers, readout, weights, {"feed": readout.squeeze(1), **attention_state}

    def collect_readouts(self, top_states: list[Tensor], outputs: Tensor, x: Tensor) -> Tensor:
        return outputs


DECODERS: dict[str, type[RNNDecoder]] = {
    "bahdanau": BahdanauDecoder,
    "input_feeding": InputFeedingDecoder,
    "luong": LuongDecoder,
}


def _unstack_state(state: DecoderState) -> Layers:
    """Return the states of the layers, out of {"hidden": (B, L, hidden), "cell": …}."""
    names = [name for name in ("hidden", "cell") if name in state]
    return [tuple(state[name][:, layer] for name in names) for layer in range(state["hidden"].size(1))]


def _stack_state(layers: Layers) -> DecoderState:
    """Return the states of the layers as {"hidden": (B, L, hidden), "cell": …}."""
    return {
        name: torch.stack(tensors, dim=1)
        for name, tensors in zip(("hidden", "cell"), zip(*layers, strict=True), strict=False)
    }
