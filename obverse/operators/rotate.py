"""Rotation that keeps the statistics of noise: three shears, each a unitary shift of rows or columns by Fourier.

    R(θ) = S_x(−tan θ/2) S_y(sin θ) S_x(−tan θ/2),    after the nearest quarter turn, so that |θ| ≤ 45°

A shear moves each row by its own amount, which multiplies the row's Fourier coefficients by phases. On rows of odd
length no coefficient is its own mirror image but the mean, so that the phases keep every length and angle: the shear is
a unitary matrix, white noise stays white, and the adjoint is the rotation back. Interpolation instead averages
neighbours: bilinear weights keep between a quarter and all of the variance of white noise, 4/9 on average (a standard
deviation of 0.67), and correlate neighbours. The price is ringing at edges that the pixels do not resolve.

Turning by θ > 0 takes the axis of columns x towards that of rows y: anticlockwise where an array is shown with y
upward.

References: Unser, Thévenaz, Yaroslavsky, "Convolution-based interpolation for fast, high-quality rotation of images",
IEEE TIP 1995. Larkin, Oldfield, Klemm, "Fast Fourier method for the accurate rotation of sampled images", Optics
Communications 1997.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers
from .base import LinearOperator, require_finite
from .boundary import require_boundary
from .filters import by_parts
from .motion import centre_of

__all__ = ["Rotate"]


class Rotate(LinearOperator):
    """The image turned about a point.

    Args:
        image_shape: `(C, H, W)`; for a cube of frames C counts the frames.
        degrees: one angle, or one for each of the C channels; anticlockwise where rows are shown upward.
        centre: (row, column) that stays where it is; ((H − 1)/2, (W − 1)/2) by default.
        boundary: "zero": the image is embedded in a larger one, and content that leaves the frame is lost;
            "circular": no margin, so that corners wrap around and the whole is unitary where H and W are odd
            (a quarter turn then needs a square image turned about its centre).
        dtype: precision of the images.

    Raises:
        InputError: an angle or centre is not finite, the number of angles does not fit, or a quarter turn is asked of
            a circular image that has none.

    Example:
        >>> A = Rotate((1, 2, 2), 90.0)
        >>> A(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
        tensor([[[3., 1.],
                 [4., 2.]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        degrees: float | Sequence[float] | Tensor,
        *,
        centre: Sequence[float] | None = None,
        boundary: str = "zero",
        dtype: torch.dtype = torch.float32,
    ):
        if len(image_shape) != 3:
            raise InputError(f"Rotate expects an image_shape (C, H, W), got {tuple(image_shape)}")
        super().__init__(image_shape, image_shape, dtype)
        angles = as_numbers(degrees, "Rotate expects angles in degrees", torch.float64).detach().cpu().reshape(-1)
        require_finite(angles, "Rotate expects angles in degrees")
        if len(angles) not in (1, image_shape[0]):
            raise InputError(f"Rotate expects one angle or {image_shape[0]}, one for each channel, got {len(angles)}")
        size = tuple(self.image_shape[1:])
        self.degrees = tuple(angles.tolist())
        self.boundary = require_boundary(boundary, ("zero", "circular"), "Rotate")
        self.centre = centre_of(size) if centre is None else tuple(float(c) for c in centre)
        if len(self.centre) != 2 or not all(map(math.isfinite, self.centre)):
            raise InputError(f"Rotate expects a finite centre (row, column), got {centre}")
        quarters = [round(a / 90) for a in self.degrees]
        self._quarters = tuple(q % 4 for q in quarters)
        self._angles = tuple(math.radians(a - 90 * q) for a, q in zip(self.degrees, quarters))
        self._canvas, self._corner = self._embedding(size)
        self._plans = tuple(self._plan(q, a) for q, a in zip(self._quarters, self._angles))

    def _apply(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return by_parts(self._apply, x)
        frames = [self._turned(part, *plan) for part, plan in self._parts(x)]
        return torch.cat(frames, -3)

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return by_parts(self._adjoint, y)
        frames = [self._turned_back(part, *plan) for part, plan in self._parts(y)]
        return torch.cat(frames, -3)

    def _parts(self, x: Tensor):
        """Channels that turn alike, and how: one after the other, so that memory stays that of one frame."""
        if len(self._plans) == 1:
            return [(x, self._plans[0])]
        return [(x.narrow(-3, t, 1), plan) for t, plan in enumerate(self._plans)]

    def _turned(self, x: Tensor, quarter: int, roll: tuple[int, int], shears: tuple) -> Tensor:
        canvas = torch.rot90(self._embedded(x), -quarter, (-2, -1)).roll(roll, (-2, -1))
        for dim, slope, offset in shears:
            canvas = _sheared(canvas, dim, slope, offset)
        return self._cropped(canvas)

    def _turned_back(self, y: Tensor, quarter: int, roll: tuple[int, int], shears: tuple) -> Tensor:
        canvas = self._embedded(y)
        for dim, slope, offset in reversed(shears):
            canvas = _sheared(canvas, dim, -slope, -offset)
        back = (-roll[0], -roll[1])
        return self._cropped(torch.rot90(canvas.roll(back, (-2, -1)), quarter, (-2, -1)))

    def _embedded(self, x: Tensor) -> Tensor:
        if self._canvas == tuple(x.shape[-2:]):
            return x
        canvas = x.new_zeros(*x.shape[:-2], *self._canvas)
        (top, left), (height, width) = self._corner, x.shape[-2:]
        canvas[..., top : top + height, left : left + width] = x
        return canvas

    def _cropped(self, canvas: Tensor) -> Tensor:
        (top, left), (height, width) = self._corner, self.image_shape[1:]
        return canvas[..., top : top + height, left : left + width]

    def _embedding(self, size: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size of the canvas, and where on it the image's corner lies."""
        if self.boundary == "circular":
            if any(self._quarters) and (size[0] != size[1] or self.centre != centre_of(size)):
                raise InputError(
                    f"a circular image turns by more than 45° only if it is square, about its centre, got "
                    f"{tuple(size)} about {self.centre}; use boundary='zero'"
                )
            return (size[0], size[1]), (0, 0)
        if not any(self._angles) and size[0] == size[1] and self.centre == centre_of(size):
            return (size[0], size[1]), (0, 0)
        # a square about the centre that holds the image however it is turned, and while it is sheared
        reach = math.hypot(*(max(c, n - 1 - c) for c, n in zip(self.centre, size)))
        reach *= max(math.hypot(1.0, math.tan(a / 2)) for a in self._angles)
        half = math.ceil(reach) + _MARGIN
        middle = tuple(math.floor(c + 0.5) for c in self.centre)
        return (2 * half + 1, 2 * half + 1), (half - middle[0], half - middle[1])

    def _plan(self, quarter: int, angle: float) -> tuple[int, tuple[int, int], tuple]:
        """Quarter turn about the canvas's middle, whole pixels by which that is off, and the shears (dim, slope,
        offset): a row at y moves by slope · y + offset, which includes the fractions of a pixel."""
        middle = centre_of(self._canvas)
        away = [c + o - m for c, o, m in zip(self.centre, self._corner, middle)]  # the rotation's centre
        turned = list(away)
        for _ in range(quarter):
            turned = [turned[1], -turned[0]]  # (row, column) of a point after one quarter turn
        shift = [a - t for a, t in zip(away, turned)]
        roll = (round(shift[0]), round(shift[1]))
        down, right = shift[0] - roll[0], shift[1] - roll[1]
        if angle == 0.0 and down == 0.0 and right == 0.0:
            return quarter, roll, ()
        # the fraction (right, down) first, then three shears about the centre (away) on the canvas's own axes
        slope, rise = -math.tan(angle / 2), math.sin(angle)
        first = (-1, slope, right + slope * (down - away[0]))
        second = (-2, rise, down - rise * away[1])
        third = (-1, slope, -slope * away[0])
        return quarter, roll, (first, second, third)


_MARGIN = 2
"""Pixels around the canvas's circle, beside rounding."""


def _sheared(x: Tensor, dim: int, slope: float, offset: float) -> Tensor:
    """Every line along `dim` shifted by slope · (its place across, from the middle) + offset, by Fourier."""
    across = -1 if dim == -2 else -2
    n, count = x.shape[dim], x.shape[across]
    place = torch.arange(count, dtype=torch.float64, device=x.device) - (count - 1) / 2
    shift = slope * place + offset
    frequency = torch.arange(n // 2 + 1, dtype=torch.float64, device=x.device) / n
    angle = -2 * math.pi * (torch.outer(shift, frequency) if dim == -1 else torch.outer(frequency, shift))
    phase = torch.polar(torch.ones_like(angle), angle)
    if n % 2 == 0:  # this frequency is its own mirror image: only the cosine of its phase leaves the image real
        phase = phase.clone()
        last = phase.narrow(dim, n // 2, 1)
        last.copy_(last.real.to(last))
    spectrum = torch.fft.rfft(x, dim=dim)
    return torch.fft.irfft(spectrum * phase.to(spectrum), n=n, dim=dim)
