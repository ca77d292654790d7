"""Cone-beam tomography: line integrals of a volume from a point source on a circle to a flat detector.

    y(θ, v, u) = ∫ x(s + t·e) dt,    e the unit vector from the source s to the pixel (v, u)
    s = −R·c(θ),  pixel = L·c(θ) + u·(cos θ, sin θ, 0) + v·(0, 0, 1),  c(θ) = (−sin θ, cos θ, 0)

with R = source_distance and L = detector_distance, both from the axis of rotation. Coordinates start at the volume's
centre: x grows along the columns' index, y against the rows' index, and z, the axis of rotation, along the slices'
index. At θ = 0 the central ray runs upwards in a slice, and θ turns it anticlockwise, as in parallel and fan beam: the
slice with z = 0 and the row with v = 0 are a fan beam. Row i of the detector lies at v = (i − (rows − 1)/2)·spacing +
offset, its columns alike.

Joseph's model (`cone_transform`) interpolates bilinearly in the planes across the axis along which a ray advances
fastest; pixels and voxels are points. Values are integrals over length, in the unit of `spacing`.

Reference: Feldkamp, Davis, Kress, "Practical cone-beam algorithm", JOSA A 1984 (the geometry).
"""

from collections.abc import Sequence
from math import hypot, isfinite

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, _check
from .cone_transform import Rays, adjoint_ray_transform, ray_transform, require_engine
from .fdk import feldkamp
from .filters import by_parts
from .ray_table import as_angles, cell_positions, require_positive, view_axes

__all__ = ["ConeBeam"]


