"""Several models that speak as one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nmt.models.seq2seq import AttentionWeights, DecoderState, Seq2Seq


class Ensemble(Seq2Seq):
    """The mean of the probabilities that several models give, of any architectures with one vocabulary.

    Its attention is the mean of all layers and heads of each member that has attention, and the mean of those.

    Args:
        members: at least one.
    """

    def __init__(self, members: Sequence[Seq2Seq]) -> None:
        super().__init__()
        assert members
        self.members = nn.ModuleList(members)
        limits = [member.max_target for member in members if member.max_target is not None]
        self.max_target = min(limits) if limits else None
        limits = [member.max_source for member in members if member.max_source is not None]
        self.max_source = min(limits) if limits else None

    def _each(self) -> list[Seq2Seq]:
        return [member for member in self.members if isinstance(member, Seq2Seq)]

    def encode(self, source: Tensor, source_mask: Tensor) -> DecoderState:
        return _joined([member.encode(source, source_mask) for member in self._each()])

    def init_state(self, memory: DecoderState) -> DecoderState:
        return _joined([member.init_state(_part(memory, number)) for number, member in enumerate(self._each())])

    def allocate_cache(self, state: DecoderState, steps: int) -> DecoderState:
        return _joined(
            [member.allocate_cache(_part(state, number), steps) for number, member in enumerate(self._each())]
        )

    def reorder_state(self, state: DecoderState, to: Tensor, of: Tensor, since: Tensor) -> None:
        for number, member in enumerate(self._each()):
            member.reorder_state(_part(state, number), to, of, since)

    def step(
        self, token: Tensor, state: DecoderState, memory: DecoderState, *, attention: bool = False
    ) -> tuple[Tensor, AttentionWeights | None, DecoderState]:
        said, records, states = [], [], []
        for number, member in enumerate(self._each()):
            logits, record, after = member.step(token, _part(state, number), _part(memory, number), attention=attention)
            said.append(torch.log_softmax(logits.float() if logits.dtype.itemsize == 2 else logits, dim=-1))
            records += [] if record is None else [record.cross.mean((1, 2), keepdim=True)]
            states.append(after)
        mean = said[0] if len(said) == 1 else torch.stack(said).logsumexp(0) - torch.tensor(float(len(said))).log()
        cross = AttentionWeights(torch.stack(records).mean(0)) if records else None
        return mean, cross, _joined(states)


def _joined(states: Sequence[DecoderState]) -> DecoderState:
    return {f"{number}/{name}": tensor for number, state in enumerate(states) for name, tensor in state.items()}


def _part(state: DecoderState, number: int) -> DecoderState:
    prefix = f"{number}/"
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
