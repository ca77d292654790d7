"""Draws from the posterior of a denoising problem, by reverse diffusion from the noisy image itself.

    z = x + ρ ε;   draws of  p(x | z)

Give the image a further noisy look x + s ε' with s falling from ∞ to 0, and let the look be a flow: it starts as pure
noise and ends as a draw. Two looks at levels s and ρ are one look u at level σ, so that D alone is needed:

    τ = 1/s,    σ = (τ² + ρ⁻²)^(−1/2),    u = σ² (τ n + z/ρ²),    dn/dτ = D(u, σ),    n(0) ~ N(0, 1),   x = lim D(u, σ)

At τ = 0 this is D(z, ρ); the law of n/τ is that of p(x | z) with noise of variance 1/τ² at every τ. Without data z
(ρ = ∞) it is the usual probability flow. It is solved by the two-step method of Adams and Bashforth: one evaluation of
D a level, D taken for linear in v = arsinh ρτ (log τ) from the last two,

    n' = n + Δτ D + (τ' Δv' − Δ(1/σ))/Δv (D − D_before),      1/σ = ∫ τ dv

with an error of second order. With 10 levels from ρ to ρ/50 the standard deviation of a Gaussian mode comes out within
3 %, however wide the prior is, with 20 within 1 %, where the usual stochastic walk x' ~ N(D + (σ'²/σ²)(x − D),
σ'² (σ² − σ'²)/σ²) comes out up to 15 % too narrow on the same 20.
What is narrower than the last level is not drawn: the answer there is the mean.

References: Song et al., "Score-based generative modeling through stochastic differential equations", ICLR 2021.
Montanari, "Sampling, diffusions, and stochastic localization", 2023. Coeurdoux, Dobigeon, Chainais, "Plug-and-play
split Gibbs sampler: embedding deep generative priors in Bayesian inference", IEEE TIP 2024.
"""

__all__ = ["Flow", "reverse_diffusion", "white"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..priors.denoiser import Denoises
from .schedule import Schedule


class Flow:
    """dn/dτ = D solved along falling levels, one value of D each: Euler's method at first, then the two-step method.

    Args:
        n: at the first level.
        levels: σ of each look.
        rho: of the data that are part of every look; ∞ without.
    """

    def __init__(self, n: Tensor, levels: Sequence[float], rho: float = math.inf):
        self.n, self.levels, self.at = n, tuple(levels), 0
        self._times = [math.sqrt(max(level**-2 - rho**-2, 0.0)) for level in levels]
        self._clock = [math.log(tau) if math.isinf(rho) else math.asinh(rho * tau) for tau in self._times]
        self._before: Tensor | None = None

    @property
    def tau(self) -> float:
        """Where n is."""
        return self._times[self.at]

    def advance(self, slope: Tensor) -> None:
        """Go on to the next level with D at the present one."""
        now, to = self.at, self.at + 1
        step = self._times[to] - self._times[now]
        self.n = self.n + step * slope
        if self._before is not None:
            bend = self._times[to] * (self._clock[to] - self._clock[now]) - (1 / self.levels[to] - 1 / self.levels[now])
            self.n = self.n + bend / (self._clock[now] - self._clock[now - 1]) * (slope - self._before)
        self._before, self.at = slope, to


@torch.no_grad()
def reverse_diffusion(
    denoiser: Denoises,
    z: Tensor,
    rho: float,
    generators: Sequence[torch.Generator],
    schedule: Schedule | None = None,
) -> Tensor:
    """One draw of p(x | z) for every image of a batch.

    Args:
        denoiser: with `denoise(x, sigma)`, asked once for every level of `schedule.below(rho)` and image.
        z: noisy images `(b, *image_shape)`.
        rho: their noise level.
        generators: one for each image, each of which is asked for one image of noise.
        schedule: its `steps` and `low` count; by default 20 levels down to ρ/50, as far as the denoiser knows.

    Returns:
        Draws `(b, *image_shape)`.

    Raises:
        InputError: ρ is not positive, or there are not as many generators as images.

    Example:
        >>> from obverse.noise.base import stream
        >>> from obverse.priors import GaussianField
        >>> field, z = GaussianField(torch.ones(4, 4), (1, 4, 4)), torch.ones(500, 1, 4, 4)
        >>> draws = reverse_diffusion(field, z, 1.0, [stream(0, i) for i in range(500)])
        >>> round(float(draws.mean()), 1), round(float(draws.std()), 1)  # ½, and √½
        (0.5, 0.7)
    """
    if not 0 < rho < math.inf:
        raise InputError(f"reverse_diffusion expects a positive rho, got {rho}; it is in units of the image")
    if len(generators) != len(z):
        raise InputError(f"reverse_diffusion expects {len(z)} generators, one an image, got {len(generators)}")
    chosen = Schedule(rho, rho / _DEPTH, _LEVELS) if schedule is None else schedule
    levels = chosen.known_to(denoiser).below(rho)
    flow = Flow(white(z, generators), levels, rho)
    answer = z
    for level in levels:
        answer = denoiser.denoise(level**2 * (flow.tau * flow.n + z / rho**2), level)
        if level != levels[-1]:
            flow.advance(answer)
    return answer


def white(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """White noise of the shape of a batch, each image from its own generator."""
    noise = [torch.randn(like.shape[1:], generator=g, dtype=like.dtype, device=g.device) for g in generators]
    return torch.stack(noise).to(like) if noise else like


_LEVELS, _DEPTH = 20, 50.0