class ConeBeam(LinearOperator):
    """Cone-beam projection: volumes `(C, D, H, W)` → data `(C, views, rows, columns)`, channels alike.

    Args:
        image_shape: `(C, D, H, W)`.
        angles: of the views, in radians.
        detector_shape: rows (along the axis of rotation), columns.
        source_distance: from the source to the axis of rotation; the source must lie outside the volume.
        detector_distance: from the axis of rotation to the detector; 0 for a detector scaled to the axis.
        spacing: voxel size along (D, H, W), or one for all.
        detector_spacing: distance of the detector's rows and of its columns, or one for both.
        detector_offset: how far the detector's centre is moved along its rows' and columns' index, in units of length.
        dtype: precision of the images.
        engine: "auto", or "numba", "torch" to choose by hand.

    Raises:
        InputError: a shape or a length is not of this kind, or the source lies within the volume.

    Example:
        >>> import torch
        >>> A = ConeBeam((1, 1, 1, 1), [0.0], (1, 1), source_distance=10.0, detector_distance=5.0)
        >>> A(torch.ones(1, 1, 1, 1))
        tensor([[[[1.]]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        angles: Tensor | Sequence[float],
        detector_shape: Sequence[int],
        *,
        source_distance: float,
        detector_distance: float,
        spacing: float | Sequence[float] = 1.0,
        detector_spacing: float | Sequence[float] = 1.0,
        detector_offset: Sequence[float] = (0.0, 0.0),
        dtype: torch.dtype = torch.float32,
        engine: str = "auto",
    ):
        if len(image_shape) != 4:
            raise InputError(f"ConeBeam expects an image_shape (C, D, H, W), got {tuple(image_shape)}; add an axis")
        if dtype.is_complex:
            raise InputError(f"ConeBeam expects a real dtype, got {dtype}; it takes complex volumes as they are")
        if not isinstance(detector_shape, Sequence) or len(detector_shape) != 2:
            raise InputError(f"ConeBeam expects a detector_shape (rows, columns), got {detector_shape!r}")
        require_engine(engine, "ConeBeam")
        directions = as_angles(angles, "ConeBeam")
        super().__init__(image_shape, (image_shape[0], len(directions), *detector_shape), dtype)
        #: as floats, since a conversion to float32 must not move the rays
        self.angles = tuple(directions.tolist())
        self.spacing = _lengths(spacing, 3, "spacing")
        self.detector_spacing = _lengths(detector_spacing, 2, "detector_spacing")
        self.detector_offset = _numbers(detector_offset, 2, "detector_offset")
        self.source_distance, self.detector_distance = float(source_distance), float(detector_distance)
        self.engine = engine
        require_positive("ConeBeam", source_distance=self.source_distance)
        if not (isfinite(self.detector_distance) and self.detector_distance >= 0):
            raise InputError(f"ConeBeam expects a detector_distance of at least zero, got {detector_distance}")
        # the border beyond the outermost voxels' centres, where the interpolated volume falls to zero, included
        reach = hypot(*((n + 1) / 2 * h for n, h in zip(self.image_shape[2:], self.spacing[1:])))
        if self.source_distance <= reach:
            raise InputError(
                f"ConeBeam expects the source outside the volume, more than {reach:.6g} from the axis, got "
                f"source_distance {self.source_distance:.6g}; use the unit of spacing, or crop the volume"
            )
        self._frames = tuple(self._placed(directions).flatten().tolist())

    def _apply(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return by_parts(self._apply, x)
        y = ray_transform(x.reshape(-1, *self.image_shape[1:]), self._rays())
        return y.reshape(*x.shape[:-3], *self.data_shape[1:])

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return by_parts(self._adjoint, y)
        x = adjoint_ray_transform(y.reshape(-1, *self.data_shape[1:]), self._rays())
        return x.reshape(*y.shape[:-3], *self.image_shape[1:])

    def filtered_backprojection(self, y: Tensor, filter: str = "ram-lak") -> Tensor:
        """The volume by Feldkamp, Davis and Kress's method (`fdk`), for views on a full circle: a starting point.

        Args:
            y: data `(*batch, C, views, rows, columns)`.
            filter: "ram-lak", "shepp-logan", "cosine", "hann" or "hamming".
        """
        _check(y, self.data_shape, "ConeBeam.filtered_backprojection expects data", self.dtype)
        if y.is_complex():
            return by_parts(lambda part: self.filtered_backprojection(part, filter), y)
        return feldkamp(
            y,
            torch.tensor(self.angles, dtype=torch.float64),
            self.image_shape[1:],
            self.spacing,
            source_distance=self.source_distance,
            cell=tuple(step / self.magnification for step in self.detector_spacing),
            offset=tuple(shift / self.magnification for shift in self.detector_offset),
            filter=filter,
            engine=self.engine,
        )

    @property
    def magnification(self) -> float:
        """Of the detector with respect to the axis of rotation."""
        return (self.source_distance + self.detector_distance) / self.source_distance

    def detector_positions(self) -> tuple[Tensor, Tensor]:
        """v of the detector's rows and u of its columns, in float64."""
        rows, columns = (
            cell_positions(n, step, offset)
            for n, step, offset in zip(self.data_shape[2:], self.detector_spacing, self.detector_offset)
        )
        return rows, columns

    def _rays(self) -> Rays:
        grid = self.image_shape[1], self.image_shape[2], self.image_shape[3]
        detector = self.data_shape[2], self.data_shape[3]
        frames = np.reshape(self._frames, (-1, 4, 3))
        return Rays(frames, detector, grid, self.spacing, self.engine)  # type: ignore[arg-type]

    def _placed(self, angles: Tensor) -> Tensor:
        """Source, first pixel and the detector's steps in voxels, `(views, 4, 3)`; see `Rays`."""
        across, along = view_axes(angles)
        rows, columns = self.detector_positions()
        frames = torch.stack(
            (
                _with_height(-self.source_distance * along, 0.0),
                _with_height(self.detector_distance * along + columns[0] * across, float(rows[0])),
                _with_height(torch.zeros_like(across), self.detector_spacing[0]),
                _with_height(self.detector_spacing[1] * across, 0.0),
            ),
            1,
        )
        frames = frames * torch.tensor([1.0, -1.0, 1.0]).double() / torch.tensor(self.spacing, dtype=torch.float64)
        frames[:, :2] += (torch.tensor(self.image_shape[1:], dtype=torch.float64) - 1) / 2
        return frames


def _with_height(point: Tensor, z: float) -> Tensor:
    """(x, y) → (z, y, x)."""
    return torch.stack((torch.full_like(point[:, 0], z), point[:, 1], point[:, 0]), 1)


def _numbers(values: float | Sequence[float], count: int, what: str) -> tuple[float, ...]:
    result = (float(values),) * count if isinstance(values, int | float) else tuple(float(v) for v in values)
    if len(result) != count or not all(map(isfinite, result)):
        raise InputError(f"ConeBeam expects {what} as {count} finite numbers, got {values}; give one for each axis")
    return result


def _lengths(values: float | Sequence[float], count: int, what: str) -> tuple[float, ...]:
    result = _numbers(values, count, what)
    for value in result:
        require_positive("ConeBeam", **{what: value})
    return result
