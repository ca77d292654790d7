"""Actions on images, each with its inverse: what a scene may have undergone before it was measured.

    T_g x,    T_g⁻¹ T_g x = x

`t.sample(generator)` draws parameters g, `t(x, g)` acts on images and `t.inverse(x, g)` undoes it. `Shift`, `Rotate90`
and `Flip` permute pixels, so they are undone exactly; the others interpolate and are undone up to that, about the
image's centre, with what leaves the frame lost. Images are `(*, C, H, W)`, all of one call with the same g.

An operator with which the action does not commute sees, over all g, more of the images than its own range: that is what
equivariant learning and the identifiability check are built on.

References: Chen, Tachella, Davies, "Equivariant imaging: learning beyond the range space", ICCV 2021.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .errors import InputError
from .operators.base import LinearOperator
from .operators.motion import Motion
from .operators.rotate import Rotate
from .operators.warp import Warp

__all__ = ["Diffeomorphism", "Flip", "Homography", "Rotate90", "Rotation", "Scale", "Shift", "Transform"]


class Transform:
    """An action on images; an immutable value."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Parameters g of one action, drawn at random."""
        raise NotImplementedError(f"{type(self).__name__} must define sample")

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        """The images `x` (*, C, H, W) moved by `g`."""
        _require(self, x, g)
        return self._act(x, g, False)

    def inverse(self, x: Tensor, g: Tensor) -> Tensor:
        """The images before they were moved by `g`."""
        _require(self, x, g)
        return self._act(x, g, True)

    def _act(self, x: Tensor, g: Tensor, undo: bool) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _act")


@dataclass(frozen=True)
class Shift(Transform):
    """Circular shifts by whole pixels; g (2,) is the shift as a fraction of the height and the width, in [0, 1).

    Args:
        largest: bound on the shift in either direction, as a fraction of the size; 0.5 reaches every shift.

    >>> Shift()(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([0.0, 0.25]))
    tensor([[[4., 1., 2., 3.]]])
    """

    largest: float = 0.5

    def __post_init__(self):
        _require_range(self, 0.0, 1.0)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return (self.largest * _symmetric(2, generator)).remainder(1.0)

    def _act(self, x: Tensor, g: Tensor, undo: bool) -> Tensor:
        pixels = [round(float(fraction) * n) for fraction, n in zip(g, x.shape[-2:])]
        return x.roll([-p if undo else p for p in pixels], (-2, -1))


@dataclass(frozen=True)
class Rotate90(Transform):
    """Quarter turns; g () counts them. Height and width change places with an odd number.

    >>> Rotate90()(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor(1))
    tensor([[[3., 1.],
             [4., 2.]]])
    """

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.randint(4, (), generator=generator)

    def _act(self, x: Tensor, g: Tensor, undo: bool) -> Tensor:
        return torch.rot90(x, int(g) if undo else -int(g), (-2, -1))


