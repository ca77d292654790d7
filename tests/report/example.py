"""Output folders of finished runs, made in closed form and without instruments or methods.

The mean is that of a Gaussian field, m + F⁻¹ S H̄ / (S |H|² + s²) F (y - m). The covariance, which only the report is
to show, is diag(g) C diag(g): C stationary with a Gaussian spectrum and a white floor (errors that hang together over
some pixels), g an envelope that follows the specimen, scaled so that the mean's true error has about its size.
"""

import json
from pathlib import Path

import numpy as np
import torch
from scipy.signal import convolve

from obverse.io.safe import sha256, write_safetensors
from obverse.posterior import Posterior
from obverse.posterior.low_rank import LowRankDiagonal
from obverse.posterior.stationary import StationaryCovariance
from obverse.report import derive
from obverse.solvers.result import Status


def specimen(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Cell-like blobs, rings and filaments in counts, (C, H, W) or (C, D, H, W)."""
    random = np.random.default_rng(seed)
    size = shape[1:]
    scale = np.array([0.4 if len(size) == 3 and a == 0 else 1.0 for a in range(len(size))])
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), -1).astype(np.float32)
    image = np.full(shape, 60.0, np.float32)
    reach = min(size[-2:])
    for c in range(shape[0]):
        for _ in range(14):
            centre = random.uniform(0.1, 0.9, len(size)) * size
            radius = random.uniform(0.04, 0.13) * reach
            distance = np.sqrt((((grid - centre) / scale) ** 2).sum(-1))
            ring = np.exp(-(((distance - radius) / (0.12 * radius + 0.8)) ** 2))
            fill = 1 / (1 + np.exp(np.clip((distance - radius) / 0.8, -50, 50)))
            image[c] += random.uniform(150, 500) * (0.8 * ring + 0.35 * fill)
    return image


def kernel(axes: int) -> np.ndarray:
    """A correlation that rings, wider along x than along y and z, and legal: the autocorrelation of a wavelet."""
    lines = [np.exp(-((np.arange(-2, 3) / 1.2) ** 2)), np.exp(-((np.arange(-3, 4) / 1.6) ** 2))]
    lines = [line * np.cos(0.9 * np.arange(len(line))) for line in [lines[0]] * (axes - 1) + [lines[1]]]
    wavelet = np.ones([1] * axes)
    for axis, line in enumerate(lines):
        wavelet = wavelet * line.reshape([-1 if a == axis else 1 for a in range(axes)])
    wavelet[(0,) * axes] += 0.4
    rho = convolve(wavelet, np.flip(wavelet), method="direct")
    return rho / rho[tuple(n // 2 for n in rho.shape)]


def sigma(posterior: Posterior) -> np.ndarray:
    """The stored covariance U (Λ - H) Uᵀ + S R S as a dense matrix, from its definition and in double precision."""
    U, variances, d = (part.double().numpy() for part in posterior.covariance.factors())
    shared = posterior.covariance.shared.double().numpy()
    variances, d = variances - shared, d + U**2 @ shared
    shape, rho = posterior.mean.shape, posterior.covariance.correlation
    places = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).reshape(-1, len(shape))
    lags = places[None] - places[:, None]
    if rho is None:
        R = np.eye(len(places))
    else:
        half = np.array([0, *(n // 2 for n in rho.shape)])
        inside = np.all(np.abs(lags) <= half, -1)
        R = np.zeros(inside.shape)
        R[inside] = rho.double().numpy()[None][tuple((lags[inside] + half).T)]
    return (U * variances) @ U.T + np.sqrt(d)[:, None] * R * np.sqrt(d)


def make(
    folder: Path,
    shape: tuple[int, ...] = (1, 72, 96),
    rank: int = 12,
    *,
    estimate: bool = False,
    measured: bool = True,
    reference: bool = True,
    share: bool = False,
    local: bool = False,
    **changes,
) -> Path:
    """Write run.json and the safetensors files of a run; `changes` replaces top-level entries of run.json.

    `local` stores a correlation kernel with the covariance, and little variance in its components.
    """
    folder.mkdir(parents=True, exist_ok=True)
    axes = tuple(range(1, len(shape)))
    truth = specimen(shape)
    random = np.random.default_rng(1)
    frequency = sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(n) for n in shape[1:]], indexing="ij"))
    otf = np.exp(-2 * (np.pi * 1.6) ** 2 * frequency)
    noise_std = 8.0
    blur = np.fft.ifftn(np.fft.fftn(truth, axes=axes) * otf, axes=axes).real
    data = blur + noise_std * random.standard_normal(shape)
    level = float(data.mean())
    power = np.mean(np.abs(np.fft.fftn(truth - level, axes=axes, norm="ortho")) ** 2, axis=0)
    law = 1 / (frequency + 2e-3) ** 1.5
    law *= power.mean() / law.mean()
    gain = law * otf / (law * otf**2 + noise_std**2)
    mean = level + np.fft.ifftn(np.fft.fftn(data - level, axes=axes) * gain, axes=axes).real
    prediction = np.fft.ifftn(np.fft.fftn(mean, axes=axes) * otf, axes=axes).real
    arrays = {"data": data, "prediction": prediction, "noise_std": np.full(shape, noise_std)}
    if reference:
        arrays["reference"] = truth
    if share:
        arrays["data_share"] = np.clip((mean - mean.min()) / np.ptp(mean), 0, 1)
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    std = None
    if estimate:
        write_safetensors(folder / "estimate.safetensors", {"image": mean.astype(np.float32)}, overwrite=True)
    else:
        envelope = 0.6 + 0.8 * (truth - truth.min()) / np.ptp(truth)
        length = 0.05 * min(shape[-2:])
        smooth = np.exp(-2 * (np.pi * length) ** 2 * frequency)
        spectrum = torch.from_numpy(smooth / smooth.mean() + 0.3).float()
        U, values, rest = StationaryCovariance(spectrum, shape).factors(rank)
        error = float(np.sqrt(np.mean((mean - truth) ** 2) / np.mean(envelope**2) / 1.3))
        g = error * torch.from_numpy(envelope).float().reshape(-1)
        correlation = torch.from_numpy(kernel(len(axes))) if local else None
        if local:  # most of the variance outside the components
            rest, values = rest + 0.995 * U.square() @ values, 0.005 * values
        shared = 0.3 * values if local else None
        posterior = Posterior(
            torch.from_numpy(mean).float(),
            Status(True, "closed-form", "Closed form."),
            covariance=LowRankDiagonal(U * g[:, None], values, rest * g**2, shape, correlation, shared),
        )
        posterior.save(folder / "posterior.safetensors", overwrite=True)
        std = posterior.std.numpy()
    if measured:
        write_safetensors(folder / "measurement.safetensors", arrays, overwrite=True)
    figures = derive(
        mean.astype(np.float32),
        std,
        **({k: arrays.get(k) for k in ("data", "prediction", "noise_std", "reference")} if measured else {}),
    ).values
    run = {
        "obverse": "0.1.0",
        "command": ["obverse", "reconstruct", "cells.ome.tif", "-o", "out", "--instrument", "microscopy"],
        "instrument": "microscopy",
        "method": {"name": "richardson-lucy" if estimate else "gaussian", "rank": rank},
        "settings": {"psf": "psf.tif", "background": "auto", "pixel_size_nm": 65.0},
        "seed": 0,
        "started": "2026-11-21T09:30:00Z",
        "seconds": 3.2,
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "inputs": [
            {"role": "data", "name": "cells.ome.tif", "sha256": "0" * 64, "bytes": 123456},
            {"role": "reference", "name": "truth.ome.tif", "sha256": "1" * 64, "bytes": 123460},
        ],
        "outputs": {p.name: sha256(p) for p in sorted(folder.glob("*.safetensors"))},
        "figures": {**figures, "evaluations": 1, "seconds": 3.2},
        "diagnostics": {},
        "status": {"converged": True, "reason": "closed-form", "message": "The posterior was computed in closed form."},
        "warnings": [],
        "target": None if estimate else "posterior",
        "axes": "CZYX" if len(shape) == 4 else "CYX",
        "spacing": [None, 0.2, 0.065, 0.065] if len(shape) == 4 else [None, 0.065, 0.065],
        "spacing_unit": "um",
        "intensity_unit": "counts",
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder
