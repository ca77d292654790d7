"""Compiled resampling for CPUs; imported only where numba is installed. `interpolation` does the same in plain torch.

    y[p, i, j] = Σ_t w_t x_p(φ_t(i, j)),    and its transpose

The positions φ_t come from matrices and are computed on the fly, or are the pixel's own plus a stored flow. Work goes
in tiles of pixels, so that the part of the image that a tile sees stays in the fast caches even when it is rotated; in
each row of a tile positions come first, in vector instructions, and tell whether any neighbour lies beyond the edge.

The transpose adds to the image. Each thread owns some of the image's rows and passes over all the data, so that no two
threads write to one pixel, and every pixel adds its contributions in one order whatever the number of threads. Threads
are Python's, which the kernels leave free to run by releasing the interpreter's lock.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import types

from ..compiled import compiled

__all__ = ["gather", "scatter"]

_THREADS_FROM = 1 << 17  # samples: below this, handing rows to threads costs more than they save
_COLUMNS, _ROWS = 64, 64  # of a tile: when it is rotated, the pages of its bounding box fit the first translation cache
_FARTHEST = float(1 << 30)
_BOUNDARY = {"zero": 0, "circular": 1, "reflect": 2}


def gather(x, matrices, weights, flow, tables, boundary, y, threads):
    """Fill `y` (P, h, w) from `x` (P, H, W), both contiguous and of one float type.

    Args:
        matrices: `(T, 3, 3)` float64, on (row, column, 1) of the data in pixels.
        weights: `(T,)`, of the type of `x`.
        flow: `(2, h, w)` in place of the matrices, of the type of `x`, or None.
        tables: coefficients of the neighbours' weights along rows and columns, of the type of `x`.
        boundary: "zero", "circular" or "reflect".
        threads: at most so many.
    """
    dense = flow is not None
    flow = flow if dense else np.zeros((2, 0, 0), x.dtype)
    fixed = (x, matrices, weights, flow, dense, *tables, _is_bilinear(tables))
    _over_rows(_gather, (*fixed, _BOUNDARY[boundary], y), y.shape[1], y.size * len(weights), threads, 4)


def scatter(y, matrices, weights, flow, tables, boundary, x, threads):
    """Add the transpose of `gather` on `y` to `x`; arguments as there."""
    dense = flow is not None
    flow = flow if dense else np.zeros((2, 0, 0), y.dtype)
    fixed = (y, matrices, weights, flow, dense, *tables, _is_bilinear(tables))
    _over_rows(_scatter, (*fixed, _BOUNDARY[boundary], x), x.shape[1], y.size * len(weights), threads, 1)


def _over_rows(kernel, fixed, rows, samples, threads, shares):
    """Run a kernel on blocks of rows, some `shares` for each thread."""
    if threads == 1 or samples < _THREADS_FROM:
        return kernel(*fixed, 0, rows)
    edges = np.linspace(0, rows, threads * shares + 1).astype(np.int64)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda block: kernel(*fixed, *block), zip(edges[:-1], edges[1:])))


def _is_bilinear(tables):
    return all(len(t) == 2 and t[0, 0] == 1 and t[1, 0] == 0 for t in tables)


@compiled(inline="always")
def _positions(m, flow, dense, i, start, count, rows, columns, u, v):  # pragma: no cover - compiled
    """Whole parts and fractions of the positions of some pixels of row `i`, and the extreme whole parts."""
    far = _FARTHEST
    if dense:
        for j in range(count):
            r = min(max(i + np.float64(flow[0, i, start + j]), -far), far)
            s = min(max(start + j + np.float64(flow[1, i, start + j]), -far), far)
            fr, fs = math.floor(r), math.floor(s)
            rows[j], columns[j] = np.int32(fr), np.int32(fs)
            u[j], v[j] = r - fr, s - fs
    else:
        r0 = m[0, 0] * i + m[0, 1] * start + m[0, 2]
        s0 = m[1, 0] * i + m[1, 1] * start + m[1, 2]
        d0 = m[2, 0] * i + m[2, 1] * start + m[2, 2]
        r1, s1 = r0 + m[0, 1] * (count - 1), s0 + m[1, 1] * (count - 1)
        if m[2, 0] == 0.0 and m[2, 1] == 0.0 and max(abs(r0), abs(r1), abs(s0), abs(s1)) < far:
            # affine: the ends are the extremes, and without bounds to keep the loop is all vector instructions
            for j in range(count):
                r, s = r0 + m[0, 1] * j, s0 + m[1, 1] * j
                fr, fs = math.floor(r), math.floor(s)
                rows[j], columns[j] = np.int32(fr), np.int32(fs)
                u[j], v[j] = r - fr, s - fs
            last = count - 1
            top, bottom = min(rows[0], rows[last]), max(rows[0], rows[last])
            return top, bottom, min(columns[0], columns[last]), max(columns[0], columns[last])
        for j in range(count):
            d = 1.0 / (d0 + m[2, 1] * j)
            r = min(max((r0 + m[0, 1] * j) * d, -far), far)
            s = min(max((s0 + m[1, 1] * j) * d, -far), far)
            fr, fs = math.floor(r), math.floor(s)
            rows[j], columns[j] = np.int32(fr), np.int32(fs)
            u[j], v[j] = r - fr, s - fs
    top, bottom, left, right = rows[0], rows[0], columns[0], columns[0]
    for j in range(count):
        top, bottom = min(top, rows[j]), max(bottom, rows[j])
        left, right = min(left, columns[j]), max(right, columns[j])
    return top, bottom, left, right


@compiled(fast=False, inline="always")
def _continued(index, n, boundary):  # pragma: no cover - compiled
    """The pixel that stands at `index`, or −1 where there is none."""
    if 0 <= index < n:
        return index
    if boundary == 0:
        return -1
    if boundary == 1 or n == 1:
        return index % n
    index = index % (2 * n - 2)
    return min(index, 2 * n - 2 - index)


@compiled(fast=False, inline="always")
def _within(rows, columns, count, height, width):  # pragma: no cover - compiled
    """From which pixel to which all four neighbours are inside, along a line of affine positions: one stretch."""
    low, high = 0, count
    while low < count and not (0 <= rows[low] < height - 1 and 0 <= columns[low] < width - 1):
        low += 1
    while high > low and not (0 <= rows[high - 1] < height - 1 and 0 <= columns[high - 1] < width - 1):
        high -= 1
    return low, high


@compiled(inline="always")
def _weight(table, n, t):  # pragma: no cover - compiled
    return ((table[n, 3] * t + table[n, 2]) * t + table[n, 1]) * t + table[n, 0]


@compiled()
def _gather(
    x, matrices, weights, flow, dense, row_table, column_table, bilinear, boundary, y, begin, end
):  # pragma: no cover - compiled
    planes, height, width = x.shape
    neighbours = row_table.shape[0]
    before, after = neighbours // 2 - 1, neighbours // 2
    rows, columns = np.empty(_COLUMNS, np.int32), np.empty(_COLUMNS, np.int32)
    u, v = np.empty(_COLUMNS, x.dtype), np.empty(_COLUMNS, x.dtype)
    a, b = np.empty(4, x.dtype), np.empty(4, x.dtype)
    flat = x.reshape(planes, height * width)
    stride, one = types.uint64(width), types.uint64(1)
    for top_row in range(begin, end, _ROWS):
        for start in range(0, y.shape[2], _COLUMNS):
            count = min(_COLUMNS, y.shape[2] - start)
            for t in range(weights.shape[0]):
                m, w, first_term = matrices[t], weights[t], t == 0
                affine = not dense and m[2, 0] == 0.0 and m[2, 1] == 0.0
                for i in range(top_row, min(end, top_row + _ROWS)):
                    top, bottom, left, right = _positions(m, flow, dense, i, start, count, rows, columns, u, v)
                    inside = top >= before and bottom + after < height and left >= before and right + after < width
                    outside = bottom + after < 0 or top - before >= height
                    outside = outside or right + after < 0 or left - before >= width
                    low, high = 0, 0  # the part of the row that is all inside
                    if bilinear and inside:
                        high = count
                    elif bilinear and affine:
                        low, high = _within(rows, columns, count, height, width)
                    if first_term:  # elsewhere the values are written, and not added
                        for p in range(planes):
                            y[p, i, start : start + low] = 0
                            y[p, i, start + high : start + count] = 0
                    if outside and boundary == 0:
                        continue
                    for p in range(planes):
                        plane, line = flat[p], y[p, i, start : start + count]
                        for j in range(low, high):
                            q = types.uint64(rows[j]) * stride + types.uint64(columns[j])
                            first = plane[q] + v[j] * (plane[q + one] - plane[q])
                            q += stride
                            second = plane[q] + v[j] * (plane[q + one] - plane[q])
                            value = w * (first + u[j] * (second - first))
                            line[j] = value if first_term else line[j] + value
                    for other in range(count - (high - low)):
                        j = other if other < low else other + (high - low)
                        for n in range(neighbours):
                            a[n], b[n] = _weight(row_table, n, u[j]), _weight(column_table, n, v[j])
                        for p in range(planes):
                            total = a[0] - a[0]
                            for n in range(neighbours):
                                r = rows[j] - before + n
                                r = r if inside else _continued(r, height, boundary)
                                if r < 0:
                                    continue
                                along = a[0] - a[0]
                                for k in range(neighbours):
                                    s = columns[j] - before + k
                                    s = s if inside else _continued(s, width, boundary)
                                    if s >= 0:
                                        along += b[k] * x[p, r, s]
                                total += a[n] * along
                            y[p, i, start + j] += w * total


@compiled(fast=False)  # no fast sums: the order of additions must not depend on how rows are shared
def _scatter(
    y, matrices, weights, flow, dense, row_table, column_table, bilinear, boundary, x, begin, end
):  # pragma: no cover - compiled
    planes, height, width = x.shape
    neighbours = row_table.shape[0]
    before, after = neighbours // 2 - 1, neighbours // 2
    rows, columns = np.empty(_COLUMNS, np.int32), np.empty(_COLUMNS, np.int32)
    u, v = np.empty(_COLUMNS, x.dtype), np.empty(_COLUMNS, x.dtype)
    a, b = np.empty(4, x.dtype), np.empty(4, x.dtype)
    flat = x.reshape(planes, height * width)
    stride, one = types.uint64(width), types.uint64(1)
    for top_row in range(0, y.shape[1], _ROWS):
        for start in range(0, y.shape[2], _COLUMNS):
            count = min(_COLUMNS, y.shape[2] - start)
            for i in range(top_row, min(y.shape[1], top_row + _ROWS)):
                for t in range(weights.shape[0]):
                    top, bottom, left, right = _positions(
                        matrices[t], flow, dense, i, start, count, rows, columns, u, v
                    )
                    inside = top >= before and bottom + after < height and left >= before and right + after < width
                    # another thread's rows, unless pixels beyond an edge stand for some that are farther in
                    elsewhere = bottom + after < begin or top - before >= end
                    if elsewhere and (inside or boundary == 0):
                        continue
                    w = weights[t]
                    if inside and bilinear:
                        for p in range(planes):
                            plane, line = flat[p], y[p, i, start : start + count]
                            for j in range(count):
                                q = types.uint64(rows[j]) * stride + types.uint64(columns[j])
                                value = w * line[j]
                                second = u[j] * value
                                first = value - second
                                if begin <= rows[j] < end:
                                    share = v[j] * first
                                    plane[q] += first - share
                                    plane[q + one] += share
                                if begin <= rows[j] + 1 < end:
                                    q += stride
                                    share = v[j] * second
                                    plane[q] += second - share
                                    plane[q + one] += share
                        continue
                    for j in range(count):
                        for n in range(neighbours):
                            a[n], b[n] = _weight(row_table, n, u[j]), _weight(column_table, n, v[j])
                        for p in range(planes):
                            value = w * y[p, i, start + j]
                            for n in range(neighbours):
                                r = rows[j] - before + n
                                r = r if inside else _continued(r, height, boundary)
                                if r < begin or r >= end:
                                    continue
                                for k in range(neighbours):
                                    s = columns[j] - before + k
                                    s = s if inside else _continued(s, width, boundary)
                                    if s >= 0:
                                        x[p, r, s] += a[n] * b[k] * value
