"""One network for every noise level: denoiser, score and diffusion prior at once.

    D(x, σ) = m + c_skip z + f(c z, c σ, c s)/c,      z = x − m,    c = (σ² + s²)^(−1/2),    c_skip = s² c²

m is the middle grey of images and s their standard deviation; cσ and cs enter as constant images. For σ → 0 the skip
passes the image through, for σ → ∞ the answer rests on the network alone. This is EDM's preconditioning for networks
that are homogeneous of degree one, such as a U-Net without biases: D then is homogeneous in (z, σ, s) jointly, so that
changing the unit of the image changes nothing.

    score ∇ log p_σ(x) = (D(x, σ) − x)/σ²                                         (Tweedie)

References: Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models", NeurIPS
2022. Efron, "Tweedie's formula and selection bias", JASA 2011.
"""

from torch import Tensor, cat, nn

from ..errors import InputError

__all__ = ["Preconditioned"]


class Preconditioned(nn.Module):
    """D(x, σ) from a network that takes the image and two more channels.

    Args:
        network: f, `(B, channels + 2, H, W)` → `(B, channels, H, W)`.
        deviation: s, standard deviation of the training images.
        centre: m, their middle grey.
    """

    def __init__(self, network: nn.Module, deviation: float = 0.25, centre: float = 0.5):
        super().__init__()
        if not deviation > 0:
            raise InputError(f"Preconditioned expects a positive deviation, got {deviation}; 0.25 is usual")
        self.network, self.deviation, self.centre = network, deviation, centre

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[image | image + σε = x] for `x` of shape `(B, C, H, W)` and `sigma` `(B,)`, positive."""
        level = sigma.to(x.dtype).reshape(-1, 1, 1, 1)
        scale = (level.square() + self.deviation**2).rsqrt()
        z, shape = x - self.centre, (len(x), 1, *x.shape[-2:])
        maps = [(scale * level).expand(shape), (scale * self.deviation).expand(shape)]
        residual = self.network(cat([scale * z, *maps], 1)).to(x.dtype)
        return self.centre + (self.deviation * scale).square() * z + residual / scale
