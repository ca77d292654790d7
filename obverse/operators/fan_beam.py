"""Fan-beam tomography: line integrals of an image in a plane, along rays that diverge from a point source.

The source turns around the image's centre with the detector opposite. At angle θ, in the coordinates of `Radon`,

    source   −R (−sin θ, cos θ),     middle of the detector   D (−sin θ, cos θ),     detector along (cos θ, sin θ)

with R = `source_distance` and D = `detector_distance`, both from the centre of rotation. Cell k of n lies at
(k − (n − 1)/2)·detector_spacing + detector_offset from the detector's middle: along a straight line for a "flat" one,
along the circle of radius R + D about the source for an "arc". For a distant source this is `Radon`; it is the
convention of ASTRA's flat fan. The line model is Joseph's (`ray_table`).

Reference: Kak, Slaney, "Principles of computerized tomographic imaging", 1988, section 3.4.
"""

from collections.abc import Sequence
from math import hypot, isfinite, pi

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import require_whole
from .base import LinearOperator
from .filtered_backprojection import filtered, ramp, smear, view_weights
from .projection import AlongRays
from .ray_table import as_angles, cell_positions, ray_table, require_positive, view_axes

__all__ = ["FanBeam"]

_WIDEST = 80 * pi / 180
"""Largest angle of a ray from the central one, in radians."""


class FanBeam(AlongRays, LinearOperator):
    """Fan-beam projection.

    Args:
        image_shape: `(C, H, W)`; every channel is projected alike.
        angles: θ of each view, in radians, any number and order.
        detectors: number of cells.
        source_distance: from the source to the centre of rotation, in the unit of `spacing`; beyond the image.
        detector_distance: from the centre of rotation to the detector, at least zero.
        detector_spacing: distance between cells on the detector; along the arc for an "arc".
        spacing: size of a pixel.
        detector: "flat" or "arc".
        detector_offset: how far the detector's middle lies from the central ray, along the detector.
        engine: "auto", or "numba" (compiled, CPU) or "torch" by hand; both compute the same.

    Data are `(C, views, detectors)`.

    Raises:
        InputError: the source lies within the image's corners, or a number is out of its range.

    Example:
        >>> A = FanBeam((1, 8, 8), [0.0, 1.0], 12, source_distance=20.0, detector_distance=10.0, detector_spacing=1.5)
        >>> A.data_shape
        (1, 2, 12)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        angles: Tensor | Sequence[float],
        detectors: int,
        *,
        source_distance: float,
        detector_distance: float,
        detector_spacing: float = 1.0,
        spacing: float = 1.0,
        detector: str = "flat",
        detector_offset: float = 0.0,
        engine: str = "auto",
        dtype: torch.dtype = torch.float32,
    ):
        if len(image_shape) != 3:
            raise InputError(f"FanBeam expects an image_shape (C, H, W), got {tuple(image_shape)}; give the channels")
        if detector not in ("flat", "arc"):
            raise InputError(f"FanBeam expects detector 'flat' or 'arc', got {detector!r}; choose one")
        theta = as_angles(angles, "FanBeam")
        require_positive("FanBeam", spacing=spacing, detector_spacing=detector_spacing, source_distance=source_distance)
        require_whole(detectors, "FanBeam expects the number of detectors")
        if detectors < 1 or not (isfinite(detector_offset) and 0 <= detector_distance < float("inf")):
            raise InputError(
                "FanBeam expects at least one detector, a finite offset and a detector_distance of at least zero, "
                f"got {detectors}, {detector_offset} and {detector_distance}"
            )
        corner = hypot(*image_shape[1:]) * spacing / 2
        if source_distance <= corner:
            raise InputError(
                f"FanBeam expects the source beyond the image's corners at {corner:g}, got {source_distance}; "
                "give lengths in one unit, or crop the image"
            )
        super().__init__(image_shape, (image_shape[0], len(theta), detectors), dtype)
        self.angles = tuple(theta.tolist())
        self.source_distance, self.detector_distance = source_distance, detector_distance
        self.spacing, self.detector_spacing, self.detector_offset = spacing, detector_spacing, detector_offset
        self.detector, self.engine = detector, engine
        along, ahead = view_axes(theta)
        tangent = self._ray_angles().tan()
        direction = ahead[:, None] + tangent[:, None] * along[:, None]
        self._set_rays(ray_table((-source_distance * ahead)[:, None].expand_as(direction), direction, spacing))

    def filtered_backprojection(self, y: Tensor, filter: str = "ram-lak") -> Tensor:
        """The image by filtered back-projection; see `filtered_backprojection` for the formula and the filters.

        Args:
            y: data `(*batch, C, views, detectors)`.
            filter: "ram-lak", "shepp-logan", "cosine", "hann" or "hamming".
        """
        self._require_data(y, "filtered_backprojection")
        arc, radius = self.detector == "arc", self.source_distance
        theta = torch.tensor(self.angles, dtype=torch.float64)
        scale = (1 if arc else radius) / (radius + self.detector_distance)
        cell, offset = self.detector_spacing * scale, self.detector_offset * scale
        weights = view_weights(theta, 2 * pi)
        total = float(weights.sum())
        weights = weights * (pi / max(total, pi))  # a full circle sees every ray twice
        cosine = self._ray_angles().cos() / (radius if arc else 1)
        views = filtered(y * cosine.to(y), ramp(self.data_shape[-1], cell, filter, arc)) * weights.to(y)[:, None]
        geometry = {"cell": cell, "offset": offset, "radius": radius, "arc": arc}
        return smear(views, self._grid, self.spacing, view_axes(theta), **geometry, engine=self.engine)

    def _ray_angles(self) -> Tensor:
        """γ of each cell: its ray's angle from the central one, towards (cos θ, sin θ)."""
        distance = self.source_distance + self.detector_distance
        place = cell_positions(self.data_shape[-1], self.detector_spacing, self.detector_offset) / distance
        angles = place.atan() if self.detector == "flat" else place
        if float(angles.abs().max()) > _WIDEST:
            raise InputError(
                f"FanBeam expects rays within 80° of the central one, got {float(angles.abs().max()) * 180 / pi:.0f}°; "
                "check detector_spacing and the distances"
            )
        return angles
