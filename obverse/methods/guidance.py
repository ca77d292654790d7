"""Bringing data into reverse diffusion: one formula, with one covariance or another.

    x_s = x + s ε,     x̂ = D(x_s, s) = E[x | x_s],     J = ∂D/∂x_s,     y = A x + noise of variance W⁻¹
    E[x | x_s, y] ≈ x̂ + s² Jᵀ Aᵀ (W⁻¹ + A C Aᵀ)⁻¹ (y − A x̂),      C ≈ Cov[x | x_s] = s² J

    guidance     C                                                         asks for
    "mmps"       s² J, in a Krylov space                                   Jᵀ once an iteration, and once to go on
    "tmpd"       the row sums of s² J as a diagonal                        Jᵀ twice
    "pigdm"      s² d²/(s² + d²), d the prior's standard deviation          Jᵀ once
    "diffpir"    s²/λ, and s²/λ instead of s² Jᵀ in front: a proximal step  D alone    (`guidance_walks`)
    "dps"        none: a step of fixed length down ‖W (y − A x̂)‖            Jᵀ once          (`guidance_walks`)
    "ddrm"       none: x̂ and y are blended in the SVD of A                  D alone          (`guidance_walks`)

For a Gaussian prior J is constant and symmetric, and "mmps" gives E[x | x_s, y] itself; the others have the wrong
spread, whatever the number of steps. "mmps" looks for the best correction of x̂ in a space of few directions: the last
level's answer, and what of the data is left unexplained, each time answered as "pigdm" would, which saves iterations.
A network's J is not quite symmetric and has negative eigenvalues, at high noise many: on that space its symmetric part
is taken and negative energies are cut off, so that no correction leaves the data worse explained than before.

Laws other than Gaussian enter by their slope and curvature at A x̂.

References: Rozet et al., "Learning diffusion priors from observations by expectation maximization", NeurIPS 2024
(MMPS). Boys et al., "Tweedie moment projected diffusions for inverse problems", TMLR 2024 (TMPD). Song, Vahdat,
Mardani, Kautz, "Pseudoinverse-guided diffusion models for inverse problems", ICLR 2023 (ΠGDM). Zhu et al., "Denoising
diffusion models for plug-and-play image restoration", CVPRW 2023 (DiffPIR).
"""

