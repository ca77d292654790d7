"""A posterior energy as a sum of simple functions of linear images: what ADMM and the primal–dual method work on.

    −log p(y | A x) + Σ_j w_j prior_j(x) [+ x ≥ lower]   =   f(x) + Σ_i φ_i(K_i x)

Where A and every K_iᴴK_i are diagonal in Fourier the result suits ADMM. Differences with a Neumann edge are not, so
they are written as circular differences of which those across the edge carry no penalty: the objective stays the
Neumann one exactly. A data term that is quadratic with one weight becomes f; any other (counting noise, a weight per
datum) is split on A x.
"""

__all__ = ["lower_bound", "parts", "split"]

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.base import LinearOperator
from ..operators.differences import Gradient
from ..operators.elementary import Identity
from ..priors.base import Functional, Prior, Scaled, Sum, Term
from ..priors.positivity import Positivity
from ..priors.total_variation import TotalVariation
from .fidelity import Counting, Fidelity, Quadratic
from .splitting import Block, Splitting


def parts(prior: Prior, factor: float = 1.0) -> list[tuple[float, Prior]]:
    """A prior as weighted summands that are neither sums nor multiples."""
    if isinstance(prior, Scaled):
        return parts(prior.prior, factor * prior.factor)
    if isinstance(prior, Sum):
        return [pair for each in prior.priors for pair in parts(each, factor)]
    return [(factor, prior)]


def lower_bound(summands: Sequence[tuple[float, Prior]]) -> float:
    """The bound that positivity among the summands puts on every pixel; −∞ without one."""
    return max((prior.lower for _, prior in summands if isinstance(prior, Positivity)), default=-math.inf)


def split(
    operator: LinearOperator, data: Fidelity, summands: Sequence[tuple[float, Prior]], x0: Tensor
) -> tuple[Splitting, bool]:
    """The split form at images like `x0`, and whether everything in it is diagonal in Fourier.

    Raises:
        InputError: a prior has neither terms nor a proximal operator.
    """
    gram = None if x0.is_complex() else operator.gram_spectrum()
    gram = None if gram is None else gram.to(device=x0.device, dtype=x0.dtype)
    curvature = _curvature(data)
    size = curvature * (operator.norm() ** 2 if gram is None else float(gram.max()))
    blocks = [block for factor, prior in summands for block in _blocks(factor, prior, x0, gram is not None, size)]
    bound = lower_bound(summands)
    feasible = (lambda x: x.clamp_min(bound)) if math.isfinite(bound) else (lambda x: x)
    fourier = gram is not None and all(block.gram is not None for block in blocks)
    if fourier and isinstance(data, Quadratic) and not isinstance(data.weight, Tensor):
        assert gram is not None

        def smooth(x: Tensor) -> tuple[Tensor, Tensor]:
            image = operator(x)
            return data.value(image), operator.adjoint(data.gradient(image))

        form = Splitting(
            tuple(x0.shape),
            blocks,
            quadratic=data.weight * gram,
            linear=operator.adjoint(data.weight * data.y),
            smooth=smooth,
            feasible=feasible,
        )
        return form, True
    norm = math.sqrt(float(gram.max())) if gram is not None else math.sqrt(size / curvature)
    fit = Block(operator, operator.adjoint, data.value, data.prox, gram, norm, curvature)
    return Splitting(tuple(x0.shape), [fit, *blocks], feasible=feasible), fourier


def _curvature(data: Fidelity) -> float:
    """A typical second derivative of the data term."""
    if isinstance(data, Quadratic):
        return float(torch.as_tensor(data.weight).mean())
    assert isinstance(data, Counting)
    return 1.0 / (data.gain * max(float(data.t.mean()), 1e-3 * data.largest))


