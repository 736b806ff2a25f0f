"""The contract between an encoder-decoder and everything that uses it: training, search and alignment."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

DecoderState = dict[str, Tensor]
"""Named tensors, each with its batch first, so that search can reorder rows without knowing the model."""


def expand_to_rows(tensor: Tensor, rows: int) -> Tensor:
    """What each of B sentences has (B, ...), once for each of its rows (rows, ...)."""
    return tensor if tensor.size(0) == rows else tensor.repeat_interleave(rows // tensor.size(0), 0)


def copy_rows(state: DecoderState, to: Tensor, of: Tensor) -> None:
    """Writes rows `of` (N,) of every tensor over its rows `to` (N,)."""
    for tensor in state.values():
        tensor.index_copy_(0, to, tensor.index_select(0, of))


class AttentionWeights(NamedTuple):
    """Attention weights as distributions, before any dropout.

    cross: (B, L, H, T, S), decoder layers with their heads; exactly 0 in padded source columns. Row t is the
        distribution with which label t was predicted.
    """

    cross: Tensor


class Seq2Seq(nn.Module, ABC):
    """An encoder-decoder. `forward` here loops over `step` and is the definition; a model overrides it with something
    faster that gives the same numbers.

    max_source, max_target: the longest sentences it can take, end or begin token counted; None: any.
    """

    max_source: int | None = None
    max_target: int | None = None

    @abstractmethod
    def encode(self, source: Tensor, source_mask: Tensor) -> DecoderState:
        """Source ids (B, S) and their mask (B, S) -> memory, which stays fixed while decoding."""

    @abstractmethod
    def init_state(self, memory: DecoderState) -> DecoderState:
        """The decoder's state before the first token."""

    @abstractmethod
    def step(
        self, token: Tensor, state: DecoderState, memory: DecoderState, *, attention: bool = False
    ) -> tuple[Tensor, AttentionWeights | None, DecoderState]:
        """One more token.

        Args:
            token: (B,), the previous target token.
            state: from `start` or the step before.
            memory: from `encode`. It may have fewer rows than the state, one for each sentence: then K rows of the
                state, its beams, follow each other for every row of memory, and memory is not copied for them.
            attention: also return the weights.

        Returns:
            logits (B, V) of the next token; the record with T = 1, or None when not asked for or when the model has no
            attention; the next state.
        """

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        """The same state with room for `steps` more tokens.

        `step` then writes into it instead of making a longer copy: a state given to `step` is used up. When the room
        is used up the model makes more by itself. Most states do not grow and come back as they are.
        """
        return state

    def reorder_state(self, state: DecoderState, to: Tensor, of: Tensor, since: Tensor) -> None:
        """Makes rows `to` (N,) of a state copies of its rows `of` (N,), none of which is in `to`, in place.

        The two rows of each pair were given the same tokens before step `since` (N,), the first step being 0: what a
        state holds of those steps is equal and need not be copied.
        """
        copy_rows(state, to, of)

    def forward(
        self,
        source: Tensor,
        source_mask: Tensor,
        inputs: Tensor,
        *,
        attention: bool = False,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, AttentionWeights | None]:
        """Teacher forcing.

        Args:
            source: (B, S). source_mask: (B, S). inputs: (B, T), labels shifted right.
            attention: also return the weights of every layer and head.
            positions: (N,), b * T + t of each place whose logits are wanted; None: everywhere.

        Returns:
            logits (B, T, V), or (N, V) in the order of `positions`; the record or None.
        """
        memory = self.encode(source, source_mask)
        state = self.init_state(memory)
        all_logits, records = [], []
        for token in inputs.unbind(1):
            logits, record, state = self.step(token, state, memory, attention=attention)
            all_logits.append(logits)
            if record is not None:
                records.append(record.cross)
        stacked = torch.stack(all_logits, dim=1)  # (B, T, V)
        cross = AttentionWeights(torch.cat(records, dim=3)) if records else None
        return (stacked if positions is None else stacked.flatten(0, 1)[positions]), cross

    def learned_scalars(self) -> dict[str, list[float]]:
        """Learned numbers worth watching, such as gates and temperatures of attention, one for each head.

        They are those of the sub-modules that have a method `learned_scalars() -> dict[str, Tensor (H,)]`, named by the
        sub-module's path: "decoder.attention.gate". One that has the method also speaks for the modules inside it.
        """
        found: dict[str, list[float]] = {}
        taken: tuple[str, ...] = ()
        for path, module in self.named_modules():
            own = getattr(module, "learned_scalars", None)
            if module is not self and callable(own) and not path.startswith(taken):
                taken += (f"{path}.",)
                found |= {f"{path}.{name}": values.tolist() for name, values in own().items()}
        return found
