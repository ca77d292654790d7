"""Weights that make up for the uneven density of Fourier samples.

With rows a_m of unit norm (the orthonormal `NonuniformFourier`), the weights are those that bring the weighted Gram
matrix closest to the identity,

    min over w ≥ 0 of  ‖Σ_m w_m a_m a_mᴴ − I‖²_F:      (K w)_m = 1 wherever w_m > 0,    K_mj = |⟨a_m, a_j⟩|²,

by the multiplicative iteration w ← w / (K w), in which the misfit never grows. This is the iteration of Pipe and Menon
with the squared Dirichlet kernel of the field of view, the one kernel for which it minimises an error of the image. On
the Cartesian grid w = 1. A product with K is an adjoint and a forward sum on the lags −(N−1) … N−1, because K_mj is
the Fourier sum of the field of view's autocorrelation Π_a (N_a − |d_a|) / N_a².

References:
    Pipe, Menon, "Sampling density compensation in MRI: rationale and an iterative numerical solution", MRM 1999.
    Zwart, Johnson, Pipe, "Efficient sample density estimation by combining gridding and an optimized kernel", MRM 2012.
    De Pierro, "On the convergence of the iterative image space reconstruction algorithm", IEEE TMI 1987.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from .nonuniform_fourier import require_points
from .nonuniform_transform import Transform, require_engine

__all__ = ["density_compensation"]

_ACCURACY = 1e-6


def density_compensation(
    points: Tensor, image_shape: Sequence[int], *, iterations: int = 20, engine: str = "auto"
) -> Tensor:
    """Weights w, `(M,)`, with which A.adjoint(w · y) is a picture: where solvers start, or gridding ends.

    Args:
        points: `(M, 2)` or `(M, 3)`, cycles per pixel.
        image_shape: `(C, H, W)` or `(C, D, H, W)`.
        iterations: of w ← w / (K w), from w = 1; each costs a forward and an adjoint sum of twice the image's size.
        engine: as of `NonuniformFourier`.

    Returns:
        Weights for the orthonormal `NonuniformFourier`, in the points' precision. Divide them by the number of pixels
        for scaling="none".

    Raises:
        InputError: points are not finite or do not fit the image, or an option is unknown.

    Example:
        >>> grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)) / 4 - 0.5
        >>> density_compensation(grid, (1, 4, 4)).round(decimals=4).unique()
        tensor([1.])
    """
    require_points(points, image_shape, torch.complex128, "density_compensation")
    require_engine(engine, "density_compensation")
    if iterations < 1:
        raise InputError(f"density_compensation expects at least one iteration, got {iterations}; 20 are plenty")
    grid = tuple(int(n) for n in image_shape[1:])
    transform = Transform(points, [2 * n - 1 for n in grid], engine)
    overlap = _autocorrelation(grid).to(points.device)
    weights = torch.ones((1, len(points)), dtype=torch.complex128, device=points.device)
    for _ in range(iterations):
        product = transform.forward(overlap * transform.adjoint(weights, _ACCURACY), _ACCURACY)
        weights = (weights.real / product.real).to(torch.complex128)
    return weights[0].real.to(points.dtype)


def _autocorrelation(grid: Sequence[int]) -> Tensor:
    """Π_a (N_a − |d_a|) / N_a² for the lags d of a field of view."""
    total = torch.ones((), dtype=torch.float64)
    for i, n in enumerate(grid):
        lags = torch.arange(2 * n - 1, dtype=torch.float64) - (n - 1)
        total = total * ((n - lags.abs()) / n**2).reshape(-1, *(1,) * (len(grid) - 1 - i))
    return total
