"""PACO through several wavelengths: one S/N from those of the channels, whose noise is correlated.

Channel l has Σ b = b_l with variance P_l, so z_l = b_l/√P_l ~ N(0, 1) off the sources; the same speckles are in all
channels, and the z are correlated, with a matrix Q measured where no channel sees much. For a source of flux α g_l,
z ~ N(α u, Q) with u_l = g_l √P_l, and whitening by Q gives

    α = uᵀ Q⁻¹ z / uᵀ Q⁻¹ u,     S/N = uᵀ Q⁻¹ z / √(uᵀ Q⁻¹ u)

Of a library of G spectra g the one with the largest S/N is taken. That maximum exceeds a threshold up to G times as
often as one S/N does, and is therefore brought to the value s' of the same rarity,

    1 − Φ(s') = 1 − Φ(s)^G

References: Flasseur, Denis, Thiébaut, Langlois, "PACO ASDI: an algorithm for exoplanet detection and characterization
in direct imaging with integral field spectrographs", A&A 2020.
"""

__all__ = ["channel_correlation", "combined", "corrected_maximum"]

import math

import torch
from torch import Tensor

from .paco_detection import MAD

_QUIET = 4.0  # deviations from the median, in every channel, below which a pixel counts as background
_LEAST = 1e-3  # eigenvalue of Q, so that channels which copy each other are not subtracted from one another
_FAR = 8.0  # standard deviations beyond which 1 − Φ(s) ∝ exp(−s²/2)/s is exact enough


def channel_correlation(z: Tensor) -> Tensor:
    """Q `(L, L)` of S/N maps `(L, H, W)`, NaN where not known, from the pixels that are quiet in all channels."""
    values = z[:, z.isfinite().all(0)]
    away = (values - values.median(1, keepdim=True).values).detach().abs()
    values = values[:, (away < _QUIET * MAD * away.median(1, keepdim=True).values).all(0)]
    values = values - values.mean(1, keepdim=True)
    scale = values.square().mean(1).sqrt()
    matrix = (values @ values.mT) / values.shape[1] / (scale[:, None] * scale)
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return (vectors * eigenvalues.clamp(min=_LEAST)) @ vectors.mT


def combined(score: Tensor, variance: Tensor, spectra: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flux, its variance and S/N for each spectrum: three of `(G, H, W)`.

    Args:
        score: Σ b of each channel, `(L, H, W)`.
        variance: P, `(L, H, W)`; zero where a channel sees nothing.
        spectra: relative fluxes g, `(G, L)`.
    """
    known = variance > 0
    root = torch.where(known, variance, 1.0).sqrt()
    z = torch.where(known, score / root, torch.nan)
    inverse = torch.linalg.inv(channel_correlation(z))
    shape = score.shape[1:]
    z, root = torch.where(known, z, 0.0).flatten(1), torch.where(known, root, 0.0).flatten(1)
    u = spectra[:, :, None] * root
    filtered = torch.einsum("lm,gmp->glp", inverse, u)
    precision = (filtered * u).sum(1)
    seen = precision > 0
    safe = torch.where(seen, precision, 1.0)
    total = (filtered * z).sum(1)
    answers = torch.stack([total / safe, 1 / safe, total / safe.sqrt()])
    flux, spread, snr = torch.where(seen, answers, torch.nan).unflatten(2, shape)
    return flux, spread, snr


def corrected_maximum(snr: Tensor, count: int) -> Tensor:
    """The S/N of one hypothesis that is as rare as this largest of `count`.

    >>> corrected_maximum(torch.tensor(5.0), 1), corrected_maximum(torch.tensor(5.0, dtype=torch.float64), 10)
    (tensor(5.), tensor(4.5360, dtype=torch.float64))
    """
    if count == 1:
        return snr
    tail = torch.special.ndtr(-snr.double().clamp(max=_FAR)).clamp(max=1 - 1e-12)
    rarer = (-torch.special.ndtri(-torch.expm1(count * torch.log1p(-tail)))).clamp(min=-_FAR)
    far = (snr.double().clamp(min=_FAR).square() - 2 * math.log(count)).sqrt()
    return (rarer + far - math.sqrt(_FAR**2 - 2 * math.log(count))).to(snr)
