"""Images in FITS, read within limits and written with their world coordinates.

A FITS file is a row of blocks of 2880 bytes: a header of 80-character cards that ends with END, then the array it
declares, big-endian, the axis NAXIS1 running fastest. Sizes are compared with the bytes that are there before anything
is allocated; a gzip file is unpacked no further than its header declares, and only as far as deflate plausibly packs.
Stored integers n stand for BZERO + BSCALE · n, and BLANK for no value (NaN).

World coordinates are those of the tangent plane about the star: CRPIX is the star's pixel counted from one, and CDELT1
is negative, since right ascension grows to the left where North is up.

References: Pence et al., "Definition of the Flexible Image Transport System (FITS), version 3.0", A&A 2010.
Calabretta, Greisen, "Representations of celestial coordinates in FITS", A&A 2002. Greenfield et al. (Astropy
Collaboration), "The Astropy Project: building an open-science project", AJ 2018.
"""

__all__ = ["SUFFIXES", "Sky", "load", "read", "write"]

import gzip
import io
import math
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, InputError
from ..volume import Volume
from .safe import DEFAULT_LIMIT, atomic_write, check_size

SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz")

_BLOCK = 2880  # bytes
_HEADER_BLOCKS = 1000  # 36 000 cards, ten times the longest headers of observatories
_EXTENSIONS = 100  # headers that are looked through for the first array
_EXPANSION = 100  # noise does not pack; a plain sky packs a hundredfold at most
_MARGIN = 2**24  # bytes that any file may unpack to
_CARDS = 2000  # of a header that are kept
_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True)
class Sky:
    """Where an image lies on the sky, for its header.

    Args:
        centre: the star's (x, y), in pixels from zero.
        scale: arcseconds per pixel; None where it is not known.
        north_up: North is up and East left; otherwise the axes are those of the detector.
        target: right ascension and declination of the star in degrees; None where they are not known.
    """

    centre: tuple[float, float]
    scale: float | None = None
    north_up: bool = False
    target: tuple[float, float] | None = None

    def cards(self) -> dict[str, Any]:
        """The header's cards.

        Example:
            >>> found = Sky((50.0, 50.0), 0.027, north_up=True).cards()
            >>> found["CTYPE1"][0], found["CRPIX1"][0], found["CDELT1"][0] < 0
            ('RA---TAN', 51.0, True)
        """
        x, y = self.centre
        cards: dict[str, Any] = {"CRPIX1": (x + 1, "star, from one"), "CRPIX2": (y + 1, "star, from one")}
        if self.scale is None:
            return cards
        if not self.north_up:
            for axis in "12":
                cards |= {
                    f"CTYPE{axis}": ("LINEAR", "offset from the star, axes of the detector"),
                    f"CRVAL{axis}": (0.0, ""),
                    f"CDELT{axis}": (self.scale, ""),
                    f"CUNIT{axis}": ("arcsec", ""),
                }
            return cards
        known = "of the star" if self.target else "offset: the star has no coordinates here"
        right_ascension, declination = self.target or (0.0, 0.0)
        return cards | {
            "CTYPE1": ("RA---TAN", "right ascension, tangent plane"),
            "CTYPE2": ("DEC--TAN", "declination, tangent plane"),
            "CRVAL1": (right_ascension, known),
            "CRVAL2": (declination, known),
            "CDELT1": (-self.scale / 3600, "East is left"),
            "CDELT2": (self.scale / 3600, "North is up"),
            "CUNIT1": ("deg", ""),
            "CUNIT2": ("deg", ""),
        }


