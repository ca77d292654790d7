"""Columns of numbers: angles, wavelengths and curves from FITS, text or CSV, and tables to ECSV.

A text file holds one row a line, its numbers separated by blanks, commas or semicolons; what follows `#` is a comment,
and one first line without numbers is a heading. ECSV is CSV with the columns' units and the table's metadata in front.

References: Evans et al., "Enhanced Character Separated Values (ECSV)", Astropy Proposal for Enhancement 6.
"""

__all__ = ["numbers", "write_ecsv"]

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, InputError
from . import fits
from .safe import atomic_write

_LIMIT = 50_000_000  # bytes of a text file: a million rows
_SEPARATORS = re.compile(r"[\s,;]+")


def numbers(path: str | os.PathLike[str], columns: int, what: str) -> np.ndarray:
    """The rows of a file, `(rows, columns)`; of one column `(rows,)`.

    Args:
        path: FITS (an array of one axis, or of two where one of them is the columns), or text.
        columns: how many each row has.
        what: name for the messages, such as "the angles".

    Raises:
        InputError: the file cannot be read, or has another number of columns.
        FormatError: it is damaged, or holds something other than finite numbers.
    """
    path = Path(path)
    if path.name.lower().endswith(fits.SUFFIXES):
        values = np.asarray(fits.load(path)[0], np.float64).squeeze()
        values = values.reshape(-1, 1) if columns == 1 and values.ndim <= 1 else values
        if values.ndim == 2 and values.shape[1] != columns and values.shape[0] == columns:
            values = values.T
    else:
        values = _text(path, what)
    if values.ndim != 2 or values.shape[1] != columns or not len(values):
        raise InputError(
            f"{what} expects {columns} number(s) a row, got shape {values.shape} in {path.name}; see the docs"
        )
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise FormatError(f"{what} expects finite numbers, got {bad} that are not in {path.name}; correct them")
    return values[:, 0] if columns == 1 else values


def write_ecsv(
    path: str | os.PathLike[str],
    columns: Mapping[str, Sequence[float | int | str]],
    units: Mapping[str, str],
    metadata: Mapping[str, Any],
) -> Path:
    """Write a table as ECSV, whole or not at all; an existing file is replaced.

    Args:
        columns: values by name, all of one length.
        units: by the name of the column, in the words of FITS ("pix", "arcsec", "deg").
        metadata: plain values that go in front of the table.
    """
    from astropy.table import Table

    known = {name: unit for name, unit in units.items() if name in columns}
    table = Table({name: list(values) for name, values in columns.items()}, units=known, meta=dict(metadata))
    with atomic_write(path, overwrite=True) as file:
        text = io.StringIO()
        table.write(text, format="ascii.ecsv")
        file.write(text.getvalue().encode())
    return Path(path)


def _text(path: Path, what: str) -> np.ndarray:
    try:
        if path.stat().st_size > _LIMIT:
            raise FormatError(f"{what} expects a text file of at most {_LIMIT} bytes, got more in {path.name}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} is expected to be a readable file, got {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} expects FITS, text or CSV, got other bytes in {path.name}; convert it") from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        words = [word for word in _SEPARATORS.split(line.partition("#")[0].strip()) if word]
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError as error:
            if not rows and number <= 2:
                continue  # a heading
            raise FormatError(f"{what} expects numbers, got {line[:40]!r} in line {number} of {path.name}") from error
        if len(rows[-1]) != len(rows[0]):
            raise FormatError(
                f"{what} expects as many numbers in each line, got {len(rows[-1])} instead of {len(rows[0])} in line "
                f"{number} of {path.name}"
            )
    return np.asarray(rows, np.float64) if rows else np.empty((0, 0))
