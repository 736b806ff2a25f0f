"""Recurrent layers: a bidirectional encoder, and a cell for decoders with a recurrent input."""

import torch
from torch import Tensor, nn

from nmt.attention.dropout import ByteMaskDropout
from nmt.attention.linear import Linear

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
GATES = {"gru": 3, "lstm": 4}


class RNNEncoder(nn.Module):
    """Stacked recurrent layers, each optionally in both directions.

    The backward direction runs over sentences that are reversed within their own length, so that padding always comes
    last and never affects a real position, and no sequence has to be packed.

    Args:
        cell: a key of `CELLS`.
        width: of the embedded source.
        hidden: width of the outputs; each of two directions has half of it.
        layers: number of stacked layers.
        bidirectional: whether each layer runs in both directions.
        dropout: on the embedded source and between layers.
    """

    max_length: int | None = None

    def __init__(self, cell: str, width: int, hidden: int, layers: int, *, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.input_dim, self.dim = width, hidden
        self.layers = nn.ModuleList()
        for _ in range(layers):
            cells = [CELLS[cell](width, hidden // directions, batch_first=True) for _ in range(directions)]
            self.layers.append(nn.ModuleList(cells))
            width = hidden
        self.dropout = ByteMaskDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the embedded source (B, S, D) with mask (B, S) -> outputs (B, S, hidden), last states (B, hidden)."""
        lengths = mask.sum(1, keepdim=True)  # (B, 1)
        steps = torch.arange(mask.size(1), device=mask.device)
        reverse = torch.where(mask, lengths - 1 - steps, steps).unsqueeze(-1)  # (B, S, 1); its own inverse
        last = (lengths - 1).unsqueeze(-1)  # (B, 1, 1)
        for directions in self.layers:
            assert isinstance(directions, nn.ModuleList)
            x = self.dropout(x)
            forwards, _ = directions[0](x)
            ends = [_select(forwards, last)]
            outputs = [forwards]
            if len(directions) == 2:
                backwards, _ = directions[1](_select(x, reverse))
                ends.append(_select(backwards, last))
                outputs.append(_select(backwards, reverse))
            x = torch.cat(outputs, dim=-1)
        return x, torch.cat(ends, dim=-1).squeeze(1)


def _select(x: Tensor, index: Tensor) -> Tensor:
    """Select x (B, S, D) at positions index (B, N, 1) -> (B, N, D)."""
    return x.gather(1, index.expand(-1, -1, x.size(-1)))


class StackedRNNCell(nn.Module):
    """A GRU or LSTM cell for loops: `feed` is computed inside the loop, `token_gates` in one product before it."""

    def __init__(self, cell: str, feed_dim: int, hidden: int) -> None:
        super().__init__()
        self.gates = GATES[cell]
        self.feed = Linear(feed_dim, self.gates * hidden)
        self.hidden = Linear(hidden, self.gates * hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)  # as torch's own recurrent layers

    def forward(self, feed: Tensor, state: tuple[Tensor, ...], token_gates: Tensor | None = None) -> tuple[Tensor, ...]:
        """feed (B, F), state (hidden,) or (hidden, cell) of (B, D), token_gates (B, gates * D) -> the next state."""
        gates, recurrent = self.feed(feed), self.hidden(state[0])
        gates = gates if token_gates is None else gates + token_gates
        if self.gates == 4:
            i, f, g, o = (gates + recurrent).chunk(4, dim=-1)
            cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(cell), cell
        width = gates.size(-1) // 3
        r, z = torch.sigmoid(gates[:, : 2 * width] + recurrent[:, : 2 * width]).chunk(2, dim=-1)
        n = torch.tanh(gates[:, 2 * width :] + r * recurrent[:, 2 * width :])
        return (n + z * (state[0] - n),)
