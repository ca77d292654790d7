"""The most probable image under an explicit prior.

    x̂ = argmin_x  −log p(y | A x) + weight · prior(x)   [subject to x ≥ 0]

The solver follows from the structure, and each certifies its answer afresh before it claims convergence:

    quadratic prior, Gaussian noise               one linear solve: in Fourier where A and the prior allow, else CG
    TV denoising (A = identity)                   dual prox with duality gap
    A and every term's KᴴK diagonal in Fourier    ADMM (a Neumann TV counts: see `split_form`)
    tomography, terms with a cheap prox           ADMM on the image itself, preconditioned (`image_form`)
    other sums of terms                           primal–dual (Chambolle–Pock)
    smooth priors without terms                   Newton with conjugate gradients

Counting noise is split on A x with the closed-form prox of its likelihood; Poisson–Gaussian noise by the shifted
Poisson approximation (`fidelity`). The `weight` multiplies the prior's energy in natural units: 1 is the prior as
written, and for TV with Gaussian noise weight = λ/σ² gives ½‖Ax − y‖² + λ TV(x). "auto" chooses it from the data
(`parameter_choice`).
"""

__all__ = ["MAP"]

import math
import time
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..noise import Poisson, PoissonGaussian
from ..operators.base import LinearOperator
from ..posterior.estimate import Estimate
from ..priors.base import Prior
from ..priors.positivity import Positivity
from ..problem import Problem
from ..solvers.result import Result, Status
from .base import Callback, check_pair, silent
from .fidelity import Counting, fidelity
from .map_solvers import solve
from .parameter_choice import choose
from .split_form import parts

_LOOSE = 10.0  # while the weight is searched for, the solver may stop at this multiple of the tolerance


