"""The cost of a model: its parameters, and the floating-point operations (FLOPs) of a forward pass.

A multiply-add counts as 2, and only the forward pass counts; a backward pass costs about twice that. Matrix products
are counted as torch runs them on its meta device, which has shapes but no numbers, so a model of any size needs neither
memory nor much time. Elementwise work (gates, norms, activations, softmax) is left out because every model here has
about the same, except for the hidden layer of an additive score.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nmt.attention import CROSS, AttentionLayer
from nmt.attention.scores import Additive
from nmt.models import Seq2Seq, build_model

FLOPS_SEQUENCE_LENGTH = 32
"""Tokens on each side of the sentence pair whose FLOPs are counted."""

_ADDITIVE = 4  # for each query, key and coordinate: q + k, tanh, and one multiply-add with v
_COVERAGE = 2  # and with coverage: one more multiply-add


def build_on_meta(config: Any, source_size: int, target_size: int, *, joint: bool) -> Seq2Seq:
    """Return a model on the meta device; arguments and errors are those of `nmt.models.build_model`."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return build_model(config, source_size, target_size, joint=joint)


def parameter_groups(model: nn.Module) -> dict[str, str]:
    """Return the group of every parameter, each once under its first name.

    A group is a child of the model, such as "encoder" or "output", or all attentions of a type: "attention"
    (cross-attention), "encoder_self", "decoder_self".
    """
    attentions = {
        f"{path}.": "attention" if module.attention_type == CROSS else module.attention_type
        for path, module in model.named_modules()
        if isinstance(module, AttentionLayer)
    }
    return {
        name: next((group for path, group in attentions.items() if name.startswith(path)), name.partition(".")[0])
        for name, _ in model.named_parameters()
    }


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Return the number of parameters in each group (see `parameter_groups`); tied ones count in their first group."""
    counts: Counter[str] = Counter()
    groups = parameter_groups(model)
    for name, parameter in model.named_parameters():
        counts[groups[name]] += parameter.numel()
    return dict(counts)


def flops_per_token(config: Any, source_size: int, target_size: int, *, joint: bool) -> float:
    """Count the FLOPs of a forward pass with teacher forcing per target token, for a pair of `FLOPS_SEQUENCE_LENGTH`
    tokens on each side; the arguments and errors are those of `build_on_meta`."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton where there is one

    model = build_on_meta(config, source_size, target_size, joint=joint).eval()
    additive_flops: list[int] = []
    ids = torch.zeros(1, FLOPS_SEQUENCE_LENGTH, dtype=torch.long, device="meta")
    counter = FlopCounterMode(display=False)
    with _countable(model, additive_flops.append), counter, torch.no_grad(), torch.device("meta"):
        model(ids, torch.ones_like(ids, dtype=torch.bool), ids)
    return float((counter.get_total_flops() + sum(additive_flops)) / FLOPS_SEQUENCE_LENGTH)


@contextmanager
def _countable(model: nn.Module, count: Callable[[int], None]) -> Iterator[None]:
    """Replace recurrent layers and additive scores of the model by countable forms inside the context."""
    changed = []
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.forward = _unrolled_products(module)
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


def _unrolled_products(layer: nn.RNNBase) -> Callable[..., tuple[Tensor, Any]]:
    """Return the products of a recurrent layer for all positions at once: as many FLOPs without a slow loop."""
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
    """Return the formula of an additive score that also counts the operations of its hidden layer.

    The kernel in blocks depends on the values of its arguments, which a meta tensor does not have.
    """

    def forward(query: Tensor, keys: Tensor, coverage: Tensor | None = None) -> Tensor:
        pairs = query.shape[:-1].numel() * keys.size(-2)
        count(pairs * query.size(-1) * (_ADDITIVE if coverage is None else _ADDITIVE + _COVERAGE))
        return score.reference(query, keys, coverage)

    return forward
