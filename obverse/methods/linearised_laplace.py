"""Linearised Laplace: a network, as the linear model that it is near its trained weights, with their posterior.

    f(y; w) ≈ f(y; ŵ) + J(y)(w − ŵ),   J = ∂f/∂w at ŵ,      x = f(y; w) + ε,  ε ~ N(0, e²),  w ~ N(0, I/δ)
    Λ = Σ_i J_iᵀJ_i/e² + δ I         (generalised Gauss–Newton; over the pixels of all fitted items)
    image: f(y; ŵ) + J(y)(w̄ − ŵ),     covariance J(y) Λ⁻¹ J(y)ᵀ                                    target "epistemic"

For the weights named, by default those of the last layer, Λ is exact and whole, with no diagonal or Kronecker form in
its place; a model that is linear in them has its exact posterior, whatever ŵ is. δ and e are found by the evidence of
the same linear model (`weight_evidence`). The weights before stay fixed, so that their uncertainty is not in it.

e is the error that no weights remove, as if it were white: `posterior.with_aleatoric(found, fitted.error**2)`.

References: Immer, Korzepa, Bauer, "Improving predictions of Bayesian neural nets via local linearization", AISTATS
2021. Antorán et al., "Adapting the linearised Laplace model evidence for modern deep learning", ICML 2022. Barbano et
al., "Uncertainty estimation for computed tomography with a linearised deep image prior", TMLR 2023.
"""

__all__ = ["LinearisedLaplace"]

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..networks.stochastic import linear_layers
from ..posterior import Posterior
from ..posterior.covariance import DENSE_LIMIT
from ..posterior.spread import rooted_covariance
from ..problem import Problem
from ..solvers.result import Status
from .base import Callback, check_item, described, real_image
from .weight_evidence import Regression, regress


@dataclass(frozen=True, eq=False)
class LinearisedLaplace:
    """A method with the posterior of some of its weights; made by `fit`.

    Args:
        method: with a `network` and a differentiable `reconstruct(y, problem)`, such as `methods.Network`.
        parameters: names of the weights, as in `method.network.named_parameters()`.
        regression: their posterior.
    """

    method: Any
    parameters: Sequence[str]
    regression: Regression

    @classmethod
    def fit(
        cls,
        method: Any,
        items: Iterable[tuple[Tensor, Tensor, Problem]],
        parameters: Sequence[str] | None = None,
        *,
        precision: float | None = None,
        error: float | None = None,
        callback: Callback | None = None,
    ) -> "LinearisedLaplace":
        """The posterior of the weights given items, each seen once.

        Args:
            method: as above; nothing in it is changed.
            items: (image, data, problem): what it was trained on, or other images of that kind.
            parameters: names of at most 4096 weights in all; by default those of the last layer.
            precision: δ, by the evidence if None.
            error: e in units of the image, by the evidence if None.
            callback: told (item, None, root mean square error of the item).

        Raises:
            InputError: no item, shapes that do not agree, unknown names, or too many weights.
            NumericsError: the evidence has no maximum.

        Example:
            >>> import obverse as ob
            >>> class Scale(nn.Module):
            ...     def __init__(self):
            ...         super().__init__()
            ...         self.layer = nn.Conv2d(1, 1, 1, bias=False)
            ...     def forward(self, x, sigma):
            ...         return self.layer(x)
            >>> problem = ob.Problem(ob.operators.Identity((1, 8, 8)), ob.noise.Gaussian(0.1))
            >>> images = [torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]
            >>> items = [(x, problem.simulate(x, seed=i), problem) for i, x in enumerate(images)]
            >>> found = LinearisedLaplace.fit(ob.methods.Network(Scale()), items)
            >>> 0.09 < found.error < 0.11, found(items[0][1], problem).covariance.rank
            (True, 1)
        """
        names = tuple(_last(_network(method)) if parameters is None else parameters)
        model = _Linearised(method, names)
        H, b = torch.zeros(model.size, model.size).double(), torch.zeros(model.size).double()
        c, count = 0.0, 0
        for number, (image, y, problem) in enumerate(items):
            check_item(y, problem, "LinearisedLaplace")
            answer, columns = model.at(y, problem)
            if image.shape != answer.shape:
                raise InputError(f"an item expects an image {tuple(answer.shape)}, got {tuple(image.shape)}; crop it")
            rest = (image.to(answer) - answer).reshape(-1).double()
            columns = columns.double()
            target = rest + model.weights.double() @ columns
            H, b = H + columns @ columns.mT, b + columns @ target
            c, count = c + float(target @ target), count + len(target)
            if callback is not None:
                callback(number + 1, None, float(rest.square().mean().sqrt()))
        if not count:
            raise InputError("LinearisedLaplace.fit expects at least one item, got none; pass training images")
        return cls(method, names, regress(H, b, c, count, precision, error))

    @property
    def error(self) -> float:
        """e, in units of the image."""
        return self.regression.error

    def __call__(self, y: Tensor, problem: Problem, callback: Callback | None = None) -> Posterior:
        """The image of one measurement from the linearised network, and its spread.

        Args:
            y: of exactly the operator's `data_shape`.
            problem: as for the method.

        Raises:
            InputError: the data do not fit, or images are complex.
        """
        begun = time.perf_counter()
        check_item(y, problem, "LinearisedLaplace")
        real_image(problem.operator, y, "LinearisedLaplace")
        model, weights = _Linearised(self.method, self.parameters), self.regression
        answer, columns = model.at(y, problem)
        move = (weights.mean - model.weights.double()).to(columns) @ columns
        covariance = rooted_covariance(columns.mT.double() @ weights.root, tuple(answer.shape), answer.dtype)
        diagnostics = {
            "weights": model.size,
            "determined": weights.determined,
            "precision": weights.precision,
            "error": weights.error,
            "log_evidence": weights.log_evidence,
            "moved": float(move.norm() / answer.norm().clamp_min(1e-30)),
            "rank": covariance.rank,
            "evaluations": model.products,
            "seconds": time.perf_counter() - begun,
        }
        message = f"the linear model of {model.size} weights has its mean and covariance in closed form"
        mean = answer + move.reshape(answer.shape)
        return described(
            self, mean, Status(True, "closed-form", message), (), diagnostics, covariance, target="epistemic"
        )


