"""Ptychography: a probe illuminates overlapping parts of an object, and the far field of each is recorded.

    field       ψ_k = F(p · x[window k])            F the centred, orthonormal Fourier transform of the window
    data        y_k = |ψ_k|²

F is unitary, so that BᴴB is the illumination Σ_k |p|² at the object's pixels: with one noise variance, `solve` of the
field divides by it. Windows overlap by more than half in practice, which is what replaces the lost phases.

References: Rodenburg, Maiden, "Ptychography", Springer Handbook of Microscopy 2019.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers
from .base import LinearOperator, constant_like, require_finite
from .fourier import Fourier
from .phase_retrieval import PhaseRetrieval

__all__ = ["Ptychography", "ScannedProbe"]


class ScannedProbe(LinearOperator):
    """The far fields behind a probe at several positions: complex object `(1, H, W)` → fields `(positions, h, w)`.

    Args:
        image_shape: `(1, H, W)`, the object's transmission.
        probe: complex (or real) field of the illumination in its window, `(h, w)`.
        positions: row and column of each window's corner, integers `(positions, 2)`; windows lie inside the object.
        dtype: torch.complex64 or torch.complex128.

    Raises:
        InputError: a window leaves the object, or a shape is wrong.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        probe: Tensor,
        positions: Sequence[Sequence[int]] | Tensor,
        dtype: torch.dtype = torch.complex64,
    ):
        require_finite(probe, "ScannedProbe expects a probe")
        if len(image_shape) != 3 or image_shape[0] != 1 or probe.ndim != 2 or not dtype.is_complex:
            raise InputError(
                f"ScannedProbe expects an image_shape (1, H, W), a probe (h, w) and a complex dtype, got "
                f"{tuple(image_shape)}, {tuple(probe.shape)} and {dtype}; reshape them"
            )
        corners = as_numbers(positions, "ScannedProbe expects positions")
        if corners.ndim != 2 or corners.shape[-1] != 2 or corners.is_floating_point() or len(corners) == 0:
            raise InputError(
                f"ScannedProbe expects positions as integers (n, 2), got {corners.dtype} of shape "
                f"{tuple(corners.shape)}; round them to pixels"
            )
        height, width = probe.shape
        room = torch.tensor([image_shape[1] - height, image_shape[2] - width])
        if bool((corners < 0).any()) or bool((corners > room).any()):
            raise InputError(
                f"ScannedProbe expects corners between (0, 0) and {tuple(room.tolist())}, got rows "
                f"{int(corners[:, 0].min())} to {int(corners[:, 0].max())} and columns {int(corners[:, 1].min())} to "
                f"{int(corners[:, 1].max())}; enlarge the object"
            )
        super().__init__(image_shape, (len(corners), height, width), dtype)
        self.probe = probe.clone().to(dtype)
        rows = corners[:, :1] + torch.arange(height)
        columns = corners[:, 1:] + torch.arange(width)
        #: each window's pixels in the flattened object
        self._pixels = rows[:, :, None] * image_shape[2] + columns[:, None, :]
        self._far_field = Fourier(self.data_shape, dtype=dtype)

    def _apply(self, x: Tensor) -> Tensor:
        windows = x.flatten(-3)[..., self._pixels.to(x.device)]
        return self._far_field._apply(constant_like(self.probe, x) * windows)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._collected(constant_like(self.probe, y).conj() * self._far_field._adjoint(y))

    def illumination(self) -> Tensor:
        """BᴴB, which is diagonal: Σ_k |p|² at the object's pixels, `(1, H, W)`."""
        return self._collected(self.probe.abs().square().expand(self.data_shape))

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return float(self.illumination().detach().max().sqrt())

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        if weight is not None and weight.numel() != 1:
            return None
        power = constant_like(self.illumination(), damping)
        return b / ((power if weight is None else weight.reshape(()) * power) + damping)

    def _collected(self, windows: Tensor) -> Tensor:
        """Windows added up at their places in the object."""
        flat = windows.flatten(-3)
        empty = flat.new_zeros(*flat.shape[:-1], self.image_shape[1] * self.image_shape[2])
        return empty.index_add(-1, self._pixels.flatten().to(flat.device), flat).unflatten(-1, self.image_shape)


class Ptychography(PhaseRetrieval):
    """Far-field intensities behind a probe at several positions: object `(1, H, W)` → `(positions, h, w)`.

    Args and errors are those of `ScannedProbe`, which is its `operator`.

    >>> A = Ptychography((1, 4, 4), torch.ones(2, 2), [[0, 0], [0, 2], [2, 1]])
    >>> A(torch.ones(1, 4, 4, dtype=torch.complex64))[0]
    tensor([[0., 0.],
            [0., 4.]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        probe: Tensor,
        positions: Sequence[Sequence[int]] | Tensor,
        dtype: torch.dtype = torch.complex64,
    ):
        super().__init__(ScannedProbe(image_shape, probe, positions, dtype))
