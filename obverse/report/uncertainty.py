"""The stored covariance, made small enough for the page: components, local correlations, draws, and a check of them.

The compact covariance is Σ = U E Uᵀ + S R S with S = diag(√d) and R stationary with a kernel ρ, ρ(0) = 1 (without a
kernel R = I); E is the part of the components' variance Λ that S R S does not give them already. For block means B x
over n pixels a block,

    B S R S Bᵀ ≈ V^½ R_B V^½,     v_I = n⁻² Σ_{i,j∈I} √d_i √d_j ρ(i - j),     ρ_B(Δ) ∝ Σ_δ ρ(fΔ + δ) Π_a (f_a - |δ_a|)₊,

with v the exact variance of each block and ρ_B the correlation of block means where d is constant; ρ_B(0) = 1. The
standard deviation of a region's mean that results, quantisation and all, is compared with `Posterior.functional` of
the stored posterior in random rectangles.
"""

__all__ = ["DRAWS", "RECTANGLES", "SLIDERS", "block_kernel", "block_variance", "pack", "reach", "region_error"]

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.signal import convolve, fftconvolve

from .contents import Contents
from .packing import Plan, block_mean, block_sizes, dequantise, floats, quantise

RECTANGLES = 12

SLIDERS = 8
"""Components that get a slider; further ones still serve correlations and regions."""

DRAWS = 5

_FARTHEST = 8.0
"""Standard deviations at which a draw is clipped."""


def pack(contents: Contents, plan: Plan, payload: dict, arrays: dict) -> tuple[dict, dict]:
    """Add what the page needs to answer questions: B U, the deviations of B x, the kernel of the rest, and draws.

    Args:
        contents: with a covariance.
        plan: block sizes and number of components.
        payload, arrays: what the page holds so far, with "mean" and "std" among the arrays.

    Returns:
        Both, extended.
    """
    assert contents.directions is not None and contents.variances is not None
    assert contents.excess is not None and contents.diagonal is not None
    variance = block_variance(contents.diagonal, contents.kernel, plan.factors)
    packed, peaks = [], []
    for k, direction in enumerate(contents.directions):
        shrunk = block_mean(direction, plan.factors)
        variance = variance + float(contents.excess[k]) * np.square(shrunk, dtype=np.float64)
        if k < plan.components:
            limit = float(np.abs(shrunk).max())
            packed.append(quantise(shrunk, plan.bits, (-limit, limit)))
            peaks.append(max(float(np.sqrt(contents.variances[k])) * limit, 1e-30))
    payload = {
        **payload,
        "variances": [float(v) for v in contents.variances[: plan.components]],
        "excess": [float(v) for v in contents.excess[: plan.components]],
        "directions": packed,
        "peaks": peaks[:SLIDERS],
        "draws": _draws(contents, plan, np.sqrt(variance)),
    }
    if contents.kernel is not None:
        small = block_kernel(contents.kernel, plan.factors)
        # Not quantised: over a large region positive and negative lags nearly cancel, and what is left is its variance.
        payload["kernel"] = floats(small[None] if small.ndim == 2 else small)
    if plan.reduced:
        arrays = {**arrays, "block_std": quantise(np.sqrt(variance), 16)}
    return payload, arrays