def load(path: str | os.PathLike[str], limit: int = DEFAULT_LIMIT) -> tuple[np.ndarray, dict[str, Any]]:
    """The first array of a FITS file, and its header.

    Args:
        path: `.fits`, or the same packed with gzip.
        limit: most bytes that the array may have.

    Returns:
        The array in the machine's byte order, last axis NAXIS1: integers as stored where the header does not rescale
            them, else floating point; and the header's cards with a value, those of the primary header below.

    Raises:
        InputError: the file cannot be read, or holds no array.
        FormatError: it is not FITS, is truncated, or declares more than the limit.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            room = _EXPANSION * size + _MARGIN if packed else size
            return _first_array(stream, path.name, limit, room)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(f"{path.name} is expected to unpack, got {_short(error)}; copy it again") from error
    except FormatError:
        raise
    except OSError as error:
        raise InputError(f"{path} is expected to be a readable file, got {error.strerror or error}") from error


def read(path: str | os.PathLike[str], axes: Mapping[int, str], what: str = "the file") -> Volume:
    """A FITS image as a volume, its header in `metadata["header"]`.

    Args:
        path: the file.
        axes: what its axes are, by their number, such as `{3: "TYX"}`; leading axes of one sample are dropped.
        what: name for the messages.

    Raises:
        InputError: another number of axes.
        FormatError: see `load`.
    """
    array, header = load(path)
    while array.ndim > min(axes) and array.ndim not in axes and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in axes:
        wanted = " or ".join(f"{n} ({', '.join(letters)})" for n, letters in axes.items())
        raise InputError(f"{what} expects {wanted} axes, got shape {array.shape} in {Path(path).name}; give another")
    unit = str(header.get("BUNIT") or "counts")
    name = Path(path).name
    return Volume(
        array, axes[array.ndim], intensity_unit=unit, metadata={"header": header}, provenance=(f"read {name}",)
    )


def write(
    array: np.ndarray,
    path: str | os.PathLike[str],
    *,
    sky: Sky | None = None,
    unit: str = "",
    cards: Mapping[str, Any] | None = None,
    history: Sequence[str] = (),
) -> Path:
    """Write an image as FITS, float32, whole or not at all; an existing file is replaced.

    Args:
        array: real numbers, last axis x; NaN where there is no value.
        sky: its place on the sky.
        unit: of the values, as BUNIT.
        cards: further cards of the header, name → value or (value, comment).
        history: sentences on where the values come from.
    """
    fits = _astropy()
    header = fits.Header()
    for name, value in {**(sky.cards() if sky else {}), "BUNIT": unit, **(cards or {})}.items():
        if value is not None and value != "":
            header[name] = tuple(_ascii(v) for v in value) if isinstance(value, tuple) else _ascii(value)
    for sentence in history:
        header.add_history(_ascii(sentence))
    content = io.BytesIO()
    fits.PrimaryHDU(np.asarray(array, np.float32), header).writeto(content)
    with atomic_write(path, overwrite=True) as file:
        file.write(content.getvalue())
    return Path(path)


def _first_array(stream: Any, name: str, limit: int, room: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The first header with an array of one axis or more; those before it are passed over."""
    kept: dict[str, Any] = {}
    for index in range(_EXTENSIONS):
        header = _header(stream, name, first=index == 0)
        if header is None:
            break
        kept |= header
        shape, kind = _declared(header, name)
        needed = check_size(shape, kind, limit, f"the array of {name}") if shape else 0
        if needed > room:
            raise FormatError(
                f"{name} declares {needed} bytes, got a file with room for {room}; it is cut short, copy it again"
            )
        skipped = header.get("XTENSION", "IMAGE").strip() not in ("IMAGE", "")
        if shape and not skipped:
            content = _exactly(stream, needed, name)
            return _scaled(np.frombuffer(content, kind).reshape(shape), header), kept
        needed = (needed + _integer(header, "PCOUNT", 0)) * max(1, _integer(header, "GCOUNT", 1))
        if needed > min(limit, room):
            raise FormatError(f"{name} declares a table of {needed} bytes, which it does not hold; copy it again")
        _exactly(stream, -(-needed // _BLOCK) * _BLOCK, name)
    raise InputError(f"{name} is expected to hold an image, got none in its headers; give a FITS file with an array")


def _header(stream: Any, name: str, first: bool) -> dict[str, Any] | None:
    """The next header; None at the end of the file."""
    text = b""
    for _ in range(_HEADER_BLOCKS):
        block = stream.read(_BLOCK)
        if not block.strip(b"\0 ") and not text and not first:
            return None  # padding behind the last array
        if len(block) < _BLOCK or (not text and block[:8] not in (b"SIMPLE  ", b"XTENSION")):
            raise FormatError(
                f"{name} is expected to be a FITS file, got one that is cut short or of another format; copy it again"
            )
        text += block
        if any(block[k : k + 8] == b"END     " for k in range(0, _BLOCK, 80)):
            return _cards(text, name)
    raise FormatError(f"{name} is expected to end its header, got {len(text)} bytes without END; it is damaged")


def _cards(text: bytes, name: str) -> dict[str, Any]:
    fits = _astropy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = fits.Header.fromstring(text.decode("ascii"))
            cards = {
                c.keyword: c.value for c in list(found.cards)[:_CARDS] if c.keyword not in ("COMMENT", "HISTORY", "")
            }
    except Exception as error:  # whatever the parser makes of damaged cards
        raise FormatError(
            f"the header of {name} is expected to be FITS cards, got {_short(error)}; copy it again"
        ) from error
    return {key: value for key, value in cards.items() if isinstance(value, bool | int | float | str)}


def _declared(header: Mapping[str, Any], name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape, slowest axis first, and type."""
    bits = _integer(header, "BITPIX", 0)
    count = _integer(header, "NAXIS", -1)
    sizes = tuple(_integer(header, f"NAXIS{k}", -1) for k in range(min(count, 10), 0, -1))
    if bits not in _TYPES or not 0 <= count <= 9 or any(n < 0 for n in sizes):
        raise FormatError(
            f"{name} expects BITPIX out of {sorted(_TYPES)} and up to 9 axes, got {header.get('BITPIX')} and "
            f"{header.get('NAXIS')}; the header is damaged"
        )
    return (sizes if math.prod(sizes) else ()), np.dtype(_TYPES[bits])


def _scaled(stored: np.ndarray, header: Mapping[str, Any]) -> np.ndarray:
    scale, zero = (
        float(header.get(k, d)) if _is_number(header.get(k, d)) else d for k, d in (("BSCALE", 1.0), ("BZERO", 0.0))
    )
    array = stored.astype(stored.dtype.newbyteorder("="))
    if stored.dtype.kind == "f":
        return array if (scale, zero) == (1.0, 0.0) else array * scale + zero
    blank = header.get("BLANK")
    if (scale, zero) == (1.0, 0.0) and blank is None:
        return array
    values = array * scale + zero
    return values if blank is None else np.where(stored == blank, np.nan, values)


def _exactly(stream: Any, count: int, name: str) -> bytes:
    content = stream.read(count)
    if len(content) != count:
        raise FormatError(f"{name} is expected to hold {count} bytes of values, got {len(content)}; it is cut short")
    return content


def _integer(header: Mapping[str, Any], key: str, default: int) -> int:
    value = header.get(key, default)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62 else -1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _ascii(value: Any) -> Any:
    """Text in the characters that a header may hold."""
    return value.encode("ascii", "replace").decode().replace("\n", " ") if isinstance(value, str) else value


def _astropy() -> Any:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise InputError(
            "FITS expects the package astropy, got an installation without; pip install obverse[astro]"
        ) from error
    return fits


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
