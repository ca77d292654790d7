"""Cases of tomography: Joseph's model of a line integral, one ray and one pixel at a time."""

import math

import numpy as np
import torch

from obverse import operators as ops
from tests.operators.case import Case


def joseph_row(grid, spacing, point, direction):
    """Weights of the pixels in the integral along one line, by definition."""
    height, width = grid
    row = np.zeros(grid)
    column, line = point[0] / spacing + (width - 1) / 2, (height - 1) / 2 - point[1] / spacing
    to_column, to_line = direction[0], -direction[1]
    length = math.hypot(to_column, to_line)
    if abs(to_line) >= abs(to_column):
        step = spacing * length / abs(to_line)
        for i in range(height):
            at = column + (i - line) * to_column / to_line
            for j in range(width):
                row[i, j] = step * max(0.0, 1 - abs(at - j))
    else:
        step = spacing * length / abs(to_column)
        for j in range(width):
            at = line + (j - column) * to_line / to_column
            for i in range(height):
                row[i, j] = step * max(0.0, 1 - abs(at - i))
    return row.ravel()


def projection_matrix(image_shape, angles, detectors, ray, spacing, detector_spacing, offset):
    rows = []
    for theta in angles:
        along, ahead = (math.cos(theta), math.sin(theta)), (-math.sin(theta), math.cos(theta))
        for k in range(detectors):
            point, direction = ray((k - (detectors - 1) / 2) * detector_spacing + offset, along, ahead)
            rows.append(joseph_row(image_shape[1:], spacing, point, direction))
    return np.kron(np.eye(image_shape[0]), np.array(rows))


def parallel_ray(s, along, ahead):
    return (s * along[0], s * along[1]), ahead


def flat_ray(source, detector):
    def ray(s, along, ahead):
        start = [-source * a for a in ahead]
        end = [detector * a + s * u for a, u in zip(ahead, along)]
        return start, [e - b for e, b in zip(end, start)]

    return ray


def arc_ray(source, detector):
    def ray(s, along, ahead):
        gamma = s / (source + detector)
        return [-source * a for a in ahead], [math.cos(gamma) * a + math.sin(gamma) * u for a, u in zip(ahead, along)]

    return ray


# no view at exactly 45°, where rows or columns would both do
_ANGLES = [0.1, 0.9, math.pi / 2, 2.2, 3.0, -1.3]


def _radon(image_shape, detectors, engine, spacing=1.0, detector_spacing=1.0, offset=0.0):
    def make(dtype):
        return ops.Radon(
            image_shape,
            _ANGLES,
            detectors,
            spacing=spacing,
            detector_spacing=detector_spacing,
            detector_offset=offset,
            engine=engine,
            dtype=dtype,
        )

    return Case(
        make,
        lambda: projection_matrix(image_shape, _ANGLES, detectors, parallel_ray, spacing, detector_spacing, offset),
    )


def _fan(image_shape, detectors, detector, source, distance, detector_spacing, spacing=1.0, offset=0.0, engine="auto"):
    def make(dtype):
        return ops.FanBeam(
            image_shape,
            torch.tensor(_ANGLES, dtype=torch.float64),
            detectors,
            source_distance=source,
            detector_distance=distance,
            detector_spacing=detector_spacing,
            spacing=spacing,
            detector=detector,
            detector_offset=offset,
            engine=engine,
            dtype=dtype,
        )

    ray = (flat_ray if detector == "flat" else arc_ray)(source, distance)
    return Case(
        make, lambda: projection_matrix(image_shape, _ANGLES, detectors, ray, spacing, detector_spacing, offset)
    )


CASES = {
    "radon": _radon((1, 6, 6), 9, "auto"),
    "radon torch": _radon((1, 6, 6), 9, "torch"),
    "radon channels": _radon((4, 3, 4), 5, "auto"),
    "radon rectangular": _radon((1, 4, 7), 8, "auto", spacing=0.7, detector_spacing=0.5, offset=0.3),
    "radon coarse torch": _radon((1, 7, 4), 3, "torch", spacing=1.3, detector_spacing=2.5, offset=-0.4),
    "fan flat": _fan((1, 6, 6), 8, "flat", 7.0, 5.0, 1.7),
    "fan wide": _fan((1, 6, 5), 9, "flat", 4.1, 1.0, 3.0, offset=0.4),
    "fan arc": _fan((2, 4, 6), 7, "arc", 8.0, 0.0, 0.8, spacing=0.9, offset=-0.2),
    "fan arc torch": _fan((1, 4, 6), 7, "arc", 5.0, 4.0, 2.0, engine="torch"),
}
