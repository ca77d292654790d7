"""A posterior energy as a sum of simple functions of linear images: what ADMM and the primal–dual method work on.

    −log p(y | A x) + Σ_j w_j prior_j(x) [+ x ≥ lower]   =   f(x) + Σ_i φ_i(K_i x)

Where A and every K_iᴴK_i are diagonal in Fourier the result suits ADMM. Differences with a Neumann edge are not, so
they are written as circular differences of which those across the edge carry no penalty: the objective stays the
Neumann one exactly. A data term that is quadratic with one weight becomes f; any other (counting noise, a weight per
datum) is split on A x. A prior that is the least sum of terms over auxiliary images v (`Prior.lifted`, such as TGV)
makes the unknown the stack (x, v), all of which the solver moves at once.
"""

__all__ = ["Form", "lower_bound", "parts", "split"]

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..operators.base import LinearOperator
from ..operators.differences import Gradient
from ..operators.elementary import Identity
from ..priors.base import Lifted, Prior, Scaled, Sum, Term, Whole
from ..priors.positivity import Positivity
from ..priors.total_variation import TotalVariation
from ..solvers.algebra import Map
from ..solvers.coupling import Coupling, Prox, Step
from .fidelity import Counting, Fidelity, Likelihood, Quadratic
from .fused import compiled_step, plain_step


@dataclasses.dataclass(frozen=True)
class Block(Coupling):
    """One φ(K x), with what constants of the solvers follow from.

    Args:
        gram: eigenvalues of KᴴK in `rfftn` layout, for ADMM.
        norm: ‖K‖, for the primal–dual method.
        penalty: ρ to start from.
        homogeneous: whether φ(s z) = |s| φ(z), so that subgradients anywhere are subgradients at zero.
    """

    gram: Tensor | None = None
    norm: float = 1.0
    penalty: float = 1.0
    homogeneous: bool = False


@dataclasses.dataclass(frozen=True)
class Form:
    """A problem in split form; its unknown is the image, or the image stacked on auxiliary ones.

    Args:
        blocks: the φ_i(K_i x).
        start: image ↦ unknown.
        image: unknown ↦ image.
        feasible: projection of the unknown onto hard constraints; what is certified and returned is the projection.
        smooth: x ↦ (f(x), ∇f(x)), or None where f = 0.
        solve: penalties ↦ the map b ↦ argmin_x f(x) + Σ ρ_i/2 ‖K_i x‖² − ⟨b, x⟩; None where it is not diagonal in
            Fourier.
        prox: proximal operator of f.
    """

    blocks: list[Block]
    start: Map
    image: Map
    feasible: Map
    smooth: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    solve: Callable[[tuple[float, ...]], Map] | None = None
    prox: Prox | None = None


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


def split(operator: LinearOperator, data: Fidelity, summands: Sequence[tuple[float, Prior]], x0: Tensor) -> Form:
    """The split form at images like `x0`.

    Raises:
        InputError: a prior has neither terms nor a proximal operator.
    """
    gram = None if x0.is_complex() else operator.gram_spectrum()
    gram = None if gram is None else gram.to(device=x0.device, dtype=x0.dtype)
    curvature = _curvature(data)
    norm = operator.norm() if gram is None else math.sqrt(float(gram.max()))
    size = curvature * norm**2
    lifts = [prior.lifted(tuple(x0.shape), x0.dtype) for _, prior in summands]
    stack = _Stack([lift for lift in lifts if lift is not None])
    blocks: list[Block] = []
    for (factor, prior), lift in zip(summands, lifts, strict=True):
        if lift is not None:
            whole = lift.start(x0)
            blocks += [stack.seat(_block(factor, prior, term, whole, False, size), lift) for term in lift.terms]
        else:
            diagonal = gram is not None and not stack.lifts
            blocks += [stack.seat(_block(factor, prior, term, x0, diagonal, size)) for term in _terms(prior, x0)]
    bound = lower_bound(summands)
    fixed = math.isfinite(bound)
    form = Form(blocks, stack.start, stack.image, (lambda x: stack.bounded(x, bound)) if fixed else (lambda x: x))
    quadratic = _Fourier()
    if gram is not None and isinstance(data, Quadratic) and not isinstance(data.weight, Tensor):
        quadratic = _Fourier(data.weight * gram, operator.adjoint(data.weight * data.y))
        form = _with_quadratic(form, operator, data, quadratic, stack)
    else:
        fit = Block(operator, operator.adjoint, data.prox, None, data.value, None, gram, norm, curvature)
        form = dataclasses.replace(form, blocks=[stack.seat(fit), *blocks])
    grams = [block.gram for block in form.blocks if block.gram is not None]
    if len(grams) < len(form.blocks):
        return form

    def solve(penalties: tuple[float, ...]) -> Map:
        return quadratic.minimiser(sum(penalty * each for penalty, each in zip(penalties, grams, strict=True)))

    return dataclasses.replace(form, solve=solve)


