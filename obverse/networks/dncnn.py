"""DnCNN: a plain stack of convolutions that predicts the noise; no scales, no skips but the one around everything.

    f(x) = x − W_L φ(W_{L−1} … φ(W_1 x)),      φ(v) = max(v, 0),     residual=True
    f(x) =     W_L φ(W_{L−1} … φ(W_1 x)),                            residual=False, as `Preconditioned` wants it

Without the batch normalisation of the paper, which is an affine map once trained, and without which small networks
train as well from He's initial weights; so trained weights with it can be folded in. The reach is 2 depth + 1 pixels.

References: Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian denoiser: residual learning of deep CNN for image
denoising", IEEE TIP 2017. He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
"""

from torch import Tensor, nn

from ..errors import InputError

__all__ = ["DnCNN"]


class DnCNN(nn.Module):
    """Image to image, of any size.

    Args:
        inputs: channels of the input: the image's, then any maps of the noise level.
        outputs: channels of the image.
        width: channels inside.
        depth: number of 3×3 convolutions, at least 2.
        bias: whether convolutions have biases; without them the network is homogeneous of degree one.
        residual: whether the answer is the first `outputs` channels of the input less what the stack finds.

    Example:
        >>> import torch
        >>> DnCNN(2, 1, width=8, depth=3)(torch.zeros(4, 2, 9, 7)).shape      # an image and a map of its noise level
        torch.Size([4, 1, 9, 7])
    """

    def __init__(
        self, inputs: int, outputs: int, width: int = 64, depth: int = 17, bias: bool = True, residual: bool = True
    ):
        super().__init__()
        if min(inputs, outputs, width) < 1 or depth < 2:
            raise InputError(
                f"DnCNN expects positive channels and a depth of at least 2, got {inputs, outputs, width, depth}"
            )
        if residual and inputs < outputs:
            raise InputError(f"DnCNN expects the image among its {inputs} inputs, got {outputs} outputs; add channels")
        self.outputs, self.residual = outputs, residual
        sizes = [inputs, *(width for _ in range(depth - 1)), outputs]
        layers: list[nn.Module] = []
        for before, after in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=bias), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` → `(B, outputs, H, W)`."""
        found = self.layers(x)
        return x[:, : self.outputs] - found if self.residual else found
