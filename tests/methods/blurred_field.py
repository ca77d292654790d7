"""A Gaussian field and a circular blur of it, whose chains and walks have laws in closed form, mode by mode."""

import torch

import obverse as ob

SHAPE, NOISE = (1, 6, 6), 0.2
FIELD = ob.priors.GaussianField.power_law(SHAPE, 2.0, 0.3, mean=0.4)


def modes(x):
    """Orthonormal Fourier modes, in FFT order."""
    return torch.fft.fft2(x, norm="ortho")


def blurred(centre, noise=NOISE):
    """A blur along rows whose central weight is `centre` times that of its two neighbours."""
    kernel = torch.tensor([[1.0, centre, 1.0]], dtype=torch.float64) / (2 + centre)
    return ob.Problem(ob.operators.Convolution(kernel, SHAPE), ob.noise.Gaussian(noise))


def information(operator, noise=NOISE):
    """|H|²/s² of every Fourier mode, in FFT order."""
    basis = torch.zeros(SHAPE, dtype=torch.float64)
    basis[0, 0, 0] = 1.0
    return torch.fft.fft2(operator(basis)).abs().square() / noise**2


def measured(problem):
    """Data of a draw of the field."""
    return problem.simulate(FIELD.sample(1, seed=1)[0], seed=2)


class Broken:
    """A denoiser that divides by zero."""

    def denoise(self, x, sigma):
        return x / 0
