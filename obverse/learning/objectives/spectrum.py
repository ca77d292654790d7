"""A penalty that keeps the eigenvalues of a denoiser's Jacobian between 0 and 1, as a local Gaussian prior has them.

    E max(‖(2J − 1)u‖/‖u‖ − 1, 0)²,      u from a few steps of the power iteration v ← (2J − 1)v

J is symmetric with eigenvalues in [0, 1] iff ‖2J − 1‖ ≤ 1. Least squares hardly sees J: of two networks of equal
error, one may have a third of its eigenvalues below 0. Eigenvalues above 1, which a posterior of several modes has,
are pressed down too: `methods.LocalGaussian` could make nothing of them.

Reference: Pesquet, Repetti, Terris, Wiaux, "Learning maximally monotone operators for image recovery", SIAM J. Imaging
Sciences 2021, whose penalty this is, for symmetric J.
"""

import torch
from torch import Tensor, nn

from ...noise.base import stream

__all__ = ["spectrum_excess"]

_STEPS = 5  # an eigenvalue of −0.3 grows 1.6 times as fast as one of 0: ten times over five steps


def spectrum_excess(network: nn.Module, z: Tensor, sigma: Tensor, seed: int) -> Tensor:
    """The penalty at images `(B, C, H, W)` of levels `(B,)`, differentiable in the network's parameters.

    Args:
        network: D(z, σ) with a symmetric Jacobian, differentiable twice in z.
        z: noisy images.
        sigma: their levels.
        seed: of the power iteration's start.
    """
    axes = tuple(range(1, z.ndim))
    v = torch.randn(z.shape, generator=stream(seed, 0)).to(z)
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        answer = network(point, sigma)

        def reflected(v: Tensor, follow: bool) -> Tensor:
            (product,) = torch.autograd.grad(answer, point, v.to(answer), create_graph=follow, retain_graph=True)
            return 2 * product - v

        for _ in range(_STEPS):
            v = reflected(v / torch.linalg.vector_norm(v, dim=axes, keepdim=True), follow=False).detach()
        v = v / torch.linalg.vector_norm(v, dim=axes, keepdim=True)
        size = torch.linalg.vector_norm(reflected(v, follow=True).float(), dim=axes)
    return (size - 1).clamp_min(0).square().mean()
