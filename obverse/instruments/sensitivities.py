"""Sensitivities of receive coils: simulated for a birdcage array, or estimated from the centre of k-space (ESPIRiT).

Birdcage: coils on rings around the object, each the field of a short wire along the axis. With z = x + iy in the
plane and h along the axis,

    s_c(z, h) = conj(z_c − z) / (|z_c − z|² + (h_c − h)²),   then   Σ_c |s_c|² = 1

ESPIRiT: every k × k window of the fully sampled centre, all coils together, lies in a space of low rank with the
orthogonal projector P. In image space that says that the coils' vector s(r) is an eigenvector with eigenvalue one of

    M(r)[c, c'] = k^−d Σ_{a, b} P[(c, a), (c', b)] exp(2πi (a − b)·(r − r₀)/N)

at every pixel r with signal. M is a trigonometric polynomial with (2k − 1)^d terms: it is evaluated by short matrix
products where it is needed. Its leading eigenvectors are found on every fourth pixel, interpolated and improved by
power steps with M at every pixel. An eigenvector's phase is free: it is chosen so that a virtual coil, the principal
component of the coils in the centre of k-space, has a real and positive sensitivity.

References: Uecker, Lai, Murphy, Virtue, Elad, Pauly, Vasanawala, Lustig, "ESPIRiT — an eigenvalue approach to
autocalibrating parallel MRI: where SENSE meets GRAPPA", MRM 2014. Hayes et al., "An efficient, highly homogeneous
radiofrequency coil for whole-body NMR imaging at 1.5 T", J. Magn. Reson. 1985 (birdcage).
"""

__all__ = ["Sensitivities", "birdcage", "espirit"]

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

_STEP = 4  # pixels between those whose matrix is decomposed
_POWER_STEPS = 2  # at every pixel; see tests/instruments/test_sensitivities.py for what is left
_MEMORY = 2**22  # entries of the matrices M held at once


class Sensitivities(NamedTuple):
    """What `espirit` returns.

    Args:
        maps: `(coils, *grid)`, complex, Σ_c |s_c|² = 1, and zero where the eigenvalue is below the threshold; with
            several sets `(sets, coils, *grid)`.
        eigenvalues: `(*grid)` or `(sets, *grid)`, about 1 where the data have signal that the maps explain.
    """

    maps: Tensor
    eigenvalues: Tensor


