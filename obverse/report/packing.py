"""Arrays small enough to be sent by e-mail: block means, quantisation and a plan that says what was given up.

A picture too large for the report is shown as block means B x. The covariance goes with it exactly,

    B (U Λ Uᵀ + D) Bᵀ = (B U) Λ (B U)ᵀ + B D Bᵀ,

and B D Bᵀ is diagonal since blocks do not overlap (`uncertainty` says what becomes of local correlations); edge blocks
average the pixels that exist. Each array is stored as integers q with value = offset + step·q, so that a value read in
the browser is right to ±step/2.
"""

__all__ = ["Plan", "block_mean", "block_sizes", "dequantise", "floats", "make_plan", "quantise"]

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import NumericsError

LEAST_COMPONENTS = 6
"""Below this number of components the picture is shrunk rather than the uncertainty impoverished further."""

_SMALL = 2_500_000
"""Bytes up to which directions get 16 bits; beyond, 8 bits (region intervals within some 0.2 %) keep e-mails light."""


@dataclass(frozen=True)
class Plan:
    """How arrays are shown: block size for each image axis, number of components, bits of their directions."""

    factors: tuple[int, ...]
    components: int
    bits: int

    @property
    def reduced(self) -> bool:
        return any(f > 1 for f in self.factors)


def make_plan(shape: Sequence[int], components: int, value_bytes: int, budget: int) -> Plan:
    """Choose the finest pictures, then the most components, then 16-bit directions, that fit into a budget.

    Args:
        shape: (C, H, W) or (C, D, H, W).
        components: how many the posterior holds; 0 without uncertainty.
        value_bytes: bytes per shown pixel for everything but the directions.
        budget: bytes before base64.

    Example:
        >>> make_plan((1, 256, 256), 12, 9, 7_000_000)
        Plan(factors=(1, 1), components=12, bits=16)
        >>> make_plan((1, 512, 512), 32, 9, 7_000_000)
        Plan(factors=(1, 1), components=17, bits=8)
        >>> make_plan((1, 2048, 2048), 32, 9, 7_000_000).factors
        (4, 4)
    """
    for lateral in range(1, max(shape[-2:]) + 1):
        axial = max(1, lateral // 3)
        factors = (axial, lateral, lateral)[-(len(shape) - 1) :]
        pixels = shape[0] * int(np.prod([-(-n // f) for n, f in zip(shape[1:], factors)]))
        extra = 2 if lateral > 1 and components else 0
        left = budget - pixels * (value_bytes + extra)
        if left < 0 or left // pixels < min(components, LEAST_COMPONENTS):
            continue
        if components <= min(left, _SMALL - pixels * value_bytes) // (2 * pixels):
            return Plan(factors, components, 16)
        return Plan(factors, min(components, left // pixels), 8)
    raise NumericsError(f"expected {tuple(shape)} to fit into {budget} bytes as block means; got none; raise the limit")


def block_mean(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Average non-overlapping blocks of the last len(factors) axes; edge blocks average the pixels that exist.

    Example:
        >>> block_mean(np.array([[1.0, 3.0, 7.0]]), (1, 2))
        array([[2., 7.]])
    """
    result = np.asarray(array)
    for axis, factor in zip(range(result.ndim - len(factors), result.ndim), factors):
        if factor > 1:
            n = result.shape[axis]
            starts = np.arange(0, n, factor)
            counts = np.minimum(starts + factor, n) - starts
            shape = [-1 if a == axis else 1 for a in range(result.ndim)]
            result = np.add.reduceat(result, starts, axis=axis, dtype=np.float64) / counts.reshape(shape)
    return result


def block_sizes(shape: Sequence[int], factors: Sequence[int]) -> np.ndarray:
    """Count the pixels in each block of an image grid."""
    sizes = np.ones([1] * len(factors))
    for axis, (n, f) in enumerate(zip(shape, factors)):
        starts = np.arange(0, n, f)
        line = np.minimum(starts + f, n) - starts
        sizes = sizes * line.reshape([-1 if a == axis else 1 for a in range(len(factors))])
    return sizes


def quantise(array: np.ndarray, bits: int, limits: tuple[float, float] | None = None) -> dict:
    """Store an array as unsigned 8- or 16-bit integers in base64; the highest code means "not a finite number".

    Args:
        array: any shape, real.
        bits: 8 or 16.
        limits: values outside are clipped to them; default the array's own range.

    Returns:
        {"shape", "bits", "offset", "step", "base64"}: value = offset + step · code.

    Example:
        >>> packed = quantise(np.array([0.0, 127.0, 254.0]), 8)
        >>> packed["step"], packed["offset"], packed["base64"]
        (1.0, 0.0, 'AH/+')
    """
    values = np.asarray(array, np.float64)
    finite = np.isfinite(values)
    if limits is None:
        limits = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    low, high = limits
    top = 2**bits - 2
    step = (high - low) / top if high > low else 1.0
    code = np.rint((np.clip(np.where(finite, values, low), low, high) - low) / step)
    code = np.where(finite, code, top + 1).astype("<u2" if bits == 16 else "u1")
    text = base64.b64encode(code.tobytes()).decode("ascii")
    return {"shape": list(values.shape), "bits": bits, "offset": low, "step": step, "base64": text}


def floats(array: np.ndarray) -> dict:
    """Store a small array in single precision: {"shape", "bits", "base64"}.

    Example:
        >>> dequantise(floats(np.array([0.1, -3.0]))).round(6)
        array([ 0.1, -3. ])
    """
    text = base64.b64encode(np.asarray(array, "<f4").tobytes()).decode("ascii")
    return {"shape": list(np.shape(array)), "bits": 32, "base64": text}


def dequantise(packed: dict) -> np.ndarray:
    """Undo `quantise` or `floats`, as the browser does."""
    if packed["bits"] == 32:
        return np.frombuffer(base64.b64decode(packed["base64"]), "<f4").astype(np.float64).reshape(packed["shape"])
    code = np.frombuffer(base64.b64decode(packed["base64"]), "<u2" if packed["bits"] == 16 else "u1")
    values = packed["offset"] + packed["step"] * code.astype(np.float64)
    return np.where(code == 2 ** packed["bits"] - 1, np.nan, values).reshape(packed["shape"])
