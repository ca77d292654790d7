"""Mixtures of posteriors: exact moments, and no mixing of kinds."""

import pytest
import torch

from obverse.errors import InputError
from obverse.posterior import Posterior, combine
from obverse.solvers.result import Status
from tests.posterior.cases import DONE, SHAPE, from_dense, normal, positive, seeded


def member(seed: int, target: str = "posterior", **options) -> Posterior:
    covariance = from_dense(positive(40, seed=seed), SHAPE)
    return Posterior(3 * normal(*SHAPE, seed=seed), DONE, covariance=covariance, target=target, **options)


def test_moments_are_those_of_the_mixture():
    first, second = member(1), member(2)
    both = combine([first, second], weights=[1, 3])
    flat = torch.stack([first.mean, second.mean]).reshape(2, 40)
    mean = 0.25 * flat[0] + 0.75 * flat[1]
    offsets = flat - mean
    dense = 0.25 * positive(40, 1) + 0.75 * positive(40, 2)
    dense = dense + 0.25 * torch.outer(offsets[0], offsets[0]) + 0.75 * torch.outer(offsets[1], offsets[1])
    assert torch.allclose(both.mean.reshape(-1), mean)
    assert torch.allclose(both.covariance.dense(), dense, atol=1e-8)
    assert torch.allclose(both.std.reshape(-1), dense.diagonal().sqrt())
    draws = both.covariance.sample(3000, seeded(3)).reshape(3000, -1)
    assert float((torch.cov(draws.mT) - dense).norm() / dense.norm()) < 0.1
    # The draws really come from two places: one Gaussian of the same covariance would fill the gap between them.
    along = draws @ (offsets[1] - offsets[0]) / (offsets[1] - offsets[0]).norm()
    gap = float((offsets[1] - offsets[0]).norm())
    assert float((along.sub(-0.75 * gap).abs() < gap / 4).double().mean()) == pytest.approx(0.25, abs=0.03)


def test_one_posterior_is_its_own_mixture():
    alone = member(1)
    assert torch.allclose(combine([alone]).covariance.dense(), alone.covariance.dense())


def test_targets_are_never_mixed():
    for target in ("tempered", "estimator-error", "epistemic"):
        with pytest.raises(InputError, match="target"):
            combine([member(1), member(2, target=target)])
        assert combine([member(1, target=target), member(2, target=target)]).target == target


def test_kept_draws_are_joined_only_when_they_weigh_the_same():
    first = member(1, draws=normal(10, *SHAPE))
    second = member(2, draws=normal(10, *SHAPE, seed=1))
    joined = combine([first, second]).draws
    assert joined is not None and joined.shape == (20, *SHAPE)
    assert combine([first, second], weights=[1, 2]).draws is None
    assert combine([first, member(2)]).draws is None


def test_bad_members_are_refused_and_failures_are_told():
    with pytest.raises(InputError, match="at least one"):
        combine([])
    for weights in ([1.0], [-1.0, 2.0], [0.0, 0.0]):
        with pytest.raises(InputError, match="weights"):
            combine([member(1), member(2)], weights=weights)
    with pytest.raises(InputError, match="one image"):
        combine([member(1), member(2).crop([slice(0, 2)])])
    failed = Posterior(torch.zeros(SHAPE), Status(False, "max-iterations", "Too few."), covariance=member(1).covariance)
    told = combine([member(1), failed]).status
    assert not told.converged and "member 1: Too few." in told.message
