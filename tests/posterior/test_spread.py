"""A handful of images: their covariance is that of the formula, of the rank that they have, and nothing is added."""

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.posterior.spread import rooted_covariance, spread_covariance
from tests.posterior.cases import SHAPE, normal, seeded


def test_about_their_mean_it_is_the_unbiased_covariance_of_rank_one_less():
    images = normal(5, *SHAPE)
    found = spread_covariance(images)
    expected = torch.cov(images.reshape(5, -1).mT)
    assert found.rank == 4
    assert torch.allclose(found.dense(), expected, rtol=0, atol=1e-12)
    assert torch.allclose(found.diagonal().reshape(-1), expected.diagonal())
    assert float(found.d.abs().max()) == 0.0
    assert not torch.allclose(found.dense(), 0.8 * expected, rtol=0, atol=1e-3)  # what 1/M would give


def test_about_a_given_centre_it_is_the_mean_square():
    images, centre = normal(3, *SHAPE), normal(*SHAPE, seed=9)
    offsets = (images - centre).reshape(3, -1)
    found = spread_covariance(images, centre)
    assert found.rank == 3
    assert torch.allclose(found.dense(), offsets.mT @ offsets / 3, rtol=0, atol=1e-12)
    assert spread_covariance(images[:1], centre).rank == 1


def test_rank_is_not_raised_by_rounding_nor_by_equal_images():
    images = 1e3 + normal(6, *SHAPE, dtype=torch.float32)
    assert spread_covariance(images).rank == 5
    assert spread_covariance(torch.cat([images[:3], images[:3]])).rank == 2
    same = spread_covariance(images[:1].expand(4, *SHAPE))
    assert same.rank == 0 and float(same.diagonal().abs().max()) == 0.0


def test_components_lie_in_the_span_and_draws_do_too():
    found = spread_covariance(normal(4, *SHAPE))
    leading = found.components(3)
    assert torch.allclose(leading.variances.sum(), found.diagonal().sum())
    draws = found.sample(4000, seeded(1)).reshape(4000, -1)
    assert float((torch.cov(draws.mT) - found.dense()).norm() / found.dense().norm()) < 0.1
    outside = draws - draws @ found.U @ found.U.mT
    assert float(outside.norm() / draws.norm()) < 1e-12


def test_what_is_not_known_is_not_inverted():
    with pytest.raises(NumericsError):
        spread_covariance(normal(4, *SHAPE)).solve(normal(*SHAPE))


def test_a_root_gives_its_square():
    root = normal(40, 3)
    assert torch.allclose(rooted_covariance(root, SHAPE, torch.float64).dense(), root @ root.mT, rtol=0, atol=1e-12)


def test_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="at least two"):
        spread_covariance(normal(1, *SHAPE))
    with pytest.raises(InputError, match="centre"):
        spread_covariance(normal(3, *SHAPE), torch.zeros(2))
