"""Every model on pretended CUDA: loss and gradients as on the CPU, nothing waits; see test_pretended_cuda.py."""

import argparse
from collections.abc import Callable
from typing import Any

import pretended_cuda as cuda
import torch
from cases import STOCHASTIC, batch, configs, model
from kernels import pretend
from report import run_checks
from torch import Tensor

from nmt.data import Batch, batch_to_device
from nmt.models import Seq2Seq
from nmt.training.objective import LossConfig, TrainingObjective

PLAIN = LossConfig()
EVERY_LOSS = LossConfig(
    coverage_loss_weight=0.1, guided_alignment_weight=0.5, r_drop_alpha=1.0, word_dropout=0.1, target_word_dropout=0.1
)


def loss_and_gradients(
    made: Seq2Seq, pairs: Batch, precision: str, losses: LossConfig = PLAIN
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the mean loss of a token and the gradients of the parameters, None where one has no part in it."""
    torch.manual_seed(5)
    total, _ = TrainingObjective(losses, fused=True)(made, pairs, precision)
    loss = total / pairs.num_tokens
    return loss.detach(), list(torch.autograd.grad(loss, list(made.parameters()), allow_unused=True))


def check_model(name: str, config: Any) -> None:
    """Hold a model on cuda:0 equal to the same on the CPU in fp32, and near it in bf16.

    Raises:
        AssertionError, RuntimeError: it differs, waits, or mixes devices.
    """
    is_random, pairs = name.endswith(STOCHASTIC), batch()
    made = model(config).train()
    loss, gradients = loss_and_gradients(made, pairs, "fp32")
    with cuda.device():
        made.to("cuda")
        moved = batch_to_device(pairs, cuda.CUDA)
        for triton in (False, True) if "additive" in name or "hybrid" in name else (False,):
            pretend(triton=triton)
            with cuda.counted() as counts:
                found, found_gradients = loss_and_gradients(made, moved, "fp32")
                near, near_gradients = loss_and_gradients(made, moved, "bf16")
                loss_and_gradients(made, moved, "bf16", EVERY_LOSS)
            assert not counts.waits, counts.summary()
            for gradient in (*found_gradients, *near_gradients):
                assert gradient is None or (gradient.device == cuda.CUDA and gradient.dtype == torch.float32)
            if is_random:
                continue
            torch.testing.assert_close(cuda.values(found), loss, rtol=1e-5, atol=1e-5)
            for gradient, expected in zip(found_gradients, gradients, strict=True):
                assert (gradient is None) == (expected is None)
                torch.testing.assert_close(cuda.values(gradient), expected, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(cuda.values(near), loss, rtol=0.03, atol=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, help="try every step-th configuration")
    parser.add_argument("--match", default="", help="only those whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    checks: dict[str, Callable[[], None]] = {}
    for name, config in list(configs())[:: options.step]:
        if options.match in name:
            checks[name] = lambda name=name, config=config: check_model(name, config)
    run_checks(checks)


if __name__ == "__main__":
    main()
