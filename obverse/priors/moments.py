"""Moments of the clean image along a direction, from the denoiser's answers along it.

    f(t) = ⟨v, D(x + t v, σ)⟩,  |v| = 1:       mean of ⟨v, image⟩ given image + σε = x + t v
    μ₂ = σ² f′(0),    μ_{k+1} = σ² μ_k′ + k μ_{k−1} μ₂    for central moments
    so that            μ₃ = σ⁴ f″(0),    μ₄ = σ⁶ f‴(0) + 3 μ₂²

Exact for the prior whose posterior mean D is. The derivatives are autograd's, nested: each costs about as much again
as all before it. They want a D with three continuous derivatives along v. A network of ReLUs is piecewise linear: its
f″ and f‴ are zero but for kinks that autograd does not see, and one of ELUs has kinks in its second derivative. For
those, f is fitted by a polynomial over a range of t: given x + t v the law of the image is that given x, tilted by
exp(t ⟨v, image⟩/σ²), so that t ↦ f(t)/σ² is the derivative of its cumulant generating function over a range, too.

References: Manor, Michaeli, "On the posterior distribution in denoising: application to uncertainty quantification",
ICLR 2024.
"""

__all__ = ["directional_moments"]

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .denoiser import Denoises

_DEGREE, _POINTS = 5, 11  # of the polynomial; where f is taken


def directional_moments(
    denoiser: Denoises, x: Tensor, sigma: float, directions: Tensor, tilt: float | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance and third and fourth central moments along each direction, `(k,)` each.

    Args:
        denoiser: anything with a `denoise` that autograd can follow. For double precision give a denoiser in double
            precision (`denoiser.to(torch.float64)`) and an image in it.
        x: the noisy image, `(C, H, W)`.
        sigma: the level of its noise.
        directions: `(k, C, H, W)`, of any length; they are taken at length one.
        tilt: None for derivatives at x itself. Else f is fitted where it lies within about this many standard
            deviations √μ₂ of f(0): 1 for a network with kinks.

    Example:
        >>> from obverse.priors import GaussianMixture
        >>> two = torch.tensor([-1.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
        >>> points = GaussianMixture(torch.ones(2), two, torch.zeros(2, 1, 1))
        >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
        >>> [round(float(m), 6) for m in directional_moments(points, 0 * one, 1.0, one[None])]
        [0.0, 1.0, 0.0, 1.0]
    """
    if tuple(directions.shape[1:]) != tuple(x.shape) or not bool((directions.flatten(1).norm(dim=1) > 0).all()):
        raise InputError(
            f"directional_moments expects directions (k, {', '.join(map(str, x.shape))}) other than zero, got "
            f"{tuple(directions.shape)}; give one of the image's shape for each"
        )
    if tilt is not None and not 0 < tilt < float("inf"):
        raise InputError(f"directional_moments expects a positive tilt, got {tilt}; 1 is usual")
    rows = []
    for direction in directions.to(x):
        v = direction / direction.norm()
        mean, first, *higher = _derivatives(denoiser, x, sigma, v, 3 if tilt is None else 1)
        if tilt is not None:
            # Where the mean moves by `tilt` standard deviations: t f′ = tilt σ √f′.
            first, *higher = _fitted(denoiser, x, sigma, v, tilt * sigma * max(first, 1e-12) ** -0.5)
        variance = sigma**2 * first
        rows.append([mean, variance, sigma**4 * higher[0], sigma**6 * higher[1] + 3 * variance**2])
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3]


def _derivatives(denoiser: Denoises, x: Tensor, sigma: float, v: Tensor, orders: int) -> list[float]:
    """f(0) and its derivatives up to an order."""
    with torch.enable_grad():
        t = torch.zeros((), dtype=x.dtype, device=x.device, requires_grad=True)
        values = [(v * denoiser.denoise(x.detach() + t * v, sigma)).sum()]
        for order in range(1, orders + 1):
            found = None
            if values[-1].requires_grad:
                (found,) = torch.autograd.grad(values[-1], t, create_graph=order < orders, allow_unused=True)
            values.append(torch.zeros_like(t) if found is None else found)  # a linear D: its graph has ended
    return [float(value.detach()) for value in values]


def _fitted(denoiser: Denoises, x: Tensor, sigma: float, v: Tensor, reach: float) -> tuple[float, float, float]:
    """f′(0), f″(0), f‴(0) of the polynomial next to f over |t| ≤ reach."""
    nodes = np.cos(np.pi * (np.arange(_POINTS) + 0.5) / _POINTS)
    with torch.no_grad():
        base = denoiser.denoise(x, sigma)  # subtracted, so that single precision is spent on the change
        values = [float((v * (denoiser.denoise(x + reach * t * v, sigma) - base)).double().sum()) for t in nodes]
    fit = np.polynomial.Chebyshev.fit(nodes, values, _DEGREE, domain=[-1, 1])
    first, second, third = (float(fit.deriv(order)(0.0)) / reach**order for order in (1, 2, 3))
    return first, second, third
