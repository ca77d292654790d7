"""A learned ridge regulariser: convex, or weakly convex to a stated degree.

    R_σ(x) = Σ_c Σ_i α_c(σ)⁻² ψ(α_c(σ) (W_c x)_i),      α_c(σ) = e^{s_c(σ)}/σ
    ψ'(t) = Σ_j a_j clip(t, −τ_j, τ_j),                  slopes of ψ' between knots: Σ_{i ≥ j} a_i ≥ −ρ
    D(y, σ) = argmin_x ½‖x − y‖² + R_σ(x)

W is a bank of zero-mean filters, the composition of a few small convolutions; images are mirrored at their borders.
It is divided by the largest amplitude of its Fourier symbol, so that −ρ I ≤ ∇²R_σ ≤ L I with L the largest slope of
ψ'. ρ = 0 gives a convex regulariser; with ρ < 1 the denoising problem is (1 − ρ)-strongly convex still, so that D has
one answer and ‖∇‖/(1 − ρ) certifies it. ψ' is odd, of one sign on each side, and constant beyond the last knot.

References: Goujon, Neumayer, Bohra, Ducotterd, Unser, "A neural-network-based convex regularizer for inverse problems",
IEEE TCI 2023. Goujon, Neumayer, Unser, "Learning weakly convex regularizers for convergent image-reconstruction
algorithms", SIAM J. Imaging Sciences 2024.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .ridges import Ridges, norm_bound, symbol_bound

__all__ = ["RidgeEnergy"]

_FIRST, _LAST = 0.03, 20.0  # knots of ψ', in units of the noise behind a filter at the start
_CURVATURE, _BEND = 10.0, 0.3  # of ψ at the start: its curvature at zero, and where it turns linear
_LEVELS = (3 / 255, 6 / 255, 12 / 255, 25 / 255, 50 / 255)  # knots of s_c, linear in log σ
_GRID = 64  # of the Fourier symbol


class RidgeEnergy(nn.Module):
    """R_σ, and D as its forward pass, for images of one channel with values from 0 to 1.

    Args:
        channels: of the composed convolutions, from 1 to the number of filters.
        kernel: side of each convolution, odd; the filters have side `(len(channels) − 1)·(kernel − 1) + 1`.
        knots: number J of the knots of ψ'.
        weak_convexity: ρ, 0 ≤ ρ < 1.
        accuracy: of the forward pass: certified root mean square error, relative to σ.

    Example:
        >>> net = RidgeEnergy((1, 2, 4), kernel=3)
        >>> net(torch.rand(2, 1, 9, 9), torch.tensor([0.1, 0.2])).shape
        torch.Size([2, 1, 9, 9])
    """

    places: Tensor

    def __init__(
        self,
        channels: Sequence[int] = (1, 4, 8, 32),
        kernel: int = 3,
        knots: int = 16,
        weak_convexity: float = 0.0,
        accuracy: float = 1e-2,
    ):
        super().__init__()
        if len(channels) < 2 or channels[0] != 1 or kernel % 2 == 0 or knots < 2:
            raise InputError(
                f"RidgeEnergy expects channels from 1 on, an odd kernel and 2 knots at least, got {tuple(channels)}, "
                f"{kernel} and {knots}"
            )
        if not (0 <= weak_convexity < 1 and accuracy > 0):
            raise InputError(
                f"RidgeEnergy expects 0 <= weak_convexity < 1 and a positive accuracy, got {weak_convexity}, {accuracy}"
            )
        self.weak_convexity, self.accuracy = float(weak_convexity), float(accuracy)
        self.layers = nn.ParameterList(
            nn.Parameter(torch.randn(new, old, kernel, kernel) / (kernel * math.sqrt(old)))
            for old, new in zip(channels, channels[1:], strict=False)
        )
        places = torch.logspace(math.log10(_FIRST), math.log10(_LAST), knots)
        self.register_buffer("places", places)
        slopes = _CURVATURE / (1 + (places / _BEND).square())
        self.slopes = nn.Parameter((slopes + self.weak_convexity).log())
        self._known: tuple[bytes, float] | None = None
        self.scales = nn.Parameter(torch.full((len(_LEVELS), channels[-1]), math.log(10.0)))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """argmin_u ½‖u − x‖² + R_σ(u) for `x` of shape `(B, 1, H, W)` and `sigma` `(B,)`.

        There is no gradient through it: train by implicit differentiation (`learning.bilevel`).
        """
        with torch.no_grad():
            return self.at(sigma).denoise(x, self.accuracy * sigma).x

    def at(self, sigma: Tensor) -> Ridges:
        """R_σ for noise levels `(B,)`, positive, as a function that depends differentiably on the parameters."""
        bank = self.filters()
        norm = None if bank.requires_grad else self._norm_squared(bank)
        return Ridges(bank, self.places.to(self.slopes), self.profile(), self._scale(sigma), norm)

    def filters(self) -> Tensor:
        """The composed bank `(filters, 1, k, k)`: zero mean, and at most 1 in its Fourier symbol."""
        first, *others = self.layers
        bank = first.transpose(0, 1)
        for layer in others:
            # full convolution of every filter so far with every one of the next layer
            bank = F.conv2d(bank, layer.flip(2, 3), padding=layer.shape[-1] - 1)
        bank = bank.transpose(0, 1)
        bank = bank - bank.mean((2, 3), keepdim=True)
        return bank / symbol_bound(bank, _GRID).sqrt()

    def profile(self) -> Tensor:
        """Slopes of ψ' up to each knot, at least −ρ, such that ψ' ≥ 0 for t > 0."""
        widths = self.places.diff(prepend=self.places.new_zeros(1)).to(self.slopes)
        values = ((self.slopes.exp() - self.weak_convexity) * widths).cumsum(0).relu()
        return values.diff(prepend=values.new_zeros(1)) / widths

    def _norm_squared(self, bank: Tensor) -> float:
        """`norm_bound`, found once for the same filters."""
        key = bank.cpu().numpy().tobytes()
        if self._known is None or self._known[0] != key:
            self._known = (key, norm_bound(bank))
        return self._known[1]

    def _scale(self, sigma: Tensor) -> Tensor:
        """α_c(σ), `(B, filters, 1, 1)`."""
        levels = torch.tensor(_LEVELS, dtype=sigma.dtype, device=sigma.device).log()
        place = sigma.log().clamp(float(levels[0]), float(levels[-1]))
        above = torch.bucketize(place, levels).clamp(1, len(levels) - 1)
        part = ((place - levels[above - 1]) / (levels[above] - levels[above - 1]))[:, None].to(self.scales)
        exponent = (1 - part) * self.scales[above - 1] + part * self.scales[above]
        return (exponent.exp() / sigma[:, None].to(self.scales))[..., None, None]
