"""Figures and picture of the study of planet detection, from its rows.

The area over all families is the mean over them. Errors are deviations of 400 bootstraps over sequences; those of
differences to PACO are of the same sequences, drawn alike. The real sequence has one background, and its rows differ by
their sources only: their errors do not hold what another background would change.
"""

import functools
import json
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from planet_sequences import FAMILIES, SOURCES, problem_of
from torch import Tensor

import obverse as ob

ORDER = ("median ADI", "PCA", "annular PCA", "LLSG", "PACO", "multi-scale PACO")
ORDER += ("deep PACO, seed 0", "deep PACO, seed 1")
BINS = (1.5, 4.0, 7.0, 11.0)  # FWHM
BOOTSTRAPS = 400
COLOURS = (
    (150, 150, 150),
    (230, 150, 40),
    (120, 170, 60),
    (60, 160, 160),
    (30, 90, 190),
    (120, 60, 170),
    (200, 40, 40),
    (235, 130, 130),
)


def judge(folder: Path, file: Path) -> None:
    """The figures of all rows, as JSON and as a picture beside `file`."""
    result: dict = {"families": {}, "area over all families": {}}
    every = {family: rows_in(folder / family) for family in FAMILIES}
    for family, rows in every.items():
        fwhm = problem_of(family).operator.fwhm
        result["families"][family] = {
            "fwhm": fwhm,
            "methods": {name: judged(found, rows["PACO"], fwhm) for name, found in rows.items()},
        }
    for name in [name for name in every[FAMILIES[0]] if all(name in rows for rows in every.values())]:
        compared = [compare(rows[name], rows["PACO"]) for rows in every.values()]
        area, more = (sum(each[k] for each in compared) / len(compared) for k in (0, 2))
        error, of_more = (math.hypot(*(each[k] for each in compared)) / len(compared) for k in (1, 3))
        numbers = {"area": area, "error": error, "above PACO": more, "error of that": of_more}
        result["area over all families"][name] = {key: round(value, 4) for key, value in numbers.items()}
    result["components"] = json.loads((folder / "components.json").read_text())
    result["fits"] = fitted(folder)
    result["versions"] = {"torch": torch.__version__, "obverse": ob.__version__}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    file.with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    picture(
        {family: {name: curve(list(found.values())) for name, found in rows.items()} for family, rows in every.items()}
    ).save(file.with_suffix(".png"))


def rows_in(folder: Path) -> dict[str, dict[int, dict]]:
    """By method and number of the sequence."""
    found = {}
    for path in sorted(folder.glob("*/")):
        if path.name != "fit":
            found[path.name] = {int(file.stem): json.loads(file.read_text()) for file in path.glob("*.json")}
    return {name: dict(sorted(found[name].items())) for name in sorted(found, key=ORDER.index)}


def compare(rows: dict[int, dict], reference: dict[int, dict]) -> tuple[float, float, float, float]:
    """Area and its error, and by how much it is above that of the reference on the same sequences, and its error."""
    shared = sorted(set(rows) & set(reference))
    first, second = [rows[index] for index in shared], [reference[index] for index in shared]
    a, b = torch.tensor(bootstrapped(first)), torch.tensor(bootstrapped(second))
    area = curve(first).area
    return area, float(a.std()), area - curve(second).area, float((a - b).std())


