"""A denoiser that is a gradient step on an explicit energy, so that its Jacobian is symmetric by construction.

    D(x, σ) = x − ∇g_σ(x),      g_σ(x) = ½ ‖x − N(x, σ)‖²,      ∇g_σ = r − J_Nᵀ r,      r = x − N(x, σ)
    N(x, σ) = m + (1 − κ) z + σ f(z/σ, s/σ),      z = x − m,      κ = σ (σ² + s²)^(−1/2)

∇g_σ is g_σ's exact derivative: one pass through N and one back. For a least-squares D, g_σ/σ² is −log p_σ up to a
constant (Tweedie). The skip is made for the energy: with f = 0, D is the Wiener filter x − κ² z of white images of
variance s². f works in units of the noise, since a smooth activation bends at one fixed scale: there the noise has it
at every level, while the edges of images reach where ELU is straight and f nearly homogeneous.

References: Hurault, Leclaire, Papadakis, "Gradient step denoiser for convergent plug-and-play", ICLR 2022. Cohen,
Blau, Freedman, Rivlin, "It has potential: gradient-driven denoisers for convergent solutions to inverse problems",
NeurIPS 2021.
"""

import torch
from torch import Tensor, cat, nn

from ..errors import InputError

__all__ = ["GradientStep"]


class GradientStep(nn.Module):
    """D(x, σ) from a network that takes the image and two more channels.

    Works under `torch.no_grad` too, and can be differentiated further, in its weights, in x and in σ.

    Args:
        network: f, `(B, channels + 2, H, W)` → `(B, channels, H, W)`, with a smooth activation such as "elu".
        deviation: s, standard deviation of the training images.
        centre: m, their middle grey.

    Example:
        >>> from obverse.networks import UNet
        >>> net = GradientStep(UNet(3, 1, widths=(8, 8), blocks=1, activation="elu"))
        >>> x, sigma = torch.rand(2, 1, 8, 8), torch.tensor([0.1, 0.2])
        >>> torch.equal(net(x, sigma), x - net.gradient(x, sigma)), net.energy(x, sigma).shape
        (True, torch.Size([2]))
    """

    def __init__(self, network: nn.Module, deviation: float = 0.25, centre: float = 0.5):
        super().__init__()
        if not deviation > 0:
            raise InputError(f"GradientStep expects a positive deviation, got {deviation}; 0.25 is usual")
        self.network, self.deviation, self.centre = network, deviation, centre

    def residual(self, x: Tensor, sigma: Tensor) -> Tensor:
        """r = x − N(x, σ), in the image's shape."""
        level = sigma.to(x.dtype).reshape(-1, 1, 1, 1)
        z, shape = x - self.centre, (len(x), 1, *x.shape[-2:])
        maps = [torch.ones_like(level).expand(shape), (self.deviation / level).expand(shape)]
        share = level * (level.square() + self.deviation**2).rsqrt()
        return share * z - level * self.network(cat([z / level, *maps], 1)).to(x.dtype)

    def energy(self, x: Tensor, sigma: Tensor) -> Tensor:
        """g_σ(x) of each image of `x`, `(B, C, H, W)` → `(B,)`, for `sigma` `(B,)`, positive; summed in float64.

        Descents compare energies of nearly equal images: their sums must not round what the images do.
        """
        return 0.5 * self.residual(x, sigma).double().square().sum((1, 2, 3))

    def gradient(self, x: Tensor, sigma: Tensor) -> Tensor:
        """∇g_σ(x), in the image's shape."""
        wanted = x.requires_grad or sigma.requires_grad or any(p.requires_grad for p in self.parameters())
        follow = torch.is_grad_enabled() and wanted
        with torch.enable_grad():
            point = x if follow and x.requires_grad else x.detach().requires_grad_()
            residual = self.residual(point, sigma)
            (gradient,) = torch.autograd.grad(residual, point, residual, create_graph=follow)
        return gradient

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x − ∇g_σ(x), near E[image | image + σε = x]."""
        return x - self.gradient(x, sigma)
