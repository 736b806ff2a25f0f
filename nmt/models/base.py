"""The contract between an encoder-decoder and everything that uses it: training, search and alignment."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""Named tensors, each with its batch first, so that search can reorder rows without knowing the model."""


class AttentionRecord(NamedTuple):
    """Attention weights as distributions, before any dropout.

    cross: (B, L, H, T, S), decoder layers with their heads; exactly 0 in padded source columns. Row t is the
        distribution with which label t was predicted.
    """

    cross: Tensor


class Seq2Seq(nn.Module, ABC):
    """An encoder-decoder. `forward` here loops over `step` and is the definition; a model overrides it with something
    faster that gives the same numbers."""

    @abstractmethod
    def encode(self, source: Tensor, source_mask: Tensor) -> State:
        """Source ids (B, S) and their mask (B, S) -> memory, which stays fixed while decoding."""

    @abstractmethod
    def start(self, memory: State) -> State:
        """The decoder's state before the first token."""

    @abstractmethod
    def step(
        self, token: Tensor, state: State, memory: State, *, attention: bool = False
    ) -> tuple[Tensor, AttentionRecord | None, State]:
        """One more token.

        Args:
            token: (B,), the previous target token.
            state: from `start` or the step before.
            memory: from `encode`.
            attention: also return the weights.

        Returns:
            logits (B, V) of the next token; the record with T = 1, or None when not asked for or when the model has no
            attention; the next state.
        """

    def forward(
        self,
        source: Tensor,
        source_mask: Tensor,
        inputs: Tensor,
        *,
        attention: bool = False,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, AttentionRecord | None]:
        """Teacher forcing.

        Args:
            source: (B, S). source_mask: (B, S). inputs: (B, T), labels shifted right.
            attention: also return the weights of every layer and head.
            positions: (B, T), True where logits are wanted; None: everywhere.

        Returns:
            logits (B, T, V), or (N, V) for N True positions in row order; the record or None.
        """
        memory = self.encode(source, source_mask)
        state = self.start(memory)
        all_logits, records = [], []
        for token in inputs.unbind(1):
            logits, record, state = self.step(token, state, memory, attention=attention)
            all_logits.append(logits)
            if record is not None:
                records.append(record.cross)
        stacked = torch.stack(all_logits, dim=1)  # (B, T, V)
        cross = AttentionRecord(torch.cat(records, dim=3)) if records else None
        return (stacked if positions is None else stacked[positions]), cross

    def quantities(self) -> dict[str, list[float]]:
        """Learned numbers worth watching, such as gates and temperatures of attention, one for each head.

        They are those of the sub-modules that have a method `quantities() -> dict[str, Tensor (H,)]`, named by the
        sub-module's path: "decoder.attention.gate". One that has the method also speaks for the modules inside it.
        """
        found: dict[str, list[float]] = {}
        taken: tuple[str, ...] = ()
        for path, module in self.named_modules():
            own = getattr(module, "quantities", None)
            if module is not self and callable(own) and not path.startswith(taken):
                taken += (f"{path}.",)
                found |= {f"{path}.{name}": values.tolist() for name, values in own().items()}
        return found
