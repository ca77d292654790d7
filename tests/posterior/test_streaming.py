"""Streaming moments against the same draws held in memory."""

import pytest
import torch

from obverse.errors import InputError
from obverse.posterior import StreamingMoments
from tests.posterior.cases import SHAPE, normal, positive


def draws(count: int = 300, seed: int = 0) -> torch.Tensor:
    root = torch.linalg.cholesky(positive(40))
    return 3 + (normal(count, 40, seed=seed) @ root.mT).reshape(count, *SHAPE)


def streamed(images: torch.Tensor, batch: int, **options) -> StreamingMoments:
    moments = StreamingMoments(SHAPE, **options)
    for part in images.split(batch):
        moments.update(part)
    return moments


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_mean_and_variance_are_exact_whatever_the_batches_and_the_rank(batch):
    images = draws()
    moments = streamed(images, batch, rank=2, spare=0)
    assert torch.allclose(moments.mean, images.mean(0), rtol=1e-12)
    assert torch.allclose(moments.variance, images.var(0), rtol=1e-10)
    covariance = moments.covariance()
    assert len(covariance.eigenvalues) == 2
    assert torch.allclose(covariance.diagonal().double(), images.var(0), rtol=1e-5)
    assert covariance.clipped < 1e-5


def test_full_rank_streaming_is_the_sample_covariance():
    images = draws()
    moments = streamed(images, 11, rank=40, dtype=torch.float64)
    assert torch.allclose(moments.covariance().dense(), torch.cov(images.reshape(300, -1).mT), atol=1e-6)


def test_leading_factors_survive_the_truncation():
    images = draws(2000)
    values, vectors = torch.linalg.eigh(torch.cov(images.reshape(2000, -1).mT))
    covariance = streamed(images, 20, rank=4, spare=12, dtype=torch.float64).covariance()
    # Streaming cannot rise above the truth, and what it loses here is small.
    ratio = covariance.eigenvalues / values.flip(0)[:4]
    assert float(ratio.max()) < 1 + 1e-9 and float(ratio.min()) > 0.9
    captured = (covariance.U.mT @ vectors[:, -8:]).square().sum() / 4
    assert float(captured) > 0.95


def test_the_moving_mean_is_corrected():
    """Two batches about different means: without the correction their difference is missing from the factors."""
    shift = normal(*SHAPE, seed=4)
    still = 0.01 * normal(50, *SHAPE, seed=5)
    moments = streamed(torch.cat([still, still + 10 * shift]), 50, rank=1, dtype=torch.float64)
    factor = moments.covariance()
    expected = 100 * float(shift.square().sum()) * 2500 / 100 / 99
    assert float(factor.eigenvalues[0]) == pytest.approx(expected, rel=1e-3)
    uncorrected = streamed(still, 50, rank=1, dtype=torch.float64)
    uncorrected.update(still)
    assert float(uncorrected.covariance().eigenvalues[0]) < 1e-3 * expected


def test_chains_merge_to_what_one_chain_gives():
    images = draws()
    whole = streamed(images, 10, rank=40, dtype=torch.float64)
    first = streamed(images[:100], 10, rank=40, dtype=torch.float64)
    first.merge(streamed(images[100:], 10, rank=40, dtype=torch.float64))
    first.merge(StreamingMoments(SHAPE, rank=40))
    assert first.count == 300
    assert torch.allclose(first.mean, whole.mean, rtol=1e-12)
    assert torch.allclose(first.variance, whole.variance, rtol=1e-10)
    assert torch.allclose(first.covariance().dense(), whole.covariance().dense(), atol=1e-8)


def test_state_is_restored():
    images = draws()
    moments = streamed(images[:100], 10, rank=5)
    again = StreamingMoments.restored(moments.state())
    for other in (moments, again):
        other.update(images[100:])
    assert torch.equal(again.mean, moments.mean)
    assert torch.equal(again.covariance().U, moments.covariance().U)


def test_bad_draws_are_refused():
    moments = StreamingMoments(SHAPE, rank=2)
    with pytest.raises(InputError, match="two draws"):
        moments.covariance()
    with pytest.raises(InputError, match="shape"):
        moments.update(torch.zeros(3, 40))
    with pytest.raises(InputError, match="diverged"):
        moments.update(torch.full(SHAPE, torch.nan))
    moments.update(torch.ones(4, *SHAPE))
    with pytest.raises(InputError, match="did not move"):
        moments.covariance()
    with pytest.raises(InputError, match="merge"):
        moments.merge(StreamingMoments((1, 2, 2), rank=2))
