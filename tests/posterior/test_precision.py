"""Matrix-free precisions: probing of the diagonal, the circulant preconditioner, honest failures."""

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.posterior import PrecisionCovariance, StationaryCovariance, circulant_preconditioner
from obverse.posterior.derived import ModulatedCovariance
from obverse.posterior.probing import probe_diagonal
from obverse.solvers.linear import cg
from tests.posterior.cases import SHAPE, from_dense, normal, positive, seeded, spectrum

GRID = (24, 24)


def inpainting(fraction: float = 0.5, noise: float = 0.1):
    """Q = mask/s² + P, P the precision of a stationary prior; its dense inverse."""
    prior = StationaryCovariance(spectrum(*GRID) / 100, (1, *GRID))
    weight = (torch.rand((1, *GRID), generator=seeded(3), dtype=torch.float64) < fraction) / noise**2
    return lambda v: weight * v + prior.solve(v), prior


def test_circulant_preconditioner_is_exact_on_a_circulant_and_cg_needs_one_step():
    known = StationaryCovariance(torch.stack([spectrum(7, 6), 3 * spectrum(7, 6, power=0.7)]), (2, 7, 6))
    learnt = circulant_preconditioner(known.solve, (2, 7, 6), seeded(0), dtype=torch.float64)
    assert torch.allclose(learnt.spectrum, known.spectrum, rtol=1e-9)
    b = normal(3, 2, 7, 6)
    result = cg(known.solve, b, preconditioner=learnt.matvec, tolerance=1e-10, batch_dims=1)
    assert result.status.converged and result.iterations == 1
    plain = cg(known.solve, b, tolerance=1e-10, batch_dims=1)
    assert plain.iterations > 10


def test_circulant_preconditioner_helps_where_the_product_is_not_circulant():
    prior = StationaryCovariance(spectrum(*GRID, power=2.5) / 1e4, (1, *GRID))
    weight = 100 + 100 * torch.rand((1, *GRID), generator=seeded(3), dtype=torch.float64)

    def precision(v: torch.Tensor) -> torch.Tensor:
        return weight * v + prior.solve(v)

    learnt = circulant_preconditioner(precision, (1, *GRID), seeded(0), dtype=torch.float64)
    assert float(learnt.spectrum.min()) > 0
    b = normal(1, 1, *GRID)
    with_it = cg(precision, b, preconditioner=learnt.matvec, tolerance=1e-8, batch_dims=1)
    without = cg(precision, b, tolerance=1e-8, batch_dims=1)
    assert with_it.status.converged
    assert with_it.iterations < 0.5 * without.iterations


def uneven():
    """Q = D P D with D varying smoothly over two octaves, which is what an edge-preserving prior's curvature does."""
    prior = StationaryCovariance(spectrum(*GRID, power=2.5), (1, *GRID))
    rows = torch.arange(GRID[0], dtype=torch.float64)[:, None].expand(GRID)
    scale = 2.0 ** torch.cos(2 * torch.pi * rows / GRID[0])[None]
    return lambda v: scale * prior.solve(scale * v), ModulatedCovariance(prior, 1 / scale)


def test_circulant_preconditioner_takes_up_a_scale_that_varies():
    precision, truth = uneven()
    learnt = circulant_preconditioner(precision, (1, *GRID), seeded(0), dtype=torch.float64)
    assert isinstance(learnt, ModulatedCovariance)
    scales = (learnt.scale / truth.scale).log()
    assert float(scales.std()) < 0.5 * float(truth.scale.log().std())
    b = normal(2, 1, *GRID)
    iterations = {
        name: cg(precision, b, preconditioner=preconditioner, tolerance=1e-6, batch_dims=1).iterations
        for name, preconditioner in (("scaled", learnt.matvec), ("stationary", learnt.base.matvec))
    }
    assert iterations["scaled"] < 0.6 * iterations["stationary"], iterations


