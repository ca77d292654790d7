"""A U-Net in the manner of DRUNet: residual blocks, strided convolutions, additive skips, no normalisation.

    head 3×3 → [blocks, ↓2] × (L−1) → blocks → [↑2, blocks] × (L−1) → tail 3×3,
    the way up adds to each level what the way down left there
    block: x + W₂ ReLU(W₁ x)

Without biases the network is homogeneous of degree one, f(a x) = a f(x) for a > 0: what it learnt at one noise level
or contrast it can do at others.

References: Zhang, Li, Zuo, Zhang, Van Gool, Timofte, "Plug-and-play image restoration with deep denoiser prior", TPAMI
2021. Mohan, Kadkhodaie, Simoncelli, Fernandez-Granda, "Robust and interpretable blind image denoising via bias-free
convolutional neural networks", ICLR 2020.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError

__all__ = ["UNet"]

_FLAT = -20.0  # where exp is 2e-9


class _ELU(nn.Module):
    """ELU, taken as flat where it is so to 2e-9: exp of less, times a slope, is soon a subnormal number, and sums of
    these take processors five times as long."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.elu(x.clamp_min(_FLAT))


_ACTIVATIONS = {"relu": nn.ReLU, "elu": _ELU, "silu": nn.SiLU}


class UNet(nn.Module):
    """Image to image, of any size: the borders are mirrored up to a multiple of 2^(levels − 1) and cropped again.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        widths: channels at each level, from the finest.
        blocks: residual blocks a level, on the way down and again on the way up.
        bias: whether convolutions have biases; without them the network is homogeneous.
        activation: "relu", "elu" or "silu"; the smooth ones have continuous derivatives but are not homogeneous.

    Example:
        >>> import torch
        >>> net = UNet(1, 1, widths=(8, 16), blocks=1)
        >>> net(torch.zeros(2, 1, 17, 20)).shape
        torch.Size([2, 1, 17, 20])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int] = (32, 48, 96, 192),
        blocks: int = 2,
        bias: bool = False,
        activation: str = "relu",
    ):
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise InputError(f"UNet expects an activation out of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        if min(inputs, outputs, blocks, *widths) < 1:
            raise InputError(
                f"UNet expects positive channels, widths and blocks, got {inputs, outputs, widths, blocks}"
            )

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(_Residual(width, bias, activation) for _ in range(blocks)))

        self.head = nn.Conv2d(inputs, widths[0], 3, padding=1, bias=bias)
        self.down = nn.ModuleList(
            nn.Sequential(stage(fine), nn.Conv2d(fine, coarse, 2, 2, bias=bias))
            for fine, coarse in zip(widths, widths[1:], strict=False)
        )
        self.middle = stage(widths[-1])
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(coarse, fine, 2, 2, bias=bias), stage(fine))
            for fine, coarse in reversed(list(zip(widths, widths[1:], strict=False)))
        )
        self.tail = nn.Conv2d(widths[0], outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` → `(B, outputs, H, W)`."""
        height, width = x.shape[-2:]
        multiple = 2 ** len(self.down)
        x = _mirrored(x, -height % multiple, -width % multiple)
        skips = [self.head(x)]
        for down in self.down:
            skips.append(down(skips[-1]))
        z = self.middle(skips[-1])
        for up in self.up:
            z = up(z + skips.pop())
        z = z + skips.pop()
        return self.tail(z)[..., :height, :width]


class _Residual(nn.Module):
    def __init__(self, width: int, bias: bool, activation: str):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.activation = _ACTIVATIONS[activation]()
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.activation(self.first(x)))


def _mirrored(x: Tensor, rows: int, columns: int) -> Tensor:
    """`x` with mirrored rows below and columns to the right; images narrower than the border repeat their edge."""
    if not (rows or columns):
        return x
    mode = "reflect" if rows < x.shape[-2] and columns < x.shape[-1] else "replicate"
    return nn.functional.pad(x, (0, columns, 0, rows), mode=mode)
