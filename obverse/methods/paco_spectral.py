"""PACO through several wavelengths: one S/N from those of the channels, whose noise is correlated.

Channel l has Σ b = b_l with variance P_l, so z_l = b_l/√P_l ~ N(0, 1) off the sources; the same speckles are in all
channels, and the z are correlated, with a matrix Q measured where no channel sees much. For a source of flux α g_l,
z ~ N(α u, Q) with u_l = g_l √P_l, and whitening by Q gives

    α = uᵀ Q⁻¹ z / uᵀ Q⁻¹ u,     S/N = uᵀ Q⁻¹ z / √(uᵀ Q⁻¹ u)

A speckle lies at a distance from the star in proportion to the wavelength: two channels see the same one near the star,
and different ones far from it. So Q is measured anew at each distance, in a ring one width of the PSF to either side,
wider where that holds too few independent values for L channels. From n of them the sample correlation S is drawn to
the identity, Q = (1 − ρ) S + ρ I, by as much as its sampling error asks for (`shrinkage`). One Q for the whole frame
makes the spread of S/N too large near the star and too small far from it.

Of a library of G spectra g the one with the largest S/N is taken. That maximum exceeds a threshold up to G times as
often as one S/N does, and is therefore brought to the value s' of the same rarity,

    1 − Φ(s') = 1 − Φ(s)^G

References: Flasseur, Denis, Thiébaut, Langlois, "PACO ASDI: an algorithm for exoplanet detection and characterization
in direct imaging with integral field spectrographs", A&A 2020.
"""

__all__ = ["channel_correlation", "combined", "corrected_maximum", "correlations_at"]

import math

import torch
from torch import Tensor

from .paco_detection import MAD
from .patch_statistics import shrinkage

_QUIET = 4.0  # deviations from the median, in every channel, below which a pixel counts as background
_LEAST = 1e-3  # eigenvalue of Q, so that channels which copy each other are not subtracted from one another
_FAR = 8.0  # standard deviations beyond which 1 − Φ(s) ∝ exp(−s²/2)/s is exact enough
_VALUES = 4  # independent values for each channel that a ring holds at least


def channel_correlation(z: Tensor, independent: float = math.inf) -> Tensor:
    """Q `(L, L)` of values `(L, N)`, from those that are quiet in all channels.

    Args:
        z: S/N of the channels at N pixels.
        independent: how many of these are independent; by as many as all Q is drawn to the identity.
    """
    away = (z - z.median(1, keepdim=True).values).detach().abs()
    quiet = z[:, (away < _QUIET * MAD * away.median(1, keepdim=True).values).all(0)]
    values = quiet - quiet.mean(1, keepdim=True)
    scale = values.square().mean(1).sqrt()
    matrix = (values @ values.mT) / values.shape[1] / (scale[:, None] * scale)
    rho = shrinkage(matrix, max(2.0, independent))
    matrix = (1 - rho) * matrix + rho * torch.eye(len(matrix), dtype=z.dtype, device=z.device)
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return (vectors * eigenvalues.clamp(min=_LEAST)) @ vectors.mT


def correlations_at(z: Tensor, distance: Tensor, width: float, radii: Tensor) -> Tensor:
    """Q at some distances from the star: `(len(radii), L, L)`.

    Args:
        z: S/N of the channels, `(L, H, W)`, NaN where not known.
        distance: of each pixel from the star in pixels, `(H, W)`.
        width: full width at half maximum of the PSF in pixels: a disc as wide holds one independent value.
        radii: the distances.
    """
    whole = z.isfinite().all(0)
    if not bool(whole.any()):
        return torch.eye(len(z), dtype=z.dtype, device=z.device).repeat(len(radii), 1, 1)
    values, place = z[:, whole], distance[whole]
    area = math.pi / 4 * width**2
    count = min(len(place), math.ceil(_VALUES * len(z) * area))
    found = []
    for radius in radii:
        away = (place - radius).abs()
        inside = away <= max(width, float(away.kthvalue(count).values))
        found.append(channel_correlation(values[:, inside], float(inside.sum()) / area))
    return torch.stack(found)


def combined(
    score: Tensor, variance: Tensor, spectra: Tensor, distance: Tensor, width: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Flux, its variance and S/N for each spectrum: three of `(G, H, W)`.

    Args:
        score: Σ b of each channel, `(L, H, W)`.
        variance: P, `(L, H, W)`; zero where a channel sees nothing.
        spectra: relative fluxes g, `(G, L)`.
        distance: from the star, and width: of the PSF; see `correlations_at`.
    """
    known = variance > 0
    root = torch.where(known, variance, 1.0).sqrt()
    z = torch.where(known, score / root, torch.nan)
    ring = distance.round().long()
    radii, ring = ring.unique(return_inverse=True)
    if len(z) == 1:
        inverse = z.new_ones(len(radii), 1, 1)
    else:
        inverse = torch.linalg.inv(correlations_at(z, distance, width, radii.to(z)))
    z, root = torch.where(known, z, 0.0), torch.where(known, root, 0.0)
    u = spectra[:, :, None, None] * root
    filtered = torch.stack([torch.einsum("hwm,gmhw->ghw", inverse[:, l][ring], u) for l in range(len(z))], 1)
    precision = (filtered * u).sum(1)
    seen = precision > 0
    safe = torch.where(seen, precision, 1.0)
    total = (filtered * z).sum(1)
    answers = torch.stack([total / safe, 1 / safe, total / safe.sqrt()])
    flux, spread, snr = torch.where(seen, answers, torch.nan)
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
