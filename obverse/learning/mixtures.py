"""Mixtures of Gaussians without means, fitted by expectation–maximisation.

    expectation:    r_ik = w_k N(v_i; 0, C_k) / Σ_j w_j N(v_i; 0, C_j)
    maximisation:   w_k = Σ_i r_ik / N,      C_k = Σ_i r_ik v_i v_iᵀ / Σ_i r_ik + t

t is a variance, such as that of rounding to 8 bits, below which no direction can fall; without it no pass lowers the
likelihood. The first guess groups the samples by contrast and, within a contrast, by their likeness to random ones of
them.

Reference: Dempster, Laird, Rubin, "Maximum likelihood from incomplete data via the EM algorithm", JRSS B 1977.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["fit_mixture"]

_CONTRASTS = 8  # groups of the first guess
_AT_ONCE = 8192  # samples
_NEGLIGIBLE = 1e-3  # a responsibility below this is taken for none


def fit_mixture(
    samples: Tensor,
    components: int,
    iterations: int,
    noise_variance: float,
    seed: int = 0,
    callback: Callable[[int, int, float], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weights `(K,)` and covariances `(K, n, n)`.

    Args:
        samples: v_i, `(N, n)`, their means taken off, many more than components.
        iterations: passes over the samples.
        noise_variance: t, positive.
        callback: told (pass, passes, mean log-likelihood before it).

    Raises:
        InputError: too few samples, or a setting out of range.
    """
    if samples.ndim != 2 or len(samples) < 2 * components or components < 1 or iterations < 1:
        raise InputError(f"fit_mixture expects at least two samples (N, n) a component, got {tuple(samples.shape)}")
    if not noise_variance > 0:
        raise InputError(f"fit_mixture expects a positive noise_variance, got {noise_variance}")
    owners = _first_guess(samples, components, seed)
    eye = torch.eye(samples.shape[1], dtype=samples.dtype, device=samples.device)
    counts = torch.bincount(owners, minlength=components).to(samples)
    scatter = torch.stack([samples[owners == k].mT @ samples[owners == k] for k in range(components)])
    weights, covariances = _maximised(counts, scatter, noise_variance, eye)
    for number in range(iterations):
        precision = torch.linalg.cholesky(torch.linalg.inv(covariances))
        constant = weights.log() + precision.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = constant - 0.5 * samples.shape[1] * math.log(2 * math.pi)
        counts, scatter, total = torch.zeros_like(counts), torch.zeros_like(scatter), 0.0
        for v in samples.split(_AT_ONCE):
            energy = torch.stack([(v @ root).square().sum(1) for root in precision], 1)
            log = constant - 0.5 * energy
            total += float(log.logsumexp(1).sum())
            shares = log.softmax(1)
            for k in range(components):
                own = (shares[:, k] > _NEGLIGIBLE).nonzero()[:, 0]
                part, share = v[own], shares[own, k]
                counts[k] += share.sum()
                scatter[k] += (part * share[:, None]).mT @ part
        weights, covariances = _maximised(counts, scatter, noise_variance, eye)
        if callback is not None:
            callback(number + 1, iterations, total / len(samples))
    return weights, covariances


def _maximised(counts: Tensor, scatter: Tensor, noise_variance: float, eye: Tensor) -> tuple[Tensor, Tensor]:
    weights = counts.clamp_min(1e-3)  # of a sample: a component without samples stays, without a say
    covariances = scatter / weights[:, None, None] + noise_variance * eye
    return weights / weights.sum(), 0.5 * (covariances + covariances.mT)


def _first_guess(samples: Tensor, components: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    groups = min(_CONTRASTS, components)
    order = samples.square().sum(1).argsort()
    owners = torch.empty(len(samples), dtype=torch.long, device=samples.device)
    first = 0
    for number, members in enumerate(order.tensor_split(groups)):
        count = components // groups + (number < components % groups)
        chosen = members[torch.randperm(len(members), generator=generator)[:count].to(members.device)]
        directions = torch.nn.functional.normalize(samples[chosen], dim=1)
        owners[members] = first + (samples[members] @ directions.mT).abs().argmax(1)
        first += count
    return owners
