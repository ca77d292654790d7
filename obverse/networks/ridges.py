"""Value, gradient and Hessian of a sum of ridges, and the denoiser that it defines.

    R(x) = Σ_c Σ_i α_c⁻² ψ(α_c (W_c x)_i)
    ∇R(x) = Wᵀ α⁻¹ ψ'(α W x),      ∇²R(x) v = Wᵀ ψ''(α W x) W v

ψ' is piecewise linear, given by its knots and its slopes between them; ψ'' takes the slope on the side of zero at a
knot. The images are mirrored at their borders, edge pixel included, so that a constant image costs nothing.

The bound of ‖W‖² is the largest of three numbers. Inside the image it is the maximum of the Fourier symbol
Σ_c |ŵ_c|², found on a grid and raised to hold between its points: a trigonometric polynomial of degree d stays below
its maximum on N points divided by cos(πd/N). Along an edge it is the largest singular value for waves along the edge,
on a strip wide enough for them to die out; in the corners that of W itself, on an image of a few filters' width. The
last two are computed, and raised by a percent, not proved.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..solvers.accelerated import accelerated_gradient
from ..solvers.result import Result

__all__ = ["Ridges", "norm_bound", "symbol_bound"]

_FINE_GRID = 256
_STRIP, _WAVES = 48, 33  # width of the strip in pixels, and frequencies along it
_MARGIN = 1.01


@dataclass(frozen=True, eq=False)
class Ridges:
    """R for a batch of images `(B, 1, H, W)`, each with scales of its own.

    Args:
        filters: W, `(C, 1, k, k)`.
        knots: τ, `(J,)`, positive and rising.
        slopes: of ψ' up to each knot, `(J,)`; beyond the last knot ψ' is constant.
        scale: α, `(B or 1, C, 1, 1)`, positive.
        norm_squared: bound of ‖W‖², if known; see `norm_bound`.
    """

    filters: Tensor
    knots: Tensor
    slopes: Tensor
    scale: Tensor
    norm_squared: float | None = None

    def to(self, like: Tensor) -> "Ridges":
        """The same in the precision and on the device of a tensor."""
        return Ridges(
            self.filters.to(like), self.knots.to(like), self.slopes.to(like), self.scale.to(like), self.norm_squared
        )

    def value(self, x: Tensor) -> Tensor:
        """R of each image, `(B,)`."""
        t = (self.scale * self.responses(x)).abs()
        total = torch.zeros_like(t)
        for knot, part in zip(self.knots.tolist(), self._parts(), strict=True):
            inner = t.clamp(max=knot)
            total = total + part * inner * (t - 0.5 * inner)
        return (total / self.scale.square()).sum((1, 2, 3))

    def gradient(self, x: Tensor) -> Tensor:
        """∇R, of x's shape."""
        t = self.scale * self.responses(x)
        return self.backprojected(self._slope(t) / self.scale, x.shape)

    def curvature(self, x: Tensor) -> Tensor:
        """ψ''(α W x), `(B, C, H, W)`."""
        where = torch.bucketize((self.scale * self.responses(x)).abs(), self.knots)
        return F.pad(self.slopes, (0, 1))[where]

    def product(self, curvature: Tensor, v: Tensor) -> Tensor:
        """∇²R(x) v with ψ'' from `curvature(x)`."""
        return self.backprojected(curvature * self.responses(v), v.shape)

    def denoise(self, y: Tensor, accuracy: Tensor | float, weight: float = 1.0, max_iterations: int = 5000) -> Result:
        """argmin_x ½‖x − y‖² + weight · R(x), certified to a root mean square error `accuracy`, `(B,)` or a number.

        The status says whether it was reached.

        Raises:
            InputError: the weight is so large that the problem is no longer convex.
        """
        low, high = self.bounds
        if not 1 + weight * low > 0:
            raise InputError(f"expected a weight below {-1 / low:.3g}, where the problem is convex, got {weight:.3g}")
        return accelerated_gradient(
            lambda x: x - y + weight * self.gradient(x), y, lipschitz=1 + weight * high, convexity=1 + weight * low,
            accuracy=accuracy * math.sqrt(y[0].numel()), batch_dims=1, max_iterations=max_iterations,
        )  # fmt: skip

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """Least and largest curvature: −ρ‖W‖² and L‖W‖²."""
        norm = norm_bound(self.filters) if self.norm_squared is None else self.norm_squared
        slopes = self.slopes.detach()
        return min(0.0, float(slopes.min())) * norm, float(slopes.max()) * norm

    def responses(self, x: Tensor) -> Tensor:
        """W x, `(B, C, H, W)`."""
        rows, columns = self._mirrors(x.shape)
        return F.conv2d(x[..., rows, :][..., columns], self.filters)

    def backprojected(self, z: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Wᵀ z, images of the given shape."""
        side = self.filters.shape[-1]
        rows, columns = self._mirrors(shape)
        # on CPUs a product and a fold take a tenth of the time of torch's transposed convolution to one channel
        parts = self.filters.reshape(len(self.filters), -1).T @ z.flatten(2)
        full = F.fold(parts, (len(rows), len(columns)), side)
        tall = full.new_zeros(*full.shape[:2], shape[-2], len(columns)).index_add(2, rows, full)
        return tall.new_zeros(*full.shape[:2], *shape[-2:]).index_add(3, columns, tall)

    def _slope(self, t: Tensor) -> Tensor:
        """ψ'(t)."""
        total = torch.zeros_like(t)
        if torch.is_grad_enabled():
            for knot, part in zip(self.knots.tolist(), self._parts(), strict=True):
                total = total + part * t.clamp(-knot, knot)
            return total
        for knot, part in zip(self.knots.tolist(), self._parts().tolist(), strict=True):
            total.add_(t.clamp(-knot, knot), alpha=part)  # in place: most of the time of a solve is spent here
        return total

    def _parts(self) -> Tensor:
        """a_j: how much the slope falls at each knot."""
        return self.slopes - F.pad(self.slopes[1:], (0, 1))

    def _mirrors(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        rows, columns = (_mirror(n, self.filters.shape[-1] // 2, self.filters.device) for n in shape[-2:])
        return rows, columns


def norm_bound(filters: Tensor) -> float:
    """An upper bound of ‖W‖² for images of any size."""
    bank = filters.detach().double()
    side = bank.shape[-1]
    interior = float(symbol_bound(bank, _FINE_GRID)) / math.cos(math.pi * (side - 1) / _FINE_GRID) ** 2
    wide, unit = 3 * side, bank.new_ones(1)
    basis = torch.eye(wide * wide, dtype=torch.float64, device=bank.device).reshape(-1, 1, wide, wide)
    small = Ridges(bank, unit, unit, unit)
    gram = small.backprojected(small.responses(basis), tuple(basis.shape)).reshape(wide * wide, -1)
    corner = float(torch.linalg.eigvalsh(gram)[-1])
    edges = max(_strip_norm(bank), _strip_norm(bank.mT))
    return max(interior, _MARGIN * edges, _MARGIN * corner)


def _strip_norm(bank: Tensor) -> float:
    """‖W‖² for waves along the columns of a strip, mirrored at both ends of its rows."""
    side = bank.shape[-1]
    strip = torch.eye(_STRIP, dtype=bank.dtype, device=bank.device)[_mirror(_STRIP, side // 2, bank.device)]
    windows = strip.unfold(0, side, 1).to(torch.complex128)  # (position, pixel, tap)
    frequencies = torch.linspace(0, math.pi, _WAVES, dtype=bank.dtype, device=bank.device)
    largest = 0.0
    for frequency in frequencies:
        wave = torch.exp(1j * frequency * torch.arange(side, dtype=bank.dtype, device=bank.device))
        taps = bank[:, 0].to(wave) @ wave
        responses = torch.einsum("ct,ipt->cip", taps, windows).reshape(-1, _STRIP)
        largest = max(largest, float(torch.linalg.eigvalsh(responses.mH @ responses)[-1]))
    return largest


def symbol_bound(filters: Tensor, grid: int) -> Tensor:
    """The largest Σ_c |ŵ_c(f)|² on a grid of frequencies, a scalar that depends differentiably on the filters."""
    side = filters.shape[-1]
    bank = filters.transpose(0, 1)
    correlation = F.conv2d(bank, bank, padding=side - 1)[0, 0]
    return torch.fft.rfft2(F.pad(correlation, (0, grid - 2 * side + 1) * 2)).abs().max()


def _mirror(n: int, margin: int, device: torch.device) -> Tensor:
    """Indices of a line of n pixels continued by reflection, edge pixel repeated."""
    index = torch.arange(-margin, n + margin, device=device) % (2 * n)
    return torch.minimum(index, 2 * n - 1 - index)
