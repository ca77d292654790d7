"""Point-spread functions from a pupil, with Zernike aberrations: widefield, and confocal with a pinhole of any size.

    h(x, y, z) = | ∫∫_{u²+v² ≤ 1} P(u, v) exp(2πi (NA/λ)(x u + y v)) exp(2πi z √(n² − NA²ρ²)/λ) du dv |²
    P = a(ρ) exp(2πi Σ_j c_j Z_j(ρ, θ)),      ρ² = u² + v²,   θ from the x axis towards y

with c_j in wavelengths (root mean square, since the Z_j have unit variance over the disc) and a = 1/√cos α =
(1 − (NA ρ/n)²)^{−1/4} for an aplanatic lens, α the angle to the axis, or 1. Such a lens has the sine condition, by
which an area of the pupil stands for a solid angle 1/cos α times as large; over α the integrand has the factor
√cos α sin α of Debye's integral, for light that is focused and, by reciprocity, for light that is gathered. The number
j is Noll's. Polarisation is neglected, as in the Gibson–Lanni model of `psf`, from which this one differs in the
apodisation only: without it and without aberrations both are the same integral. The integral is a quadrature on rings
of the pupil, a matrix product for each plane, so that pixels of any size are met; values are those at voxel centres.

    confocal    h = h_emission ⊛ disc of the pinhole · h_excitation,      diameter in Airy units of 1.22 λ_emission/NA

References: Noll, "Zernike polynomials and atmospheric turbulence", JOSA 1976. Hanser, Gustafsson, Agard, Sedat,
"Phase-retrieved pupil functions in wide-field fluorescence microscopy", Journal of Microscopy 2004. Wilson, "Confocal
Microscopy", 1990. Born, Wolf, "Principles of Optics", §8.8. Richards, Wolf, "Electromagnetic diffraction in optical
systems II", Proc. R. Soc. A 1959 (the aplanatic lens).
"""

__all__ = ["confocal", "widefield", "zernike"]

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from ..errors import InputError
from .psf import _check_optics as check_optics

_NODES = 33  # least nodes over the radius of the pupil: phases that turn faster get more


