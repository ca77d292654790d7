"""Point-spread functions of light microscopes: computed from the optics, or made usable from a measured file.

The scalar Gibson–Lanni model, with the coverslip as designed:

    h(r, z) = | ∫₀¹ J₀(k NA r ρ) exp(i k W(ρ)) ρ dρ |²,        k = 2π/λ
    W(ρ)    = d √(n_s² − NA²ρ²) − z √(n_i² − NA²ρ²)

with immersion index n_i, sample index n_s, depth d of the emitter under the coverslip, and z the shift of the focus.
For d = 0 and z = 0 it is the Airy pattern [2 J₁(v)/v]², v = k NA r, whose first zero lies at 0.61 λ/NA. The integral is
done by Gauss–Legendre quadrature with more nodes than the phase has turns, on a radial grid; a cubic spline then gives
the pixels, each averaged over its area by a 3×3 Gauss rule. Polarisation is neglected: at NA above about 1.3 the true
PSF is a few per cent wider along the polarisation.

References: Gibson, Lanni, "Experimental test of an analytical model of aberration in an oil-immersion objective lens
used in three-dimensional light microscopy", JOSA A 1992. Li, Xue, Blu, "Fast and accurate three-dimensional point
spread function computation for fluorescence microscopy", JOSA A 2017. Born, Wolf, "Principles of Optics", §8.5.
"""

__all__ = ["confocal", "gibson_lanni", "prepare", "radial_profile"]

from collections.abc import Sequence

import numpy as np
from scipy import interpolate, ndimage, special

from ..errors import InputError
from ..volume import Volume

_RADIAL_STEP = 1 / 40  # of λ/(2 NA), the finest period in the intensity: the spline then errs by 1e-5 of the peak
_ENERGY = 0.999  # part of a measured PSF's energy that is kept when it is cropped
_NOISE_FLOOR = 3.0  # standard deviations of a measured PSF's border; what is weaker is taken for noise
_SAME_SPACING = 0.01  # relative difference of voxel sizes that is not worth resampling


