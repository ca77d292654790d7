"""Non-local means: each pixel is averaged with those whose surroundings look alike. A baseline that learns nothing.

    D(x)_i = Σ_j w_ij x_j / Σ_j w_ij,      w_ij = exp(−max(d_ij − 2σ², 0)/h²),      h = strength · σ

d_ij is about the mean squared difference of the patches around i and j, 2σ² of which is noise; j runs over a square
around i. The work is scikit-image's.

References: Buades, Coll, Morel, "A non-local algorithm for image denoising", CVPR 2005. Darbon, Cunha, Chan, Osher,
Jensen, "Fast nonlocal filtering applied to electron cryomicroscopy", ISBI 2008.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["NonLocalMeans"]


@dataclass(frozen=True)
class NonLocalMeans:
    """A denoiser without parameters to learn, on the CPU; needs scikit-image. Not differentiable.

    Args:
        strength: h/σ; larger smooths more.
        patch: side of the patches compared, pixels.
        reach: how far away likes are looked for, pixels.
    """

    strength: float = 0.6
    patch: int = 5
    reach: int = 8

    def __post_init__(self):
        if not (self.strength > 0 and self.patch >= 1 and self.reach >= 1):
            raise InputError(f"NonLocalMeans expects a positive strength, patch and reach, got {self}")

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The average over likes.

        Args:
            x: noisy images `(*batch, C, H, W)`, real; likes are found by all channels together.
            sigma: noise level in the image's unit, positive: a number, or one per image in the batch's shape.

        Raises:
            InputError: shape, type or noise level do not fit, or scikit-image is missing.
        """
        try:
            from skimage.restoration import denoise_nl_means
        except ImportError as error:
            raise InputError("NonLocalMeans expects scikit-image; install it with pip install scikit-image") from error
        if x.ndim < 3 or not x.is_floating_point():
            raise InputError(f"denoise expects real images (*batch, C, height, width), got {tuple(x.shape)} {x.dtype}")
        levels = torch.as_tensor(sigma, dtype=torch.float64).expand(x.shape[:-3]).reshape(-1).tolist()
        if not all(0 < level < math.inf for level in levels):
            raise InputError(f"denoise expects a positive sigma, got {sigma}; pass the noise's standard deviation")
        options = {"patch_size": self.patch, "patch_distance": self.reach, "fast_mode": True, "channel_axis": -1}
        images = x.detach().reshape(-1, *x.shape[-3:]).cpu().double().movedim(1, -1)
        found = [
            denoise_nl_means(
                (image / level).contiguous().numpy(), h=self.strength, sigma=1.0, preserve_range=True, **options
            )
            for image, level in zip(images, levels, strict=True)
        ]
        # scikit-image drops a channel axis of one
        clean = [level * torch.from_numpy(image).reshape(images.shape[1:]) for level, image in zip(levels, found)]
        return torch.stack(clean).movedim(-1, 1).reshape(x.shape).to(x)
