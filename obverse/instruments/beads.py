"""A point-spread function from a picture of beads: find them, centre them to a fraction of a voxel, average.

Beads are local maxima of the smoothed stack that stand out of its noise, keep their distance from each other and from
the border, and are alike in brightness. Each is cut out, its own background (the median of the cut's border) taken off,
moved so that its centre of mass lies on a voxel, and averaged with the others; brighter beads count more. The mean is
the PSF blurred by the bead itself, which matters for beads larger than about a third of the resolution.
"""

__all__ = ["average", "find"]

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..volume import Volume

_BRIGHTEST = 3.0  # times the median brightness: more is a clump of beads


def find(stack: np.ndarray, reach: Sequence[int], threshold: float = 10.0) -> np.ndarray:
    """Positions of isolated beads, brightest first, shape (number, dimensions), in whole voxels.

    Args:
        stack: (H, W) or (D, H, W).
        reach: voxels from a bead's centre, per axis, that its PSF fills; beads nearer to a neighbour or, in the plane,
            to the border are left out. Along Z, where stacks are often short, a quarter of the reach must lie inside.
        threshold: height above the background, in robust standard deviations of the smoothed stack.
    """
    smooth = ndimage.gaussian_filter(np.asarray(stack, float), 1.0)
    level = float(np.median(smooth))
    spread = 1.4826 * float(np.median(np.abs(smooth - level)))
    spread = max(spread, 1e-3 * float(smooth.max() - level))
    size = [2 * (r // 2) + 1 for r in reach]
    peaks = np.argwhere((smooth == ndimage.maximum_filter(smooth, size)) & (smooth > level + threshold * spread))
    height = smooth[tuple(peaks.T)] - level
    order = np.argsort(-height, kind="stable")
    peaks, height = peaks[order], height[order]
    margin = np.array([r // 4 if axis == 0 and stack.ndim == 3 else r for axis, r in enumerate(reach)])
    inside = np.all((peaks >= margin) & (peaks < np.array(stack.shape) - margin), axis=1)
    apart = np.abs(peaks[:, None] - peaks[None]) < np.array(reach)
    # A faint neighbour does no harm once beads are averaged; one of a fifth of the brightness does.
    crowded = (np.all(apart, axis=2) & (height[None] > 0.2 * height[:, None])).sum(axis=1) > 1
    kept = inside & ~crowded
    if kept.any():
        kept &= height < _BRIGHTEST * np.median(height[kept])
    return peaks[kept]


def average(volume: Volume, *, reach_nm: Sequence[float] | None = None, limit: int = 50) -> tuple[Volume, int]:
    """The mean bead of a picture, as a PSF with sum 1, and how many beads it was made of.

    Args:
        volume: a picture of beads, axes YX or ZYX, with its voxel size.
        reach_nm: half the size of the PSF per axis in nm; by default 500 in the plane and 1500 along Z.
        limit: most beads that are averaged, brightest first.

    Raises:
        InputError: no isolated bead was found, or the voxel size is not known.
    """
    volume.check_values("the picture of beads")
    stack = volume.image()[0].astype(float)
    letters = "ZYX"[-stack.ndim :]
    spacing = [volume.spacing_in(letter, "nm") for letter in letters]
    if any(s is None for s in spacing):
        raise InputError(f"beads expect a known voxel size along {letters}, got {spacing}; record it in the file first")
    wanted = reach_nm or ((1500.0, 500.0, 500.0) if stack.ndim == 3 else (500.0, 500.0))
    reach = [max(2, round(w / s)) for w, s in zip(wanted, spacing) if s]
    beads = find(stack, reach)[:limit]
    if len(beads) == 0:
        raise InputError(
            f"expected isolated beads at least {tuple(reach)} voxels apart and from the border, found none; "
            "give a smaller reach, or a picture of sparser beads"
        )
    total = np.zeros([2 * r + 1 for r in reach])
    weight = np.zeros_like(total)
    offsets = np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij")
    for bead in beads:
        centre = _centre(stack, bead, reach)
        points = [o + c for o, c in zip(offsets, centre)]
        seen = np.all([(p >= 0) & (p <= n - 1) for p, n in zip(points, stack.shape)], axis=0)
        cut = ndimage.map_coordinates(stack, points, order=3, mode="nearest")
        rim = np.ones(cut.shape, bool)
        rim[tuple(slice(1, -1) for _ in reach)] = False
        total += np.where(seen, cut - np.median(cut[rim & seen]), 0.0)
        weight += seen
    mean = total / np.maximum(weight, 1)
    # The mean of the beads' rims is known to well below a count; what is left there is background.
    mean = np.maximum(mean - np.median(mean[rim]), 0.0)
    if not mean.sum() > 0:
        raise InputError("expected beads brighter than their surroundings, got none; check the picture")
    psf = Volume(
        mean / mean.sum(),
        letters,
        tuple(spacing),
        ("nm",) * len(letters),
        intensity_unit="1",
        metadata={"name": "mean bead"},
        provenance=(*volume.provenance, f"mean of {len(beads)} beads"),
    )
    return psf, len(beads)


def _centre(stack: np.ndarray, bead: np.ndarray, reach: Sequence[int]) -> np.ndarray:
    """Centre of mass of what is brighter than half of the bead's height, in its near surroundings."""
    near = [slice(max(0, b - r // 2), b + r // 2 + 1) for b, r in zip(bead, reach)]
    part = ndimage.gaussian_filter(stack[tuple(near)], 0.7)
    low = float(np.median(part))
    excess = np.maximum(part - (low + part.max()) / 2, 0.0)
    return np.array([s.start for s in near]) + np.array(ndimage.center_of_mass(excess))
