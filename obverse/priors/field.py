"""A stationary Gaussian field: independent Fourier modes on a periodic grid.

    x = m + F⁻¹ √S w,   F the orthonormal Fourier transform, w white        ⇒   covariance F⁻¹ S F
    value(x) = ½ Σ_f |F(x − m)|²/S(f)
    denoise:  E[x | x + σε] = m + F⁻¹ S/(S + σ²) F (x − m)                     (Wiener's filter)

S(f) is the variance of each orthonormal Fourier mode, in FFT order; its average over modes is the variance of a pixel.

References: Wiener, "Extrapolation, interpolation, and smoothing of stationary time series", 1949. Field, "Relations
between the statistics of natural images and the response properties of cortical cells", JOSA A 1987 (power laws).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream
from .base import Functional, Hessian, Prior, Term, batch_sum, check_step, identity
from .spectra import fitted_power, frequency_radius, power_law_spectrum

__all__ = ["GaussianField"]


@dataclass(frozen=True, eq=False)
class GaussianField(Prior):
    """A Gaussian field whose covariance is a circular convolution.

    Args:
        spectrum: S, `(H, W)`, `(D, H, W)` or with a channel axis in front: the variance of each orthonormal Fourier
            mode, FFT order, positive and symmetric under f → −f.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        mean: m, a number or a tensor that broadcasts to `image_shape`, in units of the image.

    Example:
        >>> import torch
        >>> field = GaussianField(torch.ones(4, 4), (1, 4, 4))
        >>> float(field.denoise(torch.ones(1, 4, 4), sigma=1.0).mean())
        0.5
    """

    spectrum: Tensor
    image_shape: tuple[int, ...]  # type: ignore[assignment]
    mean: float | Tensor = 0.0

    def __post_init__(self):
        shape = tuple(int(n) for n in self.image_shape)
        given, grid = tuple(self.spectrum.shape), shape[1:]
        if len(shape) < 3 or given not in (grid, (1, *grid), shape):
            raise InputError(
                f"GaussianField expects a spectrum of shape {grid} for images {shape}, got {given}; use full FFT order"
            )
        spectrum = self.spectrum.detach()
        if not spectrum.is_floating_point() or not bool((spectrum.isfinite() & (spectrum > 0)).all()):
            raise InputError("GaussianField expects positive finite mode variances; floor them above zero")
        axes = tuple(range(-len(grid), 0))
        mirrored = spectrum.flip(axes).roll((1,) * len(grid), axes)
        if bool(((spectrum - mirrored).abs() > 1e-3 * spectrum).any()):
            raise InputError(
                "GaussianField expects a spectrum with S(f) = S(−f), as real images have; "
                "check that it is in FFT order (zero frequency first, no fftshift)"
            )
        if isinstance(self.mean, Tensor):
            try:
                torch.broadcast_to(self.mean, shape)
            except RuntimeError:
                raise InputError(f"mean expects a shape that broadcasts to {shape}, got {self.mean.shape}") from None
        object.__setattr__(self, "spectrum", 0.5 * (spectrum + mirrored))
        object.__setattr__(self, "image_shape", shape)
        object.__setattr__(self, "dimensions", len(grid))

    @classmethod
    def power_law(
        cls,
        image_shape: Sequence[int],
        exponent: float = 2.0,
        variance: float = 1.0,
        *,
        corner: float | None = None,
        mean: float | Tensor = 0.0,
        spacing: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> "GaussianField":
        """S(f) ∝ (corner² + |f|²)^(−exponent/2), scaled to a given variance per pixel.

        Args:
            exponent: decay of the power spectrum; about 2 for photographs.
            variance: of each pixel, in squared units of the image.
            corner: frequency below which the spectrum is flat, in cycles per unit of `spacing`; by default half the
                lowest frequency of the longest side.
            spacing: pixel size along each spatial axis, 1 everywhere by default.
        """
        if len(image_shape) not in (3, 4):
            raise InputError(
                f"GaussianField expects an image_shape (C, H, W) or (C, D, H, W), got {tuple(image_shape)}; "
                "a grey picture has C = 1"
            )
        spectrum = power_law_spectrum(tuple(image_shape)[1:], exponent, variance, corner, spacing, dtype)
        return cls(spectrum, tuple(image_shape), mean)

    @classmethod
    def fit(
        cls,
        images: Tensor,
        dimensions: int = 2,
        *,
        form: str = "radial",
        noise_variance: float = 0.0,
        spacing: Sequence[float] | None = None,
    ) -> "GaussianField":
        """The field whose spectrum is that of some images.

        Args:
            images: `(*batch, C, H, W)`, or `(*batch, C, D, H, W)` with `dimensions=3`.
            form: "radial" (averaged over rings of frequency) or "power-law" (a straight line in log–log coordinates).
            noise_variance: variance of white noise in the images, subtracted from their power.
            spacing: pixel size along each spatial axis.
        """
        if images.ndim < dimensions + 1 or not images.is_floating_point() or not bool(images.isfinite().all()):
            raise InputError(
                f"fit expects finite real images (*batch, C, H, W), got {tuple(images.shape)} {images.dtype}"
            )
        shape = tuple(images.shape[-dimensions - 1 :])
        mean = images.mean()
        axes = tuple(range(-dimensions, 0))
        power = torch.fft.fftn((images - mean).double(), dim=axes, norm="ortho").abs().square()
        power = power.reshape(-1, *shape[1:]).mean(0)
        radius = frequency_radius(shape[1:], spacing, torch.float64).to(images.device)
        return cls(fitted_power(power, radius, form, float(noise_variance)), shape, float(mean))

    @property
    def smooth(self) -> bool:
        return True

    def modes(self, dtype: torch.dtype = torch.float64, device: torch.device | None = None) -> Tensor:
        """S in `rfftn` layout with a channel axis in front, `(C or 1, *grid)`."""
        half = self.spectrum[..., : self.image_shape[-1] // 2 + 1].to(dtype=dtype, device=device)
        return half if half.ndim == len(self.image_shape) else half[None]

    def value(self, x: Tensor) -> Tensor:
        difference = self._centred(x)
        return 0.5 * batch_sum(difference * self.precision_matvec(difference), len(self.image_shape), "GaussianField")

    def gradient(self, x: Tensor) -> Tensor:
        return self.precision_matvec(self._centred(x))

    def prox(self, x: Tensor, step: float) -> Tensor:
        return self.denoise(x, math.sqrt(check_step(step, "GaussianField")))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[image | image + σε = x], exactly.

        Args:
            x: noisy images `(*batch, *image_shape)`.
            sigma: standard deviation of the noise: a number, or one per image in the batch's shape.
        """
        variance = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).square()
        if not bool((variance > 0).all()):
            raise InputError(f"denoise expects a positive sigma, got {sigma}; pass the noise's standard deviation")
        variance = variance.reshape(*variance.shape, *(1,) * len(self.image_shape))
        modes = self.modes(x.dtype, x.device)
        return x - self._filtered(self._centred(x), variance / (modes + variance))

    def hessian(self, x: Tensor) -> Hessian:
        modes, dtype, device = self.modes(x.dtype, x.device), x.dtype, x.device

        def perturbation(generator: torch.Generator) -> Tensor:
            white = torch.randn(self.image_shape, generator=generator, dtype=dtype, device=generator.device)
            return self._filtered(white.to(device), modes.rsqrt())

        return Hessian(self.precision_matvec, perturbation, 1.0 / modes)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """`n` images drawn from the field, `(n, *image_shape)`; image i has its own random stream."""
        modes = self.modes(self.spectrum.dtype, self.spectrum.device)
        white = [torch.randn(self.image_shape, generator=stream(seed, i), dtype=modes.dtype) for i in range(n)]
        mean = torch.as_tensor(self.mean, dtype=modes.dtype, device=modes.device)
        return mean + self._filtered(torch.stack(white).to(modes.device), modes.sqrt())

    def smoothed(self, sigma: float) -> "GaussianField":
        """The field of x + σε: S + σ², the law whose score denoising at level σ gives."""
        return GaussianField(self.spectrum + sigma**2, self.image_shape, self.mean)

    def covariance_matvec(self, v: Tensor) -> Tensor:
        """Covariance times images `(*batch, *image_shape)`."""
        return self._filtered(self._checked(v), self.modes(v.dtype, v.device))

    def precision_matvec(self, v: Tensor) -> Tensor:
        """Inverse covariance times images `(*batch, *image_shape)`."""
        return self._filtered(self._checked(v), 1.0 / self.modes(v.dtype, v.device))

    def terms(self, image_shape: Sequence[int] | None = None, dtype: torch.dtype = torch.float32) -> list[Term]:
        return [Term(identity(self._shape(image_shape), dtype), _FieldEnergy(self))]

    def _filtered(self, x: Tensor, response: Tensor) -> Tensor:
        axes = tuple(range(-self.dimensions, 0))
        return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * response, s=x.shape[-self.dimensions :], dim=axes)

    def _centred(self, x: Tensor) -> Tensor:
        return self._checked(x) - torch.as_tensor(self.mean, dtype=x.dtype, device=x.device)

    def _checked(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-len(self.image_shape) :]) != self.image_shape or not x.is_floating_point():
            raise InputError(
                f"GaussianField expects real images (*batch, {', '.join(map(str, self.image_shape))}), got "
                f"{tuple(x.shape)} {x.dtype}; crop or pad them, or build the field for this shape"
            )
        return x


class _FieldEnergy(Functional):
    def __init__(self, field: GaussianField):
        super().__init__(len(field.image_shape))
        self.field = field

    def value(self, z: Tensor) -> Tensor:
        return self.field.value(z)

    def prox(self, z: Tensor, step: float) -> Tensor:
        return self.field.prox(z, step)