@dataclass(frozen=True)
class Flip(Transform):
    """Reflections; g (2,) says whether rows and columns are reversed (0 or 1)."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.randint(2, (2,), generator=generator)

    def _act(self, x: Tensor, g: Tensor, undo: bool) -> Tensor:
        return x.flip([dim for dim, flag in zip((-2, -1), g) if bool(flag)])


@dataclass(frozen=True)
class Rotation(Transform):
    """Rotations about the centre that keep the statistics of noise (`Rotate`); g () is the angle in degrees.

    Args:
        largest: bound on the angle, in degrees, either way.
    """

    largest: float = 180.0

    def __post_init__(self):
        _require_range(self, 0.0, 360.0)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.largest * _symmetric(1, generator)[0]

    def _act(self, x: Tensor, g: Tensor, undo: bool) -> Tensor:
        return _linear(x, lambda shape: Rotate(shape, -float(g) if undo else float(g), dtype=x.dtype))


@dataclass(frozen=True)
class Scale(Transform):
    """Magnification about the centre; g () is the logarithm of the factor.

    Args:
        largest: bound on the factor, at least 1; its inverse bounds it from below.
    """

    largest: float = 1.5

    def __post_init__(self):
        _require_range(self, 1.0, 1e3)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return math.log(self.largest) * _symmetric(1, generator)[0]

    def _act(self, x: Tensor, g: Tensor, undo: bool) -> Tensor:
        still = g.new_zeros(3)
        return _moved(x, Motion.similarity(torch.cat([still[:1], g.reshape(1), still[1:]])), undo)


@dataclass(frozen=True)
class Homography(Transform):
    """A camera's change of view; g (8,) as for `Motion.homography`, with positions in units of half the larger side.

    Args:
        largest: bound on each number: 0.1 moves corners by some tenth of the half side.
    """

    largest: float = 0.1

    def __post_init__(self):
        _require_range(self, 0.0, 1.0)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.largest * _symmetric(8, generator)

    def _act(self, x: Tensor, g: Tensor, undo: bool) -> Tensor:
        return _moved(x, Motion.homography(g).magnified(max(x.shape[-2:]) / 2), undo)


@dataclass(frozen=True)
class Diffeomorphism(Transform):
    """A smooth, invertible distortion that leaves the edges where they are.

    The displacement is a sum of sines, g (2, K, K) holding its amplitudes along rows and columns:

        d(u, v) = Σ_kl g_kl sin(πku) sin(πlv),    u, v in [0, 1] over the image, in units of the size along the axis.

    Where its slopes stay below 1 in total it can be undone; the inverse solves p + d(p) = q by iterating p ← q − d(p).

    Args:
        modes: K, sines along each axis.
        slope: bound on the sum of the slopes' magnitudes, below 1.

    Raises:
        InputError: the slope is not between 0 and 1.
    """

    modes: int = 3
    slope: float = 0.4

    def __post_init__(self):
        if not 0 < self.slope < 1 or not isinstance(self.modes, int) or self.modes < 1:
            raise InputError(
                f"Diffeomorphism expects a slope between 0 and 1 and modes as a whole number from 1 on, got "
                f"{self.slope}, {self.modes}"
            )

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        amplitudes = _symmetric(2 * self.modes**2, generator).reshape(2, self.modes, self.modes)
        frequency = torch.arange(1, self.modes + 1, dtype=torch.float64)
        steepest = math.pi * (amplitudes.abs() * (frequency[:, None] + frequency)).sum((1, 2)).max()
        return self.slope * amplitudes / steepest

    def _act(self, x: Tensor, g: Tensor, undo: bool) -> Tensor:
        size = x.shape[-2:]
        axes = [torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.zeros(1).double() for n in size]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        # the content moves by d, so positions move by the inverse of p + d(p)
        place = grid
        if undo:
            place = grid + _displacement(g, grid)
        else:
            for _ in range(math.ceil(math.log(_CLOSE) / math.log(self.slope))):
                place = grid - _displacement(g, place)
        pixels = torch.tensor([n - 1.0 for n in size], dtype=torch.float64)
        flow = (place - grid) * pixels[:, None, None]
        return _linear(x, lambda shape: Warp(shape, flow, interpolation="bicubic", boundary="reflect", dtype=x.dtype))


_CLOSE = 1e-10
"""How close the inverse of a distortion comes, in units of the image's size."""


def _displacement(g: Tensor, points: Tensor) -> Tensor:
    """d at `points` (2, H, W) in [0, 1]: (2, H, W)."""
    frequency = math.pi * torch.arange(1, g.shape[-1] + 1, dtype=torch.float64)
    u, v = (torch.sin(frequency[:, None, None] * p) for p in points)
    return torch.einsum("akl,khw,lhw->ahw", g.double().cpu(), u, v)


def _moved(x: Tensor, motion: Motion, undo: bool) -> Tensor:
    """The content of `x` moved by `motion`: sampled where its inverse leads."""
    motion = motion if undo else motion.inverse()
    return _linear(x, lambda shape: Warp(shape, motion, interpolation="bicubic", dtype=x.dtype))


def _linear(x: Tensor, make) -> Tensor:
    """An operator on `(1, H, W)` that acts on every channel alike."""
    operator: LinearOperator = make((1, *x.shape[-2:]))
    return operator(x[..., None, :, :])[..., 0, :, :]


def _symmetric(count: int, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [−1, 1]."""
    return 2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1


def _require_range(transform: "Shift | Rotation | Scale | Homography", low: float, high: float):
    if not low <= transform.largest <= high:
        raise InputError(
            f"{type(transform).__name__} expects largest between {low:g} and {high:g}, got {transform.largest}"
        )


@cache
def _shape(transform: Transform) -> tuple[int, ...]:
    """The shape of the parameters."""
    return tuple(transform.sample(torch.Generator().manual_seed(0)).shape)


def _require(transform: Transform, x: Tensor, g: Tensor):
    name = type(transform).__name__
    if not isinstance(x, Tensor) or x.ndim < 3 or not (x.is_floating_point() or x.is_complex()):
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} expects floating-point images (*, C, H, W), got {got}; reshape or convert them")
    if not isinstance(g, Tensor) or tuple(g.shape) != _shape(transform):
        got = tuple(g.shape) if isinstance(g, Tensor) else type(g).__name__
        raise InputError(f"{name} expects parameters of shape {_shape(transform)}, got {got}; draw them with sample")
    if not bool(g.isfinite().all()):
        raise InputError(f"{name} expects finite parameters, got NaN or infinite ones; draw them with sample")