def radial_profile(
    r: np.ndarray, z: np.ndarray, *, numerical_aperture: float, wavelength: float, refractive_index: float = 1.515,
    sample_index: float | None = None, depth: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Intensity h(r, z), shape (len(z), len(r)), 1 at the centre of an unaberrated PSF.

    Args:
        r: distances from the axis, in nm.
        z: shifts of the focus, in nm.
        numerical_aperture: NA, below `refractive_index`.
        wavelength: of the light in vacuum, in nm.
        refractive_index: of the immersion medium.
        sample_index: of the sample; by default that of the immersion medium, which makes `depth` immaterial.
        depth: of the emitter below the coverslip, in nm.
    """
    r, z = np.asarray(r, float), np.asarray(z, float)
    sample = refractive_index if sample_index is None else sample_index
    _check_optics(numerical_aperture, wavelength, refractive_index, sample, depth)
    k = 2 * np.pi / wavelength
    edge = numerical_aperture
    turns = k * (edge * r.max(initial=0) + refractive_index * np.abs(z).max(initial=0) + sample * depth) / (2 * np.pi)
    rho, weights = _pupil_nodes(int(24 + 4 * turns), min(1.0, sample / edge))
    immersion = np.sqrt(refractive_index**2 - (edge * rho) ** 2)
    # Beyond the sample's own aperture the wave is evanescent: a complex root makes it decay with depth.
    specimen = np.sqrt((sample**2 - (edge * rho) ** 2).astype(complex))
    phase = depth * specimen[None] - z[:, None] * immersion[None]
    pupil = np.exp(1j * k * phase) * (2 * weights * rho)
    bessel = special.j0(k * edge * np.outer(rho, r))
    return np.abs(pupil @ bessel) ** 2


def gibson_lanni(
    shape: Sequence[int], spacing: Sequence[float], *, numerical_aperture: float, wavelength: float,
    refractive_index: float = 1.515, sample_index: float | None = None, depth: float = 0.0, integrate: bool = True,
) -> np.ndarray:  # fmt: skip
    """The PSF on a grid, with sum 1 and its centre at index n // 2 of each axis.

    Args:
        shape: (H, W) for the plane of best focus, or (D, H, W).
        spacing: voxel size in nm, one per axis.
        numerical_aperture, wavelength, refractive_index, sample_index, depth: see `radial_profile`. With an index
            mismatch the grid is centred on the plane of best focus.
        integrate: average over each pixel's area, as a camera does, instead of sampling at its centre.

    Example:
        >>> h = gibson_lanni((31, 31), (60.0, 60.0), numerical_aperture=1.4, wavelength=520.0)
        >>> bool(h[15, 15] == h.max()), round(float(h.sum()), 6)
        (True, 1.0)
    """
    if len(shape) not in (2, 3) or len(spacing) != len(shape) or min(shape) < 1 or not min(spacing) > 0:
        raise InputError(
            f"a PSF expects a shape (H, W) or (D, H, W) and a positive voxel size per axis, got {tuple(shape)} and "
            f"{tuple(spacing)}; correct them"
        )
    sample = refractive_index if sample_index is None else sample_index
    _check_optics(numerical_aperture, wavelength, refractive_index, sample, depth)
    optics = {
        "numerical_aperture": numerical_aperture,
        "wavelength": wavelength,
        "refractive_index": refractive_index,
        "sample_index": sample_index,
        "depth": depth,
    }
    centre = _best_focus(optics)
    planes = (np.arange(shape[0]) - shape[0] // 2) * spacing[0] if len(shape) == 3 else np.zeros(1)
    offsets, weights = np.polynomial.legendre.leggauss(3) if integrate else (np.zeros(1), np.ones(1))
    y, x = ((np.arange(n) - n // 2)[:, None] + offsets / 2 for n in shape[-2:])
    radius = np.hypot(y.reshape(-1, 1) * spacing[-2], x.reshape(1, -1) * spacing[-1])
    step = _RADIAL_STEP * wavelength / (2 * numerical_aperture)
    r = np.arange(int(radius.max() / step) + 4) * step
    profile = interpolate.CubicSpline(r, radial_profile(r, planes + centre, **optics), axis=1)
    q, weights = len(offsets), weights / weights.sum()
    result = np.empty((len(planes), *shape[-2:]))
    for index in range(len(planes)):
        part = interpolate.CubicSpline.construct_fast(profile.c[..., index], profile.x)(radius)
        result[index] = np.einsum("iajb,a,b->ij", part.reshape(shape[-2], q, shape[-1], q), weights, weights)
    result = np.maximum(result, 0)
    return (result / result.sum()).reshape(shape)


def confocal(emission: np.ndarray, excitation: np.ndarray) -> np.ndarray:
    """The PSF of a confocal microscope with a closed pinhole: excitation times emission, with sum 1."""
    if emission.shape != excitation.shape:
        raise InputError(f"expected PSFs on one grid, got {emission.shape} and {excitation.shape}; compute both alike")
    product = emission * excitation
    return product / product.sum()


def prepare(psf: Volume, spacing: Sequence[float | None], size: Sequence[int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Make a PSF from a file usable: background off, centred, on the data's voxel size, cropped, with sum 1.

    Args:
        psf: as read, one channel: axes YX or ZYX.
        spacing: of the data along (Z,) Y, X in nm, None where unknown.
        size: of the data along (Z,) Y, X; what of the PSF reaches further has no effect and is cropped.

    Returns:
        The kernel, odd along each axis with its centre in the middle, and sentences about what was assumed.

    Raises:
        InputError: it is zero, constant or not finite, has its peak at the border, or fewer axes than the data.
    """
    psf.check_values("the PSF")
    if psf.size("C") > 1:
        raise InputError(f"the PSF expects one channel, got {psf.size('C')}; save the channel that fits")
    array = psf.image()[0].astype(float)
    own = [psf.spacing_in(axis, "nm") for axis in "ZYX"[-array.ndim :]]
    notes: list[str] = []
    if array.ndim == 3 and len(size) == 2:
        raise InputError("the PSF of a plane expects axes YX, got a stack; give the plane of the PSF that is in focus")
    if array.ndim != len(size):
        raise InputError(f"the PSF of a stack expects axes ZYX, got {psf.axes}; give a PSF measured or computed in 3-D")
    if array.min() < 0:
        notes.append("The PSF holds negative values; they were set to zero.")
    level, floor = _ground(array)
    array = array - level
    array = np.where(array > floor, array, 0.0)
    if not array.max() > 0:
        raise InputError("the PSF expects a bright spot on a dark ground, got nothing above its border; check the file")
    peak = np.unravel_index(int(np.argmax(ndimage.uniform_filter(array, 3))), array.shape)
    if any(n > 4 and not 1 <= p <= n - 2 for p, n in zip(peak, array.shape)):
        place = tuple(map(int, peak))
        raise InputError(f"the PSF expects its peak inside the array, got it at {place}; crop it around the peak")
    off = [abs(p - (n - 1) / 2) for p, n in zip(peak, array.shape)]
    if max(off) > 1:
        place = tuple(int(p) for p in peak)
        notes.append(f"The PSF's peak lies at {place} of {array.shape}, off its centre; it was moved there.")
    centre = _centroid(array, peak)
    if any(s is None for s in own) and any(s is not None for s in spacing):
        notes.append("The PSF file does not record its voxel size; that of the data was assumed.")
    zoom = [a / b if a and b else 1.0 for a, b in zip(own, spacing)]
    zoom = [1.0 if abs(f - 1) <= _SAME_SPACING else f for f in zoom]
    if any(f != 1.0 for f in zoom):
        notes.append(f"The PSF was resampled to the data's voxel size, by {', '.join(f'{f:.3g}' for f in zoom)}.")
    array = _recentred(array, centre, zoom)
    return _cropped(array, size), tuple(notes)


def _ground(array: np.ndarray) -> tuple[float, float]:
    """Level of the border far from the peak, and the height up to which the rest may be noise.

    The noise is read from second differences, which a smooth computed PSF hardly has.
    """
    peak = np.unravel_index(int(np.argmax(array)), array.shape)
    grid = np.meshgrid(*(np.arange(n) - p for n, p in zip(array.shape, peak)), indexing="ij")
    far = np.sqrt(sum((g / max(n, 1)) ** 2 for g, n in zip(grid, array.shape)))
    ground = far >= np.quantile(far, 0.9)
    level = float(np.median(array[ground]))
    if min(array.shape[-2:]) < 7:
        return level, 0.0
    rough = ndimage.convolve1d(ndimage.convolve1d(array, [1, -2, 1], axis=-1), [1, -2, 1], axis=-2)[ground] / 6
    return level, _NOISE_FLOOR * 1.4826 * float(np.median(np.abs(rough)))


def _check_optics(aperture: float, wavelength: float, immersion: float, sample: float, depth: float) -> None:
    if not 0 < aperture < immersion:
        raise InputError(
            f"the numerical aperture expects a number below the immersion index {immersion:g}, got {aperture:g}; "
            "set refractive_index (oil 1.515, water 1.333, air 1.0)"
        )
    if not 100 <= wavelength <= 5000:
        raise InputError(f"the wavelength expects 100 to 5000 nm, got {wavelength:g}; give it in nanometres")
    if not (1 <= sample < 3 and immersion < 3 and depth >= 0):
        raise InputError(
            f"expected indices of refraction from 1 to 3 and a depth of at least 0, got {immersion:g}, {sample:g} and "
            f"{depth:g}; correct them"
        )


def _pupil_nodes(count: int, critical: float) -> tuple[np.ndarray, np.ndarray]:
    """Quadrature on [0, 1]; where waves turn evanescent inside the pupil, the square root's kink is mapped away."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    t, weights = (nodes + 1) / 2, weights / 2
    if critical >= 1:
        return t, weights
    inner, outer = critical * (1 - (1 - t) ** 2), critical + (1 - critical) * t**2
    return np.concatenate([inner, outer]), np.concatenate([2 * critical * (1 - t), 2 * (1 - critical) * t]) * np.tile(
        weights, 2
    )


def _best_focus(optics: dict) -> float:
    """The shift of the focus, in nm, that makes the spot on the axis brightest."""
    sample = optics["sample_index"] or optics["refractive_index"]
    if optics["depth"] == 0:
        return 0.0
    expected = optics["depth"] * optics["refractive_index"] / sample
    reach = 0.6 * optics["depth"] + 2 * optics["wavelength"]
    z = np.arange(expected - reach, expected + reach, optics["wavelength"] / 20)
    return float(z[np.argmax(radial_profile(np.zeros(1), z, **optics)[:, 0])])


def _centroid(array: np.ndarray, peak: Sequence) -> np.ndarray:
    """Centre of mass of the voxels above half of the maximum that are joined to the peak, to a fraction of a voxel.

    Along Z the peak itself counts, since aberrations make a PSF lopsided there.
    """
    labels, _ = ndimage.label(array > array[tuple(peak)] / 2)  # type: ignore[misc]
    index = labels[tuple(peak)]
    centre = np.asarray(ndimage.center_of_mass(np.where(labels == index, array, 0.0)) if index else peak, float)
    centre = np.where(np.abs(centre - np.round(centre)) < 0.05, np.round(centre), centre)
    if array.ndim == 3:
        centre[0] = peak[0]
    return centre


def _recentred(array: np.ndarray, centre: np.ndarray, zoom: Sequence[float]) -> np.ndarray:
    """Resampled by `zoom` onto an odd grid in the middle of which `centre` lies."""
    half = [int(np.ceil(max(c, n - 1 - c) * f)) for c, n, f in zip(centre, array.shape, zoom)]
    grids = [c + np.arange(-h, h + 1) / f for c, h, f in zip(centre, half, zoom)]
    if np.allclose(zoom, 1) and np.allclose(centre, np.round(centre)):
        result = np.zeros([2 * h + 1 for h in half])
        start = [h - int(round(c)) for h, c in zip(half, centre)]
        result[tuple(slice(s, s + n) for s, n in zip(start, array.shape))] = array
        return result
    smooth = ndimage.gaussian_filter(array, [0.0 if f >= 0.9 else 0.4 / f for f in zoom])  # against aliasing
    points = np.stack(np.meshgrid(*grids, indexing="ij"))
    return np.maximum(ndimage.map_coordinates(smooth, points, order=3, mode="constant"), 0)


def _cropped(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The smallest box around the centre that holds the energy, no further than the data reach; sum 1."""
    box = []
    for axis, n in enumerate(size):
        other = tuple(a for a in range(array.ndim) if a != axis)
        line = array.sum(axis=other)
        middle = len(line) // 2
        total = np.array([line[middle - h : middle + h + 1].sum() for h in range(middle + 1)])
        enough = int(np.searchsorted(total, (1 - (1 - _ENERGY) / array.ndim) * total[-1]))
        h = min(enough, middle, max(n - 1, 0))
        box.append(slice(middle - h, middle + h + 1))
    array = array[tuple(box)]
    return array / array.sum()
