"""PACO through all wavelengths at once: a law of pixels and channels together, where the speckles of all channels meet.

A speckle lies at a distance from the star in proportion to the wavelength. With channel l shrunk about the star by
s_l = λ_0/λ_l (λ_0 the shortest) the same speckles are in the same place in all channels, and sources are not. The patch
of K pixels about a pixel is there an L × K matrix d_t, less its mean over the frames and in units of each channel's
root mean square σ_l,

    d_t ~ N(0, Σ ⊗ C),    Σ the correlation of the channels (L × L), C that of the pixels (K × K)

both learned from the other quarters of the frames, and drawn to their diagonals (`shrinkage`). A source of spectrum g
at φ is in channel m of frame t at c + s_m (φ_t − c): H is the L × K matrix of the PSFs there, times g_m/σ_m, and

    b = ⟨H, Σ⁻¹ d_t C⁻¹⟩,    a = ⟨H, Σ⁻¹ H C⁻¹⟩

What the other channels show of a speckle is thus taken off each, and what they show of the source is known to H. There
is one such test in the patch about the source's place in each channel; patches overlap near the star, and the L tests
are whitened as those of single channels are (`paco_spectral`).

Frames are interpolated by their trigonometric polynomial, without the frequencies that the shrunk grid cannot hold:
a PSF has none there that the shortest wavelength's does not.

References: Flasseur, Denis, Thiébaut, Langlois, "PACO ASDI: an algorithm for exoplanet detection and characterization
in direct imaging with integral field spectrographs", A&A 2020. Sparks, Ford, "Imaging spectroscopy for extrasolar
planet detection", ApJ 2002.
"""

__all__ = ["AlignedChannels", "joint_frames", "joint_spectrum"]

import dataclasses
import math
from dataclasses import dataclass

import torch
from scipy import ndimage
from torch import Tensor

from ..operators.field_rotation import FieldRotation
from .paco_detection import FilteredFrames, windowed
from .patch_statistics import Patches, disc, seen_pixels, shrinkage

_PARTS = 4  # of the frames, each tested by the law of the others
_LEAST = 2e-3  # eigenvalue of Σ: what channels that copy each other may be told apart by
_RIDGE = 1e-9  # of the variance of a pixel
_INDEPENDENT = 2  # values of Σ that a patch holds in a frame, and of C that the channels hold
_ROUNDS = 8  # of Newton's steps, at most
_RENEWED = (1, 3)  # rounds in which J is found anew
_SMALL = 0.02  # standard deviations: a step that is smaller ends them
_SINGULAR = 1e-3  # of the largest singular value of J: what is smaller is not told
_CELLS = 2**22  # numbers in the templates that are tested together


