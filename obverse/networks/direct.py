"""From a first image to a better one, where what is missing is as large as the image and not as small as the noise.

    f(x, σ) = x + s g(z/s, c σ),        z = x − m,    c = (σ² + s²)^(−1/2)

m is the middle grey of images and s their standard deviation; cσ enters as a constant image. `Preconditioned` answers
with a few noise levels at most, which is right for a denoiser; a hole in an image, or three pixels of four, may need
anything up to the range of the image.
"""

from torch import Tensor, cat, nn

from ..errors import InputError

__all__ = ["Direct"]


class Direct(nn.Module):
    """f(x, σ) from a network that takes the image and one more channel.

    Args:
        network: g, `(B, channels + 1, H, W)` → `(B, channels, H, W)`.
        deviation: s, standard deviation of the training images.
        centre: m, their middle grey.

    Example:
        >>> import torch
        >>> from obverse.networks import UNet
        >>> Direct(UNet(2, 1, widths=(4,), blocks=1))(torch.zeros(3, 1, 8, 8), torch.full((3,), 0.1)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, network: nn.Module, deviation: float = 0.25, centre: float = 0.5):
        super().__init__()
        if not 0 < deviation < float("inf"):
            raise InputError(f"Direct expects a positive deviation, got {deviation}; 0.25 is usual")
        self.network, self.deviation, self.centre = network, deviation, centre

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[image | first image] for `x` of shape `(B, C, H, W)` and `sigma` `(B,)`, positive."""
        level = sigma.to(x.dtype).reshape(-1, 1, 1, 1)
        share = level * (level.square() + self.deviation**2).rsqrt()
        constant = share.expand(len(x), 1, *x.shape[-2:])
        inputs = cat([(x - self.centre) / self.deviation, constant], 1)
        return x + self.deviation * self.network(inputs).to(x.dtype)
