"""Recurrent encoder-decoders: Bahdanau et al. 2015, Luong et al. 2015; without attention, Cho et al. 2014.

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

from nmt.attention import Attention, AttentionConfig
from nmt.models.base import AttentionRecord, Seq2Seq, State
from nmt.models.layers import Dropout, embedding
from nmt.models.recurrent import CELLS, GATES, Encoder, FeedCell

BRIDGES = ("linear", "zero")
TIES = ("none", "output", "all")


@dataclass
class RNNConfig:
    """A recurrent encoder-decoder. The defaults suit the built-in language pair; `configs/experiment` has larger ones.

    cell: gru or lstm.
    embedding: width of embeddings and of the vector that is compared with the output matrix.
    hidden: width of decoder states and of encoder outputs (a bidirectional encoder has half of it each way).
    encoder_layers, decoder_layers: stacked recurrent layers.
    bidirectional: read the source both ways.
    wiring: bahdanau, input_feeding or luong (see the module).
    bridge: how the decoder starts: "linear" = tanh of a projection of the last encoder states, "zero" = zeros.
    dropout: on embeddings, between layers and before the output.
    tie: "none", "output" (target embedding = output matrix), "all" (source embedding too; needs a joint vocabulary).
    attention: see `nmt.attention.AttentionConfig`.
    """

    architecture: str = "rnn"
    cell: str = "lstm"
    embedding: int = 128
    hidden: int = 256
    encoder_layers: int = 1
    decoder_layers: int = 1
    bidirectional: bool = True
    wiring: str = "luong"
    bridge: str = "linear"
    dropout: float = 0.1
    tie: str = "output"
    attention: AttentionConfig = field(default_factory=AttentionConfig)

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        for option, allowed in (("cell", CELLS), ("wiring", WIRINGS), ("bridge", BRIDGES), ("tie", TIES)):
            if getattr(self, option) not in allowed:
                raise ValueError(f"model.{option}={getattr(self, option)}: must be one of {', '.join(allowed)}")
        for option in ("embedding", "hidden", "encoder_layers", "decoder_layers"):
            if getattr(self, option) < 1:
                raise ValueError(f"model.{option}={getattr(self, option)}: must be at least 1")
        if self.bidirectional and self.hidden % 2:
            raise ValueError(
                f"model.hidden={self.hidden}: must be even, a bidirectional encoder has half of it each way"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout}: must be at least 0 and below 1")
        self.attention.validate()


class Decoder(nn.Module):
    """What the wirings have in common: where the context comes from, the stack's upper layers and the readout.

    The readout is h̃ = tanh(W [s; c]) (Luong 2015, equation 5), as wide as an embedding.
    """

    readout_inputs = 0  # width, in embeddings, of what the readout sees beside [s; c]

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.is_lstm = config.cell == "lstm"
        self.attention: Attention | None = None
        if config.attention.score != "none":
            self.attention = Attention(config.attention, query_dim=config.hidden, key_dim=config.hidden)
        self.dropout = Dropout(config.dropout)
        self.readout = nn.Linear(
            2 * config.hidden + self.readout_inputs * config.embedding, config.embedding, bias=False
        )

    def context(self, query: Tensor, memory: State) -> tuple[Tensor, Tensor | None]:
        """query (B, T, hidden) -> context (B, T, hidden), weights (B, T, S); without attention the fixed vector."""
        if self.attention is None:
            return memory["summary"].unsqueeze(1).expand(-1, query.size(1), -1), None
        context, weights = self.attention(query, memory["keys"], memory["values"], memory["mask"])
        return context, weights

    def start(self, hidden: Tensor) -> State:
        """The first state from what the bridge gives: (B, L, hidden)."""
        return {"hidden": hidden, "cell": torch.zeros_like(hidden)} if self.is_lstm else {"hidden": hidden}

    def unroll(self, x: Tensor, state: State, memory: State) -> tuple[Tensor, Tensor | None, State]:
        """Embedded inputs (B, T, E) -> readouts (B, T, E), weights (B, T, S) or None, the state after the last."""
        raise NotImplementedError


class LuongDecoder(Decoder):
    """No feeding: the recurrence does not depend on attention, so it runs in one call (Luong et al. 2015, 3.1)."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        widths = [config.embedding] + [config.hidden] * (config.decoder_layers - 1)
        self.layers = nn.ModuleList(CELLS[config.cell](width, config.hidden, batch_first=True) for width in widths)

    def unroll(self, x: Tensor, state: State, memory: State) -> tuple[Tensor, Tensor | None, State]:
        after: list[tuple[Tensor, ...]] = []
        for number, layer in enumerate(self.layers):
            x = self.dropout(x) if number else x
            before = tuple(tensor.unsqueeze(0).contiguous() for tensor in _layer_state(state, number, self.is_lstm))
            x, last = layer(x, before if self.is_lstm else before[0])
            after.append(tuple(tensor.squeeze(0) for tensor in (last if self.is_lstm else (last,))))
        context, weights = self.context(x, memory)
        return torch.tanh(self.readout(torch.cat([x, context], dim=-1))), weights, _stack_state(after)


