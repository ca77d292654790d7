"""Joseph's line integrals through a volume, compiled; imported only where numba is installed.

The volume comes with a border of one zero voxel, so that the inner loops have no branch at its faces. Forward, threads
share out the views; in the adjoint each thread owns a slab of slices and goes through all rays that cross it, so that
no two threads write to one voxel and each voxel's sum has one order, whatever the number of threads. The kernels
release the interpreter's lock, and no threading layer of numba is involved.
"""

import numpy as np

from ..compiled import compiled, over_ranges

__all__ = ["back_project", "project"]


def project(volume: np.ndarray, frames: np.ndarray, spacing: np.ndarray, data: np.ndarray, threads: int) -> None:
    """Integrate volumes `(B, D + 2, H + 2, W + 2)` along rays into `data` (B, views, rows, columns).

    Args:
        frames: `(views, 4, 3)`, float64, in voxels (z, y, x): source, first pixel, step per row, step per column.
        spacing: `(3,)`, voxel size.
    """
    over_ranges(_project, frames.shape[0], threads, volume, frames, spacing, data)


def back_project(data: np.ndarray, frames: np.ndarray, spacing: np.ndarray, volume: np.ndarray, threads: int) -> None:
    """Add each datum to the voxels of its ray, with the weights of `project`; `volume` starts as zeros."""
    over_ranges(_back_project, volume.shape[1], threads, data, frames, spacing, volume)


@compiled()
def _ray(frame, row, column, spacing, shape):
    """The axis along which a ray advances fastest, in voxels, the other two, its planes, and where it meets them.

    Positions across are `start + slope · plane`, in voxels of the padded volume, plane 1 being the first voxel's.
    """
    z = frame[1, 0] + row * frame[2, 0] + column * frame[3, 0] - frame[0, 0]
    y = frame[1, 1] + row * frame[2, 1] + column * frame[3, 1] - frame[0, 1]
    x = frame[1, 2] + row * frame[2, 2] + column * frame[3, 2] - frame[0, 2]
    tie = 1.0 + 1e-9  # rays at 45 degrees fall on the same side whatever the rounding
    if abs(z) > tie * max(abs(y), abs(x)):
        along, b, c, da, db, dc = 0, 1, 2, z, y, x
    elif abs(x) > tie * abs(y):
        along, b, c, da, db, dc = 2, 0, 1, x, z, y
    else:
        along, b, c, da, db, dc = 1, 0, 2, y, z, x
    slope_b, slope_c = db / da, dc / da
    start_b = frame[0, b] + 1.0 - (frame[0, along] + 1.0) * slope_b
    start_c = frame[0, c] + 1.0 - (frame[0, along] + 1.0) * slope_c
    length = np.sqrt((z * spacing[0]) ** 2 + (y * spacing[1]) ** 2 + (x * spacing[2]) ** 2) / abs(da)
    first, last = _within(1, shape[along] - 1, start_b, slope_b, 0.0, shape[b] - 1.0)
    first, last = _within(first, last, start_c, slope_c, 0.0, shape[c] - 1.0)
    return along, b, c, first, last, start_b, slope_b, start_c, slope_c, length


@compiled()
def _within(first, last, start, slope, low, high):
    """The planes of first … last − 1 where low ≤ start + slope · plane ≤ high."""
    if abs(slope) < 1e-12:
        return (first, last) if low <= start <= high else (first, first)
    one, other = (low - start) / slope, (high - start) / slope
    lower, upper = max(min(one, other), first * 1.0), min(max(one, other), last - 1.0)
    if lower > upper:
        return first, first
    return int(np.ceil(lower)), int(np.floor(upper)) + 1


@compiled()
def _project(start, stop, volume, frames, spacing, data):
    batch, _, rows, columns = data.shape
    shape = volume.shape[1:]
    strides = (shape[1] * shape[2], shape[2], 1)
    for item in range(batch):
        flat = volume[item].reshape(-1)
        for view in range(start, stop):
            for row in range(rows):
                for column in range(columns):
                    along, b, c, first, last, start_b, slope_b, start_c, slope_c, length = _ray(
                        frames[view], row, column, spacing, shape
                    )
                    sa, sb, sc = strides[along], strides[b], strides[c]
                    top_b, top_c = shape[b] - 2, shape[c] - 2
                    total = 0.0
                    for plane in range(first, last):
                        pb, pc = start_b + slope_b * plane, start_c + slope_c * plane
                        ib, ic = min(int(pb), top_b), min(int(pc), top_c)
                        fb, fc = pb - ib, pc - ic
                        at = plane * sa + ib * sb + ic * sc
                        near = flat[at] + fc * (flat[at + sc] - flat[at])
                        far = flat[at + sb] + fc * (flat[at + sb + sc] - flat[at + sb])
                        total += near + fb * (far - near)
                    data[item, view, row, column] = total * length


@compiled()
def _back_project(start, stop, data, frames, spacing, volume):
    batch, views, rows, columns = data.shape
    shape = volume.shape[1:]
    strides = (shape[1] * shape[2], shape[2], 1)
    for item in range(batch):
        flat = volume[item].reshape(-1)
        for view in range(views):
            for row in range(rows):
                for column in range(columns):
                    along, b, c, first, last, start_b, slope_b, start_c, slope_c, length = _ray(
                        frames[view], row, column, spacing, shape
                    )
                    if along == 0:
                        first, last = max(first, start), min(last, stop)
                    else:
                        # up to a plane more on either side: the tests below decide
                        first, last = _within(first, last, start_b, slope_b, start - 1.0, stop * 1.0)
                    value = data[item, view, row, column] * length
                    sa, sb, sc = strides[along], strides[b], strides[c]
                    top_b, top_c = shape[b] - 2, shape[c] - 2
                    for plane in range(first, last):
                        pb, pc = start_b + slope_b * plane, start_c + slope_c * plane
                        ib, ic = min(int(pb), top_b), min(int(pc), top_c)
                        fb, fc = pb - ib, pc - ic
                        at = plane * sa + ib * sb + ic * sc
                        if along == 0 or start <= ib < stop:
                            part = value * (1.0 - fb)
                            flat[at] += part * (1.0 - fc)
                            flat[at + sc] += part * fc
                        if along == 0 or start <= ib + 1 < stop:
                            part = value * fb
                            flat[at + sb] += part * (1.0 - fc)
                            flat[at + sb + sc] += part * fc
