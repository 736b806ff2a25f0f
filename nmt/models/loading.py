"""Give a model the tensors that a checkpoint stores, after checking that they are its own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nmt.models import Seq2Seq, build_model
from nmt.models.flops import build_on_meta


def load_model(config: Any, state: Any, source_size: int, target_size: int, *, joint: bool) -> Seq2Seq:
    """Return the model of a stored configuration with its stored tensors; arguments and errors as of `check_model`."""
    check_model(config, state, source_size, target_size, joint=joint)
    model = build_model(config, source_size, target_size, joint=joint)
    model.load_state_dict(state)
    return model


def check_model(config: Any, state: Any, source_size: int, target_size: int, *, joint: bool) -> None:
    """Raise ValueError unless a stored configuration is valid, and stored tensors are those of its model.

    No memory is allocated for its sizes; the other arguments are those of `nmt.models.build_model`.
    """
    config.validate()
    if (num_layers := config.encoder_layers + config.decoder_layers) > len(state):
        raise ValueError(f"its model is not the one of these options ({num_layers} layers, {len(state)} tensors)")
    check_tensors(build_on_meta(config, source_size, target_size, joint=joint).state_dict(), state)


def load_state(model: nn.Module, state: Any) -> None:
    """Load stored tensors into a model; raises as `check_tensors`."""
    check_tensors(model.state_dict(), state)
    model.load_state_dict(state)


def check_tensors(expected: Mapping[str, Tensor], stored: object, where: str = "model") -> None:
    """Raise ValueError unless stored tensors have the names, shapes and kinds of the expected ones, and finite numbers.

    Args:
        expected: by name; on any device, also meta.
        stored: whatever a checkpoint holds there.
        where: what they belong to, for the message: model, optimizer or average.
    """
    if not isinstance(stored, dict):
        raise ValueError(f"its {where} is not the one of these options (it holds no tensors by name)")
    differing = [f"{name} is missing" for name in expected.keys() - stored.keys()]
    differing += [f"{name} is none of it" for name in stored.keys() - expected.keys()]
    for name in sorted(expected.keys() & stored.keys()):
        tensor, needed = stored[name], expected[name]
        if not isinstance(tensor, Tensor):
            differing.append(f"{name} is no tensor")
        elif tensor.shape != needed.shape:
            differing.append(f"{name} has shape {[*tensor.shape]}, its options give {[*needed.shape]}")
        elif tensor.is_floating_point() != needed.is_floating_point() or not _is_dense(tensor):
            differing.append(f"{name} holds {tensor.dtype}, {tensor.layout}, in place of {needed.dtype}")
        elif not tensor.isfinite().all():
            differing.append(f"{name} holds numbers that are not finite")
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ValueError(f"its {where} is not the one of these options ({differing[0]}{more})")


def _is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor is stored number by number: one expanded from a few would need memory only here."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        return False
    return tensor.untyped_storage().nbytes() >= tensor.nbytes
