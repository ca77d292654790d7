"""What a run has stored in its output folder, read back and checked.

Nothing else is consulted: the report says what these files say. A file whose SHA-256 is not the one that run.json
states, arrays whose shapes do not fit, and values that are not finite become sentences in `warnings`.
"""

__all__ = ["Contents", "read"]

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, InputError
from ..io.safe import read_safetensors, sha256

_MEASURED = ("data", "prediction", "noise_std")
_SEARCH = ("snr", "sigma", "contrast")  # maps that have no value where nothing could be searched for
_EXTRA = ("reference", "data_share", "backprojection", *_SEARCH)
_CURVES = ("frc_frequency", "frc_before", "frc_after")
_CURVES += ("curve_separation", "curve_limit", "curve_limit_student", "curve_limit_95", "curve_throughput")
_MAY_LACK_VALUES = ("noise_std", "curve_limit_student")  # what was not measured, and where no source would do
_DRAWS = "candidate_draws"  # (n, 4): number of the candidate, flux, x and y
_LARGEST_JSON = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Contents:
    """Stored results of one run, as numpy arrays of shape (C, H, W) or (C, D, H, W)."""

    folder: Path
    run: dict[str, Any]
    mean: np.ndarray
    std: np.ndarray | None = None
    posterior: Any = None
    """The loaded posterior. Σ = U (Λ - H) Uᵀ + S R S with S² = diag(d) + diag(U H Uᵀ), and R = I without a kernel."""
    directions: np.ndarray | None = None
    """(K, C, …): columns of U."""
    variances: np.ndarray | None = None
    """(K,): Λ."""
    excess: np.ndarray | None = None
    """(K,): Λ - H, what the components hold beyond the share H that S R S gives them already."""
    diagonal: np.ndarray | None = None
    """(C, …): S²."""
    kernel: np.ndarray | None = None
    """ρ, (kh, kw) or (kd, kh, kw), odd: the correlation that R has at each lag; zero outside."""
    target: str | None = None
    diagnostics: dict[str, Any] | None = None
    arrays: dict[str, np.ndarray] | None = None
    """data, prediction, noise_std, reference, data_share, backprojection, frc_*; of a search snr, sigma, contrast and
    curve_*, and candidate_draws: those that are stored."""
    elsewhere: dict[str, np.ndarray] | None = None
    """data, prediction and noise_std, where they have a grid of their own, such as k-space."""
    warnings: tuple[str, ...] = ()

    @property
    def searched(self) -> bool:
        """The run has searched for point sources; its mean is the map of their flux."""
        return self.array("snr") is not None

    def array(self, name: str) -> np.ndarray | None:
        """Return a stored array, or None."""
        return (self.arrays or {}).get(name)

    def measured(self, name: str) -> np.ndarray | None:
        """Return data, prediction or noise_std, on whatever grid, or None."""
        return (self.elsewhere or self.arrays or {}).get(name)

    def shares(self) -> np.ndarray:
        """Share of the total variance that each stored component holds, (K,)."""
        if self.directions is None or self.variances is None or self.std is None:
            return np.zeros(0)
        total = float(np.sum(np.square(self.std, dtype=np.float64)))
        powers = [v * np.sum(np.square(u, dtype=np.float64)) for v, u in zip(self.variances, self.directions)]
        return np.asarray(powers, np.float64) / total if total > 0 else np.zeros(len(powers))


def read(folder: Path) -> Contents:
    """Read run.json, posterior.safetensors or estimate.safetensors, and measurement.safetensors if it is there.

    Raises:
        InputError: the folder holds no finished run.
        FormatError: a file is damaged.
    """
    folder = Path(folder)
    run = _read_run(folder / "run.json")
    warnings = _check_hashes(folder, run)
    posterior, estimate = folder / "posterior.safetensors", folder / "estimate.safetensors"
    if posterior.is_file():
        fields: dict[str, Any] = _read_posterior(posterior)
    elif estimate.is_file():
        arrays = read_safetensors(estimate)[0]
        if "image" not in arrays:
            raise FormatError(f'{estimate.name}: expected an array "image"; got {sorted(arrays)}; run again')
        fields = {"mean": arrays["image"]}
    else:
        raise InputError(
            f"expected posterior.safetensors or estimate.safetensors in {folder}; got neither; "
            "give the output folder of a finished `obverse reconstruct`"
        )
    mean = fields["mean"]
    if np.iscomplexobj(mean) or mean.ndim not in (3, 4):
        raise InputError(
            f"expected a real image (C, H, W) or (C, D, H, W); got {mean.dtype} of shape {mean.shape}; "
            "store its magnitude, or its real and imaginary parts as two channels"
        )
    measurement = folder / "measurement.safetensors"
    stored = read_safetensors(measurement)[0] if measurement.is_file() else {}
    if not stored:
        warnings.append("No measurement.safetensors is stored: data and residual cannot be shown or checked.")
    elsewhere = _elsewhere(stored, mean.shape)
    kept, found = _fitting({name: array for name, array in stored.items() if name not in elsewhere}, mean.shape)
    complete: dict[str, np.ndarray | None] = {"reconstruction": mean, "standard deviation": fields.get("std"), **kept}
    if "snr" in kept:
        complete = {name: kept[name] for name in kept if name not in _SEARCH}
    warnings += found + _not_finite(complete)
    target = fields.get("target")
    if target is not None and run.get("target") not in (None, target):
        warnings.append(
            f"run.json states the target {run['target']!r}, but the stored posterior is of the kind {target!r}."
        )
    return Contents(folder=folder, run=run, arrays=kept, elsewhere=elsewhere, warnings=tuple(warnings), **fields)


