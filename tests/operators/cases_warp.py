"""Cases of warps, rotations and bursts, with matrices written pixel by pixel from the definitions."""

import math

import numpy as np
import torch

from obverse import operators as ops
from tests.operators.case import Case, random

Motion = ops.Motion


def tent(t):
    return max(0.0, 1.0 - abs(t))


def keys(t):
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def look_up(i, n, boundary):
    """The pixel at `i` of a line continued beyond its ends, by walking from it to the line."""
    while not 0 <= i < n:
        if boundary == "zero":
            return None
        if boundary == "circular":
            i += n if i < 0 else -n
        else:
            i = -i if i < 0 else 2 * (n - 1) - i
    return i


def sampled(position, size, interpolation, boundary):
    """The weights (H, W) of the image's pixels in its value at one position."""
    kernel, reach = (tent, 1) if interpolation == "bilinear" else (keys, 2)
    weights = np.zeros(size)
    near = [range(math.floor(r) - reach, math.floor(r) + reach + 2) for r in position]
    for i in near[0]:
        for j in near[1]:
            source = look_up(i, size[0], boundary), look_up(j, size[1], boundary)
            if None not in source:
                weights[source] += kernel(position[0] - i) * kernel(position[1] - j)
    return weights


def warp_matrix(image_shape, position, interpolation="bilinear", boundary="zero"):
    """Every channel sampled at `position(row, column)`."""
    channels, *size = image_shape
    plane = np.stack([sampled(position(*p), size, interpolation, boundary).ravel() for p in np.ndindex(*size)])
    return np.kron(np.eye(channels), plane)


def rigid(angle, down, right, centre):
    """x' = x cos − y sin, y' = x sin + y cos from the centre, then the shift."""

    def position(row, column):
        y, x = row - centre[0], column - centre[1]
        return (
            centre[0] + x * math.sin(angle) + y * math.cos(angle) + down,
            centre[1] + x * math.cos(angle) - y * math.sin(angle) + right,
        )

    return position


def homography(h, centre):
    def position(row, column):
        y, x = row - centre[0], column - centre[1]
        scale = h[6] * y + h[7] * x + 1
        return (
            centre[0] + ((1 + h[0]) * y + h[1] * x + h[2]) / scale,
            centre[1] + (h[3] * y + (1 + h[4]) * x + h[5]) / scale,
        )

    return position


def dirichlet(n, shift):
    """The matrix that shifts a periodic line of odd length n."""
    t = np.subtract.outer(np.arange(n), np.arange(n)) - shift
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.sin(np.pi * t) / (n * np.sin(np.pi * t / n))
    return np.where(np.abs(np.sin(np.pi * t / n)) < 1e-12, np.cos(np.pi * t) * np.cos(np.pi * t / n), values)


