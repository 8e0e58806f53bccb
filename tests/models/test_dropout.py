import pytest
import torch

from fedser.models.dropout import Dropout


def test_a_share_p_of_the_values_is_zero_and_the_rest_scaled_for_the_same_mean():
    torch.manual_seed(0)
    x = torch.rand(1000, 500) + 1
    y = Dropout(0.3)(x)
    kept = y != 0
    assert (~kept).double().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / x.numel()) ** 0.5)
    torch.testing.assert_close(y[kept], x[kept] / 0.7)
    assert not torch.equal(Dropout(0.3)(x), y)


def test_the_coins_are_independent():
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(400, 500)) != 0).double() - 0.5
    bound = 4 * 0.25 / (400 * 499) ** 0.5  # four standard errors of a product of two fair ±½ coins
    assert abs((kept[:, 1:] * kept[:, :-1]).mean().item()) < bound
    assert abs((kept[1:] * kept[:-1]).mean().item()) < bound


def test_the_gradient_goes_through_what_was_kept():
    x = torch.randn(50, 40, requires_grad=True)
    y = Dropout(0.25)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y != 0) / 0.75)


def test_evaluation_and_p_0_leave_the_values_alone():
    x = torch.randn(20, 30)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_a_seed_gives_the_same_coins_again():
    layer, x = Dropout(0.5), torch.ones(64, 256)
    torch.manual_seed(7)
    first = layer(x)
    torch.manual_seed(7)
    assert torch.equal(layer(x), first)