def _blocks(factor: float, prior: Prior, x0: Tensor, fourier: bool, size: float) -> list[Block]:
    shape = tuple(x0.shape)
    dtype = x0.real.dtype if x0.is_complex() else x0.dtype
    try:
        terms = prior.terms(shape, x0.dtype if x0.is_complex() else dtype)
    except InputError:
        if not prior.proximable:
            raise
        terms = [Term(Identity(shape, dtype=x0.dtype), _Whole(prior, len(shape)))]
    return [_block(factor, prior, term, x0, fourier, size) for term in terms]


def _block(factor: float, prior: Prior, term: Term, x0: Tensor, fourier: bool, size: float) -> Block:
    operator, functional = term.operator, term.functional

    def value(z: Tensor) -> Tensor:
        return factor * functional.value(z)

    def prox(v: Tensor, step: float) -> Tensor:
        return functional.prox(v, factor * step)

    block = Block(operator, operator.adjoint, value, prox, _gram(operator, x0) if fourier else None)
    if fourier and isinstance(operator, Gradient) and operator.boundary == "neumann":
        block = _unwrapped(operator, block, x0)
        plain = isinstance(prior, TotalVariation) and prior.isotropic and prior.weight is None
        if plain and all(h == 1.0 for h in operator.spacing):
            # the same value, without the slow path that torch takes for norms over a leading axis
            block = dataclasses.replace(block, value=lambda z: factor * _lengths(z).sum(), fused=factor)
    elif not fourier:
        block = dataclasses.replace(block, norm=operator.norm())
    image = block.forward(x0)
    energy, level = float(image.abs().square().sum()), float(block.value(image))
    penalty = 2 * level / energy if energy > 0 and 0 < level < math.inf else size
    return dataclasses.replace(block, penalty=penalty if math.isfinite(penalty) and penalty > 0 else 1.0)


def _lengths(z: Tensor) -> Tensor:
    """|z_i| of circular differences `(axes, C, *grid)`, those across the edge left out."""
    total = torch.zeros_like(z[0])
    for i, part in enumerate(z):
        dim = i - len(z)
        inner = total.narrow(dim, 0, z.shape[dim] - 1)
        inner += part.narrow(dim, 0, z.shape[dim] - 1).square()
    return total.sqrt_()


def _unwrapped(operator: Gradient, block: Block, x0: Tensor) -> Block:
    """Neumann differences by circular ones: the prox leaves alone those that cross the edge."""
    circular = Gradient(tuple(x0.shape), operator.spacing, "circular", x0.dtype)
    kept = torch.ones(circular.data_shape, dtype=x0.dtype, device=x0.device)
    for i in range(x0.ndim - 1):
        dim = i - (x0.ndim - 1)
        kept[i].narrow(dim, x0.shape[dim] - 1, 1).zero_()

    def prox(v: Tensor, step: float) -> Tensor:
        return block.prox(kept * v, step) + (1 - kept) * v

    gram = circular.gram_spectrum()
    assert gram is not None
    gram = gram.to(device=x0.device, dtype=x0.dtype)
    return Block(circular, circular.adjoint, lambda z: block.value(kept * z), prox, gram, circular.norm())


def _gram(operator: LinearOperator, x0: Tensor) -> Tensor | None:
    """Eigenvalues of KᴴK where it is a circular convolution; a multiple of the identity is recognised by a probe."""
    known = operator.gram_spectrum()
    if known is None and operator.image_shape == tuple(x0.shape):
        probe = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=x0.dtype).to(x0.device)
        image = operator.gram(probe)
        scale = float((image * probe).sum() / probe.square().sum())
        if float((image - scale * probe).norm()) <= 1e-4 * abs(scale) * float(probe.norm()):
            known = torch.full((1,) * x0.ndim, scale)
    return None if known is None else known.to(device=x0.device, dtype=x0.dtype)


class _Whole(Functional):
    """A prior that is only known by its own prox."""

    def __init__(self, prior: Prior, axes: int):
        super().__init__(axes)
        self.whole = prior

    def value(self, z: Tensor) -> Tensor:
        return self.whole.value(z)

    def prox(self, z: Tensor, step: float) -> Tensor:
        return self.whole.prox(z, step)
