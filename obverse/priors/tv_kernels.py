"""Fused CPU kernels of the total-variation prox, for one plane or one volume; imported only where numba is installed.

Each iteration makes two passes over the rows: u = x − ∇ᴴq, then p⁺ = Π(q + ∇u/L) together with the extrapolation of q
and the sum that decides on a restart. Sums are kept per row and added in order, so that the result does not depend on
the number of threads. Small images run in one compiled loop; large ones are split over Python threads, which the
kernels leave free to run by releasing the interpreter's lock (no threading layer of numba is involved).
`u` has one column more than the image, a copy of the last, so that the inner loops have no branch.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..compiled import compiled

__all__ = ["solve"]

_THREADS_FROM = 1 << 19  # pixels: below this, handing rows to threads costs more than they save


def solve(
    x: np.ndarray,
    tau: np.ndarray,
    p: np.ndarray,
    image: np.ndarray,
    spacing: tuple[float, ...],
    isotropic: bool,
    tolerance: float,
    max_iterations: int,
    check_every: int,
    threads: int,
) -> tuple[float, int]:
    """Iterate on one item until its relative duality gap is at most `tolerance`; `p` and `image` are overwritten.

    Args:
        x: image without its mean, `(H, W)` or `(D, H, W)`, contiguous, float32 or float64.
        tau: bound of each pixel, same shape.
        p: dual start, `(axes, *grid)`.
        image: receives the result, same shape as `x`.

    Returns:
        The relative gap at the returned point, and the number of iterations.
    """
    inverse = np.array([1.0 / h for h in spacing], dtype=x.dtype)
    steps = (inverse / sum(4.0 / h**2 for h in spacing)).astype(x.dtype)
    _clear_edges(p)
    _project(p, tau, isotropic)
    q, u = p.copy(), np.empty((*x.shape[:-1], x.shape[-1] + 1), x.dtype)
    sums = np.zeros((x.size // x.shape[-1], 3))
    beta = np.zeros(1, x.dtype)
    passes, loop = _KERNELS[x.ndim]
    t, done = 1.0, 0
    with _split(x.size, len(sums), threads) as over_rows:
        while True:
            over_rows(passes[0], x, p, u, inverse)
            over_rows(passes[2], x, tau, p, u, inverse, isotropic, sums)
            gap, primal = float(sums[:, 1].sum()), float(sums[:, 2].sum())
            relative = max(gap, 0.0) / max(primal, np.finfo(np.float64).tiny)
            if relative <= tolerance or done >= max_iterations:
                image[...] = u[..., :-1]
                return relative, done
            count = min(check_every, max_iterations - done)
            if over_rows.whole:
                t = loop(x, tau, p, q, u, inverse, steps, isotropic, sums, beta, t, count)
            else:
                for _ in range(count):
                    following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
                    beta[0] = (t - 1.0) / following
                    over_rows(passes[0], x, q, u, inverse)
                    over_rows(passes[1], tau, p, q, u, steps, isotropic, sums, beta)
                    if sums[:, 0].sum() > 0:
                        q[...] = p
                        following = 0.5 * (1.0 + np.sqrt(5.0))
                    t = following
            done += count


class _split:
    """Calls a kernel on all rows, in one piece or in as many as there are threads."""

    def __init__(self, size: int, rows: int, threads: int):
        # by size alone: the fused loop rounds differently, and the number of threads must not show in the result
        self.whole = size < _THREADS_FROM
        self.threads = 1 if self.whole else threads
        edges = [rows * i // self.threads for i in range(self.threads + 1)]
        self.pieces = list(zip(edges[:-1], edges[1:], strict=True))

    def __enter__(self) -> "_split":
        self.pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    def __call__(self, kernel: Callable[..., None], *arguments: object) -> None:
        if self.pool is None:
            kernel(*self.pieces[0], *arguments)
            return
        for future in [self.pool.submit(kernel, *piece, *arguments) for piece in self.pieces]:
            future.result()


def _clear_edges(p: np.ndarray) -> None:
    """No difference crosses the far edge, so its dual is zero."""
    for axis in range(p.shape[0]):
        index: list = [axis, *[slice(None)] * (p.ndim - 1)]
        index[axis + 1] = -1
        p[tuple(index)] = 0


def _project(p: np.ndarray, tau: np.ndarray, isotropic: bool) -> None:
    size = np.sqrt((p**2).sum(0, keepdims=True)) if isotropic else np.abs(p)
    p *= tau / np.maximum(np.maximum(size, tau), np.finfo(p.dtype).tiny)


@compiled()
def _image_2d(first, last, x, q, u, inverse):
    width = x.shape[1]
    ry, rx = inverse[0], inverse[1]
    for i in range(first, last):
        up, above = max(i - 1, 0), ry if i > 0 else ry * 0
        u[i, 0] = x[i, 0] + ry * q[0, i, 0] + rx * q[1, i, 0] - above * q[0, up, 0]
        for j in range(1, width):
            across = rx * (q[1, i, j] - q[1, i, j - 1])
            u[i, j] = x[i, j] + ry * q[0, i, j] - above * q[0, up, j] + across
        u[i, width] = u[i, width - 1]


@compiled()
def _dual_2d(first, last, tau, p, q, u, steps, isotropic, sums, beta):
    height, width = tau.shape
    sy, sx, b, tiny, zero = steps[0], steps[1], beta[0], np.finfo(tau.dtype).tiny, steps[0] * 0
    for i in range(first, last):
        down, uphill = min(i + 1, height - 1), zero
        for j in range(width):
            py = q[0, i, j] + sy * (u[down, j] - u[i, j])
            px = q[1, i, j] + sx * (u[i, j + 1] - u[i, j])
            bound = tau[i, j]
            if isotropic:
                scale = bound / max(np.sqrt(py * py + px * px), max(bound, tiny))
                py, px = py * scale, px * scale
            else:
                py, px = min(max(py, -bound), bound), min(max(px, -bound), bound)
            dy, dx = py - p[0, i, j], px - p[1, i, j]
            uphill += (q[0, i, j] - py) * dy + (q[1, i, j] - px) * dx
            p[0, i, j], p[1, i, j] = py, px
            q[0, i, j], q[1, i, j] = py + b * dy, px + b * dx
        sums[i, 0] = uphill


@compiled()
def _sums_2d(first, last, x, tau, p, u, inverse, isotropic, sums):
    height, width = x.shape
    ry, rx = inverse[0], inverse[1]
    for i in range(first, last):
        down, gap, primal = min(i + 1, height - 1), 0.0, 0.0
        for j in range(width):
            gy, gx = ry * (u[down, j] - u[i, j]), rx * (u[i, j + 1] - u[i, j])
            size = np.sqrt(gy * gy + gx * gx) if isotropic else abs(gy) + abs(gx)
            gap += tau[i, j] * size - (gy * p[0, i, j] + gx * p[1, i, j])
            primal += tau[i, j] * size + (u[i, j] - x[i, j]) ** 2 / 2
        sums[i, 1], sums[i, 2] = gap, primal


@compiled()
def _loop_2d(x, tau, p, q, u, inverse, steps, isotropic, sums, beta, t, count):
    for _ in range(count):
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
        beta[0] = (t - 1.0) / following
        _image_2d(0, x.shape[0], x, q, u, inverse)
        _dual_2d(0, x.shape[0], tau, p, q, u, steps, isotropic, sums, beta)
        if sums[:, 0].sum() > 0:
            q[...] = p
            following = 0.5 * (1.0 + np.sqrt(5.0))
        t = following
    return t


@compiled()
def _image_3d(first, last, x, q, u, inverse):
    height, width = x.shape[1], x.shape[2]
    rz, ry, rx = inverse[0], inverse[1], inverse[2]
    for row in range(first, last):
        k, i = row // height, row % height
        front, before = max(k - 1, 0), rz if k > 0 else rz * 0
        up, above = max(i - 1, 0), ry if i > 0 else ry * 0
        for j in range(width):
            along = rz * q[0, k, i, j] - before * q[0, front, i, j]
            u[k, i, j] = x[k, i, j] + along + ry * q[1, k, i, j] - above * q[1, k, up, j] + rx * q[2, k, i, j]
        for j in range(1, width):
            u[k, i, j] -= rx * q[2, k, i, j - 1]
        u[k, i, width] = u[k, i, width - 1]


@compiled()
def _dual_3d(first, last, tau, p, q, u, steps, isotropic, sums, beta):
    depth, height, width = tau.shape
    sz, sy, sx, b = steps[0], steps[1], steps[2], beta[0]
    tiny, zero = np.finfo(tau.dtype).tiny, steps[0] * 0
    for row in range(first, last):
        k, i = row // height, row % height
        back, down, uphill = min(k + 1, depth - 1), min(i + 1, height - 1), zero
        for j in range(width):
            here, bound = u[k, i, j], tau[k, i, j]
            pz = q[0, k, i, j] + sz * (u[back, i, j] - here)
            py = q[1, k, i, j] + sy * (u[k, down, j] - here)
            px = q[2, k, i, j] + sx * (u[k, i, j + 1] - here)
            if isotropic:
                scale = bound / max(np.sqrt(pz * pz + py * py + px * px), max(bound, tiny))
                pz, py, px = pz * scale, py * scale, px * scale
            else:
                pz, py = min(max(pz, -bound), bound), min(max(py, -bound), bound)
                px = min(max(px, -bound), bound)
            dz, dy, dx = pz - p[0, k, i, j], py - p[1, k, i, j], px - p[2, k, i, j]
            uphill += (q[0, k, i, j] - pz) * dz + (q[1, k, i, j] - py) * dy + (q[2, k, i, j] - px) * dx
            p[0, k, i, j], p[1, k, i, j], p[2, k, i, j] = pz, py, px
            q[0, k, i, j], q[1, k, i, j], q[2, k, i, j] = pz + b * dz, py + b * dy, px + b * dx
        sums[row, 0] = uphill


@compiled()
def _sums_3d(first, last, x, tau, p, u, inverse, isotropic, sums):
    depth, height, width = x.shape
    rz, ry, rx = inverse[0], inverse[1], inverse[2]
    for row in range(first, last):
        k, i = row // height, row % height
        back, down, gap, primal = min(k + 1, depth - 1), min(i + 1, height - 1), 0.0, 0.0
        for j in range(width):
            here = u[k, i, j]
            gz, gy = rz * (u[back, i, j] - here), ry * (u[k, down, j] - here)
            gx = rx * (u[k, i, j + 1] - here)
            size = np.sqrt(gz * gz + gy * gy + gx * gx) if isotropic else abs(gz) + abs(gy) + abs(gx)
            gap += tau[k, i, j] * size - (gz * p[0, k, i, j] + gy * p[1, k, i, j] + gx * p[2, k, i, j])
            primal += tau[k, i, j] * size + (here - x[k, i, j]) ** 2 / 2
        sums[row, 1], sums[row, 2] = gap, primal


@compiled()
def _loop_3d(x, tau, p, q, u, inverse, steps, isotropic, sums, beta, t, count):
    rows = x.shape[0] * x.shape[1]
    for _ in range(count):
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
        beta[0] = (t - 1.0) / following
        _image_3d(0, rows, x, q, u, inverse)
        _dual_3d(0, rows, tau, p, q, u, steps, isotropic, sums, beta)
        if sums[:, 0].sum() > 0:
            q[...] = p
            following = 0.5 * (1.0 + np.sqrt(5.0))
        t = following
    return t


_KERNELS = {2: ((_image_2d, _dual_2d, _sums_2d), _loop_2d), 3: ((_image_3d, _dual_3d, _sums_3d), _loop_3d)}
