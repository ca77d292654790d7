"""The U-Net: any size of image, homogeneous without biases, and no more than it says."""

import pickle

import pytest
import torch

from obverse.errors import InputError
from obverse.networks import UNet


def unet(seed=0, **settings):
    torch.manual_seed(seed)
    return UNet(**{"inputs": 2, "outputs": 3, "widths": (3, 4, 5), "blocks": 1} | settings).double()


def image(*size, seed=0):
    return torch.randn(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (9, 11), (5, 7), (4, 1), (1, 1), (2, 3)])
def test_any_size_goes_in_and_comes_out(size):
    found = unet()(image(*size))
    assert found.shape == (1, 3, *size) and bool(found.isfinite().all())


def test_without_biases_it_is_homogeneous():
    net, x = unet(), image(9, 11)
    for factor in (1e-3, 0.5, 7.0):
        torch.testing.assert_close(net(factor * x), factor * net(x), rtol=1e-12, atol=1e-14)
    assert not torch.allclose(net(-x), -net(x)), "a network that is linear would show nothing"


@pytest.mark.parametrize("settings", [{"bias": True}, {"activation": "silu"}, {"activation": "elu"}], ids=str)
def test_with_biases_or_a_smooth_activation_it_is_not(settings):
    net, x = unet(**settings), image(9, 11)
    assert not torch.allclose(net(7 * x), 7 * net(x), rtol=1e-3)


def test_a_size_that_is_no_multiple_is_mirrored_and_cropped():
    net, x = unet(), image(9, 11)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 3), mode="reflect")
    torch.testing.assert_close(net(x), net(padded)[..., :9, :11])


def test_a_shift_by_its_coarsest_step_shifts_the_answer():
    net, x = unet(), torch.zeros(1, 2, 96, 96, dtype=torch.float64)
    x[..., 44:52, 44:52] = image(8, 8)
    moved = net(torch.roll(x, (4, -4), (-2, -1)))
    torch.testing.assert_close(moved, torch.roll(net(x), (4, -4), (-2, -1)), atol=1e-12, rtol=0)


def test_items_of_a_batch_do_not_meet():
    net, a, b = unet(), image(8, 8), image(8, 8, seed=1)
    torch.testing.assert_close(net(torch.cat([a, b])), torch.cat([net(a), net(b)]), atol=1e-12, rtol=1e-12)


def test_its_derivative_is_right():
    net = unet(activation="silu", widths=(2, 3))
    assert torch.autograd.gradcheck(net, image(4, 5).requires_grad_())


@pytest.mark.parametrize("order", [1, 2])
def test_elu_has_no_subnormal_derivatives(order):
    activation = UNet(1, 1, widths=(2,), blocks=1, activation="elu").middle[0].activation
    x = torch.linspace(-120, 3, 2001, requires_grad=True)
    y = activation(x)
    torch.testing.assert_close(y, torch.nn.functional.elu(x), rtol=0, atol=3e-9)
    found = y
    for _ in range(order):
        (found,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    assert bool(((found == 0) | (found.abs() > 1e-10)).all()) and bool((found > 0).any())


def test_its_size_is_as_told():
    found = sum(p.numel() for p in UNet(3, 1, widths=(4, 6), blocks=2).parameters())
    fine, coarse = 2 * 2 * 9 * 4 * 4, 2 * 9 * 6 * 6 * 2  # two blocks of two convolutions, twice at the finer level
    assert found == 9 * 3 * 4 + 2 * fine + coarse + 2 * 4 * 4 * 6 + 9 * 4


def test_it_can_be_pickled_and_keeps_its_input():
    net, x = unet(), image(9, 11)
    before = x.clone()
    torch.testing.assert_close(pickle.loads(pickle.dumps(net))(x), net(x))  # noqa: S301
    assert torch.equal(x, before)


@pytest.mark.parametrize("wrong", [{"widths": (0,)}, {"blocks": 0}, {"inputs": 0}, {"activation": "tanh"}], ids=str)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        unet(**wrong)
