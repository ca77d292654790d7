"""Cartesian Fourier sampling, as in magnetic resonance imaging: the centred, orthonormal transform, and a mask.

    y = m · fftshift(fftn(ifftshift(x), norm="ortho"))        over the spatial axes

so that the image's pixel n // 2 is the origin of space and the data's pixel n // 2 the zero frequency. No shift is ever
carried out: with c = n // 2 along each axis,

    exp(−2πi (k − c)(n − c) / N) = exp(2πi (k c − c²) / N) · exp(−2πi k n / N) · exp(2πi n c / N),

which is one plain transform between two products with phases (signs, for even sizes), the second merged with the mask.
In the Gram operator the phases cancel, and it needs neither; nor does it need a transform along an axis on which mask
and weight do not depend, such as the readout of a scan that leaves out whole lines: there Fᴴ F = I.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .base import LinearOperator, constant_like
from .sampling import mask_weights

__all__ = ["Fourier"]


class Fourier(LinearOperator):
    """Centred orthonormal Fourier transform of complex images over their spatial axes, optionally masked.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)`; data have the same shape.
        mask: booleans or real weights that broadcast to the data, zero frequency at `n // 2`; None measures everything.
        dtype: torch.complex64 or torch.complex128.

    >>> A = Fourier((1, 4, 4))
    >>> A(torch.ones(1, 4, 4, dtype=torch.complex64)).abs().argmax().item()      # pixel (2, 2)
    10
    """

    def __init__(self, image_shape: Sequence[int], mask: Tensor | None = None, dtype: torch.dtype = torch.complex64):
        if not dtype.is_complex:
            raise InputError(f"Fourier works on complex images, got dtype {dtype}; use torch.complex64 or complex128")
        if len(image_shape) not in (3, 4):
            raise InputError(f"Fourier expects an image_shape (C, H, W) or (C, D, H, W), got {tuple(image_shape)}")
        super().__init__(image_shape, image_shape, dtype)
        grid = self.image_shape[1:]
        self._axes = tuple(range(-len(grid), 0))
        mask = (
            torch.ones(1, dtype=self.real_dtype)
            if mask is None
            else mask_weights(mask, image_shape, dtype, "Fourier")[0]
        )
        self.mask = mask
        self._before = _phases(grid, shift=False).to(dtype)
        self._after = (_phases(grid, shift=True) * mask).to(dtype)
        if all(n % 2 == 0 for n in grid):
            self._before, self._after = self._before.real.clone(), self._after.real.clone()
        #: |m|², zero frequency first, of size one along the axes on which it does not depend
        power = _compact(mask.square().reshape((1,) * (1 + len(grid) - mask.ndim) + mask.shape))
        self._power = torch.fft.ifftshift(power, self._axes)
        self.channelwise = len(self._power) == 1

    def _apply(self, x: Tensor) -> Tensor:
        transform = torch.fft.fftn(constant_like(self._before, x) * x, dim=self._axes, norm="ortho")
        return transform.mul_(constant_like(self._after, x))

    def _adjoint(self, y: Tensor) -> Tensor:
        transform = torch.fft.ifftn(constant_like(self._after, y).conj() * y, dim=self._axes, norm="ortho")
        return transform.mul_(constant_like(self._before, y).conj())

    def _gram(self, x: Tensor, weight: Tensor | float | None) -> Tensor:
        return self._filter(x, self._eigenvalues(x, weight), torch.mul)

    def norm(self, iterations: int = 200, tolerance: float = 1e-6, seed: int = 0) -> float:
        return float(self.mask.abs().max())

    def _solve(self, b: Tensor, damping: Tensor, weight: Tensor | None) -> Tensor | None:
        if weight is not None and weight.ndim > len(self.image_shape):
            return None
        return self._filter(b, self._eigenvalues(b, weight) + damping, torch.div)

    def _filter(self, x: Tensor, eigenvalues: Tensor, operation: Callable[..., Tensor]) -> Tensor:
        """Multiply or divide by the eigenvalues on the Fourier modes of the axes on which they depend."""
        axes = tuple(axis for axis in self._axes if eigenvalues.shape[axis] > 1)
        if not axes:
            return operation(x, eigenvalues)
        modes = torch.fft.fftn(x, dim=axes)
        tracked = torch.is_grad_enabled() and (modes.requires_grad or eigenvalues.requires_grad)
        modes = operation(modes, eigenvalues) if tracked else operation(modes, eigenvalues, out=modes)
        return torch.fft.ifftn(modes, dim=axes)

    def _eigenvalues(self, x: Tensor, weight: Tensor | float | None) -> Tensor:
        """Eigenvalues of the Gram operator, zero frequency first, of size one where they do not depend on an axis."""
        power = constant_like(self._power, x)
        if weight is None:
            return power
        if not isinstance(weight, Tensor) or weight.numel() == 1:
            return power * (weight.reshape(()) if isinstance(weight, Tensor) else weight)
        for axis in range(weight.ndim):
            if weight.stride(axis) == 0:  # expanded
                weight = weight.narrow(axis, 0, 1)
        axes = tuple(axis for axis in self._axes if -axis <= weight.ndim)
        return torch.fft.ifftshift(weight, axes) * power


def _compact(power: Tensor) -> Tensor:
    """`power` without the copies along axes on which it does not depend."""
    for axis in range(power.ndim):
        first = power.narrow(axis, 0, 1)
        if bool((power == first).all()):
            power = first
    return power.clone()


def _phases(grid: Sequence[int], shift: bool) -> Tensor:
    """exp(2πi n c / N), times exp(−2πi c² / N) if `shift`; the turns are exact integers modulo N."""
    total = torch.ones((), dtype=torch.complex128)
    for i, n in enumerate(grid):
        centre = n // 2
        turns = (torch.arange(n) * centre - (centre**2 if shift else 0)) % n
        angle = 2 * torch.pi * turns.double() / n
        total = total * torch.polar(torch.ones_like(angle), angle).reshape(-1, *(1,) * (len(grid) - 1 - i))
    return total