def zernike(index: int, rho: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Zernike polynomial of unit root mean square over the disc, by Noll's number.

    1 is piston, 2 and 3 tilt in x and y, 4 defocus, 5 and 6 astigmatism, 7 and 8 coma in y and x, 11 spherical.

    Args:
        index: at least 1.
        rho, theta: polar coordinates in the pupil, rho from 0 to 1.

    Raises:
        InputError: the index is no positive integer.
    """
    n, m = _orders(index)
    radial = np.zeros_like(rho)
    for k in range((n - abs(m)) // 2 + 1):
        bottom = math.factorial(k) * math.factorial((n + abs(m)) // 2 - k) * math.factorial((n - abs(m)) // 2 - k)
        radial = radial + (-1) ** k * math.factorial(n - k) / bottom * rho ** (n - 2 * k)
    if m == 0:
        return math.sqrt(n + 1) * radial
    angular = np.cos(m * theta) if m > 0 else np.sin(-m * theta)
    return math.sqrt(2 * (n + 1)) * radial * angular


def widefield(
    shape: Sequence[int], spacing: Sequence[float], *, numerical_aperture: float, wavelength: float,
    refractive_index: float = 1.515, aberrations: Mapping[int, float] | None = None, aplanatic: bool = True,
) -> np.ndarray:  # fmt: skip
    """The PSF on a grid, of sum 1; the lens's axis and focus lie at index n // 2 of each axis.

    Args:
        shape: (H, W) for the focal plane, or (D, H, W).
        spacing: voxel size in nm, one per axis.
        numerical_aperture: NA, below `refractive_index`.
        wavelength: of the light in vacuum, in nm.
        refractive_index: of the sample and the immersion medium.
        aberrations: Noll number → coefficient in wavelengths, root mean square.
        aplanatic: strengthen the pupil's rim by 1/√cos, as a lens of the sine condition does: every microscope's.

    Raises:
        InputError: the shape, the optics or an aberration is out of range.

    Example:
        >>> h = widefield((31, 31), (60.0, 60.0), numerical_aperture=1.2, wavelength=520.0, aberrations={8: 0.1})
        >>> bool(np.allclose(h, h[::-1])), bool(np.allclose(h, h[:, ::-1])), round(float(h.sum()), 6)
        (True, False, 1.0)
    """
    h = _intensity(shape, spacing, numerical_aperture, wavelength, refractive_index, aberrations or {}, aplanatic)
    return h / h.sum()


def confocal(
    shape: Sequence[int], spacing: Sequence[float], *, numerical_aperture: float, emission: float, excitation: float,
    pinhole: float = 1.0, refractive_index: float = 1.515, aberrations: Mapping[int, float] | None = None,
    aplanatic: bool = True,
) -> np.ndarray:  # fmt: skip
    """The PSF of a confocal microscope, of sum 1: excitation times what the pinhole lets through of the emission.

    Args:
        shape, spacing, numerical_aperture, refractive_index, aplanatic: as for `widefield`.
        emission, excitation: wavelengths in vacuum, in nm.
        pinhole: its diameter in Airy units, 1.22 emission/NA in the sample; 0 for a closed one.
        aberrations: Noll number → path error in wavelengths of the emission; the same path aberrates the excitation.

    Raises:
        InputError: an argument is out of range.
    """
    if not (math.isfinite(pinhole) and 0 <= pinhole <= 20):
        raise InputError(f"the pinhole expects a diameter from 0 to 20 Airy units, got {pinhole:g}; use widefield")
    given = aberrations or {}
    _check(shape, spacing, numerical_aperture, emission, refractive_index, given)
    exciting = {index: value * emission / excitation for index, value in given.items()}
    light = _intensity(shape, spacing, numerical_aperture, excitation, refractive_index, exciting, aplanatic)
    radius = 0.5 * pinhole * 1.22 * emission / numerical_aperture
    # the emission is needed beyond the grid by the pinhole's radius
    margin = [int(math.ceil(radius / s)) for s in spacing[-2:]]
    wide = (*shape[:-2], *(n + 2 * m for n, m in zip(shape[-2:], margin)))
    seen = _intensity(wide, spacing, numerical_aperture, emission, refractive_index, given, aplanatic)
    product = _through_pinhole(seen, spacing[-2:], radius, margin) * light
    return product / product.sum()


def _intensity(
    shape: Sequence[int], spacing: Sequence[float], aperture: float, wavelength: float, index: float,
    aberrations: Mapping[int, float], aplanatic: bool,
) -> np.ndarray:  # fmt: skip
    """|field|² at the voxel centres; every plane carries the same energy, were the grid wide enough."""
    _check(shape, spacing, aperture, wavelength, index, aberrations)
    depth = shape[0] if len(shape) == 3 else 1
    z = (np.arange(depth) - depth // 2) * (spacing[0] if len(shape) == 3 else 0.0)
    y, x = ((np.arange(n) - n // 2) * s for n, s in zip(shape[-2:], spacing[-2:]))
    rho, theta, weight = _nodes(max(np.abs(x).max(), np.abs(y).max()), np.abs(z).max(), aperture, wavelength, index)
    path = sum((value * zernike(j, rho, theta) for j, value in aberrations.items()), np.zeros_like(rho))
    cosine = np.sqrt(1 - (aperture * rho / index) ** 2)
    pupil = weight * (1 / np.sqrt(cosine) if aplanatic else 1.0) * np.exp(2j * np.pi * path)
    u, v = rho * np.cos(theta), rho * np.sin(theta)
    across = np.exp(2j * np.pi * aperture / wavelength * np.outer(u, x))
    down = np.exp(2j * np.pi * aperture / wavelength * np.outer(y, v))
    result = np.empty((depth, *shape[-2:]))
    for plane in range(depth):
        here = pupil * np.exp(2j * np.pi * index / wavelength * z[plane] * cosine)
        field = (down * here) @ across
        result[plane] = field.real**2 + field.imag**2
    return result.reshape(shape)


def _nodes(
    reach: float, depth: float, aperture: float, wavelength: float, index: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quadrature over the disc: Gauss–Legendre over ρ, equal angles; more nodes than the phase has turns."""
    turns = aperture * reach * math.sqrt(2) / wavelength
    sag = (index - math.sqrt(index**2 - aperture**2)) * depth / wavelength
    node, weight = np.polynomial.legendre.leggauss(_NODES + int(2.5 * (turns + sag)))
    count = 2 * _NODES + 2 * int(2 * math.pi * turns)
    rho, angle = (node + 1) / 2, 2 * math.pi * (np.arange(count) + 0.5) / count
    rho, theta = np.repeat(rho, count), np.tile(angle, len(node))
    return rho, theta, rho * np.repeat(weight / 2, count) * (2 / count)


def _through_pinhole(h: np.ndarray, spacing: Sequence[float], radius: float, margin: Sequence[int]) -> np.ndarray:
    """The convolution with a disc, by its transform 2 J₁(q)/q, and the grid without its margins.

    A radius of zero leaves the values as they are.
    """
    wide = [n + 2 * m + 8 for n, m in zip(h.shape[-2:], margin)]
    fy, fx = np.fft.fftfreq(wide[0], spacing[0]), np.fft.rfftfreq(wide[1], spacing[1])
    q = 2 * math.pi * radius * np.hypot(fy[:, None], fx)
    disc = np.where(q > 1e-6, 2 * special.j1(q) / np.maximum(q, 1e-6), 1.0)
    blurred = np.fft.irfft2(np.fft.rfft2(h, s=wide) * disc, s=wide)
    rows, columns = (slice(m, n - m) for m, n in zip(margin, h.shape[-2:]))
    return np.maximum(blurred[..., rows, columns], 0)


def _orders(index: int) -> tuple[int, int]:
    """Radial and azimuthal order of Noll's number: negative azimuthal orders are sines."""
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 1:
        raise InputError(f"a Zernike polynomial expects Noll's number, a positive integer, got {index!r}")
    n = int((math.sqrt(8 * index - 7) - 1) / 2)
    place = index - n * (n + 1) // 2 - 1
    m = 2 * ((place + 1) // 2) if n % 2 == 0 else 2 * (place // 2) + 1
    return n, m if index % 2 == 0 else -m


def _check(
    shape: Sequence[int], spacing: Sequence[float], aperture: float, wavelength: float, index: float,
    aberrations: Mapping[int, float],
) -> None:  # fmt: skip
    whole = isinstance(shape, Sequence) and all(isinstance(n, int | np.integer) and n >= 1 for n in shape)
    lengths = np.asarray(spacing, dtype=float)
    if (
        not whole
        or len(shape) not in (2, 3)
        or lengths.shape != (len(shape),)
        or not np.all((lengths > 0) & np.isfinite(lengths))
    ):
        raise InputError(
            "a PSF expects a shape (H, W) or (D, H, W) of whole numbers and a positive voxel size per axis, got "
            f"{shape} and {spacing}; correct them"
        )
    check_optics(aperture, wavelength, index, index, 0.0)
    if not isinstance(aberrations, Mapping):
        raise InputError(
            f"aberrations are expected as a mapping from Noll's number to a coefficient, such as {{11: 0.1}}, got "
            f"{aberrations!r}"
        )
    for number, value in aberrations.items():
        _orders(number)
        if not (math.isfinite(value) and abs(value) <= 5):
            raise InputError(
                f"an aberration expects a coefficient from -5 to 5 wavelengths, got {value} for Zernike {number}; "
                "give root mean squares in wavelengths, not in nm"
            )
