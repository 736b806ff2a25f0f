"""The loss against torch's own."""

import pytest
import torch

from nmt.loss import CHUNK, cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torch_in_value_and_gradient(smoothing: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(CHUNK + 30, 11, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 11, (CHUNK + 30,))
    loss, nll = cross_entropy(logits, labels, smoothing=smoothing)
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nll, torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    (found,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(found, 3 * torch.autograd.grad(expected, logits)[0])


def test_bf16_logits_are_summed_in_fp32() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2000, 50).to(torch.bfloat16).requires_grad_()
    labels = torch.randint(0, 50, (2000,))
    loss, _ = cross_entropy(logits, labels)
    expected = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16
