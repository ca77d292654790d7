"""Build report.html: read what a run stored, derive its numbers again, pack the pictures, fill the page.

The page is one file of at most 10 MB that fetches nothing: its style and script are inside and admitted by their hashes
(Content-Security-Policy), its pictures are quantised arrays. Pictures that would not fit are shown as block means, and
the page says so; so it does when the shipped factors give other region intervals than the stored posterior.
"""

__all__ = ["MAX_BYTES", "write"]

import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import NumericsError
from ..io.safe import atomic_write
from .contents import Contents, read
from .figures import Figures, compare, derive
from .packing import Plan, block_mean, block_sizes, dequantise, make_plan, quantise
from .page import RECTANGLES, SLIDERS, Page, render
from .words import alarms

MAX_BYTES = 10_000_000

_LENGTHS = {"um": "µm", "µm": "µm", "nm": "nm", "mm": "mm", "angstrom": "Å"}
_LEAST_SHARE = 0.5
"""Share of the variance below which correlations from the components alone are not to be trusted."""


def write(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into the output folder of a run, from its stored files only.

    Args:
        folder: holds run.json, posterior.safetensors or estimate.safetensors, and measurement.safetensors if any.

    Returns:
        The path of the report; it replaces an older one in one step.

    Raises:
        InputError: the folder holds no finished run.
        FormatError: a stored file is damaged; then no report is written, and an older one is left as it is.
    """
    contents = read(Path(folder))
    figures = derive(
        contents.mean,
        contents.std,
        contents.array("data"),
        contents.array("prediction"),
        contents.array("noise_std"),
        contents.array("reference"),
    )
    disagreements = compare(contents.run["figures"], figures.values)
    budget = MAX_BYTES * 3 // 4 - 300_000
    for _ in range(4):
        page = _compose(contents, figures, disagreements, budget)
        text = render(page, *_sources()).encode("utf-8")
        if len(text) <= MAX_BYTES:
            path = contents.folder / "report.html"
            with atomic_write(path, overwrite=True) as file:
                file.write(text)
            return path
        budget -= (len(text) - MAX_BYTES) * 3 // 4 + 100_000
    raise NumericsError(
        f"a report expects at most {MAX_BYTES} bytes, got {len(text)}; shorten the settings in run.json"
    )


def _compose(contents: Contents, figures: Figures, disagreements: list[str], budget: int) -> Page:
    shown = {
        "mean": (contents.mean, 16, None),
        "std": (None if contents.std is None else np.square(contents.std, dtype=np.float64), 16, None),
        "data": (contents.array("data"), 16, None),
        "reference": (contents.array("reference"), 16, None),
        "residual": (figures.residual, 8, (-8.0, 8.0)),
        "data_share": (contents.array("data_share"), 8, (0.0, 1.0)),
    }
    value_bytes = sum(bits // 8 for array, bits, _ in shown.values() if array is not None)
    count = 0 if contents.variances is None else len(contents.variances)
    plan = make_plan(contents.mean.shape, count, value_bytes, budget)
    arrays = {}
    for name, (array, bits, limits) in shown.items():
        if array is not None:
            small = block_mean(array, plan.factors)
            # The mean of variances, not of standard deviations: the root mean square is what a pixel of a block has.
            arrays[name] = quantise(np.sqrt(small) if name == "std" else small, bits, limits)
    payload = _geometry(contents, plan)
    warnings = [*contents.warnings, *alarms(figures.values, figures.whiteness)]
    error = None
    share = float(contents.shares()[: plan.components].sum())
    if contents.covariance is not None and share < _LEAST_SHARE:
        warnings.append(
            f"The {plan.components} components here hold {100 * share:.2g} % of the posterior's variance; the "
            "rest is treated as independent from pixel to pixel, although errors of neighbouring pixels usually hang "
            "together. Each pixel's own standard deviation is right, but the correlations and the intervals of regions "
            "shown here leave that out and may be far too wide or too narrow."
        )
    if contents.covariance is not None:
        payload, arrays = _pack_covariance(contents, plan, payload, arrays)
        error = _region_error(contents, payload, arrays)
        if error > 0.1:
            warnings.append(
                f"Region intervals drawn in this page may be off by {100 * error:.0f} % of their width, since only "
                f"{plan.components} components fit into it; use Posterior.load(...).interval(region) for exact ones."
            )
    payload["arrays"] = arrays
    if figures.whiteness is not None:
        payload["autocorrelation"] = quantise(figures.whiteness.correlation, 8, (-0.2, 0.2))
    return Page(contents, figures, plan, payload, tuple(disagreements), tuple(warnings), error, share)


def _geometry(contents: Contents, plan: Plan) -> dict[str, Any]:
    """Shapes, block sizes, pixel sizes and units of what is shown; a 2-D image is a stack of one plane."""
    run, shape = contents.run, contents.mean.shape
    depth = shape[1] if len(shape) == 4 else 1
    full = {"z": depth, "y": shape[-2], "x": shape[-1]}
    factors = dict(zip("zyx", (*(1,) * (3 - len(plan.factors)), *plan.factors)))
    sizes = {axis: -(-full[axis] // factors[axis]) for axis in "zyx"}
    spacing = run.get("spacing")
    steps = dict.fromkeys("yx", 1.0)
    unit = "px"
    if isinstance(spacing, list) and len(spacing) >= 2 and all(map(_is_length, spacing[-2:])):
        steps = {"y": float(spacing[-2]), "x": float(spacing[-1])}
        unit = _LENGTHS.get(str(run.get("spacing_unit")), str(run.get("spacing_unit") or "units")[:40])
    finite = np.where(np.isfinite(contents.mean), contents.mean, -np.inf)
    peak = np.unravel_index(int(np.argmax(finite[0])), finite[0].shape)
    at = dict(zip("zyx"[-len(peak) :], (int(p) for p in peak)))
    at = {axis: at.get(axis, 0) // factors[axis] for axis in "zyx"}
    counts = {a: block_sizes((full[a],), (factors[a],)).astype(int).tolist() for a in "zyx"}
    return {
        "shape": [shape[0], sizes["z"], sizes["y"], sizes["x"]],
        "full": full,
        "factors": factors,
        "counts": counts,
        "plane": at["z"],
        "peak": {"x": at["x"], "y": at["y"], "z": at["z"]},
        "pixel": {
            "step": steps["x"] * factors["x"],
            "aspect": steps["y"] * factors["y"] / (steps["x"] * factors["x"]),
            "unit": unit,
        },
        "intensity": str(run.get("intensity_unit") or "units")[:40],
        "variances": [],
        "directions": [],
        "peaks": [],
    }


def _is_length(step: Any) -> bool:
    return isinstance(step, int | float) and not isinstance(step, bool) and 0 < step < float("inf")


def _pack_covariance(contents: Contents, plan: Plan, payload: dict, arrays: dict) -> tuple[dict, dict]:
    """Quantise B U, and the standard deviations of B x that the shown pixels have."""
    assert contents.directions is not None and contents.variances is not None and contents.diagonal is not None
    kept = plan.components
    sizes = block_sizes(contents.mean.shape[1:], plan.factors)
    block_variance = block_mean(contents.diagonal, plan.factors) / sizes
    packed, peaks = [], []
    for k, direction in enumerate(contents.directions):
        shrunk = block_mean(direction, plan.factors)
        block_variance = block_variance + float(contents.variances[k]) * np.square(shrunk, dtype=np.float64)
        if k < kept:
            limit = float(np.abs(shrunk).max())
            packed.append(quantise(shrunk, plan.bits, (-limit, limit)))
            peaks.append(max(float(np.sqrt(contents.variances[k])) * limit, 1e-30))
    payload = {
        **payload,
        "variances": [float(v) for v in contents.variances[:kept]],
        "directions": packed,
        "peaks": peaks[:SLIDERS],
    }
    if plan.reduced:
        arrays = {**arrays, "block_std": quantise(np.sqrt(block_variance), 16)}
    return payload, arrays


def _region_error(contents: Contents, payload: dict, arrays: dict) -> float:
    """Largest relative error, over random rectangles, of the standard deviation that the browser gives to a region."""
    import torch

    shape = contents.mean.shape
    std = dequantise(arrays.get("block_std", arrays["std"])).reshape(payload["shape"])
    directions = np.stack([dequantise(p) for p in payload["directions"]]) if payload["directions"] else np.zeros((0, 1))
    directions = directions.reshape(-1, *payload["shape"])
    variances = np.asarray(payload["variances"])
    diagonal = np.clip(std**2 - np.einsum("k,k...->...", variances, directions**2), 0, None)
    random, worst = np.random.default_rng(0), 0.0
    y_counts, x_counts = (np.asarray(payload["counts"][axis], np.float64) for axis in "yx")
    for _ in range(RECTANGLES):
        c, z = random.integers(payload["shape"][0]), random.integers(payload["shape"][1])
        (y0, y1), (x0, x1) = (np.sort(random.integers(0, n, 2)) for n in payload["shape"][2:])
        box = (c, z, slice(y0, y1 + 1), slice(x0, x1 + 1))
        weights = np.outer(y_counts[y0 : y1 + 1], x_counts[x0 : x1 + 1])
        weights /= weights.sum()
        projections = np.einsum("kyx,yx->k", directions[(slice(None), *box)], weights)
        ours = float(np.sum(weights**2 * diagonal[box]) + np.sum(variances * projections**2))
        w = torch.zeros(shape, dtype=contents.covariance.dtype)
        f = payload["factors"]
        depth = slice(z * f["z"], (z + 1) * f["z"])
        rows, columns = slice(y0 * f["y"], (y1 + 1) * f["y"]), slice(x0 * f["x"], (x1 + 1) * f["x"])
        full_box = (c, rows, columns) if len(shape) == 3 else (c, depth, rows, columns)
        w[full_box] = 1 / w[full_box].numel()
        exact = float((w * contents.covariance.matvec(w)).sum())
        if exact > 0:
            worst = max(worst, abs(np.sqrt(ours / exact) - 1))
    return worst


def _sources() -> tuple[str, str, str]:
    """Template, style and script of the page, as packaged."""
    folder = resources.files("obverse.report") / "assets"

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    names = ("arrays.js", "colour.js", "uncertainty.js", "panel.js", "app.js", "controls.js")
    script = '"use strict";\n(() => {\n' + "\n".join(text(name) for name in names) + "})();\n"
    return text("template.html"), text("style.css"), script
