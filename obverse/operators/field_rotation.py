"""Field rotation: point sources that turn about a star while the telescope's pupil, and its speckles, stand still.

    y_t[n] = Σ_p τ(p) x[p] h(n − φ_t(p)),    φ_t(p) = c + R(−pa_t)(p − c),    t = 1 … T

x[p] is the flux of a source at pixel p on the sky, τ the transmission of the coronagraph there, c the star's centre and
h the PSF, which stays with the pupil. A source at (r, θ) on the sky is in frame t at

    column = c_x + r cos(θ − pa_t),    row = c_y + r sin(θ − pa_t)

with angles anticlockwise where rows are shown upward, so that turning frame t by +pa_t puts it back in its place. The
centre is ((H − 1)/2, (W − 1)/2) unless it is given: for frames of even sides some packages mean (H/2, W/2).

The PSF between its pixels is its trigonometric interpolation, on a grid with room for all that lies outside the frame.
The transform of frame t is then ĥ(k) X(R(pa_t) k) times a phase, with X the transform of τ x, whose values at the
turned frequencies a non-uniform FFT computes: no image is interpolated, and the image of one pixel is that of a source
there, to the accuracy of that transform (1e-12 in double precision, 1e-6 in single). One source is made without it, by
the Dirichlet kernel D of the grid's sides along each axis,

    h(n − φ) = Σ_a D(n₁ − φ₁ − a₁) h[a] D(n₂ − φ₂ − a₂),    D(x) = sin(πx) / (N sin(πx/N))

at the cost of the pixels that are asked for.

While a frame is exposed the sky turns by e_t. The frame is then the mean over K positions in pa_t ± e_t/2, as many as
keep the steps of a source in a corner of the frame below half a pixel.

References: Marois, Lafrenière, Doyon, Macintosh, Nadeau, "Angular differential imaging: a powerful high-contrast
imaging technique", ApJ 2006.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers
from .base import LinearOperator, constant_like, require_finite
from .boundary import is_smooth
from .field_rotation_arguments import as_angles, as_exposures, as_transmission, as_wavelengths
from .filters import by_parts
from .full_width import full_width_at_half_maximum
from .motion import centre_of, pixel_grid
from .nonuniform_fourier import NonuniformFourier

__all__ = ["FieldRotation"]

_ACCURACY = 1e-12  # of the transform in double precision
_MARGIN = 4  # pixels of the grid beside a PSF's own size
_STEP = 0.5  # pixels between the positions that stand for the way of a source during one exposure


class FieldRotation(LinearOperator):
    """Cubes of frames that a pupil-stabilised telescope takes of point sources.

    Args:
        image_shape: `(1, H, W)`, or `(L, H, W)` for L wavelengths.
        degrees: pa_t, one for each of the T frames, in degrees.
        psf: `(h, w)`, or `(L, h, w)` with one for each wavelength; the source is at its pixel (h // 2, w // 2). Fluxes
            are in its units.
        centre: (row, column) of the star.
        transmission: `(2, n)`: distances from the star in pixels, rising, and the transmission at each; linear between
            them and constant beyond. 1 everywhere by default.
        exposure_degrees: e_t, by how much the sky turns during a frame: one number, or one for each frame.
        wavelengths: `(L,)`, in any unit: sources do not move with them, but methods that align speckles need them.
        dtype: precision of images and cubes.

    Cubes are `(T, H, W)` for a `psf` of two axes and `(L, T, H, W)` for one of three.

    Raises:
        InputError: an argument is not finite, or the shapes do not fit each other.

    Example:
        >>> A = FieldRotation((1, 3, 3), [0.0, 90.0], torch.ones(1, 1))
        >>> sky = torch.zeros(1, 3, 3)
        >>> sky[0, 1, 2] = 5.0
        >>> A(sky).round().abs()
        tensor([[[0., 0., 0.],
                 [0., 0., 5.],
                 [0., 0., 0.]],
        <BLANKLINE>
                [[0., 5., 0.],
                 [0., 0., 0.],
                 [0., 0., 0.]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        degrees: Sequence[float] | Tensor,
        psf: Tensor,
        *,
        centre: Sequence[float] | None = None,
        transmission: Tensor | Sequence[Sequence[float]] | None = None,
        exposure_degrees: float | Sequence[float] | Tensor | None = None,
        wavelengths: Sequence[float] | Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        require_finite(psf, "FieldRotation expects a psf")
        channels = tuple(psf.shape[:-2])
        if len(image_shape) != 3 or psf.ndim not in (2, 3) or (channels or (1,)) != tuple(image_shape[:1]):
            raise InputError(
                f"FieldRotation expects images (1, H, W) and a psf (h, w), or (L, H, W) and (L, h, w), got "
                f"{tuple(image_shape)} and {tuple(psf.shape)}; give one PSF for each wavelength"
            )
        angles = as_angles(degrees, "degrees")
        size = tuple(image_shape[1:])
        super().__init__(image_shape, (*channels, len(angles), *size), dtype)
        self.degrees = angles
        self.psf = psf.detach().to(dtype).clone()
        self.centre = centre_of(self.image_shape[1:]) if centre is None else tuple(float(c) for c in centre)
        if len(self.centre) != 2 or not all(map(math.isfinite, self.centre)):
            raise InputError(f"FieldRotation expects a finite centre (row, column), got {centre}")
        self.exposure_degrees = as_exposures(exposure_degrees, len(angles))
        self.wavelengths = as_wavelengths(wavelengths, channels)
        self.transmission = as_transmission(transmission, dtype)
        self._offsets = self._within_exposure()
        self._grid = self._room()
        self._throughput = None if self.transmission is None else self._transmitted(pixel_grid(size, self.psf))

    @property
    def fwhm(self) -> float:
        """Full width at half maximum of the PSF in pixels: see `full_width_at_half_maximum`."""
        return full_width_at_half_maximum(self.psf)

    def _apply(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return by_parts(self._apply, x)
        if self._throughput is not None:
            x = constant_like(self._throughput, x) * x
        transfer = self._transfer(x)
        frames = []
        for t in range(len(self.degrees)):
            spectrum = sum(
                phase * fourier(x.to(phase)).unflatten(-1, phase.shape) for fourier, phase in self._turned(t, x)
            )
            frames.append(self._cropped(transfer * spectrum / len(self._offsets)))
        cube = torch.stack(frames, -3)
        return cube.squeeze(-4) if self.psf.ndim == 2 else cube

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return by_parts(self._adjoint, y)
        cube = y.unsqueeze(-4) if self.psf.ndim == 2 else y
        transfer = self._transfer(y).conj()
        image: Tensor | float = 0.0
        for t in range(len(self.degrees)):
            spectrum = transfer * self._cropped_adjoint(cube[..., t, :, :])
            for fourier, phase in self._turned(t, y):
                image = image + fourier.adjoint((phase.conj() * spectrum).flatten(-2)).real
        image = image / len(self._offsets)
        assert isinstance(image, Tensor)
        return image if self._throughput is None else constant_like(self._throughput, image) * image

    def source(
        self,
        position: Tensor | Sequence[float],
        flux: Tensor | float = 1.0,
        *,
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> Tensor:
        """The cube of one point source, exact between the pixels too, and differentiable in position and flux.

        Args:
            position: (row, column) on the sky, in pixels.
            flux: in units of the PSF: a number, or `(L,)` for each wavelength.
            rows: of each frame that are wanted, and `columns` likewise; all by default.

        Returns:
            `data_shape`, or the part `[..., rows, columns]` of it.
        """
        place = self._place(position, "source")
        level = as_numbers(flux, "source expects a flux").to(self.psf)
        if level.ndim and tuple(level.shape) != self.data_shape[:-3]:
            raise InputError(
                f"source expects one flux, or one for each of {self.data_shape[:-3]} wavelengths, got "
                f"{tuple(level.shape)}; reshape it"
            )
        if self.transmission is not None:
            level = level * self._transmitted(place).to(level)
        psf = self.psf[:, None] if self.psf.ndim == 3 else self.psf
        cube: Tensor | float = 0.0
        for part in self._offsets:
            along = self._track(place, part).unbind(-1)
            down, across = (self._between(axis, cut, where) for axis, cut, where in zip((0, 1), (rows, columns), along))
            cube = cube + down @ (psf @ across.mT) / len(self._offsets)
        return level[..., None, None, None] * cube

    def positions(self, position: Tensor | Sequence[float]) -> Tensor:
        """Where a source at `position` (row, column) on the sky is in each frame, in mid-exposure: `(T, 2)`."""
        return self._track(self._place(position, "positions"), 0.0)

    def _between(self, axis: int, cut: slice, where: Tensor) -> Tensor:
        """D between the pixels that are wanted and those of a PSF at `where` in each frame: (T, pixels, PSF's side)."""
        first, past, step = cut.indices(self.image_shape[1 + axis])
        side, count, period = self.psf.shape[-2 + axis], len(range(first, past, step)), self._grid[axis]
        # of all differences between the two, of which those of a pixel are neighbours
        lags = torch.arange(first - (side - 1 - side // 2), past + side // 2, dtype=where.dtype, device=where.device)
        away = lags - where[:, None]
        away = away - period * (away.detach() / period).round()
        kernel = (torch.sinc(away) / torch.sinc(away / period)).to(self.psf)
        return kernel.unfold(-1, side, step)[:, :count].flip(-1)

    def _place(self, position: Tensor | Sequence[float], name: str) -> Tensor:
        place = as_numbers(position, f"{name} expects a position (row, column)", torch.float64).to(self.psf.device)
        if tuple(place.shape) != (2,):
            raise InputError(
                f"{name} expects a position (row, column), got shape {tuple(place.shape)}; give two numbers"
            )
        return place

    def _track(self, place: Tensor, part: float) -> Tensor:
        """Positions when the given part of the exposure, from −1/2 to 1/2, is over: (T, 2)."""
        turn = [math.radians(a + e * part) for a, e in zip(self.degrees, self.exposure_degrees)]
        turn = torch.tensor(turn, dtype=torch.float64, device=place.device)
        cos, sin = turn.cos(), turn.sin()
        up, right = place[0] - self.centre[0], place[1] - self.centre[1]
        rows, columns = self.centre[0] + up * cos - right * sin, self.centre[1] + right * cos + up * sin
        return torch.stack([rows, columns], -1)

    def _turned(self, t: int, like: Tensor) -> list[tuple[NonuniformFourier, Tensor]]:
        """The Fourier sums of the sky at frame t's frequencies, turned, and the phases that lead to the frame."""
        double = like.dtype == torch.float64
        complex_, accuracy = (torch.complex128, _ACCURACY) if double else (torch.complex64, None)
        rows, columns = self._frequencies(like.device)
        row, column = torch.meshgrid(rows, columns, indexing="ij")
        found = []
        for part in self._offsets:
            angle = math.radians(self.degrees[t] + self.exposure_degrees[t] * part)
            cos, sin = math.cos(angle), math.sin(angle)
            # k · R(−pa) q = R(pa) k · q
            turned = (row * cos + column * sin, column * cos - row * sin)
            phase = row * self.centre[0] + column * self.centre[1]
            for k, n, c in zip(turned, self.image_shape[1:], self.centre):
                phase = phase + k * (n // 2 - c)  # the transform's origin is pixel n // 2
            points = torch.stack([k.flatten() for k in turned], -1)
            fourier = NonuniformFourier(points, self.image_shape, scaling="none", accuracy=accuracy, dtype=complex_)
            found.append((fourier, _wave(phase).to(complex_)))
        return found

    def _frequencies(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of rows and, one half, of columns, in cycles per pixel."""
        like = {"dtype": torch.float64, "device": device}
        return torch.fft.fftfreq(self._grid[0], **like), torch.fft.rfftfreq(self._grid[1], **like)

    def _transfer(self, like: Tensor) -> Tensor:
        """ĥ with its origin at the source: (L, rows, half of the columns)."""
        psf = constant_like(self.psf, like)
        psf = psf if psf.ndim == 3 else psf[None]
        rows, columns = self._frequencies(like.device)
        back = [-(n // 2) for n in psf.shape[-2:]]
        spectrum = torch.fft.rfft2(psf, s=self._grid)
        return spectrum * (_wave(rows * back[0])[:, None] * _wave(columns * back[1])).to(spectrum)

    def _cropped(self, spectrum: Tensor) -> Tensor:
        height, width = self.image_shape[1:]
        return torch.fft.irfft2(spectrum, s=self._grid)[..., :height, :width]

    def _cropped_adjoint(self, y: Tensor) -> Tensor:
        """Of an odd number of columns all but the mean stand for two frequencies."""
        spectrum = torch.fft.rfft2(y, s=self._grid) / math.prod(self._grid)
        return torch.cat([spectrum[..., :1], 2 * spectrum[..., 1:]], -1)

    def _room(self) -> tuple[int, int]:
        """Odd sides of a grid on which a source outside the frame does not come in at its other side."""
        corner = self._corner()
        sides = []
        for n, k, c in zip(self.image_shape[1:], self.psf.shape[-2:], self.centre):
            outside = max(0, math.ceil(max(corner - c, corner - (n - 1 - c))))
            side = n + k + outside + _MARGIN
            side += 1 - side % 2
            while not is_smooth(side):
                side += 2
            sides.append(side)
        return sides[0], sides[1]

    def _corner(self) -> float:
        """Distance of the farthest pixel from the centre."""
        return math.hypot(*(max(c, n - 1 - c) for c, n in zip(self.centre, self.image_shape[1:])))

    def _transmitted(self, place: Tensor) -> Tensor:
        """τ at (row, column), stacked along the first axis."""
        assert self.transmission is not None
        radii, values = self.transmission.to(place)
        r = ((place[0] - self.centre[0]).square() + (place[1] - self.centre[1]).square()).sqrt()
        right = torch.searchsorted(radii, r.detach().contiguous()).clamp(1, len(radii) - 1)
        weight = ((r - radii[right - 1]) / (radii[right] - radii[right - 1])).clamp(0, 1)
        return values[right - 1] + weight * (values[right] - values[right - 1])

    def _within_exposure(self) -> tuple[float, ...]:
        """The middles of K equal parts of an exposure, as fractions of it from −1/2 to 1/2."""
        arc = self._corner() * math.radians(max(map(abs, self.exposure_degrees)))
        count = max(1, math.ceil(arc / _STEP))
        return tuple((k + 0.5) / count - 0.5 for k in range(count))


def _wave(cycles: Tensor) -> Tensor:
    """exp(−2πi · cycles)."""
    angle = -2 * math.pi * cycles
    return torch.complex(angle.cos(), angle.sin())
