"""A network that looks for point sources: what is known of each place already, and what a U-Net sees beside it.

    logit = w · x + offset + U(3 asinh(x/3))

The first channel is a signal-to-noise ratio, by which alone a fresh network ranks all places, since the other weights w
and the last layer of U are zero at first: training can only add to it. asinh keeps what is far above the noise from
outshouting the rest.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from .unet import UNet

__all__ = ["SourceDetector"]

_KNEE = 3.0  # standard deviations, from which inputs are compressed
_GAIN, _OFFSET = 1.5, -6.0  # at first: as likely as not at an S/N of 4


class SourceDetector(nn.Module):
    """Logit of a source at each pixel.

    Args:
        inputs: channels, the first of them S/N, all of a variance of about 1 where there is no source.
        widths: channels of the U-Net at each level, from the finest.
        blocks: residual blocks a level.

    Example:
        >>> import torch
        >>> fresh = SourceDetector(3, widths=(8, 16))
        >>> x = torch.full((1, 3, 9, 9), 4.0)
        >>> fresh(x).shape, fresh(x)[0, 0, 4, 4].item()
        (torch.Size([1, 1, 9, 9]), 0.0)
    """

    def __init__(self, inputs: int, widths: Sequence[int] = (16, 32, 48), blocks: int = 1):
        super().__init__()
        self.linear = nn.Conv2d(inputs, 1, 1)
        assert self.linear.bias is not None
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.weight[:, :1], _GAIN)
        nn.init.constant_(self.linear.bias, _OFFSET)
        self.unet = UNet(inputs, 1, widths, blocks, bias=True)
        nn.init.zeros_(self.unet.tail.weight)
        assert self.unet.tail.bias is not None
        nn.init.zeros_(self.unet.tail.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` → `(B, 1, H, W)`."""
        return self.linear(x) + self.unet(_KNEE * (x / _KNEE).asinh())
