"""A variational autoencoder as the prior, its latent posterior fitted by a Gaussian with independent variables.

    min over m, s   E_q Φ(z) + λ KL(q ‖ N(0, I)),      q = N(m, diag s²),      Φ(z) = −log p(y | z)

Found by Adam on the reparametrised bound, with draws m ± s ε of q whose ε are, in each step, orthogonal to one another:
each is normal, but together they make the gradient for m exact where Φ is quadratic, and that for s nearly so. The fit
is the mean of m and log s over the second half of the iterations. Some hundred decoder passes and their gradients,
against the many thousand of `LatentSampling`; two things are given up. One mode is fitted, the one in which the best of
some draws of the prior lies. And variables that the data couple come out too certain: for a quadratic Φ with posterior
precision P the fit has s_i² = 1/P_ii, where the truth is (P⁻¹)_ii ≥ 1/P_ii. λ = 1 is the bound of the evidence; with
any other the spread is that of a tempered posterior, and is called so.

References: Biquard, Chabert, Genin, Latry, Oberlin, "Variational Bayes image restoration with compressive
autoencoders", IEEE TIP 2025. Kingma, Welling, "Auto-encoding variational Bayes", ICLR 2014. Bishop, "Pattern
recognition and machine learning", 2006, section 10.1.2.
"""

__all__ = ["VariationalLatent"]

import math
import os
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from ..noise.base import stream
from ..posterior import Posterior, StreamingMoments
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, check_least, described, silent
from .latent_likelihood import LatentLikelihood
from .latent_sampling import decoder
from .trained import Ranged, require_range

_STARTS = 256  # draws of the prior of which the likeliest begins
_TOGETHER = 64  # draws decoded at once at the end
_STEADY = 3.0  # standard errors by which the bound may still differ between the last two tenths


