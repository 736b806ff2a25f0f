"""Components that architectures share."""

import pytest
import torch

from nmt.attention.dropout import ByteMaskDropout
from nmt.models.layers import make_embedding


def test_dropout_keeps_the_expectation_and_the_rate() -> None:
    torch.manual_seed(0)
    layer = ByteMaskDropout(0.3)
    kept = layer(torch.ones(400, 500))
    assert abs(float((kept == 0).float().mean()) - 77 / 256) < 0.005  # 0.3 as k/256
    assert abs(float(kept.mean()) - 1.0) < 0.005
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(256 / 179))}


@pytest.mark.parametrize("rate", [0.998, 0.999])
def test_dropout_of_nearly_everything_keeps_the_expectation(rate: float) -> None:
    torch.manual_seed(0)
    kept = ByteMaskDropout(rate)(torch.ones(1000, 1000))
    assert set(kept.unique().tolist()) == {0.0, 256.0}
    assert abs(float(kept.mean()) - 1.0) < 0.08  # five times its deviation


def test_dropout_gradient_is_its_mask() -> None:
    x = torch.randn(33, 7, requires_grad=True)
    y = ByteMaskDropout(0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)


def test_dropout_follows_the_seed_and_stops_in_evaluation() -> None:
    layer, x = ByteMaskDropout(0.5), torch.randn(10, 10)
    torch.manual_seed(1)
    first = layer(x)
    second = layer(x)
    torch.manual_seed(1)
    torch.testing.assert_close(layer(x), first, rtol=0, atol=0)
    assert not torch.equal(first, second)
    assert layer.eval()(x) is x


def test_embedding_of_padding_is_zero() -> None:
    table = make_embedding(50, 16, 0)
    assert (table(torch.tensor([0])) == 0).all()
    assert 0.15 < table.weight[1:].std().item() < 0.35  # 1 / √16