class FeedingDecoder(Decoder):
    """A loop over positions, because each step needs what attention gave before."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        feeds = [self.feed_dim(config)] + [config.hidden] * (config.decoder_layers - 1)
        self.layers = nn.ModuleList(FeedCell(config.cell, feed, config.hidden) for feed in feeds)
        # The embedded tokens of all steps go through their part of the first cell in one product, outside the loop.
        self.input = nn.Linear(config.embedding, GATES[config.cell] * config.hidden, bias=False)
        nn.init.uniform_(self.input.weight, -(config.hidden**-0.5), config.hidden**-0.5)

    def feed_dim(self, config: RNNConfig) -> int:
        """Width of what is fed back."""
        raise NotImplementedError

    def cells(self, known: Tensor, feed: Tensor, layers: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """One step of the whole stack."""
        after: list[tuple[Tensor, ...]] = []
        for number, (cell, before) in enumerate(zip(self.layers, layers, strict=True)):
            after.append(cell(self.dropout(after[-1][0]), before) if number else cell(feed, before, known))
        return after


class BahdanauDecoder(FeedingDecoder):
    """The query is the previous state, the context enters the cell (Bahdanau et al. 2015, A.1.2 and A.2.2).

    The readout also sees the previous token, as the paper's deep output does (tanh in the place of its maxout).
    """

    readout_inputs = 1

    def feed_dim(self, config: RNNConfig) -> int:
        return config.hidden

    def unroll(self, x: Tensor, state: State, memory: State) -> tuple[Tensor, Tensor | None, State]:
        layers = _unstack_state(state, self.is_lstm)
        states, contexts, weights = [], [], []
        for known in self.input(x).unbind(1):
            context, row = self.context(layers[-1][0].unsqueeze(1), memory)
            layers = self.cells(known, context.squeeze(1), layers)
            states.append(layers[-1][0])
            contexts.append(context)
            weights.append(row)
        readout = torch.tanh(self.readout(torch.cat([torch.stack(states, 1), torch.cat(contexts, 1), x], dim=-1)))
        return readout, _join(weights), _stack_state(layers)


class InputFeedingDecoder(FeedingDecoder):
    """The attentional vector h̃ is fed into the next step (Luong et al. 2015, 3.3)."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        self.width = self.feed_dim(config)

    def feed_dim(self, config: RNNConfig) -> int:
        return config.embedding

    def start(self, hidden: Tensor) -> State:
        return {**super().start(hidden), "feed": hidden.new_zeros(hidden.size(0), self.width)}

    def unroll(self, x: Tensor, state: State, memory: State) -> tuple[Tensor, Tensor | None, State]:
        layers, feed = _unstack_state(state, self.is_lstm), state["feed"]
        readouts, weights = [], []
        for known in self.input(x).unbind(1):
            layers = self.cells(known, feed, layers)
            top = layers[-1][0].unsqueeze(1)  # (B, 1, hidden)
            context, row = self.context(top, memory)
            readout = torch.tanh(self.readout(torch.cat([top, context], dim=-1)))
            feed = readout.squeeze(1)
            readouts.append(readout)
            weights.append(row)
        return torch.cat(readouts, dim=1), _join(weights), {**_stack_state(layers), "feed": feed}


WIRINGS: dict[str, type[Decoder]] = {
    "bahdanau": BahdanauDecoder,
    "input_feeding": InputFeedingDecoder,
    "luong": LuongDecoder,
}


