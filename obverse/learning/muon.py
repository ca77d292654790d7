"""The optimiser: Muon for the matrices within a network, Adam for all else.

    M ← μ M + (1 − μ) G,    N = (1 − μ) G + μ M                       momentum, one step ahead
    W ← W − 10 rate · √max(1, m/n) · U Vᵀ,    N = U Σ Vᵀ                for a matrix of m × n

A step along U Vᵀ moves all directions of a matrix alike, where Adam's gives nearly all to the few with large gradients;
U-Nets that denoise get as good in far fewer steps. A kernel counts as a matrix of its first axis (outputs; inputs of a
transposed convolution) against all others. The factor 10, found by trial, lets both share a rate. What has fewer than
eight inputs or outputs (first and last layers, biases, step lengths) has nothing to orthogonalise and goes by Adam.

References: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. Kingma, Ba, "Adam: a method
for stochastic optimization", ICLR 2015.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .parallel import local, whole, whole_like

__all__ = ["Muon", "orthogonalised"]

_SMALLEST = 8  # inputs and outputs of what counts as a matrix
_FACTOR, _MOMENTUM, _BETAS, _EPS = 10.0, 0.95, (0.9, 0.99), 1e-8
_QUINTIC, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5  # takes singular values from 0.005 … 1 to 0.68 … 1.16


class Muon(torch.optim.Optimizer):
    """One learning rate for all parameters; no weight decay.

    Args:
        parameters: sharded over processes, or not.
        rate: the learning rate, as for Adam.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float):
        super().__init__(parameters, {"lr": rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move = _by_muon if min((*parameter.shape, 0, 0)[:2]) >= _SMALLEST else _by_adam
                    move(parameter, parameter.grad, self.state[parameter], group["lr"])


def _by_muon(parameter: Tensor, gradient: Tensor, state: dict[str, Any], rate: float) -> None:
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    momentum = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
    matrix = whole(gradient.lerp(momentum, _MOMENTUM)).flatten(1)
    direction = orthogonalised(matrix).reshape(parameter.shape)
    factor = _FACTOR * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    local(parameter).sub_(local(whole_like(direction, parameter)), alpha=rate * factor)


def _by_adam(parameter: Tensor, gradient: Tensor, state: dict[str, Any], rate: float) -> None:
    if not state:
        state |= {"step": torch.zeros(()), "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
    state["step"] += 1
    first, second = (1 - beta ** float(state["step"]) for beta in _BETAS)
    mean = state["mean"].lerp_(gradient, 1 - _BETAS[0])
    square = state["square"].mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
    parameter.addcdiv_(mean, (square / second).sqrt_().add_(_EPS), value=-rate / first)


def orthogonalised(matrix: Tensor) -> Tensor:
    """U Vᵀ of `matrix` = U Σ Vᵀ, with singular values from 0.6 to 1.2 in place of 1 where Σ is above 1/200 of its norm.

    Smaller ones become less; a matrix of zeros, or of numbers below 1e-20, becomes zero.

    Five quintic iterations, carried out on the smaller Gram matrix: a third of the work for convolutions' flat ones.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    largest = matrix.abs().amax()
    matrix = torch.where(largest > 1e-20, matrix / largest.clamp_min(1e-20), 0.0)
    matrix = matrix / matrix.norm().clamp_min(1e-20)
    unit, (a, b, c) = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device), _QUINTIC
    gram, product = matrix @ matrix.T, unit
    for _ in range(_ITERATIONS):
        factor = a * unit + b * gram + c * gram @ gram
        product, gram = factor @ product, factor @ gram @ factor
    return product @ matrix
