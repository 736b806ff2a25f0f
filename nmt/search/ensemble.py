"""Ensembles of models."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nmt.models.seq2seq import AttentionWeights, DecoderState, Seq2Seq


class Ensemble(Seq2Seq):
    """The mean of the probabilities of several models, of any architectures with one vocabulary.

    Its attention is the mean over the members with attention, each averaged over all layers and heads.
    """

    def __init__(self, members: Sequence[Seq2Seq]) -> None:
        super().__init__()
        assert members
        self.members = nn.ModuleList(members)
        self.max_target_length = min(
            (m.max_target_length for m in members if m.max_target_length is not None), default=None
        )
        self.max_source_length = min(
            (m.max_source_length for m in members if m.max_source_length is not None), default=None
        )

    def _split(self, state: DecoderState) -> list[tuple[Seq2Seq, DecoderState]]:
        """Return each member with its part of a joined state."""
        parts: list[DecoderState] = [{} for _ in self.members]
        for name, tensor in state.items():
            number, _, member_name = name.partition("/")
            parts[int(number)][member_name] = tensor
        return list(zip(cast(Iterable[Seq2Seq], self.members), parts, strict=True))

    def encode(self, source: Tensor, source_mask: Tensor) -> DecoderState:
        return _join(member.encode(source, source_mask) for member, _ in self._split({}))

    def init_state(self, memory: DecoderState) -> DecoderState:
        return _join(member.init_state(part) for member, part in self._split(memory))

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        return _join(member.allocate_cache(part, steps) for member, part in self._split(state))

    @property
    def has_fixed_states(self) -> bool:
        return all(member.has_fixed_states for member in cast(Iterable[Seq2Seq], self.members))

    def fixed_state(self, state: DecoderState, steps: int) -> DecoderState:
        return _join(member.fixed_state(part, steps) for member, part in self._split(state))

    def reorder_state(self, state: DecoderState, to: Tensor, of: Tensor, since: Tensor) -> None:
        for member, part in self._split(state):
            member.reorder_state(part, to, of, since)

    def step(
        self, token: Tensor, state: DecoderState, memory: DecoderState, *, attention: bool = False
    ) -> tuple[Tensor, AttentionWeights | None, DecoderState]:
        log_probs, weights, states = [], [], []
        for (member, part), (_, member_memory) in zip(self._split(state), self._split(memory), strict=True):
            logits, member_weights, next_state = member.step(token, part, member_memory, attention=attention)
            logits = logits.float() if logits.dtype.itemsize == 2 else logits
            log_probs.append(torch.log_softmax(logits, dim=-1))
            states.append(next_state)
            if member_weights is not None:
                weights.append(member_weights.cross.mean((1, 2), keepdim=True))
        mean = log_probs[0]
        if len(log_probs) > 1:
            mean = torch.stack(log_probs).logsumexp(0) - torch.tensor(float(len(log_probs))).log()
        return mean, AttentionWeights(torch.stack(weights).mean(0)) if weights else None, _join(states)


def _join(states: Iterable[DecoderState]) -> DecoderState:
    return {f"{number}/{name}": tensor for number, state in enumerate(states) for name, tensor in state.items()}
