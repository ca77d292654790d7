"""A stationary covariance: diagonal in Fourier, so everything about it is exact and costs one FFT.

    Σ v = F⁻¹(S · F v),   diag Σ = mean(S),   log det Σ = Σ_f log S(f),   uₖ = √(2/N) cos(2π f·r) or √(2/N) sin(2π f·r)

S(f) = S(−f) ≥ 0 is the variance of each orthonormal Fourier mode, in FFT order, over the N pixels of a periodic grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError, NumericsError
from .correlation import TileSpectrum
from .covariance import Components, Covariance, streams

__all__ = ["StationaryCovariance"]


class StationaryCovariance(Covariance):
    """Circulant covariance over the spatial axes, independent between channels.

    Args:
        spectrum: variances of the orthonormal modes (`fftn`, norm="ortho"), FFT order; `(H, W)` or `(D, H, W)`, alike
            for all channels, or `(C, H, W)`, `(C, D, H, W)` with one spectrum per channel.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.

    Raises:
        InputError: the spectrum has another shape, is negative or not finite, or S(f) ≠ S(−f).

    Example:
        >>> flat = StationaryCovariance(4 * torch.ones(8, 8), (1, 8, 8))
        >>> float(flat.diagonal().mean()), flat.trace()
        (4.0, 256.0)
    """

    def __init__(self, spectrum: Tensor, image_shape: Sequence[int]):
        super().__init__(image_shape, spectrum.dtype, spectrum.device)
        grid = self.image_shape[1:]
        if tuple(spectrum.shape) not in (grid, (1, *grid), self.image_shape):
            raise InputError(
                f"a stationary covariance expects a spectrum of shape {grid} or {self.image_shape}, "
                f"got {tuple(spectrum.shape)}; give the full FFT-order array"
            )
        if not bool(spectrum.isfinite().all()) or float(spectrum.min()) < 0:
            raise InputError("a stationary covariance expects finite variances ≥ 0, got a negative or non-finite one")
        axes = tuple(range(-len(grid), 0))
        mirrored = torch.roll(spectrum.flip(axes), [1] * len(grid), axes)
        asymmetry = float((spectrum - mirrored).abs().max())
        if asymmetry > 1e-4 * float(spectrum.max()):
            raise InputError(
                f"a stationary covariance expects S(f) = S(-f), got a difference of {asymmetry:.3g}; "
                "give the spectrum in FFT order (not shifted) and symmetrise it"
            )
        self._axes = axes
        self.spectrum = ((spectrum + mirrored) / 2).reshape(-1, *grid).expand(self.image_shape)
        self._half = self.spectrum[..., : grid[-1] // 2 + 1]

    def _filter(self, images: Tensor, half: Tensor) -> Tensor:
        transformed = torch.fft.rfftn(images, dim=self._axes) * half.to(images.dtype)
        return torch.fft.irfftn(transformed, s=self.image_shape[1:], dim=self._axes)

    def _matvec(self, images: Tensor) -> Tensor:
        return self._filter(images, self._half)

    def _solve(self, images: Tensor) -> Tensor:
        if float(self._half.min()) <= 0:
            raise NumericsError(
                "solve expects positive mode variances, got a zero one; add a small floor to the spectrum"
            )
        return self._filter(images, 1 / self._half)

    def diagonal(self) -> Tensor:
        return self.spectrum.mean(self._axes, keepdim=True).expand(self.image_shape).clone()

    def logdet(self) -> float:
        if float(self._half.min()) <= 0:
            raise NumericsError("logdet expects positive mode variances, got a zero one; add a floor to the spectrum")
        return float(self.spectrum.double().log().sum())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        white = [
            torch.randn(self.image_shape, generator=own, dtype=self.dtype, device=own.device)
            for own in streams(n, generator)
        ]
        return self._filter(torch.stack(white).to(self.device), self._half.sqrt())

    def _left(self, U: Tensor, eigenvalues: Tensor, whiten: Tensor, seed: int) -> tuple[Tensor, float]:
        """From the spectrum, without a draw."""
        left = self.spectrum.double()
        for u, value in zip(U.mT.double(), eigenvalues.double()):
            modes = torch.fft.fftn(u.reshape(self.image_shape), dim=self._axes, norm="ortho")
            left = left - value * modes.abs().square()
        scale = whiten.reshape(self.image_shape).double().square().mean(self._axes, keepdim=True)
        correlation = torch.fft.ifftn((left * scale).mean(0)).real
        return TileSpectrum(self.image_shape[1:]).expected(correlation), 0.0

    def components(self, k: int, *, products: int | None = None, seed: int = 0) -> Components:
        """Exact cosine and sine modes; no product with Σ is needed to find them."""
        self._check_rank(k, 1)
        variances, index = self.spectrum.reshape(-1).sort(descending=True, stable=True)
        modes = torch.stack([self._mode(int(i)) for i in index[:k]])
        return self._ranked(variances[:k].clone(), modes)

    def _mode(self, index: int) -> Tensor:
        """The eigenvector of flat index (channel, f): cosine at f if f precedes −f, else sine at −f."""
        grid = self.image_shape[1:]
        size = self.spectrum[0].numel()
        channel, flat = divmod(index, size)
        frequency = [int(i) for i in torch.unravel_index(torch.tensor(flat), grid)]
        mirrored = [(-f) % m for f, m in zip(frequency, grid)]
        phase = torch.zeros(grid, dtype=torch.float64)
        for axis, (f, m) in enumerate(zip(frequency, grid)):
            shape = [-1 if a == axis else 1 for a in range(len(grid))]
            # f·r is reduced modulo m in integers, so that the phase is exact on large grids.
            phase = phase + ((f * torch.arange(m)) % m).double().reshape(shape) / m
        wave = torch.cos(2 * torch.pi * phase) if frequency <= mirrored else torch.sin(2 * torch.pi * phase)
        image = torch.zeros(self.image_shape, dtype=self.dtype, device=self.device)
        image[channel] = (wave / wave.norm()).to(image)
        return image

    def scaled(self, factor: float) -> "StationaryCovariance":
        if not factor > 0:
            raise InputError(f"a covariance is scaled by a positive factor, got {factor}")
        return StationaryCovariance(self.spectrum * factor, self.image_shape)
