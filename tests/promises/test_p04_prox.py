"""P4: proximal operators are right.

Each is compared with a minimiser that knows nothing of it (subgradient-free: a smoothed energy followed to zero
smoothing by L-BFGS), with Moreau's identity, firm non-expansiveness, and with itself on the same input after another
image went through. A prox with memory and one with a wrong step must fail the same checks.
"""

import pytest
import torch

from obverse.errors import NumericsError
from obverse.operators.differences import Gradient
from obverse.priors import L1, GaussianField, Positivity, Tikhonov, TotalGeneralizedVariation, TotalVariation, WaveletL1
from obverse.priors.tv_prox import total_variation_prox

SHAPE = (1, 4, 4)
VOLUME = (1, 2, 3, 3)
STEP = 0.7


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


WEIGHT = torch.rand(SHAPE, generator=torch.Generator().manual_seed(9))
PRIORS = {
    "tv": (TotalVariation(tolerance=1e-11), SHAPE),
    "tv-anisotropic": (TotalVariation(isotropic=False, tolerance=1e-11), SHAPE),
    "tv-weight-spacing": (TotalVariation(weight=WEIGHT, spacing=(2.0, 0.5), tolerance=1e-11), SHAPE),
    "tv-3d": (TotalVariation(dimensions=3, spacing=(2.0, 1.0, 1.0), tolerance=1e-11), VOLUME),
    "tv-1d": (TotalVariation(tolerance=1e-11), (1, 1, 12)),
    "tgv": (TotalGeneralizedVariation(0.5, 0.7, tolerance=1e-5), SHAPE),
    "l1": (L1(0.8), SHAPE),
    "wavelet": (WaveletL1(0.8, "haar", levels=2), SHAPE),
    "positivity": (Positivity(0.1), SHAPE),
    "tikhonov": (Tikhonov(Gradient(SHAPE, dtype=torch.float64)), SHAPE),
    "field": (GaussianField.power_law(SHAPE, 2.0, mean=0.2), SHAPE),
    "scaled": (0.3 * TotalVariation(tolerance=1e-11), SHAPE),
}


def smoothed(prior, epsilon):
    """An energy with a gradient that tends to the prior's as epsilon → 0, and its number of auxiliary unknowns."""
    root = lambda z: (z.square() + epsilon**2).sqrt()  # noqa: E731
    if isinstance(prior, TotalVariation):
        from dataclasses import replace

        return replace(prior, smoothing=epsilon).value
    if isinstance(prior, L1):
        return lambda u: (prior.weight * root(u)).sum()
    if isinstance(prior, WaveletL1):
        term = prior.terms(SHAPE, torch.float64)[0]
        return lambda u: (term.functional.weight * root(term.operator(u))).sum()
    if isinstance(prior, Positivity):
        return lambda u: ((prior.lower - u).clamp_min(0).square() / epsilon).sum()
    return prior.value


def brute_force(prior, x, step, scale=1.0):
    """argmin of the energy by L-BFGS over a decreasing sequence of smoothings."""
    u = x.clone().requires_grad_(True)
    for epsilon in (1e-1, 1e-2, 1e-3, 1e-4):
        energy = smoothed(prior, epsilon)
        search = torch.optim.LBFGS(
            [u],
            max_iter=100,
            history_size=40,
            line_search_fn="strong_wolfe",
            tolerance_grad=1e-11,
            tolerance_change=1e-15,
        )

        def closure(energy=energy, search=search):
            search.zero_grad()
            value = scale * energy(u).sum() + 0.5 * (u - x).square().sum() / step
            value.backward()
            return value

        search.step(closure)
    return u.detach()


def brute_force_tgv(prior, x, step):
    """As above, over the image and the slope field together, with differences written out here."""
    u, v = x.clone().requires_grad_(True), torch.zeros(2, *x.shape, dtype=x.dtype).requires_grad_(True)

    def d(z, dim):
        return torch.cat([z.diff(dim=dim), torch.zeros_like(z.narrow(dim, 0, 1))], dim)

    for epsilon in (1e-1, 1e-2, 1e-3, 1e-4):
        search = torch.optim.LBFGS(
            [u, v],
            max_iter=250,
            history_size=40,
            line_search_fn="strong_wolfe",
            tolerance_grad=1e-11,
            tolerance_change=1e-15,
        )

        def closure(epsilon=epsilon, search=search):
            search.zero_grad()
            jump = ((d(u, -2) - v[0]) ** 2 + (d(u, -1) - v[1]) ** 2 + epsilon**2).sqrt().sum()
            shear = 0.5 * (d(v[0], -1) + d(v[1], -2))
            bend = (d(v[0], -2) ** 2 + d(v[1], -1) ** 2 + 2 * shear**2 + epsilon**2).sqrt().sum()
            value = prior.first * jump + prior.second * bend + 0.5 * (u - x).square().sum() / step
            value.backward()
            return value

        search.step(closure)
    return u.detach()


