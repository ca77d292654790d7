"""Data that are some of the image's values: inpainting masks and colour-filter arrays.

Mask: y = m · x                         Mosaic: y[n] = x[c(n), n], one colour at each pixel
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, constant_like, require_finite
from .colour_filters import colour_filter_tile

__all__ = ["Mask", "Mosaic"]


class Mask(LinearOperator):
    """A x = m · x, pixel by pixel; data that are not measured are zero.

    Args:
        mask: booleans or finite real weights that broadcast to the image, such as `(H, W)` or `(C, H, W)`.
        image_shape: the image's shape; the mask's own by default.
        dtype: precision of the images; the mask's own, or float32 for a boolean mask, by default.

    >>> A = Mask(torch.tensor([[[True, False]]]))
    >>> A(torch.tensor([[[3.0, 4.0]]]))
    tensor([[[3., 0.]]])
    """

    def __init__(self, mask: Tensor, image_shape: Sequence[int] | None = None, dtype: torch.dtype | None = None):
        image_shape = tuple(getattr(mask, "shape", ())) if image_shape is None else tuple(image_shape)
        if len(image_shape) < 3:
            raise InputError(f"Mask expects an image_shape such as (1, 64, 64), got {image_shape}; pass image_shape")
        weights, dtype = mask_weights(mask, image_shape, dtype, "Mask")
        super().__init__(image_shape, image_shape, dtype)
        self.mask = weights

    def _apply(self, x: Tensor) -> Tensor:
        return constant_like(self.mask, x) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return constant_like(self.mask, y) * y

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return float(self.mask.detach().abs().max())

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor:
        power = constant_like(self.mask, damping).square()
        return b / ((power if weight is None else weight * power) + damping)


class Mosaic(LinearOperator):
    """One colour at each pixel, as behind a colour-filter array: image `(C, H, W)` → data `(1, H, W)`.

    Args:
        pattern: the smallest repeating tile: "RGGB", "BGGR", "GRBG" or "GBRG"; "quad-RGGB" and so on; "X-Trans"; or any
            tile of colour indices such as `[[0, 1], [1, 2]]`.
        image_shape: `(3, H, W)`, or `(C, H, W)` for a tile of indices below C.
        dtype: precision of the images.
        offset: row and column of the tile that lie at the image's corner, as after a crop.

    >>> A = Mosaic("RGGB", (3, 2, 2))
    >>> A(torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1).expand(3, 2, 2))
    tensor([[[1., 2.],
             [2., 3.]]])
    """

    def __init__(
        self,
        pattern: str | Sequence[Sequence[int]],
        image_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        offset: Sequence[int] = (0, 0),
    ):
        if len(image_shape) != 3:
            raise InputError(f"Mosaic expects an image_shape (C, H, W), got {tuple(image_shape)}")
        channels, height, width = image_shape
        super().__init__(image_shape, (1, height, width), dtype)
        tile = colour_filter_tile(pattern, offset)
        if tile.max() >= channels:
            raise InputError(
                f"this pattern has {int(tile.max()) + 1} colours, got image_shape {tuple(image_shape)}; use (3, H, W)"
            )
        repeats = -(-height // tile.shape[0]), -(-width // tile.shape[1])
        colours = tile.repeat(repeats)[:height, :width]
        self.mask = (colours == torch.arange(channels)[:, None, None]).to(self.real_dtype)

    def _apply(self, x: Tensor) -> Tensor:
        return (constant_like(self.mask, x) * x).sum(-3, keepdim=True)

    def _adjoint(self, y: Tensor) -> Tensor:
        return constant_like(self.mask, y) * y

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return 1.0

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor:
        # the colours' masks do not overlap, so that the normal matrix is diagonal
        mask = constant_like(self.mask, damping)
        return b / ((mask if weight is None else weight * mask) + damping)


def mask_weights(
    mask: Tensor, image_shape: Sequence[int], dtype: torch.dtype | None, name: str
) -> tuple[Tensor, torch.dtype]:
    """The mask as finite real weights that broadcast to the image, and the operator's type."""
    if not isinstance(mask, Tensor):
        raise InputError(
            f"{name} expects a mask as a torch tensor, got {type(mask).__name__}; convert it with torch.as_tensor"
        )
    if dtype is None:
        dtype = mask.dtype if mask.is_floating_point() else torch.float32
    real = torch.empty((), dtype=dtype).real.dtype
    weights = mask.to(real) if not (mask.is_floating_point() or mask.is_complex()) else mask
    require_finite(weights, f"{name} expects a mask")
    if weights.is_complex():
        raise InputError(f"{name} expects a boolean or real mask, got {mask.dtype}; pass its real part")
    try:
        fits = torch.broadcast_shapes(weights.shape, tuple(image_shape)) == torch.Size(image_shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise InputError(
            f"{name} expects a mask that broadcasts to the image {tuple(image_shape)}, got {tuple(mask.shape)}; crop it"
        )
    return weights.to(real, copy=True), dtype