__all__ = ["Guidance", "Guide", "Look", "MMPS", "Measured", "PiGDM", "TMPD"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.base import LinearOperator
from ..problem import Problem
from ..solvers.algebra import norm, real_inner
from ..solvers.linear import cg
from .plug_and_play_data import DataTerm

_ACCURACY = 1e-4  # of linear systems without a denoiser in them


class Measured:
    """One measurement, for batches of images.

    Args:
        y: data of exactly the operator's `data_shape`.
        problem: a linear operator and a law of independent data.
        span: range of the images.
    """

    def __init__(self, y: Tensor, problem: Problem, span: float):
        self.term = DataTerm(y, problem, None, _ACCURACY)
        assert isinstance(problem.operator, LinearOperator)
        self.operator: LinearOperator = problem.operator
        self.y, self.span = y, span
        self.fixed = problem.noise.gaussian

    def slope(self, z: Tensor) -> Tensor:
        """W (y − z) for ideal data `(b, *data_shape)`."""
        return -self.term.law.gradient(z)

    def weight(self, z: Tensor) -> Tensor:
        """W at ideal data: of a Gaussian law one number or `data_shape`, else `(b, *data_shape)`."""
        real = z.real.dtype if z.is_complex() else z.dtype
        return torch.as_tensor(self.term.law.curvature(z), dtype=real, device=z.device)

    def solve(self, b: Tensor, damping: float, weight: Tensor) -> Tensor:
        """(AᴴWA + damping)⁻¹ b for images `(b, *image_shape)`."""
        if self.fixed:
            return self.operator.solve(b, damping, weight, tolerance=_ACCURACY)
        rows = [self.operator.solve(v, damping, w, tolerance=_ACCURACY) for v, w in zip(b, weight, strict=True)]
        return torch.stack(rows)


class Look:
    """What a denoiser makes of noisy images at one level, asked once, and what the data say to that.

    Args:
        denoiser: with `denoise`.
        data: the measurement.
        x: noisy images `(b, *image_shape)`.
        sigma: their level s.
        differentiated: whether `pull` will be asked for.

    Attributes:
        mean: x̂.
        slope: W (y − A x̂).
        weight: W at A x̂.
        evaluations: images denoised, and products with Jᵀ.
    """

    def __init__(self, denoiser: Any, data: Measured, x: Tensor, sigma: float, differentiated: bool):
        self.data, self.x, self.sigma = data, x.detach(), sigma
        self._point = self.x.requires_grad_(differentiated)
        with torch.set_grad_enabled(differentiated):
            self._answer = denoiser.denoise(self._point, sigma)
        if differentiated and not self._answer.requires_grad:
            raise InputError(
                f"this guidance expects a denoiser that autograd can differentiate, got {type(denoiser).__name__}; "
                'use guidance="diffpir", which needs no derivative'
            )
        self.x, self.mean = self.x.detach(), self._answer.detach()
        self.evaluations = len(x)
        ideal = data.operator(self.mean)
        self.slope, self.weight = data.slope(ideal), data.weight(ideal)

    def pull(self, v: Tensor) -> Tensor:
        """Jᵀ v for one direction an image, `(b, *image_shape)`."""
        self.evaluations += len(v)
        return torch.autograd.grad(self._answer, self._point, v, retain_graph=True)[0]


Guide = Callable[[Look], Tensor]


class Guidance:
    """How the mean of what is drawn is corrected by the data at every level.

    Attributes:
        differentiates: whether it needs Jᵀ.
        covariance: C, in words; empty if that of the prior itself.
        target: what draws are draws of, for `Posterior.target`.
    """

    differentiates: ClassVar[bool] = True
    covariance: ClassVar[str] = ""
    target: ClassVar[str] = "posterior"

    def begin(self, data: Measured) -> Guide:
        """E[x | x_s, y] for looks at falling levels, on a batch of draws that belong together."""
        raise NotImplementedError(f"{type(self).__name__} must define begin")

    def report(self) -> dict[str, Any]:
        """The covariance used, for the diagnostics."""
        return {"approximation": self.covariance} if self.covariance else {}


@dataclass(frozen=True)
class MMPS(Guidance):
    """Moment matching: C = s² J.

    Args:
        iterations: directions at each level, each one product with Jᵀ; one more to go on from the level before.
        tolerance: relative residual at which they stop.
    """

    iterations: int = 5
    tolerance: float = 1e-3

    def __post_init__(self):
        if self.iterations < 1 or not 0 < self.tolerance < 1:
            raise InputError(
                f"MMPS expects at least one iteration and a tolerance between 0 and 1, got {self.iterations} and "
                f"{self.tolerance}"
            )

    def begin(self, data: Measured) -> Guide:
        last: list[Tensor] = []

        def guide(look: Look) -> Tensor:
            space = _Subspace(look)
            for direction in last:
                space.extend(direction)
            d2, s2 = (_DEVIATION * data.span) ** 2, look.sigma**2
            for _ in range(self.iterations):
                undone = norm(space.left, 1) > self.tolerance * norm(space.right, 1)
                if not bool(undone.any()):
                    break
                # A draw that is done stays as it is, so that it does not depend on what it shares its batch with.
                missing = torch.where(undone, space.left, 0.0)
                space.extend(_answered(look, missing, s2 * d2 / (s2 + d2), _ROUGHLY, _SHORT))
            last[:] = [space.u]
            return look.mean + space.correction

        return guide


@dataclass(frozen=True)
class TMPD(Guidance):
    """C = diag(s² J 1), the row sums of the covariance: right where pixels are alike and correlated positively."""

    covariance: ClassVar[str] = "row sums of s²J as a diagonal"

    def begin(self, data: Measured) -> Guide:
        def guide(look: Look) -> Tensor:
            variance = look.sigma**2 * look.pull(torch.ones_like(look.mean)).clamp_min(0)
            u = _answered(look, _whitened_residual(look), variance, _ACCURACY, _LONG)
            pulled = look.pull(data.operator.adjoint(look.weight.sqrt() * u))
            return look.mean + look.sigma**2 * pulled

        return guide


@dataclass(frozen=True)
class PiGDM(Guidance):
    """C = s² d²/(s² + d²): the covariance that a prior of white noise of deviation d has.

    Args:
        deviation: d, in units of the image; by default a quarter of the denoiser's range, as photographs have. The
            published form takes images of unit variance.
    """

    covariance: ClassVar[str] = "s²d²/(s² + d²) for every pixel"
    deviation: float | None = None

    def __post_init__(self):
        if self.deviation is not None and not 0 < self.deviation < math.inf:
            raise InputError(f"PiGDM expects a positive deviation, got {self.deviation}; it is in units of the image")

    def begin(self, data: Measured) -> Guide:
        d = _DEVIATION * data.span if self.deviation is None else self.deviation

        def guide(look: Look) -> Tensor:
            precision = look.sigma**-2 + d**-2
            moved = data.solve(data.operator.adjoint(look.slope), precision, look.weight)
            return look.mean + look.sigma**2 * precision * look.pull(moved)

        return guide


_DEVIATION = 0.25  # of the range: photographs
# Relative residuals and iterations of systems without a denoiser in them, where those are solved for a direction only
# and where for a correction.
_ROUGHLY, _SHORT, _LONG = 0.1, 20, 200


def _answered(look: Look, right: Tensor, variance: float | Tensor, tolerance: float, iterations: int) -> Tensor:
    """(1 + W^½ A C Aᵀ W^½)⁻¹ `right` for a C of one variance a pixel, by conjugate gradients."""
    root, operator = look.weight.sqrt(), look.data.operator

    def normal(u: Tensor) -> Tensor:
        return u + root * operator(variance * operator.adjoint(root * u))

    return cg(normal, right, tolerance=tolerance, max_iterations=iterations, batch_dims=1).x


def _whitened_residual(look: Look) -> Tensor:
    """W^½ (y − A x̂), zero where the data say nothing."""
    root = look.weight.sqrt()
    return torch.where(root > 0, look.slope / torch.where(root > 0, root, 1.0), 0.0)


class _Subspace:
    """The best correction of x̂ out of few: c = Σ_j y_j c_j with c_j = s² Jᵀ Aᵀ W^½ v_j.

    With b_j = W^½ A c_j and r₀ = W^½ (y − A x̂), each draw of a batch minimises ½ ‖r₀ − Σ y_j b_j‖² + ½ yᵀ S y, where S
    is the symmetric part of v_iᵀ b_j without its negative eigenvalues: the prior's energy of c.
    """

    def __init__(self, look: Look):
        self.look, self.root = look, look.weight.sqrt()
        self.right = self.left = _whitened_residual(look)
        self.correction, self.u = torch.zeros_like(look.mean), torch.zeros_like(self.right)
        self._v: list[Tensor] = []
        self._images: list[Tensor] = []
        self._b: list[Tensor] = []

    def extend(self, direction: Tensor) -> None:
        """Take in one more v, and find the best c again: one product with Jᵀ."""
        for _ in range(2):
            for v in self._v:
                direction = direction - real_inner(v, direction, 1) * v
        size = norm(direction, 1)
        v = direction / torch.where(size > 0, size, 1.0)
        image = self.look.sigma**2 * self.look.pull(self.look.data.operator.adjoint(self.root * v))
        self._v.append(v)
        self._images.append(image)
        self._b.append(self.root * self.look.data.operator(image))
        y = self._weights()
        self.correction = _combined(y, self._images)
        self.u = _combined(y, self._v)
        self.left = self.right - self.u - _combined(y, self._b)

    def _weights(self) -> Tensor:
        """y, `(k, b)`."""
        energy = _products(self._v, self._b)
        values, axes = torch.linalg.eigh((energy + energy.mT) / 2)
        matrix = _products(self._b, self._b) + (axes * values.clamp_min(0)[:, None]) @ axes.mT
        sizes = matrix.diagonal(dim1=1, dim2=2)
        scale = torch.where(sizes > 0, sizes, math.inf).rsqrt()
        right = scale * _products(self._b, [self.right])[..., 0]
        values, axes = torch.linalg.eigh(scale[..., None] * matrix * scale[:, None])
        kept = values > 10 * torch.finfo(self.right.dtype).eps * values[:, -1:]
        inverse = torch.where(kept, values, math.inf).reciprocal()
        y = scale * (axes @ (inverse * (axes.mT @ right[..., None])[..., 0])[..., None])[..., 0]
        return y.mT.to(self.look.mean)


def _products(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """⟨l_i, r_j⟩ of each draw, `(b, i, j)`, float64."""
    return torch.einsum("ibn,jbn->bij", _rows(left), _rows(right)).double()


def _rows(vectors: list[Tensor]) -> Tensor:
    """Vectors as `(k, b, n)`, complex numbers as pairs."""
    stacked = torch.stack(vectors)
    return (torch.view_as_real(stacked.resolve_conj()) if stacked.is_complex() else stacked).flatten(2)


def _combined(y: Tensor, vectors: list[Tensor]) -> Tensor:
    """Σ_j y_j v_j of each draw."""
    return torch.stack([_like(each, v) * v for each, v in zip(y, vectors, strict=True)]).sum(0)


def _like(each: Tensor, images: Tensor) -> Tensor:
    """One number a draw, with the axes of images."""
    return each.reshape(-1, *(1,) * (images.ndim - 1))
