"""Values known on paper: total variation, TGV, sparsity and positivity."""

import math

import pytest
import torch

from obverse.priors import L1, Positivity, TotalGeneralizedVariation, TotalVariation, WaveletL1


def test_total_variation_of_a_square_and_of_a_ramp():
    square = torch.zeros(1, 8, 8)
    square[0, 2:6, 2:6] = 1.0
    assert float(TotalVariation(isotropic=False).value(square)) == 16.0
    assert float(TotalVariation().value(square)) == pytest.approx(14 + math.sqrt(2))
    assert float(TotalVariation(spacing=(2.0, 1.0), isotropic=False).value(square)) == 12.0
    ramp = torch.arange(8.0).expand(1, 8, 8)
    assert float(TotalVariation().value(ramp)) == 56.0
    volume = torch.zeros(1, 4, 4, 4)
    volume[0, 2:] = 1.0
    assert float(TotalVariation(dimensions=3).value(volume)) == 16.0
    assert float(TotalVariation(weight=torch.full((8, 8), 0.5)).value(ramp)) == 28.0


def test_weight_map_leaves_what_it_frees():
    x = torch.randn(1, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.zeros(10, 10)
    weight[:, 5:] = 10.0
    u = TotalVariation(weight=weight, tolerance=1e-10).prox(x, 1.0)
    assert torch.allclose(u[..., :5], x[..., :5], atol=1e-6) and float(u[..., 5:].std()) < 1e-3


def test_tgv_spares_slopes_where_tv_makes_stairs():
    axis = torch.linspace(0, 4, 24, dtype=torch.float64)
    slope = axis.expand(1, 24, 24)
    noisy = slope + 0.2 * torch.randn(1, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tgv = TotalGeneralizedVariation(1.0, 2.0, tolerance=1e-4)
    error = (tgv.prox(noisy, 0.5) - slope).square().mean()
    stairs = (TotalVariation().prox(noisy, 0.5) - slope).square().mean()
    assert float(error) < 0.5 * float(stairs)
    assert float(tgv.value(slope)) < 0.5 * float(TotalVariation().value(slope))
    # v = 0 shows that TGV never exceeds the total variation
    assert float(tgv.value(noisy)) <= float(TotalVariation().value(noisy)) * (1 + 1e-3)
    assert torch.allclose(
        tgv.value(torch.stack([noisy, slope])), torch.stack([tgv.value(noisy), tgv.value(slope)]), rtol=1e-3
    )


def test_l1_on_signals_and_complex_images():
    spikes = torch.tensor([[[0.0, 3.0, 0.0, -2.0, 0.1]]])
    assert float(L1(2.0).value(spikes)) == pytest.approx(10.2)
    assert torch.allclose(L1().prox(spikes, 0.5), torch.tensor([[[0.0, 2.5, 0.0, -1.5, 0.0]]]))
    weight = torch.tensor([1.0, 1.0, 1.0, 10.0, 1.0])
    assert torch.allclose(L1(weight).prox(spikes, 0.5), torch.tensor([[[0.0, 2.5, 0.0, 0.0, 0.0]]]))
    z = torch.tensor([[[3.0 + 4.0j, 0.1j]]])
    assert torch.allclose(L1().prox(z, 1.0), torch.tensor([[[2.4 + 3.2j, 0.0j]]]))


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 1, 16), (1, 8, 8, 8)])
def test_wavelet_l1_keeps_the_brightness(shape):
    prior = WaveletL1(1.0, "haar", levels=2).bind(shape)
    flat = torch.full(shape, 3.0, dtype=torch.float64)
    assert float(prior.value(flat)) == pytest.approx(0.0, abs=1e-9)
    assert torch.allclose(prior.prox(flat, 10.0), flat)
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u = prior.prox(x, 0.5)
    assert torch.allclose(u.flatten(1).mean(1), x.flatten(1).mean(1))
    assert bool((prior.value(u) < prior.value(x)).all())


def test_positivity():
    x = torch.tensor([[[-1.0, 2.0]], [[1.0, 2.0]]])[:, None]
    assert Positivity().value(x).tolist() == [math.inf, 0.0]
    assert torch.equal(Positivity(0.5).prox(x, 3.0), x.clamp_min(0.5))
