"""What a model costs: its parameters, and the floating-point operations (FLOPs) of a forward pass.

The convention: a multiply-add counts as 2, and only the forward pass counts; a backward pass costs about twice that.
Products of matrices are measured, as torch runs them, on its meta device: it has shapes but no numbers, so a model of
any size costs neither memory nor much time. Elementwise work (gates, norms, activations, softmax) is left out because
every model here has about the same, save for the one case that tells scores apart: the hidden layer of an additive
score.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nmt.attention import CROSS, Attention
from nmt.attention.scores import Additive
from nmt.models import Seq2Seq, build_model

FLOPS_SEQUENCE_LENGTH = 32
"""Tokens on each side of the sentence pair whose FLOPs are counted."""

_ADDITIVE = 4  # for each query, key and coordinate: q + k, tanh, and one multiply-add with v
_COVERAGE = 2  # and with coverage: one more multiply-add


def build_on_meta(config: Any, source_size: int, target_size: int, *, joint: bool) -> Seq2Seq:
    """The model of a configuration without its numbers; arguments and errors are those of `nmt.models.build`."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return build_model(config, source_size, target_size, joint=joint)


def parameter_groups(model: nn.Module) -> dict[str, str]:
    """For every parameter, each once under its first name, the part of the model that it is counted with.

    A part is a child of the model, such as "encoder" or "output", or one of its attentions together, named by the
    option that configures them: "attention" (cross-attention), "encoder_self", "decoder_self".
    """
    owners = {
        f"{path}.": "attention" if module.attention_type == CROSS else module.attention_type
        for path, module in model.named_modules()
        if isinstance(module, Attention)
    }
    return {
        name: next((part for path, part in owners.items() if name.startswith(path)), name.partition(".")[0])
        for name, _ in model.named_parameters()
    }


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Number of parameters by part (see `parts`); tied ones count once, where they first appear."""
    found: dict[str, int] = {}
    part_of = parameter_groups(model)
    for name, parameter in model.named_parameters():
        found[part_of[name]] = found.get(part_of[name], 0) + parameter.numel()
    return found


def flops_per_token(config: Any, source_size: int, target_size: int, *, joint: bool) -> float:
    """FLOPs of one forward pass, teacher forcing, per target token, for a pair of `FLOPS_SEQUENCE_LENGTH` tokens on
    each side.

    Args:
        config: of a model, see `nmt.models.MODELS`.
        source_size, target_size: vocabulary sizes.
        joint: both sides share one vocabulary.

    Raises:
        ValueError: the model cannot be built.
    """
    model = build_on_meta(config, source_size, target_size, joint=joint).eval()
    hidden: list[int] = []
    ids = torch.zeros(1, FLOPS_SEQUENCE_LENGTH, dtype=torch.long, device="meta")
    counter = FlopCounterMode(display=False)
    with _countable(model, hidden.append), counter, torch.no_grad(), torch.device("meta"):
        model(ids, torch.ones_like(ids, dtype=torch.bool), ids)
    return float((counter.get_total_flops() + sum(hidden)) / FLOPS_SEQUENCE_LENGTH)


@contextmanager
def _countable(model: nn.Module, count: Callable[[int], None]) -> Iterator[None]:
    """Recurrent layers and additive scores of the model in a form that can be counted, while the context lasts."""
    changed = []
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.forward = _at_once(module)
        elif isinstance(module, Additive):
            module.forward = _counted(module, count)  # type: ignore[method-assign]
        else:
            continue
        changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # the method of its class again


def _at_once(layer: nn.RNNBase) -> Callable[..., tuple[Tensor, Any]]:
    """The products of a recurrent layer for all positions at once: as many FLOPs, but no loop, which is slow here."""
    assert layer.num_layers == 1
    assert not layer.bidirectional

    def forward(x: Tensor, before: Any = None) -> tuple[Tensor, Any]:
        weights = dict(layer.named_parameters())
        gates = x @ weights["weight_ih_l0"].T
        outputs = x.new_zeros(*x.shape[:-1], layer.hidden_size)
        gates = gates + outputs @ weights["weight_hh_l0"].T
        last = outputs[:, -1].unsqueeze(0)
        return outputs, (last, last) if isinstance(layer, nn.LSTM) else last

    return forward


def _counted(score: Additive, count: Callable[[int], None]) -> Callable[..., Tensor]:
    """An additive score that tells how many operations its hidden layer takes, which the counter does not see.

    It computes its plain formula: the lean kernel chooses its way by looking at numbers, of which there are none here.
    """

    def forward(query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        pairs = query.shape[:-1].numel() * keys.size(-2)
        count(pairs * query.size(-1) * (_ADDITIVE if coverage is None else _ADDITIVE + _COVERAGE))
        return score.reference(query, keys, coverage)

    return forward
