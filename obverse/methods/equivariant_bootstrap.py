"""How far an estimator errs, by its own errors on images that it made itself and that were moved before each trial.

    x_i = T_g⁻¹ x̂( y_i ),     y_i ~ p(· | A T_g x̂(y)),     e_i = x_i − x̂(y)
    Cov = 1/N Σ_i e_i e_iᵀ   (about zero: bias is part of the error),    MSE = 1/N Σ_i ‖e_i‖²      "estimator-error"

x̂(y) stands in for the truth, so its error is seen as far as it is repeated: noise is drawn anew, and the transform g
moves what the operator had hidden to where it sees. Without transforms (the parametric bootstrap) an estimator that
never puts anything in the null space of A seems to err by nothing there. With them the reasoning holds for images whose
moved versions are images too, and for estimators that commute with T_g as far as the operator lets them; the range of
transforms is a choice that the error scales with.

It is a law of the estimator's error under repeated noise, not a posterior: it says nothing of what else could have made
these data. The truth is x̂ − e, so the kept draws are x̂ − e_i and intervals the pivotal ones.

References: Tachella, Pereyra, "Equivariant bootstrapping for uncertainty quantification in imaging inverse problems",
AISTATS 2024. Efron, Tibshirani, "An introduction to the bootstrap", 1993.
"""

__all__ = ["EquivariantBootstrap"]

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..noise.base import stream
from ..posterior import Estimate, Posterior
from ..posterior.spread import spread_covariance
from ..problem import Problem
from ..solvers.result import Status
from ..transforms import Transform
from .base import Callback, check_item, described, real_image, silent


@dataclass(frozen=True, eq=False)
class EquivariantBootstrap:
    """Error law of any method.

    Args:
        method: x̂, called once for the image and once for every draw.
        transforms: one or several in a row; none for the parametric bootstrap.
        draws: N.
        seed: of transforms and noise.

    Example:
        >>> import torch, obverse as ob
        >>> field = ob.priors.GaussianField(torch.ones(8, 8), (1, 8, 8))
        >>> problem = ob.Problem(ob.operators.Identity((1, 8, 8)), ob.noise.Gaussian(1.0))
        >>> method = EquivariantBootstrap(ob.methods.Gaussian(field), ob.transforms.Shift(), draws=50)
        >>> found = method(torch.zeros(1, 8, 8), problem)
        >>> found.target, 0.2 < found.diagnostics["mse"] < 0.3                                  # half the noise passes
        ('estimator-error', True)
    """

    method: Callable[..., Estimate]
    transforms: Transform | Sequence[Transform] = ()
    _: KW_ONLY
    draws: int = 100
    seed: int = 0

    def __post_init__(self):
        given = (self.transforms,) if isinstance(self.transforms, Transform) else tuple(self.transforms)
        object.__setattr__(self, "transforms", given)
        if not callable(self.method) or not all(isinstance(one, Transform) for one in given):
            raise InputError(
                f"EquivariantBootstrap expects a method and transforms, got {type(self.method).__name__} and "
                f"{[type(one).__name__ for one in given]}; see obverse.transforms"
            )
        if self.draws < 2:
            raise InputError(f"EquivariantBootstrap expects at least two draws, got {self.draws}; 100 are usual")

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The estimate, and the law of its error.

        Args:
            y: of exactly the operator's `data_shape`.
            problem: whatever the method can do; its noise is drawn anew.
            callback: told (draw, draws, mean squared error so far).

        Returns:
            A posterior of target "estimator-error"; `diagnostics` has the mean squared error of a pixel and its
            standard error, and the share of it that is the mean of all errors: what does not average out.

        Raises:
            InputError: the data do not fit, or images are complex.
        """
        begun, tell = time.perf_counter(), callback or silent
        check_item(y, problem, "EquivariantBootstrap")
        real_image(problem.operator, y, "EquivariantBootstrap")
        first = self.method(y, problem)
        image = first.image
        errors, failed, evaluations = [], int(not first.status.converged), [first]
        squares: list[float] = []
        for number in range(self.draws):
            found, moved = self._again(image, problem, stream(self.seed, number))
            errors.append(moved - image)
            failed += not found.status.converged
            evaluations.append(found)
            squares.append(float(errors[-1].double().square().mean()))
            tell(number + 1, self.draws, sum(squares) / len(squares))
        law, mse = torch.stack(errors), torch.tensor(squares, dtype=torch.float64)
        diagnostics = {
            "mse": float(mse.mean()),
            "mse_standard_error": float(mse.std() / self.draws**0.5),
            "bias_share": float(law.double().mean(0).square().mean() / mse.mean().clamp_min(1e-300)),
            "calls": len(evaluations),
            "evaluations": sum(one.diagnostics.get("evaluations", 1) for one in evaluations),
            "failed": failed,
            "seconds": time.perf_counter() - begun,
        }
        message = f"{self.draws} errors of the estimator on images that it made itself"
        message += f"; {failed} of {len(evaluations)} runs of it did not converge" if failed else ""
        status = Status(not failed, "member" if failed else "completed", message)
        covariance = spread_covariance(law, torch.zeros_like(image))
        history = tuple((mse.cumsum(0) / torch.arange(1, self.draws + 1)).tolist())
        return described(self, image, status, history, diagnostics, covariance, "estimator-error", image - law)

    def _again(self, image: Tensor, problem: Problem, generator: torch.Generator) -> tuple[Estimate, Tensor]:
        """One trial: the estimate of the moved image's data, and where it lies when moved back."""
        moved, actions = image, []
        for transform in self.transforms:  # type: ignore[union-attr]
            actions.append((transform, transform.sample(generator)))
            moved = transform(moved, actions[-1][1])
        found = self.method(problem.simulate(moved, generator), problem)
        back = found.image
        for transform, g in reversed(actions):
            back = transform.inverse(back, g)
        return found, back
