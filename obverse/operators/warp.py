"""Warps: an image seen at moved positions.

    y(p) = x(φ(p)),    φ a translation, rigid motion, similarity, affine map or homography, or p plus a dense flow

A warp is linear in the image, with an exact adjoint that adds each datum back at the neighbours of its position, and
differentiable in the motion's parameters or the flow. `Motion` says in which direction things move: positions by +d
bring the content by −d. Bicubic interpolation is Keys's with a = −1/2, exact on parabolas.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, require_finite
from .boundary import require_boundary
from .interpolation import BOUNDARIES, INTERPOLATIONS
from .motion import Motion, centre_of, pixel_matrix
from .resampling import Resampling

__all__ = ["Warp"]


class Warp(LinearOperator):
    """y(p) = x(φ(p)).

    Where the motion's matrix or the flow requires a gradient, results carry one to it.

    Args:
        image_shape: `(C, H, W)`; all channels and batch items move alike.
        motion: a `Motion`, or a flow φ(p) − p of shape `(2, H, W)`, rows first, in pixels.
        interpolation: "bilinear", or "bicubic" (Keys, a = −1/2).
        boundary: what lies beyond the edges: "zero", "circular" or "reflect".
        centre: (row, column) about which a `Motion` acts; ((H − 1)/2, (W − 1)/2) by default.
        dtype: precision of the images; a flow's own by default, else float32.

    Raises:
        InputError: the motion is neither, the flow has another shape or is not finite, or a name is unknown.

    Example:
        >>> A = Warp((1, 1, 4), Motion.translation([0.0, 0.5]))
        >>> A(torch.tensor([[[0.0, 2.0, 4.0, 6.0]]]))
        tensor([[[1., 3., 5., 3.]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        motion: Motion | Tensor,
        *,
        interpolation: str = "bilinear",
        boundary: str = "zero",
        centre: Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
    ):
        if len(image_shape) != 3:
            raise InputError(f"Warp expects an image_shape (C, H, W), got {tuple(image_shape)}")
        size = (int(image_shape[1]), int(image_shape[2]))
        require_sampling(interpolation, boundary, "Warp")
        if not isinstance(motion, Motion | Tensor):
            raise InputError(f"Warp expects a Motion or a flow (2, H, W), got {type(motion).__name__}; see Motion")
        flow = motion if isinstance(motion, Tensor) else None
        if flow is not None:
            _require_flow(flow, size, centre)
        super().__init__(image_shape, image_shape, dtype or (torch.float32 if flow is None else flow.dtype))
        self.flow = flow if flow is None or flow.requires_grad else flow.clone()
        self.motion = motion if isinstance(motion, Motion) else None
        self.centre = centre_of(size) if centre is None else tuple(float(c) for c in centre)
        matrices = None
        if self.motion is not None:
            matrices = pixel_matrix(self.motion, self.centre).detach().cpu()[None].contiguous()
        # in an object of its own, so that positions stay in float64 whatever the precision of the operator
        self._resampling = Resampling(size, size, interpolation, boundary, matrices)

    @property
    def interpolation(self) -> str:
        return self._resampling.interpolation

    @property
    def boundary(self) -> str:
        return self._resampling.boundary

    def _apply(self, x: Tensor) -> Tensor:
        return self._resampling.gather(x, self._flow(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._resampling.scatter(y, self._flow(y))

    def _flow(self, x: Tensor) -> Tensor | None:
        """The flow, where it is given or has to carry a gradient."""
        if self.flow is not None:
            return self.flow.to(x.device)
        if self.motion is None or not (self.motion.matrix.requires_grad and torch.is_grad_enabled()):
            return None
        return self.motion.flow(self.image_shape[1:], self.centre).to(x.device)


def require_sampling(interpolation: str, boundary: str, name: str):
    """Refuse names that are not an interpolation and a boundary."""
    require_boundary(boundary, BOUNDARIES, name)
    if interpolation not in INTERPOLATIONS:
        raise InputError(f"{name} expects interpolation 'bilinear' or 'bicubic', got {interpolation!r}; choose one")


def _require_flow(flow: Tensor, size: tuple[int, int], centre: Sequence[float] | None):
    require_finite(flow, "Warp expects a flow")
    if tuple(flow.shape) != (2, *size) or flow.is_complex():
        raise InputError(f"Warp expects a real flow of shape {(2, *size)}, got {tuple(flow.shape)}; rows come first")
    if centre is not None:
        raise InputError("a flow has no centre, got one; leave it out")
