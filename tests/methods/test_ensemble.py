"""Ensembles measure what members disagree on, and nothing else unless that is asked for."""

import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.posterior import Estimate, combine
from obverse.solvers.result import Status
from tests.posterior.cases import normal

SHAPE = (1, 4, 5)
PROBLEM = ob.Problem(ob.operators.Identity(SHAPE), ob.noise.Gaussian(0.5))


def member(image, converged=True, evaluations=3):
    def method(y, problem):
        return Estimate(image + 0 * y, Status(converged, "end", "It ended."), (), {"evaluations": evaluations})

    return method


def fields(*variances):
    ones = torch.ones(4, 5, dtype=torch.float64)
    return [ob.methods.Gaussian(ob.priors.GaussianField(v * ones, SHAPE)) for v in variances]


def test_the_spread_is_the_unbiased_covariance_of_the_members():
    images = normal(5, *SHAPE)
    found = ob.methods.Ensemble([member(image) for image in images])(normal(*SHAPE), PROBLEM)
    assert found.target == "epistemic" and found.covariance.rank == found.diagnostics["rank"] == 4
    assert torch.allclose(found.mean, images.mean(0))
    assert torch.allclose(found.covariance.dense(), torch.cov(images.reshape(5, -1).mT), rtol=0, atol=1e-12)
    assert found.diagnostics["evaluations"] == 15 and found.provenance["method"] == "Ensemble"
    assert torch.equal(found.draws, images)


def test_members_that_are_exact_draws_of_the_weights_converge_to_their_posterior():
    """x = Φ(y) w with w ~ N(m, S) known: the image's epistemic covariance is Φ S Φᵀ, at the rate of a sample."""
    features, root, centre = normal(20, 3), torch.diag(torch.tensor([1.0, 0.7, 0.3]).double()), 1.0
    truth = features @ root @ root.mT @ features.mT
    errors = []
    for count in (20, 2000):
        weights = centre + normal(count, 3, seed=3) @ root.mT
        found = ob.methods.Ensemble([member((features @ w).reshape(SHAPE)) for w in weights])(normal(*SHAPE), PROBLEM)
        assert found.covariance.rank == 3  # of the three weights, however many members
        errors.append(float((found.covariance.dense() - truth).norm() / truth.norm()))
    assert errors[1] < 0.08 and errors[1] < 0.5 * errors[0]


def test_with_the_aleatoric_term_it_is_the_law_of_total_covariance():
    members, y = fields(0.1, 1.0, 4.0), normal(*SHAPE)
    found = ob.methods.Ensemble(members, aleatoric=True)(y, PROBLEM)
    own = [method(y, PROBLEM) for method in members]
    means = torch.stack([one.mean for one in own]).reshape(3, -1)
    expected = sum(one.covariance.dense() for one in own) / 3 + torch.cov(means.mT)
    assert found.target == "posterior"
    assert torch.allclose(found.covariance.dense(), expected, rtol=0, atol=1e-8)
    alone = ob.methods.Ensemble(members)(y, PROBLEM)
    assert alone.target == "epistemic" and bool((alone.std < found.std).all())
    with pytest.raises(InputError, match="one target"):
        combine([alone, found])


def test_an_aleatoric_term_needs_posteriors_of_that_target():
    y = normal(*SHAPE)
    with pytest.raises(InputError, match="aleatoric"):
        ob.methods.Ensemble([*fields(1.0), member(y)], aleatoric=True)(y, PROBLEM)
    nested = [ob.methods.Ensemble(fields(1.0, 2.0)), ob.methods.Ensemble(fields(1.0, 3.0))]
    with pytest.raises(InputError, match="epistemic"):
        ob.methods.Ensemble(nested, aleatoric=True)(y, PROBLEM)
    assert ob.methods.Ensemble(nested)(y, PROBLEM).target == "epistemic"


def test_a_member_that_failed_is_told_of_and_progress_too():
    told, images = [], normal(3, *SHAPE)
    method = ob.methods.Ensemble([member(image, converged=i != 1) for i, image in enumerate(images)])
    found = method(normal(*SHAPE), PROBLEM, callback=lambda *args: told.append(args[:2]))
    assert not found.status.converged and "1 of them did not converge, number 1: It ended." in found.status.message
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_equal_members_have_no_spread():
    found = ob.methods.Ensemble([member(torch.ones(SHAPE).double())] * 3)(normal(*SHAPE), PROBLEM)
    assert found.covariance.rank == 0 and float(found.std.max()) == 0.0


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(InputError, match="two methods"):
        ob.methods.Ensemble(fields(1.0))
    with pytest.raises(InputError, match="shape"):
        ob.methods.Ensemble(fields(1.0, 2.0))(normal(2, *SHAPE), PROBLEM)
    complex_ = ob.Problem(ob.operators.Fourier(SHAPE), ob.noise.ComplexGaussian(0.1))
    with pytest.raises(InputError, match="real"):
        ob.methods.Ensemble(fields(1.0, 2.0))(torch.zeros(SHAPE, dtype=torch.complex64), complex_)
