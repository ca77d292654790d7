"""Frames of a hand-held burst: each coarse pixel samples the fine image where the camera's motion put it, in one pass.

    y_k[i] = Σ_j h[j] x(φ_k(s·i + (n − 1)/2 − j)),    s the factor, n the size of the kernel h, φ_k frame k's motion,

with positions from the centres of the frame and of the image.

This is D B W_k: warp, blur by the sensor's pixel, keep one sample of each s × s, in the frame's own coordinates, but
no image of the fine size is ever formed: a coarse pixel is a weighted sum of interpolated values, one for each of the
kernel's taps. Behind a colour-filter array each pixel takes one colour, so nothing is computed to be thrown away.

Positions are continuous, so the kernel's centre sits at the coarse pixel's centre for every size of kernel. The cheaper
model for small rotations, one sample of an image that was blurred first, is a kernel of one tap after a `Convolution`.

References: Wronski et al., "Handheld multi-frame super-resolution", ACM TOG 2019. Lecouat, Ponce, Mairal, "Lucas–Kanade
reloaded: end-to-end super-resolution from raw image bursts", ICCV 2021.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from ..errors import InputError
from .arguments import require_whole
from .base import LinearOperator
from .colour_filters import colour_filter_tile
from .filters import as_kernel
from .motion import Motion, centre_of, pixel_grid
from .resampling import Resampling
from .warp import require_sampling

__all__ = ["BurstSampling"]


class BurstSampling(LinearOperator):
    """K coarse frames of one fine image: `(C, H, W)` → `(K, C, H/s, W/s)`, or `(K, 1, H/s, W/s)` behind a mosaic.

    Where a motion's matrix requires a gradient, results carry one to it.

    Args:
        image_shape: `(C, H, W)`, with H and W divisible by the factor.
        motions: one `Motion` for each frame, from the frame's positions to the image's, in coarse pixels.
        factor: s, how many fine pixels a coarse one is wide.
        kernel: "box", the mean over the pixel's s × s; or a blur `(kh, kw)` in fine pixels, such as box ∗ lens.
        mosaic: a colour-filter array as for `Mosaic`, with its corner at each frame's; None for all colours.
        interpolation: "bilinear", or "bicubic" (Keys, a = −1/2).
        boundary: "zero", "circular" or "reflect".
        dtype: precision of the images; a kernel's own by default, else float32.

    Raises:
        InputError: no motion, sizes that the factor does not divide, or a kernel or mosaic that does not fit.

    Example:
        >>> A = BurstSampling((1, 2, 4), [Motion.identity(), Motion.translation([0.0, 0.5])], 2)
        >>> A(torch.arange(8.0).reshape(1, 2, 4))
        tensor([[[[2.5000, 4.5000]]],
        <BLANKLINE>
        <BLANKLINE>
                [[[3.5000, 2.5000]]]])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        motions: Sequence[Motion],
        factor: int,
        *,
        kernel: Tensor | str = "box",
        mosaic: str | Sequence[Sequence[int]] | None = None,
        interpolation: str = "bilinear",
        boundary: str = "zero",
        dtype: torch.dtype | None = None,
    ):
        require_whole(factor, "BurstSampling expects a factor")
        if len(image_shape) != 3 or factor < 1 or any(n % factor for n in image_shape[1:]):
            raise InputError(
                f"BurstSampling expects an image_shape (C, H, W) with sizes divisible by the factor, got "
                f"{tuple(image_shape)} and {factor}; crop the image"
            )
        motions = tuple(motions) if isinstance(motions, Sequence) else (motions,)
        if not motions or not all(isinstance(motion, Motion) for motion in motions):
            raise InputError(f"BurstSampling expects a Motion for each frame, got {motions!r}; see Motion")
        require_sampling(interpolation, boundary, "BurstSampling")
        if isinstance(kernel, str):
            if kernel != "box":
                raise InputError(f"BurstSampling expects kernel 'box' or a tensor (kh, kw), got {kernel!r}")
            kernel = torch.full((factor, factor), 1 / factor**2, dtype=torch.float64)
            dtype = dtype or torch.float32
        taps = as_kernel(kernel, (1, *image_shape[1:]), "BurstSampling")[0]
        tile = None if mosaic is None else colour_filter_tile(mosaic)
        if tile is not None and tile.max() >= image_shape[0]:
            raise InputError(
                f"this mosaic has {int(tile.max()) + 1} colours, got image_shape {tuple(image_shape)}; use (3, H, W)"
            )
        size = (image_shape[1] // factor, image_shape[2] // factor)
        channels = image_shape[0] if tile is None else 1
        super().__init__(image_shape, (len(motions), channels, *size), dtype or taps.dtype)
        self.motions = motions
        self.factor = factor
        self.kernel = taps.to(self.real_dtype)
        self.mosaic = None if tile is None else tuple(map(tuple, tile.tolist()))
        self._period = (1, 1) if tile is None else (tile.shape[0], tile.shape[1])
        rows, columns = (range(min(p, n)) for p, n in zip(self._period, size))
        self._cells = tuple(product(rows, columns))
        weights = taps.double().flatten().cpu()
        self._resamplings = tuple(
            tuple(
                Resampling(
                    (self.image_shape[1], self.image_shape[2]),
                    self._cell_size(cell),
                    interpolation,
                    boundary,
                    self._matrices(motion, cell),
                    weights,
                )
                for cell in self._cells
            )
            for motion in motions
        )

    def _apply(self, x: Tensor) -> Tensor:
        return torch.stack([self._frame(x, k) for k in range(len(self.motions))], -4)

    def _frame(self, x: Tensor, k: int) -> Tensor:
        if self.mosaic is None:
            return self._sampled(x, k, 0)
        frame = x.new_zeros(*x.shape[:-3], *self.data_shape[1:])
        for n, cell in enumerate(self._cells):
            colour = self.mosaic[cell[0]][cell[1]]
            frame[self._where(cell)] = self._sampled(x.narrow(-3, colour, 1), k, n)
        return frame

    def _adjoint(self, y: Tensor) -> Tensor:
        frames = y.unbind(-4)
        if self.mosaic is None:
            return torch.stack([self._returned(frame, k, 0) for k, frame in enumerate(frames)]).sum(0)
        channels = [y.new_zeros(*y.shape[:-4], 1, *self.image_shape[1:]) for _ in range(self.image_shape[0])]
        for (k, frame), (n, cell) in product(enumerate(frames), enumerate(self._cells)):
            colour = self.mosaic[cell[0]][cell[1]]
            channels[colour] = channels[colour] + self._returned(frame[self._where(cell)], k, n)
        return torch.cat(channels, -3)

    def _sampled(self, x: Tensor, k: int, n: int) -> Tensor:
        """The pixels of frame `k` that belong to the mosaic's cell `n`."""
        resampling = self._resamplings[k][n]
        if not self._follows(k):
            return resampling.gather(x)
        terms = zip(self._flows(k, n), self.kernel.to(x.real.dtype if x.is_complex() else x.dtype).flatten())
        return torch.stack([weight * resampling.gather(x, flow) for flow, weight in terms]).sum(0)

    def _returned(self, y: Tensor, k: int, n: int) -> Tensor:
        resampling = self._resamplings[k][n]
        if not self._follows(k):
            return resampling.scatter(y)
        terms = zip(self._flows(k, n), self.kernel.to(y.real.dtype if y.is_complex() else y.dtype).flatten())
        return torch.stack([weight * resampling.scatter(y, flow) for flow, weight in terms]).sum(0)

    def _follows(self, k: int) -> bool:
        return self.motions[k].matrix.requires_grad and torch.is_grad_enabled()

    def _flows(self, k: int, n: int):
        """For each tap, where the cell's pixels look less where they are: differentiable in the motion."""
        motion, cell = self.motions[k].magnified(self.factor), self._cells[n]
        grid = pixel_grid(self._cell_size(cell), motion.matrix)
        centre = grid.new_tensor(centre_of(self.image_shape[1:]))
        for place in self._places(cell).to(grid):
            points = torch.tensordot(place[:2, :2], grid, 1) + place[:2, 2, None, None]
            yield (motion(points.movedim(0, -1)) + centre).movedim(-1, 0) - grid

    def _matrices(self, motion: Motion, cell: tuple[int, int]) -> Tensor:
        """One matrix for each tap, from the cell's own pixels to the fine image's."""
        centre = torch.eye(3, dtype=torch.float64)
        centre[:2, 2] = torch.tensor(centre_of(self.image_shape[1:]), dtype=torch.float64)
        moved = centre @ motion.magnified(self.factor).matrix.detach().double().cpu()
        return (moved @ self._places(cell)).contiguous()

    def _places(self, cell: tuple[int, int]) -> Tensor:
        """For each tap, the matrix from the cell's pixels to fine pixels from the centre: `(T, 3, 3)`."""
        corner = [self.factor * (c - m) for c, m in zip(cell, centre_of(self.data_shape[-2:]))]
        places = []
        for j in product(*map(range, self.kernel.shape)):
            place = torch.eye(3, dtype=torch.float64)
            for axis in range(2):
                place[axis, axis] = self.factor * self._period[axis]
                place[axis, 2] = corner[axis] + (self.kernel.shape[axis] - 1) / 2 - j[axis]
            places.append(place)
        return torch.stack(places)

    def _cell_size(self, cell: tuple[int, int]) -> tuple[int, int]:
        height, width = (-(-(n - c) // p) for n, c, p in zip(self.data_shape[-2:], cell, self._period))
        return height, width

    def _where(self, cell: tuple[int, int]) -> tuple:
        return (..., *(slice(c, None, p) for c, p in zip(cell, self._period)))
