"""Files that are whole or absent, checked when they come back, and never larger than allowed.

A file is written beside its destination under another name, flushed to the disk and then renamed: at any moment the
destination holds the old file or the new one. A safetensors file also holds the SHA-256 of all its bytes (the 64
characters of the digest counted as zeros), so that any flipped byte, in the header as in the data, is refused.

Format: https://github.com/huggingface/safetensors#format
"""

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import FormatError, InputError

__all__ = ["atomic_write", "check_size", "read_safetensors", "sha256", "write_safetensors"]

# 16 GiB: more than any posterior of ours, less than what stalls a workstation.
DEFAULT_LIMIT = 16 * 2**30
# A header is names, shapes and our own metadata; 64 MiB is generous.
_HEADER_LIMIT = 64 * 2**20
_NO_DIGEST = b"0" * 64
_CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
_TYPES = {code: np.dtype(name).newbyteorder("<") for name, code in _CODES.items()}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` when the block ends well, and leaves no trace when it does not.

    Args:
        path: destination; its folder must exist.
        overwrite: replace an existing file.

    Raises:
        InputError: the destination exists and may not be replaced, or it cannot be written (no space left, read-only
            folder, failed rename); a previous file is then still there, untouched.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(pathlib.Path(folder) / "a.bin") as file:
        ...         _ = file.write(b"whole")
        ...     (pathlib.Path(folder) / "a.bin").read_bytes()
        b'whole'
    """
    path = Path(path)
    _check_free(path, overwrite)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.part")
    try:
        with _explained(path):
            file = open(temporary, "xb")
        try:
            with _explained(path):
                yield file
                file.flush()
                os.fsync(file.fileno())
        finally:
            # A full disk may refuse the rest of the buffer; the error that matters is already on its way.
            with contextlib.suppress(OSError):
                file.close()
        _check_free(path, overwrite)
        with _explained(path):
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} is expected to be a readable file, got {error.strerror or error}") from error


def check_size(shape: Sequence[Any], dtype: Any, limit_bytes: int, what: str = "the array") -> int:
    """Bytes that an array needs, refused before anything is allocated if they exceed a limit.

    Args:
        shape: sizes that a file declares; not to be trusted.
        dtype: anything that `numpy.dtype` understands.
        limit_bytes: most bytes allowed.
        what: name for the message.

    Raises:
        FormatError: a size is negative or not an integer, or the array is larger than the limit.

    Example:
        >>> check_size((3, 512, 512), "float32", 2**30)
        3145728
    """
    sizes = list(shape)
    if any(isinstance(m, bool) or not isinstance(m, int | np.integer) or m < 0 for m in sizes):
        raise FormatError(f"{what} expects integer sizes ≥ 0, got {tuple(sizes)[:8]}; the file is damaged or hostile")
    needed = math.prod(int(m) for m in sizes) * np.dtype(dtype).itemsize
    if needed > limit_bytes:
        raise FormatError(
            f"{what} of shape {tuple(sizes)} needs {needed / 2**20:.1f} MiB, got a limit of {limit_bytes / 2**20:.1f}; "
            "crop the file, or raise the limit if you trust it"
        )
    return needed


def write_safetensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> str:
    """Write arrays and text atomically, with a checksum of everything; equal content gives equal bytes.

    Args:
        path: destination.
        arrays: name → numpy array or CPU tensor.
        metadata: text by name; "sha256" is ours.
        overwrite: replace an existing file.

    Returns:
        The file's own digest.
    """
    prepared = {name: _little_endian(name, array) for name, array in arrays.items()}
    text = dict(metadata or {})
    if "sha256" in text or any(not isinstance(value, str) for value in text.values()):
        raise InputError(f"metadata expects text under names other than 'sha256', got {sorted(text)}; use json.dumps")
    header: dict[str, Any] = {"__metadata__": {"sha256": _NO_DIGEST.decode(), **text}}
    offset = 0
    for name, array in prepared.items():
        end = offset + array.nbytes
        header[name] = {"dtype": _CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    prefix = len(encoded).to_bytes(8, "little") + encoded
    digest = hashlib.sha256(prefix)
    for array in prepared.values():
        digest.update(_bytes(array))
    found = digest.hexdigest()
    with atomic_write(path, overwrite) as file:
        # Our key is the first in the header, so its value is the first run of 64 zeros.
        file.write(prefix.replace(_NO_DIGEST, found.encode(), 1))
        for array in prepared.values():
            file.write(_bytes(array))
    return found


def read_safetensors(
    path: str | os.PathLike[str], limit: int = DEFAULT_LIMIT
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read what `write_safetensors` wrote: arrays and metadata, after the checksum has been verified.

    Args:
        path: the file.
        limit: most bytes that the file may have.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is not such a file, is too large, truncated, or any of its bytes has changed.
    """
    try:
        size = os.stat(path).st_size
        if size > limit:
            raise FormatError(f"{path} expects at most {limit} bytes, got {size}; raise the limit if you trust it")
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"{path} is expected to be a readable file, got {error.strerror or error}") from error
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, _HEADER_LIMIT):
        raise FormatError(f"{path} expects a safetensors header, got {len(content)} bytes without one; write it again")
    start = 8 + length
    header = _header(path, content[8:start])
    _verify(path, content, header)
    arrays = {name: _array(path, name, entry, memoryview(content)[start:]) for name, entry in header.items()
              if name != "__metadata__"}  # fmt: skip
    metadata = {name: value for name, value in header["__metadata__"].items() if name != "sha256"}
    return arrays, metadata


def _header(path: Any, encoded: bytes) -> dict[str, Any]:
    try:
        header = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} expects a JSON header, got something else; the file is damaged") from error
    text = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(text, dict) or not isinstance(text.get("sha256"), str) or len(text["sha256"]) != 64:
        raise FormatError(f"{path} expects a safetensors file with a checksum, got one without; write it with Obverse")
    return header


def _verify(path: Any, content: bytes, header: dict[str, Any]) -> None:
    stated = header["__metadata__"]["sha256"]
    # The digest is the first string value of the header; it is zeroed where it stands, and only there.
    marker = b'"sha256":"'
    where = content.find(marker, 8)
    begin = where + len(marker)
    if where < 0 or content[begin : begin + 64] != stated.encode("utf-8", "replace"):
        raise FormatError(f"{path} expects its checksum first in the header, got it elsewhere; the file is damaged")
    digest = hashlib.sha256(content[:begin])
    digest.update(_NO_DIGEST)
    digest.update(memoryview(content)[begin + 64 :])
    if digest.hexdigest() != stated:
        raise FormatError(
            f"{path} expects SHA-256 {stated[:12]}…, got {digest.hexdigest()[:12]}…: it has changed since it "
            "was written; fetch or make it again"
        )


def _array(path: Any, name: str, entry: Any, data: memoryview) -> np.ndarray:
    try:
        kind, shape, (begin, end) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        needed = check_size(shape, kind, len(data), f"array {name!r}")
        if begin < 0 or end - begin != needed or end > len(data):
            raise FormatError(f"{path} expects {needed} bytes for {name!r}, got {begin} to {end} of {len(data)}")
        return np.frombuffer(data[begin:end], kind).reshape(shape).copy()
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} expects type, shape and offsets for {name!r}, got {str(entry)[:80]}") from error


def _little_endian(name: str, array: Any) -> np.ndarray:
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy()
    array = np.asarray(array)
    if array.dtype.name not in _CODES:
        raise InputError(f"array {name!r} expects a real number type, got {array.dtype}; split complex into two parts")
    if name == "__metadata__":
        raise InputError("an array expects another name than '__metadata__', got it; rename the array")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def _bytes(array: np.ndarray) -> memoryview:
    """The array's memory, without a copy; a view with a zero size cannot be cast to bytes."""
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _check_free(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise InputError(f"{path} is expected to be a file to write, got a folder; give a file name")
    if not overwrite and path.exists():
        raise InputError(
            f"{path} is expected not to exist yet, got an existing file; choose another or allow overwriting"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path} expects an existing folder, got none at {path.parent}; make it first")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} is expected to be writable, got {error.strerror or error}; nothing was changed there: "
            "free some space, or choose another folder"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable where the system allows it; Windows cannot open a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
