"""Posteriors of Gaussian problems that are wrong in a known way, and the factor that makes each right."""

import torch

from obverse.posterior import LowRankDiagonal, Posterior
from tests.posterior.cases import DONE, normal, seeded


def permuted(matrix: torch.Tensor) -> torch.Tensor:
    """The right eigenvalues on the wrong eigenvectors: same trace, same determinant."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values[torch.randperm(len(values), generator=seeded(1))]) @ vectors.mT


def diagonal(std: torch.Tensor) -> LowRankDiagonal:
    """A covariance of independent pixels."""
    return LowRankDiagonal(std.new_zeros(std.numel(), 0), std.new_zeros(0), std.square(), tuple(std.shape))


def wrong_noise_pairs(count: int, stated: float, seed: int = 0) -> tuple[list[Posterior], list[torch.Tensor]]:
    """Denoising of white images at noise 0.3 by one who takes it for `stated` · 0.3: mean and Σ are both off."""
    shape, s = (1, 4, 5), 0.3
    assumed = stated * s
    gain = 1 / (1 + assumed**2)
    covariance = diagonal(torch.full(shape, (assumed**2 * gain) ** 0.5, dtype=torch.float64))
    x = normal(count, *shape, seed=seed + 21)
    y = x + s * normal(count, *shape, seed=seed + 22)
    return [Posterior(gain * own, DONE, covariance=covariance) for own in y], list(x)


def wrong_noise_factor(stated: float) -> float:
    """The true standard deviation over the stated one."""
    s, assumed = 0.3, stated * 0.3
    gain = 1 / (1 + assumed**2)
    return (((1 - gain) ** 2 + (gain * s) ** 2) / (assumed**2 * gain)) ** 0.5


def uneven_pairs(count: int, seed: int = 0) -> tuple[list[Posterior], list[torch.Tensor]]:
    """Half of the pixels claim 1 and err by 1.5, half claim 2 and err by 1: no single factor makes both right."""
    shape = (1, 6, 6)
    claimed, true = torch.ones(shape).double(), torch.full(shape, 1.5).double()
    claimed[..., 3:], true[..., 3:] = 2.0, 1.0
    truths = true * normal(count, *shape, seed=seed + 31)
    posterior = Posterior(torch.zeros(shape).double(), DONE, covariance=diagonal(claimed))
    return [posterior] * count, list(truths)