def _read_run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"expected a run.json in {path.parent}; got none; give the output folder of `obverse reconstruct`"
        )
    if path.stat().st_size > _LARGEST_JSON:
        raise FormatError(f"{path.name}: expected at most 64 MiB; got {path.stat().st_size} bytes; run again")
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path.name}: expected JSON; got {error}; run again") from None
    if not isinstance(run, dict):
        raise FormatError(f"{path.name}: expected a JSON object; got {type(run).__name__}; run again")
    for key in ("figures", "diagnostics", "settings", "status", "versions", "outputs", "method"):
        if not isinstance(run.get(key), dict):
            run[key] = {}
    for key in ("warnings", "inputs", "command"):
        if not isinstance(run.get(key), list):
            run[key] = []
    return run


def _read_posterior(path: Path) -> dict[str, Any]:
    from ..posterior import Posterior
    from ..posterior.low_rank import LowRankDiagonal

    posterior = Posterior.load(path)
    mean = posterior.mean.detach().cpu().numpy()
    u, variances, diagonal = posterior.covariance.factors()
    assert isinstance(posterior.covariance, LowRankDiagonal)  # what a file holds
    kernel, shared = posterior.covariance.correlation, posterior.covariance.shared
    diagonal = diagonal + u.square() @ shared
    shared = shared.detach().cpu().numpy()
    u, variances = u.detach().cpu().numpy(), variances.detach().cpu().numpy()
    order = np.argsort(-variances * np.square(u, dtype=np.float64).sum(axis=0), kind="stable")
    return {
        "mean": mean,
        "std": posterior.std.detach().cpu().numpy(),
        "posterior": posterior,
        "directions": u.T[order].reshape(len(order), *mean.shape),
        "variances": np.clip(variances[order], 0.0, None),
        "excess": np.clip((variances - shared)[order], 0.0, None),
        "diagonal": diagonal.detach().cpu().numpy().reshape(mean.shape),
        "kernel": None if kernel is None else kernel.detach().cpu().numpy().astype(np.float64),
        "target": posterior.target,
        "diagnostics": dict(posterior.diagnostics or {}),
    }


def _fitting(stored: dict[str, np.ndarray], shape: tuple[int, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Keep what has the image's shape (curves: one axis); say what was left out."""
    kept, warnings = {}, []
    for name, array in stored.items():
        if name in _CURVES and array.ndim == 1:
            kept[name] = array
        elif name == _DRAWS and array.ndim == 2 and array.shape[1] == 4 and np.isfinite(array).all():
            kept[name] = array
        elif name in _MEASURED + _EXTRA and array.shape == shape:
            kept[name] = array
        elif name in _MEASURED + _EXTRA + _CURVES:
            warnings.append(f"The stored array {name} has shape {array.shape}, the image {shape}: it is not shown.")
    return kept, warnings


def _elsewhere(stored: dict[str, np.ndarray], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Data, prediction and noise level if they share a grid that is not the image's."""
    found = {name: stored[name] for name in _MEASURED if name in stored}
    shapes = {array.shape for array in found.values()}
    apart = len(found) == len(_MEASURED) and len(shapes) == 1 and shape not in shapes
    return found if apart and len(next(iter(shapes))) in (3, 4) else {}


def _not_finite(arrays: dict[str, np.ndarray | None]) -> list[str]:
    found = []
    for name, array in arrays.items():
        if array is not None and name not in _MAY_LACK_VALUES and not np.isfinite(array).all():
            count = int(array.size - np.isfinite(array).sum())
            found.append(f"The stored {name} holds {count} values that are not finite (drawn in grey).")
    return found


def _check_hashes(folder: Path, run: dict[str, Any]) -> list[str]:
    found = []
    for name, stated in run["outputs"].items():
        path = folder / str(name)
        if path.name != name or name in ("report.html", "run.json"):
            continue
        if not path.is_file():
            found.append(f"run.json lists the output {name}, which is no longer in the folder.")
            continue
        actual = sha256(path)
        if actual != stated:
            found.append(
                f"The file {name} is not the one that the run wrote: its SHA-256 is {actual}, run.json states {stated}."
            )
    return found
