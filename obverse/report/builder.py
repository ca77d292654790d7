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
from .densities import marginals
from .detection import overlay
from .detection_claims import detection_alarms
from .figures import Figures, compare, derive
from .packing import Plan, block_mean, block_sizes, dequantise, make_plan, quantise
from .page import render
from .parts import Page
from .uncertainty import DRAWS, SLIDERS, pack, region_error
from .windows import FILMED, find_window, looks
from .words import alarms, doubts

MAX_BYTES = 10_000_000

_LENGTHS = {"um": "µm", "µm": "µm", "nm": "nm", "mm": "mm", "angstrom": "Å"}
_LEAST_SHARE = 0.5
"""Share of the variance below which correlations from the components alone are not to be trusted."""

CLIP = 0.005
"""Share of the values at each end that the colours leave out: enough for one bright spot not to hide the rest."""


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
        contents.measured("data"),
        contents.measured("prediction"),
        contents.measured("noise_std"),
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
        "backprojection": (contents.array("backprojection"), 16, None),
        "residual": (None if contents.elsewhere else figures.residual, 8, (-8.0, 8.0)),
        "data_share": (contents.array("data_share"), 8, (0.0, 1.0)),
        "snr": (contents.array("snr"), 16, None),
        "sigma": (_logarithm(contents.array("sigma")), 16, None),
        "limit": (_logarithm(contents.array("contrast")), 16, None),
    }
    value_bytes = sum(bits // 8 for array, bits, _ in shown.values() if array is not None)
    count = 0 if contents.variances is None else len(contents.variances)
    value_bytes += 0 if contents.posterior is None else DRAWS
    plan = make_plan(contents.mean.shape, count, value_bytes, budget)
    arrays = {}
    for name, (array, bits, limits) in shown.items():
        if array is not None:
            small = block_mean(array, plan.factors)
            # The mean of variances, not of standard deviations: the root mean square is what a pixel of a block has.
            small = small[..., ::-1, :] if contents.searched else small
            arrays[name] = quantise(np.sqrt(small) if name == "std" else small, bits, limits)
    payload = _geometry(contents, plan)
    told = {**contents.run["diagnostics"], **(contents.diagnostics or {})}
    warnings = [*contents.warnings, *alarms(figures.values, figures.whiteness), *doubts(told)]
    warnings += detection_alarms(contents) if contents.searched else []
    error = None
    share = float(contents.shares()[: plan.components].sum())
    if contents.posterior is not None:
        if contents.kernel is None and share < _LEAST_SHARE:
            warnings.append(
                f"The {plan.components} components here hold {100 * share:.2g} % of the posterior's variance; the "
                "rest is treated as independent from pixel to pixel, although errors of neighbouring pixels usually "
                "hang together. Each pixel's own standard deviation is right, but the draws, the correlations and the "
                "intervals of regions shown here leave that out and may be far too wide or too narrow."
            )
        payload, arrays = pack(contents, plan, payload, arrays)
        error = region_error(contents, payload, arrays)
        if error > 0.1:
            warnings.append(
                f"Region intervals drawn in this page may be off by {100 * error:.0f} % of their width, since it "
                f"holds a coarser form of the posterior ({plan.components} components"
                f"{', block means' if plan.reduced else ''}); use Posterior.load(...).interval(region) for exact ones."
            )
    densities, sentences = _components(contents, plan, payload, arrays)
    payload["arrays"] = arrays
    if figures.whiteness is not None:
        payload["autocorrelation"] = quantise(figures.whiteness.correlation, 8, (-0.2, 0.2))
    return Page(
        contents, figures, plan, payload, tuple(disagreements), tuple(warnings), error, share, densities, sentences
    )


def _components(contents: Contents, plan: Plan, payload: dict[str, Any], arrays: dict) -> tuple[tuple, tuple[str, ...]]:
    """The density along each component with a slider, and what the first ones do where they lie."""
    if contents.posterior is None or contents.directions is None:
        return (), ()
    densities = marginals(contents.posterior, contents.directions[: min(SLIDERS, plan.components)])
    shape = payload["shape"]
    mean = dequantise(arrays["mean"]).reshape(shape)
    told = []
    for packed in payload["directions"][:FILMED]:
        direction = dequantise(packed).reshape(shape)
        window = find_window(direction)
        payload["windows"].append(window.facts())
        told.append(looks(window.cut(direction), window.cut(mean)))
    return tuple(densities), tuple(told)


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
        "overlay": overlay(contents, factors) if contents.searched else None,
        "peak": {"x": at["x"], "y": at["y"], "z": at["z"]},
        "pixel": {
            "step": steps["x"] * factors["x"],
            "aspect": steps["y"] * factors["y"] / (steps["x"] * factors["x"]),
            "unit": unit,
        },
        "intensity": str(run.get("intensity_unit") or "units")[:40],
        "clip": CLIP,
        "variances": [],
        "excess": [],
        "directions": [],
        "windows": [],
        "peaks": [],
        "draws": [],
    }


def _logarithm(values: np.ndarray | None) -> np.ndarray | None:
    """Decimal logarithm of a map that spans orders of magnitude; no number where it is not positive."""
    return None if values is None else np.log10(np.where(values > 0, values, np.nan))


def _is_length(step: Any) -> bool:
    return isinstance(step, int | float) and not isinstance(step, bool) and 0 < step < float("inf")


def _sources() -> tuple[str, str, str]:
    """Template, style and script of the page, as packaged."""
    folder = resources.files("obverse.report") / "assets"

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    names = (
        "arrays.js",
        "colour.js",
        "uncertainty.js",
        "panel.js",
        "app.js",
        "controls.js",
        "draws.js",
        "film.js",
        "start.js",
    )
    script = '"use strict";\n(() => {\n' + "\n".join(text(name) for name in names) + "})();\n"
    return text("template.html"), text("style.css"), script
