"""Power spectra of stationary fields: radius of each frequency, power laws, and fits to images.

|f| = √Σ_a (f_a / h_a)²     in cycles per unit, for pixels of size h_a
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["fitted_power", "frequency_radius", "power_law_spectrum"]


def frequency_radius(grid: Sequence[int], spacing: Sequence[float] | None, dtype: torch.dtype) -> Tensor:
    """|f| of every Fourier mode of a grid, in FFT order."""
    steps = (1.0,) * len(grid) if spacing is None else tuple(float(h) for h in spacing)
    if len(steps) != len(grid) or not all(math.isfinite(h) and h > 0 for h in steps):
        raise InputError(f"expected {len(grid)} positive spacings, got {steps}; give one for each spatial axis")
    axes = [torch.fft.fftfreq(n, d=h, dtype=dtype) for n, h in zip(grid, steps, strict=True)]
    return torch.stack([f.square() for f in torch.meshgrid(*axes, indexing="ij")]).sum(0).sqrt()


def power_law_spectrum(
    grid: Sequence[int],
    exponent: float,
    variance: float,
    corner: float | None,
    spacing: Sequence[float] | None,
    dtype: torch.dtype,
) -> Tensor:
    """(corner² + |f|²)^(−exponent/2), scaled so that its average is `variance`."""
    if not (math.isfinite(exponent) and math.isfinite(variance) and variance > 0):
        raise InputError(f"a power law expects a finite exponent and a positive variance, got {exponent}, {variance}")
    radius = frequency_radius(grid, spacing, dtype)
    lowest = float(radius[radius > 0].min()) if radius.numel() > 1 else 1.0
    corner = 0.5 * lowest if corner is None else float(corner)
    if not corner > 0:
        raise InputError(
            f"a power law expects a corner frequency above zero, got {corner}; it bounds the mean's variance"
        )
    shape = (corner**2 + radius.square()).pow(-0.5 * exponent)
    return variance * shape / shape.mean()


def fitted_power(power: Tensor, radius: Tensor, form: str, noise_variance: float) -> Tensor:
    """A radial spectrum fitted to a periodogram.

    Args:
        power: mean |F x|² of each orthonormal mode, FFT order.
        radius: frequency of each mode.
        form: "radial" or "power-law".
        noise_variance: variance of white noise to subtract.
    """
    if form not in ("radial", "power-law"):
        raise InputError(f'fit expects form "radial" or "power-law", got {form!r}')
    width = float(radius[radius > 0].min())
    ring = (radius / width).round().long().flatten()
    count = torch.bincount(ring).clamp_min(1)
    total = torch.bincount(ring, weights=power.flatten())
    average = total / count
    # the images' mean was removed, so that ring 0 holds next to nothing: give it the power of the lowest ring
    average[0] = average[1]
    clean = (average - noise_variance).clamp_min(1e-3 * noise_variance)
    # a ring without power (a constant image, or one that was low-passed) still needs a positive variance
    clean = clean.clamp_min(1e-12 * float(clean.max()))
    if not float(clean.max()) > 0:
        raise InputError("fit expects images with some variation above the noise, got none; check the noise variance")
    if form == "radial":
        return clean[ring].reshape(radius.shape)
    rings = torch.arange(clean.numel(), device=clean.device)
    use = (rings > 0) & (torch.bincount(ring, minlength=clean.numel()) > 0) & (average > 1.5 * noise_variance)
    if int(use.sum()) < 2:
        raise InputError("fit expects power above the noise in at least two rings of frequency; use larger images")
    abscissa, ordinate = rings[use].double().log(), clean[use].double().log()
    weight = count[use].double()
    centre = (weight * abscissa).sum() / weight.sum()
    level = (weight * ordinate).sum() / weight.sum()
    slope = (weight * (abscissa - centre) * (ordinate - level)).sum() / (weight * (abscissa - centre).square()).sum()
    line = (level + slope * ((radius / width).clamp_min(1.0).log() - centre)).exp()
    return line.to(power.dtype)