def rotation_matrix(image_shape, degrees, canvas, corner):
    """A quarter turn, pixel by pixel, and three shears, line by line, on a canvas of odd sides, about the centre."""
    channels, height, width = image_shape
    centre = [c + (n - 1) / 2 for c, n in zip(corner, (height, width))]
    blocks = []
    for c in range(channels):
        degree = degrees[c % len(degrees)]
        quarter = round(degree / 90)
        angle = math.radians(degree - 90 * quarter)
        inside = np.zeros(canvas, dtype=bool)
        inside[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = True
        images = np.zeros((height * width, *canvas))
        for k, (i, j) in enumerate(zip(*np.nonzero(inside))):
            y, x = i - centre[0], j - centre[1]
            for _ in range(quarter % 4):
                x, y = -y, x
            images[k, round(y + centre[0]) % canvas[0], round(x + centre[1]) % canvas[1]] = 1
        for along, slope in ((1, -math.tan(angle / 2)), (0, math.sin(angle)), (1, -math.tan(angle / 2))):
            for line in range(canvas[1 - along]):
                shift = dirichlet(canvas[along], slope * (line - centre[1 - along]))
                if along == 1:
                    images[:, line, :] = images[:, line, :] @ shift.T
                else:
                    images[:, :, line] = images[:, :, line] @ shift.T
        blocks.append(images[:, inside].T)
    matrix = np.zeros((channels, height * width, channels, height * width))
    for c, block in enumerate(blocks):
        matrix[c, :, c] = block
    return matrix.reshape(channels * height * width, -1)


def burst_matrix(image_shape, positions, factor, kernel, tile=None, interpolation="bilinear", boundary="zero"):
    """`positions`: for each frame, from (row, column) from the centre in coarse pixels to the same of the image."""
    channels, *size = image_shape
    coarse = [n // factor for n in size]
    rows = []
    for position in positions:
        planes = np.zeros((*coarse, *size))
        for i in np.ndindex(*coarse):
            for j in np.ndindex(*kernel.shape):
                fine = [(a - (n - 1) / 2) * factor for a, n in zip(i, coarse)]
                fine = [(f + (k - 1) / 2 - b) / factor for f, k, b in zip(fine, kernel.shape, j)]
                place = [factor * p + (n - 1) / 2 for p, n in zip(position(*fine), size)]
                planes[i] += kernel[j] * sampled(place, size, interpolation, boundary)
        frame = np.zeros((channels if tile is None else 1, *coarse, channels, *size))
        for i in np.ndindex(*coarse):
            if tile is None:
                for c in range(channels):
                    frame[(c, *i, c)] = planes[i]
            else:
                frame[(0, *i, tile[i[0] % len(tile)][i[1] % len(tile[0])])] = planes[i]
        rows.append(frame.reshape(-1, channels * math.prod(size)))
    return np.concatenate(rows)


def _flow_position(row, column):
    return row + _FLOW[0, row, column].item(), column + _FLOW[1, row, column].item()


def _warp(name, interpolation, boundary):
    motion, position = _WARPS[name]
    return Case(
        lambda dtype: ops.Warp((1, 4, 5), motion(), interpolation=interpolation, boundary=boundary, dtype=dtype),
        lambda: warp_matrix((1, 4, 5), position, interpolation, boundary),
    )


def _rotate(image_shape, degrees, **keywords):
    def make(dtype):
        return ops.Rotate(image_shape, degrees, dtype=dtype, **keywords)

    def dense():
        A = make(torch.float64)
        return rotation_matrix(image_shape, A.degrees, A._canvas, A._corner)

    return Case(make, dense)


_RIGID, _HOMOGRAPHY = (0.4, 1.3, -2.2), (0.1, 0.2, 0.5, -0.1, 0.05, 0.7, 0.01, -0.02)
_FLOW = 8 * (random(2, 4, 5) - 0.6)
_KERNEL = random(3, 2)
_WARPS = {
    "rigid": (lambda: Motion.rigid(_RIGID), rigid(*_RIGID, (1.5, 2.0))),
    "homography": (lambda: Motion.homography(_HOMOGRAPHY), homography(_HOMOGRAPHY, (1.5, 2.0))),
    "flow": (lambda: _FLOW, _flow_position),
}

CASES = {
    "warp rigid": _warp("rigid", "bilinear", "zero"),
    "warp rigid bicubic reflect": _warp("rigid", "bicubic", "reflect"),
    "warp homography": _warp("homography", "bilinear", "circular"),
    "warp flow": _warp("flow", "bicubic", "zero"),
    "warp flow reflect": _warp("flow", "bilinear", "reflect"),
    "warp about a corner": Case(
        lambda dtype: ops.Warp((2, 4, 5), Motion.rigid(_RIGID), centre=(0.0, 0.0), dtype=dtype),
        lambda: warp_matrix((2, 4, 5), rigid(*_RIGID, (0.0, 0.0))),
    ),
    "rotate": _rotate((2, 3, 5), [20.0, 130.0]),
    "rotate even": _rotate((1, 4, 4), -75.0),
    "rotate quarter": _rotate((1, 4, 4), 270.0),
    "rotate circular": _rotate((1, 5, 5), 200.0, boundary="circular"),
    "burst": Case(
        lambda dtype: ops.BurstSampling((2, 4, 6), [Motion.identity(), Motion.rigid(_RIGID)], 2, dtype=dtype),
        lambda: burst_matrix((2, 4, 6), [lambda y, x: (y, x), rigid(*_RIGID, (0.0, 0.0))], 2, np.full((2, 2), 0.25)),
    ),
    "burst mosaic": Case(
        lambda dtype: ops.BurstSampling(
            (3, 6, 6),
            [Motion.rigid(_RIGID), Motion.homography(_HOMOGRAPHY)],
            2,
            kernel=_KERNEL.to(dtype),
            mosaic="RGGB",
            interpolation="bicubic",
            boundary="reflect",
        ),
        lambda: burst_matrix(
            (3, 6, 6),
            [rigid(*_RIGID, (0.0, 0.0)), homography(_HOMOGRAPHY, (0.0, 0.0))],
            2,
            _KERNEL.numpy(),
            [[0, 1], [1, 2]],
            "bicubic",
            "reflect",
        ),
    ),
}
