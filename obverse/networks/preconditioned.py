"""One network for every noise level: denoiser, score and diffusion prior at once.

    D(x, σ) = m + c_skip z + c_out f(c z, c σ, c s),        z = x − m,    c = (σ² + s²)^(−1/2)
    c_out = c σ s,    c_skip = 1/(1 + (σ/4s)⁴)

m is the middle grey of images and s their standard deviation; cσ and cs enter as constant images. At the levels at
which images are restored, f is the noise in units of itself; for σ → ∞ the answer rests on the network alone. That is
EDM's preconditioning, but for the skip, which EDM takes as c² s²: there a part of the image, larger with the noise, has
to pass through the network, and is learnt more slowly. If unit and contrast of an image change, z, σ and s change
alike, and D with them.

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
        if not 0 < deviation < float("inf"):
            raise InputError(f"Preconditioned expects a positive deviation, got {deviation}; 0.25 is usual")
        self.network, self.deviation, self.centre = network, deviation, centre

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[image | image + σε = x] for `x` of shape `(B, C, H, W)` and `sigma` `(B,)`, positive."""
        level = sigma.to(x.dtype).reshape(-1, 1, 1, 1)
        scale = (level.square() + self.deviation**2).rsqrt()
        z, shape = x - self.centre, (len(x), 1, *x.shape[-2:])
        maps = [(scale * level).expand(shape), (scale * self.deviation).expand(shape)]
        residual = self.network(cat([scale * z, *maps], 1)).to(x.dtype)
        skip = 1 / (1 + (level / (4 * self.deviation)) ** 4)
        return self.centre + skip * z + self.deviation * scale * level * residual