def judged(found: dict[int, dict], reference: dict[int, dict], fwhm: float) -> dict:
    rows = list(found.values())
    area, error, more, of_more = compare(found, reference)
    peaks = [peak for row in rows for peak in row["peaks"]]

    def beyond(threshold: float) -> dict[str, float]:
        above = [peak[2] is not None for peak in peaks if peak[0] >= threshold]
        return {"found": round(sum(above) / (SOURCES * len(rows)), 3), "false": above.count(False)}

    return {
        "sequences": len(rows),
        "sources": SOURCES * len(rows),
        "area": round(area, 4),
        "error": round(error, 4),
        "above PACO": round(more, 4),
        "error of that": round(of_more, 4),
        "found at a false-discovery rate of 0.1": round(curve(rows).recovered(0.1), 3),
        "at S/N 5": beyond(5.0),
        "at S/N 4": beyond(4.0),
        "area by distance in FWHM": {
            f"{low:g} to {high:g}": round(curve(rows, (low * fwhm, high * fwhm)).area, 3)
            for low, high in zip(BINS, BINS[1:])
        },
        "deviation of S/N": round(sum(row["deviation"] for row in rows) / len(rows), 3),
        "seconds": round(sorted(row["seconds"] for row in rows)[len(rows) // 2], 2),
    }


def curve(rows: list[dict], bounds: tuple[float, float] = (0.0, math.inf)) -> ob.methods.DetectionCurve:
    """Of the sources, and of the false peaks, within bounds of the distance from the star."""
    scores, right, sources = [], [], 0
    for row in rows:
        inside = [bounds[0] <= r < bounds[1] for r in row["distances"]]
        sources += sum(inside)
        for score, r, source, *_ in row["peaks"]:
            if bounds[0] <= r < bounds[1] if source is None else inside[source]:
                scores.append(score)
                right.append(source is not None)
    return ob.methods.detection_curve(scores, right, sources)


@functools.cache
def resampled(count: int) -> Tensor:
    return torch.randint(count, (BOOTSTRAPS, count), generator=torch.Generator().manual_seed(0))


def bootstrapped(rows: list[dict]) -> list[float]:
    """The area with sequences drawn anew; the same draws for every method."""
    parts = [
        (torch.tensor([p[0] for p in row["peaks"]]), torch.tensor([p[2] is not None for p in row["peaks"]]))
        for row in rows
    ]
    return [
        ob.methods.detection_curve(
            torch.cat([parts[i][0] for i in chosen]), torch.cat([parts[i][1] for i in chosen]), SOURCES * len(rows)
        ).area
        for chosen in resampled(len(rows)).tolist()
    ]


def fitted(folder: Path) -> dict:
    """Errors of flux, x and y over what is stated."""
    rows = [row for file in folder.glob("*/fit/*.json") for row in json.loads(file.read_text())["rows"]]
    good = [row for row in rows if row["converged"]]
    if not good:
        return {}
    error, covariance, bound = (
        torch.tensor([row[key] for row in good], dtype=torch.float64) for key in ("error", "covariance", "bound")
    )
    z, over = (error / matrix.diagonal(dim1=1, dim2=2).sqrt() for matrix in (covariance, bound))
    joint = (error * torch.linalg.solve(covariance, error)).sum(1)
    flux = torch.tensor([row["flux"] for row in good], dtype=torch.float64)
    place = error[:, 1:].square().sum(1)

    drawn = [row for row in good if "held" in row]
    held = torch.tensor([row["held"] for row in drawn] or [[[math.nan] * 3] * 2], dtype=torch.float64).mean(0)

    def three(values: Tensor) -> dict[str, float]:
        return {name: round(float(value), 3) for name, value in zip(("flux", "x", "y"), values)}

    return {
        "sources": len(rows),
        "not converged": len(rows) - len(good),
        "root mean square of error over stated deviation": three(z.square().mean(0).sqrt()),
        "the same by the median": three(1.4826 * z.abs().median(0).values),
        "root mean square of error over Cramér-Rao bound": three(over.square().mean(0).sqrt()),
        "68 % intervals hold": three((z.abs() < 0.9945).double().mean(0)),
        "95 % intervals hold": three((z.abs() < 1.96).double().mean(0)),
        "68 % intervals of the posterior hold": three(held[0]),
        "95 % intervals of the posterior hold": three(held[1]),
        "largest R-hat": round(max((row["rhat"] for row in drawn), default=math.nan), 3),
        "68 % regions of all three hold": round(float((joint < 3.506).double().mean()), 3),
        "95 % regions of all three hold": round(float((joint < 7.815).double().mean()), 3),
        "mean error of flux over flux": round(float((error[:, 0] / flux).mean()), 3),
        "median absolute error of flux over flux": round(float((error[:, 0] / flux).abs().median()), 3),
        "root mean square distance, pixels": round(float(place.mean().sqrt()), 3),
        "median distance, pixels": round(float(place.sqrt().median()), 3),
        "seconds each": round(sum(row["seconds"] for row in rows) / len(rows), 2),
    }


def picture(curves: dict[str, dict[str, ob.methods.DetectionCurve]]) -> Image.Image:
    """Found over false, a panel for each family."""
    width, height, margin, legend = 590, 340, 46, 170
    sheet = Image.new("RGB", (2 * width, 2 * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (family, found) in enumerate(curves.items()):
        left, top = number % 2 * width + margin, number // 2 * height + 24
        across, down = width - margin - legend - 16, height - 24 - 40
        for i in range(6):
            x, y = left + across * i / 5, top + down * (1 - i / 5)
            draw.line([(left, y), (left + across, y)], fill=(228, 228, 228))
            draw.line([(x, top), (x, top + down)], fill=(228, 228, 228))
            draw.text((x - 8, top + down + 4), f"{i / 5:.1f}", fill="black")
            draw.text((left - 22, y - 6), f"{i / 5:.1f}", fill="black")
        draw.text((left, top - 16), f"{family}: sources found over false-discovery rate, area", fill="black")
        for name, each in found.items():
            rate = torch.linspace(0, 1, 301).tolist()
            points = [(left + across * f, top + down * (1 - each.recovered(f))) for f in rate]
            draw.line(points, fill=COLOURS[ORDER.index(name)], width=2)
        x, y = left + across + 14, top
        for i, (name, each) in enumerate(found.items()):
            draw.text((x, y + 14 * i + 1), f"{name} {each.area:.3f}", fill=COLOURS[ORDER.index(name)])
    return sheet
