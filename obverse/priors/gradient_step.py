"""A network prior with an explicit energy: its denoiser is a gradient step, so that plug-and-play has an objective.

    D_σ(x) = x − ∇g_σ(x),       −log p_σ(x) ≈ g_σ(x)/σ² + constant,       ∇D_σ = 1 − ∇²g_σ, symmetric

The energy is the network's own, brought to the image's unit: with x = low + s u, s = high − low, it is s² g_{σ/s}(u),
whose gradient in x is s ∇g_{σ/s}(u).

References: Hurault, Leclaire, Papadakis, "Gradient step denoiser for convergent plug-and-play", ICLR 2022.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import networks
from ..errors import InputError
from .denoiser import Denoiser
from .frozen_convolution import frozen_convolutions

__all__ = ["GradientStep"]


@dataclass(frozen=True, eq=False)
class GradientStep(Denoiser):
    """A gradient-step network with its working range: a `Denoiser` with `value` and `gradient`.

    Value, gradient and Jacobian are of whole images in the network's precision; `tile` and `fast` change `denoise`
    alone, which then is the gradient step to their accuracy only.

    Example:
        >>> network = networks.GradientStep(networks.UNet(3, 1, widths=(8, 8), blocks=1, activation="elu"))
        >>> prior, x = GradientStep(network.requires_grad_(False), low=0.0, high=200.0), 200 * torch.rand(1, 8, 8)
        >>> torch.allclose(prior.denoise(x, 20.0), x - prior.gradient(x, 20.0))
        True
    """

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.network, networks.GradientStep):
            raise InputError(
                f"GradientStep expects a network of that kind, got {type(self.network).__name__}; use Denoiser for it"
            )

    def value(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """g_σ(x) of each image, in the image's unit squared: batch shape, float64; arguments as in `denoise`."""
        images, levels = self._arranged(x, sigma)
        energies = self._energy().energy(images, levels).reshape(*x.shape[:-3], -1).sum(-1)
        return (self.high - self.low) ** 2 * energies.to(x.device)

    def gradient(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """∇g_σ(x), in the image's unit and shape: what denoising takes away."""
        images, levels = self._arranged(x, sigma)
        return (self.high - self.low) * self._energy().gradient(images, levels).reshape(x.shape).to(x)

    def jacobian_matvec(self, x: Tensor, sigma: float | Tensor, v: Tensor) -> Tensor:
        """∇D_σ(x) v for `v` of the shape of `x`: the Jacobian of denoising, symmetric."""
        if v.shape != x.shape:
            raise InputError(
                f"jacobian_matvec expects v of shape {tuple(x.shape)}, got {tuple(v.shape)}; give it that of x"
            )
        with torch.enable_grad(), frozen_convolutions():
            point = x.detach().requires_grad_()
            gradient = self.gradient(point, sigma)
            (product,) = torch.autograd.grad(gradient, point, v)
        return v - product

    def _energy(self) -> networks.GradientStep:
        assert isinstance(self.network, networks.GradientStep)
        return self.network
