"""The contract between an encoder-decoder and everything that uses it: training, search and alignment."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

DecoderState = dict[str, Tensor]
"""Named tensors, each with its batch first, so that search can reorder rows of any model."""


def expand_to_rows(tensor: Tensor, rows: int) -> Tensor:
    """Repeat a tensor of B sentences (B, ...) for each of their rows, such as beams: (rows, ...)."""
    return tensor if tensor.size(0) == rows else tensor.repeat_interleave(rows // tensor.size(0), 0)


def copy_rows(state: DecoderState, rows: Tensor, source_rows: Tensor) -> None:
    """Overwrite rows `rows` (N,) of every tensor with its rows `source_rows` (N,)."""
    for tensor in state.values():
        tensor.index_copy_(0, rows, tensor.index_select(0, source_rows))


Head = Callable[[nn.Linear, Tensor], Any]
"""A function of the output layer and its inputs (N, D) or (B, T, D)."""


class AttentionWeights(NamedTuple):
    """Attention weights as distributions, before any dropout.

    cross: (B, L, H, T, S), decoder layers with their heads; exactly 0 in padded source columns. Row t is the
        distribution with which label t was predicted.
    """

    cross: Tensor


class Seq2Seq(nn.Module, ABC):
    """An encoder-decoder. `forward` here loops over `step` and is the definition; a model overrides it with a faster
    computation of the same numbers.

    max_source, max_target: maximum length of sentences, with end or begin token; None: any.
    num_tags: the last ids of the target vocabulary, which are no part of a translation; a prefix may have them.
    """

    max_source_length: int | None = None
    max_target_length: int | None = None
    num_tags: int = 0

    @abstractmethod
    def encode(self, source: Tensor, source_mask: Tensor) -> DecoderState:
        """Encode source ids (B, S) with their mask (B, S) -> memory, which stays fixed while decoding."""

    @abstractmethod
    def init_state(self, memory: DecoderState) -> DecoderState:
        """Return the decoder's state before the first token."""

    @abstractmethod
    def step(
        self, token: Tensor, state: DecoderState, memory: DecoderState, *, attention: bool = False
    ) -> tuple[Tensor, AttentionWeights | None, DecoderState]:
        """Decode one more token.

        Args:
            token: (B,), the previous target token.
            state: from `init_state` or the step before.
            memory: from `encode`. It may have one row per sentence and so fewer rows than the state, in which the K
                beams of a sentence follow each other.
            attention: also return the weights.

        Returns:
            logits (B, V) of the next token; the attention weights with T = 1, or None when not requested or when the
            model has no attention; the next state.
        """

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        """Return the state with room for `steps` more tokens.

        `step` then writes into it instead of making a longer copy, and a state passed to `step` must not be used again.
        A full cache grows by itself. States that do not grow are returned unchanged.
        """
        return state

    @property
    def has_fixed_states(self) -> bool:
        """Return whether the model has `fixed_state`."""
        return False

    def fixed_state(self, state: DecoderState, steps: int) -> DecoderState:
        """Return the state with room for `steps` tokens in all and of shapes that every `step` leaves as they are.

        `step` then does the same operations each time, on the device alone, so that a GPU can repeat them as they are;
        it may write into the state.
        """
        raise NotImplementedError

    def reorder_state(self, state: DecoderState, rows: Tensor, source_rows: Tensor, first_steps: Tensor) -> None:
        """Overwrite rows `rows` (N,) of a state with its rows `source_rows` (N,), in place; no row is in both.

        The two rows of each pair had the same tokens before step `first_steps` (N,), the first step being 0: their
        states of those steps are equal and need not be copied.
        """
        copy_rows(state, rows, source_rows)

    def forward(
        self,
        source: Tensor,
        source_mask: Tensor,
        inputs: Tensor,
        *,
        attention: bool = False,
        positions: Tensor | None = None,
        head: Head | None = None,
    ) -> tuple[Any, AttentionWeights | None]:
        """Compute the logits of given targets (teacher forcing).

        Args:
            source: (B, S). source_mask: (B, S). inputs: (B, T), labels shifted right.
            attention: also return the weights of every layer and head.
            positions: (N,), b * T + t of the positions whose logits are needed; None: everywhere.
            head: computes what is needed of the logits, such as a loss, from the output layer and its inputs.

        Returns:
            logits (B, T, V), or (N, V) in the order of `positions`, or what `head` returns; the attention weights or
            None.
        """
        assert head is None, f"{type(self).__name__} has no output layer to give away"
        memory = self.encode(source, source_mask)
        state = self.init_state(memory)
        all_logits, all_weights = [], []
        for token in inputs.unbind(1):
            logits, weights, state = self.step(token, state, memory, attention=attention)
            all_logits.append(logits)
            if weights is not None:
                all_weights.append(weights.cross)
        stacked = torch.stack(all_logits, dim=1)  # (B, T, V)
        cross = AttentionWeights(torch.cat(all_weights, dim=3)) if all_weights else None
        return (stacked if positions is None else stacked.flatten(0, 1)[positions]), cross

    def learned_scalars(self) -> dict[str, list[float]]:
        """Return learned numbers worth watching, such as gates and temperatures of attention, one for each head.

        They are those of the outermost sub-modules that have a method `learned_scalars() -> dict[str, Tensor (H,)]`,
        named by the path of the sub-module: "decoder.attention.gate".
        """
        scalars: dict[str, list[float]] = {}
        reported: tuple[str, ...] = ()
        for path, module in self.named_modules():
            method = getattr(module, "learned_scalars", None)
            if module is not self and callable(method) and not path.startswith(reported):
                reported += (f"{path}.",)
                scalars |= {f"{path}.{name}": values.tolist() for name, values in method().items()}
        return scalars