class _Linearised(nn.Module):
    """The method's image as a function of the named weights."""

    def __init__(self, method: Any, names: Sequence[str]):
        super().__init__()
        self.network, self.method, self.names, self.products = _network(method), method, tuple(names), 0
        known = dict(self.network.named_parameters())
        if not names or not set(names) <= set(known):
            raise InputError(f"expected parameters out of {', '.join(known)}, got {', '.join(names) or 'none'}")
        self.shapes = [known[name].shape for name in names]
        self.weights = torch.cat([known[name].detach().reshape(-1) for name in names])
        self.size = len(self.weights)
        if self.size > DENSE_LIMIT:
            raise InputError(
                f"LinearisedLaplace expects at most {DENSE_LIMIT} weights, got {self.size}; name fewer parameters"
            )

    def forward(self, y: Tensor, problem: Problem) -> Tensor:
        return dataclasses.replace(self.method, network=self.network).reconstruct(y, problem)

    def at(self, y: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """The image and Jᵀ `(P, n)`; what lies before the weights is gone through once."""
        with torch.enable_grad():
            weights = self.weights.clone().requires_grad_()
            parts = weights.split([shape.numel() for shape in self.shapes])
            named = {f"network.{n}": part.reshape(s) for n, part, s in zip(self.names, parts, self.shapes)}
            answer = torch.func.functional_call(self, named, (y, problem))
            # Jᵀp is linear in p, and its derivative along a weight is that weight's column of J.
            probe = torch.zeros_like(answer, requires_grad=True)
            (back,) = torch.autograd.grad(answer, weights, probe, create_graph=True)
        units = torch.eye(self.size).to(back)
        columns = [torch.autograd.grad(back, probe, unit, retain_graph=True)[0] for unit in units]
        self.products += 1 + self.size
        return answer.detach(), torch.stack(columns).reshape(self.size, -1)


def _network(method: Any) -> nn.Module:
    network = getattr(method, "network", None)
    if not isinstance(network, nn.Module) or not hasattr(method, "reconstruct"):
        raise InputError(
            f"LinearisedLaplace expects a method with a network and reconstruct, got {type(method).__name__}; use "
            "methods.Network or methods.Unrolled"
        )
    return network


def _last(network: nn.Module) -> Sequence[str]:
    """Names of the weights of the last layer."""
    layers = linear_layers(network)
    if not layers:
        raise InputError("expected a network with convolutions or linear layers, got none; name parameters")
    own = {id(parameter) for parameter in layers[-1].parameters()}
    return [name for name, parameter in network.named_parameters() if id(parameter) in own]
