"""How well is a real 8-coil brain recovered from 36 % of its lines: by CG-SENSE, and with sparse wavelets?

The measured block of the scan (320 × 168) is undersampled in retrospect: every fourth line and the 24 in the middle.
Sensitivities come from those 24 lines alone, by ESPIRiT. The head is wider than the field of view, so that both ends
of it lie on the same pixels: one set of sensitivities cannot describe that, and two are compared with it. The reference
is the root-sum-of-squares of the full data; reconstructions are brought to the same scale, the root-sum-of-squares of
the coils' images that they predict. It holds noise of its own, which no method recovers: `reproducible` is the PSNR of
the full data projected onto what the sensitivities can describe.

The weights of ½‖Ax − y‖² + λ Σ|Wx| and the iterations of CG are swept, and all are listed: which of a sweep is best is
seen with the reference in hand. With a path as argument the best are saved there as a picture, above five times their
differences from the reference.

    OBVERSE_DATA=../shared/data python studies/mri_real_data.py [PICTURE.png]
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from obverse.instruments.sensitivities import espirit
from obverse.methods import MAP
from obverse.noise import ComplexGaussian
from obverse.operators import Coils, Fourier, LinearOperator
from obverse.priors import WaveletL1
from obverse.problem import Problem
from obverse.solvers import cg

ACCELERATION, CALIBRATION = 4, 24
BLOCK = slice(44, 212)  # the columns that were measured
ITERATIONS = (3, 5, 8, 12, 20)
WEIGHTS = (1e-3, 2e-3, 4e-3, 8e-3)
LEVELS, PRIMAL_DUAL, TOLERANCE = 3, 150, 2e-2


def main() -> int:
    folder = os.environ.get("OBVERSE_DATA")
    if not folder:
        print("set OBVERSE_DATA to the folder with mri/brain_8ch_full_smallfov.npz", file=sys.stderr)
        return 2
    kspace = load(Path(folder))
    transform = Fourier(tuple(kspace.shape))
    coils = transform.adjoint(kspace)
    reference = root_sum_of_squares(coils)
    mask = lines(kspace.shape[-1])
    y = mask * kspace
    sigma = float(kspace[:, :16].abs().square().mean().sqrt())  # the outermost rows hold next to no signal
    print(f"{float(mask.mean()):.0%} of {kspace.shape[-1]} lines, noise {sigma:.4f} of the brightest pixel")
    rows: list[dict] = []
    best: dict[str, tuple[float, Tensor]] = {}

    def note(method: str, sets: int, setting: str, images: Tensor, **more: Any) -> None:
        """Score the coils' images that a method predicts, and keep the best of each sweep."""
        picture = root_sum_of_squares(images)
        psnr = float(-10 * (picture - reference).square().mean().log10())
        rows.append({"method": method, "sets": sets, "setting": setting, "psnr": round(psnr, 2), **more})
        print(f"{method:<14}{sets:>3} sets  {setting:<14}{psnr:>7.2f} dB  {more}", flush=True)
        name = f"{method}, {sets} sets"
        if name not in best or psnr > best[name][0]:
            best[name] = psnr, picture

    note("zero-filled", 0, "", transform.adjoint(y))
    for sets in (1, 2):
        S = Coils(espirit(y, CALIBRATION, sets=sets, crop=0.8).maps, (sets, *kspace.shape[1:]))
        A = Fourier(S.data_shape, mask) @ S
        note("reproducible", sets, "", S(S.solve(S.adjoint(coils), 1e-6)))
        for count in ITERATIONS:
            seconds, image = timed(cg_sense, A, y, count)
            note("CG-SENSE", sets, f"{count} iterations", S(image), seconds=seconds)
        for weight in WEIGHTS:
            seconds, estimate = timed(wavelets, A, y, sigma, weight)
            residual, converged = estimate.diagnostics["residual"], estimate.status.converged
            note(
                "wavelets", sets, f"λ = {weight:g}", S(estimate.image),
                seconds=seconds, residual=round(residual, 4), converged=converged,
            )  # fmt: skip
    result = {
        "data": "brain_8ch_full_smallfov",
        "lines": float(mask.mean()),
        "sigma": sigma,
        "rows": rows,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if len(sys.argv) > 1:
        save({"reference": reference, **{name: picture for name, (_, picture) in best.items()}}, Path(sys.argv[1]))
    return 0


def load(folder: Path) -> Tensor:
    """The measured block, `(coils, H, W)`, scaled so that the brightest pixel is one."""
    full = np.load(folder / "mri/brain_8ch_full_smallfov.npz")["kspace"][:, :, BLOCK]
    kspace = torch.from_numpy(np.ascontiguousarray(full))
    return kspace / root_sum_of_squares(Fourier(tuple(kspace.shape)).adjoint(kspace)).max()


def lines(count: int) -> Tensor:
    mask = torch.zeros(count)
    mask[count // 2 % ACCELERATION :: ACCELERATION] = 1
    mask[count // 2 - CALIBRATION // 2 : count // 2 + CALIBRATION // 2] = 1
    return mask


def cg_sense(A: LinearOperator, y: Tensor, iterations: int) -> Tensor:
    return cg(A.gram, A.adjoint(y), tolerance=0.0, max_iterations=iterations).x


def wavelets(A: LinearOperator, y: Tensor, sigma: float, weight: float) -> Any:
    # −log p of circular noise is |n|²/σ², so that λ of ½|n|² is 2λ/σ² in its units
    method = MAP(
        prior=WaveletL1(levels=LEVELS),
        weight=2 * weight / sigma**2,
        tolerance=TOLERANCE,
        max_iterations=PRIMAL_DUAL,
    )
    return method(y, Problem(A, ComplexGaussian(sigma)))


def root_sum_of_squares(coils: Tensor) -> Tensor:
    return coils.abs().square().sum(0).sqrt()


def timed(job: Callable, *arguments: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = job(*arguments)
    return round(time.perf_counter() - began, 2), result


def save(pictures: dict[str, Tensor], path: Path) -> None:
    from PIL import Image

    first = next(iter(pictures.values()))
    above = torch.cat(list(pictures.values()), -1)
    below = torch.cat([5 * (picture - first).abs() for picture in pictures.values()], -1)
    levels = (torch.cat([above / 0.7, below]).clamp(0, 1) * 255).round().to(torch.uint8)
    Image.fromarray(levels.numpy()).save(path)
    print(f"{path}: {'; '.join(pictures)}")


if __name__ == "__main__":
    sys.exit(main())
