"""What a search yields, in an astronomer's terms: contrasts, places on the sky, completeness, maps and tables.

    contrast = flux / F_star,    limit = τ σ(p) / F_star,    P(detect) = Φ(S − τ)

since S/N is N(S, 1) where a source raises it by S; τ raises a false alarm in 1 − Φ(τ) of independent places. The limit
is in the flux that the test finds, which is less than a source's own where the method takes part of it for speckles;
divided by the throughput, where that was measured, it is the source's own. At a distance r only n = 2πr/FWHM places are
independent, and a scatter found from so few has to be charged for: by the quantile of Student's t with n − 1 degrees of
freedom at the same false-alarm rate, times √(1 + 1/n).

Separation, position angle and contrast take their covariance from (flux, x, y) by their derivatives.

References: Mawet et al., "Fundamental limitations of high contrast imaging set by small sample statistics", ApJ 2014.
Flasseur, Denis, Thiébaut, Langlois, "Exoplanet detection in angular differential imaging by statistical learning of the
nonstationary patch covariances", A&A 2018.
"""

__all__ = ["candidate_rows", "contrast_curve", "detection_probability", "export"]

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from ..io import columns, fits
from ..methods.detection import Candidate
from ..methods.small_sample import places_at, student_factor
from ..volume import Volume
from .exoplanet_characterisation import CERTAIN, QUANTILES, posterior_columns
from .exoplanet_spectra import spectrum_rows, write_spectra

_UNITS = {"x": "pix", "y": "pix", "separation_pix": "pix", "separation_mas": "mas", "theta": "deg", "pa": "deg"}
_UNITS |= {f"{name}_std": unit for name, unit in _UNITS.items()} | {"separation": "pix", "separation_arcsec": "arcsec"}


def detection_probability(snr: float, threshold: float) -> float:
    """The chance that a source that raises S/N by this much passes the threshold in other data alike.

    Example:
        >>> detection_probability(5.0, 5.0)
        0.5
    """
    return float(norm.cdf(snr - threshold))


def candidate_rows(candidates: Sequence[Candidate], facts: Mapping[str, Any], threshold: float) -> list[dict[str, Any]]:
    """One mapping for each candidate, strongest first: what `--json` prints and the table holds.

    Args:
        candidates: as a method gives them.
        facts: of the sequence: `centre` (x, y), `pixel_scale_arcsec`, `north`, `star_flux`.
        threshold: of the search.
    """
    x0, y0 = facts["centre"]
    rows = []
    for c in candidates:
        deviations = [math.sqrt(c.covariance[i][i]) for i in range(3)]
        row: dict[str, Any] = {"x": c.x, "y": c.y, "snr": c.snr, "flux": c.flux}
        row |= dict(zip(("flux_std", "x_std", "y_std"), deviations))
        distance, theta = c.separation((y0, x0)), c.angle((y0, x0))
        across = np.array([0.0, c.x - x0, c.y - y0]) / max(distance, 1e-9)
        around = np.degrees(np.array([0.0, -(c.y - y0), c.x - x0]) / max(distance, 1e-9) ** 2)
        star = facts.get("star_flux")
        jacobian = np.stack([across, around, [1.0 / star if star else 1.0, 0.0, 0.0]])
        covariance = jacobian @ np.array(c.covariance) @ jacobian.T
        row |= {"separation_pix": distance, "separation_pix_std": math.sqrt(covariance[0, 0])}
        if facts.get("pixel_scale_arcsec"):
            mas = 1000 * facts["pixel_scale_arcsec"]
            row |= {"separation_mas": mas * distance, "separation_mas_std": mas * row["separation_pix_std"]}
        row |= {"theta": theta, "theta_std": math.sqrt(covariance[1, 1])}
        if facts.get("north"):
            row |= {"pa": (theta - 90) % 360, "pa_std": row["theta_std"]}
        if star:
            row |= {"contrast": c.flux / star, "contrast_std": math.sqrt(covariance[2, 2])}
            row |= {"magnitude": -2.5 * math.log10(c.flux / star)} if c.flux > 0 else {}
        row["detection_probability"] = detection_probability(c.snr, threshold)
        if c.spectrum:
            row["spectrum"] = spectrum_rows(c, facts)
        row["covariance_flux_x_y"] = [list(line) for line in c.covariance]
        row["covariance_separation_theta_contrast" if star else "covariance_separation_theta_flux"] = (
            covariance.tolist()
        )
        rows.append(row)
    return rows


