"""What the weights leave open together with what the data leave open, when that is asked for.

    Cov[x | y] = E_w Cov[x | y, w]  +  Cov_w E[x | y, w]                     (law of total covariance)
                 aleatoric             epistemic

An ensemble, dropout or a posterior of weights measures the second term alone: a well-trained network hides nearly all
the uncertainty of an ill-posed problem in the first. Neither is the posterior covariance, their sum is; it is never
formed unasked, since which aleatoric term belongs to a network is a statement about the data, not about its weights.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from .covariance import Covariance, streams
from .low_rank import LowRankDiagonal
from .mixture import MixtureCovariance
from .posterior import Posterior

__all__ = ["SumCovariance", "total_covariance", "with_aleatoric"]


def with_aleatoric(epistemic: Posterior, aleatoric: "Posterior | Covariance | Tensor | float") -> Posterior:
    """The posterior of the image out of a spread over weights and an aleatoric term.

    Args:
        epistemic: of target "epistemic".
        aleatoric: what is open when the weights are known: a posterior of target "posterior" (its covariance is taken,
            its mean is not), a covariance, or the variance of independent pixels, one for all or `image_shape`.

    Returns:
        The epistemic mean with the sum of both covariances, target "posterior". Draws of the members are not kept.

    Raises:
        InputError: the first is no epistemic spread, the second no posterior, or they are of different images.

    Example:
        >>> from obverse.posterior import spread_covariance
        >>> from obverse.solvers.result import Status
        >>> members, done = torch.tensor([[[[0.0, 1.0]]], [[[2.0, 1.0]]]]), Status(True, "completed", "Two members.")
        >>> found = Posterior(members.mean(0), done, covariance=spread_covariance(members), target="epistemic")
        >>> whole = with_aleatoric(found, 0.25)
        >>> whole.target, whole.covariance.diagonal().flatten().tolist()
        ('posterior', [2.25, 0.25])
    """
    if epistemic.target != "epistemic":
        raise InputError(
            f'with_aleatoric expects a spread of target "epistemic" first, got "{epistemic.target}"; that of '
            "methods.Ensemble, WeightSampling or LinearisedLaplace"
        )
    if isinstance(aleatoric, Posterior):
        if aleatoric.target != "posterior":
            raise InputError(
                f'with_aleatoric expects an aleatoric term of target "posterior", got "{aleatoric.target}": that is '
                "not what the data leave open when the weights are known"
            )
        kind, aleatoric = str(aleatoric.provenance.get("method", "posterior")), aleatoric.covariance
    else:
        kind = type(aleatoric).__name__ if isinstance(aleatoric, Covariance) else "variance of independent pixels"
    own = epistemic.covariance
    if isinstance(aleatoric, Covariance):
        covariance: Covariance = SumCovariance([own, aleatoric])
    else:
        covariance = _widened(own, aleatoric)
    return replace(
        epistemic,
        covariance=covariance,
        target="posterior",
        provenance={**epistemic.provenance, "aleatoric": kind},
        draws=None,
    )


def total_covariance(members: Sequence[Covariance], offsets: Tensor) -> MixtureCovariance:
    """mean(Σ_m) + 1/(M − 1) Σ_m o_m o_mᵀ, for means m_m = x̄ + o_m of members that are a sample of the weights.

    `combine` is for posteriors of which one holds, and divides by M; here others might have been drawn.
    """
    count = len(members)
    if count < 2 or len(offsets) != count:
        raise InputError(f"a total covariance expects at least two members, got {count} of {len(offsets)}; add some")
    return MixtureCovariance(members, [1 / count] * count, (count / (count - 1)) ** 0.5 * offsets)


class SumCovariance(Covariance):
    """Σ₁ + Σ₂ + …, of independent errors.

    Args:
        parts: covariances of one image.
    """

    def __init__(self, parts: Sequence[Covariance]):
        shapes = sorted({part.image_shape for part in parts})
        if len(shapes) != 1:
            raise InputError(f"a sum expects covariances of one image, got shapes {shapes}; crop them to the same grid")
        super().__init__(parts[0].image_shape, parts[0].dtype, parts[0].device)
        self.parts = tuple(parts)

    def _matvec(self, images: Tensor) -> Tensor:
        return torch.stack([part.matvec(images) for part in self.parts]).sum(0)

    def diagonal(self) -> Tensor:
        return torch.stack([part.diagonal().to(dtype=self.dtype, device=self.device) for part in self.parts]).sum(0)

    def sample(self, n: int, generator: torch.Generator) -> Tensor | None:
        found = [part.sample(n, own) for part, own in zip(self.parts, streams(len(self.parts), generator))]
        if any(draws is None for draws in found):
            return None
        return torch.stack([draws.to(dtype=self.dtype, device=self.device) for draws in found]).sum(0)  # type: ignore


def _widened(covariance: Covariance, variance: Tensor | float) -> Covariance:
    """Σ + diag(variance)."""
    flat = torch.as_tensor(variance, dtype=covariance.dtype, device=covariance.device)
    if flat.ndim and tuple(flat.shape) != covariance.image_shape:
        raise InputError(f"an aleatoric variance expects {covariance.image_shape} or one number, got {flat.shape}")
    if not bool(((flat >= 0) & flat.isfinite()).all()):
        raise InputError("an aleatoric variance expects finite numbers from zero on, got others; pass σ², not σ")
    d = flat.expand(covariance.image_shape).reshape(-1)
    if isinstance(covariance, LowRankDiagonal) and covariance.correlation is None and not bool(covariance.shared.any()):
        return LowRankDiagonal(covariance.U, covariance.eigenvalues, covariance.d + d, covariance.image_shape)
    pixels = LowRankDiagonal(d.new_zeros(len(d), 0), d.new_zeros(0), d, covariance.image_shape)
    return SumCovariance([covariance, pixels])
