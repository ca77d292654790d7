"""A report of any posterior, from Python and without an instrument: what a run would store, then the page from it.

    OUT/posterior.safetensors, OUT/measurement.safetensors, OUT/run.json  →  OUT/report.html

Data on the image's grid are shown as they are. Others, such as k-space or a sinogram, are checked against the model all
the same (χ², histogram and autocorrelation of the whitened residual, complex data as real and imaginary parts), and
their adjoint Aᴴy is shown in their place, which is no measurement but has its shape.
"""

__all__ = ["make"]

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..errors import InputError
from ..io.record import plain, write_json
from ..io.safe import sha256, write_safetensors
from ..operators.base import LinearOperator
from ..posterior import Posterior
from ..posterior.calibration import Coverage
from ..problem import Problem
from .builder import write
from .figures import derive

_FILES = ("posterior.safetensors", "measurement.safetensors", "run.json", "report.html")


def make(
    posterior: Posterior,
    folder: str | os.PathLike[str],
    *,
    y: Tensor | None = None,
    problem: Problem | None = None,
    reference: Tensor | None = None,
    coverage: dict[str, Coverage] | None = None,
    name: str = "a posterior",
    unit: str = "units",
    spacing: Sequence[float] | None = None,
    spacing_unit: str = "px",
    rank: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Store a posterior in a folder and write `report.html` beside it.

    Args:
        posterior: of one image, `(C, H, W)` or `(C, D, H, W)`.
        folder: made if it is not there.
        y: the measured data, of the operator's data shape, real or complex; with `problem`.
        problem: operator and noise law of the data.
        reference: what the image is known to be, if it is.
        coverage: how often intervals held the truth on images where it is known: a name such as "all pixels" or a
            stratum, and what `posterior.coverage` found of it.
        name: of what is shown; the page's heading.
        unit: of the image's values.
        spacing: size of a pixel, (y, x) or (z, y, x).
        spacing_unit: of that: "um", "nm", "mm".
        rank: components stored; by default those the covariance holds, or 16.
        overwrite: replace an earlier report in the folder.

    Returns:
        The path of `report.html`.

    Raises:
        InputError: shapes do not fit, or the folder holds a report already.

    Example:
        >>> import tempfile
        >>> import obverse as ob
        >>> field = ob.priors.GaussianField(torch.ones(16, 16), (1, 16, 16))
        >>> problem = ob.Problem(ob.operators.Identity((1, 16, 16)), ob.noise.Gaussian(1.0))
        >>> posterior = ob.methods.Gaussian(field)(torch.ones(1, 16, 16), problem)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make(posterior, folder, y=torch.ones(1, 16, 16), problem=problem).name
        'report.html'
    """
    started, folder = time.gmtime(), Path(folder)
    if (y is None) != (problem is None):
        raise InputError("a report expects data and problem together, got one of them; pass y= and problem=")
    if reference is not None and reference.shape != posterior.mean.shape:
        raise InputError(
            f"a reference expects the image's shape {tuple(posterior.mean.shape)}, got {tuple(reference.shape)}"
        )
    present = [file for file in _FILES if (folder / file).exists()]
    if present and not overwrite:
        raise InputError(f"a report expects a folder of its own, got {folder} with {present[0]}; pass overwrite=True")
    folder.mkdir(parents=True, exist_ok=True)
    for file in present:
        (folder / file).unlink()
    if coverage is not None:
        found = {str(key): asdict(value) for key, value in coverage.items()}
        posterior = replace(posterior, diagnostics={**posterior.diagnostics, "coverage": found})
    posterior.save(folder / "posterior.safetensors", rank=rank)
    arrays = {} if y is None or problem is None else _measured(posterior.mean, y, problem)
    if reference is not None:
        arrays["reference"] = _real(reference)
    if arrays:
        write_safetensors(folder / "measurement.safetensors", arrays)
    stored = Posterior.load(folder / "posterior.safetensors")
    names = ("data", "prediction", "noise_std", "reference")
    figures = derive(stored.mean.numpy(), stored.std.numpy(), *(arrays.get(key) for key in names)).values
    settings = posterior.provenance.get("settings", {})
    record: dict[str, Any] = {
        "obverse": __version__,
        "instrument": "Python",
        "method": {"name": posterior.provenance.get("method", "a method"), **settings},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", started),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "inputs": [{"role": "data", "name": name}],
        "outputs": {file: sha256(folder / file) for file in _FILES[:2] if (folder / file).is_file()},
        "figures": figures,
        "diagnostics": dict(posterior.diagnostics),
        "status": asdict(posterior.status),
        "target": posterior.target,
        "intensity_unit": unit,
        "spacing_unit": spacing_unit,
    }
    if spacing is not None:
        record["spacing"] = [float(step) for step in spacing]
    write_json(folder / "run.json", plain(record))
    return write(folder)


def _measured(mean: Tensor, y: Tensor, problem: Problem) -> dict[str, np.ndarray]:
    """Data, prediction and noise level, and Aᴴy where the data have another grid than the image."""
    if tuple(y.shape) != tuple(problem.operator.data_shape):
        raise InputError(f"data expect shape {problem.operator.data_shape}, got {tuple(y.shape)}; pass one measurement")
    ideal = problem.operator(mean)
    spread = problem.noise.variance(ideal).sqrt().expand_as(ideal.real)
    # Where neither data nor model say anything, as between the lines of k-space, nothing was measured.
    spread = torch.where((y == 0) & (ideal == 0), torch.nan, spread)
    if y.is_complex():
        # Half of the variance in each part.
        spread = spread / 2**0.5
        arrays = {"data": _parts(y), "prediction": _parts(ideal), "noise_std": torch.cat([spread, spread])}
    else:
        arrays = {"data": y, "prediction": ideal, "noise_std": spread}
    found = {key: _real(array) for key, array in arrays.items()}
    if found["data"].shape != tuple(mean.shape) and isinstance(problem.operator, LinearOperator):
        back = problem.operator.adjoint(y)
        found["backprojection"] = _real(back.real if back.is_complex() else back)
    return found


def _parts(array: Tensor) -> Tensor:
    """Real and imaginary parts along the first axis."""
    return torch.cat([array.real, array.imag])


def _real(array: Tensor) -> np.ndarray:
    return np.ascontiguousarray(array.detach().cpu().to(torch.float32).numpy())