def contrast_curve(
    sigma: np.ndarray, facts: Mapping[str, Any], threshold: float, throughput: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Limits against separation in steps of a pixel, from where three places of a FWHM find room about the star.

    Args:
        sigma: `(H, W)`, NaN where nothing is known.
        facts: as for `candidate_rows`, and `fwhm`.
        threshold: τ.
        throughput: rows of distance, and η at τ, at the level for few places, and where 95 % are found, `(4, n)`:
            limits are divided by it. None is stated where the first or the last is NaN, none for few places where the
            second is.

    Returns:
        `separation` in pixels; `limit`: τ times the median of σ over the ring, over the star's flux where it is known;
            `limit_student`: the same, charged for few independent places; `limit_95`: found in 95 % of the cases;
            `throughput`, where it is given.
    """
    x0, y0 = facts["centre"]
    rows, columns_ = np.indices(sigma.shape)
    radius = np.hypot(rows - y0, columns_ - x0)
    found = []
    for r in range(1, int(radius.max()) + 1):
        ring = sigma[np.abs(radius - r) <= 0.5]
        ring = ring[np.isfinite(ring)]
        places = places_at(r, facts["fwhm"])
        # A ring that leaves the frame stands for its corners only.
        if places < 3 or len(ring) < math.pi * r:
            continue
        penalty = student_factor(places, threshold) / threshold
        found.append((r, threshold * float(np.median(ring)), penalty))
    separation, limit, penalty = np.array(found).reshape(-1, 3).T
    limit = limit / (facts.get("star_flux") or 1.0)
    deeper = (threshold + norm.ppf(CERTAIN)) / threshold
    curve = {"separation": separation, "limit": limit, "limit_student": limit * penalty, "limit_95": limit * deeper}
    if throughput is None:
        return curve
    at, *levels = throughput
    share, share_few, share_95 = (np.interp(separation, at, level) for level in levels)
    share_few = np.where(separation < at[0], np.nan, share_few)  # there the level is another than at the first distance
    shares = {"limit": share, "limit_student": share_few, "limit_95": share_95}
    known = np.isfinite(share + share_95) & (share > 0)
    curve = {name: values / shares.get(name, 1.0) for name, values in curve.items()} | {"throughput": share}
    return {name: values[known] for name, values in curve.items()}


def export(
    folder: Path,
    volume: Volume,
    arrays: Mapping[str, np.ndarray],
    std: np.ndarray | None,
    figures: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write maps as FITS and tables as ECSV into a folder.

    Args:
        folder: the output folder.
        volume: the sequence.
        arrays: `image` (flux), `snr`, `sigma` and `contrast`, each `(1, H, W)`, and the curve's arrays.
        std: not used: a search has no posterior of an image.
        figures: of the run: `candidates`.
        facts: of the sequence.
    """
    sky = fits.Sky(
        tuple(facts["centre"]), facts["pixel_scale_arcsec"], facts["north"] is not None, facts["target"] or None
    )
    unit, star = facts["unit"], facts.get("star_flux")
    cards = {
        "OBJECT": facts["object"],
        "FWHM": (facts["fwhm"], "of the PSF, in pixels"),
        "STARFLUX": (star, "of the star in one FWHM, counts") if star else None,
        "THRESHLD": (facts["threshold"], "S/N of a candidate"),
        "NORTHOFF": (facts["north_offset"], "degrees in the angles") if facts["north"] else None,
        "CREATOR": ("Obverse", "posteriors for imaging"),
    }
    maps = {
        "snr": ("snr", "", "signal-to-noise ratio of a point source at each pixel"),
        "flux": ("image", unit, "flux of a point source at each pixel, in a circle of one FWHM"),
        "sigma": ("sigma", unit, "standard deviation of that flux where there is none"),
        "contrast": (
            "contrast",
            "" if star else unit,
            f"{facts['threshold']:g}-sigma limit, in the {'contrast' if star else 'flux'} that the test finds",
        ),
    }
    for name, (key, what, sentence) in maps.items():
        told = (sentence, *volume.provenance)
        fits.write(arrays[key][0], folder / f"{name}.fits", sky=sky, unit=what, cards=cards, history=told)
    _candidates(folder / "candidates.ecsv", figures["candidates"], facts)
    if any("spectrum" in row for row in figures["candidates"]):
        write_spectra(folder / "spectra.ecsv", figures["candidates"], facts["unit"], _meta(facts))
    _curve(folder / "contrast_curve.ecsv", arrays, facts)
    if "candidate_draws" in arrays:
        _draws(folder / "candidate_posterior.ecsv", arrays["candidate_draws"], facts)


def _candidates(path: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["x", "y", "snr", "flux"]
    names = [name for name in names if name != "spectrum"]
    matrices = [name for name in names if name.startswith("covariance")]
    table: dict[str, list] = {name: [row.get(name, math.nan) for row in rows] for name in names if name not in matrices}
    for matrix in matrices:
        _, *axes = matrix.split("_")
        for i in range(3):
            for j in range(i, 3):
                table[f"cov_{axes[i]}_{axes[j]}"] = [row[matrix][i][j] for row in rows]
    units = {**_UNITS, "flux": facts["unit"], "flux_std": facts["unit"], "magnitude": "mag"}
    units |= {f"{name}_{key}": unit for name, unit in units.items() for key in QUANTILES}
    return columns.write_ecsv(path, table, {k: u for k, u in units.items() if u}, _meta(facts))


def _curve(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Path:
    scale = facts["pixel_scale_arcsec"]
    table = {"separation": arrays["curve_separation"].tolist()}
    if scale:
        table["separation_arcsec"] = (scale * arrays["curve_separation"]).tolist()
    table |= {name: arrays[f"curve_{name}"].tolist() for name in ("limit", "limit_student", "limit_95")}
    corrected = "curve_throughput" in arrays
    if corrected:
        table["throughput"] = arrays["curve_throughput"].tolist()
    meta = _meta(facts) | {
        "limit": f"{facts['threshold']:g} sigma, Gaussian, {'contrast' if facts.get('star_flux') else 'flux'}",
        "flux": "of the source itself" if corrected else "that the test finds, less than the source's own",
        "limit_student": "the same false-alarm rate with the few independent places at each separation",
        "limit_95": "found in 95 of 100 cases at the Gaussian false-alarm rate",
    }
    return columns.write_ecsv(path, table, _UNITS, meta)


def _draws(path: Path, draws: np.ndarray, facts: Mapping[str, Any]) -> Path:
    found = posterior_columns(draws[:, 1:].astype(np.float64), facts)
    table = {"candidate": (draws[:, 0].astype(int) + 1).tolist()} | {n: v.tolist() for n, v in found.items()}
    units = {**_UNITS, "flux": facts["unit"]}
    return columns.write_ecsv(path, table, {k: u for k, u in units.items() if u}, _meta(facts))


def _meta(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "x_star": facts["centre"][0],
        "y_star": facts["centre"][1],
        "pixel_scale_arcsec": facts["pixel_scale_arcsec"] or "unknown",
        "star_flux": facts.get("star_flux") or "unknown",
        "threshold": facts["threshold"],
        "false_alarm": float(norm.sf(facts["threshold"])),
        "theta": "degrees anticlockwise from +x, y upward",
        "pa": "degrees East of North" if facts["north"] else "not stated: North is not known",
        "provenance": list(facts["provenance"]),
    }
