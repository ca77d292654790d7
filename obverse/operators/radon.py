"""Parallel-beam tomography: line integrals of an image in a plane, along parallel rays from many directions.

    y(θ, s) = ∫ x(s·(cos θ, sin θ) + t·(−sin θ, cos θ)) dt

Coordinates start at the image's centre, between the pixels where their number is even: x grows along the columns' index
and y upwards, against the rows' index. At θ = 0 the rays run upwards, so that the data are the sums of the columns, and
θ turns them anticlockwise. Cell k of the detector lies at s = (k − (n − 1)/2)·detector_spacing + detector_offset. Both
centres are the same for every option. This is the convention of scikit-image's `radon` and of ASTRA's parallel beam.

Joseph's model of a line integral (`ray_table`) takes the image as linear between the pixels of a row or a column, and
the ray as a line through the middle of its cell. Values are integrals over length, in the unit of `spacing`.

References: Kak, Slaney, "Principles of computerized tomographic imaging", 1988. Joseph, "An improved algorithm for
reprojecting rays through pixel images", IEEE Trans. Med. Imaging 1982.
"""

from collections.abc import Sequence
from math import ceil, hypot, isfinite, pi

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import require_whole
from .base import LinearOperator
from .filtered_backprojection import filtered, ramp, smear, view_weights
from .projection import AlongRays
from .ray_table import as_angles, cell_positions, ray_table, require_positive, view_axes

__all__ = ["Radon"]


class Radon(AlongRays, LinearOperator):
    """Parallel-beam projection.

    Args:
        image_shape: `(C, H, W)`; every channel is projected alike.
        angles: θ of each view, in radians, any number and order.
        detectors: number of cells; by default as many as cover the image's diagonal.
        spacing: size of a pixel.
        detector_spacing: distance between cells, in the unit of `spacing`.
        detector_offset: how far the detector's centre lies from the centre of rotation along s, in the unit of
            `spacing`. Moving the detector by one cell moves what it sees by minus one cell.
        engine: "auto", or "numba" (compiled, CPU) or "torch" by hand; both compute the same.

    Data are `(C, views, detectors)`.

    Raises:
        InputError: an angle is not finite, or a size not positive.

    Example:
        >>> import torch
        >>> A = Radon((1, 2, 3), [0.0, torch.pi / 2], detectors=3)
        >>> A(torch.arange(6.0).reshape(1, 2, 3))
        tensor([[[3.0000, 5.0000, 7.0000],
                 [6.0000, 7.5000, 1.5000]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        angles: Tensor | Sequence[float],
        detectors: int | None = None,
        *,
        spacing: float = 1.0,
        detector_spacing: float = 1.0,
        detector_offset: float = 0.0,
        engine: str = "auto",
        dtype: torch.dtype = torch.float32,
    ):
        if len(image_shape) != 3:
            raise InputError(f"Radon expects an image_shape (C, H, W), got {tuple(image_shape)}; give the channels")
        theta = as_angles(angles, "Radon")
        require_positive("Radon", spacing=spacing, detector_spacing=detector_spacing)
        if detectors is None:
            detectors = ceil(hypot(*image_shape[1:]) * spacing / detector_spacing)
        if require_whole(detectors, "Radon expects the number of detectors") < 1 or not isfinite(detector_offset):
            raise InputError(
                f"Radon expects at least one detector and a finite offset, got {detectors}, {detector_offset}"
            )
        super().__init__(image_shape, (image_shape[0], len(theta), detectors), dtype)
        self.angles = tuple(theta.tolist())
        self.spacing, self.detector_spacing, self.detector_offset = spacing, detector_spacing, detector_offset
        self.engine = engine
        along, ahead = view_axes(theta)
        s = cell_positions(detectors, detector_spacing, detector_offset)
        point = s[:, None] * along[:, None]
        self._set_rays(ray_table(point, ahead[:, None].expand_as(point), spacing))

    def filtered_backprojection(self, y: Tensor, filter: str = "ram-lak") -> Tensor:
        """The image by filtered back-projection; see `filtered_backprojection` for the formula and the filters.

        Args:
            y: data `(*batch, C, views, detectors)`.
            filter: "ram-lak", "shepp-logan", "cosine", "hann" or "hamming".
        """
        self._require_data(y, "filtered_backprojection")
        theta = torch.tensor(self.angles, dtype=torch.float64)
        views = filtered(y, ramp(self.data_shape[-1], self.detector_spacing, filter))
        views = views * view_weights(theta, pi).to(y)[:, None]
        return smear(
            views,
            self._grid,
            self.spacing,
            view_axes(theta),
            cell=self.detector_spacing,
            offset=self.detector_offset,
            engine=self.engine,
        )
