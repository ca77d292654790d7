"""Compiled back-projection for CPUs, driven by pixels; imported only where numba is installed.

    x(r) = Σ_v g_v(r) y_v(p_v(r))

The plain versions in `filtered_backprojection` and `fdk` do the same. Every thread owns some of the image's rows, and
goes through the views for a few rows at a time, while they are in the cache. Along a row, positions on the detector
come first, in vector instructions; then the data are looked up. Data are padded by zeros, one cell before and two
behind, so that a position that is held within the padding needs no test.
"""

import math

import numpy as np

from ..compiled import compiled, over_ranges

__all__ = ["smear_lines", "smear_planes"]

_ROWS = 16
"""Image rows for which a view is read while it is in the cache."""
_THREADS_FROM = 1 << 17
"""Samples; below this, handing rows to threads costs more than it saves."""


def smear_lines(views, axes, positions, cell, offset, radius, arc, threads):
    """Images `(n, H, W)` of filtered views `(n, views, detectors)`.

    Args:
        axes: unit vectors along the detector and along the central ray, each `(views, 2)`, float64.
        positions: of the image's rows and columns, float64.
        cell: spacing of the cells, scaled to the centre of rotation; with `arc` in radians.
        offset: of the detector, likewise.
        radius: distance of the source from the centre; infinite for parallel beams.
        arc: whether cells are equal in angle.
        threads: at most so many.
    """
    items, count, detectors = views.shape
    padded = np.zeros((items, count, detectors + 3), views.dtype)
    padded[..., 1:-2] = views
    image = np.zeros((items, *map(len, positions)), views.dtype)
    detector = 1 / cell, (detectors + 1) / 2 - offset / cell, radius, arc
    threads = threads if image.size * count >= _THREADS_FROM else 1
    over_ranges(_lines, image.shape[1], threads, padded, *axes, *positions, *detector, image)
    return image


def smear_planes(views, axes, positions, cell, offset, radius, threads):
    """Volumes `(n, D, H, W)` of filtered cone-beam views `(n, views, rows, columns)`.

    Args:
        positions: of the volume's slices, rows and columns, float64.
        cell: spacing of the detector's rows and columns, scaled to the axis of rotation.
        offset: of the detector, likewise.

    The others as in `smear_lines`.
    """
    items, count, rows, columns = views.shape
    padded = np.zeros((items, count, columns + 3, rows + 3), views.dtype)
    padded[..., 1:-2, 1:-2] = views.swapaxes(2, 3)
    volume = np.empty((items, *map(len, positions)), views.dtype)
    up, across = ((1 / step, (n + 1) / 2 - shift / step) for n, step, shift in zip((rows, columns), cell, offset))
    threads = threads if volume.size * count >= _THREADS_FROM else 1
    over_ranges(_planes, volume.shape[2], threads, padded, *axes, *positions, *up, *across, radius, volume)
    return volume


@compiled(inline="always")
def _arctangent(t):  # pragma: no cover - compiled
    """To 1e-13 for angles below a right one, in vector instructions: the angle is halved three times, then a series."""
    t /= 1.0 + math.sqrt(1.0 + t * t)
    t /= 1.0 + math.sqrt(1.0 + t * t)
    t /= 1.0 + math.sqrt(1.0 + t * t)
    s = t * t
    series = 1 / 9 + s * (-1 / 11 + s * (1 / 13 + s * (-1 / 15)))
    return 8.0 * t * (1.0 + s * (-1 / 3 + s * (1 / 5 + s * (-1 / 7 + s * series))))


@compiled(inline="always")
def _projected(along, ahead, y, x, scale, shift, radius, arc, last, near, part, gain):  # pragma: no cover - compiled
    """For a row of pixels in one view: the cells before their projections, the remainders and R/L or 1/U."""
    p0, p1 = along[1] * y, along[0]
    d0, d1 = 1.0 + ahead[1] * y / radius, ahead[0] / radius
    if arc:
        for j in range(len(x)):
            p, d = (p0 + p1 * x[j]) / radius, d0 + d1 * x[j]
            gain[j] = 1.0 / math.sqrt(p * p + d * d)
            place = min(max(_arctangent(p / d) * scale + shift, 0.0), last)
            whole = np.int32(place)
            near[j], part[j] = whole, place - whole
    else:
        for j in range(len(x)):
            inverse = 1.0 / (d0 + d1 * x[j])
            gain[j] = inverse
            place = min(max((p0 + p1 * x[j]) * inverse * scale + shift, 0.0), last)
            whole = np.int32(place)
            near[j], part[j] = whole, place - whole


@compiled()
def _lines(begin, end, views, along, ahead, y, x, scale, shift, radius, arc, image):  # pragma: no cover - compiled
    items, count, cells = views.shape
    near, one = np.empty(len(x), np.uint32), np.uint32(1)
    part, gain = np.empty(len(x), views.dtype), np.empty(len(x), views.dtype)
    for first in range(begin, end, _ROWS):
        for view in range(count):
            for i in range(first, min(first + _ROWS, end)):
                _projected(along[view], ahead[view], y[i], x, scale, shift, radius, arc, cells - 2.0, near, part, gain)
                for item in range(items):
                    line, total = views[item, view], image[item, i]
                    for j in range(len(x)):
                        k = near[j]
                        total[j] += gain[j] * gain[j] * (line[k] + part[j] * (line[k + one] - line[k]))


@compiled()
def _planes(
    begin, end, views, along, ahead, z, y, x, row_scale, row_shift, scale, shift, radius, volume
):  # pragma: no cover - compiled
    items, count, columns, rows = views.shape
    near, one = np.empty(len(x), np.uint32), np.uint32(1)
    part, gain = np.empty(len(x), views.dtype), np.empty(len(x), np.float64)
    total, line = np.empty((len(x), len(z)), views.dtype), np.empty(rows, views.dtype)
    for item in range(items):
        for i in range(begin, end):
            total[:] = 0
            for view in range(count):
                data = views[item, view]
                _projected(
                    along[view], ahead[view], y[i], x, scale, shift, radius, False, columns - 2.0, near, part, gain
                )
                for j in range(len(x)):
                    left, right, sums = data[near[j]], data[near[j] + one], total[j]
                    weight = volume.dtype.type(gain[j] * gain[j])
                    for k in range(rows):
                        line[k] = weight * (left[k] + part[j] * (right[k] - left[k]))
                    step = gain[j] * row_scale
                    for k in range(len(z)):
                        place = min(max(z[k] * step + row_shift, 0.0), rows - 2.0)
                        whole = np.uint32(np.int32(place))
                        sums[k] += line[whole] + (place - whole) * (line[whole + one] - line[whole])
            for k in range(len(z)):
                for j in range(len(x)):
                    volume[item, k, i, j] = total[j, k]
