"""Measurements made while training: a recipe's operator and noise, drawn anew for every item.

    operator: {kind: Blur, motion: [1.5, 4.0], gaussian: [0.8, 2.5], size: 25}        random blurs
    operator: {kind: Blur, kernels: kernels/levin09_8.npz}                            blurs out of a file
    operator: {kind: Downsample, factor: 2}                                           any public operator
    operator: {kind: Mask, mask: {hidden: [35, 35]}}                                  a hole amid the image
    noise: {kind: Gaussian, sigma: [0.02, 0.04]}                                      a range is drawn from

A list of two numbers under `noise` is a range, drawn uniformly; an argument `{file: PATH, key: NAME}` is an array of an
`.npy` or `.npz` file below OBVERSE_DATA, and `{hidden: [ROWS, COLUMNS]}` is 0 amid the image and 1 elsewhere.
Everything random comes from the generator passed, so that an item is the same whoever makes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import noise as laws
from .. import operators
from ..errors import InputError
from ..operators.base import LinearOperator
from ..problem import Problem
from .blurs import RandomBlur
from .data import Dataset, Place
from .recipe import data_folder

__all__ = ["Simulated", "Simulation"]


class Simulated(NamedTuple):
    """Images, their measurements, and the problem that each was measured by."""

    truth: Tensor
    measurement: Tensor
    problems: list[Problem]


class Simulation:
    """Draws a problem for images of a shape.

    Args:
        operator: `kind` "Blur" or the name of a public operator, and its arguments but for `image_shape`.
        noise: `kind`, the name of a noise law, and its arguments, or ranges of them.

    Raises:
        InputError: an unknown kind or argument.
    """

    def __init__(self, operator: Mapping[str, Any], noise: Mapping[str, Any]):
        self.operator, self.noise = dict(operator), dict(noise)
        kind = self.operator.pop("kind", None)
        self.blur, self._fixed = None, {}
        self.boundary = self.operator.pop("boundary", "circular") if kind == "Blur" else None
        if kind == "Blur":
            if isinstance(self.operator.get("kernels"), str):
                self.operator["kernels"] = _arrays(self.operator["kernels"])
            self.blur = _made(RandomBlur, self.operator)
        elif kind not in operators.__all__ or not isinstance(getattr(operators, kind), type):
            raise InputError(f"expected an operator of kind Blur or one of obverse.operators, got {kind!r}")
        self.kind = kind
        self.arguments = {name: _constant(value) for name, value in self.operator.items()}
        self.law = self.noise.pop("kind", None)
        if self.law not in laws.__all__ or not isinstance(getattr(laws, self.law), type):
            raise InputError(f"expected a noise law out of {', '.join(laws.__all__)}, got {self.law!r}")

    def draw(self, image_shape: Sequence[int], generator: torch.Generator) -> Problem:
        """A problem for images of this shape."""
        operator = self._operator(tuple(image_shape), generator)
        constants = {}
        for name, value in self.noise.items():
            if isinstance(value, Sequence) and not isinstance(value, str):
                low, high = map(float, value)
                value = low + (high - low) * float(torch.rand((), generator=generator))
            constants[name] = value
        return Problem(operator, _made(getattr(laws, self.law), constants))

    def batch(self, data: Dataset, places: Sequence[Place], device: torch.device) -> Simulated:
        """The items of some places, each measured by a problem of its own; random numbers are its place's."""
        clean, measured, problems = [], [], []
        for place in places:
            x = data.item(place.index, place.generator)
            problem = self.draw(x.shape, place.generator)
            clean.append(x)
            measured.append(problem.simulate(x, place.generator))
            problems.append(problem)
        return Simulated(torch.stack(clean).to(device), torch.stack(measured).to(device), problems)

    def _operator(self, image_shape: tuple[int, ...], generator: torch.Generator) -> LinearOperator:
        if self.blur is not None:
            return operators.Convolution(self.blur.draw(generator), image_shape, self.boundary or "circular")
        if image_shape not in self._fixed:
            kind = getattr(operators, self.kind)
            arguments = {name: _sized(value, image_shape) for name, value in self.arguments.items()}
            self._fixed[image_shape] = _made(kind, {**arguments, "image_shape": image_shape})
        return self._fixed[image_shape]


def _made(kind: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return kind(**arguments)
    except TypeError as error:
        raise InputError(f"{kind.__name__} cannot be built from {sorted(arguments)}: {error}") from error


def _constant(value: Any) -> Any:
    """A tensor for `{file: …, key: …}`; anything else as it is."""
    if not isinstance(value, Mapping) or "file" not in value:
        return value
    arrays = _arrays(value["file"])
    key = value.get("key", next(iter(arrays)))
    if key not in arrays:
        raise InputError(f"expected {key} among {', '.join(arrays)} in {value['file']}; correct the recipe's key")
    return arrays[key]


def _sized(value: Any, image_shape: Sequence[int]) -> Any:
    """A mask of the image's size for `{hidden: [rows, columns]}`; anything else as it is."""
    if not isinstance(value, Mapping) or "hidden" not in value:
        return value
    mask, hidden = torch.ones(image_shape[-2:]), [int(n) for n in value["hidden"]]
    if len(hidden) != 2 or not all(0 < n <= size for n, size in zip(hidden, mask.shape)):
        raise InputError(f"expected hidden rows and columns that fit an image {tuple(mask.shape)}, got {hidden}")
    top, left = ((size - n) // 2 for n, size in zip(hidden, mask.shape))
    mask[top : top + hidden[0], left : left + hidden[1]] = 0
    return mask


def _arrays(path: str) -> dict[str, Tensor]:
    file = data_folder(path)
    if not file.is_file():
        raise InputError(f"expected an .npy or .npz file at {file}, found none; correct the recipe's path")
    content = np.load(file, allow_pickle=False)
    arrays = dict(content.items()) if isinstance(content, np.lib.npyio.NpzFile) else {"": content}
    return {name: torch.from_numpy(np.ascontiguousarray(array)).float() for name, array in arrays.items()}
