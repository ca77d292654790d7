"""Real tomographic data: are geometry and orientation right, and what does a prior buy where angles are missing?

Limited angle: discs of the Helsinki Tomography Challenge 2022 (fan beam, flat detector, arcs of 30 to 90 degrees) are
reconstructed by filtered back-projection and as the most probable image under total variation and positivity,
½‖Ax − y‖² + λ TV(x). λ was chosen on disc ta, the others are held out. The score is the challenge's: Matthews'
correlation of the thresholded image (here by Otsu's rule) with the reference on its 512 × 512 grid.

Full angle: a tooth scanned with a synchrotron (parallel beam, 181 views over 180 degrees). The centre of rotation is
found by registration: the last view, mirrored about column c, must be the first one. As the last lies 179.0 degrees
from the first, c is extrapolated from the first two views to 180. Two other rules check it: the views' centroids lie
on c + a cos θ + b sin θ, and the total variation of the back-projection is least at c.

The wrong geometries (turning the other way, arcs turned by 10 degrees, a centre in the detector's middle) are the
negative controls: they must do worse. The solver is stopped at ITERATIONS: `residual` and `converged` say how far it
came.

    OBVERSE_DATA=../shared/data python studies/ct_real_data.py          needs h5py for the tooth
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.filters import threshold_otsu
from torch import Tensor

from obverse.methods import MAP
from obverse.noise import Gaussian
from obverse.operators import FanBeam, LinearOperator, Radon
from obverse.priors import TotalVariation
from obverse.problem import Problem

SIZE, TRUTH_SIZE = 128, 512
DISCS = {"ta": "60deg", "tb": "90deg", "tc": "30deg", "td": "30deg"}
LAMBDA = 0.12  # best of 0.012, 0.12 and 1.2 on ta, at 256² and 300 iterations
TOOTH_LAMBDA = 0.01
ITERATIONS = {"htc": 2000, "tooth": 250}


def noise_level(y: Tensor) -> float:
    """Standard deviation of white noise by the second differences along the detector, which smooth data do not have."""
    second = y[..., 2:] - 2 * y[..., 1:-1] + y[..., :-2]
    return float(second.abs().median()) / 0.6745 / 6**0.5


def total_variation_image(A: LinearOperator, y: Tensor, strength: float, iterations: int) -> tuple[np.ndarray, dict]:
    sigma, began = noise_level(y), time.perf_counter()
    method = MAP(
        prior=TotalVariation(),
        weight=strength / sigma**2,
        positivity=True,
        max_iterations=iterations,
        tolerance=3e-3,
    )
    estimate = method(y, Problem(A, Gaussian(sigma)))
    said = {name: estimate.diagnostics[name] for name in ("solver", "iterations", "residual", "chi2")}
    said |= {"sigma": sigma, "converged": estimate.status.converged, "seconds": time.perf_counter() - began}
    return estimate.image[0].numpy(), said


def binned(y: np.ndarray, cells: int) -> Tensor:
    """The mean of so many neighbouring cells, as one channel."""
    return torch.as_tensor(y.reshape(len(y), -1, cells).mean(-1)[None], dtype=torch.float32)


def fan(data: dict, turn: float = 0.0, sense: float = 1.0) -> FanBeam:
    cells = TRUTH_SIZE // SIZE
    angles = sense * torch.as_tensor(np.deg2rad(data["angles_deg"] + turn))
    return FanBeam(
        (1, SIZE, SIZE),
        angles,
        data["sinogram"].shape[1] // cells,
        source_distance=float(data["source_origin_mm"]),
        detector_distance=float(data["source_detector_mm"] - data["source_origin_mm"]),
        detector_spacing=cells * float(data["detector_pixel_mm"]),
        spacing=cells * float(data["effective_pixel_mm"]),
    )


def score(image: np.ndarray, truth: np.ndarray) -> float:
    """Matthews' correlation coefficient, which for two classes is Pearson's."""
    given = torch.as_tensor(np.ascontiguousarray(image))[None, None]
    full = torch.nn.functional.interpolate(given, truth.shape, mode="bilinear").numpy()
    return float(np.corrcoef((full > threshold_otsu(full)).ravel(), truth.ravel())[0, 1])


def likeness(image: np.ndarray, truth: np.ndarray) -> float:
    coarse = truth.astype(float).reshape(len(image), len(truth) // len(image), len(image), -1).mean((1, 3))
    return float(np.corrcoef(image.ravel(), coarse.ravel())[0, 1])


def htc(folder: Path) -> tuple[dict, list[list[np.ndarray]]]:
    results, rows = {}, []
    for name, arc in DISCS.items():
        data = dict(np.load(folder / f"{name}_{arc}.npz"))
        truth = np.asarray(Image.open(folder / f"truth_{name}_category7.png"))
        y = binned(data["sinogram"], TRUTH_SIZE // SIZE)
        A = fan(data)
        back = A.filtered_backprojection(y, "hann")[0].numpy()
        image, said = total_variation_image(A, y, LAMBDA, ITERATIONS["htc"])
        others = {
            "as given": back,
            "turned by 10 degrees": fan(data, turn=10.0).filtered_backprojection(y, "hann")[0].numpy(),
            "turning the other way": fan(data, sense=-1.0).filtered_backprojection(y, "hann")[0].numpy(),
            "upside down": back[::-1],
        }
        results[name] = {
            "arc": arc,
            "mcc_fbp": score(back, truth),
            "mcc_tv": score(image, truth),
            "tv": said,
            "correlation_of_fbp_with_truth": {key: likeness(value, truth) for key, value in others.items()},
        }
        print(name, json.dumps(results[name]), flush=True)
        bright = np.quantile(image, 0.99)
        rows.append([truth.astype(float), back / max(np.quantile(back, 0.99), 1e-9), image / bright])
    return results, rows


def mirror_column(first: np.ndarray, last: np.ndarray) -> float:
    """Column about which one view mirrors into the other, to a fraction of a cell by a parabola."""
    columns = np.arange(len(first))
    trials = np.arange(0.35, 0.65, 0.25 / len(first)) * len(first)

    def misfit(centre: float) -> float:
        source = 2 * centre - columns
        inside = (source >= 0) & (source <= columns[-1])
        return float(np.mean((first - np.interp(source, columns, last))[inside] ** 2))

    values = np.array([misfit(c) for c in trials])
    i = int(values[1:-1].argmin()) + 1
    left, middle, right = values[i - 1 : i + 2]
    return float(trials[i] + 0.5 * (left - right) / (left - 2 * middle + right) * (trials[1] - trials[0]))


def rotation_centre(p: np.ndarray, theta: np.ndarray) -> float:
    """Of two views against the last, extrapolated to the view that would be 180 degrees away from it."""
    one, other = theta[:2] - (theta[-1] - np.pi)
    near, far = mirror_column(p[0], p[-1]), mirror_column(p[1], p[-1])
    return float((other * near - one * far) / (other - one))


def centroid_centre(p: np.ndarray, theta: np.ndarray) -> float:
    mass = np.clip(p, 0, None)
    centroid = (mass * np.arange(p.shape[1])).sum(1) / mass.sum(1)
    waves = np.stack((np.ones_like(theta), np.cos(theta), np.sin(theta)), 1)
    return float(np.linalg.lstsq(waves, centroid, rcond=None)[0][0])


def parallel(theta: np.ndarray, columns: int, centre: float) -> Radon:
    """Cells in pairs: the pair (2k, 2k + 1) lies at 2k + ½."""
    cells = columns // 2
    offset = (columns - 1) / 2 - centre
    angles = torch.as_tensor(theta)
    return Radon((1, cells, cells), angles, cells, spacing=2.0, detector_spacing=2.0, detector_offset=offset)


def roughness(image: Tensor) -> float:
    return float(TotalVariation().value(image))


def tooth(file: Path) -> tuple[dict, list[np.ndarray]]:
    import h5py  # pyright: ignore[reportMissingImports]

    with h5py.File(file) as h:
        raw, white, dark = (h[f"exchange/{key}"][:, 0].astype(float) for key in ("data", "data_white", "data_dark"))
        theta = np.deg2rad(h["exchange/theta"][:])
    p = -np.log(((raw - dark.mean(0)) / (white.mean(0) - dark.mean(0))).clip(1e-4))
    centre, columns, y = rotation_centre(p, theta), p.shape[1], binned(p, 2)
    curve = {}
    for shift in (-8, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 8):
        curve[shift] = roughness(parallel(theta, columns, centre + shift).filtered_backprojection(y, "hann"))
    A = parallel(theta, columns, centre)
    back = A.filtered_backprojection(y, "hann")[0].numpy()
    image, said = total_variation_image(A, y, TOOTH_LAMBDA, ITERATIONS["tooth"])
    wrong = parallel(theta, columns, (columns - 1) / 2).filtered_backprojection(y, "hann")[0].numpy()
    result = {
        "centre_by_registration": centre,
        "centre_by_centroids": centroid_centre(p, theta),
        "roughness_of_fbp_by_shift_of_centre": curve,
        "roughness_with_centre_in_the_middle": roughness(torch.as_tensor(wrong)[None]),
        "background_std_fbp": float(back[:20, 140:180].std()),
        "background_std_tv": float(image[:20, 140:180].std()),
        "tv": said,
    }
    bright = np.quantile(back, 0.995)
    return result, [wrong / bright, back / bright, image / bright]


def montage(rows: list[tuple[str, list[np.ndarray]]], side: int = 224) -> Image.Image:
    sheet = Image.new("L", (3 * side, len(rows) * (side + 14)), 255)
    for i, (words, pictures) in enumerate(rows):
        ImageDraw.Draw(sheet).text((4, i * (side + 14) + 1), words, fill=0)
        for j, picture in enumerate(pictures):
            grey = Image.fromarray((255 * np.clip(picture, 0, 1)).astype(np.uint8))
            sheet.paste(grey.resize((side, side), Image.Resampling.BILINEAR), (j * side, i * (side + 14) + 14))
    return sheet


def main() -> int:
    if "OBVERSE_DATA" not in os.environ:
        print("set OBVERSE_DATA to the folder of the data", file=sys.stderr)
        return 2
    folder = Path(os.environ["OBVERSE_DATA"]) / "ct"
    scan, tooth_row = tooth(folder / "tooth.h5")
    print("tooth", json.dumps(scan), flush=True)
    discs, rows = htc(folder / "htc2022")
    labels = [
        f"HTC {name}, {item['arc']}: reference | FBP, MCC {item['mcc_fbp']:.3f} | TV, MCC {item['mcc_tv']:.3f}"
        for name, item in discs.items()
    ]
    words = f"tooth: FBP, centre in the middle | FBP, centre {scan['centre_by_registration']:.2f} | TV"
    montage([(words, tooth_row), *zip(labels, rows)]).save(Path(__file__).with_suffix(".png"), optimize=True)
    settings = {"size": SIZE, "lambda": LAMBDA, "tooth_lambda": TOOTH_LAMBDA, "max_iterations": ITERATIONS}
    result = {"settings": settings, "tooth": scan, "htc": discs}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
