"""Motions of an image plane: where each pixel of a moved image looks in the image that it came from.

    φ(p) = c + M(p − c),    p = (row, column) in pixels,    c = ((H − 1)/2, (W − 1)/2) the image's centre

M acts on positions relative to the centre through a 3 × 3 matrix on (row, column, 1), followed by a division by the
third coordinate. A motion says where the *sampling positions* go, so that the content moves the other way: translation
by d makes y(p) = x(p + d), and a rotation by an angle θ takes the axis of columns towards that of rows, so that the
content turns by −θ. In (x, y) = (column, row) a rotation is the usual ((cos, −sin), (sin, cos)).

    translation (2)   rigid (3)   similarity (4)   affine (6)   homography (8)

form a chain of groups; composition is the product of matrices, and everything is differentiable in the parameters.

References: Hartley, Zisserman, "Multiple view geometry in computer vision", Cambridge University Press 2004, chapter 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers
from .base import require_finite

__all__ = ["Motion", "centre_of", "pixel_grid", "pixel_matrix"]


@dataclass(frozen=True, eq=False)
class Motion:
    """A motion of the plane, as a matrix on (row, column, 1) in pixels from the centre; see the constructors.

    Args:
        matrix: `(3, 3)`, invertible, float; kept in its own precision, and with its gradient if it has one.

    Raises:
        InputError: the matrix has another shape, or is not finite.

    Example:
        >>> shift = Motion.translation(torch.tensor([0.0, 2.0]))
        >>> (shift @ shift)(torch.tensor([[1.0, 1.0]]))
        tensor([[1., 5.]])
    """

    matrix: Tensor

    def __post_init__(self):
        require_finite(self.matrix, "Motion expects a matrix")
        if tuple(self.matrix.shape) != (3, 3) or self.matrix.is_complex():
            raise InputError(f"Motion expects a real matrix (3, 3), got {tuple(self.matrix.shape)}; use a constructor")

    @staticmethod
    def identity() -> "Motion":
        return Motion(torch.eye(3, dtype=torch.float64))

    @staticmethod
    def translation(shift: Tensor | Sequence[float]) -> "Motion":
        """φ(p) = p + `shift`, a pair (rows, columns) in pixels."""
        shift = _parameters(shift, 2, "translation", "(rows, columns)")
        return Motion.affine(torch.eye(2, dtype=shift.dtype, device=shift.device), shift)

    @staticmethod
    def rigid(parameters: Tensor | Sequence[float]) -> "Motion":
        """φ(p) = c + R(p − c) + d, of `parameters` (angle in radians, rows, columns)."""
        angle, *shift = _parameters(parameters, 3, "rigid", "(angle, rows, columns)")
        cos, sin = angle.cos(), angle.sin()
        return Motion.affine(_square(cos, sin, -sin, cos), torch.stack(shift))

    @staticmethod
    def similarity(parameters: Tensor | Sequence[float]) -> "Motion":
        """φ(p) = c + e^s R(p − c) + d, of `parameters` (angle in radians, s = log of the scale, rows, columns)."""
        angle, log_scale, *shift = _parameters(parameters, 4, "similarity", "(angle, log scale, rows, columns)")
        cos, sin = log_scale.exp() * angle.cos(), log_scale.exp() * angle.sin()
        return Motion.affine(_square(cos, sin, -sin, cos), torch.stack(shift))

    @staticmethod
    def affine(linear: Tensor, shift: Tensor | Sequence[float] = (0.0, 0.0)) -> "Motion":
        """φ(p) = c + L(p − c) + d, of a matrix `linear` (2, 2) on (row, column) and a `shift` (rows, columns)."""
        require_finite(linear, "Motion.affine expects a matrix")
        if tuple(linear.shape) != (2, 2):
            raise InputError(f"Motion.affine expects a matrix (2, 2), got {tuple(linear.shape)}; see its help")
        shift = _parameters(shift, 2, "affine", "(rows, columns)").to(linear)
        last = torch.tensor([[0.0, 0.0, 1.0]], dtype=linear.dtype, device=linear.device)
        return Motion(torch.cat([torch.cat([linear, shift[:, None]], 1), last]))

    @staticmethod
    def homography(parameters: Tensor | Sequence[float]) -> "Motion":
        """M = I + ((h₀, h₁, h₂), (h₃, h₄, h₅), (h₆, h₇, 0)): 0, 1, 3, 4 linear, 2 and 5 pixels, 6 and 7 per pixel."""
        h = _parameters(parameters, 8, "homography", "h of eight numbers")
        return Motion(torch.cat([h, h.new_zeros(1)]).reshape(3, 3) + torch.eye(3, dtype=h.dtype, device=h.device))

    @staticmethod
    def from_pixels(matrix: Tensor, size: Sequence[int]) -> "Motion":
        """A motion of images of `size` (H, W) given as is usual elsewhere: `matrix` (3, 3) on (x, y, 1) = (column, row,
        1) in pixels, with the origin at the centre of the first pixel."""
        require_finite(matrix, "Motion.from_pixels expects a matrix")
        swap = torch.eye(3, dtype=matrix.dtype, device=matrix.device)[[1, 0, 2]]
        return Motion(_conjugated(swap @ matrix @ swap, [-c for c in centre_of(size)]))

    def inverse(self) -> "Motion":
        """The motion that undoes this one."""
        inverse, failed = torch.linalg.inv_ex(self.matrix)
        if bool(failed):
            raise InputError("a motion that has an inverse is expected, got a singular matrix; correct it")
        return Motion(inverse / inverse[2, 2])

    def __matmul__(self, other: "Motion") -> "Motion":
        """p ↦ self(other(p)). Warping by `other`'s positions what was warped by `self`'s samples at these, so that
        `Warp(other) ∘ Warp(self)` is, up to interpolation, `Warp(self @ other)`."""
        return Motion(self.matrix @ other.matrix.to(self.matrix))

    def magnified(self, factor: float) -> "Motion":
        """The same motion in pixels `factor` times smaller."""
        scale = torch.tensor([factor, factor, 1.0], dtype=self.matrix.dtype, device=self.matrix.device)
        return Motion(scale[:, None] * self.matrix / scale)

    def __call__(self, points: Tensor) -> Tensor:
        """Where `points` (*, 2), (row, column) in pixels from the centre, are sampled."""
        matrix = self.matrix.to(points)
        moved = points @ matrix[:, :2].mT + matrix[:, 2]
        return moved[..., :2] / moved[..., 2:]

    def flow(self, size: Sequence[int], centre: Sequence[float] | None = None) -> Tensor:
        """φ(p) − p at every pixel of images of `size` (H, W): `(2, H, W)`, rows first, in pixels."""
        about = self.matrix.new_tensor(list(centre_of(size) if centre is None else centre))
        points = pixel_grid(size, self.matrix).movedim(0, -1) - about
        return (self(points) - points).movedim(-1, 0)


def centre_of(size: Sequence[int]) -> tuple[float, ...]:
    """The centre of a grid of `size` pixels, whose centres lie at integers.

    >>> centre_of((4, 5))
    (1.5, 2.0)
    """
    return tuple((n - 1) / 2 for n in size)


def pixel_grid(size: Sequence[int], like: Tensor) -> Tensor:
    """The (row, column) of every pixel: `(2, H, W)`, in the precision and on the device of `like`."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def pixel_matrix(motion: Motion, centre: Sequence[float]) -> Tensor:
    """The motion's matrix on (row, column, 1) in pixels from the image's corner, given the centre; in float64."""
    return _conjugated(motion.matrix.double(), centre)


def _conjugated(matrix: Tensor, centre: Sequence[float]) -> Tensor:
    """T M T⁻¹ with T the translation by `centre`."""
    there, back = torch.eye(3, dtype=matrix.dtype), torch.eye(3, dtype=matrix.dtype)
    there[:2, 2] = torch.tensor(list(centre), dtype=matrix.dtype)
    back[:2, 2] = -there[:2, 2]
    result = there.to(matrix) @ matrix @ back.to(matrix)
    return result / result[2, 2]


def _parameters(values: Tensor | Sequence[float], count: int, name: str, meaning: str) -> Tensor:
    """`values` as a finite float tensor; numbers become float64, so that positions in large images stay exact."""
    tensor = (
        values if isinstance(values, Tensor) else as_numbers(values, f"Motion.{name} expects {meaning}", torch.float64)
    )
    require_finite(tensor, f"Motion.{name} expects parameters")
    if tuple(tensor.shape) != (count,):
        raise InputError(f"Motion.{name} expects {meaning}, a tensor ({count},), got {tuple(tensor.shape)}; reshape it")
    return tensor


def _square(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b]), torch.stack([c, d])])