def birdcage(
    coils: int, grid: Sequence[int], *, radius: float = 1.5, rings: int = 1, dtype: torch.dtype = torch.complex64
) -> Tensor:
    """Sensitivities of coils on rings around the object, `(coils, *grid)`, with Σ_c |s_c|² = 1.

    Args:
        coils: their number, in all; a multiple of `rings`.
        grid: `(H, W)`, or `(D, H, W)` with the axis of the rings along D.
        radius: of the rings, in halves of the larger of H and W; more than √2, so that no pixel touches a coil.
        rings: their number, spread along D.
        dtype: torch.complex64 or torch.complex128.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> maps = birdcage(8, (32, 32))
        >>> maps.shape, bool((maps.abs().square().sum(0) - 1).abs().max() < 1e-5)
        (torch.Size([8, 32, 32]), True)
    """
    if len(grid) not in (2, 3) or min(grid) < 1:
        raise InputError(f"birdcage expects a grid (H, W) or (D, H, W), got {tuple(grid)}; give the image's sizes")
    if coils < 1 or rings < 1 or coils % rings or (rings > 1 and len(grid) == 2):
        raise InputError(
            f"birdcage expects a positive number of coils, a multiple of rings, and one ring in 2-D, got {coils} coils "
            f"on {rings} rings for a grid {tuple(grid)}"
        )
    if not dtype.is_complex:
        raise InputError(f"birdcage gives complex sensitivities, got dtype {dtype}; use torch.complex64 or complex128")
    if not radius > math.sqrt(2):
        raise InputError(f"birdcage expects a radius above √2, the corners of the image, got {radius}; 1.5 is usual")
    half = max(grid[-2:]) / 2
    h, y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / half for n in (1, *grid)[-3:])
    z = torch.complex(x[None, :].expand(len(y), -1), y[:, None].expand(-1, len(x)))
    length = len(h) / half
    maps = []
    for ring in range(rings):
        height = ((ring + 0.5) / rings - 0.5) * length
        for i in range(coils // rings):
            angle = torch.tensor(2 * math.pi * (i + 0.5 * (ring % 2)) / (coils // rings), dtype=torch.float64)
            away = torch.polar(torch.tensor(radius, dtype=torch.float64), angle) - z
            maps.append(away.conj() / (away.abs().square() + (h - height).square()[:, None, None]))
    full = torch.stack(maps)
    full = full / full.abs().square().sum(0).sqrt()
    return full.reshape(coils, *grid).to(dtype)


def espirit(
    kspace: Tensor,
    calibration: int | Sequence[int] = 24,
    kernel: int = 6,
    *,
    sets: int = 1,
    threshold: float = 0.02,
    crop: float = 0.9,
) -> Sensitivities:
    """Sensitivities from the fully sampled centre of k-space.

    Args:
        kspace: `(coils, H, W)` or `(coils, D, H, W)`, complex, zero frequency at `n // 2`, zero where not measured.
        calibration: size of the centre that is used, one number or one for each axis.
        kernel: size k of the windows.
        sets: maps wanted at each pixel: 2 where the field of view is smaller than the object, which then folds over.
        threshold: singular values of the windows' matrix below this part of the largest are taken for noise.
        crop: maps are zero where their eigenvalue is below this; 0 keeps all.

    Raises:
        InputError: the centre is not fully sampled, or an argument is out of range.

    Example:
        >>> truth = birdcage(4, (32, 32))
        >>> image = torch.zeros(32, 32)
        >>> image[6:26, 6:26] = 1.0
        >>> shifted = torch.fft.ifftshift(truth * image, (1, 2))
        >>> kspace = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), (1, 2))
        >>> maps, eigenvalues = espirit(kspace, calibration=16, kernel=4)
        >>> bool((maps.conj() * truth).sum(0).abs()[6:26, 6:26].min() > 0.99)
        True
    """
    _check(kspace, kernel, sets, threshold, crop)
    grid = tuple(kspace.shape[1:])
    centre = _centre(kspace, calibration, kernel)
    terms = _terms(centre, kernel, threshold)
    reference = torch.linalg.eigh(centre.flatten(1) @ centre.flatten(1).mH)[1][:, -sets:].flip(-1)
    coarse = [torch.arange(0, n - 1 + _STEP, _STEP) if n > 1 else torch.zeros(1) for n in grid]
    vectors = torch.cat([torch.linalg.eigh(m)[1][..., -sets:] for m in _matrices(terms, coarse, grid)])
    vectors = _interpolate(_aligned(vectors, reference), grid)
    maps, values, first = [], [], 0
    for matrices in _matrices(terms, [torch.arange(n) for n in grid], grid):
        rows = vectors[first : first + len(matrices)]
        found = _improved(matrices, rows)
        maps.append(found[0])
        values.append(found[1])
        first += len(matrices)
    eigenvalues = torch.cat(values)
    aligned = torch.cat(maps)
    aligned = aligned * _phase(reference[:, 0].conj() @ aligned)[..., None, :].conj()
    aligned = torch.where(eigenvalues[..., None, :] >= crop, aligned, 0)
    aligned, eigenvalues = aligned.movedim((-1, -2), (0, 1)).contiguous(), eigenvalues.movedim(-1, 0).contiguous()
    return Sensitivities(aligned[0], eigenvalues[0]) if sets == 1 else Sensitivities(aligned, eigenvalues)


def _check(kspace: Tensor, kernel: int, sets: int, threshold: float, crop: float) -> None:
    if not (isinstance(kspace, Tensor) and kspace.is_complex() and kspace.ndim in (3, 4)):
        got = f"{kspace.dtype} of shape {tuple(kspace.shape)}" if isinstance(kspace, Tensor) else type(kspace).__name__
        raise InputError(f"espirit expects complex k-space (coils, H, W) or (coils, D, H, W), got {got}; convert it")
    if not bool(kspace.isfinite().all()):
        raise InputError("espirit expects finite k-space, got NaN or infinity; set what was not measured to zero")
    if not isinstance(kernel, int) or kernel < 2:
        raise InputError(f"espirit expects a whole kernel of at least 2, got {kernel}; 6 is usual")
    if not 1 <= sets < len(kspace):
        raise InputError(f"espirit expects sets from 1 to the number of coils less one, got {sets} of {len(kspace)}")
    if not (0 < threshold < 1 and 0 <= crop <= 1):
        raise InputError(f"espirit expects 0 < threshold < 1 and 0 ≤ crop ≤ 1, got {threshold} and {crop}")


def _centre(kspace: Tensor, calibration: int | Sequence[int], kernel: int) -> Tensor:
    """The calibration region, `(coils, *calibration)`; as wide as the grid where that is smaller."""
    grid = kspace.shape[1:]
    wanted = tuple(calibration) if isinstance(calibration, Sequence) else (calibration,) * len(grid)
    if len(wanted) != len(grid) or not all(isinstance(size, int) for size in wanted):
        raise InputError(f"espirit expects a calibration size, or one for each axis of {tuple(grid)}, got {wanted}")
    for axis, (size, n) in enumerate(zip(wanted, grid, strict=True), start=1):
        if min(size, n) < min(kernel, n):
            raise InputError(f"espirit expects a calibration region as wide as the kernel, {kernel}, got {wanted}")
        size = min(size, n)
        kspace = kspace.narrow(axis, n // 2 - size // 2, size)
    missing = int((kspace == 0).all(0).sum())
    if missing:
        raise InputError(
            f"espirit expects a fully sampled centre of {wanted}, got one with {missing} points not measured; "
            "pass a smaller calibration"
        )
    return kspace


def _terms(centre: Tensor, kernel: int, threshold: float) -> Tensor:
    """Coefficients of M by frequency d = a − b from 1 − k to k − 1 along each axis: `(*(2k − 1), coils, coils)`."""
    coils, *size = centre.shape
    window = [min(kernel, n) for n in size]
    windows = centre
    for axis, k in enumerate(window, start=1):
        windows = windows.unfold(axis, k, 1)  # (coils, *positions, *window)
    axes = len(size)
    columns = windows.movedim(0, axes).reshape(-1, coils * math.prod(window))
    values, vectors = torch.linalg.eigh(columns.mT @ columns.conj())
    signal = vectors[:, values > threshold**2 * values[-1]]
    projector = (signal @ signal.mH).reshape(coils, math.prod(window), coils, math.prod(window))
    place = torch.cartesian_prod(*map(torch.arange, window)).reshape(-1, axes)
    difference = place[:, None] - place[None] + torch.tensor(window) - 1
    strides = [math.prod(2 * k - 1 for k in window[i + 1 :]) for i in range(axes)]
    index = (difference * torch.tensor(strides)).sum(-1).flatten().to(centre.device)
    pairs = projector.permute(1, 3, 0, 2).reshape(-1, coils, coils)
    terms = pairs.new_zeros(math.prod(2 * k - 1 for k in window), coils, coils).index_add(0, index, pairs)
    return terms.reshape(*(2 * k - 1 for k in window), coils, coils) / math.prod(window)


def _matrices(terms: Tensor, positions: Sequence[Tensor], grid: Sequence[int]) -> Iterator[Tensor]:
    """M at the product of the positions along the axes (in pixels of `grid`), a slab along the first axis at a time."""
    coils = terms.shape[-1]
    waves = []
    for place, n, size in zip(positions, grid, terms.shape, strict=False):
        frequency = torch.arange(size, dtype=torch.float64) - size // 2
        angle = 2 * math.pi / n * torch.outer(place.double() - n // 2, frequency)
        waves.append(torch.polar(torch.ones_like(angle), angle).to(terms))
    plane = coils**2 * math.prod(map(len, waves[1:]))
    for first in waves[0].split(max(1, _MEMORY // plane)):
        slab = (first @ terms.flatten(1)).reshape(len(first), *terms.shape[1:])
        for axis, wave in enumerate(waves[1:], start=1):
            before = slab.shape[:axis]
            rows = slab.flatten(axis + 1).flatten(0, axis - 1)
            slab = (wave @ rows).reshape(*before, len(wave), *slab.shape[axis + 1 :])
        yield slab


def _aligned(vectors: Tensor, reference: Tensor) -> Tensor:
    """The basis of the same space that is closest to the reference: V polar(Vᴴ R); smooth wherever the space is."""
    overlap = vectors.mH @ reference
    if overlap.shape[-1] == 1:
        return vectors * _phase(overlap)
    left, _, right = torch.linalg.svd(overlap)
    return vectors @ (left @ right)


def _phase(z: Tensor) -> Tensor:
    size = z.abs()
    return torch.where(size > 0, z / size.clamp_min(torch.finfo(size.dtype).tiny), 1)


def _interpolate(vectors: Tensor, grid: Sequence[int]) -> Tensor:
    """Linear interpolation from every fourth pixel to all; trailing axes are those of one value."""
    for axis, n in enumerate(grid):
        if n == 1:
            continue
        first, second = (vectors.narrow(axis, i, vectors.shape[axis] - 1) for i in (0, 1))
        parts = [first + (i / _STEP) * (second - first) for i in range(_STEP)]
        vectors = torch.stack(parts, axis + 1).flatten(axis, axis + 1).narrow(axis, 0, n)
    return vectors


def _improved(matrices: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors near the given ones, unit and sorted by eigenvalue, and the eigenvalues."""
    for _ in range(_POWER_STEPS):
        vectors = _orthonormal(matrices @ vectors)
    image = matrices @ vectors
    small = vectors.mH @ image
    if small.shape[-1] == 1:
        return vectors, small.real.squeeze(-1)
    values, rotation = torch.linalg.eigh(small)
    return (vectors @ rotation).flip(-1), values.flip(-1)


def _orthonormal(vectors: Tensor) -> Tensor:
    if vectors.shape[-1] == 1:
        return vectors / torch.linalg.vector_norm(torch.view_as_real(vectors), dim=(-3, -1))[..., None].clamp_min(1e-30)
    return torch.linalg.qr(vectors)[0]
