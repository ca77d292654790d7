"""The circulant matrix nearest to a product, learnt by probing it: a preconditioner for nearly stationary precisions.

    c(f) = E[conj(ẑ(f)) (H z)^(f)] / E[|ẑ(f)|²] = (F H Fᴴ)_ff

This is the circulant closest to H in the Frobenius norm. Probes z are real with |ẑ| = 1 and random phases, so no mode
is divided by a small number. When H is circulant one probe is exact, and preconditioned conjugate gradients need one
iteration; otherwise a mode is kept above its standard error, so that noise cannot make the preconditioner explode.

References: T. Chan, "An optimal circulant preconditioner for Toeplitz systems", SIAM J. Sci. Stat. Comput. 1988.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from .stationary import StationaryCovariance

__all__ = ["circulant_preconditioner"]


def circulant_preconditioner(
    apply: Callable[[Tensor], Tensor],
    image_shape: Sequence[int],
    generator: torch.Generator,
    *,
    probes: int = 8,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> StationaryCovariance:
    """The inverse of the circulant approximation of a symmetric positive definite product.

    Args:
        apply: H on images `(b, *image_shape)`.
        image_shape: `(C, H, W)` or `(C, D, H, W)`; channels are probed one by one, each gets its own spectrum.
        generator: of the random phases.
        probes: per channel, at least 2.

    Returns:
        C⁻¹ as a `StationaryCovariance`, for `PrecisionCovariance(preconditioner=...)`; its `matvec` is for a solver.

    Raises:
        InputError: fewer than two probes.
        NumericsError: H is not positive on average.
    """
    if probes < 2:
        raise InputError(f"circulant_preconditioner expects at least 2 probes, got {probes}; 8 is the default")
    shape = tuple(image_shape)
    axes = tuple(range(1 - len(shape), 0))
    spectra = []
    for channel in range(shape[0]):
        seen = []
        for _ in range(probes):
            white = torch.randn(shape[1:], generator=generator, dtype=torch.float64, device=generator.device)
            phases = torch.fft.fftn(white, dim=axes, norm="ortho")
            phases = (phases / phases.abs()).to(torch.device(device))
            probe = torch.zeros(shape, dtype=dtype, device=device)
            probe[channel] = torch.fft.ifftn(phases, dim=axes, norm="ortho").real.to(dtype)
            response = torch.fft.fftn(apply(probe[None])[0, channel].double(), dim=axes, norm="ortho")
            seen.append((phases.conj() * response).real)
        values = torch.stack(seen)
        spectra.append(_kept_positive(values.mean(0), values.std(0) / probes**0.5, axes))
    return StationaryCovariance((1 / torch.stack(spectra)).to(dtype), shape)


def _kept_positive(mean: Tensor, error: Tensor, axes: tuple[int, ...]) -> Tensor:
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