class _Stack:
    """Where the image and the auxiliary images of lifted priors stand in the unknown: nowhere special without any."""

    def __init__(self, lifts: list[Lifted]):
        self.lifts = lifts
        ends = [1 + sum(lift.extra for lift in lifts[: i + 1]) for i in range(len(lifts))]
        self.seats = {id(lift): slice(end - lift.extra, end) for lift, end in zip(lifts, ends, strict=True)}

    def start(self, image: Tensor) -> Tensor:
        return torch.cat([image[None], *(lift.start(image)[1:] for lift in self.lifts)]) if self.lifts else image

    def image(self, x: Tensor) -> Tensor:
        return x[0] if self.lifts else x

    def with_image(self, x: Tensor, image: Tensor) -> Tensor:
        """The unknown `x` with another image in it."""
        return torch.cat([image[None], x[1:]]) if self.lifts else image

    def bounded(self, x: Tensor, bound: float) -> Tensor:
        return self.with_image(x, self.image(x).clamp_min(bound))

    def lift(self, image: Tensor) -> Tensor:
        """The adjoint of `image`."""
        extra = sum(lift.extra for lift in self.lifts)
        return torch.cat([image[None], image.new_zeros(extra, *image.shape)]) if self.lifts else image

    def seat(self, block: Block, lift: Lifted | None = None) -> Block:
        """A block on the image, or on the image and the auxiliary ones of `lift`, as one on the unknown."""
        if not self.lifts or (lift is not None and len(self.lifts) == 1):
            return block
        if lift is None:
            return dataclasses.replace(
                block, apply=lambda x: block.apply(x[0]), adjoint=lambda u: self.lift(block.adjoint(u)), gram=None
            )
        seat = self.seats[id(lift)]

        def adjoint(u: Tensor) -> Tensor:
            part = block.adjoint(u)
            total = self.lift(part[0])
            total[seat] = part[1:]
            return total

        return dataclasses.replace(block, apply=lambda x: block.apply(torch.cat([x[:1], x[seat]])), adjoint=adjoint)


def _with_quadratic(
    form: Form, operator: LinearOperator, data: Quadratic, quadratic: "_Fourier", stack: _Stack
) -> Form:
    """The form with the data term as f."""

    def smooth(x: Tensor) -> tuple[Tensor, Tensor]:
        image = operator(stack.image(x))
        return data.value(image), stack.lift(operator.adjoint(data.gradient(image)))

    def prox(v: Tensor, step: float) -> Tensor:
        image = stack.image(v)
        return stack.with_image(v, quadratic.minimiser(1 / step)(image / step))

    return dataclasses.replace(form, smooth=smooth, prox=prox)


class _Fourier:
    """A quadratic ½⟨x, M x⟩ − ⟨linear, x⟩ with M diagonal in Fourier; zero without arguments."""

    def __init__(self, modes: Tensor | float = 0.0, linear: Tensor | None = None):
        self.modes = modes
        self.constant = None if linear is None else _transform(linear)

    def minimiser(self, added: Tensor | float) -> Map:
        """b ↦ argmin of the quadratic + ½⟨x, D x⟩ − ⟨b, x⟩, D with the eigenvalues `added`."""
        total = torch.as_tensor(self.modes + added)
        inverse = 1.0 / total.clamp_min(torch.finfo(total.dtype).tiny)

        def minimise(b: Tensor) -> Tensor:
            spectrum = _transform(b)
            if self.constant is not None:
                spectrum += self.constant
            return torch.fft.irfftn(spectrum.mul_(inverse), s=b.shape[1:], dim=tuple(range(1 - b.ndim, 0)))

        return minimise


def _transform(v: Tensor) -> Tensor:
    return torch.fft.rfftn(v, dim=tuple(range(1 - v.ndim, 0)))


def _curvature(data: Fidelity) -> float:
    """A typical second derivative of the data term."""
    if isinstance(data, Quadratic):
        return float(torch.as_tensor(data.weight).mean())
    if isinstance(data, Likelihood):
        return max(float(data.curvature(data.level).mean()), 1e-30)
    assert isinstance(data, Counting)
    return 1.0 / (data.gain * max(float(data.t.mean()), 1e-3 * data.largest))


def _terms(prior: Prior, x0: Tensor) -> list[Term]:
    shape = tuple(x0.shape)
    try:
        return prior.terms(shape, x0.dtype)
    except InputError:
        if not prior.proximable:
            raise
        return [Term(Identity(shape, dtype=x0.dtype), Whole(prior, len(shape)))]


def _block(factor: float, prior: Prior, term: Term, x0: Tensor, fourier: bool, size: float) -> Block:
    """One term of a prior, on images (or stacks) like `x0`."""
    operator, functional = term.operator, term.functional

    def value(z: Tensor) -> Tensor:
        return factor * functional.value(z)

    def prox(v: Tensor, step: float) -> Tensor:
        return functional.prox(v, factor * step)

    block = Block(operator, operator.adjoint, prox, value=value, gram=_gram(operator, x0) if fourier else None)
    if fourier and isinstance(operator, Gradient) and operator.boundary == "neumann":
        block = _unwrapped(operator, block, x0)
        plain = isinstance(prior, TotalVariation) and prior.isotropic and prior.weight is None
        if plain and all(h == 1.0 for h in operator.spacing):
            # the same value in fewer passes over the image
            block = dataclasses.replace(block, value=lambda z: factor * _lengths(z).sum(), step=_fused(factor, x0))
    elif not fourier:
        block = dataclasses.replace(block, norm=operator.norm())
    image = block.apply(x0)
    energy, level = float(image.abs().square().sum()), float(block.value(image)) if block.value else 0.0
    penalty = 2 * level / energy if energy > 0 and 0 < level < math.inf else size
    return dataclasses.replace(block, penalty=penalty if math.isfinite(penalty) and penalty > 0 else 1.0)


def _fused(factor: float, x0: Tensor) -> Step:
    """The step of ADMM for `factor` times isotropic total variation."""
    flat = x0.ndim == 3 and x0.device.type == "cpu" and x0.dtype in (torch.float32, torch.float64)
    step = (compiled_step() if flat else None) or plain_step
    return lambda x, z, u, size, relaxation: step(x, z, u, factor * size, relaxation)


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
    value = block.value
    assert value is not None
    return Block(circular, circular.adjoint, prox, value=lambda z: value(kept * z), gram=gram, norm=circular.norm())


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
