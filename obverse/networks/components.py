"""A mean and its leading uncertainties, from a first image: what one pass can tell of a posterior.

    m = f(x, σ),      d₁ … d_K, r = g(x, m, σ),      v = c² (eʳ + φ)
    "components"      w_k ∝ d_k − Σ_{j<k} w_j w_jᵀ d_k,  ‖w_k‖ = 1,      F_k = w_k ‖d_k − Σ_{j<k} w_j w_jᵀ d_k‖
    "likelihood"      F_k = d_k

x is made of the measurement, σ its noise. As components, ‖F_k‖² is the variance along the unit vector w_k, and v that
of each pixel's remainder (1 − Σ w_k w_kᵀ)(image − m). As a likelihood, the covariance is F Fᵀ + diag v. c, the error
that the mean has on average, is the unit in which g answers; φ keeps v off zero. A direction is made orthogonal to the
earlier ones as they stand: its gradient does not move them. Nor does that of g's answer move m.

Reference: Nehme, Yair, Michaeli, "Uncertainty quantification via neural posterior principal components", NeurIPS 2023.
"""

from typing import NamedTuple

import torch
from torch import Tensor, cat, nn

from ..errors import InputError

__all__ = ["ComponentPredictor", "Prediction", "orthogonalised"]

_FLOOR = 1e-4  # φ
_LARGEST = 12.0  # |r|: beyond, a float32 variance and its inverse lose all digits


class Prediction(NamedTuple):
    """Mean `(B, C, H, W)`, factors `(B, K, C, H, W)` and variances of what they leave, `(B, C, H, W)`."""

    mean: Tensor
    factors: Tensor
    remainder: Tensor


class ComponentPredictor(nn.Module):
    """A network for the mean and one for what it does not know.

    Args:
        mean: f(x, σ), `(B, C, H, W)` and `(B,)` → `(B, C, H, W)`, such as `Direct` or a shipped denoiser's network.
        factors: g, `(B, 2C + 1, H, W)` → `(B, (K + 1) C, H, W)`.
        rank: K.
        form: "components" or "likelihood": how g's answer is read, and trained.
        scale: c, root mean square error of a pixel, in units of the image.
        given: whether the mean is finished, and not trained any further.
        deviation: standard deviation of the training images.
        centre: their middle grey.

    Example:
        >>> from obverse.networks import Direct, UNet
        >>> net = ComponentPredictor(Direct(UNet(2, 1, (4,), 1)), UNet(3, 4, (4,), 1), rank=3)
        >>> found = net(torch.rand(2, 1, 8, 8), torch.full((2,), 0.1))
        >>> found.mean.shape, found.factors.shape, found.remainder.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 3, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        mean: nn.Module,
        factors: nn.Module,
        rank: int = 5,
        form: str = "components",
        scale: float = 0.1,
        given: bool = False,
        deviation: float = 0.25,
        centre: float = 0.5,
    ):
        super().__init__()
        if form not in ("components", "likelihood"):
            raise InputError(f'ComponentPredictor expects a form "components" or "likelihood", got {form!r}')
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise InputError(f"ComponentPredictor expects a rank of at least 1, got {rank!r}; 5 is usual")
        if not (0 < scale < float("inf") and 0 < deviation < float("inf")):
            raise InputError(f"ComponentPredictor expects a positive scale and deviation, got {scale} and {deviation}")
        self.mean = mean.requires_grad_(False) if given else mean
        self.factors, self.rank, self.form, self.given = factors, rank, form, given
        self.scale, self.deviation, self.centre = float(scale), deviation, centre

    def forward(self, x: Tensor, sigma: Tensor) -> Prediction:
        """What is known of the image after a first image `x` `(B, C, H, W)` with noise `sigma` `(B,)`, positive."""
        mean = self.mean(x, sigma).to(x.dtype)
        seen = mean.detach()
        level = sigma.to(x.dtype).reshape(-1, 1, 1, 1)
        share = (level * (level.square() + self.deviation**2).rsqrt()).expand(len(x), 1, *x.shape[-2:])
        inputs = cat([(seen - self.centre) / self.deviation, (x - seen) / self.scale, share], 1)
        answer = self.factors(inputs).to(mean.dtype)
        expected = (self.rank + 1) * x.shape[1]
        if answer.shape != (len(x), expected, *x.shape[-2:]):
            raise InputError(
                f"ComponentPredictor of rank {self.rank} expects factors with {expected} outputs, got "
                f"{tuple(answer.shape)}; set outputs to (rank + 1) times the channels"
            )
        answer = answer.reshape(len(x), self.rank + 1, *x.shape[1:])
        directions, r = self.scale * answer[:, :-1], answer[:, -1].clamp(-_LARGEST, _LARGEST)
        factors = orthogonalised(directions) if self.form == "components" else directions
        return Prediction(mean, factors, self.scale**2 * (r.exp() + _FLOOR))


def orthogonalised(directions: Tensor) -> Tensor:
    """`(B, K, *image_shape)`, each without its part along the earlier ones, through which no gradient goes."""
    found, fixed = [], []
    for direction in directions.flatten(2).unbind(1):
        for axis in fixed:
            direction = direction - (direction * axis).sum(1, keepdim=True) * axis
        found.append(direction)
        held = direction.detach()
        fixed.append(held / held.norm(dim=1, keepdim=True).clamp_min(torch.finfo(held.dtype).tiny))
    return torch.stack(found, 1).reshape(directions.shape)