def block_variance(diagonal: np.ndarray, kernel: np.ndarray | None, factors: Sequence[int]) -> np.ndarray:
    """Variance of each block's mean under S R S, exactly.

    Args:
        diagonal: d, (C, H, W) or (C, D, H, W).
        kernel: ρ, odd sizes, one axis for each factor; None for independent pixels.
        factors: block sizes.

    Example:
        >>> block_variance(np.ones((1, 1, 2)), np.array([[0.5, 1.0, 0.5]]), (1, 2))
        array([[[0.75]]])
    """
    if kernel is None or all(f == 1 for f in factors):
        return block_mean(diagonal, factors) / block_sizes(diagonal.shape[1:], factors)
    inside = np.stack(np.meshgrid(*[np.arange(f) for f in factors], indexing="ij"), -1).reshape(-1, len(factors))
    lags = inside[:, None] - inside[None]
    half = np.array(kernel.shape) // 2
    near = np.all(np.abs(lags) <= half, axis=-1)
    matrix = np.where(near, kernel[tuple(np.moveaxis(np.where(near[..., None], lags, 0) + half, -1, 0))], 0.0)
    counts = [-(-n // f) for n, f in zip(diagonal.shape[1:], factors)]
    margin = [(0, c * f - n) for c, n, f in zip(counts, diagonal.shape[1:], factors)]
    split = [size for pair in zip(counts, factors) for size in pair]
    order = [*range(0, 2 * len(factors), 2), *range(1, 2 * len(factors), 2)]
    channels = []
    for channel in diagonal:
        blocks = np.pad(np.sqrt(channel, dtype=np.float64), margin).reshape(split).transpose(order)
        blocks = blocks.reshape(-1, len(inside))
        channels.append(np.einsum("bi,bi->b", blocks @ matrix, blocks).reshape(counts))
    return np.clip(np.stack(channels), 0, None) / block_sizes(diagonal.shape[1:], factors) ** 2


def block_kernel(kernel: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Correlation of block means where the variance is constant: ρ under triangles, sampled once a block.

    Example:
        >>> block_kernel(np.array([[0.5, 1.0, 0.5]]), (1, 2)).round(3)
        array([[0.167, 1.   , 0.167]])
    """
    weights = np.ones([1] * len(factors))
    for axis, f in enumerate(factors):
        line = f - np.abs(np.arange(1 - f, f))
        weights = weights * line.reshape([-1 if a == axis else 1 for a in range(len(factors))])
    wide = np.asarray(convolve(np.asarray(kernel, np.float64), weights, method="direct"))
    small = wide[tuple(slice((n // 2) % f, None, f) for n, f in zip(wide.shape, factors))]
    centre = float(small[tuple(n // 2 for n in small.shape)])
    return small / centre if centre > 0 else np.ones([1] * len(factors))


def reach(kernel: np.ndarray, least: float = 0.1) -> int:
    """Largest lag along x or y, in pixels, at which the correlation is at least `least` in size."""
    plane = kernel if kernel.ndim == 2 else kernel[len(kernel) // 2]
    rows, columns = (np.abs(at - n // 2) for at, n in zip(np.nonzero(np.abs(plane) >= least), plane.shape))
    return int(max(rows.max(initial=0), columns.max(initial=0)))


def region_error(contents: Contents, payload: dict[str, Any], arrays: dict[str, Any]) -> float:
    """Largest relative error, over random rectangles, of the standard deviation that the browser gives to a region."""
    import torch

    shape = contents.mean.shape
    std = dequantise(arrays.get("block_std", arrays["std"])).reshape(payload["shape"])
    directions = np.stack([dequantise(p) for p in payload["directions"]]) if payload["directions"] else np.zeros((0, 1))
    directions = directions.reshape(-1, *payload["shape"])
    variances = np.asarray(payload["excess"])
    diagonal = np.clip(std**2 - np.einsum("k,k...->...", variances, directions**2), 0, None)
    kernel = dequantise(payload["kernel"]) if "kernel" in payload else np.ones((1, 1, 1))
    random, worst = np.random.default_rng(0), 0.0
    y_counts, x_counts = (np.asarray(payload["counts"][axis], np.float64) for axis in "yx")
    for _ in range(RECTANGLES):
        c, z = random.integers(payload["shape"][0]), random.integers(payload["shape"][1])
        (y0, y1), (x0, x1) = (np.sort(random.integers(0, n, 2)) for n in payload["shape"][2:])
        box = (c, z, slice(y0, y1 + 1), slice(x0, x1 + 1))
        weights = np.outer(y_counts[y0 : y1 + 1], x_counts[x0 : x1 + 1])
        weights /= weights.sum()
        projections = np.einsum("kyx,yx->k", directions[(slice(None), *box)], weights)
        local = weights * np.sqrt(diagonal[box])
        spread = np.asarray(fftconvolve(local, kernel[len(kernel) // 2], mode="same"))
        ours = float(np.sum(local * spread) + np.sum(variances * projections**2))
        w = torch.zeros(shape, dtype=contents.posterior.mean.dtype)
        f = payload["factors"]
        depth = slice(z * f["z"], (z + 1) * f["z"])
        rows, columns = slice(y0 * f["y"], (y1 + 1) * f["y"]), slice(x0 * f["x"], (x1 + 1) * f["x"])
        full_box = (c, rows, columns) if len(shape) == 3 else (c, depth, rows, columns)
        w[full_box] = 1 / w[full_box].numel()
        exact = float(contents.posterior.functional(w)[1])
        if exact > 0:
            worst = max(worst, abs(np.sqrt(max(ours, 0.0)) / exact - 1))
    return worst


def _draws(contents: Contents, plan: Plan, std: np.ndarray) -> list[dict]:
    """`Posterior.sample(DRAWS, seed=0)` as its difference from the mean, in standard deviations: right to ±0.03."""
    kept = contents.posterior.draws
    count = DRAWS if kept is None else min(DRAWS, len(kept))
    drawn = contents.posterior.sample(count, seed=0).detach().cpu().numpy()
    safe = np.where(std > 0, std, np.inf)
    scores = [block_mean(draw - contents.mean, plan.factors) / safe for draw in drawn]
    limit = min(_FARTHEST, max(float(np.nanmax(np.abs(score), initial=1e-6)) for score in scores))
    return [quantise(score, 8, (-limit, limit)) for score in scores]
