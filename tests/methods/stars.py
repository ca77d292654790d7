"""A star with speckles that stand still and sources that turn: what the tests of differential imaging share."""

import math

import torch

from obverse import noise, operators
from obverse.problem import Problem

FWHM = 3.5


def gaussian_psf(size=13, fwhm=FWHM):
    x = torch.arange(size, dtype=torch.float64) - size // 2
    return torch.exp(-4 * math.log(2) * (x[:, None] ** 2 + x**2) / fwhm**2)


def observation(degrees, size=(41, 41)):
    """The problem of a star in the middle of frames, with a PSF of peak one."""
    operator = operators.FieldRotation((1, *size), degrees, gaussian_psf(), dtype=torch.float64)
    return Problem(operator, noise.Gaussian(1.0))


def speckles(problem, patterns, level=100.0, seed=0):
    """Frames that are mixtures of a few patterns, which vary in time."""
    generator = torch.Generator().manual_seed(seed)
    frames, *size = problem.operator.data_shape
    weights = 1 + 0.3 * torch.randn(frames, patterns, generator=generator, dtype=torch.float64)
    return level * (weights @ torch.rand(patterns, math.prod(size), generator=generator, dtype=torch.float64)).reshape(
        frames, *size
    )


def white(problem, sigma=1.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(problem.operator.data_shape, generator=generator, dtype=torch.float64)
