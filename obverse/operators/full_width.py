"""How wide a point-spread function is."""

import math

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["full_width_at_half_maximum"]

_FINER = 8  # samples per pixel along each axis where a PSF's area is counted


def full_width_at_half_maximum(psf: Tensor) -> float:
    """Diameter in pixels of the disc that has the area where the PSF exceeds half its maximum.

    The area is counted on a grid eight times finer, made by Fourier.

    Args:
        psf: `(h, w)`, or `(L, h, w)` for the mean width over the wavelengths.

    Example:
        >>> x = torch.arange(-8.0, 9.0)
        >>> psf = torch.exp(-4 * math.log(2) * (x[:, None] ** 2 + x**2) / 4.0**2)
        >>> round(full_width_at_half_maximum(psf), 1)
        4.0
    """
    if psf.ndim == 3:
        return sum(map(full_width_at_half_maximum, psf)) / len(psf)
    if not float(psf.max()) > 0:
        raise InputError(f"a PSF with a positive maximum is expected, got {float(psf.max()):g}; check its sign")
    # an even side is made odd by a line of zeros, so that no frequency is its own mirror image
    sides = [n + 1 - n % 2 for n in psf.shape]
    spectrum = torch.fft.fftshift(torch.fft.fft2(psf.detach().double(), s=sides))
    height, width = (_FINER * n for n in sides)
    padded = spectrum.new_zeros(height, width)
    top, left = (fine // 2 - n // 2 for fine, n in zip(padded.shape, sides))
    padded[top : top + sides[0], left : left + sides[1]] = spectrum
    fine = torch.fft.ifft2(torch.fft.ifftshift(padded)).real
    area = float((fine > fine.max() / 2).sum()) / _FINER**2
    return 2 * math.sqrt(area / math.pi)