def is_prox(prox, prior, shape):
    x = randn(*shape)
    scale = getattr(prior, "factor", 1.0)
    plain = getattr(prior, "prior", prior)
    truth = brute_force_tgv(prior, x, STEP) if isinstance(prior, TotalGeneralizedVariation) else None
    truth = brute_force(plain, x, STEP, scale) if truth is None else truth
    return float((prox(x, STEP) - truth).abs().max()) < 2e-3


def is_firmly_nonexpansive(prox, shape):
    for seed in range(3):
        a, b = randn(*shape, seed=seed), 2 * randn(*shape, seed=seed + 50)
        pa, pb = prox(a, STEP), prox(b, STEP)
        if float(((pa - pb) * (a - b)).sum()) < float((pa - pb).square().sum()) - 1e-3:
            return False
    return True


def is_without_memory(prox, shape):
    a, b = randn(*shape), randn(*shape, seed=1)
    before = a.clone()
    first = prox(a, STEP)
    prox(b, STEP)
    return torch.equal(first, prox(a, STEP)) and torch.equal(a, before)


@pytest.mark.parametrize("name", PRIORS)
def test_minimises(name):
    prior, shape = PRIORS[name]
    assert is_prox(prior.prox, prior, shape)
    assert not is_prox(lambda x, step: prior.prox(x, 1.5 * step), prior, shape) or name == "positivity"


@pytest.mark.parametrize("name", PRIORS)
def test_is_firmly_nonexpansive(name):
    prior, shape = PRIORS[name]
    assert is_firmly_nonexpansive(prior.prox, shape)
    assert not is_firmly_nonexpansive(lambda x, step: 2 * x - 0.5 * prior.prox(x, step), shape)


@pytest.mark.parametrize("name", PRIORS)
def test_has_no_memory(name):
    prior, shape = PRIORS[name]
    assert is_without_memory(prior.prox, shape)


def test_a_prox_with_memory_is_caught():
    kept = {}

    def warm(x, step):
        result = total_variation_prox(x, step, tolerance=1e-3, dual=kept.get("dual"))
        kept["dual"] = result.dual
        return result.x

    assert not is_without_memory(warm, (1, 24, 24))


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "positivity"])
def test_terms_obey_moreau(name):
    prior, shape = PRIORS[name]
    for term in prior.terms(shape, torch.float64):
        z = randn(*term.operator.data_shape)
        whole = term.functional.prox(z, STEP) + STEP * term.functional.prox_conjugate(z / STEP, 1 / STEP)
        assert torch.allclose(whole, z, atol=1e-3 if name == "tgv" else 1e-6)
        x = randn(*shape)
        assert torch.allclose(term.functional.value(term.operator(x)), prior.value(x), rtol=1e-6)


@pytest.mark.parametrize("name", ["tv", "tv-anisotropic", "tv-weight-spacing"])
def test_dual_ball_projection_is_the_conjugate_prox(name):
    prior, shape = PRIORS[name]
    term = prior.terms(shape, torch.float64)[0]
    z = 3 * randn(*term.operator.data_shape)
    by_moreau = z - STEP * term.functional.prox(z / STEP, 1 / STEP)
    assert torch.allclose(term.functional.prox_conjugate(z, STEP), by_moreau)


def test_gap_bounds_the_true_error_and_an_unreached_gap_is_said():
    x = randn(1, 16, 16)
    best = total_variation_prox(x, 0.5, tolerance=1e-13).x
    loose = total_variation_prox(x, 0.5, tolerance=1e-2)
    primal = 0.5 * (loose.x - x).square().sum() + 0.5 * TotalVariation().value(loose.x)
    assert loose.gap <= 1e-2 and float(0.5 * (loose.x - best).square().sum()) <= loose.gap * float(primal)
    stopped = total_variation_prox(x, 0.5, tolerance=1e-12, max_iterations=20)
    assert not stopped.status.converged and stopped.iterations == 20
    with pytest.raises(NumericsError, match="gap"):
        TotalVariation(tolerance=1e-12, max_iterations=20).prox(x, 0.5)
