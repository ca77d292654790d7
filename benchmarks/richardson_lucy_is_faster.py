"""Claim: 3-D Richardson–Lucy is at least 3 times as fast as scikit-image's at an equal result.

A volume of 64×256×256 voxels, blurred by a PSF of 15×31×31, Poisson counts, 10 iterations, float32. Two cases:

* "dark border": nothing within the width of the PSF of the border, so that every boundary condition describes the same
  data. Ours takes the circular one.
* "bright border": structure up to the border and light from nowhere else: zero boundary on both sides.

Both are compared with the true volume (PSNR, peak = its maximum) and with a float64 Richardson–Lucy of zero boundary
written here with scipy. scikit-image runs with clip=False. RedLionfish takes part where it is installed.

    python benchmarks/richardson_lucy_is_faster.py [--quick]
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.ndimage
import torch

import obverse as ob

ITERATIONS = 10


def main() -> None:
    from skimage.restoration import richardson_lucy

    quick = "--quick" in sys.argv
    shape, repeats = ((32, 128, 128), 2) if quick else ((64, 256, 256), 5)
    psf = kernel()
    table = []
    for case, boundary in (("dark border", "circular"), ("bright border", "zero")):
        truth = volume(shape, dark=boundary == "circular")
        ideal = blur(truth, psf, "zero")
        y = np.random.default_rng(1).poisson(ideal.clip(0)).astype(np.float32)
        reference = textbook(y.astype(float), psf.astype(float), "zero")
        A = ob.operators.Convolution(torch.from_numpy(psf), (1, *shape), boundary=boundary)
        problem = ob.Problem(A, ob.noise.Poisson(1.0))
        method, data = ob.methods.RichardsonLucy(iterations=ITERATIONS), torch.from_numpy(y)[None]
        rivals = {
            f"obverse, {boundary}": lambda m=method, d=data, p=problem: m(d, p).image[0].numpy(),
            "scikit-image, zero": lambda y=y: richardson_lucy(y, psf, num_iter=ITERATIONS, clip=False),
        }
        try:
            import RedLionfishDeconv as rl

            rivals["RedLionfish"] = lambda y=y: rl.doRLDeconvolutionFromNpArrays(y, psf, niter=ITERATIONS, method="cpu")
        except ImportError:
            pass
        times = {name: [] for name in rivals}
        images = {}
        for name, run in rivals.items():  # the first run is not counted
            images[name] = run()
        for _ in range(repeats):  # in turns, so that other load on the machine falls on all alike
            for name, run in rivals.items():
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
        inside = tuple(slice(n // 2, -(n // 2)) for n in psf.shape)
        for name, image in images.items():
            table.append(
                {
                    "case": case,
                    "method": name,
                    "milliseconds": 1e3 * min(times[name]),
                    "median_milliseconds": 1e3 * float(np.median(times[name])),
                    "psnr": psnr(image, truth),
                    "psnr_inside": psnr(image[inside], truth[inside]),
                    "difference": float(np.linalg.norm(image - reference) / np.linalg.norm(reference)),
                    "difference_inside": float(
                        np.linalg.norm((image - reference)[inside]) / np.linalg.norm(reference[inside])
                    ),
                }
            )
    print(f"{'case':15}{'method':22}{'min ms':>9}{'median':>9}{'PSNR':>8}{'inside':>8}{'rel. diff':>11}{'inside':>10}")
    for row in table:
        print(
            f"{row['case']:15}{row['method']:22}{row['milliseconds']:9.0f}{row['median_milliseconds']:9.0f}"
            f"{row['psnr']:8.2f}{row['psnr_inside']:8.2f}{row['difference']:11.1e}{row['difference_inside']:10.1e}"
        )
    result = {
        "shape": shape,
        "psf": psf.shape,
        "iterations": ITERATIONS,
        "threads": torch.get_num_threads(),
        "table": table,
        "speedup": {
            case: rows[1]["milliseconds"] / rows[0]["milliseconds"]
            for case in ("dark border", "bright border")
            if (rows := [row for row in table if row["case"] == case])
        },
    }
    print("scikit-image / obverse:", {case: round(factor, 2) for case, factor in result["speedup"].items()})
    if not quick:
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


def kernel() -> np.ndarray:
    z, y, x = np.meshgrid(np.arange(-7, 8), np.arange(-15, 16), np.arange(-15, 16), indexing="ij")
    width = 1.5 + 0.35 * np.abs(z)  # a cone of light, wider away from focus
    psf = np.exp(-(x**2 + y**2) / (2 * width**2)) / width**2 * np.exp(-(z**2) / (2 * 3.0**2))
    return (psf / psf.sum()).astype(np.float32)


def volume(shape: tuple[int, ...], dark: bool) -> np.ndarray:
    """Bright filaments and spots, a few hundred counts, on a dim haze."""
    rng = np.random.default_rng(0)
    noise = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), (1.5, 3, 3), mode="wrap")
    filaments = np.exp(-((noise / noise.std() / 0.12) ** 2)) * (
        scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 6, mode="wrap") > 0
    )
    image = 300 * scipy.ndimage.gaussian_filter(filaments, 0.7) + 2
    if dark:
        window = [np.zeros(n) for n in shape]
        for w, margin in zip(window, (14, 30, 30)):
            w[margin:-margin] = 1
        image = image * window[0][:, None, None] * window[1][:, None] * window[2]
    return image.astype(np.float32)


def blur(x: np.ndarray, psf: np.ndarray, boundary: str, adjoint: bool = False) -> np.ndarray:
    assert boundary == "zero"
    size = [scipy.fft.next_fast_len(n + k - 1, real=True) for n, k in zip(x.shape, psf.shape)]
    k = psf[::-1, ::-1, ::-1] if adjoint else psf
    full = scipy.fft.irfftn(scipy.fft.rfftn(x, size) * scipy.fft.rfftn(k, size), size)
    return full[tuple(slice(k // 2, k // 2 + n) for n, k in zip(x.shape, psf.shape))]


def textbook(y: np.ndarray, psf: np.ndarray, boundary: str) -> np.ndarray:
    normal = blur(np.ones_like(y), psf, boundary, adjoint=True)
    x = np.full_like(y, y.sum() / normal.sum())
    for _ in range(ITERATIONS):
        x *= blur(y / blur(x, psf, boundary).clip(1e-12), psf, boundary, adjoint=True) / normal
    return x


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(float(truth.max()) ** 2 / np.mean((image.astype(float) - truth) ** 2)))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
