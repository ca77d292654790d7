"""Cases of cone-beam projection."""

import math

import numpy as np

from obverse import operators as ops
from tests.operators.case import Case

ANGLES = (0.3, 1.4, 4.0)


def cone_matrix(grid, angles, detector, *, source, behind, spacing, pitch, offset):
    """Each ray followed plane by plane, with the tent weight of each voxel looked up one at a time."""
    depth, height, width = grid
    matrix = np.zeros((len(angles), *detector, *grid))
    for view, angle in enumerate(angles):
        cosine, sine = math.cos(angle), math.sin(angle)
        for row, column in np.ndindex(*detector):
            v = (row - (detector[0] - 1) / 2) * pitch[0] + offset[0]
            u = (column - (detector[1] - 1) / 2) * pitch[1] + offset[1]
            start = np.array([0.0, -source * cosine, source * sine])  # z, y upwards, x
            end = np.array([v, behind * cosine + u * sine, -behind * sine + u * cosine])
            direction = (end - start) / np.linalg.norm(end - start)
            per_voxel = np.abs(direction) / spacing
            axis = int(np.argmax(per_voxel))
            for plane in range(grid[axis]):
                centre = (plane - (grid[axis] - 1) / 2) * spacing[axis] * (-1 if axis == 1 else 1)
                point = start + (centre - start[axis]) / direction[axis] * direction
                for voxel in np.ndindex(*grid):
                    if voxel[axis] != plane:
                        continue
                    place = (
                        (voxel[0] - (depth - 1) / 2) * spacing[0],
                        ((height - 1) / 2 - voxel[1]) * spacing[1],
                        (voxel[2] - (width - 1) / 2) * spacing[2],
                    )
                    away = [abs(point[i] - place[i]) / spacing[i] for i in range(3) if i != axis]
                    weight = max(1 - away[0], 0) * max(1 - away[1], 0)
                    matrix[(view, row, column, *voxel)] = weight / per_voxel[axis]
    return matrix.reshape(len(angles) * math.prod(detector), -1)


def cone_case(grid, detector, engine, *, channels=1, source=5.0, behind=2.0, spacing=(1.0,) * 3, offset=(0.0, 0.0)):
    pitch = (0.8, 1.1)

    def make(precision):
        return ops.ConeBeam(
            (channels, *grid),
            ANGLES,
            detector,
            source_distance=source,
            detector_distance=behind,
            spacing=spacing,
            detector_spacing=pitch,
            detector_offset=offset,
            dtype=precision,
            engine=engine,
        )

    def dense():
        one = cone_matrix(
            grid, ANGLES, detector, source=source, behind=behind, spacing=spacing, pitch=pitch, offset=offset
        )
        return np.kron(np.eye(channels), one)

    return Case(make, dense)


CASES = {
    "cone beam": cone_case((2, 3, 4), (3, 4), "auto", channels=2, offset=(0.2, -0.3)),
    "cone beam torch": cone_case((2, 4, 3), (2, 4), "torch", offset=(-0.1, 0.4)),
    # slices so thin that some rays advance fastest through them
    "cone beam thin slices": cone_case((6, 3, 3), (4, 3), "auto", source=4.0, behind=0.0, spacing=(0.2, 1.0, 0.9)),
    "cone beam thin slices torch": cone_case((4, 2, 2), (4, 2), "torch", behind=0.0, spacing=(0.2, 1.0, 0.9)),
}
