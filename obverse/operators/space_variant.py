"""Blur whose kernel changes over the field of view, as a sum of products and convolutions.

    y = Σ_k h_k ∗ (w_k x),      a point at r is seen as Σ_k w_k(r) h_k

with K kernels h_k and K weight maps w_k: a convex blend of kernels where the maps are at least zero and add up to one,
any low-rank family of kernels otherwise. Kernels, their centre and the boundaries are those of `Convolution`; the
boundary continues the products w_k x. All products are transformed in one batched FFT, filtered, added up in Fourier
space and transformed back once. The adjoint Σ_k w_k (h_kᵀ ∗ y) is exact.

`from_psfs` finds kernels and maps from point-spread functions measured on a grid of places. Between the places the PSF
is interpolated linearly, p(r) = Σ_i b_i(r) p_i with a hat function b_i for each: K is the number of places, and the
maps add up to one. With a `rank`, the matrix of PSFs P = U S Vᵀ is cut to its leading K terms, h_k = s_k v_k and
w_k(r) = Σ_i b_i(r) u_ik, which is the closest of that rank at the places (efficient filter flow; Flicker and Rigaut).

References: Nagy, O'Leary, "Restoring images degraded by spatially variant blur", SIAM J. Sci. Comput. 1998. Flicker,
Rigaut, "Anisoplanatic deconvolution of adaptive optics images", JOSA A 2005. Denis, Thiébaut, Soulez, Becker,
Mourya, "Fast approximations of shift-variant blur", IJCV 2015.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import as_numbers, require_whole
from .base import LinearOperator, constant_like, require_finite
from .boundary import extend, fold, good_size, is_smooth, require_boundary
from .filters import by_parts
from .spectral import transfer_function

__all__ = ["SpaceVariantBlur", "interpolate_psfs"]

_BOUNDARIES = ("circular", "reflect", "zero", "valid")


class SpaceVariantBlur(LinearOperator):
    """Product–convolution blur: `y = Σ_k h_k ∗ (w_k x)`.

    Args:
        kernels: `(K, kh, kw)`, or `(K, C, kh, kw)` with one for each channel; `(K, kd, kh, kw)`, `(K, C, kd, kh, kw)`
            in 3-D.
        weights: `(K, H, W)` or `(K, C, H, W)`; `(K, D, H, W)` or `(K, C, D, H, W)` in 3-D.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        boundary: "circular", "reflect", "zero" or "valid" (data smaller by the kernel's size less one).

    Raises:
        InputError: kernels or weights are not finite or do not fit the image or each other.

    Example:
        >>> import torch
        >>> kernels = torch.tensor([[[0.0, 1.0, 0.0]], [[0.5, 0.0, 0.5]]])
        >>> weights = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 1.0]]])
        >>> A = SpaceVariantBlur(kernels, weights, (1, 1, 4), boundary="zero")
        >>> A(torch.tensor([[[4.0, 0.0, 2.0, 0.0]]])).round(decimals=3)
        tensor([[[4., 1., 0., 1.]]])
    """

    def __init__(self, kernels: Tensor, weights: Tensor, image_shape: Sequence[int], boundary: str = "reflect"):
        require_boundary(boundary, _BOUNDARIES, "SpaceVariantBlur")
        if len(image_shape) not in (3, 4):
            raise InputError(
                f"SpaceVariantBlur expects an image_shape (C, H, W) or (C, D, H, W), got {tuple(image_shape)}"
            )
        kernels = _by_channel(kernels, image_shape, "kernels")
        weights = _by_channel(weights, image_shape, "weights").to(kernels.dtype)
        image, size = tuple(image_shape[1:]), tuple(kernels.shape[2:])
        _require_fit(kernels, weights, image, boundary)
        data = tuple(n - k + 1 for n, k in zip(image, size)) if boundary == "valid" else image
        super().__init__(image_shape, (image_shape[0], *data), kernels.dtype)
        self.kernels, self.weights, self.boundary = kernels, weights, boundary
        centre = tuple(k // 2 for k in size)
        if boundary == "circular" and all(map(is_smooth, image)):
            self._margins, self._grid, origin = (), image, centre
        elif boundary == "zero":
            self._margins, origin = (), centre
            self._grid = tuple(good_size(n + k // 2) for n, k in zip(image, size))
        else:
            around = tuple((k - 1 - c, c) for k, c in zip(size, centre))
            self._margins = () if boundary == "valid" else around
            self._grid = tuple(good_size(n + k - 1) for n, k in zip(data, size))
            origin = tuple(k - 1 for k in size)
        #: of each kernel, `(K, C or 1, *grid)`, in `rfftn` layout
        self._otf = transfer_function(kernels, self._grid, origin)

    @classmethod
    def from_psfs(
        cls,
        psfs: Tensor,
        positions: Sequence[Sequence[float] | Tensor],
        image_shape: Sequence[int],
        rank: int | None = None,
        boundary: str = "reflect",
    ) -> "SpaceVariantBlur":
        """The blur whose PSF is interpolated between those given; see `interpolate_psfs` for the arguments.

        Example:
            >>> import torch
            >>> sharp, blurred = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.25, 0.5, 0.25]])
            >>> psfs = torch.stack([sharp, blurred])[None]              # one row of two places
            >>> A = SpaceVariantBlur.from_psfs(psfs, ([0], [0, 8]), (1, 1, 9), boundary="zero")
            >>> point = torch.zeros(1, 1, 9); point[..., 4] = 1
            >>> A(point)[0, 0, 3:6].round(decimals=3)
            tensor([0.1250, 0.7500, 0.1250])
        """
        kernels, weights = interpolate_psfs(psfs, positions, image_shape, rank)
        return cls(kernels, weights, image_shape, boundary)

    def _apply(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return by_parts(self._apply, x)
        products = constant_like(self.weights, x) * x.unsqueeze(self._terms)
        if self._margins:
            products = extend(products, self._margins, self.boundary)
        wide = torch.fft.rfftn(products, s=self._grid, dim=self._axes).mul_(constant_like(self._otf, x))
        y = torch.fft.irfftn(wide.sum(self._terms), s=self._grid, dim=self._axes)
        return y[(..., *(slice(n) for n in self.data_shape[1:]))].clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return by_parts(self._adjoint, y)
        wide = torch.fft.rfftn(y, s=self._grid, dim=self._axes).unsqueeze(self._terms)
        wide = wide * constant_like(self._otf, y).conj()
        spread = torch.fft.irfftn(wide, s=self._grid, dim=self._axes)
        margins = self._margins or ((0, 0),) * len(self._grid)
        sizes = (n + before + after for n, (before, after) in zip(self.image_shape[1:], margins))
        spread = spread[(..., *(slice(n) for n in sizes))]
        if self._margins:
            spread = fold(spread, self._margins, self.boundary)
        return (constant_like(self.weights, y) * spread).sum(self._terms)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self._grid), 0))

    @property
    def _terms(self) -> int:
        """The axis of the K terms, in front of the channels."""
        return -len(self._grid) - 2


def interpolate_psfs(
    psfs: Tensor, positions: Sequence[Sequence[float] | Tensor], image_shape: Sequence[int], rank: int | None = None
) -> tuple[Tensor, Tensor]:
    """Kernels and weight maps of a blur from local PSFs on a grid of places.

    Args:
        psfs: `(rows, columns, kh, kw)`, or `(rows, columns, C, kh, kw)` with one for each channel; in 3-D
            `(slices, rows, columns, …)` likewise.
        positions: for each spatial axis the places' coordinates in pixels, increasing; beyond the outermost places
            the PSF stays what it is there.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        rank: K, at most the number of places; None keeps every place's PSF as a kernel.

    Returns:
        kernels `(K, [C,] *size)` and weights `(K, *grid)`. Without a rank the weights are at least zero and add up to
        one. With one, kernels and weights may be negative, and the local PSFs' sums are only nearly kept.

    Raises:
        InputError: PSFs, positions and image do not fit each other.
    """
    axes = len(image_shape) - 1
    require_finite(psfs, "interpolate_psfs expects PSFs")
    places = [as_numbers(p, "interpolate_psfs expects positions", torch.float64) for p in positions]
    counts = tuple(len(p) for p in places)
    if axes not in (2, 3) or len(places) != axes or psfs.ndim not in (2 * axes, 2 * axes + 1):
        raise InputError(
            f"interpolate_psfs expects positions along each of 2 or 3 axes, and PSFs (places…, [C,] size…), got "
            f"{len(places)} axes and PSFs {tuple(psfs.shape)} for images {tuple(image_shape)}; reshape them"
        )
    if tuple(psfs.shape[:axes]) != counts or not all(bool((p.diff() > 0).all()) for p in places):
        raise InputError(
            f"interpolate_psfs expects a PSF for each place and increasing positions, got PSFs {tuple(psfs.shape)} "
            f"for {counts} places; sort them"
        )
    if rank is not None and not 1 <= require_whole(rank, "interpolate_psfs expects a rank") <= prod(counts):
        raise InputError(f"interpolate_psfs expects a rank from 1 to {prod(counts)} places, got {rank}; choose one")
    kernels = psfs.detach().flatten(0, axes - 1)
    maps = torch.eye(len(kernels), dtype=torch.float64)
    if rank is not None:
        left, values, right = torch.linalg.svd(kernels.double().flatten(1), full_matrices=False)
        kept = min(rank, len(values))
        maps = left[:, :kept].cpu()
        kernels = (values[:kept, None] * right[:kept]).reshape(kept, *kernels.shape[1:]).to(psfs.dtype)
    maps = maps.T.reshape(-1, *counts)
    for place, n in zip(places, image_shape[1:]):
        maps = maps.movedim(1, -1) @ _hats(place, n)  # each axis of places in turn becomes the last one of pixels
    return kernels.clone(), maps.to(dtype=psfs.dtype, device=psfs.device)


def _hats(places: Tensor, count: int) -> Tensor:
    """The hat function of each place at the pixels 0 … count − 1, `(places, count)`; they add up to one."""
    hats = torch.zeros(len(places), count, dtype=torch.float64)
    pixels = torch.arange(count)
    at = pixels.double().clamp(float(places[0]), float(places[-1]))
    right = torch.searchsorted(places, at, right=True).clamp(1, max(len(places) - 1, 1))
    left = right - 1
    if len(places) == 1:
        return torch.ones_like(hats)
    part = (at - places[left]) / (places[right] - places[left])
    hats[left, pixels] = 1 - part
    hats[right, pixels] += part
    return hats


def _by_channel(values: Tensor, image_shape: Sequence[int], what: str) -> Tensor:
    """`(K, C or 1, *axes)`, checked and detached."""
    require_finite(values, f"SpaceVariantBlur expects {what}")
    axes = len(image_shape) - 1
    full = values[:, None] if values.ndim == axes + 1 else values
    if values.is_complex() or full.ndim != axes + 2 or full.shape[1] not in (1, image_shape[0]) or not full.numel():
        raise InputError(
            f"SpaceVariantBlur expects real {what} with {axes + 1} axes, or {axes + 2} of which the second is "
            f"{image_shape[0]} (one for each channel), got {values.dtype} of shape {tuple(values.shape)}; reshape them"
        )
    return full.detach().clone()


def _require_fit(kernels: Tensor, weights: Tensor, image: tuple[int, ...], boundary: str) -> None:
    size = tuple(kernels.shape[2:])
    if len(kernels) != len(weights) or tuple(weights.shape[2:]) != image:
        raise InputError(
            f"SpaceVariantBlur expects one weight map {image} for each kernel, got {len(kernels)} kernels and maps "
            f"{tuple(weights.shape)}; see interpolate_psfs"
        )
    for k, n in zip(size, image):
        if boundary == "valid" and k > n:
            raise InputError(f"a valid blur expects kernels no larger than the image, got {size} on {image}; crop them")
        if boundary == "reflect" and k // 2 > n - 1:
            raise InputError(
                f"a reflected image of {n} pixels reaches {n - 1} pixels beyond its edge, got kernels of {k}; crop them"
            )