def test_a_control_that_varies_like_the_covariance_makes_probing_precise():
    precision, truth = uneven()
    exact = PrecisionCovariance(precision, (1, *GRID), dtype=torch.float64)
    plain = probe_diagonal(truth.matvec, exact, 64, seeded(1))
    learnt = circulant_preconditioner(precision, (1, *GRID), seeded(0), dtype=torch.float64)
    better = probe_diagonal(truth.matvec, exact, 64, seeded(1), learnt)
    errors = [float((found.diagonal - truth.diagonal()).norm()) for found in (better, plain)]
    assert errors[0] < 0.6 * errors[1], errors


def test_circulant_preconditioner_refuses_what_is_not_positive():
    with pytest.raises(NumericsError, match="sign"):
        circulant_preconditioner(lambda v: -v, (1, 8, 8), seeded(0))
    with pytest.raises(InputError, match="2 probes"):
        circulant_preconditioner(lambda v: v, (1, 8, 8), seeded(0), probes=1)


def test_probed_diagonal_agrees_with_the_exact_one_within_its_stated_error():
    precision, prior = inpainting()
    exact = PrecisionCovariance(precision, (1, *GRID), dtype=torch.float64)
    truth, matrix = exact.diagonal(), exact.dense()

    def product(v: torch.Tensor) -> torch.Tensor:
        return (v.reshape(-1, exact.size) @ matrix).reshape(v.shape)

    plain = probe_diagonal(product, exact, 256, seeded(1))
    assert plain.products == 256 and plain.clipped == 0
    scores = (plain.diagonal - truth) / plain.standard_error
    assert 0.5 < float(scores.square().mean()) < 2
    assert float(((plain.diagonal - truth) / truth).square().mean().sqrt()) < 0.1
    assert float((2 * plain.diagonal - truth).div(plain.standard_error).square().mean()) > 4, (
        "a doubled one must stand out"
    )
    noise_free = probe_diagonal(prior.matvec, exact, 16, seeded(1), prior)
    assert torch.allclose(noise_free.diagonal, prior.diagonal(), rtol=1e-9)


def test_large_images_are_probed_and_say_so():
    shape = (1, 72, 72)
    precision = StationaryCovariance(spectrum(72, 72), shape)
    covariance = PrecisionCovariance(precision.solve, shape, preconditioner=precision, dtype=torch.float64, probes=16)
    assert torch.allclose(covariance.diagonal(), precision.diagonal(), rtol=1e-6)
    report = covariance.diagonal_report()
    assert report["kind"] == "probing" and report["products"] == 16 and report["clipped"] == 0
    assert float(report["standard_error"]) < 1e-6
    assert covariance.standard_error().shape == shape
    with pytest.raises(InputError, match="4096"):
        covariance.logdet()


def test_small_images_are_exact_and_a_given_diagonal_is_believed():
    covariance = from_dense(positive(40), SHAPE)
    assert covariance.diagonal_report()["kind"] == "exact"
    assert float(covariance.standard_error().max()) == 0
    given = PrecisionCovariance(lambda v: v, SHAPE, diagonal=torch.full(SHAPE, 7.0))
    assert float(given.diagonal().mean()) == 7 and given.diagonal_report() == {"kind": "given"}
    with pytest.raises(InputError, match="diagonal"):
        PrecisionCovariance(lambda v: v, SHAPE, diagonal=torch.ones(40))


def test_failures_are_raised_not_returned():
    hard = torch.logspace(0, 8, 40, dtype=torch.float64).reshape(SHAPE)
    slow = PrecisionCovariance(lambda v: hard * v, SHAPE, max_iterations=3, dtype=torch.float64)
    with pytest.raises(NumericsError, match="limit"):
        slow.matvec(normal(40))
    indefinite = PrecisionCovariance(lambda v: (hard - 5) * v, SHAPE, dtype=torch.float64)
    with pytest.raises(NumericsError):
        indefinite.diagonal()
    assert slow.sample(2, seeded(0)) is None