@dataclass(frozen=True, eq=False)
class MAP:
    """Maximum a posteriori estimation with any explicit prior or sum of priors.

    Args:
        prior: the energy.
        weight: a positive factor of the prior, or "auto" to choose it from the data.
        positivity: keep the image at or above zero; by default for Poisson and Poisson–Gaussian noise only.
        selection: how "auto" chooses: "sure", "discrepancy", "whiteness", or "auto" (see `parameter_choice`).
        tolerance: on the certified residual: the larger of the relative gap of the objective and the relative gradient.
        max_iterations: most iterations of the solver, per image.
        seed: of the random probe that SURE needs.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> import torch, obverse as ob
        >>> problem = ob.Problem(ob.operators.Identity((1, 1, 3)), ob.noise.Gaussian(1.0))
        >>> MAP(prior=ob.priors.L1(), weight=1.0)(torch.tensor([[[-3.0, 0.5, 2.0]]]), problem).image
        tensor([[[-2.,  0.,  1.]]])
    """

    prior: Prior
    weight: float | Literal["auto"] = "auto"
    _: KW_ONLY
    positivity: bool | None = None
    selection: Literal["auto", "sure", "discrepancy", "whiteness"] = "auto"
    tolerance: float = 1e-3
    max_iterations: int = 1000
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.prior, Prior):
            raise InputError(f"MAP expects an explicit prior, got {type(self.prior).__name__}; see obverse.priors")
        number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        if self.weight != "auto" and not (number and math.isfinite(self.weight) and self.weight > 0):
            raise InputError(f'MAP expects a positive weight or "auto", got {self.weight!r}')
        if self.selection not in ("auto", "sure", "discrepancy", "whiteness"):
            raise InputError(f"MAP expects selection auto, sure, discrepancy or whiteness, got {self.selection!r}")
        if not 0 < self.tolerance < 1:
            raise InputError(f"MAP expects a tolerance between 0 and 1, got {self.tolerance}; 1e-3 is the default")
        if self.max_iterations < 1:
            raise InputError(f"MAP expects at least one iteration, got {self.max_iterations}; 1000 is the default")

    @torch.no_grad()
    def __call__(self, y: Tensor, problem: Problem, *, callback: Callback | None = None) -> Estimate:
        """The most probable image of each measurement.

        Args:
            y: data `(*batch, *data_shape)`; the items of a batch are solved one by one.
            problem: a linear operator and a law of independent data; under one that is not log-concave (Rician, Gamma)
                the result is a stationary point, and the prior has to be smooth.
            callback: told (iteration, total, certified residual) now and then.

        Returns:
            Estimate: `history` holds the objective −log p(y|x) + weight·prior(x), without the likelihood's constants,
            at each check (of the last item of a batch); `diagnostics` the solver, the weight and how it was chosen.

        Raises:
            InputError: the operator is not linear, the law not such, or the data do not fit.
        """
        began = time.perf_counter()
        check_pair(y, problem, "MAP")
        if not isinstance(problem.operator, LinearOperator):
            raise InputError(
                f"MAP expects a linear operator, got {type(problem.operator).__name__}; linearise it at an image first"
            )
        problem._check(y)
        bound = self._bound(problem)
        items = y.reshape(-1, *problem.operator.data_shape)
        if not len(items):
            raise InputError("MAP expects at least one measurement, got an empty batch")
        outcomes = [self._item(item, problem, bound, callback or silent) for item in items]
        results = [result for result, _ in outcomes]
        image = torch.stack([result.x for result in results])
        image = image.reshape(*y.shape[: y.ndim - len(problem.operator.data_shape)], *problem.operator.image_shape)
        diagnostics = _merged([diagnostics for _, diagnostics in outcomes])
        diagnostics["seconds"] = time.perf_counter() - began
        return Estimate(image, _status(results), results[-1].history, diagnostics)

    def _bound(self, problem: Problem) -> Prior:
        """The prior for these images, with positivity if asked for."""
        shape = problem.operator.image_shape
        prior = self.prior.bind(shape)
        counting = isinstance(problem.noise, Poisson | PoissonGaussian)
        wanted = counting if self.positivity is None else self.positivity
        present = any(isinstance(part, Positivity) for _, part in parts(prior))
        if wanted and not present:
            if problem.operator.dtype.is_complex:
                raise InputError("MAP expects real images for positivity; set positivity=False")
            prior = prior + Positivity(dimensions=len(shape) - 1)
        return prior

    def _item(self, y: Tensor, problem: Problem, prior: Prior, callback: Callback) -> tuple[Result, dict]:
        operator = problem.operator
        assert isinstance(operator, LinearOperator)
        data = fidelity(y, problem.noise)

        def run(measured: Tensor, weight: float, start: Tensor | None, tolerance: float, tell: Callback):
            law = data if measured is y else fidelity(measured, problem.noise)
            return solve(
                operator, law, prior, weight, start=start, tolerance=tolerance,
                max_iterations=self.max_iterations, callback=tell,
            )  # fmt: skip

        diagnostics: dict = {}
        if self.weight == "auto":
            loose = min(0.1, _LOOSE * self.tolerance)

            def image(measured: Tensor, weight: float) -> Tensor:
                return run(measured, weight, None, loose, silent)[0].x

            choice = choose(image, y, problem, prior, self.selection, self.seed)
            weight = choice.weight
            diagnostics |= {"selection": choice.rule, "criterion": choice.value, "tried": choice.tried}
        else:
            weight = float(self.weight)
        result, solver = run(y, weight, None, self.tolerance, callback)
        if self.weight == "auto" and diagnostics["tried"] and choice.at_edge:
            note = f"the weight {weight:.3g} lies at the edge of the range searched: give a weight by hand. "
            result = replace(result, status=replace(result.status, message=note + result.status.message))
        diagnostics |= {
            "solver": solver,
            "weight": weight,
            "iterations": result.iterations,
            "residual": result.residual,
            "objective": float(data.value(operator(result.x)) + weight * prior.value(result.x)),
            "chi2": float(problem.chi2(result.x, y)) if not isinstance(data, Counting) else _chi2(problem, result.x, y),
        }
        return result, diagnostics


def _chi2(problem: Problem, x: Tensor, y: Tensor) -> float:
    mean = problem.operator(x).clamp_min(0)
    return float((problem.noise.weight(mean) * (y - mean).square()).mean())


def _merged(items: list[dict]) -> dict:
    """One item's figures as they are; several as lists."""
    if len(items) == 1:
        return dict(items[0])
    return {name: [item[name] for item in items] for name in items[0]}


def _status(results: list[Result]) -> Status:
    failed = [(i, result.status) for i, result in enumerate(results) if not result.status.converged]
    if not failed or len(results) == 1:
        return failed[0][1] if failed else results[-1].status
    number, first = failed[0]
    message = f"{len(failed)} of {len(results)} items did not converge; item {number}: {first.message}"
    return Status(False, first.reason, message)
