"""Atomic files, limits and checksums."""

import hashlib
import struct

import numpy as np
import pytest
import safetensors.numpy
import torch

from obverse.errors import FormatError, InputError
from obverse.io.safe import atomic_write, check_size, read_safetensors, sha256, write_safetensors

ARRAYS = {
    "image": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "precise": np.array(np.pi),
    "empty": np.zeros((0, 5), np.int16),
    "mask": np.array([True, False]),
    "big-endian": np.arange(3, dtype=">i4"),
    "transposed": np.arange(6.0).reshape(2, 3).T,
}


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_arrays_and_text_come_back(tmp_path, kind):
    native = {name: array for name, array in ARRAYS.items() if name != "big-endian"}
    arrays = ARRAYS if kind == "numpy" else {name: torch.from_numpy(array) for name, array in native.items()}
    write_safetensors(tmp_path / "a", arrays, {"note": "µ 0.5 “quoted”"})
    found, text = read_safetensors(tmp_path / "a")
    assert text == {"note": "µ 0.5 “quoted”"}
    assert list(found) == list(arrays)
    for name, array in found.items():
        assert array.shape == ARRAYS[name].shape and array.dtype == ARRAYS[name].dtype.newbyteorder("<")
        assert np.array_equal(array, ARRAYS[name])
        assert array.flags.writeable


def test_the_file_is_read_by_the_safetensors_library_and_its_own_files_lack_our_checksum(tmp_path):
    write_safetensors(tmp_path / "a", ARRAYS, {"note": "x"})
    theirs = safetensors.numpy.load_file(tmp_path / "a")
    assert all(np.array_equal(theirs[name], ARRAYS[name]) for name in ARRAYS)
    safetensors.numpy.save_file({"image": ARRAYS["image"]}, tmp_path / "b", {"note": "x"})
    with pytest.raises(FormatError, match="checksum"):
        read_safetensors(tmp_path / "b")


def test_equal_content_gives_equal_bytes(tmp_path):
    digests = {write_safetensors(tmp_path / str(i), ARRAYS, {"b": "1", "a": "2"}) for i in range(2)}
    assert len(digests) == 1
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    assert sha256(tmp_path / "0") == hashlib.sha256((tmp_path / "0").read_bytes()).hexdigest()
    assert write_safetensors(tmp_path / "2", ARRAYS, {"b": "1", "a": "3"}) not in digests


def test_unfit_arrays_and_text_are_refused(tmp_path):
    path = tmp_path / "a"
    for arrays in ({"z": np.ones(2, complex)}, {"o": np.array([object()])}, {"__metadata__": np.ones(1)}):
        with pytest.raises(InputError):
            write_safetensors(path, arrays)
    for text in ({"sha256": "0"}, {"number": 3}):
        with pytest.raises(InputError, match="metadata"):
            write_safetensors(path, {}, text)
    assert not path.exists()


def test_existing_files_and_missing_folders(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(InputError, match="existing"):
        write_safetensors(path, ARRAYS)
    assert path.read_bytes() == b"before"
    with atomic_write(path, overwrite=True) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before", "the old file stays until the new one is whole"
    assert path.read_bytes() == b"after"
    with pytest.raises(InputError, match="folder"), atomic_write(tmp_path / "none" / "a"):
        pytest.fail("a missing folder must be noticed before the work")
    with pytest.raises(InputError, match="folder"), atomic_write(tmp_path, overwrite=True):
        pytest.fail("a folder is not a file")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(InputError, match="existing"), atomic_write(path) as file:
        file.write(b"mine")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_sizes_are_checked_before_allocation():
    assert check_size((2, 3), np.float64, 48) == 48
    assert check_size((), "float32", 4) == 4
    for shape in ((-1, 3), (2.0, 3), (True, 3), ("2",)):
        with pytest.raises(FormatError, match="sizes"):
            check_size(shape, "uint8", 100)
    with pytest.raises(FormatError, match="MiB"):
        check_size((2**40, 2**40, 2**40), "uint8", 2**62)
    with pytest.raises(FormatError, match="volume"):
        check_size((7, 7), "float64", 48, "the volume")


def test_a_file_above_the_limit_is_not_read(tmp_path):
    write_safetensors(tmp_path / "a", ARRAYS)
    with pytest.raises(FormatError, match="at most 100"):
        read_safetensors(tmp_path / "a", limit=100)


def test_missing_files_are_input_errors(tmp_path):
    for reader in (read_safetensors, sha256):
        with pytest.raises(InputError, match="readable"):
            reader(tmp_path / "absent")


def signed(header: bytes, data: bytes = b"") -> bytes:
    """A file whose checksum is right although its header is hostile."""
    prefix = struct.pack("<Q", len(header)) + header
    digest = hashlib.sha256(prefix + data).hexdigest().encode()
    return prefix.replace(b"0" * 64, digest, 1) + data


@pytest.mark.parametrize(
    "entry",
    [
        '"a":{"dtype":"F64","shape":[1099511627776],"data_offsets":[0,8]}',
        '"a":{"dtype":"F64","shape":[1],"data_offsets":[0,800]}',
        '"a":{"dtype":"F64","shape":[1],"data_offsets":[-8,0]}',
        '"a":{"dtype":"F64","shape":[-1],"data_offsets":[0,8]}',
        '"a":{"dtype":"F64","shape":["1"],"data_offsets":[0,8]}',
        '"a":{"dtype":"F64","shape":1,"data_offsets":[0,8]}',
        '"a":{"dtype":"EXEC","shape":[1],"data_offsets":[0,8]}',
        '"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8,9]}',
        '"a":{"dtype":["F64"],"shape":[1],"data_offsets":[0,8]}',
        '"a":{"shape":[1]}',
        '"a":null',
    ],
)
def test_hostile_headers_are_refused(tmp_path, entry):
    good = '"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}'
    start = '{"__metadata__":{"sha256":"' + "0" * 64 + '"},'
    path = tmp_path / "a"
    path.write_bytes(signed((start + good + "}").encode(), bytes(8)))
    assert read_safetensors(path)[0]["a"].tolist() == [0.0], "the crafted file itself is sound"
    path.write_bytes(signed((start + entry + "}").encode(), bytes(8)))
    with pytest.raises(FormatError):
        read_safetensors(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"short", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2) + b"{}"]
    + [struct.pack("<Q", 200_000) + b"[" * 200_000, struct.pack("<Q", 4) + b"\xff\xfe\x00\x01"],
    ids=["empty", "short", "huge header", "a list", "no metadata", "deep nesting", "not text"],
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FormatError):
        read_safetensors(tmp_path / "a")