@dataclass(frozen=True, eq=False)
class VariationalLatent(Ranged):
    """Variational inference in the latent variables.

    Args:
        vae: `networks.VAE`, or any decoder with `image_shape`, `latent` and `decode`.
        iterations: steps of Adam.
        rate: Adam's, at first; it falls to a tenth over the first half.
        weight: λ; 1 for the posterior, anything else is a tempered one.
        samples: draws of q from which mean and covariance are made.
        rank: factors of the covariance.
        keep_samples: keep the draws of the image in the posterior, for quantile intervals and `sample`.
        low: value of the image that the decoder knows as 0.
        high: value of the image that it knows as 1.
        seed: of all draws.
        card: what is known of the weights.

    Example:
        >>> import torch, obverse as ob
        >>> vae = ob.networks.VAE((1, 8, 8), latent=2, widths=(4, 8))
        >>> problem = ob.Problem(ob.operators.Identity((1, 8, 8)), ob.noise.Gaussian(0.5))
        >>> posterior = VariationalLatent(vae, iterations=50, weight=2.0)(torch.rand(1, 8, 8), problem)
        >>> posterior.target, posterior.mean.shape
        ('tempered', torch.Size([1, 8, 8]))
    """

    vae: Any
    _: KW_ONLY
    iterations: int = 400
    rate: float = 0.05
    weight: float = 1.0
    samples: int = 256
    rank: int = 16
    keep_samples: bool = False
    low: float = 0.0
    high: float = 1.0
    seed: int = 0
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        require_range(self.low, self.high, "VariationalLatent")
        check_least(self, iterations=20, samples=2, rank=0)
        for name in ("rate", "weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"VariationalLatent expects a positive {name}, got {getattr(self, name)}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "VariationalLatent":
        """With a decoder trained by a recipe with the objective Evidence."""
        return cls(**decoder(path))

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """Fit q and make the posterior of the image from it.

        Args:
            y: data of exactly the operator's `data_shape`.
            problem: an operator and a noise law.
            callback: told (iteration, iterations, bound to be minimised).

        Returns:
            A posterior whose history is the bound; its status tells whether that had settled.

        Raises:
            InputError: the data or the decoder do not fit.
            NumericsError: the bound became NaN or infinite.
        """
        began = time.perf_counter()
        likelihood = LatentLikelihood(y, problem, self.vae, self.low, self.high, "VariationalLatent")
        mean, log_deviation, history = self._fitted(likelihood, callback or silent)
        moments, within, draws = self._drawn(likelihood, mean, log_deviation.exp())
        image = moments.mean.to(likelihood.like)
        diagnostics = {
            "likelihood": likelihood.words,
            "bound": sum(history[-(len(history) // 10) :]) / (len(history) // 10),
            "chi2": float(problem.chi2(image, y)),
            "latent_std": [round(float(value), 4) for value in log_deviation.exp()],
            "samples": self.samples,
            "evaluations": likelihood.evaluations,
            "seconds": time.perf_counter() - began,
        }
        covariance = moments.covariance(within=within)
        target = "posterior" if self.weight == 1.0 else "tempered"
        return described(self, image, _status(history), history, diagnostics, covariance, target, draws=draws)

    def _fitted(self, likelihood: LatentLikelihood, callback: Callback) -> tuple[Tensor, Tensor, tuple[float, ...]]:
        """m, log s, and the bound at each step."""
        generator = stream(self.seed, 0)
        like = next(iter(self.vae.parameters()), likelihood.like)
        starts = torch.randn(_STARTS, self.vae.latent, generator=generator, dtype=like.dtype).to(like.device)
        with torch.no_grad():
            best = likelihood.potential(starts).argmin()
        mean = starts[best].clone().requires_grad_(True)
        log_deviation = torch.full_like(mean, math.log(0.3)).requires_grad_(True)
        optimiser, history = torch.optim.Adam([mean, log_deviation], self.rate), []
        average, half = torch.zeros(2, len(mean), dtype=like.dtype, device=like.device), self.iterations // 2
        for iteration in range(self.iterations):
            optimiser.param_groups[0]["lr"] = self.rate * max(0.1, 1 - 0.9 * iteration / half)
            white = _orthogonal(len(mean), generator, like.dtype).to(mean)
            with torch.enable_grad():
                z = mean + log_deviation.exp() * torch.cat([white, -white])
                divergence = 0.5 * (mean.square() + (2 * log_deviation).exp() - 1 - 2 * log_deviation).sum()
                bound = likelihood.potential(z).mean() + self.weight * divergence
                gradients = torch.autograd.grad(bound, [mean, log_deviation])
            history.append(float(bound.detach()))
            if not math.isfinite(history[-1]):
                raise NumericsError(
                    f"VariationalLatent expects a finite bound, got {history[-1]} at iteration {iteration}; lower rate"
                )
            mean.grad, log_deviation.grad = gradients
            optimiser.step()
            if iteration >= half:
                average += torch.stack([mean, log_deviation]).detach() / (self.iterations - half)
            callback(iteration + 1, self.iterations, history[-1])
        return average[0], average[1], tuple(history)

    @torch.no_grad()
    def _drawn(
        self, likelihood: LatentLikelihood, mean: Tensor, deviation: Tensor
    ) -> tuple[StreamingMoments, Tensor, Tensor | None]:
        """Moments of the image's mean given z, its mean variance given z, and draws if wanted."""
        like, generator = likelihood.like, stream(self.seed, 1)
        moments = StreamingMoments(tuple(like.shape), self.rank, dtype=like.dtype, device=like.device)
        within, kept = torch.zeros_like(like, dtype=torch.float64), []
        larger = max(like.numel(), likelihood.y.numel())
        for first in range(0, self.samples, _TOGETHER):
            count = min(_TOGETHER, self.samples - first)
            white = torch.randn(count, len(mean), generator=generator, dtype=mean.dtype).to(mean)
            noise = torch.randn(count, 2, larger, generator=generator, dtype=like.dtype).to(like)
            means, variances, draws = likelihood.images(mean + deviation * white, noise)
            moments.update(means)
            within += variances.double().sum(0) / self.samples
            kept += [draws] if self.keep_samples else []
        return moments, within, torch.cat(kept) if kept else None


def _orthogonal(size: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """As many standard normal vectors as variables, `(size, size)`, at right angles to one another."""
    white = torch.randn(2, size, size, generator=generator, dtype=dtype)
    return torch.linalg.qr(white[0]).Q * white[1].norm(dim=1, keepdim=True)


def _status(history: tuple[float, ...]) -> Status:
    """Whether the bound differs between the last two tenths by more than its noise."""
    tenth = len(history) // 10
    values = torch.tensor(history, dtype=torch.float64)
    last, before = values[-tenth:], values[-2 * tenth : -tenth]
    change = float(before.mean() - last.mean())
    error = float(((last.var() + before.var()) / tenth).sqrt()) if tenth > 1 else math.inf
    told = f"the bound fell by {change:.3g} over the last tenth of {len(history)} iterations"
    if change <= _STEADY * error + 1e-6 * abs(float(last.mean())):
        return Status(True, "converged", told)
    return Status(False, "iterations", f"{told}, by more than its noise of {error:.2g}; allow more of them")
