"""The network of components: orthogonal factors, whose gradients leave the earlier ones and the mean alone."""

import pytest
import torch

from obverse.errors import InputError
from obverse.networks import ComponentPredictor, Direct, UNet
from obverse.networks.components import orthogonalised

LEVEL = torch.full((2,), 0.1)


def predictor(form="components", **settings):
    torch.manual_seed(0)
    return ComponentPredictor(Direct(UNet(2, 1, (4,), 1, True)), UNet(3, 4, (4,), 1, True), 3, form, **settings)


def image(size=8):
    return torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(1))


def test_directions_become_orthogonal_one_after_the_other():
    directions = torch.randn(5, 4, 1, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(directions).flatten(2)
    gram = found @ found.mT
    assert float((gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))).abs().max()) < 1e-12
    given = directions.flatten(2)
    assert torch.equal(found[:, 0], given[:, 0])
    for k in range(1, 4):  # each is its direction less its part in the span of those before
        basis = torch.linalg.qr(given[:, :k].mT).Q
        left = given[:, k] - (basis @ (basis.mT @ given[:, k, :, None]))[..., 0]
        torch.testing.assert_close(found[:, k], left, rtol=0, atol=1e-12)


def test_no_gradient_goes_to_earlier_directions():
    directions = torch.randn(1, 3, 1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    directions.requires_grad_()
    weights = torch.randn(1, 2, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((orthogonalised(directions)[:, 2] * weights).sum(), directions)
    assert float(gradient[:, :2].abs().max()) == 0 and float(gradient[:, 2].norm()) > 0.1


def test_factors_are_orthogonal_as_components_and_as_they_come_in_a_likelihood():
    found, raw = predictor()(image(), LEVEL), predictor("likelihood")(image(), LEVEL)
    assert torch.equal(found.mean, raw.mean) and torch.equal(found.remainder, raw.remainder)
    torch.testing.assert_close(found.factors, orthogonalised(raw.factors))
    assert not torch.allclose(found.factors, raw.factors, rtol=0, atol=1e-4)
    assert bool((found.remainder > 0).all())


def test_what_is_learnt_of_the_spread_leaves_the_mean_alone():
    net = predictor()
    found = net(image(), LEVEL)
    (found.factors.square().sum() + found.remainder.sum()).backward()
    assert all(p.grad is None for p in net.mean.parameters())
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in net.factors.parameters())
    given = predictor(given=True)
    assert not any(p.requires_grad for p in given.mean.parameters())
    assert all(p.requires_grad for p in given.factors.parameters())


def test_a_direct_network_reaches_as_far_as_the_image_at_any_noise():
    class Ones(torch.nn.Module):
        def forward(self, x):
            self.seen = x
            return torch.ones_like(x[:, :1])

    inner, x = Ones(), image()
    for level in (1e-3, 0.25, 10.0):
        moved = Direct(inner, deviation=0.25)(x, torch.full((2,), level)) - x
        assert torch.allclose(moved, torch.full_like(x, 0.25))
    torch.testing.assert_close(inner.seen[:, :1], (x - 0.5) / 0.25)
    assert float(inner.seen[:, 1].mean()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"form": "samples"}, "samples"), ({"rank": 0}, "rank"), ({"scale": 0.0}, "scale"), ({"rank": 2}, "3 outputs")],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ComponentPredictor(Direct(UNet(2, 1, (4,), 1)), UNet(3, 4, (4,), 1), **settings)(image(), LEVEL)
    with pytest.raises(InputError, match="deviation"):
        Direct(UNet(2, 1, (4,), 1), deviation=0.0)
