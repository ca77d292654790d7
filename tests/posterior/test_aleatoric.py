"""Two spreads become a posterior when that is asked for, and only out of the right two."""

import pytest
import torch

from obverse.errors import InputError
from obverse.posterior import Posterior, SumCovariance, combine, with_aleatoric
from obverse.posterior.aleatoric import total_covariance
from obverse.posterior.spread import spread_covariance
from tests.posterior.cases import DONE, SHAPE, from_dense, normal, positive


def weights_spread(**options) -> Posterior:
    members = normal(4, *SHAPE)
    covariance = spread_covariance(members)
    settings = {"target": "epistemic", "draws": members} | options
    return Posterior(members.mean(0), DONE, covariance=covariance, **settings)


def test_a_posterior_adds_its_covariance_and_not_its_mean():
    first = weights_spread()
    second = Posterior(normal(*SHAPE, seed=5), DONE, covariance=from_dense(positive(40), SHAPE))
    whole = with_aleatoric(first, second)
    assert whole.target == "posterior" and whole.draws is None
    assert torch.equal(whole.mean, first.mean)
    assert torch.allclose(whole.covariance.dense(), first.covariance.dense() + positive(40), atol=1e-8)
    assert torch.allclose(with_aleatoric(first, second.covariance).std, whole.std)
    draws = whole.sample(4000, seed=1).reshape(4000, -1)
    spread = (torch.cov(draws.mT) - whole.covariance.dense()).norm() / whole.covariance.dense().norm()
    assert float(spread) < 0.15
    assert first.target == "epistemic" and first.draws is not None  # as it was


def test_a_variance_goes_on_the_diagonal_and_can_be_inverted():
    first, map_ = weights_spread(), 0.1 + normal(*SHAPE, seed=2).abs()
    whole = with_aleatoric(first, map_)
    assert torch.allclose(whole.covariance.dense(), first.covariance.dense() + map_.reshape(-1).diag())
    image = normal(*SHAPE, seed=3)
    assert torch.allclose(whole.covariance.matvec(whole.covariance.solve(image)), image, atol=1e-8)
    assert torch.allclose(with_aleatoric(first, 0.25).std.square(), first.std.square() + 0.25)


def test_a_correlated_remainder_is_widened_as_a_sum():
    base = from_dense(positive(40), SHAPE)
    whole = with_aleatoric(Posterior(normal(*SHAPE), DONE, covariance=base, target="epistemic"), 0.5)
    assert isinstance(whole.covariance, SumCovariance)
    assert torch.allclose(whole.covariance.dense(), positive(40) + 0.5 * torch.eye(40).double(), atol=1e-8)


def test_the_total_of_members_is_their_mean_and_their_unbiased_spread():
    images, own = normal(3, *SHAPE), [from_dense(positive(40, seed), SHAPE) for seed in range(3)]
    total = total_covariance(own, images - images.mean(0))
    expected = sum(positive(40, seed) for seed in range(3)) / 3 + torch.cov(images.reshape(3, -1).mT)
    assert torch.allclose(total.dense(), expected, atol=1e-8)
    mixture = combine([Posterior(image, DONE, covariance=one) for image, one in zip(images, own)])
    assert not torch.allclose(mixture.covariance.dense(), expected, atol=1e-3)  # 1/M: one of them holds


@pytest.mark.parametrize("target", ["posterior", "tempered", "estimator-error"])
def test_only_a_spread_of_weights_can_be_widened(target):
    with pytest.raises(InputError, match="epistemic"):
        with_aleatoric(weights_spread(target=target), 0.1)


@pytest.mark.parametrize("target", ["epistemic", "tempered", "estimator-error"])
def test_only_a_posterior_can_be_added(target):
    with pytest.raises(InputError, match="aleatoric term"):
        with_aleatoric(weights_spread(), weights_spread(target=target))


def test_a_spread_of_weights_does_not_mix_with_posteriors_by_itself():
    whole = with_aleatoric(weights_spread(), 0.1)
    with pytest.raises(InputError, match="one target"):
        combine([weights_spread(), whole])
    assert combine([whole, whole]).target == "posterior"


def test_wrong_variances_are_refused():
    for bad in (-1.0, float("nan"), torch.ones(3), torch.ones(2, 5, 5)):
        with pytest.raises(InputError, match="aleatoric variance"):
            with_aleatoric(weights_spread(), bad)
    with pytest.raises(InputError, match="one image"):
        with_aleatoric(weights_spread(), from_dense(positive(12), (1, 3, 4)))
    with pytest.raises(InputError, match="two members"):
        total_covariance([from_dense(positive(40), SHAPE)], normal(1, *SHAPE))
