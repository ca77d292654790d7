"""Measured arrays that keep their physical meaning: axes, spacing, units, metadata, and what was done to them.

A `Volume` goes from the file to the report. Its array may have any of the axes T (time), C (channel), Z, Y, X in any
order; `image()` gives the order that operators work in, `(C, Y, X)` or `(C, Z, Y, X)`.

>>> v = Volume(np.ones((4, 8, 8)), "ZYX", spacing=(0.3, 0.1, 0.1), units=("um", "um", "um"))
>>> v.image().shape, v.spacing_in("Z", "nm")
((1, 4, 8, 8), 300.0)
"""

__all__ = ["LENGTH_UNITS", "Volume"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .errors import InputError

LENGTH_UNITS = {
    "m": 1.0,
    "cm": 1e-2,
    "mm": 1e-3,
    "um": 1e-6,
    "nm": 1e-9,
    "pm": 1e-12,
    "angstrom": 1e-10,
    "inch": 0.0254,
}


@dataclass(frozen=True, eq=False)
class Volume:
    """An array with axes, spacing, units, metadata and provenance.

    Args:
        array: numbers, one axis per letter of `axes`; it is not copied, so don't write to it afterwards.
        axes: one capital letter per axis, each at most once, such as "YX", "ZYX", "CYX" or "TCZYX".
        spacing: step between samples along each axis, None where it is unknown or makes no sense (channels).
        units: unit of each spacing, such as "um"; None where there is no spacing.
        intensity_unit: unit of the values.
        metadata: what else the file said, such as channel names; JSON-like values.
        provenance: sentences, oldest first, on where the values come from.

    Raises:
        InputError: axes, spacing or units do not fit the array, or the array is not of numbers.
    """

    array: np.ndarray
    axes: str
    spacing: tuple[float | None, ...] | None = None
    units: tuple[str | None, ...] | None = None
    intensity_unit: str = "counts"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    provenance: tuple[str, ...] = ()

    def __post_init__(self):
        array, axes = np.asanyarray(self.array), self.axes
        if array.dtype.kind not in "uifcb":
            raise InputError(f"a volume expects an array of numbers, got dtype {array.dtype}; convert it first")
        if len(axes) != array.ndim or len(set(axes)) != len(axes) or not (axes.isalpha() and axes.isupper()):
            raise InputError(
                f"a volume expects one distinct capital letter per axis, got axes {axes!r} for an array of shape "
                f"{array.shape}; give axes such as {'CZYX'[-array.ndim :] if array.ndim else 'YX'!r}"
            )
        spacing = (None,) * array.ndim if self.spacing is None else tuple(self.spacing)
        units = (None,) * array.ndim if self.units is None else tuple(self.units)
        if len(spacing) != array.ndim or len(units) != array.ndim:
            raise InputError(
                f"a volume with axes {axes!r} expects {array.ndim} spacings and units, got {len(spacing)} and "
                f"{len(units)}; give one per axis, None where there is none"
            )
        for letter, step in zip(axes, spacing):
            if step is not None and not (np.isfinite(step) and step > 0):
                raise InputError(f"spacing along {letter} expects a positive number, got {step}; correct or omit it")
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "spacing", tuple(None if s is None else float(s) for s in spacing))
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "metadata", dict(self.metadata))
        object.__setattr__(self, "provenance", tuple(self.provenance))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape

    def size(self, axis: str) -> int:
        """Number of samples along `axis`; 1 for an axis that the array does not have."""
        return self.array.shape[self.axes.index(axis)] if axis in self.axes else 1

    def spacing_in(self, axis: str, unit: str) -> float | None:
        """Spacing along `axis` in the length unit `unit`; None when the spacing or its unit is not known."""
        if axis not in self.axes:
            return None
        index = self.axes.index(axis)
        step, own = (self.spacing or ())[index], (self.units or ())[index]
        if step is None or own not in LENGTH_UNITS:
            return None
        return float(f"{step * LENGTH_UNITS[own] / LENGTH_UNITS[unit]:.12g}")

    def image(self) -> np.ndarray:
        """The values as `(C, Y, X)` or, with a Z axis, `(C, Z, Y, X)`; one channel where there is no C axis.

        Raises:
            InputError: X or Y is missing, or another axis (time) has more than one sample.
        """
        others = [a for a in self.axes if a not in "CZYX"]
        if "X" not in self.axes or "Y" not in self.axes or any(self.size(a) > 1 for a in others):
            raise InputError(
                f"an image expects axes Y, X and at most C and Z, got {self.axes!r} of shape {self.shape}; "
                "choose one sample of each other axis first, such as one time point"
            )
        index = tuple(0 if a in others else slice(None) for a in self.axes)
        kept = "".join(a for a in self.axes if a not in others)
        order = [kept.index(a) for a in "CZYX" if a in kept]
        array = self.array[index].transpose(order)
        return array if "C" in kept else array[None]

    def like(self, array: np.ndarray, step: str) -> "Volume":
        """A volume with the values `array` in `image()` layout, and this one's axes, spacing, units and metadata.

        Axes of one sample that `image()` dropped come back. `step` is added to the provenance.
        """
        array = np.asarray(array)
        expected = self.image().shape
        if array.shape != expected:
            raise InputError(f"expected an image of shape {expected}, got {array.shape}; restore it to the data's grid")
        kept = "".join(a for a in "CZYX" if a in self.axes)
        array = array if "C" in kept else array[0]
        array = array.transpose([kept.index(a) for a in self.axes if a in kept])
        for index, letter in enumerate(self.axes):
            if letter not in kept:
                array = np.expand_dims(array, index)
        return replace(self, array=array, provenance=(*self.provenance, step))

    def cropped(self, slices: Sequence[slice]) -> "Volume":
        """The part of the volume that `slices`, one per axis of `image()` (channel first), choose: a view, no copy."""
        layout = "CZYX" if "Z" in self.axes else "CYX"
        if len(slices) != len(layout):
            raise InputError(
                f"a crop expects one slice per axis of {layout}, got {len(slices)}; include the channel axis"
            )
        chosen = dict(zip(layout, slices))
        index = tuple(chosen.get(a, slice(None)) for a in self.axes)
        where = ", ".join(
            f"{a} {c.start or 0}:{c.stop if c.stop is not None else self.size(a)}" for a, c in chosen.items()
        )
        return replace(self, array=self.array[index], provenance=(*self.provenance, f"cropped to {where}"))

    def select(self, axis: str, index: int) -> "Volume":
        """The volume at one sample of `axis`, which then disappears; channel names follow."""
        if axis not in self.axes:
            raise InputError(f"cannot select along {axis}: this volume has axes {self.axes!r}; omit the choice")
        if not -self.size(axis) <= index < self.size(axis):
            raise InputError(f"index along {axis} expects 0 to {self.size(axis) - 1}, got {index}; choose another")
        at = self.axes.index(axis)
        metadata = dict(self.metadata)
        if (
            axis == "C"
            and isinstance(metadata.get("channels"), Sequence)
            and len(metadata["channels"]) == self.size("C")
        ):
            metadata["channels"] = [metadata["channels"][index]]
        return replace(
            self,
            array=np.take(self.array, index, axis=at),
            axes=self.axes[:at] + self.axes[at + 1 :],
            spacing=_without(self.spacing, at),
            units=_without(self.units, at),
            metadata=metadata,
            provenance=(*self.provenance, f"selected {axis} = {index}"),
        )

    def check_values(self, what: str = "the input") -> None:
        """Refuse values that no reconstruction can use: none at all, NaN, infinity, complex, or all equal."""
        array = self.array
        if array.size == 0:
            raise InputError(
                f"{what} expects at least one sample, got an empty array of shape {array.shape}; check the file"
            )
        if array.dtype.kind == "c":
            raise InputError(f"{what} expects real intensities, got {array.dtype}; take the magnitude or the real part")
        low, high = array.min(), array.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = int(array.size - np.isfinite(array).sum())
            raise InputError(
                f"{what} expects finite values, got {bad} NaN or infinite samples; fill or crop them first"
            )
        if low == high:
            raise InputError(
                f"{what} expects a picture, got the constant value {low}; check that the right file was given"
            )


def _without(values: tuple | None, index: int) -> tuple:
    values = values or ()
    return values[:index] + values[index + 1 :]