def _join(rows: list[Tensor | None]) -> Tensor | None:
    """Weights of single steps (B, 1, S) -> (B, T, S); None without attention."""
    present = [row for row in rows if row is not None]
    return torch.cat(present, dim=1) if present else None


def _layer_state(state: State, layer: int, is_lstm: bool) -> tuple[Tensor, ...]:
    return tuple(state[name][:, layer] for name in (("hidden", "cell") if is_lstm else ("hidden",)))


def _unstack_state(state: State, is_lstm: bool) -> list[tuple[Tensor, ...]]:
    return [_layer_state(state, layer, is_lstm) for layer in range(state["hidden"].size(1))]


def _stack_state(layers: list[tuple[Tensor, ...]]) -> State:
    """One tuple per layer of (B, hidden) -> {"hidden": (B, L, hidden), "cell": …}."""
    return {
        name: torch.stack(parts, dim=1)
        for name, parts in zip(("hidden", "cell"), zip(*layers, strict=True), strict=False)
    }


class RNN(Seq2Seq):
    """A recurrent encoder-decoder, built from `RNNConfig`.

    Args:
        config: validated.
        source_size, target_size: vocabulary sizes.
        joint: both sides share one vocabulary.
        pad: id of the padding token on both sides.

    Raises:
        ValueError: tie=all without a joint vocabulary, or a score that the widths do not allow.
    """

    def __init__(self, config: RNNConfig, source_size: int, target_size: int, *, joint: bool, pad: int = 0) -> None:
        super().__init__()
        if config.tie == "all" and not joint:
            raise ValueError(
                "model.tie=all: needs one vocabulary for both languages; "
                "set data.tokenizer.joint=true or model.tie=output"
            )
        self.source_embedding = embedding(source_size, config.embedding, pad)
        self.target_embedding = (
            self.source_embedding if config.tie == "all" else embedding(target_size, config.embedding, pad)
        )
        self.encoder = Encoder(
            config.cell,
            config.embedding,
            config.hidden,
            layers=config.encoder_layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
        )
        self.bridge = (
            nn.Linear(config.hidden, config.decoder_layers * config.hidden) if config.bridge == "linear" else None
        )
        self.decoder = WIRINGS[config.wiring](config)
        self.output = nn.Linear(config.embedding, target_size)
        nn.init.zeros_(self.output.bias)
        if config.tie != "none":
            self.output.weight = self.target_embedding.weight
        self.dropout = Dropout(config.dropout)
        self.num_layers, self.hidden = config.decoder_layers, config.hidden

    def encode(self, source: Tensor, source_mask: Tensor) -> State:
        values, summary = self.encoder(self.dropout(self.source_embedding(source)), source_mask)
        memory = {"values": values, "mask": source_mask, "summary": summary}
        if self.decoder.attention is not None:
            memory["keys"] = self.decoder.attention.prepare(values)
        return memory

    def start(self, memory: State) -> State:
        summary = memory["summary"]
        shape = (summary.size(0), self.num_layers, self.hidden)
        if self.bridge is None:
            return self.decoder.start(summary.new_zeros(shape))
        return self.decoder.start(torch.tanh(self.bridge(summary)).view(shape))

    def step(
        self, token: Tensor, state: State, memory: State, *, attention: bool = False
    ) -> tuple[Tensor, AttentionRecord | None, State]:
        x = self.dropout(self.target_embedding(token)).unsqueeze(1)  # (B, 1, E)
        readout, weights, state = self.decoder.unroll(x, state, memory)
        logits: Tensor = self.output(self.dropout(readout.squeeze(1)))
        return logits, _record(weights) if attention else None, state

    def forward(
        self,
        source: Tensor,
        source_mask: Tensor,
        inputs: Tensor,
        *,
        attention: bool = False,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, AttentionRecord | None]:
        memory = self.encode(source, source_mask)
        x = self.dropout(self.target_embedding(inputs))  # (B, T, E)
        readout, weights, _ = self.decoder.unroll(x, self.start(memory), memory)
        features = readout if positions is None else readout[positions]  # (B, T, E) or (N, E)
        return self.output(self.dropout(features)), _record(weights) if attention else None


def _record(weights: Tensor | None) -> AttentionRecord | None:
    """Weights (B, T, S) of the one layer and head as a record."""
    return None if weights is None else AttentionRecord(weights[:, None, None])