@dataclass(frozen=True, eq=False)
class AlignedChannels:
    """A cube whose channels have their speckles in the same places.

    Args:
        frames: `(L, T, H, W)`.
        seen: `(L, H, W)`.
        psf: `(L, h, w)`, shrunk alike.
        scales: s, `(L,)`.
        centre: (row, column) of the star.
        radius: of the patches.
    """

    frames: Tensor
    seen: Tensor
    psf: Tensor
    scales: Tensor
    centre: tuple[float, float]
    radius: int

    @staticmethod
    def of(cube: Tensor, operator: FieldRotation, radius: int) -> "AlignedChannels":
        """The channels of `cube` `(L, T, H, W)`, NaN where nothing is seen, aligned."""
        assert operator.wavelengths is not None
        lengths = torch.tensor(operator.wavelengths, dtype=cube.dtype)
        scales = lengths.min() / lengths
        centre = (operator.centre[0], operator.centre[1])
        frames, seen, psfs = [], [], []
        for channel, psf, scale in zip(cube, operator.psf, scales.tolist()):
            known = seen_pixels(channel)
            frames.append(_scaled(_filled(channel, known), scale, centre))
            # a pixel counts whose neighbours were seen too
            share = _scaled_positive(known.to(cube)[None], scale, centre)[0]
            seen.append(share > 1 - 1e-6)
            middle = (psf.shape[0] // 2, psf.shape[1] // 2)
            psfs.append(_scaled(psf, scale, (float(middle[0]), float(middle[1]))))
        return AlignedChannels(torch.stack(frames), torch.stack(seen), torch.stack(psfs), scales, centre, radius)

    def tests(self, rows: Tensor, columns: Tensor, places: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """b and a of a source in each frame, `(N, T)` both.

        Args:
            rows: of the patches' middles, `(N,)`; and columns alike.
            places: of the source in every channel, (row, column), `(N, L, 2)`.
            spectrum: g, `(L,)`.
        """
        gathered = [Patches(f, s, self.radius).at(rows, columns) for f, s in zip(self.frames, self.seen)]
        values, seen = (torch.stack(parts, 1) for parts in zip(*gathered))  # (N, L, K, T), (N, L, K)
        count = values.shape[-1]
        d = (values - values.mean(-1, keepdim=True)) * seen[..., None]
        number = seen.sum(2)
        variance = d.square().sum((2, 3)) / (number.clamp(min=1) * count)
        usable = variance > 0
        scale = torch.where(usable, 1 / torch.where(usable, variance, 1.0).sqrt(), 0.0)
        d = d * scale[..., None, None]
        template = self._templates(rows, columns, places) * (spectrum * scale)[..., None] * seen
        part = torch.arange(count) % _PARTS
        b, a = d.new_zeros(len(rows), count), d.new_zeros(len(rows), count)
        for tested in range(min(_PARTS, count)):
            theirs = part == tested
            root, factor = _law(d[..., ~theirs], seen, usable)
            h = torch.einsum("nml,nmk->nkl", root, template)
            filtered = torch.cholesky_solve(h, factor)
            white = torch.einsum("nml,nmkt->nklt", root, d[..., theirs])
            b[:, theirs] = torch.einsum("nkl,nklt->nt", filtered, white) * count / (count - 1)
            a[:, theirs] = (filtered * h).sum((1, 2))[:, None]
        return b, a

    def own_fluxes(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Of each channel the flux of a source in that channel alone, and its standard deviation: `(L,)` both.

        Args:
            places: of the source in every frame and channel, (row, column), `(T, L, 2)`.
        """
        size = torch.tensor(self.frames.shape[-2:])
        found = []
        for own, spectrum in enumerate(torch.eye(len(self.frames), dtype=self.frames.dtype)):
            nearest = places[:, own].round().long()
            inside = torch.nonzero(((nearest >= 0) & (nearest < size)).all(1))[:, 0]
            rows, columns = nearest[inside].unbind(1)
            b, a = self.tests(rows, columns, places[inside], spectrum)
            kappa = torch.where(a > 0, b.square() / torch.where(a > 0, a, 1.0), 0.0).sum() / (a > 0).sum().clamp(min=1)
            each = torch.arange(len(inside))
            score, precision = b[each, inside].sum(), a[each, inside].sum().clamp(min=1e-300)
            found.append(torch.stack([score / precision, (kappa / precision).sqrt()]))
        flux, sigma = torch.stack(found, 1)
        return flux, sigma

    def _templates(self, rows: Tensor, columns: Tensor, places: Tensor) -> Tensor:
        """The PSFs at `places` on the pixels of the patches: `(N, L, K)`."""
        middle = torch.stack([rows, columns], -1).to(places)
        away = disc(self.radius).to(places) + (middle[:, None] - places)[:, :, None]  # (N, L, K, 2)
        size = torch.tensor(self.psf.shape[1:], dtype=places.dtype)
        grid = (2 * (away + size.div(2, rounding_mode="floor")) / (size - 1) - 1).flip(-1)
        found = torch.nn.functional.grid_sample(
            self.psf[:, None], grid.transpose(0, 1), "bicubic", "zeros", align_corners=True
        )
        return found[:, 0].transpose(0, 1)


def joint_frames(cube: Tensor, operator: FieldRotation, radius: int, spectrum: Tensor) -> list[FilteredFrames]:
    """Tests of every pixel for a source of one spectrum: of each channel those in the patches about its place there.

    Args:
        cube: `(L, T, H, W)`, float64 like the operator, whose wavelengths are known.
        radius: of the patches.
        spectrum: g, `(L,)`; the flux that is tested for is its factor.
    """
    aligned = AlignedChannels.of(cube, operator, radius)
    frames, height, width = cube.shape[1:]
    step = max(1, _CELLS // (len(cube) * len(disc(radius)) * frames * width))
    centre = torch.tensor(aligned.centre, dtype=cube.dtype)
    found = []
    for own in aligned.scales:
        score, precision = [], []
        for first in range(0, height, step):
            rows = torch.arange(first, min(first + step, height))
            pixels = torch.cartesian_prod(rows, torch.arange(width))
            away = pixels.to(cube) - centre
            places = centre + away[:, None] * (aligned.scales / own)[:, None]
            b, a = aligned.tests(pixels[:, 0], pixels[:, 1], places, spectrum)
            score.append(b.mT.reshape(frames, len(rows), width))
            precision.append(a.mT.reshape(frames, len(rows), width))
        found.append(_on_the_sky(torch.cat(score, 1), torch.cat(precision, 1), float(own), aligned.centre, radius))
    return found


def joint_spectrum(
    cube: Tensor, operator: FieldRotation, position: tuple[float, float], radius: int
) -> tuple[Tensor, Tensor]:
    """Flux of the source at `position` (row, column) in each channel, `(L,)`, and their covariance, `(L, L)`.

    No spectrum is assumed. With the fluxes f taken off, s_l(f) is what the patches about the place in channel l show of
    a source in that channel alone, and σ_l its deviation; s(f) = 0 is solved by Newton's steps. J = −∂s/∂f holds what
    the source has taught the law, and how one channel's flux looks like another's speckles: the covariance is
    J⁻¹ diag(σ²) J⁻ᵀ.
    """
    aligned = AlignedChannels.of(cube, operator, radius)
    source = operator.source(position)
    source = torch.stack([_scaled(s, float(scale), aligned.centre) for s, scale in zip(source, aligned.scales)])
    centre = torch.tensor(aligned.centre, dtype=cube.dtype)
    places = centre + (operator.positions(position).to(cube) - centre)[:, None] * aligned.scales[:, None]

    def left(flux: Tensor) -> tuple[Tensor, Tensor]:
        rest = dataclasses.replace(aligned, frames=aligned.frames - flux[:, None, None, None] * source)
        return rest.own_fluxes(places)

    def slopes(flux: Tensor, sigma: Tensor) -> Tensor:
        steps = torch.diag(sigma)
        return torch.stack([(left(flux - h)[0] - left(flux + h)[0]) / (2 * h.sum()) for h in steps], 1)

    flux, sigma = cube.new_zeros(len(cube)), cube.new_ones(len(cube))
    slope = torch.eye(len(cube), dtype=cube.dtype)
    for turn in range(_ROUNDS):
        rest, sigma = left(flux)
        if turn in _RENEWED:
            slope = slopes(flux, sigma)
        flux = flux + torch.linalg.pinv(slope, rtol=_SINGULAR) @ rest
        if turn > _RENEWED[0] and bool((rest.abs() < _SMALL * sigma).all()):
            break
    inverse = torch.linalg.pinv(slopes(flux, sigma), rtol=_SINGULAR)
    return flux, (inverse * sigma.square()) @ inverse.mT


def _on_the_sky(b: Tensor, a: Tensor, scale: float, centre: tuple[float, float], radius: int) -> FilteredFrames:
    """Maps of the shrunk frames on the grid of those that were taken, divided by their dispersion."""
    z = torch.where(a > 0, b / torch.where(a > 0, a, 1.0).sqrt(), 0.0)
    a = _scaled_positive(a, 1 / scale, centre)
    z = torch.where(a > 0, _scaled(z, 1 / scale, centre), 0.0)
    kappa = windowed(z.square().mean(0), (a > 0).all(0).to(a), radius)
    return FilteredFrames(a / kappa, z * a.sqrt() / kappa, torch.ones_like(kappa), kappa, 0)


def _law(d: Tensor, seen: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """R with R Rᵀ = Σ⁻¹ `(N, L, L)`, and the Cholesky factor of C `(N, K, K)`, of `(N, L, K, T)`."""
    count = d.shape[-1]
    flat, weight = d.flatten(2), seen.to(d)
    pairs = (weight @ weight.mT).clamp(min=1.0) * (count - 1)
    sigma = flat @ flat.mT / pairs + torch.diag_embed((~usable).to(d))
    drawn = shrinkage(sigma, sigma.new_tensor(float(_INDEPENDENT * count)))[:, None, None]
    sigma = (1 - drawn) * sigma + drawn * torch.diag_embed(sigma.diagonal(dim1=-2, dim2=-1))
    values, vectors = torch.linalg.eigh(sigma)
    root = vectors / values.clamp(min=_LEAST).sqrt()[:, None]
    white = torch.einsum("nml,nmkt->nklt", root, d).flatten(2)
    there = weight.sum(1)
    number = (there[:, :, None] * there[:, None]).sqrt().clamp(min=1.0) * (count - 1)
    sample = white @ white.mT / number
    unseen = torch.diag_embed((there == 0).to(d))
    drawn = shrinkage(sample + unseen, sample.new_tensor(float(_INDEPENDENT * count)))[:, None, None]
    diagonal = torch.diag_embed(sample.diagonal(dim1=-2, dim2=-1))
    ridge = _RIDGE * torch.eye(sample.shape[-1], dtype=d.dtype)
    return root, torch.linalg.cholesky((1 - drawn) * sample + drawn * diagonal + unseen + ridge)


def _scaled(frames: Tensor, scale: float, centre: tuple[float, float]) -> Tensor:
    """Frames with all distances from `centre` times `scale`, zero where nothing of them is: `(*, H, W)`."""
    if scale == 1:
        return frames
    axes = []
    for n, middle in zip(frames.shape[-2:], centre):
        place = middle + (torch.arange(n, dtype=frames.dtype) - middle) / scale
        frequency = torch.fft.fftfreq(n, dtype=frames.dtype)
        kept = (frequency.abs() < min(0.5, 0.5 * scale + 1e-9)).to(frames)
        cycles = (place[:, None] - torch.arange(n, dtype=frames.dtype))[..., None] * frequency
        inside = (place >= -1e-6) & (place <= n - 1 + 1e-6)
        axes.append((2 * math.pi * cycles).cos() @ kept / n * inside[:, None])
    return axes[0] @ frames @ axes[1].mT


def _scaled_positive(maps: Tensor, scale: float, centre: tuple[float, float]) -> Tensor:
    """The same by bilinear weights, which keep what is positive so: `(N, H, W)`."""
    places = [m + (torch.arange(n, dtype=maps.dtype) - m) / scale for n, m in zip(maps.shape[-2:], centre)]
    rows, columns = (2 * place / (n - 1) - 1 for place, n in zip(places, maps.shape[-2:]))
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)
    return torch.nn.functional.grid_sample(maps[None], grid[None], align_corners=True)[0]


def _filled(channel: Tensor, known: Tensor) -> Tensor:
    """Every pixel that is not known as the nearest one that is."""
    if bool(known.all()):
        return channel
    nearest = ndimage.distance_transform_edt(~known.numpy(), return_distances=False, return_indices=True)
    rows, columns = torch.from_numpy(nearest).long()
    return channel[:, rows, columns]
